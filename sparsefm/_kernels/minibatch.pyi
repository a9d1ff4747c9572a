from typing import Any

from numpy.typing import NDArray

teams: bool

class Pass:
    begun: bool
    def work(self, member: int) -> None: ...
    def result(self) -> tuple[float, int]: ...

def open_pass(
    table: NDArray[Any],
    bias: NDArray[Any],
    sums: NDArray[Any],
    d: NDArray[Any],
    gradients: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    y: NDArray[Any],
    weight: NDArray[Any] | None,
    order: NDArray[Any],
    features: NDArray[Any],
    ends: NDArray[Any],
    entry_rows: NDArray[Any],
    entry_data: NDArray[Any] | None,
    entry_from: NDArray[Any],
    n_columns: NDArray[Any],
    batches: NDArray[Any],
    kp: int,
    optimiser: int,
    steps: tuple[float, ...],
    n_factors: int,
    loss: int,
    shape: float,
    key: int,
    isa: int,
) -> Pass: ...
def compact_scores(
    out: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    table: NDArray[Any],
    kp: int,
    w0: float,
    start: int,
    stop: int,
    isa: int,
) -> None: ...
