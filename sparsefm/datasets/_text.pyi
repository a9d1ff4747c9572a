from mmap import mmap
from typing import Any

from numpy import float64, int32, uint8
from numpy.typing import NDArray

def count(text: bytes | mmap, start: int, stop: int) -> tuple[int, int]: ...
def parse(
    text: bytes | mmap,
    start: int,
    stop: int,
    first: int,
    n_features: int,
    ends: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    y: NDArray[float64],
    fields: NDArray[int32] | None,
) -> tuple[int, int, int, int, bool]: ...
def merge_fields(table: NDArray[int32], ends: NDArray[Any], indices: NDArray[Any], fields: NDArray[int32]) -> int: ...
def write(
    out: NDArray[uint8],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    y: NDArray[float64],
    fields: NDArray[int32] | None,
    first: int,
    row: int,
    entry: int,
) -> tuple[int, int, int]: ...
