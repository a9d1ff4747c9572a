"""The first-order solvers as objects: their options, and what these mean to the engine."""

from __future__ import annotations

import os
from typing import Any

from sklearn.base import BaseEstimator

from ..model import FMParams
from ..validation import check_positive
from .engine import Method, solve
from .problem import LOSSES, Problem

__all__ = ["FTRL", "SGD", "AdaGrad", "Adam"]

# Rows of a minibatch, and the fewest non-zeros for which finding the columns pays: see `batch_size` in AdaGrad.
_BATCH = 2048
_WORTH_BATCHING = 1 << 19
_SLOWEST = 1 - 1e-6  # decay of a mean in float32
_FEWEST_BATCHES = 128  # in an epoch: the first steps of fewer, all of full length, may run away


class _FirstOrder(BaseEstimator):  # type: ignore[misc]
    """Options that all of them have. `solve` is the engine's."""

    max_iter: int
    learning_rate: float | None
    batch_size: int | None
    dropout: float
    average: int
    tol: float
    patience: int
    shuffle: bool
    checkpoint: str | os.PathLike[str] | None
    checkpoint_epochs: int
    checkpoint_minutes: float

    _default_rate: float  # for rows with two ones
    _epsilon = 0.0

    _table: str  # its layout

    def _layout(self) -> str:
        return self._table

    def _check(self) -> None:
        name = type(self).__name__
        for option in ("max_iter", "patience", "checkpoint_epochs"):
            check_positive(getattr(self, option), f"{name}({option})", integer=True)
        for option in ("learning_rate", "batch_size"):
            if getattr(self, option) is not None:
                check_positive(getattr(self, option), f"{name}({option})", integer=option == "batch_size")
        for option in ("tol", "checkpoint_minutes", "dropout", "average"):
            check_positive(getattr(self, option), f"{name}({option})", zero=True, integer=option == "average")
        if self.average > self.max_iter:
            raise ValueError(f"{name}(average) is the first of at most {self.max_iter} epochs, got {self.average}")
        if not self.dropout < 1:
            raise ValueError(f"{name}(dropout) must be less than 1, got {self.dropout!r}")
        if self.batch_size is not None and self.batch_size > 1 << 16:
            raise ValueError(f"{name}(batch_size) must be at most {1 << 16}, got {self.batch_size}")
        if self.dropout > 0 and self.batch_size not in (None, 1):
            raise ValueError(f"{name}(dropout) needs batch_size=1: the columns of a minibatch are found once")
        if not isinstance(self.shuffle, bool):
            raise TypeError(f"{name}(shuffle) must be True or False, got {self.shuffle!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, os.PathLike)):
            raise TypeError(f"{name}(checkpoint) must be a path or None, got {self.checkpoint!r}")

    def _method(self, problem: Problem, **more: Any) -> Method:
        self._check()
        if problem.loss not in LOSSES:
            raise ValueError(
                f"{type(self).__name__} knows the losses {', '.join(LOSSES)}, not {problem.loss!r}, which needs "
                "solver='mcmc'"
            )
        name = type(self).__name__
        if problem.family.kind != "fm" and self.batch_size not in (None, 1):
            raise ValueError(
                f"{name}(batch_size) must be None or 1 for machines that are not of second order or know fields, which "
                f"train sample after sample; got {self.batch_size}"
            )
        if problem.family.kind != "fm" and self._layout() == "compact":
            raise ValueError(f"{name}(storage='bf16') is for machines of second order without fields")
        return Method(
            layout=self._layout(),
            learning_rate=self.learning_rate,
            default_rate=self._default_rate,
            epsilon=self._epsilon,
            max_iter=self.max_iter,
            tol=self.tol,
            patience=self.patience,
            batch_size=self._batch_size(problem),
            dropout=float(self.dropout),
            average=self.average,
            shuffle=self.shuffle,
            checkpoint=self.checkpoint,
            checkpoint_epochs=self.checkpoint_epochs,
            checkpoint_minutes=self.checkpoint_minutes,
            **more,
        )

    def _batch_size(self, problem: Problem) -> int:
        if self.batch_size is not None:
            return self.batch_size
        if self.dropout > 0 or not self.shuffle or problem.rows.nnz < _WORTH_BATCHING or problem.family.kind != "fm":
            return 1
        return max(1, min(_BATCH, problem.rows.n_rows // _FEWEST_BATCHES))

    def method(self, problem: Problem) -> Method:
        """What the options mean for a problem, after a check of them."""
        return self._method(problem)

    def solve(self, problem: Problem) -> FMParams:
        """The parameters; n_threads only changes how fast they come."""
        return solve(self.method(problem), problem)


class AdaGrad(_FirstOrder):
    """Adaptive gradient steps (Duchi, Hazan & Singer 2011), one row of the training table a feature.

    Parameters
    ----------
    max_iter : int
        Passes over the rows.
    learning_rate : float, optional
        The step of a parameter is learning_rate · gradient / sqrt(ε + the sum of its squared gradients so far), so
        that rare features keep learning when frequent ones have settled. ε is 10 s, with s the mean square norm of
        the rows in units of two ones, and None is 0.2 / √s: training on rows of many fields is then what it is on
        rows of two ids, scaled; in batches, whose first steps are as long whatever the gradient, it is at most 2 over
        the mean sum of a row's absolute values. Chosen with the penalties on held-out parts of MovieLens-100K,
        ml-latest-small, MovieTweetings, InstEval, Adult and three generated data sets; nobody should need to tune it.
    rowwise : bool
        One sum of squares for all factors of a feature (of the mean of their squares) instead of one each: 40 % less
        memory. On rows of many fields the held-out loss may be some thousandths higher.
    storage : "float32" or "bf16"
        "bf16" keeps the factors in bfloat16 with stochastic rounding while it trains (needs rowwise=True and float32
        rows): 64 bytes a feature for 16 factors. The parameters that come out are float32.
    batch_size : int, optional
        1 takes a step after each row; b adds the gradients of b rows up, in fixed batches whose columns are found
        once, and takes one step for each feature that they touch. It chooses the algorithm, n_threads only who
        works: both give the same bits at any number of threads, and only batches use more than one. None is 1 below
        half a million non-zeros and with dropout or without shuffle, else 2048, or the rows by 128 if that is less.
    dropout : float
        Probability with which an entry is hidden at each visit. A hidden level becomes its field's column of unknown
        levels (`FrameEncoder` with unknown="bucket"), which is so trained; without one it is left out and the rest
        of the row divided by 1 − dropout. Needs batch_size=1.
    average : int
        First epoch whose parameters enter the mean, over epochs, that is returned (Polyak & Juditsky 1992); 0: the
        last ones are.
    tol, patience : float, int
        With early stopping: end after `patience` passes that did not better what is watched by more than tol, which
        is in units of the solver's own loss: for FMRegressor that of the standardised target.
    shuffle : bool
        False takes the rows as they come, and cuts batches from them in that order.
    checkpoint : path, optional
        The whole state is written to this one file after each `checkpoint_epochs` epochs, if `checkpoint_minutes`
        have passed since the last time, and at the end; `fit(..., resume=path)` goes on from it to the same bits.
        The file is always a complete one.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.solvers import AdaGrad
    >>> FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    """

    _table = "adagrad"
    _default_rate = 0.2
    _epsilon = 10.0

    def __init__(
        self,
        *,
        max_iter: int = 15,
        learning_rate: float | None = None,
        rowwise: bool = False,
        storage: str = "float32",
        batch_size: int | None = None,
        dropout: float = 0.0,
        average: int = 0,
        tol: float = 0.0,
        patience: int = 3,
        shuffle: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_epochs: int = 1,
        checkpoint_minutes: float = 0.0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.rowwise = rowwise
        self.storage = storage
        self.batch_size = batch_size
        self.dropout = dropout
        self.average = average
        self.tol = tol
        self.patience = patience
        self.shuffle = shuffle
        self.checkpoint = checkpoint
        self.checkpoint_epochs = checkpoint_epochs
        self.checkpoint_minutes = checkpoint_minutes

    def _layout(self) -> str:
        if self.storage == "bf16":
            return "compact"
        return "rowwise" if self.rowwise else "adagrad"

    def _check(self) -> None:
        super()._check()
        if self.storage not in ("float32", "bf16"):
            raise ValueError(f"AdaGrad(storage) must be 'float32' or 'bf16', got {self.storage!r}")
        if not isinstance(self.rowwise, bool):
            raise TypeError(f"AdaGrad(rowwise) must be True or False, got {self.rowwise!r}")
        if self.storage == "bf16" and not self.rowwise:
            raise ValueError("AdaGrad(storage='bf16') needs rowwise=True: a row has no room for sums of its factors")

    def method(self, problem: Problem) -> Method:
        method = self._method(problem)
        if method.layout == "compact" and problem.rows.dtype.itemsize != 4:
            raise ValueError("AdaGrad(storage='bf16') trains float32 rows; X is float64: pass X.astype(np.float32)")
        return method


class SGD(_FirstOrder):
    """Stochastic gradient descent.

    Half the memory of AdaGrad and a shorter pass, but one step for all must suit the data: scale numeric columns.

    Parameters
    ----------
    learning_rate : float, optional
        Step per unit of gradient. None is 0.02 / √s, s as for AdaGrad.
    schedule : "constant" or "inverse"
        "inverse" divides the step of epoch e by √e.
    batch_size : int, optional
        As for AdaGrad, but None is 1: added up gradients of a frequent feature are steps too long for SGD from
        some hundred rows on.
    max_iter, dropout, average, tol, patience, shuffle, checkpoint, checkpoint_epochs, checkpoint_minutes
        As for AdaGrad.
    """

    _table = "sgd"
    _default_rate = 0.02

    def __init__(
        self,
        *,
        max_iter: int = 15,
        learning_rate: float | None = None,
        schedule: str = "constant",
        batch_size: int | None = None,
        dropout: float = 0.0,
        average: int = 0,
        tol: float = 0.0,
        patience: int = 3,
        shuffle: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_epochs: int = 1,
        checkpoint_minutes: float = 0.0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.dropout = dropout
        self.average = average
        self.tol = tol
        self.patience = patience
        self.shuffle = shuffle
        self.checkpoint = checkpoint
        self.checkpoint_epochs = checkpoint_epochs
        self.checkpoint_minutes = checkpoint_minutes

    def _batch_size(self, problem: Problem) -> int:
        return self.batch_size or 1

    def method(self, problem: Problem) -> Method:
        if self.schedule not in ("constant", "inverse"):
            raise ValueError(f"SGD(schedule) must be 'constant' or 'inverse', got {self.schedule!r}")
        return self._method(problem, power=0.5 if self.schedule == "inverse" else 0.0)


class Adam(_FirstOrder):
    """Adam (Kingma & Ba 2015), lazily: moments decay only when their feature occurs, and each feature corrects them
    by its own age.

    Parameters
    ----------
    learning_rate : float, optional
        None is 0.01 / √s, s as for AdaGrad. The step is learning_rate · m̂ / sqrt(ε + ŝ) with ε = 0.1 s, large
        enough that a rare feature's first steps follow its gradient and not only its sign.
    beta1, beta2 : float
        Decay of the means of gradients and of their squares, a visit.
    max_iter, batch_size, dropout, average, tol, patience, shuffle, checkpoint, checkpoint_epochs, checkpoint_minutes
        As for AdaGrad.
    """

    _table = "adam"
    _default_rate = 0.01
    _epsilon = 0.1

    def __init__(
        self,
        *,
        max_iter: int = 15,
        learning_rate: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        batch_size: int | None = None,
        dropout: float = 0.0,
        average: int = 0,
        tol: float = 0.0,
        patience: int = 3,
        shuffle: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_epochs: int = 1,
        checkpoint_minutes: float = 0.0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.batch_size = batch_size
        self.dropout = dropout
        self.average = average
        self.tol = tol
        self.patience = patience
        self.shuffle = shuffle
        self.checkpoint = checkpoint
        self.checkpoint_epochs = checkpoint_epochs
        self.checkpoint_minutes = checkpoint_minutes

    def method(self, problem: Problem) -> Method:
        for option in ("beta1", "beta2"):
            value = getattr(self, option)
            check_positive(value, f"Adam({option})", zero=True)
            if not value <= _SLOWEST:
                raise ValueError(f"Adam({option}) must be at most {_SLOWEST}, got {value!r}")
        return self._method(problem, beta1=self.beta1, beta2=self.beta2)


class FTRL(_FirstOrder):
    """Follow the regularised leader, proximally, for the weights (McMahan et al. 2013), AdaGrad for the factors.

    Parameters
    ----------
    l1 : float
        Strength of L1 on the weights: one is exactly zero until the sum of its gradients, each as adaptive steps
        weigh it, exceeds l1. With l1=0 this is AdaGrad.
    learning_rate, max_iter, batch_size, dropout, average, tol, patience, shuffle
        As for AdaGrad.
    checkpoint, checkpoint_epochs, checkpoint_minutes
        As for AdaGrad.
    """

    _table = "ftrl"
    _default_rate = 0.2
    _epsilon = 10.0

    def __init__(
        self,
        *,
        max_iter: int = 15,
        learning_rate: float | None = None,
        l1: float = 1.0,
        batch_size: int | None = None,
        dropout: float = 0.0,
        average: int = 0,
        tol: float = 0.0,
        patience: int = 3,
        shuffle: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_epochs: int = 1,
        checkpoint_minutes: float = 0.0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.l1 = l1
        self.batch_size = batch_size
        self.dropout = dropout
        self.average = average
        self.tol = tol
        self.patience = patience
        self.shuffle = shuffle
        self.checkpoint = checkpoint
        self.checkpoint_epochs = checkpoint_epochs
        self.checkpoint_minutes = checkpoint_minutes

    def method(self, problem: Problem) -> Method:
        check_positive(self.l1, "FTRL(l1)", zero=True)
        return self._method(problem, l1=self.l1)
