from typing import Any

from numpy.typing import NDArray

def top(
    scores: NDArray[Any],
    users: NDArray[Any],
    items: NDArray[Any],
    bias: NDArray[Any],
    slack: NDArray[Any],
    starts: NDArray[Any] | None,
    seen: NDArray[Any] | None,
    ids: NDArray[Any],
    top: NDArray[Any],
    heap: NDArray[Any],
    near: NDArray[Any],
    start: int,
    stop: int,
    isa: int,
) -> None: ...
