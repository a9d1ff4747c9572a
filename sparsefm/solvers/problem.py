"""What every solver is given, and how it complains. It gives back the parameters."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr
from sklearn.exceptions import ConvergenceWarning

from ..model import PAIRS, Family, FMParams
from ..validation import Relations, Rows

__all__ = ["HALVINGS", "LOSSES", "DivergenceError", "Problem", "judge", "losses", "mean_loss", "warn"]


class DivergenceError(ValueError):
    """Training left the finite numbers, or ran away from them."""


HALVINGS = 12  # of the step, before a training that runs away is given up

_HOUSE = str(Path(__file__).parents[1]) + os.sep

PAIR_SHARE = 0.1  # of the mean l2_factors, the penalty of field weights

# Names of the pointwise losses and their numbers in _kernels/losses.h, where they are defined.
LOSSES = {"squared": 0, "logistic": 1, "hinge": 2, "poisson": 3, "huber": 4, "quantile": 5}


@dataclass(frozen=True)
class Problem:
    """Minimise over the parameters, s_i the weights of mean 1 and n the number of rows,

        (1/n) Σ_i s_i ℓ(y_i, score_i) + ½ Σ_j c_j (l2_linear · w_j² + l2_factors_j · ‖v_j‖²)

    with c_j = (n_j + l2_prior) / n and n_j the sum of the weights of the rows in which feature j is not zero; a feature
    that never is has no penalty. w0 is not penalised. Field weights r are drawn to one by

        ½ PAIR_SHARE · l2_factors · c_fg (r_fg − 1)²

    with c_fg the share of rows that have both fields: else they would grow, the factors shrink, and L2 do nothing.
    """

    rows: Rows
    y: NDArray[Any]  # (n_rows,) in the rows' type
    weight: NDArray[Any] | None  # (n_rows,) with mean 1, None: all one
    loss: str  # a key of LOSSES
    w0: float  # where the bias starts
    n_factors: int
    l2_linear: float
    l2_factors: Any  # float, or (n_features,)
    init_std: float
    seed: int
    n_threads: int | None
    evaluation: tuple[Rows, NDArray[Any], NDArray[Any] | None] | None  # rows, y, weight to watch
    early_stopping: bool  # stop by what is watched, and keep the best epoch's parameters
    report: Callable[[dict[str, Any]], bool]  # called with the record of each epoch; True stops
    shape: float = 0.0  # of the loss: δ of "huber", τ of "quantile"
    l2_prior: float = 0.0
    # of the watched scores, (value, whether more is better), which early stopping then goes by; None: their loss
    judge: Callable[[NDArray[Any]], tuple[float, bool]] | None = None
    judged_by: str = "loss"  # its name
    start: FMParams | None = None  # parameters to go on from
    bucket: NDArray[np.int32] | None = None  # (n_features,) column of unknown levels of each column's field, −1: none
    resume: Any = None  # (meta, arrays) of a checkpoint to go on from
    recall: Callable[[list[dict[str, Any]]], None] | None = None  # called with the records of the epochs before it
    progress: Callable[[int, float], None] | None = None  # called within long epochs with the epoch and the share done
    fields: NDArray[np.int32] | None = None  # (n_features,) field of each column
    family: Family = PAIRS
    # what l2_factors is multiplied by for each vector of a feature, None: one
    l2_of_blocks: tuple[float, ...] | None = None
    relations: Relations | None = None  # `rows` with the blocks beside them, for solvers that take these
    name_of: Callable[[int], str] = field(default=lambda j: f"column {j}")  # what errors call a feature


def warn(message: str) -> None:
    """A ConvergenceWarning at the line that called the package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HOUSE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConvergenceWarning, stacklevel=level)


def losses(loss: str, y: NDArray[Any], score: NDArray[Any], shape: float = 0.0) -> NDArray[np.float64]:
    """ℓ(y, score) of each row, in float64. y is 0 or 1 for "logistic", "probit" and "hinge"."""
    y, score = np.asarray(y, np.float64), np.asarray(score, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite loss is reported by the caller
        if loss == "probit":
            each = -log_ndtr((2 * y - 1) * score)
        elif loss == "logistic":
            each = np.maximum(score, 0) + np.log1p(np.exp(-np.abs(score))) - y * score
        elif loss == "hinge":
            each = np.maximum(0, 1 - (2 * y - 1) * score)
        elif loss == "poisson":
            each = np.exp(score) - y * score
        else:
            r = np.abs(score - y)
            if loss == "huber":
                each = np.where(r <= shape, 0.5 * r**2, shape * (r - 0.5 * shape))
            elif loss == "quantile":
                each = np.where(y > score, shape, 1 - shape) * r
            else:
                each = 0.5 * r**2
    return np.asarray(each, np.float64)


def mean_loss(
    loss: str, y: NDArray[Any], score: NDArray[Any], weight: NDArray[Any] | None, shape: float = 0.0
) -> float:
    """Weighted mean of ℓ(y, score)."""
    return float(np.average(losses(loss, y, score, shape), weights=weight))


def judge(problem: Problem, scores: NDArray[Any], record: dict[str, Any]) -> float:
    """Puts what is said of the scores of the watched rows into the record; returns what early stopping makes small."""
    assert problem.evaluation is not None
    _, y, weight = problem.evaluation
    record["eval_loss"] = mean_loss(problem.loss, y, scores, weight, problem.shape)
    if problem.judge is None or not np.isfinite(record["eval_loss"]):
        return float(record["eval_loss"])
    record["eval_metric"], more_is_better = problem.judge(scores)
    return -record["eval_metric"] if more_is_better else float(record["eval_metric"])
