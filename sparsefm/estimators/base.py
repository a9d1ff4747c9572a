"""What the estimators share: the way in, the fit of one score function, and the way out."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import persistence
from .._kernels.dispatch import n_threads_or_default
from ..encoders import FrameEncoder
from ..encoders.tables import columns_of, is_frame
from ..model import FMParams, represent, score
from ..recommend import top_k
from ..solvers import Problem, make_solver
from ..validation import Rows, check_csr, check_positive, check_sample_weight
from .files import to_state


def all_or_nothing(fit: Any) -> Any:
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
        meta, arrays = to_state(self)
        persistence.write(path, meta, arrays)


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
