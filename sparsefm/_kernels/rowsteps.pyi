OPTIMISERS: dict[str, int]

def ascending_at(features: int, n: int, n_features: int) -> bool: ...
def step_at(
    isa: int,
    is_f64: bool,
    start: int,
    stop: int,
    features: int,
    n: int,
    gradient: int,
    table: int,
    v_stride: int,
    n_factors: int,
    first: int,
    second: int,
    powers: int,
    optimiser: int,
    rate: float,
    epsilon: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
) -> None: ...
