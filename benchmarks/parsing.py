"""Readers of libsvm and libFM text on one file that is made from a seed: MB/s of text, and ratios.

    python benchmarks/parsing.py [--rows N] [--rounds N] [--threads N ...] [--peers-python PATH] [--folder PATH]

The file resembles workload W3: 39 entries a row in ascending order, indices up to a million, 26 values of 1 (the
categorical fields) and 13 decimals of up to six digits; 700,000 rows are 300 MB. Each round runs every reader
once, one after the other, and the ratios are those of the medians; `--threads` adds our reader on several threads.

sparsefm      load_libsvm, float32, by the clock around the call
scikit-learn  load_svmlight_file, float32, by the clock around the call
xLearn        reads when it trains, and only its own log says for how long: "Time cost for reading problem". The
              same rows, then, are trained on for one epoch of a linear model on one thread. It keeps a binary
              copy beside the text and would read that the next time, so the copy is deleted first. xLearn hashes
              and copies within the same phase; reading cannot be had alone.

The file is read once before the first round, so that all find it in memory; dumping it is timed too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from scipy import sparse
from sklearn.datasets import load_svmlight_file

from sparsefm.datasets import dump_libsvm, load_libsvm

N_FEATURES, N_FIELDS, N_DECIMALS = 1_000_000, 39, 13

XLEARN = """
import sys, xlearn
model = xlearn.create_linear()
model.setTrain(sys.argv[1])
model.disableEarlyStop()
model.fit({"task": "binary", "epoch": 1, "nthread": 1}, sys.argv[2])
"""


def make(n_rows: int) -> tuple[sparse.csr_array, np.ndarray]:
    rng = np.random.default_rng(0)
    width = N_FEATURES // N_FIELDS
    indices = np.arange(N_FIELDS) * width + rng.integers(width, size=(n_rows, N_FIELDS))
    data = np.ones((n_rows, N_FIELDS), np.float32)
    scale = 10.0 ** rng.integers(1, 7, size=(n_rows, N_DECIMALS))
    data[:, rng.permutation(N_FIELDS)[:N_DECIMALS]] = np.round(rng.random((n_rows, N_DECIMALS)) * scale) / scale
    indptr = np.arange(n_rows + 1, dtype=np.int32) * N_FIELDS
    X = sparse.csr_array((data.ravel(), indices.astype(np.int32).ravel(), indptr), shape=(n_rows, N_FEATURES))
    return X, rng.integers(2, size=n_rows)


def clocked(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def make_and_check(path: Path, n_rows: int) -> None:
    X, y = make(n_rows)
    start = time.perf_counter()
    dump_libsvm(X, y, path)
    print(f"{n_rows:,} rows, {X.nnz:,} entries, {path.stat().st_size / 1e6:.0f} MB", end="; ")
    print(f"dumped in {time.perf_counter() - start:.2f} s")
    X_read, y_read = load_libsvm(path, n_features=N_FEATURES)
    assert np.array_equal(X_read.indices, X.indices)
    assert np.array_equal(X_read.data, X.data)
    assert np.array_equal(y_read, y)


def read_by_xlearn(python: str, path: Path) -> float:
    for copy in path.parent.glob(f"{path.name}*.bin"):
        copy.unlink()
    command = [python, "-c", XLEARN, str(path), str(path.with_suffix(".model"))]
    environment = {"USER": "benchmark", **os.environ}  # it exits without
    run = subprocess.run(command, capture_output=True, text=True, cwd=path.parent, env=environment)
    found = re.search(r"Time cost for reading problem: ([0-9.]+) \(sec\)", run.stdout + run.stderr)
    if found is None:
        raise SystemExit(f"xLearn did not say how long it read:\n{run.stdout}{run.stderr}")
    return float(found.group(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=700_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[], help="besides one")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has xlearn")
    parser.add_argument("--folder", type=Path, help="where the file is made; a temporary folder if not given")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "made.txt"
        make_and_check(path, options.rows)
        size = path.stat().st_size / 1e6
        readers = {
            "sparsefm": lambda: clocked(lambda: load_libsvm(path, n_threads=1)),
            "scikit-learn": lambda: clocked(lambda: load_svmlight_file(str(path), dtype=np.float32)),
        }
        for n in options.threads:
            readers[f"sparsefm, {n} threads"] = lambda n=n: clocked(lambda: load_libsvm(path, n_threads=n))
        if subprocess.run([options.peers_python, "-c", "import xlearn"], capture_output=True).returncode == 0:
            readers["xLearn"] = lambda: read_by_xlearn(options.peers_python, path)
        else:
            print(f"xLearn is left out: {options.peers_python} has none")

        seconds = {name: [] for name in readers}
        for _ in range(options.rounds):
            for name, read in readers.items():
                seconds[name].append(read())
        ours = median(seconds["sparsefm"])
        for name, times in seconds.items():
            print(
                f"{name:22s} {median(times):7.2f} s  ({min(times):.2f} to {max(times):.2f}) "
                f"{size / median(times):7.0f} MB/s   {median(times) / ours:6.1f} times as long as sparsefm"
            )


if __name__ == "__main__":
    main()
