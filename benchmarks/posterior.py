"""Gibbs sampling against myFM: seconds a sweep, memory, and MovieLens-100K with equal features.

    python benchmarks/posterior.py --sweeps                  # W1, W2: seconds and megabytes; each fit a process
    python benchmarks/posterior.py --movielens PATH          # five folds, four sets of features, both systems in turn
    python benchmarks/posterior.py --best PATH               # five folds, the recipes that helped inside the first

One interpreter must have both packages; without myFM its lines are left out. What is measured, and how to read it:
benchmarks/README.md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import workloads
from peers import import_myfm

from sparsefm import FMRegressor, FrameEncoder, History, MultiHot, OneHot, RelationBlock
from sparsefm.datasets import load_movielens
from sparsefm.metrics import rmse
from sparsefm.solvers import MCMC
from sparsefm.solvers.design import Design
from sparsefm.validation import check_csr

BURN_IN = 10

# ---- seconds a sweep


def blocks_of(X):
    """The relational blocks that the rows fall apart into, as (index, matrix) each."""
    design = Design.of(check_csr(X), 8)
    back = np.argsort(design.order)
    found = []
    for number, side in enumerate(design.sides):
        columns = np.concatenate([np.arange(run.start, run.stop) for run in side.runs])
        found.append((design.sides[0].entities[number][back], side.columns.matrix()[:, columns]))
    return found


def one_fit(name, system, sweeps, threads):
    """Seconds and process seconds of each sweep, megabytes at the peak and before."""
    work = workloads.make(name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = megabytes("VmRSS")
    if system == "sparsefm":
        model = FMRegressor(8, solver=MCMC(n_samples=sweeps - 5, burn_in=5, keep=1), n_threads=threads, random_state=0)
        stamps = []
        model.set_params(callbacks=[lambda *_: stamps.append((time.perf_counter(), time.process_time())) or False])
        model.fit(work.X_train, work.y_train)
    else:
        stamps = []
        myfm = import_myfm()
        model = myfm.MyFMGibbsRegressor(rank=8, random_seed=0)

        def after(*_):
            stamps.append((time.perf_counter(), time.process_time()))
            return False, None

        y = work.y_train.astype(np.float64)
        if system == "myfm":
            X, blocks, sizes = sp.csr_matrix(work.X_train.astype(np.float64)), [], list(work.field_sizes)
        else:
            parts = blocks_of(work.X_train)
            X, sizes = sp.csr_matrix((len(y), 0)), [block.shape[1] for _, block in parts]
            blocks = [
                myfm.RelationBlock(index.astype(np.int64), sp.csr_matrix(block.astype(np.float64)))
                for index, block in parts
            ]
        model.fit(X, y, X_rel=blocks, n_iter=sweeps, n_kept_samples=1, group_shapes=sizes, callback=after)
    wall, cpu = np.diff(np.array(stamps), axis=0)[2:].T
    peak = megabytes("VmHWM")
    return {"wall": float(np.median(wall)), "cpu": float(np.median(cpu)), "peak": peak, "before": before}


def megabytes(what):
    """Of this process, as Linux counts them."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def sweeps(names, rounds):
    systems = [("sparsefm", 1, 60), ("sparsefm", 2, 60), ("myfm", 1, 12), ("myfm blocks", 1, 12)]
    for name in names:
        found = {system: [] for system in systems}
        for _ in range(rounds):
            for system, threads, n in systems:
                command = [sys.executable, __file__, "--one", name, system, str(n), str(threads)]
                environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode == 0:
                    found[system, threads, n].append(json.loads(done.stdout.splitlines()[-1]))
                else:
                    print(f"{name} {system}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        means = {
            key: {what: float(np.median([run[what] for run in runs])) for what in runs[0]}
            for key, runs in found.items()
            if runs
        }
        ours = means["sparsefm", 1, 60]
        print(f"\n{name}, k = 8, 900,000 rows\n")
        print("| system | threads | s a sweep | ratio | MB beside the data, at the peak |\n|---|--:|--:|--:|--:|")
        for (system, threads, _), each in means.items():
            ratio = each["wall"] / ours["wall"]
            print(f"| {system} | {threads} | {each['wall']:.4f} | {ratio:.1f} | {each['peak'] - each['before']:.0f} |")
        both = means["sparsefm", 2, 60]
        print(
            f"\nTwo threads do {2 * ours['cpu'] / both['cpu']:.2f} times the work of one, by process time.", flush=True
        )


# ---- MovieLens-100K


def one_hot(values):
    codes, levels = pd.factorize(values, use_na_sentinel=False)
    return sp.csr_array(
        (np.ones(len(codes), np.float32), (np.arange(len(codes)), codes)), shape=(len(codes), len(levels))
    )


class Features:
    """What is said of users and items: one row each, as the relational blocks have it."""

    def __init__(self, ml):
        self.users = ml.users.set_index("user_id").sort_index()
        self.items = ml.items.set_index("item_id").sort_index()

    def blocks(self, train, side, histories):
        """((user matrix, item matrix), columns of each group of features). Histories know the training rows alone; a
        test row's pair is in none, a training row's own is, and no timestamp is looked at."""
        user, item = (index.get_indexer(train[name]) for index, name in self._ids())
        seen = sp.csr_array((np.ones(len(train), np.float32), (user, item)), shape=(len(self.users), len(self.items)))
        sides = [[sp.eye_array(len(self.users), dtype=np.float32)], [sp.eye_array(len(self.items), dtype=np.float32)]]
        if side:
            u, i = self.users, self.items
            sides[0] += [one_hot(u["age"] // 10), one_hot(u["gender"]), one_hot(u["occupation"])]
            sides[0].append(one_hot(u["zip_code"].str[0]))
            genres = i["genres"].fillna("").str.get_dummies("|").to_numpy(np.float32)
            genres = genres / np.sqrt(np.maximum(1, genres.sum(axis=1, keepdims=True)))
            sides[1] += [sp.csr_array(genres), one_hot(i["year"])]
        if histories:
            for parts, of in zip(sides, (seen, seen.T.tocsr()), strict=True):
                parts.append(sp.diags_array(1 / np.sqrt(np.maximum(1, of.sum(axis=1)))) @ of)
        sizes = [part.shape[1] for parts in sides for part in parts]
        return [sp.csr_array(sp.hstack(parts), dtype=np.float32) for parts in sides], sizes

    def rows(self, frame, blocks):
        return [
            RelationBlock(index.get_indexer(frame[name]), block)
            for (index, name), block in zip(self._ids(), blocks, strict=True)
        ]

    def _ids(self):
        return (self.users.index, "user_id"), (self.items.index, "item_id")


def our_fit(features, train, test, side, histories, model):
    blocks, sizes = features.blocks(train, side, histories)
    model.set_params(fields=np.repeat(np.arange(len(sizes)), sizes))
    start = time.perf_counter()
    model.fit(features.rows(train, blocks), train["rating"])
    seconds = time.perf_counter() - start
    return seconds, rmse(test["rating"], np.clip(model.predict(features.rows(test, blocks)), 1, 5))


def myfm_fit(features, train, test, side, histories, n_factors, sweeps):
    myfm = import_myfm()
    blocks, sizes = features.blocks(train, side, histories)
    as_theirs = [
        [
            myfm.RelationBlock(np.asarray(r.index, np.int64), sp.csr_matrix(r.X.astype(np.float64)))
            for r in features.rows(frame, blocks)
        ]
        for frame in (train, test)
    ]
    model = myfm.MyFMGibbsRegressor(rank=n_factors, random_seed=0)
    y = train["rating"].to_numpy(np.float64)
    start = time.perf_counter()
    model.fit(None, y, X_rel=as_theirs[0], n_iter=sweeps, n_kept_samples=sweeps - BURN_IN, group_shapes=sizes)
    seconds = time.perf_counter() - start
    return seconds, rmse(test["rating"], np.clip(model.predict(None, as_theirs[1]), 1, 5))


def movielens(path, folds, n_factors=10, sweeps=300):
    ml = load_movielens(path)
    features = Features(ml)
    print(f"\nMovieLens-100K, rank {n_factors}, {sweeps} sweeps, one thread: test RMSE by fold and seconds a fit\n")
    print("| features | system | " + " | ".join(map(str, folds)) + " | mean | s |")
    print("|---|---|" + "--:|" * (len(folds) + 2))
    kinds = {"ids": (False, False), "+ side": (True, False), "+ histories": (False, True), "+ both": (True, True)}
    for name, (side, histories) in kinds.items():
        found = {"sparsefm": [], "myfm": []}
        for fold in folds:
            train, test = ml.fold(fold)
            solver = MCMC(n_samples=sweeps - BURN_IN, burn_in=BURN_IN)
            ours = FMRegressor(n_factors, solver=solver, n_threads=1, random_state=0)
            found["sparsefm"].append(our_fit(features, train, test, side, histories, ours))
            with contextlib.suppress(ImportError):
                found["myfm"].append(myfm_fit(features, train, test, side, histories, n_factors, sweeps))
        for system, runs in found.items():
            if runs:
                seconds, losses = np.array(runs).T
                cells = [f"{loss:.4f}" for loss in losses]
                line = [name, system, *cells, f"{losses.mean():.4f}", f"{seconds.mean():.2f}"]
                print("| " + " | ".join(line) + " |", flush=True)


RECIPES = {
    "user_id": OneHot(),
    "item_id": OneHot(),
    "decade": OneHot(),
    "gender": OneHot(),
    "occupation": OneHot(),
    "zip": OneHot(),
    "genres": MultiHot("|"),
    "year": OneHot(),
    "seen": History(own=True),
    "seen_by": History("item_id", "user_id", own=True),
    "since": OneHot(),
    "at_once": OneHot(),
}


def dressed(ml, known):
    """All ratings with what is said of users and items, and what the times of the known rows and a row's own say."""
    rows = ml.ratings.merge(ml.users, on="user_id").merge(ml.items, on="item_id")
    keys = ["user_id", "timestamp"]
    first = rows["user_id"].map(known.groupby("user_id")["timestamp"].min()).fillna(rows["timestamp"])
    rows["since"] = np.log2(1 + (rows["timestamp"] - first).clip(lower=0) / 60).astype(int)
    others = rows[keys].merge(known.groupby(keys).size().rename("n"), on=keys, how="left")["n"].fillna(0)
    own = pd.MultiIndex.from_frame(rows[["user_id", "item_id"]]).isin(
        pd.MultiIndex.from_frame(known[["user_id", "item_id"]])
    )
    rows["at_once"] = np.log2(others + ~own).astype(int)
    rows["decade"], rows["zip"] = rows["age"] // 10, rows["zip_code"].str[0]
    return rows.set_index(["user_id", "item_id"], drop=False).rename_axis([None, None])


def best(path, folds, n_factors=10, sweeps=2000):
    """Histories are fitted on training rows alone. Of test rows the times are known before the ratings are, or each
    row knows its own alone."""
    ml = load_movielens(path)
    print(f"\nMovieLens-100K, all recipes, rank {n_factors}, {sweeps} sweeps, one thread: test RMSE, seconds a fit\n")
    for name in ("times of all rows", "times of training rows"):
        found = []
        for fold in folds:
            train, test = ml.fold(fold)
            rows = dressed(ml, ml.ratings if name == "times of all rows" else train)
            train, test = (rows.loc[list(zip(part["user_id"], part["item_id"], strict=True))] for part in (train, test))
            solver = MCMC(n_samples=sweeps - 100, burn_in=100, keep=500)
            model = FMRegressor(n_factors, solver=solver, encoder=FrameEncoder(RECIPES), n_threads=1, random_state=0)
            start = time.perf_counter()
            model.fit(train, train["rating"])
            found.append((time.perf_counter() - start, rmse(test["rating"], model.predict(test))))
        seconds, losses = np.array(found).T
        cells = [f"{loss:.4f}" for loss in losses]
        print("| " + " | ".join([name, *cells, f"{losses.mean():.4f}", f"{seconds.mean():.1f}"]) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweeps", action="store_true")
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--movielens", type=Path)
    parser.add_argument("--best", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, system, n, threads = args.one
        print(json.dumps(one_fit(name, system, int(n), int(threads))))
        return
    if args.sweeps:
        sweeps(args.workloads, args.rounds)
    if args.movielens:
        movielens(args.movielens, args.folds)
    if args.best:
        best(args.best, args.folds)


if __name__ == "__main__":
    main()
