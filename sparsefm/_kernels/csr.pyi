from typing import Any

from numpy.typing import NDArray

def scan_indptr(indptr: NDArray[Any], nnz: int) -> tuple[int, int]: ...
def scan(
    indices: NDArray[Any], data: NDArray[Any], indptr: NDArray[Any], n_features: int
) -> tuple[int, int, bool, bool, bool]: ...
def transpose(
    features: NDArray[Any],
    colptr: NDArray[Any],
    entries: NDArray[Any],
    entry_rows: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
) -> int: ...
