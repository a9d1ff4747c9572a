"""What every solver is given. It gives back the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..validation import Rows

__all__ = ["LOSSES", "DivergenceError", "Problem", "mean_loss"]


class DivergenceError(ValueError):
    """Training left the finite numbers, or ran away from them."""


# Names of the pointwise losses and their numbers in _kernels/losses.h, where they are defined.
LOSSES = {"squared": 0, "logistic": 1}


@dataclass(frozen=True)
class Problem:
    """Minimise over the parameters, s_i the weights of mean 1 and n the number of rows,

        (1/n) Σ_i s_i ℓ(y_i, score_i) + ½ Σ_j c_j (l2_linear · w_j² + l2_factors · ‖v_j‖²)

    with c_j = (1/n) Σ of the weights of the rows in which feature j is not zero. w0 is not penalised.
    """

    rows: Rows
    y: NDArray[Any]  # (n_rows,) in the rows' type
    weight: NDArray[Any] | None  # (n_rows,) with mean 1, None: all one
    loss: str  # a key of LOSSES
    w0: float  # where the bias starts
    n_factors: int
    l2_linear: float
    l2_factors: float
    init_std: float
    seed: int
    n_threads: int | None
    evaluation: tuple[Rows, NDArray[Any], NDArray[Any] | None] | None  # rows, y, weight to watch
    early_stopping: bool  # stop by the loss on `evaluation`, and keep the best epoch's parameters
    report: Callable[[dict[str, Any]], bool]  # called with the record of each epoch; True stops


def mean_loss(loss: str, y: NDArray[Any], score: NDArray[Any], weight: NDArray[Any] | None) -> float:
    """Weighted mean of ℓ(y, score), in float64. y is 0 or 1 for "logistic"."""
    y, score = y.astype(np.float64), score.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite loss is reported by the caller
        if loss == "logistic":
            each = np.maximum(score, 0) + np.log1p(np.exp(-np.abs(score))) - y * score
        else:
            each = 0.5 * (score - y) ** 2
        return float(np.average(each, weights=weight))
