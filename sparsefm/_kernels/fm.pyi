from typing import Any

from numpy.typing import NDArray

def forward(
    out: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    w0: float,
    w: NDArray[Any],
    V: NDArray[Any],
    sums: NDArray[Any] | None,
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def backward_rows(
    g_data: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    w: NDArray[Any],
    V: NDArray[Any],
    sums: NDArray[Any],
    d: NDArray[Any],
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def backward_columns(
    g_w: NDArray[Any],
    g_V: NDArray[Any],
    features: NDArray[Any],
    colptr: NDArray[Any],
    entry_rows: NDArray[Any],
    entry_data: NDArray[Any] | None,
    V: NDArray[Any],
    sums: NDArray[Any],
    d: NDArray[Any],
    start: int,
    stop: int,
    isa: int,
) -> None: ...
