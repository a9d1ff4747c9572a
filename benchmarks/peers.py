"""One adapter a system, all with one interface, each run in a process of its own.

`fit_*(work, epochs, threads, settings)` trains on `work.X_train` for `epochs` epochs and returns a `Run`:
seconds an epoch with reading, conversion and evaluation left out, the held-out predictions (values, or
probabilities of a one) and the seconds of one prediction over the training rows where the system has a
call for that; and the held-out loss after every epoch where one fit can tell it. A system that tells it also
ends when settings["stop_after"] training seconds, if given, are over. `run.py` and `fit_curves.py` start

    python benchmarks/peers.py SYSTEM WORKLOAD.npz RESULT.json --epochs E --threads T --settings JSON

so that a crash ends one line of the table and nothing else.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
from workloads import Workload

FORWARD_REPEATS = 9


@dataclass
class Run:
    seconds: list[float]  # one an epoch, or one mean over several where a system gives no more
    predicted: np.ndarray | None = None  # (n_test,); None: the system's loss is another one
    forward_seconds: list[float] = field(default_factory=list)
    forward_rows: int = 0  # rows that each of forward_seconds scored
    losses: list[float] = field(default_factory=list)  # held out, after each of `seconds`; empty: not told


def _touch() -> None:
    """Has the memory at hand that a fit will want: a virtual machine's host hands out a page when it is first touched,
    which costs seconds a gigabyte and tells nothing of the system that happens to be the first to touch it."""
    held = np.ones(min(6 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4), np.uint8)
    del held


def _timed(call: Callable[[], Any], repeats: int = FORWARD_REPEATS) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


# ---- sparsefm


def fit_sparsefm(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """Epochs as `history_` tells them; prediction is `model.score` on rows that have passed the door."""
    from sparsefm import FMClassifier, FMRegressor, model, solvers
    from sparsefm.validation import check_csr

    regression = work.loss == "squared"
    options = dict(settings)
    solver = {"adagrad": solvers.AdaGrad, "sgd": solvers.SGD, "adam": solvers.Adam, "ftrl": solvers.FTRL}[
        options.pop("optimizer")
    ](max_iter=epochs, **options)
    fitted = (FMRegressor if regression else FMClassifier)(
        n_factors=work.n_factors, solver=solver, n_threads=threads, random_state=0
    ).fit(work.X_train, work.y_train)
    predicted = fitted.predict(work.X_test) if regression else fitted.predict_proba(work.X_test)[:, 1]
    rows = check_csr(work.X_train)
    forward = _timed(lambda: model.score(fitted.params_, rows, n_threads=threads))
    return Run([h["seconds"] for h in fitted.history_], predicted, forward, rows.n_rows)


def fit_sparsefm_defaults(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """Nothing chosen, the number of epochs neither; `history_` leaves evaluation out of its seconds.

    Held-out losses are of scores that are not clipped to the range of the training target, as predictions are.
    """
    from sparsefm import FMClassifier, FMRegressor

    regression = work.loss == "squared"

    def over(model: Any, record: dict) -> bool:
        return sum(h["seconds"] for h in model.history_) >= settings["stop_after"]

    history = (
        (FMRegressor if regression else FMClassifier)(
            n_factors=work.n_factors, n_threads=threads, random_state=0, callbacks=[over]
        )
        .fit(work.X_train, work.y_train, eval_set=(work.X_test, work.y_test))
        .history_
    )
    # its squared loss is half the square
    losses = [(2 * h["eval_loss"]) ** 0.5 if regression else h["eval_loss"] for h in history]
    return Run([h["seconds"] for h in history], losses=losses)


# ---- peers


def fit_xlearn(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """xLearn prints a line as each epoch ends, to hundredths of a second: the lines are timed instead.

    It reads libsvm text only (its CSR input crashes) and keeps a binary copy beside it, so the text is
    written once a workload. To a pseudo-terminal its lines come out one by one, to a pipe all at the end.
    """
    os.environ.setdefault("USER", "benchmark")  # it exits without
    import xlearn
    from sklearn.datasets import dump_svmlight_file

    paths = {}
    for side, X, y in (("train", work.X_train, work.y_train), ("test", work.X_test, work.y_test)):
        paths[side] = f"{work.name}-{side}-{X.shape[0]}.libsvm"
        if not Path(paths[side]).exists():
            dump_svmlight_file(X, y, paths[side] + ".part")
            os.replace(paths[side] + ".part", paths[side])

    lines: list[tuple[float, str]] = []
    reader, writer = os.openpty()
    terminal, kept = os.fdopen(reader, "rb", buffering=0), os.dup(1)
    os.dup2(writer, 1)
    os.close(writer)

    def read() -> None:
        rest = b""
        while True:
            try:
                chunk = terminal.read(65536)
            except OSError:  # the last writer is gone
                return
            now = time.perf_counter()
            *whole, rest = (rest + chunk).split(b"\n")
            lines.extend((now, line.decode(errors="replace")) for line in whole)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    machine = xlearn.create_fm()
    machine.setTrain(paths["train"])
    machine.disableEarlyStop()
    if not settings["norm"]:
        machine.disableNorm()
    options = {"opt": settings["optimizer"], "lr": settings["lr"], "lambda": settings["l2"]}
    options |= {"task": "reg" if work.loss == "squared" else "binary"}
    options |= {"k": work.n_factors, "epoch": epochs, "nthread": threads}
    machine.fit(options, "xlearn.model")
    machine._set_Param({"nthread": threads})  # fit forgets it, predict would take every core
    machine.setTest(paths["test"])
    if work.loss == "logistic":
        machine.setSigmoid()
    machine.predict("xlearn.model", "xlearn.out")
    os.dup2(kept, 1)  # closes the terminal's last writer
    thread.join(10)

    def at(text: str) -> float:
        return next(when for when, line in lines if text in line)

    ends = [at("Start to train")] + [when for when, line in lines if "%" in line][:epochs]
    ends[0] = next(when for when, line in lines if "Epoch" in line)
    return Run(np.diff(ends).tolist(), np.loadtxt("xlearn.out"))


def fit_modern_fm(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """One number: (fit of all epochs - fit of one) / (epochs - 1), which cancels checks and conversions.

    Its threads share a batch, and batches of one row are what reaches its best loss: more threads change nothing.
    """
    from modern_fm import FMClassifier, FMRegressor

    kind = FMRegressor if work.loss == "squared" else FMClassifier
    l2 = settings["l2"]
    options = {"n_factors": work.n_factors, "l2_linear": l2, "l2_factors": l2, "init_scale": settings["init"]}
    options |= {"optimizer": settings["optimizer"], "learning_rate": settings["lr"]}
    options |= {"batch_size": settings["batch_size"], "n_jobs": threads, "random_state": 0}
    # centred: it starts the intercept at zero and takes epochs to bring it to the mean
    mean = float(work.y_train.mean()) if work.loss == "squared" else 0.0
    X, y = work.X_train.astype(np.float64), work.y_train.astype(np.float64) - mean
    longer = max(epochs, 2)
    models = {n: kind(max_iter=n, **options) for n in (1, longer)}
    kind(max_iter=1, **options).fit(X[:1000], y[:1000])  # imports and thread pools come up here
    took = {n: _timed(lambda model=model: model.fit(X, y), 1)[0] for n, model in models.items()}
    seconds = (took[longer] - took[1]) / (longer - 1)
    model = models[epochs]
    if work.loss == "squared":
        predicted = model.predict(work.X_test) + mean
    else:
        predicted = model.predict_proba(work.X_test)[:, 1]
    return Run([seconds], predicted, _timed(lambda: model.predict(X), 3), X.shape[0])


def import_myfm() -> Any:
    # myfm imports two names from it and uses neither
    if "pkg_resources" not in sys.modules and importlib.util.find_spec("pkg_resources") is None:
        sys.modules["pkg_resources"] = Mock()
    import myfm

    return myfm


def fit_myfm(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """Sweeps of the Gibbs sampler, timed from callback to callback; it has one thread only.

    The prediction after n sweeps is the mean over the last three quarters of them, as of a fit that ends there.
    The first sweep, which no callback begins, counts as long as the second.
    """
    X = [X.astype(np.float64) for X in (work.X_train, work.X_test)]
    sums = [np.zeros(X[1].shape[0])]  # of the predictions after 0, 1, … sweeps
    seconds: list[float] = []
    resumed = math.nan

    def after(sweep: int, fm: Any, *_: Any) -> tuple[bool, None]:
        nonlocal resumed
        seconds.append(time.perf_counter() - resumed)
        sums.append(sums[-1] + fm.predict_score(X[1], []))
        resumed = time.perf_counter()
        return sum(seconds[1:]) >= settings.get("stop_after", math.inf), None

    model = import_myfm().MyFMGibbsRegressor(rank=work.n_factors, random_seed=0)
    y = work.y_train.astype(np.float64)
    # the samples are averaged here, of those it keeps itself one is the fewest
    options = {"n_iter": epochs, "n_kept_samples": 1, "group_shapes": list(work.field_sizes)}
    model.fit(X[0], y, callback=after, **options)
    means = [(sums[n] - sums[n // 4]) / (n - n // 4) for n in range(1, len(sums))]
    return Run([seconds[1], *seconds[1:]], means[-1], losses=[work.held_out(mean) for mean in means])


def fit_lightfm(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """Users x items with biases and AdaGrad, as FM on W1, but it has no squared loss: logistic, time only."""
    from lightfm import LightFM
    from scipy.sparse import coo_matrix

    user, item = work.X_train.indices.reshape(-1, 2).T.copy()
    sign = np.where(work.y_train > np.median(work.y_train), 1, -1).astype(np.float32)
    shape = (work.field_sizes[0], work.field_sizes[1])
    pairs = coo_matrix((sign, (user, item - shape[0])), shape=shape)
    model = LightFM(no_components=work.n_factors, loss="logistic", random_state=0)
    model.fit_partial(pairs, epochs=1, num_threads=threads)
    return Run(_timed(lambda: model.fit_partial(pairs, epochs=1, num_threads=threads), epochs))


def fit_libmf(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """Two ids and factors only, no biases: a smaller model. (fit of 2E - fit of E) / E."""
    from libmf import mf

    def triples(X: Any, y: np.ndarray) -> np.ndarray:
        user, item = X.indices.reshape(-1, 2).T
        # it reads the buffer row by row whatever the array's order
        return np.ascontiguousarray(np.column_stack([user, item - work.field_sizes[0], y]), dtype=np.float32)

    options = {"k": work.n_factors, "nr_threads": threads, "eta": settings["lr"], "quiet": True}
    options |= {"lambda_p2": settings["l2"], "lambda_q2": settings["l2"], "lambda_p1": 0.0, "lambda_q1": 0.0}
    models = {n: mf.MF(nr_iters=n, **options) for n in (epochs, 2 * epochs)}
    mean = float(work.y_train.mean())  # it has no intercept
    train = triples(work.X_train, work.y_train - mean)
    took = {n: _timed(lambda model=model: model.fit(train), 1)[0] for n, model in models.items()}
    # its own predict is wrong (no correlation with what it trained on), and ids never seen have no factors
    P, Q = (np.zeros((n, work.n_factors), np.float32) for n in work.field_sizes[:2])
    found = models[epochs].p_factors(), models[epochs].q_factors()
    P[: len(found[0])], Q[: len(found[1])] = np.nan_to_num(found[0]), np.nan_to_num(found[1])
    user, item = work.X_test.indices.reshape(-1, 2).T
    predicted = np.einsum("nk,nk->n", P[user], Q[item - work.field_sizes[0]])
    return Run([(took[2 * epochs] - took[epochs]) / epochs], predicted + mean)


def fit_torch(work: Workload, epochs: int, threads: int, settings: dict) -> Run:
    """The fastest plain formulation found: one embedding table [v | w], gathered for the batch, summed twice.

    `embedding_bag` needs the squared norms of the whole table each step and loses on every workload. Rows
    are padded to the longest. A batch is a slice of neighbouring rows, the order of the batches shuffled. The
    penalty is part of the loss, on what the batch gathered: the optimiser's own would visit the whole table.
    """
    import warnings

    import torch
    import torch.nn.functional as F

    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    k, batch, l2 = work.n_factors, settings["batch_size"], settings["l2"]

    def padded(X: Any) -> tuple[Any, Any]:
        counts = np.diff(X.indptr)
        used = np.arange(counts.max()) < counts[:, None]
        indices, values = np.zeros(used.shape, np.int64), np.zeros(used.shape, np.float32)
        indices[used], values[used] = X.indices, X.data
        return torch.from_numpy(indices), torch.from_numpy(values)[:, :, None]

    def score(X: Any, rows: slice) -> tuple[Any, Any]:
        """Scores (n,) and the sum of the squares of all that went into them."""
        e = F.embedding(X[0][rows], table, sparse=settings["sparse"])
        if not all_ones:
            e = e * X[1][rows]
        total = e.sum(1)
        squares = e[:, :, :k].square().sum((1, 2))
        pairs = total[:, :k].square().sum(1) - squares
        penalised = squares.sum() + e[:, :, k].square().sum() if l2 else 0.0
        return intercept + total[:, k] + 0.5 * pairs, penalised

    def scores(X: Any) -> Any:
        with torch.no_grad():
            return torch.cat([score(X, slice(b, b + 8192))[0] for b in range(0, len(X[0]), 8192)])

    mean = float(work.y_train.mean())
    start = mean if work.loss == "squared" else np.log(mean / (1 - mean))
    intercept = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    table = torch.randn(work.X_train.shape[1], k + 1) * settings["init"]
    table[:, k] = 0
    table.requires_grad_()
    # summed loss and a first accumulator of one, as in xLearn: with mean and zero a rare feature's first step
    # is the whole learning rate in every factor, and W3 never gets below its base rate
    optimizer = torch.optim.Adagrad([table, intercept], lr=settings["lr"], initial_accumulator_value=1.0)
    loss = F.mse_loss if work.loss == "squared" else F.binary_cross_entropy_with_logits
    strength = l2 if work.loss == "squared" else 0.5 * l2
    train, test, y = padded(work.X_train), padded(work.X_test), torch.from_numpy(work.y_train)
    all_ones = bool((train[1] == 1).all())  # then nothing was padded either
    starts = np.arange(0, len(y), batch)
    rng = np.random.default_rng(0)

    def epoch() -> None:
        rng.shuffle(starts)
        for begin in starts.tolist():
            rows = slice(begin, begin + batch)
            optimizer.zero_grad()
            predicted, penalised = score(train, rows)
            # the gradient of the squared loss is twice that of its half, which the others' penalties go with
            (loss(predicted, y[rows], reduction="sum") + strength * penalised).backward()
            optimizer.step()

    seconds: list[float] = []
    losses = []
    while len(seconds) < epochs and sum(seconds) < settings.get("stop_after", math.inf):
        seconds += _timed(epoch, 1)
        predicted = scores(test)
        if work.loss == "logistic":
            predicted = predicted.sigmoid()
        losses.append(work.held_out(predicted.numpy()))
    return Run(seconds, predicted.numpy(), _timed(lambda: scores(train), 3), len(y), losses)


# ---- who runs where, and with what


@dataclass(frozen=True)
class System:
    fit: Callable[[Workload, int, int, dict], Run]
    settings: dict[str, dict]  # workload -> settings; a workload that is not here is not run
    ceiling: str = "update adagrad"  # which pass bounds its epoch; "": none
    family: str = "epoch"  # ratios are taken within a family: an epoch of steps, or a Gibbs "sweep"
    note: str = ""
    grid: dict[str, list] = field(default_factory=dict)  # for `run.py --tune`


# Tuned so far, on the last ninth of the training rows after 8 epochs: sparsefm; xLearn; modern-fm's AdaGrad on W1 and
# W2; LIBMF; torch on W1 and W3. W1 and W2 with all rows, W3 with 100,000 to 200,000; W4 takes W3's. The other
# settings are first guesses: run `--tune` before their held-out losses are quoted.
def _each(workloads: str, **settings: Any) -> dict[str, dict]:
    return dict.fromkeys(workloads.split(), settings)


SYSTEMS = {
    "sparsefm defaults": System(fit_sparsefm_defaults, {}),  # fit_curves.py's
    # with the default penalties, steps and start; settings are options of the solver
    "sparsefm adagrad": System(fit_sparsefm, _each("W1 W2 W3 W4", optimizer="adagrad", batch_size=1)),
    "sparsefm adagrad, batches": System(fit_sparsefm, _each("W1 W2 W3 W4", optimizer="adagrad", batch_size=2048)),
    "sparsefm row-wise": System(
        fit_sparsefm, _each("W1 W2 W3 W4", optimizer="adagrad", batch_size=1, rowwise=True), ceiling="update sgd"
    ),
    "sparsefm bf16 rows": System(
        fit_sparsefm,
        _each("W3 W4", optimizer="adagrad", batch_size=1, rowwise=True, storage="bf16"),
        ceiling="update sgd",
    ),
    "sparsefm sgd": System(fit_sparsefm, _each("W1 W2 W3 W4", optimizer="sgd"), ceiling="update sgd"),
    "xlearn adagrad": System(
        fit_xlearn,
        _each("W1", optimizer="adagrad", lr=0.3, l2=5e-3, norm=True)
        | _each("W2", optimizer="adagrad", lr=0.1, l2=1e-3, norm=False)
        | _each("W3 W4", optimizer="adagrad", lr=0.3, l2=1e-5, norm=True),
        grid={"lr": [0.1, 0.2, 0.3], "l2": [5e-3, 1e-3, 1e-4, 1e-5], "norm": [True, False]},
    ),
    "modern-fm adagrad": System(
        fit_modern_fm,
        _each("W1 W2", optimizer="adagrad", lr=0.1, l2=1e-2, init=0.05, batch_size=1)
        | _each("W3 W4", optimizer="adagrad", lr=0.02, l2=1e-4, init=0.05, batch_size=1, unit_rows=True),
        grid={"lr": [0.02, 0.05, 0.1], "l2": [1e-2, 1e-3, 1e-4]},
    ),
    "modern-fm sgd": System(
        fit_modern_fm,
        _each("W1 W2", optimizer="sgd", lr=0.02, l2=1e-3, init=0.05, batch_size=1)
        | _each("W3 W4", optimizer="sgd", lr=0.04, l2=1e-4, init=0.05, batch_size=1, unit_rows=True),
        ceiling="update sgd",
        grid={"lr": [0.01, 0.02, 0.04], "l2": [1e-2, 1e-3, 1e-4]},
    ),
    "torch adagrad": System(
        fit_torch,
        _each("W1", batch_size=1024, lr=0.1, l2=0.0, init=0.05, sparse=True)
        | _each("W2", batch_size=1024, lr=0.1, l2=0.0, init=0.05, sparse=True)
        | _each("W3 W4", batch_size=1024, lr=0.1, l2=0.0, init=0.05, sparse=True, unit_rows=True),
        grid={"lr": [0.02, 0.05, 0.1, 0.2], "batch_size": [1024, 4096], "init": [0.05]},
    ),
    "libmf": System(
        fit_libmf,
        _each("W1", lr=0.2, l2=0.05),
        ceiling="update sgd",
        note="ids and factors only, no biases",
        grid={"lr": [0.03, 0.1, 0.2], "l2": [0.02, 0.05, 0.1]},
    ),
    "lightfm": System(fit_lightfm, _each("W1"), note="logistic loss on the sign: time only"),
    "myfm": System(fit_myfm, _each("W1 W2"), ceiling="", family="sweep"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("workload", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--settings", type=json.loads, required=True)
    args = parser.parse_args()
    args.workload, args.result = args.workload.absolute(), args.result.absolute()
    os.chdir(args.workload.parent)  # xLearn drops files where it stands
    work = Workload.load(args.workload)
    if args.settings.get("unit_rows"):  # rows of norm one, as xLearn makes them by default
        for X in (work.X_train, work.X_test):
            counts = np.diff(X.indptr)
            norms = np.sqrt(np.bincount(np.repeat(np.arange(len(counts)), counts), X.data**2, len(counts)))
            X.data /= np.repeat(norms, counts).astype(np.float32)
    _touch()
    try:
        run = SYSTEMS[args.system].fit(work, args.epochs, args.threads, args.settings)
    except ImportError as error:
        sys.exit(f"not installed: {error}")
    held_out = None if run.predicted is None else work.held_out(run.predicted)
    result = {"seconds": run.seconds, "held_out": held_out}
    result |= {"forward_seconds": run.forward_seconds, "forward_rows": run.forward_rows, "losses": run.losses}
    args.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
