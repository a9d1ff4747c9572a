"""Solvers: how the parameters are found. Each object holds its own options; estimators take one, or its name."""

from __future__ import annotations

from typing import Any

from .als import ALS, penalties
from .auto import Auto
from .engine import Interrupted
from .first_order import FTRL, SGD, AdaGrad, Adam
from .fold import Fold
from .mcmc import MCMC
from .problem import LOSSES, DivergenceError, Problem
from .ranking import BPR, WARP, ImplicitALS, RankingProblem
from .shared import CosineContrastive, SampledSoftmax
from .sweep import Prior

__all__ = [
    "ALS",
    "BPR",
    "FTRL",
    "LOSSES",
    "MCMC",
    "RANKERS",
    "SGD",
    "SOLVERS",
    "WARP",
    "AdaGrad",
    "Adam",
    "Auto",
    "CosineContrastive",
    "DivergenceError",
    "Fold",
    "ImplicitALS",
    "Interrupted",
    "Prior",
    "Problem",
    "RankingProblem",
    "SampledSoftmax",
    "make_solver",
    "penalties",
]

SOLVERS: dict[str, Any] = {
    "adagrad": AdaGrad,
    "sgd": SGD,
    "adam": Adam,
    "ftrl": FTRL,
    "als": ALS,
    "mcmc": MCMC,
    "auto": Auto,
}
RANKERS: dict[str, Any] = {
    "bpr": BPR,
    "warp": WARP,
    "sampled_softmax": SampledSoftmax,
    "cosine_contrastive": CosineContrastive,
    "implicit_als": ImplicitALS,
}


def make_solver(solver: Any, known: dict[str, Any] = SOLVERS) -> Any:
    """The solver object meant by a name or an object; known: SOLVERS, or RANKERS for a ranking."""
    if isinstance(solver, str) and solver in known:
        return known[solver]()
    ranks = isinstance(solver, tuple(RANKERS.values()))
    if hasattr(solver, "solve") and not isinstance(solver, type) and ranks == (known is RANKERS):
        return solver
    names, example = ", ".join(map(repr, known)), "WARP" if known is RANKERS else "AdaGrad"
    raise ValueError(f"solver must be one of {names} or a solver object such as {example}(max_iter=50), got {solver!r}")
