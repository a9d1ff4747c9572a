from typing import Any

from numpy.typing import NDArray

teams: bool
batch_size: int

class Pass:
    begun: bool
    def work(self, member: int) -> None: ...
    def result(self) -> tuple[float, int]: ...

def open_pass(
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
    members: int,
    isa: int,
) -> Pass: ...
def rows(
    table: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any] | None,
    chosen: NDArray[Any],
    sums: NDArray[Any],
    strength: NDArray[Any] | None,
    rate: float,
    epsilon: float,
    isa: int,
) -> None: ...
