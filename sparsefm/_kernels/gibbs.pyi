from typing import Any

from numpy.typing import NDArray

most_partners: int

def size_of_gram(k: int) -> int: ...
def scratch_of(k: int, width: int) -> int: ...
def gather(
    tables: list[NDArray[Any]],
    entities: list[NDArray[Any]],
    target: NDArray[Any],
    weight: NDArray[Any] | None,
    starts: NDArray[Any],
    grams: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    total: NDArray[Any] | None,
    sums: NDArray[Any] | None,
    scratch: NDArray[Any],
    w0: float,
    k: int,
    width: int,
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def columns(
    old: NDArray[Any],
    step: NDArray[Any] | None,
    total: NDArray[Any],
    residual: NDArray[Any] | None,
    of_entities: NDArray[Any] | None,
    weight: NDArray[Any] | None,
    starts: NDArray[Any],
    of: NDArray[Any],
    rows: NDArray[Any],
    data: NDArray[Any] | None,
    grams: NDArray[Any] | None,
    scratch: NDArray[Any],
    k: int,
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def settle(
    own: NDArray[Any],
    of_entities: NDArray[Any],
    left: NDArray[Any],
    scratch: NDArray[Any],
    k: int,
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def chain(
    old: NDArray[Any],
    step: NDArray[Any],
    total: NDArray[Any],
    residual: NDArray[Any] | None,
    of_entities: NDArray[Any] | None,
    weight: NDArray[Any] | None,
    starts: NDArray[Any],
    of: NDArray[Any],
    rows: NDArray[Any],
    data: NDArray[Any] | None,
    gram: NDArray[Any],
    features: NDArray[Any],
    group: NDArray[Any],
    mean: NDArray[Any],
    precision: NDArray[Any],
    strength: NDArray[Any] | None,
    alpha: float,
    noise: bool,
    key: int,
    gain: NDArray[Any],
    scratch: NDArray[Any],
    isa: int,
) -> None: ...
def draw(
    grams: NDArray[Any],
    segments: NDArray[Any],
    apart: bool,
    values: NDArray[Any] | None,
    features: NDArray[Any],
    group: NDArray[Any],
    mean: NDArray[Any],
    precision: NDArray[Any],
    strength: NDArray[Any] | None,
    alpha: float,
    noise: bool,
    key: int,
    old: NDArray[Any],
    step: NDArray[Any],
    gain: NDArray[Any],
    left: NDArray[Any] | None,
    scratch: NDArray[Any],
    start: int,
    stop: int,
    isa: int,
) -> None: ...
def latents(
    out: NDArray[Any],
    score: NDArray[Any],
    level: NDArray[Any],
    cuts: NDArray[Any],
    rows: NDArray[Any],
    key: int,
    start: int,
    stop: int,
) -> None: ...
def cut_slopes(
    sums: NDArray[Any],
    score: NDArray[Any],
    level: NDArray[Any],
    cuts: NDArray[Any],
    size: int,
    start: int,
    stop: int,
) -> None: ...
def normal_quantiles(p: NDArray[Any], out: NDArray[Any]) -> None: ...
def mixed(a: int, b: int) -> int: ...
