"""The fits of leaderboard.py: a process of one system that waits for orders, in whichever interpreter has the system.

    python benchmarks/leaderboard_fits.py ADAPTER       orders on standard input, answers on standard output
    python benchmarks/leaderboard_fits.py --versions MODULE ...

An order is a line of JSON, {"rows": path, "out": path, "settings": {...}, "repeats": n}, and so is the answer:
{"seconds": median of the fits} once the predictions (n_test,), or lists (n_users, 20), lie at `out`, or {"error": ...}
else. Beside the system numpy and scipy are needed. An adapter is `fit(rows, settings) -> (seconds, predictions or
lists)`, with the seconds of the fit alone. Everything has one thread and the seed 0.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scipy.sparse as sp
from workloads import Workload

LISTED = 20  # length of a list
RANK = 32  # factors of those that rank, as in ranking.py
LONG = 1.0  # a fit of so many seconds is not repeated
_BLOCK = 1024  # users scored at once


@dataclass(frozen=True)
class Rows:
    """A table twice: as sparse rows, and as codes of its columns, which is what trees take."""

    work: Workload
    codes_train: np.ndarray  # (n_train, n_columns) float64, NaN where missing or not known
    codes_test: np.ndarray
    categorical: np.ndarray  # (n_columns,) bool; the others are numbers

    def save(self, folder: Path) -> None:
        self.work.save(folder / "work.npz")
        np.savez(folder / "codes.npz", train=self.codes_train, test=self.codes_test, categorical=self.categorical)

    @classmethod
    def load(cls, folder: Path) -> Rows:
        z = np.load(folder / "codes.npz")
        return cls(Workload.load(folder / "work.npz"), z["train"], z["test"], z["categorical"])


@dataclass(frozen=True)
class Pairs:
    """Who met what, and who is to be given a list."""

    met: sp.csr_array  # (n_users, n_items) float32 ones
    asked: np.ndarray  # (n,) users
    wanted: np.ndarray  # (n,) the item that each should be given; n_items: one that nobody has met

    @classmethod
    def of(
        cls, users: np.ndarray, items: np.ndarray, shape: tuple[int, int], asked: np.ndarray, wanted: np.ndarray
    ) -> Pairs:
        met = sp.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
        met.sort_indices()
        return cls(met, asked, wanted)

    def save(self, folder: Path) -> None:
        sp.save_npz(folder / "met.npz", self.met)
        np.savez(folder / "asked.npz", asked=self.asked, wanted=self.wanted)

    @classmethod
    def load(cls, folder: Path) -> Pairs:
        z = np.load(folder / "asked.npz")
        return cls(sp.csr_array(sp.load_npz(folder / "met.npz")), z["asked"], z["wanted"])

    def lists(self, p: np.ndarray, q: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
        """The items (n, 20) with the highest p @ q.T + bias that the users have not met, best first, -1 at the end."""
        found = []
        for start in range(0, len(self.asked), _BLOCK):
            users = self.asked[start : start + _BLOCK]
            scores = p[users] @ q.T + bias
            scores[self.met[users].nonzero()] = -np.inf
            first = np.argpartition(-scores, min(LISTED, scores.shape[1]) - 1, axis=1)[:, :LISTED]
            own = np.take_along_axis(scores, first, axis=1)
            order = np.argsort(-own, axis=1, kind="stable")
            own, first = (np.take_along_axis(each, order, axis=1) for each in (own, first))
            found.append(np.where(np.isinf(own), -1, first))
        items = np.concatenate(found)
        return np.pad(items, ((0, 0), (0, LISTED - items.shape[1])), constant_values=-1)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ---- sparsefm, as it comes


def fit_fm(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """The fields are told, as an encoder would."""
    from sparsefm import FMClassifier, FMRegressor

    work = rows.work
    fields = np.repeat(np.arange(len(work.field_sizes)), work.field_sizes)
    kind = FMRegressor if work.loss == "squared" else FMClassifier
    model = kind(**settings, fields=fields, n_threads=1, random_state=0)
    seconds = timed(lambda: model.fit(work.X_train, work.y_train))
    return seconds, model.predict(work.X_test) if work.loss == "squared" else model.predict_proba(work.X_test)[:, 1]


def fit_ranker(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from sparsefm import FMRanker

    return _recommended(FMRanker(**settings, n_threads=1, random_state=0), rows)


def fit_ease(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from sparsefm import EASE

    return _recommended(EASE(**settings), rows)


def fit_popularity(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from sparsefm import Popularity

    return _recommended(Popularity(**settings), rows)


def _recommended(model: Any, rows: Pairs) -> tuple[float, np.ndarray]:
    seconds = timed(lambda: model.fit(rows.met))
    told = model.recommend(rows.asked, k=LISTED)
    at = np.argsort(rows.asked)
    row = at[np.searchsorted(rows.asked[at], told["user_id"])]
    lists = np.full((len(rows.asked), LISTED), -1)
    lists[row, told["rank"] - 1] = told["item_id"]
    return seconds, lists


# ---- factorization machines of others


def fit_myfm(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """Its Gibbs sampler with a group a field; a quarter of the sweeps is burn-in. Labels go to its probit."""
    myfm, work = peers.import_myfm(), rows.work
    kind = myfm.MyFMGibbsRegressor if work.loss == "squared" else myfm.MyFMGibbsClassifier
    model = kind(rank=settings["rank"], random_seed=0)
    X, X_test = (sp.csr_matrix(X.astype(np.float64)) for X in (work.X_train, work.X_test))
    y = work.y_train.astype(np.float64)
    sweeps = settings["sweeps"]
    options = {"n_iter": sweeps, "n_kept_samples": sweeps - sweeps // 4, "group_shapes": list(work.field_sizes)}
    seconds = timed(lambda: model.fit(X, y, **options))
    return seconds, model.predict(X_test) if work.loss == "squared" else model.predict_proba(X_test)


def fit_modern_fm(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """AdaGrad, a row at a time; rows of length one for labels, as peers.py has it."""
    work = rows.work
    if work.loss == "logistic":
        work = replace(work, X_train=_of_length_one(work.X_train), X_test=_of_length_one(work.X_test))
    settings = {"optimizer": "adagrad", "init": 0.05, "batch_size": 1} | settings
    return _epochs(peers.fit_modern_fm, work, settings)


def fit_xlearn(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    return _epochs(peers.fit_xlearn, rows.work, {"optimizer": "adagrad", "norm": True} | settings)


def _epochs(fit: Callable[..., peers.Run], work: Workload, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """Of an adapter that tells the seconds of epochs, or their mean."""
    run = fit(work, settings["epochs"], 1, settings)
    if run.predicted is None:
        raise ValueError("the adapter gave no predictions")
    return settings["epochs"] * float(np.mean(run.seconds)), run.predicted


def _of_length_one(X: sp.csr_array) -> sp.csr_array:
    norms = np.sqrt(np.maximum(X.multiply(X).sum(axis=1), 1e-12))
    return sp.csr_array(sp.diags_array(1 / norms) @ X, dtype=np.float32)


# ---- trees and linear models


def fit_boosting(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """scikit-learn's, on codes: columns of up to 255 levels as categories, larger ones in the order of their ids."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    work = rows.work
    few = np.nan_to_num(rows.codes_train, nan=0.0).max(axis=0) < 255
    kind = HistGradientBoostingRegressor if work.loss == "squared" else HistGradientBoostingClassifier
    options = {"categorical_features": rows.categorical & few, "early_stopping": False, "random_state": 0}
    model = kind(**options, **settings)
    seconds = timed(lambda: model.fit(rows.codes_train, work.y_train))
    X = rows.codes_test
    return seconds, model.predict(X) if work.loss == "squared" else model.predict_proba(X)[:, 1]


def fit_linear(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """scikit-learn's Ridge or LogisticRegression on the sparse rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    work, strength = rows.work, settings["l2"]
    model = Ridge(strength) if work.loss == "squared" else LogisticRegression(C=1 / strength, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds = timed(lambda: model.fit(work.X_train, work.y_train))
    return seconds, model.predict(work.X_test) if work.loss == "squared" else model.predict_proba(work.X_test)[:, 1]


def fit_catboost(rows: Rows, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """All levels as categories, whatever their number."""
    import pandas as pd
    from catboost import CatBoostClassifier, CatBoostRegressor

    work = rows.work

    def frame(codes: np.ndarray) -> Any:
        columns = (np.nan_to_num(c, nan=-1).astype(int) if own else c for c, own in zip(codes.T, rows.categorical))  # noqa: B905
        return pd.DataFrame(dict(enumerate(columns)))

    X, X_test = frame(rows.codes_train), frame(rows.codes_test)
    options = {"cat_features": np.flatnonzero(rows.categorical).tolist(), "allow_writing_files": False}
    options |= {"thread_count": 1, "random_seed": 0, "verbose": False}
    model = (CatBoostRegressor if work.loss == "squared" else CatBoostClassifier)(**options, **settings)
    seconds = timed(lambda: model.fit(X, work.y_train))
    return seconds, model.predict(X_test) if work.loss == "squared" else model.predict_proba(X_test)[:, 1]


# ---- rankers of others


def fit_lightfm(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from lightfm import LightFM

    l2 = settings["l2"]
    options = {"learning_rate": settings["lr"], "item_alpha": l2, "user_alpha": l2, "random_state": 0}
    model, met = LightFM(RANK, loss="warp", **options), rows.met.tocoo()
    met = sp.coo_matrix((met.data, (met.row, met.col)), shape=met.shape)
    seconds = timed(lambda: model.fit(met, epochs=settings["epochs"], num_threads=1))
    return seconds, rows.lists(model.user_embeddings, model.item_embeddings, model.item_biases)


def fit_implicit_als(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from implicit.cpu.als import AlternatingLeastSquares

    return _implicit(AlternatingLeastSquares, rows, settings["l2"], alpha=settings["alpha"], iterations=15)


def fit_implicit_bpr(rows: Pairs, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    options = {"learning_rate": settings["lr"], "iterations": settings["epochs"]}
    return _implicit(BayesianPersonalizedRanking, rows, settings["l2"], **options)


def _implicit(kind: Any, rows: Pairs, l2: float, **options: Any) -> tuple[float, np.ndarray]:
    model, met = (
        kind(factors=RANK, regularization=l2, num_threads=1, random_state=0, **options),
        sp.csr_matrix(rows.met),
    )
    seconds = timed(lambda: model.fit(met, show_progress=False))
    return seconds, rows.lists(np.asarray(model.user_factors), np.asarray(model.item_factors))


# ---- orders


ADAPTERS: dict[str, Callable[[Any, dict[str, Any]], tuple[float, np.ndarray]]] = {
    "fm": fit_fm,
    "ranker": fit_ranker,
    "ease": fit_ease,
    "popularity": fit_popularity,
    "myfm": fit_myfm,
    "modern_fm": fit_modern_fm,
    "xlearn": fit_xlearn,
    "boosting": fit_boosting,
    "linear": fit_linear,
    "catboost": fit_catboost,
    "lightfm": fit_lightfm,
    "implicit_als": fit_implicit_als,
    "implicit_bpr": fit_implicit_bpr,
}


def carry_out(adapter: str, order: dict[str, Any]) -> dict[str, Any]:
    folder = Path(order["rows"])
    rows = Pairs.load(folder) if (folder / "met.npz").exists() else Rows.load(folder)
    seconds: list[float] = []
    while len(seconds) < order["repeats"] and (not seconds or seconds[0] < LONG):
        took, given = ADAPTERS[adapter](rows, order["settings"])
        seconds.append(took)
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        return {"error": "predictions that are no finite numbers"}
    np.save(order["out"], given)
    return {"seconds": statistics.median(seconds)}


def version(module: str, package: str) -> dict[str, str]:
    """The package's version, or why its module cannot be imported."""
    try:
        peers.import_myfm() if module == "myfm" else importlib.import_module(module)
        return {"version": importlib.metadata.version(package)}
    except Exception as error:  # whatever goes wrong there, it is left out
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes where errors go
    if sys.argv[1] == "--versions":
        told = {module: version(module, package) for module, package in (name.split("=") for name in sys.argv[2:])}
        print(json.dumps(told), file=answers)
        return
    for line in sys.stdin:
        try:
            answer = carry_out(sys.argv[1], json.loads(line))
        except Exception as error:  # one order that fails is one answer that says so
            said = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {said[0]}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
