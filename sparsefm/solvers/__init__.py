"""Solvers: how the parameters are found. Each object holds its own options; estimators take one, or its name."""

from __future__ import annotations

from typing import Any

from .als import ALS
from .auto import Auto
from .engine import Interrupted
from .first_order import FTRL, SGD, AdaGrad, Adam
from .mcmc import MCMC
from .problem import LOSSES, DivergenceError, Problem

__all__ = [
    "ALS",
    "FTRL",
    "LOSSES",
    "MCMC",
    "SGD",
    "SOLVERS",
    "AdaGrad",
    "Adam",
    "Auto",
    "DivergenceError",
    "Interrupted",
    "Problem",
    "make_solver",
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


def make_solver(solver: Any) -> Any:
    """The solver object meant by a name or an object."""
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]()
    if hasattr(solver, "solve") and not isinstance(solver, type):
        return solver
    names = ", ".join(map(repr, SOLVERS))
    raise ValueError(f"solver must be one of {names} or a solver object such as AdaGrad(max_iter=50), got {solver!r}")
