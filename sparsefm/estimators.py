"""scikit-learn estimators over the model and its solvers, and the files they are kept in."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import persistence
from ._kernels.dispatch import n_threads_or_default
from .encoders import FrameEncoder
from .encoders.tables import columns_of, is_frame
from .model import FMParams, represent, score
from .persistence import ModelFileError
from .recommend import top_k
from .solvers import SOLVERS, Problem, make_solver
from .validation import Rows, check_csr, check_positive, check_sample_weight, check_target

__all__ = ["FMClassifier", "FMRegressor", "load"]


def _all_or_nothing(fit: Any) -> Any:
    """A fit that is refused or fails leaves the estimator as it was."""

    @functools.wraps(fit)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.__dict__.copy()
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            self.__dict__ = before
            raise

    return guarded


class _BaseFM(BaseEstimator):  # type: ignore[misc]
    """What regressor and classifier share: the way in, the fit of one score function, and the way out."""

    n_factors: int
    l2_linear: float
    l2_factors: Any  # float; None in the regressor
    init_std: float
    solver: Any
    encoder: Any
    early_stopping: bool
    validation_fraction: float
    callbacks: Any
    n_threads: int | None
    random_state: Any
    verbose: int

    params_: FMParams | tuple[FMParams, ...]
    history_: list[dict[str, Any]]
    encoder_: Any
    n_features_in_: int
    classes_: NDArray[Any]  # of the classifier

    # ---- the way in ----

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_parameters(self) -> None:
        check_positive(self.n_factors, "n_factors", zero=True, integer=True)
        check_positive(self.l2_linear, "l2_linear", zero=True)
        if self.l2_factors is not None or isinstance(self, ClassifierMixin):
            check_positive(self.l2_factors, "l2_factors", zero=True)
        check_positive(self.init_std, "init_std", zero=True)
        n_threads_or_default(self.n_threads)
        make_solver(self.solver)
        if self.callbacks is not None and not (
            isinstance(self.callbacks, (list, tuple)) and all(map(callable, self.callbacks))
        ):
            raise TypeError(f"callbacks must be a list of functions, got {self.callbacks!r}")
        if isinstance(self.encoder, dict):
            raise TypeError("encoder must be an encoder, not a dict: give FrameEncoder({...})")
        if self.early_stopping and not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")

    def _encode_fit(self, X: Any, y: Any) -> tuple[Rows, NDArray[Any]]:
        """Fits the encoder if there is one; the training rows and y as a checked (n_rows,) array."""
        encoder = self.encoder
        if encoder is None and is_frame(X) and not _all_numbers(X):
            encoder = FrameEncoder()  # by dtype
        y_numeric = isinstance(self, RegressorMixin)
        if encoder is None:
            self.encoder_ = None
            rows = _checked_sparse(X)
            X, y = validate_data(self, X, y, accept_sparse="csr", ensure_all_finite=False, y_numeric=y_numeric)
            return rows or check_csr(X), y
        self.encoder_ = clone(encoder)
        if sp.issparse(X):
            raise TypeError("an encoder takes a DataFrame; X is a sparse matrix, which needs encoder=None")
        if len(X) == 0:
            raise ValueError("X has 0 rows: there is nothing to fit")
        y = validate_data(self, X="no_validation", y=y, y_numeric=y_numeric)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows, but y has {len(y)} values: give one target a row")
        rows = check_csr(self.encoder_.fit_transform(X, y))
        self.n_features_in_ = self.encoder_.n_features_in_
        if hasattr(self.encoder_, "feature_names_in_"):
            self.feature_names_in_ = self.encoder_.feature_names_in_
        return rows, y

    def _encode(self, X: Any) -> Rows:
        if self.encoder_ is not None:
            return check_csr(self.encoder_.transform(X))
        rows = _checked_sparse(X)
        X = validate_data(self, X, accept_sparse="csr", ensure_all_finite=False, reset=False)
        return rows or check_csr(X)

    def _start(
        self, X: Any, y: Any, sample_weight: Any, eval_set: Any
    ) -> tuple[Rows, NDArray[Any], NDArray[Any] | None, tuple[Any, ...] | None]:
        """Checked training rows, targets and weights, and the rows to watch: those given, or a part set aside."""
        self._check_parameters()
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if eval_set is not None and not (isinstance(eval_set, (tuple, list)) and len(eval_set) in (2, 3)):
            raise ValueError("eval_set must be (X, y) or (X, y, sample_weight)")
        if eval_set is None and self.early_stopping:
            _checked_sparse(X)
            X, y, sample_weight, eval_set = self._set_aside(X, y, sample_weight)
        rows, y = self._encode_fit(X, y)
        weight = check_sample_weight(sample_weight, rows.n_rows)
        return rows, y, weight, eval_set

    def _set_aside(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, tuple[Any, ...]]:
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

    # ---- the fit of one score function ----

    def _solve(
        self,
        rows: Rows,
        y: NDArray[Any],
        weight: NDArray[Any] | None,
        evaluation: tuple[Rows, NDArray[Any], NDArray[Any] | None] | None,
        *,
        loss: str,
        w0: float,
        l2_factors: float,
        loss_scale: float = 1.0,
        seed: int,
        label: dict[str, Any] | None = None,
    ) -> FMParams:
        solver = make_solver(self.solver)

        def report(record: dict[str, Any]) -> bool:
            record = (label or {}) | {
                key: value * loss_scale if key.endswith("loss") else value for key, value in record.items()
            }
            self.history_.append(record)
            if self.verbose:
                _print_progress(type(self).__name__, record, solver.max_iter)
            stops = [_is_true(callback(self, record)) for callback in self.callbacks or ()]  # every one is called
            return any(stops)

        params: FMParams = solver.solve(
            Problem(
                rows=rows,
                y=y.astype(rows.dtype),
                weight=None if weight is None else weight.astype(rows.dtype),
                loss=loss,
                w0=w0,
                n_factors=self.n_factors,
                l2_linear=self.l2_linear,
                l2_factors=l2_factors,
                init_std=self.init_std,
                seed=seed,
                n_threads=self.n_threads,
                evaluation=evaluation,
                early_stopping=self.early_stopping,
                report=report,
            )
        )
        return params

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
        """(n_features, n_factors), for several classes (n_classes, n_features, n_factors)."""
        return np.asarray(_each(self.params_, lambda p: p.V))

    @property
    def fields_(self) -> NDArray[np.int32] | None:
        """(n_features,) field of each column of the encoded matrix; None without a FrameEncoder."""
        return getattr(self.encoder_, "fields_", None)

    def _scores(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        rows = self._encode(X)
        scores = _each(self.params_, lambda p: score(p, rows, n_threads=self.n_threads))
        if isinstance(scores, tuple):
            return np.stack(scores, axis=1)
        return np.asarray(scores)

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
        if self.encoder_ is None:
            users, items = represent(params, contexts, candidates, n_threads=self.n_threads)
            return top_k(users, items, k, w0=params.w0, exclude=exclude)
        if not isinstance(self.encoder_, FrameEncoder):
            raise TypeError(f"recommending from frames needs a FrameEncoder, not a {type(self.encoder_).__name__}")
        X_users, X_items = self._both_sides(contexts, candidates, user, item)
        users, items = represent(params, X_users, X_items, n_threads=self.n_threads)
        pairs = None if exclude is None else _pairs(exclude, contexts, candidates, user, item)
        ids, scores = top_k(users, items, k, w0=params.w0, exclude=pairs)
        request, place = np.nonzero(ids >= 0)
        return pd.DataFrame(
            {
                user: contexts[user].array.take(request),
                item: candidates[item].array.take(ids[request, place]),
                "rank": place + 1,
                "score": scores[request, place],
            }
        )

    def _params_of(self, label: Any) -> FMParams:
        if isinstance(self.params_, FMParams):
            if label is not None:
                raise ValueError("label= is for classifiers with more than two classes; this model has one score")
            return self.params_
        classes = self.classes_.tolist()
        if label not in classes:
            raise ValueError(f"label must be the class to rank by, one of {classes}; got {label!r}")
        of_label: FMParams = self.params_[classes.index(label)]
        return of_label

    def _both_sides(self, contexts: Any, candidates: Any, user: str, item: str) -> tuple[Any, Any]:
        for frame, name, column in ((contexts, "contexts", user), (candidates, "candidates", item)):
            if not isinstance(frame, pd.DataFrame):
                raise TypeError(f"{name} must be a DataFrame, got {type(frame).__name__}")
            if column not in frame.columns:
                raise ValueError(f"{name} has no column {column!r}, only {list(frame.columns)}")
        read = {source for column in self.encoder_.columns_.values() for source in column.sources}
        both = sorted(read & set(contexts.columns) & set(candidates.columns))
        if both:
            raise ValueError(
                f"columns {both} are in contexts and in candidates: drop each from the side it does not describe"
            )
        needed = {name: set(column.essential) for name, column in self.encoder_.columns_.items()}
        on_users = [name for name, sources in needed.items() if sources <= set(contexts.columns)]
        on_items = [name for name, sources in needed.items() if sources <= set(candidates.columns)]
        for name, sources in needed.items():
            if not sources.isdisjoint(contexts.columns) and not sources.isdisjoint(candidates.columns):
                raise ValueError(
                    f"field {name!r} reads {sorted(sources)}, of contexts and of candidates together, so a score does "
                    "not split into their parts: predict such pairs row by row, or fit without this field"
                )
        if candidates[item].duplicated().any():
            twice = candidates[item][candidates[item].duplicated()].iloc[0]
            raise ValueError(f"candidates has {item} {twice!r} more than once: give one row an item")
        return (
            self.encoder_.transform(contexts, columns=on_users),
            self.encoder_.transform(candidates, columns=on_items),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fitted model, its encoder included, to one file that `sparsefm.load` reads.

        The file is complete or absent, also if the process dies. Callbacks are not kept, a random_state only if
        it is an integer.
        """
        check_is_fitted(self)
        meta, arrays = _to_state(self)
        persistence.write(path, meta, arrays)


class FMRegressor(RegressorMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for a real target, squared loss (Rendle, ICDM 2010).

    The objective, with s_i the sample weights and c_j the weighted share of rows in which feature j occurs:

        (Σ s_i ½(y_i − score_i)²) / Σ s_i + ½ Σ_j c_j (l2_linear w_j² + l2_factors ‖v_j‖²)

    Training sees the target with mean 0 and standard deviation 1, which changes the steps but not the objective;
    so a learning rate suits targets of any scale.

    Parameters
    ----------
    n_factors : int
        Length of a feature's vector; 0 leaves the linear model, on one-hot ids the biases.
    solver : "adagrad", "sgd" or a solver object such as AdaGrad(max_iter=50)
    l2_linear, l2_factors : float
        Penalties. l2_factors=None is 0.1 times the standard deviation of y, which is the same strength at any
        scale of the target.
    init_std : float
        Standard deviation of the starting factors, for a target of standard deviation 1.
    encoder : FrameEncoder or another transformer to sparse rows, optional
        Fitted together with the model. Without one, a frame with text or category columns is encoded by its
        dtypes, and a frame of numbers, integer ids too, is a matrix. Recommending from frames and saving need
        a FrameEncoder.
    clip : bool
        Predictions stay inside the range of the training target.
    early_stopping : bool
        Stop when the loss on eval_set, or on validation_fraction of the rows, no longer falls, and keep the best
        epoch's parameters.
    validation_fraction : float
    callbacks : list of callables, optional
        callback(estimator, record) after each epoch; True stops.
    n_threads : int, optional
        None: every core. The result does not depend on it.
    random_state : int, RandomState or None
    verbose : int
        1 prints a line an epoch to stderr.

    Attributes
    ----------
    params_ : FMParams
    intercept_, coef_, factors_ : float, (n_features,), (n_features, n_factors)
    history_ : list of dict
        One an epoch: epoch, loss (mean of ℓ, each row scored before its own update), seconds, and eval_loss
        with an eval_set.
    n_iter_ : int
    encoder_ : fitted encoder or None
    fields_ : (n_features,) int32 or None
    target_range_ : (lowest, highest) training target

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import FMRegressor, FrameEncoder, OneHot
    >>> frame = pd.DataFrame({"user": ["ann", "ann", "bob", "bob"], "film": ["Up", "Jaws", "Up", "Jaws"]})
    >>> model = FMRegressor(encoder=FrameEncoder({"user": OneHot(), "film": OneHot()}), random_state=0)
    >>> model.fit(frame, [5.0, 1.0, 4.0, 2.0]).predict(frame).shape
    (4,)
    """

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: float | None = None,
        init_std: float = 0.01,
        encoder: Any = None,
        clip: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.init_std = init_std
        self.encoder = encoder
        self.clip = clip
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @_all_or_nothing
    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fits to rows X (n_rows, n_features) — CSR, any matrix, or with an encoder a DataFrame — and y (n_rows,).

        eval_set is (X, y) or (X, y, sample_weight), watched after each epoch. Raises ValueError for input that is
        not finite or does not fit together, DivergenceError when training runs away.
        """
        rows, y, weight, eval_set = self._start(X, y, sample_weight, eval_set)
        y = check_target(y, rows.n_rows)
        counting = y if weight is None else y[weight > 0]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.average(y, weights=weight))
            spread = float(np.sqrt(np.average((y - mean) ** 2, weights=weight)))
        reach = float(np.finfo(rows.dtype).max) ** 0.5
        if (
            not np.isfinite(mean + spread)
            or spread > reach
            or (spread < 1 / reach and counting.min() != counting.max())
        ):
            raise ValueError(
                f"y goes from {counting.min():.3g} to {counting.max():.3g} with a standard deviation of {spread:.3g}, "
                f"whose square leaves {rows.dtype}: rescale y" + " or pass a float64 X" * (rows.dtype == np.float32)
            )
        scale = spread if spread > 0 else 1.0
        evaluation = None
        if eval_set is not None:
            watched = self._encode(eval_set[0])
            target = check_target(eval_set[1], watched.n_rows, name="the y of eval_set")
            given = check_sample_weight(eval_set[2] if len(eval_set) == 3 else None, watched.n_rows)
            evaluation = (watched, (target - mean) / scale, given)
        self.history_ = []
        # In the standardised problem w and V are 1/scale and 1/√scale of their values, the loss 1/scale²:
        # l2_linear is the same number there, l2_factors is divided by scale.
        params = self._solve(
            rows,
            (y - mean) / scale,
            weight,
            evaluation,
            loss="squared",
            w0=0.0,
            l2_factors=0.1 if self.l2_factors is None else self.l2_factors / scale,
            loss_scale=scale**2,
            seed=self._seed(),
        )
        V, w = params.V, params.w
        V *= V.dtype.type(np.sqrt(scale))
        w *= w.dtype.type(scale)
        self.params_ = FMParams(mean + scale * params.w0, w, V)
        self.target_range_ = (float(counting.min()), float(counting.max()))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted target (n_rows,) float64, inside the training range unless clip=False."""
        check_is_fitted(self)
        params = self._params_of(None)
        # the bias is added in float64: beside a large mean float32 would lose the rest
        deviations = score(FMParams(0.0, params.w, params.V), self._encode(X), n_threads=self.n_threads)
        scores = deviations.astype(np.float64) + params.w0
        return np.asarray(scores.clip(*self.target_range_)) if self.clip else scores


class FMClassifier(ClassifierMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for classes, logistic loss; more than two classes one against the rest.

    The objective is FMRegressor's with ℓ(y, score) = log(1 + e^score) − y · score, y in {0, 1}.

    Parameters
    ----------
    l2_linear, l2_factors : float
    class_weight : dict, "balanced" or None
        Weight of a class's rows, times sample_weight; "balanced" is n_rows / (n_classes · rows of the class).

    The others are FMRegressor's.

    Attributes
    ----------
    classes_ : (n_classes,)
    params_ : FMParams, for several classes a tuple of them

    The others are FMRegressor's; with several classes each record of history_ names its "class".

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMClassifier
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> y = np.array(["same", "other", "other", "same"] * 25)
    >>> FMClassifier(random_state=0).fit(X, y).classes_
    array(['other', 'same'], dtype='<U5')
    """

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: float = 0.08,
        init_std: float = 0.01,
        encoder: Any = None,
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.init_std = init_std
        self.encoder = encoder
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @_all_or_nothing
    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fits to rows X and labels y (n_rows,) of any sortable type; eval_set as in FMRegressor.fit."""
        rows, y, weight, eval_set = self._start(X, y, sample_weight, eval_set)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: a classifier needs samples of at least two")
        if self.class_weight is not None:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[codes]
            weight = check_sample_weight(of_class if weight is None else of_class * weight, rows.n_rows)
        watched = None
        if eval_set is not None:
            X_watched = self._encode(eval_set[0])
            given = check_sample_weight(eval_set[2] if len(eval_set) == 3 else None, X_watched.n_rows)
            labels = np.asarray(eval_set[1])
            if labels.shape != (X_watched.n_rows,):
                raise ValueError(f"the y of eval_set must have shape ({X_watched.n_rows},), got {labels.shape}")
            known = set(self.classes_.tolist())
            unknown = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
            if unknown:
                raise ValueError(f"the y of eval_set has classes that y has not: {unknown[:5]}")
            watched = (X_watched, labels, given)
        self.history_ = []
        seed = self._seed()
        binary = len(self.classes_) == 2
        fitted = []
        for code in [1] if binary else range(len(self.classes_)):
            target = (codes == code).astype(np.float64)
            share = np.clip(np.average(target, weights=weight), 1e-6, 1 - 1e-6)
            evaluation = None
            if watched is not None:
                evaluation = (watched[0], (watched[1] == self.classes_[code]).astype(np.float64), watched[2])
            fitted.append(
                self._solve(
                    rows,
                    target,
                    weight,
                    evaluation,
                    loss="logistic",
                    w0=float(np.log(share / (1 - share))),
                    l2_factors=self.l2_factors,
                    seed=seed,
                    label=None if binary else {"class": self.classes_.tolist()[code]},
                )
            )
        self.params_ = fitted[0] if binary else tuple(fitted)
        return self

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Scores before the link: (n_rows,), for several classes (n_rows, n_classes)."""
        return self._scores(X)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities (n_rows, n_classes) in the order of classes_; of several classes scaled to sum to 1."""
        scores = self._scores(X).astype(np.float64)
        # exp of a non-positive number only
        e = np.exp(-np.abs(scores))
        share = np.where(scores >= 0, 1, e) / (1 + e)
        if share.ndim == 1:
            return np.stack([1 - share, share], axis=1)
        total = share.sum(axis=1, keepdims=True)
        scaled: NDArray[Any] = np.where(
            total > 0, share / np.maximum(total, np.finfo(np.float64).tiny), 1 / share.shape[1]
        )
        return scaled

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class (n_rows,)."""
        scores = self._scores(X)
        best = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])


def _each(params: Any, of: Any) -> Any:
    return tuple(of(p) for p in params) if isinstance(params, tuple) else of(params)


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)


def _all_numbers(X: Any) -> bool:
    return all(pd.api.types.is_numeric_dtype(column.dtype) for column in columns_of(X)[1])


def _checked_sparse(X: Any) -> Rows | None:
    """The rows of a sparse container, before scikit-learn looks at it: its conversions trust the indices. None for
    anything else, and for an empty one, about which scikit-learn has the better words."""
    return check_csr(X) if sp.issparse(X) and X.ndim == 2 and min(X.shape) > 0 else None


def _print_progress(name: str, record: dict[str, Any], max_iter: int) -> None:
    parts = [f"{key} {record[key]:.4f}" for key in ("loss", "eval_loss") if key in record]
    which = f" class {record['class']}" if "class" in record else ""
    print(
        f"{name}{which} epoch {record['epoch']}/{max_iter}  {'  '.join(parts)}  {record['seconds']:.2f} s",
        file=sys.stderr,
        flush=True,
    )


def _pairs(exclude: Any, contexts: pd.DataFrame, candidates: pd.DataFrame, user: str, item: str) -> Any:
    """Sparse (n_contexts, n_candidates) with a one at each excluded pair."""
    if not isinstance(exclude, pd.DataFrame) or not {user, item} <= set(exclude.columns):
        raise ValueError(f"exclude must be a DataFrame with columns {user!r} and {item!r}")
    if len(exclude) == 0:
        return None
    for frame, column in ((contexts, user), (candidates, item)):
        ours, theirs = (pd.api.types.is_numeric_dtype(f[column]) for f in (frame, exclude))
        if ours != theirs:
            raise ValueError(
                f"{column} is {frame[column].dtype} in the request but {exclude[column].dtype} in exclude: "
                "no pair would match; give both the same type"
            )
    place = pd.Index(candidates[item]).get_indexer(exclude[item])
    shown = pd.DataFrame({"user": exclude[user].array[place >= 0], "place": place[place >= 0]})
    requests = pd.DataFrame({"user": contexts[user].array, "request": np.arange(len(contexts))})
    found = requests.merge(shown, on="user").drop_duplicates()
    ones = np.ones(len(found), dtype=np.int8)
    return sp.coo_array((ones, (found["request"], found["place"])), shape=(len(contexts), len(candidates))).tocsr()


# ---- model files ----

_FORMAT = 1
_CLASSES: dict[str, type[FMRegressor] | type[FMClassifier]] = {
    "FMRegressor": FMRegressor,
    "FMClassifier": FMClassifier,
}
_LABEL_KINDS = {"b": bool, "i": int, "u": int, "f": float, "U": str, "O": str}


def _to_state(model: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    options = model.get_params(deep=False)
    del options["callbacks"], options["encoder"]
    solver = make_solver(options["solver"])
    if SOLVERS.get(type(solver).__name__.lower()) is not type(solver):
        raise TypeError(
            f"a model with a solver of your own, {type(solver).__name__}, cannot be saved: load could not make it"
        )
    options["solver"] = {
        "name": type(solver).__name__.lower(),
        "options": {key: _plain(value) for key, value in solver.get_params().items()},
    }
    if not isinstance(options["random_state"], (int, np.integer)):
        options["random_state"] = None
    if isinstance(options.get("class_weight"), dict):
        options["class_weight"] = [[_plain(key), _plain(value)] for key, value in options["class_weight"].items()]
    several = isinstance(model.params_, tuple)
    params = model.params_ if several else (model.params_,)
    arrays = {}
    for i, p in enumerate(params):
        arrays[f"w0.{i}"] = np.array([p.w0])
        arrays[f"w.{i}"], arrays[f"V.{i}"] = p.w, p.V
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "class": type(model).__name__,
        "options": {key: _plain(value) for key, value in options.items()},
        "n_params": len(params),
        "n_features_in": model.n_features_in_,
        "feature_names_in": model.feature_names_in_.tolist() if hasattr(model, "feature_names_in_") else None,
        "history": [{key: _plain(value) for key, value in record.items()} for record in model.history_],
        "encoder": None,
    }
    if isinstance(model, FMClassifier):
        kind = model.classes_.dtype.kind
        labels = model.classes_.tolist()
        if kind not in _LABEL_KINDS or not all(isinstance(label, _LABEL_KINDS[kind]) for label in labels):
            raise TypeError(
                f"classes of type {model.classes_.dtype} cannot be saved: use str, int, float or bool labels"
            )
        meta["classes"] = {"dtype": model.classes_.dtype.str, "labels": labels}
    else:
        meta["target_range"] = list(model.target_range_)
    if model.encoder_ is not None:
        if not isinstance(model.encoder_, FrameEncoder):
            raise TypeError(f"only a FrameEncoder can be saved inside a model, not a {type(model.encoder_).__name__}")
        meta["encoder"], encoder_arrays = model.encoder_.to_state()
        arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    return meta, arrays


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def load(path: str | os.PathLike[str]) -> FMRegressor | FMClassifier:
    """The model in a file that `save` wrote.

    Nothing in the file is executed. Raises ModelFileError for a file that is damaged, malformed or of a newer
    format, OSError for one that cannot be read.
    """
    meta, arrays = persistence.read(path)
    try:
        if meta.get("format") != _FORMAT:
            raise ValueError(f"its format is {meta.get('format')!r}, this version reads {_FORMAT}; upgrade sparsefm")
        return _from_state(meta, arrays)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path} does not hold a valid model: {type(error).__name__}: {error}") from error


def _from_state(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> FMRegressor | FMClassifier:
    cls = _CLASSES[meta["class"]]
    options = dict(meta["options"])
    solver = options.pop("solver")
    weights = options.get("class_weight")
    if isinstance(weights, list):
        options["class_weight"] = dict(weights)
    model = cls(solver=SOLVERS[solver["name"]](**solver["options"]), **options)
    model._check_parameters()

    n_params = meta["n_params"]
    if not isinstance(n_params, int) or isinstance(n_params, bool) or not 1 <= n_params <= len(arrays):
        raise ValueError(f"it announces {n_params!r} score functions")
    if cls is FMRegressor and n_params != 1:
        raise ValueError(f"it announces {n_params} score functions for a regressor")
    params = []
    for i in range(n_params):
        w0, w, V = (arrays[f"{name}.{i}"] for name in ("w0", "w", "V"))
        if w0.shape != (1,) or w0.dtype != np.float64:
            raise ValueError(f"its bias is of shape {w0.shape} and type {w0.dtype}")
        p = FMParams(float(w0[0]), w, V)
        if not (np.isfinite(p.w0) and np.isfinite(p.w).all() and np.isfinite(p.V).all()):
            raise ValueError("its parameters are not finite")
        params.append(p)
    if len({(p.n_features, p.n_factors, p.dtype) for p in params}) > 1 or params[0].n_factors != model.n_factors:
        raise ValueError("its parameters do not agree in shape")
    model.params_ = params[0] if n_params == 1 else tuple(params)

    model.encoder_ = None
    if meta["encoder"] is not None:
        prefix = "encoder."
        state = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        model.encoder_ = FrameEncoder.from_state(meta["encoder"], state)
        model.encoder = clone(model.encoder_)
    n_in = meta["n_features_in"]
    width = params[0].n_features if model.encoder_ is None else model.encoder_.n_features_in_
    if n_in != width or (model.encoder_ is not None and model.encoder_.n_features_out_ != params[0].n_features):
        raise ValueError("its columns and its parameters do not belong together")
    model.n_features_in_ = n_in
    names = meta["feature_names_in"]
    if names is not None:
        if not isinstance(names, list) or len(names) != n_in or not all(isinstance(name, str) for name in names):
            raise ValueError("its column names are malformed")
        model.feature_names_in_ = np.array(names, dtype=object)
    history = meta["history"]
    if (
        not isinstance(history, list)
        or not history
        or not all(isinstance(r, dict) and isinstance(r["epoch"], int) for r in history)
    ):
        raise ValueError("its history is malformed")
    model.history_ = history
    if isinstance(model, FMClassifier):
        model.classes_ = _labels(meta["classes"], n_params)
    else:
        low, high = (float(bound) for bound in meta["target_range"])
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"its target range is {low} to {high}")
        model.target_range_ = (low, high)
    return model


def _labels(state: dict[str, Any], n_params: int) -> NDArray[Any]:
    dtype, labels = np.dtype(state["dtype"]), state["labels"]
    if dtype.kind not in _LABEL_KINDS or not all(isinstance(label, _LABEL_KINDS[dtype.kind]) for label in labels):
        raise ValueError("its class labels are malformed")
    if dtype.itemsize > 4096:
        raise ValueError(f"its class labels take {dtype.itemsize} bytes each")
    classes = np.array(labels, dtype=dtype)
    if (
        classes.tolist() != labels
        or len(classes) != max(n_params, 2)
        or n_params == 2
        or len(set(labels)) != len(labels)
    ):
        raise ValueError("its class labels and its score functions do not belong together")
    return classes
