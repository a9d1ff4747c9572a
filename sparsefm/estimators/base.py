"""What the estimators share: the way in, the fit of one score function, and the way out."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import persistence
from .._kernels.dispatch import n_threads_or_default
from .._kernels.family import HIGHEST_ORDER
from ..encoders import FrameEncoder
from ..encoders.tables import is_frame
from ..explain import explanation, importance
from ..model import PAIRS, Family, FMParams, Posterior, represent, score
from ..recommend import top_k
from ..solvers import ALS, MCMC, SOLVERS, Interrupted, Problem, make_solver
from ..validation import Relations, Rows, check_csr, check_positive, check_relations, check_sample_weight
from . import fold, stream
from .files import to_state
from .rows import all_numbers, checked_sparse, related
from .sides import recommended
from .units import Units
from .watch import Progress, check_metric, judge_of

_L2_FACTORS = 0.025  # for a target of standard deviation 1
_MOST_FIELDS = 1000  # each of which gives a feature of a field-aware machine a vector


def all_or_nothing(fit: Any) -> Any:
    """A fit that is refused or fails leaves the estimator as it was; one that Ctrl-C ends is a fit."""

    @functools.wraps(fit)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.__dict__.copy()
        try:
            return fit(self, *args, **kwargs)
        except Interrupted:  # with what had been learned
            raise
        except BaseException:
            self.__dict__ = before
            raise

    return guarded


def _takes_steps(model: Any) -> bool:
    if isinstance(model.solver, str) and model.solver not in SOLVERS:
        return True  # fit has the better words
    if not hasattr(make_solver(model.solver), "method"):
        raise AttributeError(f"partial_fit needs a first-order solver such as 'adagrad', not {model.solver!r}")
    return True


class _BaseFM(BaseEstimator):  # type: ignore[misc]
    """What regressor and classifier share: the way in, the fit of one score function, and the way out."""

    n_factors: int
    order: int  # these three of some
    share_factors: bool
    normalize: bool
    loss: str | None
    l2_linear: float
    l2_factors: Any  # float, mapping from field to float; None in the regressor
    l2_prior: float
    init_std: float
    solver: Any
    encoder: Any
    fields: Any
    early_stopping: bool
    validation_fraction: float
    eval_metric: Any
    callbacks: Any
    n_threads: int | None
    random_state: Any
    verbose: int
    warm_start: bool

    params_: FMParams | tuple[FMParams, ...]
    posterior_: Posterior | tuple[Posterior, ...] | None
    history_: list[dict[str, Any]]
    encoder_: Any
    n_features_in_: int
    classes_: NDArray[Any]  # of the classifier

    _LOSSES: tuple[str, ...]
    _KIND = "fm"
    _session: stream.Session | None

    @property
    def _loss(self) -> str:
        return str(self.loss)

    # ---- what each kind of target makes of it ----

    @abstractmethod
    def _learn_target(self, y: Any, weight: NDArray[Any] | None, dtype: Any) -> None:
        """Checks y and learns its units, or its classes."""

    @abstractmethod
    def _targets(self, y: Any, n_rows: int, name: str = "y") -> list[NDArray[np.float64]]:
        """The target of each score function, in the units it is trained in."""

    @abstractmethod
    def _start_of(self, target: NDArray[np.float64], weight: NDArray[Any] | None) -> float:
        """Where the bias of a score function begins."""

    def _units(self) -> Units:
        return Units()

    def _family(self) -> Family:
        """How the columns of the rows that the fit saw meet in the score."""
        order, fields = getattr(self, "order", 2), self.fields_
        if self._KIND == "fm":
            return PAIRS if order <= 2 else Family("anova", order, self.share_factors)
        if fields is None:
            raise ValueError(f"{type(self).__name__} needs an encoder that tells its fields_, such as FrameEncoder")
        names = getattr(self.encoder_, "field_names_", None)
        n_fields = int(fields.max(initial=0)) + 1 if names is None else len(names)
        if n_fields > _MOST_FIELDS:
            raise ValueError(
                f"{n_fields} fields are more than {_MOST_FIELDS}: give fields=(n_features,) numbers; without them each "
                "column is a field of its own"
            )
        return Family(self._KIND, fields=np.ascontiguousarray(fields), n_fields=n_fields)

    @property
    def _rank(self) -> int:
        """Factors of a vector; order=1 is the linear model."""
        return 0 if getattr(self, "order", 2) == 1 else self.n_factors

    def _weights(self, y: Any, weight: NDArray[Any] | None) -> NDArray[Any] | None:
        """Sample weights times those of the classes."""
        return weight

    def _class_weights(self, counts: NDArray[Any]) -> NDArray[np.float64] | None:
        """Of each class, which occurs so often, the weight of its rows; None: all one."""
        return None

    def _learn_more(self, y: Any) -> None:
        """What the target of a further piece adds to what the first one told."""

    @property
    def _labels(self) -> list[dict[str, Any]]:
        """What the records of each score function say of it."""
        return [{}]

    # ---- the way in ----

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_parameters(self) -> None:
        check_positive(self.n_factors, "n_factors", zero=True, integer=True)
        if self._loss not in self._LOSSES:
            raise ValueError(f"loss must be one of {', '.join(map(repr, self._LOSSES))}, got {self.loss!r}")
        check_positive(self.l2_linear, "l2_linear", zero=True)
        check_positive(self.l2_prior, "l2_prior", zero=True)
        if isinstance(self.l2_factors, Mapping):
            for of, strength in self.l2_factors.items():
                check_positive(strength, f"l2_factors[{of!r}]", zero=True)
        elif self.l2_factors is not None or isinstance(self, ClassifierMixin):
            check_positive(self.l2_factors, "l2_factors", zero=True)
        check_positive(self.init_std, "init_std", zero=True)
        n_threads_or_default(self.n_threads)
        make_solver(self.solver)
        if self.callbacks is not None and not (
            isinstance(self.callbacks, (list, tuple)) and all(map(callable, self.callbacks))
        ):
            raise TypeError(f"callbacks must be a list of functions, got {self.callbacks!r}")
        check_metric(self.eval_metric, isinstance(self, ClassifierMixin))
        order, shared = getattr(self, "order", 2), getattr(self, "share_factors", False)
        check_positive(order, "order", integer=True)
        if order > HIGHEST_ORDER:
            raise ValueError(f"order must be at most {HIGHEST_ORDER}, got {order}")
        for name, flag in (("share_factors", shared), ("normalize", getattr(self, "normalize", False))):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        if (order > 2 or self._KIND != "fm") and isinstance(make_solver(self.solver), (ALS, MCMC)):
            what = f"order={order}" if self._KIND == "fm" else type(self).__name__
            raise ValueError(f"{what} needs a solver of gradients such as 'adagrad'; {self.solver!r} knows pairs only")
        if self.fields is not None and self.encoder is not None:
            raise ValueError("fields is for matrices; with an encoder the fields are its columns: leave fields=None")
        if isinstance(self.encoder, dict):
            raise TypeError("encoder must be an encoder, not a dict: give FrameEncoder({...})")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")

    def _scaled(self, rows: Rows | Relations) -> Rows | Relations:
        """The rows as they are scored: with normalize=True each of length 1."""
        if not getattr(self, "normalize", False):
            return rows
        rows = rows.flat() if isinstance(rows, Relations) else rows
        data = np.ones(rows.nnz) if rows.data is None else rows.data.astype(np.float64)
        of_row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
        length = np.sqrt(np.bincount(of_row, data**2, rows.n_rows))[of_row]
        return rows._replace(data=(data / np.where(length > 0, length, 1)).astype(rows.dtype))

    def _encode_fit(self, X: Any, y: Any) -> tuple[Rows | Relations, NDArray[Any]]:
        """Fits the encoder if there is one; the training rows and y as a checked (n_rows,) array."""
        rows, y = self._read_fit(X, y)
        return self._scaled(rows), y

    def _read_fit(self, X: Any, y: Any) -> tuple[Rows | Relations, NDArray[Any]]:
        encoder = self.encoder
        if encoder is None and is_frame(X) and not all_numbers(X):
            encoder = FrameEncoder()  # by dtype
        y_numeric = isinstance(self, RegressorMixin)
        relations = check_relations(X)
        if relations is not None:
            if encoder is not None:
                raise TypeError("an encoder takes a DataFrame; a list with RelationBlocks needs encoder=None")
            self.encoder_ = None
            y = validate_data(self, X="no_validation", y=y, y_numeric=y_numeric)
            if len(y) != relations.n_rows:
                raise ValueError(f"X has {relations.n_rows} rows, but y has {len(y)} values: give one target a row")
            self.n_features_in_ = relations.n_features
            return relations if hasattr(make_solver(self.solver), "takes_blocks") else relations.flat(), y
        if encoder is None:
            self.encoder_ = None
            given = checked_sparse(X)
            X, y = validate_data(self, X, y, accept_sparse="csr", ensure_all_finite=False, y_numeric=y_numeric)
            return given or check_csr(X), y
        self.encoder_ = clone(encoder)
        if sp.issparse(X):
            raise TypeError("an encoder takes a DataFrame; X is a sparse matrix, which needs encoder=None")
        if len(X) == 0:
            raise ValueError("X has 0 rows: there is nothing to fit")
        y = validate_data(self, X="no_validation", y=y, y_numeric=y_numeric)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows, but y has {len(y)} values: give one target a row")
        if isinstance(self.encoder_, FrameEncoder) and hasattr(make_solver(self.solver), "takes_blocks"):
            rows: Rows | Relations = related(*self.encoder_.fit_transform_blocks(X, y))
        else:
            rows = check_csr(self.encoder_.fit_transform(X, y))
        self.n_features_in_ = self.encoder_.n_features_in_
        if hasattr(self.encoder_, "feature_names_in_"):
            self.feature_names_in_ = self.encoder_.feature_names_in_
        return rows, y

    def _encode(self, X: Any) -> Rows | Relations:
        return self._scaled(self._read(X))

    def _read(self, X: Any) -> Rows | Relations:
        if isinstance(self.encoder_, FrameEncoder):
            return related(*self.encoder_.transform_blocks(X))
        if self.encoder_ is not None:
            return check_csr(self.encoder_.transform(X))
        relations = check_relations(X)
        if relations is not None:
            if relations.n_features != self.n_features_in_:
                raise ValueError(
                    f"X has {relations.n_features} columns in all, but {self.n_features_in_} are expected: give X and "
                    "the blocks as in fit"
                )
            return relations
        rows = checked_sparse(X)
        X = validate_data(self, X, accept_sparse="csr", ensure_all_finite=False, reset=False)
        return rows or check_csr(X)

    def _encode_flat(self, X: Any) -> Rows:
        encoded = self._encode(X)
        return encoded.flat() if isinstance(encoded, Relations) else encoded

    def _start(
        self, X: Any, y: Any, sample_weight: Any, eval_set: Any
    ) -> tuple[Rows | Relations, NDArray[Any], NDArray[Any] | None, tuple[Any, ...] | None]:
        """Checked training rows, targets and weights, and the rows to watch: those given, or a part set aside."""
        self._check_parameters()
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if eval_set is not None and not (isinstance(eval_set, (tuple, list)) and len(eval_set) in (2, 3)):
            raise ValueError("eval_set must be (X, y) or (X, y, sample_weight)")
        if eval_set is None and self.early_stopping:
            checked_sparse(X)
            X, y, sample_weight, eval_set = self._set_aside(X, y, sample_weight)
        rows, y = self._encode_fit(X, y)
        weight = check_sample_weight(sample_weight, rows.n_rows)
        return rows, y, weight, eval_set

    def _set_aside(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        if check_relations(X) is not None:
            raise ValueError("early_stopping on a list with RelationBlocks needs eval_set=(X, y)")
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        n_watched = round(n_rows * self.validation_fraction)
        if not 0 < n_watched < n_rows:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n_rows} rows leaves nothing to "
                f"{'watch' if n_watched == 0 else 'fit'}; give eval_set=(X, y) or early_stopping=False"
            )
        X = sp.csr_array(X) if sp.issparse(X) else X
        check_sample_weight(sample_weight, n_rows)
        weight = None if sample_weight is None else np.broadcast_to(np.asarray(sample_weight), n_rows)
        if len(y) != n_rows:
            raise ValueError(f"X has {n_rows} rows, but y has {len(y)} values: give one target a row")
        order = np.random.default_rng(self._seed()).permutation(n_rows)
        if isinstance(self, ClassifierMixin):  # a row of each class stays
            first = ~pd.Series(np.asarray(y)).duplicated().to_numpy()
            order = np.concatenate([order[~first[order]], order[first[order]]])
        watched, kept = np.sort(order[:n_watched]), np.sort(order[n_watched:])
        (X_kept, y_kept, weight_kept), aside = (
            tuple(None if values is None else _safe_indexing(values, rows) for values in (X, y, weight))
            for rows in (kept, watched)
        )
        return X_kept, y_kept, weight_kept, aside

    def _seed(self) -> int:
        generator = check_random_state(self.random_state)
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(generator.randint(2**31 - 1))

    # ---- the fit of the score functions ----

    @all_or_nothing
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        eval_set: Any = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Fits to rows X (n_rows, n_features), CSR, any matrix, or with an encoder a frame, and y (n_rows,).

        X may also be a list of a matrix, or None, and RelationBlocks.

        Parameters
        ----------
        sample_weight : (n_rows,), optional
            Not negative; only their ratios count.
        eval_set : (X, y) or (X, y, sample_weight), optional
            Watched after each epoch.
        resume : path, optional
            A file that the solver wrote as its `checkpoint` in a fit to the same data with the same parameters:
            training goes on from there, to the same bits as if it had never stopped. max_iter may be larger.

        Raises
        ------
        ValueError
            For input that is not finite or does not fit together; `DivergenceError`, a kind of it, when training runs
            away and shorter steps do not help.
        KeyboardInterrupt
            On Ctrl-C. After the first epoch the model is fitted then, with what it had learned.
        """
        before = self.__dict__.get("params_") if self.warm_start else None
        classes = self.__dict__.get("classes_")
        if before is not None and self.encoder_ is not None:
            raise ValueError("warm_start goes on with the columns of a matrix; with an encoder use partial_fit")
        rows, y, weight, eval_set = self._start(X, y, sample_weight, eval_set)
        self._learn_target(y, weight, rows.dtype)
        weight = check_sample_weight(self._weights(y, weight), rows.n_rows)
        starts = self._warm(before, classes, rows)
        self.fields_  # noqa: B018  refuses fields that are none of these columns'
        targets, watched = self._targets(y, rows.n_rows), None
        if eval_set is not None:
            X_watched = check_csr(self._encode_flat(eval_set[0]), dtype=rows.dtype)
            given = check_sample_weight(eval_set[2] if len(eval_set) == 3 else None, X_watched.n_rows)
            watched = X_watched, self._targets(eval_set[1], X_watched.n_rows, "the y of eval_set"), given
        solver = make_solver(self.solver)
        if (resume is not None or getattr(solver, "checkpoint", None) is not None) and len(targets) > 1:
            raise ValueError(
                f"a checkpoint holds one score function and {len(targets)} classes have one each: fit them one by one "
                "(OneVsRestClassifier), or without checkpoint"
            )
        checkpoint = None if resume is None else self._read_checkpoint(resume)
        seed, fitted, interrupted = self._seed(), [], None
        for i, target in enumerate(targets):
            evaluation = None if watched is None else (watched[0], watched[1][i], watched[2])
            problem = self._problem(rows, target, weight, evaluation, seed, i, starts[i], checkpoint)
            try:
                fitted.append(solver.solve(problem))
            except Interrupted as interruption:
                if len(targets) > 1:
                    raise KeyboardInterrupt from None  # some classes have no score yet
                fitted.append(interruption.params)
                interrupted = interruption
        self._store(fitted)
        self._session = None
        if interrupted is not None:
            raise interrupted
        return self

    @available_if(_takes_steps)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, *, sample_weight: Any = None, classes: Any = None) -> Self:
        """One pass over more rows, from where training stands; without a fit before, this is the first.

        Through a FrameEncoder new levels become new columns behind all others; they begin as the unknown ones were
        scored. Statistics of labels (`TargetStats`) describe a row by the rows before this piece. On a matrix the width
        is fixed. A regressor keeps the centre and spread of its first target: let the first piece be a fair sample.
        After `fit` or `load` the parameters go on, the solver's own state begins anew. Costs what the rows touch, but
        for new columns. Options may not change on the way; max_iter, batch_size, average, checkpoint, early stopping
        and callbacks have no part in it.

        Parameters
        ----------
        X, y, sample_weight
            As in fit, but weights count as they are: the first piece's mean weight is the unit of all. Rows that are
            refused change nothing, but for the encoder's vocabulary if training diverges.
        classes : sequence, optional
            For classifiers: all labels there will be, at the first call; without it those of the first y.
        """
        stream.partial_fit(self, X, y, sample_weight, classes)
        return self

    def fit_stream(self, frames: Any, *, target: str | None = None, epochs: int = 1) -> Self:
        """Fits to rows that come in pieces, in memory that does not grow with their number.

        A stream that is read again keeps each distinct value of the target, 16 bytes of it. One that Ctrl-C or an
        error ends leaves the estimator as it was.

        Parameters
        ----------
        frames : iterable, or function that returns one
            Of frames with a column `target`, or of pairs (X, y). What can be iterated only once (a generator) is read
            once: the encoder then grows on the fly, as in partial_fit. What can be iterated again (a list, or a
            function that opens the files anew) is read for the encoder, for the spread of the target and the
            frequencies of the features, and once an epoch: the result is that of `fit` on all rows with a solver of
            shuffle=False, batch_size=1 and max_iter=epochs, however the rows are cut: bit for bit for a classifier, to
            the rounding of the target's mean and spread for a regressor.
        target : str, optional
            The column that holds y; not needed for pairs.
        epochs : int
            Passes over the rows.

        Raises
        ------
        ValueError
            If no row comes, or more than one epoch is asked of what can be read once only; for the rest as fit.
        """
        stream.fit_stream(self, frames, target, epochs)
        return self

    def fold_in(self, X: Any, y: Any) -> Self:
        """A model that knows the new levels of these rows too; nothing else moves, and this one stays as it is.

        A user, or item, whom the encoder did not see gets columns of his own, which are found given all others: with
        "als" at the minimum of their part of the objective, with "mcmc" by a draw for each draw of the model (several
        sweeps over the new columns, where a row has more than one of them or its target is a class or a level). After
        every other solver 30 passes of AdaGrad's steps lead there, whichever of them the fit took, without its own
        options. Rows without a new level teach nothing. Histories and statistics of labels stay as the fit left them.

        Parameters
        ----------
        X : frame (n_rows, ...)
            As for `predict`.
        y : (n_rows,)
            Of known classes or levels. A class_weight counts relative to the mean over the rows that teach;
            "balanced" is refused, as in `partial_fit`.

        Raises
        ------
        ValueError
            Without a FrameEncoder, for X without rows, and what `fit` raises.
        """
        folded: Self = fold.fold_in(self, X, y)
        return folded

    def _warm(self, before: Any, classes: Any, rows: Rows | Relations) -> list[FMParams | None]:
        """The parameters to go on from, in the units of training."""
        n_scores = len(self._labels)
        if before is None:
            self.history_ = []
            return [None] * n_scores
        self.history_ = list(self.history_)
        if hasattr(self, "classes_") and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start: the fit before knows the classes {classes.tolist()[:20]}, y has "
                f"{self.classes_.tolist()[:20]}"
            )
        params = before if isinstance(before, tuple) else (before,)
        first = params[0]
        if (len(params), first.n_features, first.n_factors) != (n_scores, rows.n_features, self._rank):
            raise ValueError(
                f"warm_start: the fit before has {len(params)} score functions of {first.n_features} features and "
                f"{first.n_factors} factors, this one {n_scores} of {rows.n_features} and {self._rank}"
            )
        if first.V.shape[1] != self._family().blocks * self._rank:
            raise ValueError("warm_start: the fit before was of another order or other fields: fit anew")
        return [self._units().into(p, rows.dtype) for p in params]

    def _problem(
        self,
        rows: Rows | Relations,
        target: NDArray[np.float64],
        weight: NDArray[Any] | None,
        evaluation: tuple[Rows, NDArray[Any], NDArray[Any] | None] | None,
        seed: int,
        i: int,
        start: FMParams | None = None,
        checkpoint: Any = None,
        w0: float | None = None,
    ) -> Problem:
        """What the solver is given of score function i."""
        units, label, family = self._units(), self._labels[i], self._family()
        if w0 is None:
            w0 = self._start_of(target, weight) if start is None else start.w0
        solver = make_solver(self.solver)
        progress = Progress(type(self).__name__, label, solver.max_iter, self.verbose)

        before = len(self.history_)

        def report(record: dict[str, Any]) -> bool:
            record = self._in_own_units(label, record)
            del self.history_[before + record["epoch"] - 1 :]  # epochs that were taken back
            self.history_.append(record)
            progress.epoch(record)
            stops = [_is_true(callback(self, record)) for callback in self.callbacks or ()]  # every one is called
            return any(stops)

        def recall(records: list[dict[str, Any]]) -> None:
            self.history_ += [self._in_own_units(label, record) for record in records]

        bucket = getattr(self.encoder_, "buckets_", None)
        judge = None
        if evaluation is not None:
            judge = judge_of(self.eval_metric, evaluation[1], evaluation[2], self._predicted, units)
        return Problem(
            rows=rows.rows if isinstance(rows, Relations) else rows,
            relations=rows if isinstance(rows, Relations) else None,
            y=target.astype(rows.dtype),
            weight=None if weight is None else weight.astype(rows.dtype),
            loss=self._loss,
            shape=self._shape(),
            w0=w0,
            n_factors=self._rank,
            family=family,
            l2_of_blocks=None if self.l2_factors is None else units.l2_of_blocks(family),
            l2_linear=self.l2_linear * units.l2_linear,
            l2_factors=self._l2_factors(rows.n_features, units),
            l2_prior=self.l2_prior,
            init_std=self.init_std,
            seed=seed,
            n_threads=self.n_threads,
            evaluation=evaluation,
            early_stopping=self.early_stopping and evaluation is not None,
            judge=judge,
            judged_by=self.eval_metric if isinstance(self.eval_metric, str) else _name(self.eval_metric),
            start=start,
            recall=recall,
            bucket=None if bucket is None else np.ascontiguousarray(bucket, np.int32),
            resume=checkpoint,
            report=report,
            fields=self.fields_,
            progress=progress.within if self.verbose else None,
            name_of=self._name_of,
        )

    def _in_own_units(self, label: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
        units = self._units()
        scales = {"loss": units.loss, "eval_loss": units.loss, "deviation": units.scale}
        return label | {key: value * scales.get(key, 1) for key, value in record.items()}

    def _shape(self) -> float:
        return 0.0

    def _l2_factors(self, n_features: int, units: Units) -> Any:
        """One strength, or with a mapping one a feature."""
        if self.l2_factors is None:
            return _L2_FACTORS
        if not isinstance(self.l2_factors, Mapping):
            return self.l2_factors * units.l2_factors
        fields = self.fields_
        if fields is None:
            raise ValueError(
                "l2_factors by field needs to know the fields: give an encoder, or fields=(n_features,) numbers"
            )
        names = list(getattr(self.encoder_, "field_names_", range(int(fields.max(initial=-1)) + 1)))
        unknown = [of for of in self.l2_factors if of not in names]
        if unknown:
            raise ValueError(f"l2_factors names {unknown[:5]}; the fields are {names[:20]}")
        strengths = np.full(len(names), _L2_FACTORS, dtype=np.float32)
        for of, strength in self.l2_factors.items():
            strengths[names.index(of)] = strength * units.l2_factors
        return strengths[fields]

    def _name_of(self, j: int) -> str:
        if self.encoder_ is not None and hasattr(self.encoder_, "get_feature_names_out"):
            return str(self.encoder_.get_feature_names_out()[j])
        return f"column {j}"

    @staticmethod
    def _read_checkpoint(path: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        meta, arrays = persistence.read(path)
        if "checkpoint" not in meta:
            raise ValueError(f"{path} holds a model, not a checkpoint; load it with sparsefm.load")
        return meta, arrays

    def _store(self, fitted: list[FMParams | Posterior]) -> None:
        """Takes over what a solver found, in the units of the target."""
        own = [self._units().out_of(found) for found in fitted]
        params = [found[len(found) - 1] if isinstance(found, Posterior) else found for found in own]
        self.params_ = tuple(params) if len(params) > 1 else params[0]
        draws = tuple(found for found in own if isinstance(found, Posterior))
        self.posterior_ = None if not draws else draws if len(draws) > 1 else draws[0]

    # ---- the way out ----

    @property
    def n_iter_(self) -> int:
        return max(int(record["epoch"]) for record in self.history_)

    @property
    def intercept_(self) -> Any:
        """Bias, for several classes (n_classes,)."""
        bias = _each(self.params_, lambda p: p.w0)
        return np.array(bias) if isinstance(bias, tuple) else bias

    @property
    def coef_(self) -> NDArray[Any]:
        """(n_features,), for several classes (n_classes, n_features)."""
        return np.asarray(_each(self.params_, lambda p: p.w))

    @property
    def factors_(self) -> NDArray[Any]:
        """(n_features, n_factors), for several classes (n_classes, n_features, n_factors).

        Of order m a feature has m − 1 times n_factors numbers, those of order 2 first; field-aware n_fields times.
        """
        return np.asarray(_each(self.params_, lambda p: p.V))

    @property
    def fields_(self) -> NDArray[np.int32] | None:
        """(n_features,) field of each column of the encoded matrix; without a FrameEncoder those given, or None. To a
        machine of fields each column of a matrix is one of its own, unless they are given."""
        if self.encoder_ is not None:
            return getattr(self.encoder_, "fields_", None)
        if self.fields is None:
            return None if self._KIND == "fm" else np.arange(self.n_features_in_, dtype=np.int32)
        fields = np.asarray(self.fields)
        if fields.shape != (self.n_features_in_,) or fields.dtype.kind not in "iu" or fields.min(initial=0) < 0:
            raise ValueError(
                f"fields must hold the number of the field of each of the {self.n_features_in_} columns, from 0 on; "
                f"got shape {fields.shape} of {fields.dtype}"
            )
        return fields.astype(np.int32)

    @abstractmethod
    def _predicted(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """What a metric is given, of the scores of one score function in the target's units."""

    def _scores(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        rows = self._encode(X)
        if self.posterior_ is not None:
            scores = _each(self.posterior_, lambda draws: self._averaged(draws, rows))
        else:
            scores = _each(self.params_, lambda p: score(p, rows, n_threads=self.n_threads))
        if isinstance(scores, tuple):
            return np.stack(scores, axis=1)
        return np.asarray(scores)

    def _averaged(self, draws: Posterior, rows: Rows | Relations) -> NDArray[np.float64]:
        """The score that stands for all draws: their mean."""
        mean = np.zeros(rows.n_rows)
        for each in draws.scores(rows, n_threads=self.n_threads):
            mean += each
        return mean / len(draws)

    def recommend(
        self,
        contexts: Any,
        candidates: Any,
        *,
        user: str = "user_id",
        item: str = "item_id",
        k: int = 10,
        exclude: Any = None,
        label: Any = None,
    ) -> Any:
        """The k candidates with the highest score for each request, exactly and in bounded memory.

        Parameters
        ----------
        contexts : DataFrame
            One row a request: the user and context columns, among them `user`.
        candidates : DataFrame
            One row an item: the item columns, among them `item`, each id once. A column the encoder knows may be
            in one of the two frames; one in neither is an empty field.
        k : int
            Length of a list; it is shorter where fewer candidates are left.
        exclude : DataFrame, optional
            (user, item) pairs not to show, such as the training ratings.
        label : optional
            Of several classes, the one to rank by.

        Returns
        -------
        DataFrame
            `user`, `item`, rank (from 1) and score (before link and clipping), ids as they were given.
            For a model without encoder, contexts and candidates are matrices with disjoint columns, `exclude`
            is a sparse (n_contexts, n_candidates) matrix, and the result is (ids, scores) of shape
            (n_contexts, k), padded with −1 and −inf.
        """
        check_is_fitted(self)
        params = self._params_of(label)
        if getattr(self, "normalize", False):
            raise ValueError(
                "with normalize=True a score depends on the length of the whole row and has no part of the user's and "
                "part of the item's: predict each pair, or fit with normalize=False"
            )
        if self.encoder_ is None:
            users, items = represent(params, contexts, candidates, n_threads=self.n_threads)
            return top_k(users, items, k, w0=_bias(params), exclude=exclude)
        return recommended(
            params, self.encoder_, contexts, candidates, user, item, k, exclude, n_threads=self.n_threads
        )

    def explain(self, X: Any, *, by: str | None = None, label: Any = None) -> pd.DataFrame:
        """What the score of each row (before link and clipping) is made of; the values of a row add up to it.

        Parameters
        ----------
        X : as for predict
        by : "field" or "column", optional
            "column" has a line for each column of the encoded row that is not zero and for each pair of them; "field"
            adds up those of a field, and of a pair of fields. None is "field" where fields are known (of an encoder, or
            by fields=), else "column".
        label : optional
            Of several classes, the one whose score it is.

        Returns
        -------
        DataFrame
            row (its position in X), part ("intercept", "linear" or "pair"), first and second (names of fields or of
            columns, "" where there is none) and value, in the unit of the score. Of a row the intercept comes first,
            then what is largest, up or down. A field is paired with itself where two of its columns are not zero.
            With draws the values are means over them, and a row's sum is the mean score.

        Raises
        ------
        ValueError
            For an unknown by or label, by="field" without fields, and more than ten million lines.
        """
        check_is_fitted(self)
        params, rows = self._params_of(label), self._encode_flat(X)
        columns = getattr(self, "feature_names_in_", None)
        return explanation(params, rows, by=by, fields=self.fields_, encoder=self.encoder_, columns=columns)

    def field_importance(self, X: Any, *, label: Any = None) -> pd.DataFrame:
        """How much each field, and each pair of fields, makes the scores of the rows of X differ.

        Parameters
        ----------
        X : as for predict
        label : optional
            Of several classes, the one whose score it is.

        Returns
        -------
        DataFrame
            first and second (names of fields; second is "" for what a field adds by itself) and importance: the
            standard deviation over the rows of that part of the score, in its unit, the largest first. A field is
            paired with itself where a row has two of its columns that are not zero.

        Raises
        ------
        ValueError
            Without fields, of an encoder or by fields=; for an unknown label.
        """
        check_is_fitted(self)
        params = self._params_of(label)
        return importance(params, self._encode_flat(X), fields=self.fields_, encoder=self.encoder_)

    def _params_of(self, label: Any) -> FMParams | Posterior:
        """What gives the score of a class: parameters, or draws of them."""
        found: Any = self.params_ if self.posterior_ is None else self.posterior_
        if not isinstance(found, tuple):
            if label is not None:
                raise ValueError("label= is for classifiers with more than two classes; this model has one score")
            return found  # type: ignore[no-any-return]
        classes = self.classes_.tolist()
        if label not in classes:
            raise ValueError(f"label must be the class to rank by, one of {classes}; got {label!r}")
        return found[classes.index(label)]  # type: ignore[no-any-return]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fitted model, its encoder included, to one file that `sparsefm.load` reads.

        The file is complete or absent, also if the process dies. Callbacks are not kept, a random_state only if
        it is an integer.
        """
        check_is_fitted(self)
        meta, arrays = to_state(self)
        persistence.write(path, meta, arrays)


def _bias(params: FMParams | Posterior) -> float:
    return float(np.mean(params.w0))


def _each(params: Any, of: Any) -> Any:
    return tuple(of(p) for p in params) if isinstance(params, tuple) else of(params)


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)
