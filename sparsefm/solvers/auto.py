"""The solver that sets itself: which layout, how strong a penalty and how many passes, from the data."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from ..model import FMParams
from ..validation import check_positive
from .engine import Interrupted
from .first_order import AdaGrad
from .problem import Problem

__all__ = ["Auto"]

_FEWEST = 500  # rows from which a part can be set aside to choose by
_SAMPLE = 400_000  # rows at most that the choice is made on
_STRENGTHS = (1.0, 4.0)  # times l2_factors and l2_linear as given
_LARGE = 2 << 30  # bytes of AdaGrad's table from which one sum of squares a row is kept instead


class Auto(BaseEstimator):  # type: ignore[misc]
    """AdaGrad with its number of passes and the strength of its penalties chosen by a short search.

    The rule. From 500 rows on a tenth of them is set aside, or of a sample of 400,000 if there are more; AdaGrad
    is fitted to the others with the penalties as given and four times as strong, each time until what is set aside
    has not bettered for three passes; the better strength and its best number of passes then train on all rows.
    Below 500 rows, the defaults of AdaGrad train on all. A table of more than 2 GiB takes rowwise=True. Learning rate
    and batch_size are AdaGrad's own rules. With early stopping asked for, the last training ends by it.

    Parameters
    ----------
    max_iter : int
        Passes at most, of each of the trainings.
    patience : int
        Passes without gain after which one ends.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> FMRegressor(solver="auto")
    FMRegressor(solver='auto')
    """

    def __init__(self, *, max_iter: int = 40, patience: int = 3) -> None:
        self.max_iter = max_iter
        self.patience = patience

    def solve(self, problem: Problem) -> FMParams:
        """The parameters; a function of the problem and its seed alone."""
        check_positive(self.max_iter, "Auto(max_iter)", integer=True)
        check_positive(self.patience, "Auto(patience)", integer=True)
        if problem.resume is not None:
            raise ValueError("resume goes on from the checkpoint of a solver that wrote one; solver='auto' does not")
        rows = problem.rows
        width = rows.n_features * (2 * problem.family.blocks * problem.n_factors + 8) * rows.dtype.itemsize
        rowwise = width > _LARGE
        counted = np.arange(rows.n_rows) if problem.weight is None else np.flatnonzero(problem.weight > 0)
        if len(counted) < _FEWEST:
            return AdaGrad(rowwise=rowwise, max_iter=min(self.max_iter, AdaGrad().max_iter)).solve(problem)
        order = np.random.default_rng(problem.seed).permutation(counted)[:_SAMPLE]
        watched, kept = (np.sort(part) for part in np.split(order, [len(order) // 10]))
        best: tuple[float, float, int] = (np.inf, 1.0, 1)
        for strength in _STRENGTHS:
            loss, passes = self._try(problem, kept, watched, strength, rowwise)
            if loss < best[0]:
                best = (loss, strength, passes)
        _, strength, passes = best
        if problem.early_stopping:
            passes = self.max_iter
        return AdaGrad(max_iter=passes, patience=self.patience, rowwise=rowwise).solve(_stronger(problem, strength))

    def _try(
        self, problem: Problem, kept: NDArray[Any], watched: NDArray[Any], strength: float, rowwise: bool
    ) -> tuple[float, int]:
        """The best loss on the watched rows after training on those kept, and the pass it was reached in."""
        seen: list[float] = []

        def report(record: dict[str, Any]) -> bool:
            del seen[record["epoch"] - 1 :]  # those that were taken back
            seen.append(record["eval_loss"])
            return False

        def part(values: NDArray[Any] | None, of: NDArray[Any]) -> NDArray[Any] | None:
            return None if values is None else values[of]

        y, y_watched = problem.y[kept], problem.y[watched]
        weight = part(problem.weight, kept)
        trial = replace(
            _stronger(problem, strength),
            rows=problem.rows.take(kept),
            y=y,
            weight=None if weight is None else (weight / weight.mean()).astype(weight.dtype),
            evaluation=(problem.rows.take(watched), y_watched, part(problem.weight, watched)),
            early_stopping=True,
            judge=None,
            report=report,
        )
        try:
            with warnings.catch_warnings():  # of a trial that is worse: it is not chosen
                warnings.simplefilter("ignore", ConvergenceWarning)
                AdaGrad(max_iter=self.max_iter, patience=self.patience, rowwise=rowwise).solve(trial)
        except Interrupted:
            raise KeyboardInterrupt from None  # what a trial has learned is no fit
        best = int(np.argmin(seen))
        return seen[best], best + 1


def _stronger(problem: Problem, strength: float) -> Problem:
    return replace(problem, l2_linear=problem.l2_linear * strength, l2_factors=problem.l2_factors * strength)
