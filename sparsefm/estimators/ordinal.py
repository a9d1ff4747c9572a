"""Ordered levels: ratings in stars, grades, answers from never to always."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..model import Posterior
from ..validation import check_target
from .base import _BaseFM

_MOST_LEVELS = 256


class FMOrdinal(RegressorMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for ordered levels by ordered probit (Albert & Chib 1993).

    Behind each row stands a normal number around its score; the level is the interval between cut points that it falls
    into. The cut points are drawn with all else, so that levels need not be evenly apart: four stars may be nearer to
    five than three are.

    Parameters
    ----------
    n_factors : int
    solver : "mcmc" or an MCMC object
    encoder, fields, callbacks, n_threads, random_state, verbose
        As for FMRegressor.
    init_std : float

    Attributes
    ----------
    levels_ : (n_levels,)
        The values of the training target, ascending.
    posterior_ : Posterior
        `cuts` holds the cut points of each draw.

    Notes
    -----
    The others are FMRegressor's.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMOrdinal
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> model = FMOrdinal(2, random_state=0).fit(X, [1, 2, 2, 5] * 25)
    >>> model.levels_
    array([1., 2., 5.])
    """

    _LOSSES = ("ordinal",)

    levels_: NDArray[np.float64]

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = "mcmc",
        init_std: float = 0.01,
        encoder: Any = None,
        fields: Any = None,
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.init_std = init_std
        self.encoder = encoder
        self.fields = fields
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    # what MCMC has no use for
    loss = "ordinal"
    l2_linear = l2_prior = 0.0
    l2_factors = None
    early_stopping = warm_start = False
    validation_fraction = 0.1
    eval_metric = "loss"

    def _learn_target(self, y: Any, weight: NDArray[Any] | None, dtype: Any) -> None:
        self.levels_ = np.unique(check_target(y, len(y)))
        if not 2 <= len(self.levels_) <= _MOST_LEVELS:
            hint = f" (n_samples={len(y)})" if len(self.levels_) < 2 else ": round y, or use FMRegressor"
            raise ValueError(f"y has {len(self.levels_)} levels; ordered levels are 2 to {_MOST_LEVELS}{hint}")

    def _targets(self, y: Any, n_rows: int, name: str = "y") -> list[NDArray[np.float64]]:
        y = check_target(y, n_rows, name=name)
        codes = np.searchsorted(self.levels_, y).clip(max=len(self.levels_) - 1)
        if not np.array_equal(self.levels_[codes], y):
            other = y[self.levels_[codes] != y][0]
            raise ValueError(f"{name} has the level {other:g}; those of the training rows are {self.levels_.tolist()}")
        return [codes.astype(np.float64)]

    def _start_of(self, target: NDArray[np.float64], weight: NDArray[Any] | None) -> float:
        return 0.0

    def _predicted(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(scores, np.float64)

    def predict_proba(self, X: Any, *, return_std: bool = False) -> Any:
        """Probability of each level (n_rows, n_levels), in the order of levels_; with return_std=True also its standard
        deviation over the draws, of the same shape."""
        check_is_fitted(self)
        draws, rows = self.posterior_, self._encode(X)
        assert isinstance(draws, Posterior)
        assert draws.cuts is not None
        mean: Any = 0.0
        squares: Any = 0.0
        each = zip(draws.scores(rows, n_threads=self.n_threads), draws.cuts, strict=True)
        for n, (scores, cuts) in enumerate(each, 1):
            below = ndtr(cuts - scores.astype(np.float64)[:, None])
            share = np.diff(below, axis=1, prepend=0.0, append=1.0)
            off = share - mean
            mean = mean + off / n
            squares = squares + off * (share - mean)
        return (mean, np.sqrt(squares / len(draws))) if return_std else mean

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The expected level (n_rows,): the mean of levels_ under their probabilities."""
        return np.asarray(self.predict_proba(X) @ self.levels_)
