"""MovieLens-100K on its five canonical folds: quality and seconds against myFM, in one run.

    python benchmarks/movielens.py PATH          PATH as for load_movielens

Default arguments; the same with the histories of both sides (the user's other items, the item's other users: no
row's own pair is among them, and no test row was fitted); and settings chosen inside each training fold: on
blocks of its rows in file order, which is how the folds themselves were cut. No test row takes part in a choice.
myFM runs on the first fold, rank 10, 300 sweeps.
"""

import argparse
import itertools
import time
from types import MappingProxyType

import numpy as np
import scipy.sparse as sp
from peers import import_myfm

from sparsefm import FMRegressor, FrameEncoder, History, OneHot
from sparsefm.datasets import load_movielens
from sparsefm.metrics import rmse
from sparsefm.solvers import AdaGrad

GRID = {
    "n_factors": [16, 32, 64],
    "l2_factors": [0.015, 0.02, 0.03],
    "init_std": [0.01, 0.02],
    "solver": [AdaGrad(max_iter=15), AdaGrad(max_iter=25)],
}
INNER_BLOCKS = (1, 3)  # of five blocks of the training rows


HISTORIES = {"seen": History("user_id", "item_id"), "watchers": History("item_id", "user_id")}


def encoder(**more):
    return FrameEncoder({"user_id": OneHot(), "item_id": OneHot(), **more})


def evaluate(train, test, fields=MappingProxyType({}), **settings):
    model = FMRegressor(encoder=encoder(**fields), random_state=0, **settings).fit(train, train["rating"])
    return rmse(test["rating"], model.predict(test))


def choose(train):
    """The settings with the lowest mean RMSE over the inner blocks."""
    block = np.arange(len(train)) * 5 // len(train)
    candidates = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    means = [
        np.mean([evaluate(train[block != b], train[block == b], **settings) for b in INNER_BLOCKS])
        for settings in candidates
    ]
    return candidates[int(np.argmin(means))]


def run_myfm(train, test):
    """Seconds of the fit and test RMSE, ids in two groups."""
    ids = encoder().fit(train)
    X, X_test = (sp.csr_matrix(ids.transform(frame).astype(np.float64)) for frame in (train, test))
    model = import_myfm().MyFMGibbsRegressor(rank=10, random_seed=0)
    began = time.perf_counter()
    model.fit(X, train["rating"].to_numpy(), n_iter=300, group_shapes=np.bincount(ids.fields_).tolist())
    return time.perf_counter() - began, rmse(test["rating"], model.predict(X_test))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    folds = [load_movielens(parser.parse_args().path).fold(k) for k in range(1, 6)]

    began = time.perf_counter()
    default = [evaluate(*fold) for fold in folds]
    seconds = time.perf_counter() - began
    print(
        "default arguments  ", *(f"{e:.4f}" for e in default), f"mean {np.mean(default):.4f}, five fits {seconds:.2f} s"
    )

    began = time.perf_counter()
    histories = [evaluate(*fold, fields=HISTORIES) for fold in folds]
    print(
        "with both histories",
        *(f"{e:.4f}" for e in histories),
        f"mean {np.mean(histories):.4f}, five fits {time.perf_counter() - began:.1f} s",
    )

    chosen = [choose(train) for train, _ in folds]
    tuned = [evaluate(*fold, **settings) for fold, settings in zip(folds, chosen, strict=True)]
    print("chosen inside folds", *(f"{e:.4f}" for e in tuned), f"mean {np.mean(tuned):.4f}")
    for k, settings in enumerate(chosen, 1):
        print(f"  fold {k}: {settings}")

    try:
        fit, error = run_myfm(*folds[0])
    except ImportError as missing:
        print(f"myFM left out: {missing}")
        return
    print(f"myFM, fold 1, 300 sweeps: {error:.4f}, one fit {fit:.2f} s")
    print(f"five default fits take {seconds / (2 * fit):.3f} of two myFM fits")


if __name__ == "__main__":
    main()
