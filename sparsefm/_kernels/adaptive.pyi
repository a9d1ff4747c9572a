from typing import Any

from numpy.typing import NDArray

def epoch(
    table: NDArray[Any],
    sums: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    row_length: int,
    y: NDArray[Any],
    weight: NDArray[Any] | None,
    order: NDArray[Any],
    w0: float,
    w0_state: float,
    optimiser: int,
    loss: int,
    learning_rate: float,
    epsilon: float,
    l2_linear: float,
    l2_factors: float,
    isa: int,
) -> tuple[float, float, float]: ...
def shuffle(order: NDArray[Any], seed: int) -> None: ...
def fill_uniform(V: NDArray[Any], n_factors: int, features: NDArray[Any], std: float, seed: int) -> None: ...
