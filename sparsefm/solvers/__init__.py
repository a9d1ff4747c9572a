"""Solvers: how the parameters are found. Each object holds its own options; estimators take one, or its name."""

from __future__ import annotations

from typing import Any

from .fused import SGD, AdaGrad
from .problem import DivergenceError, Problem

__all__ = ["SGD", "SOLVERS", "AdaGrad", "DivergenceError", "Problem", "make_solver"]

SOLVERS: dict[str, type[AdaGrad] | type[SGD]] = {"adagrad": AdaGrad, "sgd": SGD}


def make_solver(solver: Any) -> Any:
    """The solver object meant by a name or an object."""
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]()
    if hasattr(solver, "solve") and not isinstance(solver, type):
        return solver
    names = ", ".join(map(repr, SOLVERS))
    raise ValueError(f"solver must be one of {names} or a solver object such as AdaGrad(max_iter=50), got {solver!r}")
