"""Time the training engine against itself and the machine: layouts, threads, bits, memory.

    python benchmarks/training.py                        # passes, minibatches and bits on W1 to W4; a quiet machine
    python benchmarks/training.py --workloads W1 W3
    python benchmarks/training.py --memory               # 20M features, 16 factors: peak memory of a fit
    python benchmarks/training.py --stream 5             # a fit to a file of 5 GB, and its peak memory
    python benchmarks/training.py --kills 50             # kill -9 while checkpoints are written, then resume

What is measured, and how to read it: benchmarks/README.md.
"""

import argparse
import hashlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import workloads
from ceiling import Visits, seconds, table

from sparsefm import FMClassifier, FMRegressor, load, metrics
from sparsefm.solvers import FTRL, SGD, AdaGrad, Adam
from sparsefm.solvers.batches import Batches
from sparsefm.solvers.engine import Training
from sparsefm.solvers.problem import Problem
from sparsefm.validation import check_csr

LAYOUTS = {
    "SGD": SGD(),
    "AdaGrad": AdaGrad(),
    "AdaGrad, row-wise": AdaGrad(rowwise=True),
    "AdaGrad, bf16 rows": AdaGrad(rowwise=True, storage="bf16"),
    "FTRL + AdaGrad": FTRL(),
    "Adam, lazy": Adam(),
}


def problem_of(work: workloads.Workload, n_threads: int) -> Problem:
    """What an estimator with default arguments hands to its solver."""
    y = work.y_train
    if work.loss == "squared":
        y, w0 = (y - y.mean()) / y.std(), 0.0
    else:
        w0 = float(np.log(y.mean() / (1 - y.mean())))
    return Problem(
        rows=check_csr(work.X_train),
        y=y.astype(np.float32),
        weight=None,
        loss=work.loss,
        w0=w0,
        n_factors=work.n_factors,
        l2_linear=0.01,
        l2_factors=0.025,
        l2_prior=250.0,
        init_std=0.01,
        seed=0,
        n_threads=n_threads,
        evaluation=None,
        early_stopping=False,
        report=lambda record: False,
    )


def passes(work: workloads.Workload, rounds: int) -> str:
    """Each layout's sequential pass beside a pass that only reads and writes the same rows' lines."""
    problem = problem_of(work, 1)
    order = np.random.default_rng(0).permutation(problem.rows.n_rows)
    visits = Visits(work.X_train.indptr, work.X_train.indices, order)
    lines = [f"{work.name}, sequential pass, one thread, k = {work.n_factors}", ""]
    lines += ["| layout | bytes a row | s a pass: best | median | ceiling | share of it |", "|---|--:|--:|--:|--:|--:|"]
    for name, solver in LAYOUTS.items():
        training = Training(solver.method(problem), problem)
        stride = training.table.array.shape[1] * 4
        memory = table(problem.rows.n_features * stride)
        took, bound = [], []
        for epoch in range(1, rounds + 1):
            began = time.perf_counter()
            training.run(problem, None, epoch)
            took.append(time.perf_counter() - began)
            bound.append(seconds(visits, memory, stride, write=True))
        cells = [name, stride, f"{min(took):.4f}", f"{statistics.median(took):.4f}", f"{min(bound):.4f}"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{min(bound) / min(took):.0%}"])) + " |")
        del training, memory
    return "\n".join(lines)


def minibatches(work: workloads.Workload, rounds: int) -> str:
    """Minibatches of one and two threads beside the sequential pass, interleaved; wall and process CPU time."""
    lines = [f"{work.name}, AdaGrad in minibatches of 2048", ""]
    lines += [
        "| | columns found in, s | s a pass: best | CPU s a pass: best | to the sequential pass |",
        "|---|--:|--:|--:|--:|",
    ]
    solver, found = AdaGrad(), {}
    for threads in (0, 1, 2):
        problem = problem_of(work, max(1, threads))
        training = Training(solver.method(problem), problem)
        began = time.perf_counter()
        batches = Batches(problem, 2048, 1) if threads else None
        found[threads] = (problem, training, batches, time.perf_counter() - began, [], [])
    for epoch in range(1, rounds + 1):
        for problem, training, batches, _, wall, cpu in found.values():
            began, used = time.perf_counter(), time.process_time()
            training.run(problem, batches, epoch)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
    base = min(found[0][4])
    for threads, (_, _, _, setup, wall, cpu) in found.items():
        name = f"{threads} thread{'s' * (threads > 1)}" if threads else "sequential"
        cells = [
            name,
            f"{setup:.3f}" if threads else "",
            f"{min(wall):.4f}",
            f"{min(cpu):.4f}",
            f"{base / min(wall):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    gain = 2 * min(found[1][5]) / min(found[2][5])
    lines.append(
        f"\nsamples/s of two threads to one: {min(found[1][4]) / min(found[2][4]):.2f} by wall time, "
        f"{gain:.2f} by CPU time"
    )
    return "\n".join(lines)


def bits(work: workloads.Workload) -> str:
    """Digests of fits at one to four threads."""
    kind = FMRegressor if work.loss == "squared" else FMClassifier
    shown = []
    for name, solver in {"AdaGrad": AdaGrad(max_iter=2), "sequential": AdaGrad(max_iter=1, batch_size=1)}.items():
        prints = set()
        for threads in (1, 2, 3, 4):
            fitted = kind(work.n_factors, solver=solver, random_state=0, n_threads=threads)
            fitted.fit(work.X_train, work.y_train)
            digest = hashlib.sha256(fitted.coef_.tobytes())
            digest.update(fitted.factors_.tobytes())
            prints.add(digest.hexdigest()[:16] + repr(fitted.intercept_))
        shown.append(f"{name}: {'the same bits' if len(prints) == 1 else 'DIFFERENT BITS'} at 1, 2, 3, 4 threads")
    return f"{work.name}: " + "; ".join(shown)


def peak() -> float:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def memory(storage: str, n_features: int = 20_000_000, rows: int = 600_000) -> None:
    """Fits k = 16 to rows that touch every feature, in a process of its own, and prints its peak memory."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    indices = rng.permutation(n_features).astype(np.int32)
    indices = np.resize(indices, rows * 39).reshape(rows, 39)
    indices.sort(axis=1)
    X = sparse.csr_array(
        (np.ones(rows * 39, np.float32), indices.ravel(), np.arange(0, rows * 39 + 1, 39, dtype=np.int32)),
        shape=(rows, n_features),
    )
    y = rng.integers(0, 2, rows)
    del indices
    before = peak()
    options = {"rowwise": True, "storage": "bf16"} if storage == "bf16" else {}
    FMClassifier(16, solver=AdaGrad(max_iter=2, batch_size=1, **options), random_state=0).fit(X, y)
    print(f"{storage}: peak {peak() / 1e9:.2f} GB, of which {before / 1e9:.2f} GB before the fit (the rows included)")


def stream(gigabytes: float) -> None:
    """Writes a libsvm file of that size and fits to it."""
    from sparsefm.datasets import dump_libsvm

    work = workloads.make("W3", 400_000)
    with tempfile.TemporaryDirectory() as folder:
        part, path = Path(folder) / "part.libsvm", Path(folder) / "rows.libsvm"
        dump_libsvm(work.X_train, work.y_train.astype(int), part)
        copies = -(-int(gigabytes * 1e9) // part.stat().st_size)
        with open(path, "wb") as file:
            for _ in range(copies):
                file.write(part.read_bytes())
        work.save(Path(folder) / "work.npz")
        command = [sys.executable, __file__, "--stream-child", str(path), str(Path(folder) / "work.npz")]
        print(f"{path.stat().st_size / 1e9:.2f} GB of libsvm text", flush=True)
        subprocess.run(command, check=True)


def stream_child(path: str, kept: str) -> None:
    from sparsefm.datasets import iter_libsvm

    began = time.perf_counter()
    model = FMClassifier(16, random_state=0)
    model.fit_stream(lambda: iter_libsvm(path, n_features=1_000_000))
    took, top = time.perf_counter() - began, peak()
    work = workloads.Workload.load(Path(kept))
    loss = metrics.log_loss(work.y_test, model.predict_proba(work.X_test)[:, 1])
    print(f"read three times, one epoch: {took:.0f} s, peak memory {top / 1e9:.2f} GB, held-out log loss {loss:.4f}")


KILLED = """
import sys
import numpy as np
from sparsefm import FMClassifier
from sparsefm.solvers import AdaGrad
rng = np.random.default_rng(0)
X = (rng.random((3000, 400)) < 0.05).astype(np.float32)
y = rng.integers(0, 2, 3000)
path, resume = sys.argv[1], sys.argv[2] or None
model = FMClassifier(16, solver=AdaGrad(max_iter=60, batch_size=200, checkpoint=path), random_state=0)
model.fit(X, y, resume=resume).save(path + ".model")
"""


def kills(times: int) -> None:
    """Kills a fit that writes a checkpoint an epoch, again and again, until it is through; compares the models."""
    with tempfile.TemporaryDirectory() as folder:
        path, clean = Path(folder) / "checkpoint", Path(folder) / "clean"
        subprocess.run([sys.executable, "-c", KILLED, str(clean), ""], check=True)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", KILLED, str(path) + "x", ""], check=True)
        whole, struck, rng = time.perf_counter() - began, 0, random.Random(0)
        expected = load(str(clean) + ".model")
        same = tries = 0
        while struck < times:
            path.unlink(missing_ok=True)
            Path(f"{path}.model").unlink(missing_ok=True)
            child = subprocess.Popen([sys.executable, "-c", KILLED, str(path), ""])
            time.sleep(rng.uniform(0.55, 1.0) * whole)
            child.kill()
            struck += child.wait() != 0
            tries += 1
            resume = str(path) if path.exists() else ""
            subprocess.run([sys.executable, "-c", KILLED, str(path), resume], check=True)
            again = load(f"{path}.model")
            same += (again.factors_ == expected.factors_).all() and (again.coef_ == expected.coef_).all()
            print(f"\r{struck} killed", end="", file=sys.stderr)
        print(f"{struck} fits killed at random moments, then resumed")
        print(f"{same} of {tries} models, resumed or not, equal the uninterrupted one to the bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--stream", type=float, metavar="GB")
    parser.add_argument("--kills", type=int, metavar="N")
    parser.add_argument("--stream-child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stream_child:
        stream_child(*args.stream_child)
    elif args.memory_child:
        memory(args.memory_child)
    elif args.memory:
        for storage in ("float32", "bf16"):
            subprocess.run([sys.executable, __file__, "--memory-child", storage], check=True)
    elif args.stream:
        stream(args.stream)
    elif args.kills:
        kills(args.kills)
    else:
        for name in args.workloads:
            work = workloads.make(name, args.rows)
            for part in (passes, minibatches):
                print(part(work, args.rounds) + "\n", flush=True)
            print(bits(work) + "\n", flush=True)


if __name__ == "__main__":
    main()
