from typing import Any

from numpy.typing import NDArray

def scan_indptr(indptr: NDArray[Any], nnz: int) -> tuple[int, int]: ...
def scan(
    indices: NDArray[Any], data: NDArray[Any], indptr: NDArray[Any], n_features: int
) -> tuple[int, int, bool, bool, bool]: ...
def transpose(
    features: NDArray[Any],
    colptr: NDArray[Any],
    entry_rows: NDArray[Any],
    entry_data: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
) -> int: ...
def batch_columns(
    features: NDArray[Any],
    ends: NDArray[Any],
    entry_rows: NDArray[Any],
    entry_data: NDArray[Any] | None,
    n_columns: NDArray[Any],
    entry_from: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    order: NDArray[Any],
    batch_size: int,
    start: int,
    stop: int,
) -> None: ...
def count(out: NDArray[Any], indptr: NDArray[Any], indices: NDArray[Any], weight: NDArray[Any] | None) -> None: ...
def norms(indptr: NDArray[Any], data: NDArray[Any], weight: NDArray[Any] | None) -> tuple[float, float]: ...
def transpose_at(
    is_f64: bool,
    is_i64: bool,
    n_rows: int,
    nnz: int,
    features: int,
    colptr: int,
    entry_rows: int,
    entry_data: int,
    indptr: int,
    indices: int,
    data: int,
) -> int: ...
def valid_at(is_i64: bool, n_rows: int, nnz: int, n_features: int, indptr: int, indices: int) -> bool: ...
