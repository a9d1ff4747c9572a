"""The members of the family beside each other, xLearn and the machine.

    python benchmarks/families.py speed                       # passes and training by order, field-aware reads
    python benchmarks/families.py xlearn --python PEERS       # field-aware epochs; PEERS an interpreter with xlearn
    python benchmarks/families.py planted                     # made truths: who finds which
    python benchmarks/families.py clicks                      # log loss and AUC on made clicks, five folds
    python benchmarks/families.py movielens PATH              # the same on MovieLens-100K, PATH as for load_movielens

What is measured, and how to read it: benchmarks/README.md.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import workloads
from ceiling import library, table
from scipy import sparse

from sparsefm import (
    FFMClassifier,
    FFMRegressor,
    FMClassifier,
    FMRegressor,
    FrameEncoder,
    FwFMClassifier,
    FwFMRegressor,
    MultiHot,
    OneHot,
)
from sparsefm.datasets import load_movielens
from sparsefm.metrics import auc, log_loss, rmse
from sparsefm.model import Family, init, score
from sparsefm.solvers import AdaGrad


def best_of(call, rounds):
    """Seconds of each of several calls, made in turn; the first round does not count."""
    times = [[] for _ in call]
    for _ in range(rounds + 1):
        for own, each in zip(times, call, strict=True):
            began = time.perf_counter()
            each()
            own.append(time.perf_counter() - began)
    return [sorted(own[1:]) for own in times]


# ---- speed


def speed(rounds):
    work = workloads.make("W3", 444_445)
    X, n_features, k = work.X_train, work.X_train.shape[1], 16
    fields = np.repeat(np.arange(len(work.field_sizes), dtype=np.int32), work.field_sizes)
    members = {"order 2": Family()} | {f"order {m}": Family("anova", m) for m in (3, 4, 5)}
    members |= {f"order {m}, shared factors": Family("anova", m, True) for m in (3, 5)}
    members["field-weighted"] = Family("fwfm", fields=fields, n_fields=len(work.field_sizes))
    fitted = {name: init(n_features, k, init_std=0.1, family=family) for name, family in members.items()}
    times = best_of([lambda p=p: score(p, X, n_threads=1) for p in fitted.values()], rounds)
    print(f"forward, {X.shape[0]:,} rows of 39 non-zeros, 1M features, k = {k}, one thread\n")
    print("| member | M rows/s: best | median | to order 2: best | median |\n|---|--:|--:|--:|--:|")
    for name, own in zip(fitted, times, strict=True):
        rates = [X.shape[0] / s / 1e6 for s in (own[0], statistics.median(own))]
        ratios = [times[0][0] / own[0], statistics.median(times[0]) / statistics.median(own)]
        print(f"| {name} | {rates[0]:.2f} | {rates[1]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    del fitted

    size = 1 << 28
    memory, read = table(size), library().stream
    print("\nfield-aware forward, 39 fields, beside reading 256 MiB in order, one thread\n")
    print(
        "| features | k | MB | M rows/s | GB/s of blocks met | sequential GB/s | share |\n|--:|--:|--:|--:|--:|--:|--:|"
    )
    for features, factors in itertools.product((100_000, 1_000_000), (4, 8)):
        work = workloads.clicks("W3", 60_000, features)
        X, fields = work.X_train, np.repeat(np.arange(39, dtype=np.int32), work.field_sizes)
        params = init(features, factors, init_std=0.1, family=Family("ffm", fields=fields, n_fields=39))
        calls = [lambda: score(params, X, n_threads=1), lambda: read(memory.ctypes.data, size // 64)]  # noqa: B023
        own, sequential = best_of(calls, rounds)
        rows = X.shape[0]
        rate, bound = rows * 39 * 38 * factors * 4 / own[0] / 1e9, size / sequential[0] / 1e9
        cells = [f"{features:,}", factors, f"{params.V.nbytes / 1e6:.0f}", f"{rows / own[0] / 1e6:.2f}"]
        print("| " + " | ".join(map(str, [*cells, f"{rate:.1f}", f"{bound:.1f}", f"{rate / bound:.2f}"])) + " |")

    print("\ntraining, AdaGrad, sample after sample, 1M features, k = 16, one thread\n")
    print("| order | s a pass: best | median | to order 2 |\n|--:|--:|--:|--:|")
    base = None
    for order in (2, 3, 4, 5):
        took = epochs_of(FMClassifier(16, order=order, solver=AdaGrad(max_iter=4, batch_size=1)), work)[1:]
        base = base or min(took)
        print(f"| {order} | {min(took):.3f} | {statistics.median(took):.3f} | {min(took) / base:.2f} |")


def epochs_of(model, work):
    """Seconds of each pass of a fit."""
    model.set_params(random_state=0, n_threads=1).fit(work.X_train, work.y_train)
    return [record["seconds"] for record in model.history_]


# ---- xLearn

XLEARN = """
import os, sys
os.environ.setdefault("USER", "benchmark")  # it exits without
import xlearn
machine = xlearn.create_ffm()
machine.setTrain("train.ffm")
if sys.argv[4] == "judge":
    machine.setValidate("test.ffm")
machine.disableEarlyStop()
options = {"task": "binary", "opt": "adagrad", "nthread": 1, "k": 4, "epoch": int(sys.argv[3])}
machine.fit(options | {"lr": float(sys.argv[1]), "lambda": float(sys.argv[2])}, "model.out")
"""
GRID_XLEARN = [(lr, l2) for lr in (0.05, 0.1, 0.2) for l2 in (2e-5, 1e-4, 5e-4)]
GRID_OURS = [(lr, l2) for lr in (0.03, 0.06, 0.12) for l2 in (0.003, 0.01, 0.03)]


def against_xlearn(python, features, epochs, rounds):
    """Both tuned over nine settings by the loss on the held-out rows, then timed in turn without judging."""
    work = workloads.clicks("W3", 200_000, features)
    fields = np.repeat(np.arange(39), work.field_sizes)
    with tempfile.TemporaryDirectory() as folder:
        for side, X, y in (("train", work.X_train, work.y_train), ("test", work.X_test, work.y_test)):
            with open(Path(folder) / f"{side}.ffm", "w") as file:
                for row, label in zip(X.indices.reshape(-1, 39), y, strict=True):
                    file.write(f"{int(label)} " + " ".join(f"{f}:{j}:1" for f, j in enumerate(row)) + "\n")

        def xlearn(lr, l2, n, judge):
            """Columns of the lines it prints after each pass: losses and seconds."""
            command = [python, "-c", XLEARN, str(lr), str(l2), str(n), "judge" if judge else "time"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            lines = [line.split("\x1b[0m")[-1].split() for line in done.stdout.splitlines() if "%" in line]
            return [[float(cell) for cell in line] for line in lines]

        def ours(lr, l2, n, judge=False):
            model = FFMClassifier(4, fields=fields, l2_factors=l2)
            model.set_params(solver=AdaGrad(learning_rate=lr, max_iter=n, batch_size=1), random_state=0, n_threads=1)
            model.fit(work.X_train, work.y_train, eval_set=(work.X_test, work.y_test) if judge else None)
            return [[record[key] for record in model.history_ if key in record] for key in ("seconds", "eval_loss")]

        peers = {s: min((line[2], i + 1) for i, line in enumerate(xlearn(*s, epochs, True))) for s in GRID_XLEARN}
        own = {s: min((v, i + 1) for i, v in enumerate(ours(*s, epochs, True)[1])) for s in GRID_OURS}
        chosen, own_chosen = min(peers, key=peers.get), min(own, key=own.get)
        theirs, mine = [], []
        for _ in range(rounds):
            theirs += [line[-1] for line in xlearn(*chosen, 4, False)][1:]
            mine += ours(*own_chosen, 4)[0][1:]
    print(
        f"\nfield-aware, {work.X_train.shape[0]:,} rows, 39 fields, {features:,} features, k = 4, AdaGrad, one thread"
    )
    print(f"floor {work.floor:.4f}\n\n| | lr, L2 | held-out log loss | after passes | s a pass: best | median |")
    print("|---|---|--:|--:|--:|--:|")
    rows = (("xLearn", chosen, peers[chosen], theirs), ("sparsefm", own_chosen, own[own_chosen], mine))
    for name, settings, (loss, passes), took in rows:
        cells = [name, settings, f"{loss:.4f}", passes, f"{min(took):.3f}", f"{statistics.median(took):.3f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    middle = statistics.median(theirs) / statistics.median(mine)
    print(f"\nratio {min(theirs) / min(mine):.2f} (best), {middle:.2f} (median)")


# ---- made truths


def planted(seed=0):
    """RMSE to the noise floor, on held-out rows of a truth of order three and of one with fields."""
    rng = np.random.default_rng(seed)
    n, n_fields, levels, noise = 200_000, 6, 20, 0.5
    cells = rng.integers(0, levels, (n, n_fields))
    columns = cells + levels * np.arange(n_fields)
    shape = (n, n_fields * levels)
    X = sparse.csr_array(
        (np.ones(columns.size), columns.ravel(), np.arange(0, columns.size + 1, n_fields)), shape=shape
    )
    fields = np.repeat(np.arange(n_fields), levels)
    kept, held = slice(0, n * 9 // 10), slice(n * 9 // 10, n)

    V = rng.normal(0, 0.6, (2, shape[1], 4))[:, columns]  # (2, n, n_fields, 4)
    three = sum(np.prod(V[1][:, list(of)], axis=1).sum(-1) for of in itertools.combinations(range(n_fields), 3))
    two = sum(np.prod(V[0][:, list(of)], axis=1).sum(-1) for of in itertools.combinations(range(n_fields), 2))
    # two vectors of the same feature have nothing in common, so no single one does for two fields
    A = rng.normal(0, 0.5, (shape[1], n_fields, 2))
    aware = sum((A[columns[:, f], g] * A[columns[:, g], f]).sum(-1) for f in range(n_fields) for g in range(f))
    r = np.triu(rng.choice([-2.0, 0.0, 1.0], (n_fields, n_fields)), 1)
    weighted = sum(
        r[f, g] * np.prod(V[0][:, [f, g]], axis=1).sum(-1) for f, g in itertools.combinations(range(n_fields), 2)
    )
    solver = AdaGrad(max_iter=60, batch_size=1)
    common = {"solver": solver, "l2_factors": 0.001, "random_state": 0}
    fm, cubic = FMRegressor(8, **common), FMRegressor(8, order=3, **common)
    ffm = FFMRegressor(4, fields=fields, **common)
    fwfm = FwFMRegressor(8, fields=fields, **common)
    print("| truth | floor | " + " | ".join(["order 2", "order 3", "FFM", "FwFM"]) + " |\n|---|--:|--:|--:|--:|--:|")
    for name, truth in (("orders two and three", two + three), ("field-aware", aware), ("field-weighted", weighted)):
        error = rng.normal(0, noise, n)
        y, cells = truth + error, [name, f"{np.sqrt(np.mean(error[held] ** 2)):.4f}"]
        for model in (fm, cubic, ffm, fwfm):
            model.set_params(init_std=0.1).fit(X[kept], y[kept], eval_set=None)
            cells.append(f"{rmse(y[held], model.predict(X[held])):.4f}")
        print("| " + " | ".join(cells) + " |", flush=True)


# ---- tables of quality


def made_clicks(rows=120_000, n_features=4_000, seed=7):
    """39 fields of which 20 pairs of 741 interact: of the variance of pairs half is from vectors by field, half from
    one vector a level and a weight for each pair of fields."""
    rng = np.random.default_rng(seed)
    work = workloads.clicks("W3", rows, n_features)
    columns = np.concatenate([work.X_train.indices, work.X_test.indices]).reshape(-1, 39)
    fields = np.repeat(np.arange(39), work.field_sizes)
    A, V = rng.standard_normal((n_features, 39, 2), np.float32), rng.standard_normal((n_features, 2), np.float32)
    pairs = list(itertools.combinations(range(39), 2))
    parts = np.zeros((2, rows))
    for f, g in rng.permutation(pairs)[:20]:
        i, j = columns[:, f], columns[:, g]
        parts[0] += (A[i, g] * A[j, f]).sum(1)
        parts[1] += rng.standard_normal() * (V[i] * V[j]).sum(1)
    linear = rng.standard_normal(n_features)[columns].sum(1)
    parts = np.array([part / part.std() for part in (*parts, linear)])
    logit = parts[0] + parts[1] + parts[2] - 1.8
    y = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    indptr = np.arange(0, columns.size + 1, 39)
    X = sparse.csr_array((np.ones(columns.size, np.float32), columns.ravel(), indptr), shape=(rows, n_features))
    fold = rng.integers(0, 5, rows)
    return X, y, fields, [(fold != i, fold == i) for i in range(5)]


def movielens(path):
    """Ratings of at least four, its five folds, and the sides that the data set has."""
    data = load_movielens(path)
    frame = data.ratings.merge(data.users, on="user_id").merge(data.items, on="item_id")
    frame["age"] //= 10
    frame["decade"] = frame["year"] // 10
    columns = ("user_id", "item_id", "gender", "age", "occupation", "decade")
    encoder = FrameEncoder({name: OneHot() for name in columns} | {"genres": MultiHot("|")})
    pair, folds = frame["user_id"] * 10_000 + frame["item_id"], []
    for k in range(1, 6):
        test = data.fold(k)[1]
        held = pair.isin(test["user_id"] * 10_000 + test["item_id"]).to_numpy()
        folds.append((~held, held))
    X = encoder.fit_transform(frame)
    return sparse.csr_array(X), (frame["rating"] >= 4).to_numpy(int), encoder.fields_, folds


RATES, STRENGTHS = (0.03, 0.1), (0.01, 0.1)


def candidates(fields):
    """Eight settings of each member; a setting is a function from training and watched rows to probabilities."""

    def ours(kind, **options):
        def fit(X, y, watched, X_test, lr, l2, rank):
            strength = {"l2_linear" if options.get("order") == 1 else "l2_factors": l2}
            model = kind(rank, **options, **strength, random_state=0, n_threads=1, early_stopping=True)
            model.set_params(solver=AdaGrad(learning_rate=lr, max_iter=40, batch_size=1))
            return model.fit(X, y, eval_set=watched).predict_proba(X_test)[:, 1]

        return fit

    def deep(X, y, watched, X_test, lr, l2, rank):
        return fit_deepfm(X, y, watched, X_test, fields, lr, l2, rank)

    grid = lambda ranks: list(itertools.product(RATES, STRENGTHS, ranks))  # noqa: E731
    return {
        "LR": (ours(FMClassifier, order=1), list(itertools.product(RATES, (0.003, 0.01, 0.03, 0.1), (0,)))),
        "FM": (ours(FMClassifier), grid((8, 16))),
        "order 3": (ours(FMClassifier, order=3), grid((4, 8))),
        "FwFM": (ours(FwFMClassifier, fields=fields), grid((8, 16))),
        "FFM": (ours(FFMClassifier, fields=fields), grid((2, 4))),
        "DeepFM": (deep, list(itertools.product((0.001, 0.003), (0.0, 1e-5), (8, 16)))),
    }


def fit_deepfm(X, y, watched, X_test, fields, lr, l2, rank):
    """Guo et al., IJCAI 2017: the recipe of docs/torch.md with two hidden layers; a field's vectors are added up."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.utils.data import DataLoader

    from sparsefm.nn import CSRDataset, FactorizationMachine, RowBatches, fit, predict

    n_fields = int(fields.max()) + 1

    class DeepFM(nn.Module):
        def __init__(self):
            super().__init__()
            self.fm = FactorizationMachine(X.shape[1], rank, init_std=0.01)
            widths = (n_fields * rank, 64, 32)
            layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
            self.deep = nn.Sequential(*layers, nn.Linear(32, 1))
            self.register_buffer("fields", torch.from_numpy(fields.astype(np.int64)))

        def forward(self, x):
            vectors = self.fm.factors(x.indices)
            if x.data is not None:
                vectors = vectors * x.data[:, None]
            row = torch.repeat_interleave(torch.arange(x.n_rows), x.indptr.diff())
            cells = vectors.new_zeros(x.n_rows * n_fields, rank)
            cells = cells.index_add(0, row * n_fields + self.fields[x.indices], vectors)
            return self.fm(x) + self.deep(cells.reshape(x.n_rows, -1)).squeeze(-1)

    def batches(X, y, shuffle):
        rows = RowBatches(X.shape[0], 512, shuffle=shuffle)
        return DataLoader(CSRDataset(X, y.astype(np.float32)), sampler=rows, batch_size=None)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DeepFM()
    tables = [each.weight for each in network.modules() if isinstance(each, nn.Embedding)]
    rest = [each for name, each in network.named_parameters() if "bias" in name or "deep" in name]
    optimizers = [torch.optim.SparseAdam(tables, lr=lr), torch.optim.Adam(rest, lr=lr, weight_decay=l2)]
    options = {"loss": binary_cross_entropy_with_logits, "optimizer": optimizers, "epochs": 12, "patience": 1}
    fit(network, batches(X, y, True), validation=batches(*watched, False), **options)
    return 1 / (1 + np.exp(-predict(network, X_test).astype(np.float64)))


def quality(X, y, fields, folds):
    """Each member's best of eight settings, chosen on a tenth of the first fold's training rows; then every fold, a
    tenth of its training rows watched for when to stop."""

    def split(train):
        rows = np.random.default_rng(1).permutation(np.flatnonzero(train))
        return rows[len(rows) // 10 :], rows[: len(rows) // 10]

    print(
        "| member | settings | log loss: mean | spread | AUC: mean | spread | s a fit |\n|---|---|--:|--:|--:|--:|--:|"
    )
    for name, (fit, grid) in candidates(fields).items():
        kept, watched = split(folds[0][0])
        stop, judge = watched[::2], watched[1::2]
        tried = {s: log_loss(y[judge], fit(X[kept], y[kept], (X[stop], y[stop]), X[judge], *s)) for s in grid}
        chosen, losses, areas = min(tried, key=tried.get), [], []
        began = time.perf_counter()
        for train, test in folds:
            kept, watched = split(train)
            p = fit(X[kept], y[kept], (X[watched], y[watched]), X[test], *chosen)
            losses.append(log_loss(y[test], p))
            areas.append(auc(y[test], p))
        took = (time.perf_counter() - began) / len(folds)
        cells = [name, chosen, *(f"{each:.4f}" for own in (losses, areas) for each in (np.mean(own), np.std(own)))]
        print("| " + " | ".join(map(str, [*cells, f"{took:.1f}"])) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "xlearn", "planted", "clicks", "movielens"))
    parser.add_argument("path", nargs="?")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has xlearn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=12, help="passes of each setting that is tried")
    parser.add_argument("--features", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.what == "speed":
        speed(args.rounds)
    elif args.what == "xlearn":
        for features in args.features:
            against_xlearn(args.python, features, args.epochs, max(1, args.rounds // 3))
    elif args.what == "planted":
        planted()
    else:
        quality(*(made_clicks() if args.what == "clicks" else movielens(args.path)))


if __name__ == "__main__":
    main()
