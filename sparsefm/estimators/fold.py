"""What the estimators' fold_in does: new levels, given all else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ..encoders import Counts, FrameEncoder, History, TargetStats
from ..model import FMParams, Posterior
from ..solvers import ALS, Fold, Prior, make_solver, penalties
from ..solvers.newcomers import LatentFold, LogisticFold, step_in
from ..validation import Rows, check_sample_weight
from .stream import _weighed


def fold_in(model: Any, X: Any, y: Any) -> Any:
    """A copy of the model with columns for what is new in the rows; what each estimator's method does."""
    check_is_fitted(model)
    if not isinstance(model.encoder_, FrameEncoder):
        raise ValueError("fold_in needs a FrameEncoder, whose columns can grow")
    before = model.encoder_.n_features_out_
    learns = [
        name
        for name, column in model.encoder_.columns_.items()
        if not isinstance(column.encoder, (Counts, History, TargetStats))
    ]
    grown = copy.copy(model)
    grown.encoder_ = copy.deepcopy(model.encoder_).partial_fit(X, columns=learns)
    grown.history_, grown._session = list(model.history_), None  # which partial_fit writes to
    rows = grown._encode_flat(X)
    targets = grown._targets(y, rows.n_rows)
    if rows.n_rows == 0:
        raise ValueError("X has 0 rows: there is nothing to learn")
    tell = np.flatnonzero(np.diff(rows.matrix()[:, before:].indptr))
    rows, targets, y = rows.take(tell), [target[tell] for target in targets], np.asarray(y)[tell]
    width, fields = grown.encoder_.n_features_out_, grown.encoder_.fields_
    params = [each.grow(width, fields=fields) for each in _several(model.params_)]
    draws = [_widened(each, width) for each in _several(model.posterior_)]
    if len(tell):
        seed = model._seed()
        grown._learn_more(y)
        if draws:
            for i, (each, target) in enumerate(zip(draws, targets, strict=True)):
                _draw(grown, each, rows, target, before, seed + i * len(each))
        else:
            weight = check_sample_weight(_weighed(grown, y, None), len(tell))
            for i, (each, target) in enumerate(zip(params, targets, strict=True)):
                _solve(grown, each, rows, target, weight, before, seed, i)
    if draws:
        params = [each[len(each) - 1] for each in draws]
    grown.params_ = params[0] if len(params) == 1 else tuple(params)
    grown.posterior_ = None if not draws else draws[0] if len(draws) == 1 else tuple(draws)
    return grown


def _several(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else () if found is None else (found,)


def _widened(draws: Posterior, width: int) -> Posterior:
    n, n_features, n_factors = draws.V.shape
    w, V = np.zeros((n, width), draws.w.dtype), np.zeros((n, width, n_factors), draws.V.dtype)
    w[:, :n_features], V[:, :n_features] = draws.w, draws.V
    return replace(draws, w=w, V=V)


def _solve(model: Any, params: FMParams, rows: Rows, target: Any, weight: Any, first: int, seed: int, i: int) -> None:
    """Finds the columns from `first` on of score function i, in place: to their minimum, or by steps."""
    solver, units = make_solver(model.solver), model._units()
    start = units.into(params, rows.dtype)
    problem = replace(model._problem(rows, target, weight, None, seed, i, start), progress=None)
    if isinstance(solver, ALS):
        y, common = problem.y, (first, params.n_factors, model.n_threads)
        fold = LogisticFold(rows, y, weight, *common) if model._loss == "logistic" else Fold(rows, y, *common)
        columns, found = fold.columns, FMParams(0.0, *fold(start, penalties(problem), 1.0, None))
    else:
        columns, found = step_in(replace(problem, family=params.family), first)
    found = units.out_of(found)
    params.w[columns], params.V[columns] = found.w, found.V


def _draw(model: Any, draws: Posterior, rows: Rows, target: NDArray[Any], first: int, seed: int) -> None:
    """Draws the columns from `first` on for each draw of a score function, in place, by noise of seeds from `seed`."""
    units, n_factors = model._units(), draws.V.shape[2]
    given = rows, target.astype(rows.dtype), first, n_factors, model.n_threads
    fold = Fold(*given) if model._loss == "squared" else LatentFold(*given)
    each = np.append(np.full(n_factors, np.sqrt(units.scale)), units.scale)
    for draw in range(len(draws)):
        if draws.cuts is not None:
            assert isinstance(fold, LatentFold)
            fold.cuts = np.concatenate([[-np.inf], draws.cuts[draw], [np.inf]])
        prior = Prior(draws.mean[draw] / each, draws.precision[draw] * each**2, model.encoder_.fields_)
        alpha = float(units.scale / draws.deviation[draw]) ** 2
        w, V = fold(units.into(draws[draw], rows.dtype), prior, alpha, key=1024 * (seed + draw))
        draws.w[draw, fold.columns], draws.V[draw, fold.columns] = w * each[-1], V * each[:-1]
