"""Training on rows that come in pieces: one piece at a time as the user hands them over, or a stream of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .. import encoders
from .._kernels import csr
from ..encoders.tables import is_frame
from ..solvers import DivergenceError, Problem, make_solver
from ..solvers.engine import Training, advice, far_above, norms, scale_of
from ..solvers.problem import HALVINGS, mean_loss, warn
from ..validation import Rows, check_csr, check_relations, check_weights

__all__ = ["fit_stream", "partial_fit"]

_TARGET = "<target>"  # what the column of y is called beside those of the frame


@dataclass
class Session:
    """A training that goes on: its tables, one a score function, and how many pieces they have seen."""

    trainings: list[Training]
    seed: int
    options: dict[str, str]  # of the estimator when it began
    weight: float  # the mean one of the first piece: that of all others is measured by it
    pieces: int = 0


def partial_fit(model: Any, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> None:
    """What the estimators' partial_fit does."""
    model._check_parameters()
    if getattr(model, "_session", None) is None:
        _open_session(model, X, y, sample_weight, classes)
    else:
        if classes is not None and not np.array_equal(np.unique(classes), model.classes_):
            raise ValueError(f"classes are those of the first call, {model.classes_.tolist()[:20]}; leave them out")
        options = _options(model)
        changed = [name for name, value in options.items() if value != model._session.options[name]]
        if changed:
            raise ValueError(
                f"partial_fit goes on with the options of its first call, but {', '.join(changed)} changed: fit anew, "
                "or go on from a saved and loaded model"
            )
        rows, y, weight = _more(model, X, y, sample_weight)
        weight = _weighed(model, y, weight, model._session.weight)
        _step(model, rows, model._targets(y, rows.n_rows), weight)
        model._learn_more(y)


def fit_stream(model: Any, frames: Any, target: str | None, epochs: int) -> None:
    """What the estimators' fit_stream does."""
    model._check_parameters()
    if not hasattr(make_solver(model.solver), "method"):
        raise TypeError(f"fit_stream needs a first-order solver such as 'adagrad', not {model.solver!r}")
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise ValueError(f"epochs must be a positive integer, got {epochs!r}")
    open_frames, again = _opener(frames)
    before = model.__dict__.copy()
    try:
        if again:
            _fit_again(model, lambda: _pairs_of(open_frames(), target), int(epochs))
        elif epochs > 1:
            raise ValueError(
                "frames can be iterated once only, but epochs is more than 1: give a list, or a function that "
                "returns a fresh iterator"
            )
        else:
            model._session = None
            model.__dict__.pop("params_", None)
            for X, y in _pairs_of(open_frames(), target):
                partial_fit(model, X, y)
            if model._session is None:
                raise ValueError("frames holds no rows: there is nothing to fit")
    except BaseException:
        model.__dict__ = before
        raise


def _open_session(model: Any, X: Any, y: Any, sample_weight: Any, classes: Any) -> None:
    before = model.__dict__.copy()
    try:
        if hasattr(model, "params_"):
            first = model.params_[0] if isinstance(model.params_, tuple) else model.params_
            if first.n_factors != model._rank or first.V.shape[1] != model._family().blocks * model._rank:
                raise ValueError(
                    f"the model was fitted with n_factors={first.n_factors}, which is now {model._rank}, or is of "
                    "another order: fit anew"
                )
            rows, y, weight = _more(model, X, y, sample_weight)
            params = model.params_ if isinstance(model.params_, tuple) else (model.params_,)
            starts = [model._units().into(p, rows.dtype) for p in params]
            model.posterior_ = None
        else:
            rows, y = model._encode_fit(X, y)
            weight = check_weights(sample_weight, rows.n_rows)
            model._learn_target(y if classes is None else np.asarray(classes), None, rows.dtype)
            model.history_ = []
            starts = [None] * len(model._labels)
        targets, weight = model._targets(y, rows.n_rows), _weighed(model, y, weight)
        seed, unit = model._seed(), 1.0
        if weight is not None:
            unit = float(weight.max()) * float(np.mean(weight / weight.max()))  # their sum may overflow
            weight = weight / unit
        model._session = Session([], seed, _options(model), unit)
        for i, (target, start) in enumerate(zip(targets, starts, strict=True)):
            problem = model._problem(rows, target, weight, None, seed, i, start)
            method = replace(make_solver(model.solver).method(problem), batch_size=1)
            model._session.trainings.append(Training(method, problem))
        model._store([training.table.copy() for training in model._session.trainings])
        _step(model, rows, targets, weight, shown=True)
        model._learn_more(y)
    except BaseException:
        model.__dict__ = before
        if hasattr(model, "params_") and isinstance(model.encoder_, encoders.FrameEncoder):
            _grow(model)  # the encoder keeps what it has learned
        raise


def _options(model: Any) -> dict[str, str]:
    """What training goes by, to be compared."""
    apart = ("callbacks", "clip", "encoder", "n_threads", "random_state", "verbose", "warm_start")
    return {name: repr(value) for name, value in model.get_params(deep=False).items() if name not in apart}


def _weighed(model: Any, y: Any, weight: NDArray[Any] | None, unit: float = 1.0) -> NDArray[np.float64] | None:
    """Sample weights times those of the classes, in that unit; None: all one."""
    if getattr(model, "class_weight", None) == "balanced":
        raise ValueError(
            "class_weight='balanced' needs the frequencies of all classes, which a piece does not tell: give a dict"
        )
    weight = model._weights(y, weight)
    if weight is None:
        return None if unit == 1 else np.full(len(y), 1 / unit)
    return weight / unit


def _more(model: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Rows, Any, NDArray[Any] | None]:
    """Further rows, checked and encoded; the encoder has grown by them."""
    check_is_fitted(model)
    relations = check_relations(X)
    n_rows = relations.n_rows if relations else X.shape[0] if hasattr(X, "shape") else len(X)
    if n_rows == 0:
        raise ValueError("X has 0 rows: there is nothing to fit")
    y = np.asarray(y)
    if y.shape != (n_rows,):
        raise ValueError(f"X has {n_rows} rows, but y has shape {y.shape}: give one target a row")
    weight = check_weights(sample_weight, n_rows)
    model._targets(y, n_rows)  # refuses a wrong y before the encoder learns it
    if model.encoder_ is None:
        first = model.params_[0] if isinstance(model.params_, tuple) else model.params_
        return check_csr(model._encode_flat(X), dtype=first.dtype), y, weight
    if not isinstance(model.encoder_, encoders.FrameEncoder):
        return model._scaled(check_csr(model.encoder_.transform(X))), y, weight
    statistics = [name for name, c in model.encoder_.columns_.items() if isinstance(c.encoder, encoders.TargetStats)]
    told = model.encoder_.transform(X, columns=statistics) if statistics else None
    model.encoder_.partial_fit(X, y)
    others = [name for name in model.encoder_.columns_ if name not in statistics]
    encoded = model.encoder_.transform(X, columns=others)
    if told is not None:
        told.resize(encoded.shape)
        encoded = encoded + told
    _grow(model)
    return model._scaled(check_csr(encoded)), y, weight


def _grow(model: Any) -> None:
    """Gives the columns that the encoder appended rows in the parameters and in the tables."""
    n, buckets = model.encoder_.n_features_out_, model.encoder_.buckets_
    several = isinstance(model.params_, tuple)
    params = model.params_ if several else (model.params_,)
    if params[0].n_features == n:
        return
    grown = tuple(p.grow(n, start=buckets, fields=model.encoder_.fields_) for p in params)
    if getattr(model, "_session", None) is not None:
        for training in model._session.trainings:
            training.grow(n, buckets, grown[0].family)
    model.params_ = grown if several else grown[0]


def _step(
    model: Any,
    rows: Rows,
    targets: list[NDArray[Any]],
    weight: NDArray[Any] | None,
    *,
    shown: bool = False,
    epoch: int | None = None,
    first: int = 0,
) -> list[float]:
    """One pass over the rows with every score function. Σ weight · loss of each; nothing changes if one diverges.

    shown: the rows are counted. epoch, first: which pass of a stream this is part of and where its rows lie in it;
    without these the piece is a pass of its own and params_ and history_ follow.
    """
    session = model._session
    assert session is not None
    touched, alone = _touched(rows, model), epoch is None
    counts = [training.counts[touched] for training in session.trainings]
    problems = [
        replace(model._problem(rows, target, weight, None, session.seed, i, w0=training.table.w0), progress=None)
        for i, (training, target) in enumerate(zip(session.trainings, targets, strict=True))
    ]
    if alone and not shown:
        for training, problem in zip(session.trainings, problems, strict=True):
            training.show(problem)
    undo = [(t.table.array[touched], t.table.bias.copy(), t.rate, t.bias_rate) for t in session.trainings]
    by_rate = [training.table.by_rate.copy() for training in session.trainings]
    totals = []
    try:
        for training, problem, (array, bias, *_) in zip(session.trainings, problems, undo, strict=True):
            totals.append(_pass(training, problem, epoch or session.pieces + 1, first, touched, (array, bias)))
    except BaseException:
        for training, count, (array, bias, *rates) in zip(session.trainings, counts, undo, strict=True):
            training.table.array[touched], training.table.bias[...] = array, bias
            training.rate, training.bias_rate = rates
            if alone and not shown:
                training.counts[touched] = count
        for training, state in zip(session.trainings, by_rate, strict=True):
            training.table.by_rate[...] = state
        raise
    if alone:
        session.pieces += 1
        scale = model._units().loss / _total(problems[0])
        for label, total in zip(model._labels, totals, strict=True):
            model.history_.append(label | {"epoch": session.pieces, "loss": total * scale})
        _refresh(model, touched)
    return totals


def _total(problem: Problem) -> float:
    """Of the weights."""
    return problem.rows.n_rows if problem.weight is None else float(problem.weight.sum(dtype=np.float64))


def _refresh(model: Any, features: NDArray[Any]) -> None:
    """Writes rows of the tables into params_, in place."""
    assert model._session is not None
    units, several = model._units(), isinstance(model.params_, tuple)
    updated = []
    for params, training in zip(model.params_ if several else (model.params_,), model._session.trainings, strict=True):
        rows = training.table.copy(features)
        params.w[features] = rows.w * rows.w.dtype.type(units.scale)
        params.V[features] = rows.V * units.roots(params.family, params.n_factors).astype(rows.V.dtype)
        w0 = units.centre + units.scale * rows.w0
        updated.append(replace(params, w0=w0, field_weights=rows.field_weights))
    model.params_ = tuple(updated) if several else updated[0]


def _fit_again(model: Any, pairs: Callable[[], Iterator[tuple[Any, Any]]], epochs: int) -> None:
    """A pass for the encoder and the target, one for the features' frequencies, and one an epoch."""
    seen = _Seen()
    model.__dict__.pop("feature_names_in_", None)
    if model.encoder is None:
        model.encoder_ = None
        for X, y in pairs():
            if is_frame(X):
                raise ValueError("a stream of frames needs encoder=FrameEncoder({...}): name each column's encoder")
            width = check_csr(X).n_features
            if seen.n_rows and width != model.n_features_in_:
                raise ValueError(
                    f"a piece has {width} columns, those before have {model.n_features_in_}: build all pieces with "
                    "the same number of columns"
                )
            model.n_features_in_ = width
            seen.add(y)
    else:
        model.encoder_ = clone(model.encoder)
        if not isinstance(model.encoder_, encoders.FrameEncoder):
            raise TypeError(f"fit_stream needs a FrameEncoder, not a {type(model.encoder_).__name__}")
        told = [n for n, e in (model.encoder_.columns or {}).items() if isinstance(e, encoders.TargetStats)]
        if told:
            raise ValueError(
                f"fields {told} are statistics of labels, which must leave a row's own out: a stream that is read "
                "again cannot; give a generator, where they describe the pieces before, or fit"
            )
        model.encoder_.fit_stream((_with_target(X, seen.add(y)) for X, y in pairs()), target=_TARGET)
        model.n_features_in_ = model.encoder_.n_features_in_
        if hasattr(model.encoder_, "feature_names_in_"):
            model.feature_names_in_ = model.encoder_.feature_names_in_
    if seen.n_rows == 0:
        raise ValueError("frames holds no rows: there is nothing to fit")
    model.history_ = []
    _open_stream(model, pairs, seen)
    session = model._session
    assert session is not None
    for epoch in range(1, epochs + 1):
        began, totals, first = perf_counter(), np.zeros(len(session.trainings)), 0
        for X, y in pairs():
            rows = check_csr(model._encode_flat(X), dtype=session.trainings[0].table.dtype)
            weight = seen.weights_of(model, y)
            totals += _step(model, rows, model._targets(y, rows.n_rows), weight, epoch=epoch, first=first)
            first += rows.n_rows
        if first != seen.n_rows:
            raise ValueError(f"the stream had {seen.n_rows} rows when it was first read and {first} in epoch {epoch}")
        for label, loss in zip(model._labels, totals / first * model._units().loss, strict=True):
            seconds = perf_counter() - began
            model.history_.append(label | {"epoch": epoch, "loss": float(loss), "seconds": seconds})
    model._store([training.table.unpack() for training in session.trainings])
    model._session = None


def _open_stream(model: Any, pairs: Callable[[], Iterator[tuple[Any, Any]]], seen: _Seen) -> None:
    """Tables for all features, with the strengths of L2 that their frequencies in the whole stream give."""
    counts, scales, empty = None, 0.0, None
    for X, y in pairs():
        rows = model._encode_flat(X)
        if counts is None or empty is None:
            counts = np.zeros(rows.n_features, np.float32)
            empty = rows._replace(indptr=rows.indptr[:1], indices=rows.indices[:0], data=None)
            model._learn_target(seen.values, seen.counts, rows.dtype)
        weight = seen.weights_of(model, y)
        weight = None if weight is None else weight.astype(rows.dtype)
        csr.count(counts, rows.indptr, rows.indices, weight)
        scales += norms(rows, weight)[1]
    assert counts is not None
    assert empty is not None
    weights = seen.weights_of(model, seen.values)
    times = seen.counts if weights is None else seen.counts * weights
    model._session = Session([], model._seed(), _options(model), 1.0)
    for i, target in enumerate(model._targets(seen.values, len(seen.values))):
        w0 = model._start_of(target, times)
        problem = model._problem(empty, target[:0], None, None, model._session.seed, i, w0=w0)
        method = replace(
            make_solver(model.solver).method(problem), shuffle=False, batch_size=1
        )  # a piece is no unit of its own
        model._session.trainings.append(Training(method, problem, counts=counts, scale=scale_of(scales, seen.n_rows)))


@dataclass
class _Seen:
    """The different values of a target that came in pieces, and how often each did."""

    values: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    counts: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    n_rows: int = 0

    def weights_of(self, model: Any, y: Any) -> NDArray[np.float64] | None:
        """The weights of rows by their class, of mean 1 over the stream."""
        weights = model._class_weights(self.counts)
        if weights is None:
            return None
        weights = weights * (self.n_rows / np.dot(weights, self.counts))
        return np.asarray(weights[np.searchsorted(self.values, y)])

    def add(self, y: Any) -> Any:
        y = np.asarray(y)
        if y.ndim != 1 or len(y) == 0:
            raise ValueError(f"each piece needs a target of one value a row, got shape {y.shape}")
        values, counts = np.unique(y, return_counts=True)
        if self.n_rows:
            both = np.concatenate([self.values, values])
            self.values, of = np.unique(both, return_inverse=True)
            self.counts = np.bincount(of, weights=np.concatenate([self.counts, counts]))
        else:
            self.values, self.counts = values, counts.astype(np.float64)
        self.n_rows += len(y)
        return y


def _touched(rows: Rows, model: Any) -> NDArray[Any]:
    """The features that a pass over the rows may change, ascending: with dropout also those of unknown levels."""
    hidden: Any = []
    if getattr(make_solver(model.solver), "dropout", 0) > 0 and hasattr(model.encoder_, "buckets_"):
        hidden = model.encoder_.buckets_[model.encoder_.buckets_ >= 0]
    if rows.nnz < rows.n_features // 64:
        return np.union1d(rows.indices, np.asarray(hidden, rows.indices.dtype))
    occurs = np.zeros(rows.n_features, dtype=bool)
    occurs[rows.indices] = occurs[hidden] = True
    return np.flatnonzero(occurs)


def _pass(
    training: Training,
    problem: Problem,
    epoch: int,
    first: int,
    touched: NDArray[Any],
    before: tuple[NDArray[Any], NDArray[Any]],
) -> float:
    """One pass over a piece; Σ weight · loss. If it runs away it is taken back and repeated with half the step."""
    rows = problem.rows
    constant = np.full(rows.n_rows, training.table.w0)
    limit = far_above(mean_loss(problem.loss, problem.y, constant, problem.weight, problem.shape))
    for halvings in range(HALVINGS + 1):
        total, bad = training.run(problem, None, epoch, first)
        loss = total / _total(problem)
        if bad < 0 and np.isfinite(loss) and loss <= limit:
            if halvings:
                warn(
                    "training ran away on these rows and was taken back: from here on "
                    f"learning_rate={training.rate:.3g}"
                )
            return total
        training.table.array[touched], training.table.bias[...] = before
        training.halve()
        before = training.table.array[touched], training.table.bias.copy()
    raise DivergenceError(
        f"training diverged on these rows although the step was halved {HALVINGS} times; the model is as it was before "
        f"them. {advice(problem, training.rate)}"
    )


def _opener(frames: Any) -> tuple[Callable[[], Iterable[Any]], bool]:
    """A function that begins the stream, and whether it can be called again."""
    if callable(frames):
        return frames, True
    if not isinstance(frames, Iterable) or is_frame(frames):
        raise TypeError(
            "frames must be an iterable of frames or of pairs (X, y), or a function that returns one; got "
            f"{type(frames).__name__}"
        )
    once = iter(frames)
    return (lambda: once, False) if once is frames else (lambda: frames, True)


def _pairs_of(frames: Iterable[Any], target: str | None) -> Iterator[tuple[Any, Any]]:
    """(X, y) of each piece that has rows."""
    for piece in frames:
        if isinstance(piece, tuple) and len(piece) == 2:
            X, y = piece
        elif not is_frame(piece):
            raise TypeError(f"each piece must be a frame or a pair (X, y), got {type(piece).__name__}")
        elif target is None:
            raise ValueError("target must name the column that holds y, as the pieces are frames without it")
        else:
            X = piece if isinstance(piece, pd.DataFrame) else _arrow(piece)
            names = list(X.columns) if isinstance(X, pd.DataFrame) else X.column_names
            if target not in names:
                raise ValueError(f"a piece has no column {target!r}, only {names[:20]}")
            y = X[target].to_numpy()
            X = X.drop(columns=target) if isinstance(X, pd.DataFrame) else X.drop_columns([target])
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        if np.shape(y) != (n_rows,):
            raise ValueError(f"a piece has {n_rows} rows, but its y has shape {np.shape(y)}: give one target a row")
        if n_rows > 0:
            yield X, y


def _with_target(X: Any, y: Any) -> Any:
    """A frame with the target beside its columns, as the encoder reads a stream."""
    if not is_frame(X):
        raise TypeError(
            f"an encoder takes a stream of frames; a piece is a {type(X).__name__}, which needs encoder=None"
        )
    return X.assign(**{_TARGET: y}) if isinstance(X, pd.DataFrame) else _arrow(X).append_column(_TARGET, [y])


def _arrow(frame: Any) -> Any:
    import pyarrow  # frames that are not pandas' need it anyway

    return pyarrow.table(frame)
