from typing import Any

from numpy.typing import NDArray

def tail_of(optimiser: int, kp: int) -> int: ...
def epoch(
    table: NDArray[Any],
    bias: NDArray[Any],
    sums: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    row_length: int,
    y: NDArray[Any],
    weight: NDArray[Any] | None,
    order: NDArray[Any],
    bucket: NDArray[Any] | None,
    kept_indices: NDArray[Any] | None,
    kept_data: NDArray[Any] | None,
    dropout: float,
    first: int,
    optimiser: int,
    steps: tuple[float, ...],
    n_factors: int,
    loss: int,
    shape: float,
    key: int,
    isa: int,
) -> tuple[float, int]: ...
def shuffle(order: NDArray[Any], seed: int) -> None: ...
def fill_uniform(
    V: NDArray[Any], first: int, n_factors: int, features: NDArray[Any], std: float, seed: int, half: bool = False
) -> None: ...
