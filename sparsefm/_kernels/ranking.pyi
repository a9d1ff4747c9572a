from typing import Any

from numpy.typing import NDArray

def epoch(
    table: NDArray[Any],
    sums: NDArray[Any],
    context_indptr: NDArray[Any],
    context_indices: NDArray[Any],
    context_data: NDArray[Any] | None,
    item_indptr: NDArray[Any],
    item_indices: NDArray[Any],
    item_data: NDArray[Any] | None,
    starts: NDArray[Any],
    context: NDArray[Any],
    item: NDArray[Any],
    weight: NDArray[Any] | None,
    order: NDArray[Any],
    warp: bool,
    popular: bool,
    max_trials: int,
    rate: float,
    epsilon: float,
    key: int,
    isa: int,
) -> tuple[float, int]: ...
