"""The machine's ceilings: `ceiling.c`, compiled on the fly, on a workload's own indices in its own order.

`python benchmarks/ceiling.py` prints the machine's table: sequential reads, and random 64-byte lines
gathered and updated in tables of 1 MiB, 64 MiB and 1.2 GiB, with one and two threads.
"""

import ctypes
import functools
import itertools
import mmap
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

HUGE = 2 << 20
# visits ahead; 0 is no prefetch, which wins in cache
LOOKAHEADS = (0, 8, 16, 32, 64, 128)
# p: a pointer, l: a 64-bit number, i: a 32-bit one
SIGNATURES = {"gather": "ppllil", "gather_two": "pppllil", "update": "ppplllil", "stream": "pl"}
C_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int32}


@functools.cache
def library() -> ctypes.CDLL:
    source = Path(__file__).with_name("ceiling.c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "ceiling.so"
        subprocess.run(["gcc", "-O3", "-std=c11", "-fPIC", "-shared", "-o", built, source], check=True)
        lib = ctypes.CDLL(str(built))
    for name, signature in SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = ctypes.c_float
        function.argtypes = [C_TYPES[c] for c in signature]
    return lib


def table(n_bytes: int) -> np.ndarray:
    """Touched float32 memory on huge pages, its base on a huge-page boundary."""
    memory = mmap.mmap(-1, -(-n_bytes // HUGE) * HUGE + 2 * HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(memory, dtype=np.uint8)
    skip = -raw.ctypes.data % HUGE
    floats = raw[skip : skip + -(-n_bytes // 64) * 64 + 64].view(np.float32)
    floats[:] = 0  # a write: reading an untouched page reads the one zero page
    return floats


class Visits:
    """A stream of samples, each visiting features: the workload's CSR rows in the order of `rows`."""

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, rows: np.ndarray | None = None):
        counts = np.diff(indptr)
        if rows is not None:
            counts = counts[rows]
        self.indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.indices = np.ascontiguousarray(indices, dtype=np.int32)
        if rows is not None:
            starts = np.repeat(indptr[:-1][rows] - self.indptr[:-1], counts)
            self.indices = self.indices[starts + np.arange(len(starts))]
        self.per_row = int(counts[0]) if (counts == counts[0]).all() else 0  # 0: rows of different lengths

    def cut(self, threads: int) -> list[tuple[int, int]]:
        edges = np.linspace(0, len(self.indptr) - 1, threads + 1).astype(int).tolist()
        return list(itertools.pairwise(edges))


def row_bytes(n_factors: int, kind: str) -> int:
    """Bytes of one feature's row: [v | state | w | state] for adagrad, [v | w] for sgd, [v] for factors.

    Rank and row are rounded up to multiples of 8 floats.
    """
    padded = -(-n_factors // 8) * 8
    floats = {"adagrad": 2 * padded + 2, "sgd": padded + 1, "factors": padded}[kind]
    return -(-floats // 8) * 8 * 4


def seconds(
    visits: Visits, rows: np.ndarray, stride: int, *, write: bool, w: np.ndarray | None = None, threads=1
) -> float:
    """One pass over the visits, the best over the lookaheads.

    `write`: update the rows rather than gather them. `w`: the linear part where it is an array of its own.
    """
    lib, lines = library(), -(-stride // 64)
    constant = visits.per_row
    pieces = visits.cut(threads)

    def piece(edges: tuple[int, int], ahead: int) -> float:
        first, last = edges
        begin, end = int(visits.indptr[first]), int(visits.indptr[last])
        if not write:
            at = visits.indices.ctypes.data + 4 * begin
            if w is None:
                return lib.gather(rows.ctypes.data, at, end - begin, stride, lines, ahead)
            return lib.gather_two(rows.ctypes.data, w.ctypes.data, at, end - begin, stride, lines, ahead)
        if constant:
            at = visits.indices.ctypes.data + 4 * begin
            return lib.update(rows.ctypes.data, at, None, constant, last - first, stride, lines, ahead)
        indptr = visits.indptr.ctypes.data + 8 * first
        # row pointers count from the whole stream's start, so do the indices
        return lib.update(rows.ctypes.data, visits.indices.ctypes.data, indptr, 0, last - first, stride, lines, ahead)

    times = []
    with ThreadPoolExecutor(threads) as pool:
        # ctypes lets go of the interpreter's lock: the pieces run side by side
        side_by_side = pool.map if threads > 1 else map
        list(pool.map(time.sleep, [0.001] * threads))  # the threads start here
        for ahead in LOOKAHEADS:
            start = time.perf_counter()
            total = sum(side_by_side(piece, pieces, [ahead] * threads))
            times.append(time.perf_counter() - start)
            assert np.isfinite(total)
    return min(times)


class Ceilings:
    """The passes that bound one workload; `measure` runs each once."""

    def __init__(self, X: sparse.csr_array, n_factors: int, *, random_state: int = 0):
        n = X.shape[1]
        order = np.random.default_rng(random_state).permutation(X.shape[0])
        self.shuffled = Visits(X.indptr, X.indices, order)
        self.plain = Visits(X.indptr, X.indices)
        self.strides = {kind: row_bytes(n_factors, kind) for kind in ("adagrad", "sgd", "factors")}
        self.memory = table(n * self.strides["adagrad"])
        self.w = table(4 * n)

    def measure(self, threads: int = 1) -> dict[str, float]:
        def run(visits: Visits, kind: str, **how: Any) -> float:
            return seconds(visits, self.memory, self.strides[kind], threads=threads, **how)

        return {
            "update adagrad": run(self.shuffled, "adagrad", write=True),
            "update sgd": run(self.shuffled, "sgd", write=True),
            "gather interleaved": run(self.plain, "sgd", write=False),
            "gather separate": run(self.plain, "factors", write=False, w=self.w),
        }


def machine(threads: int = 1, rounds: int = 9) -> list[tuple[str, float, str]]:
    """What, how much, unit: best of `rounds`."""
    lib, rng, found = library(), np.random.default_rng(0), []
    big, best = table(256 << 20), np.inf
    lines = big.nbytes // 64 // threads
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(lambda p: lib.stream(big.ctypes.data + 64 * lines * p, lines), range(threads)))
            best = min(best, time.perf_counter() - start)
    found.append(("sequential read, 256 MiB", big.nbytes / best / 1e9, "GB/s"))
    for size, label in ((1 << 20, "1 MiB"), (64 << 20, "64 MiB"), (1200 << 20, "1.2 GiB")):
        memory, n = table(size), 4_000_000
        update, gather = [], []
        for _ in range(rounds):
            # a fresh window of indices each round: a repeated stream would sit in cache
            visits = Visits(np.arange(0, n + 1, 16), rng.integers(0, size // 64, n, dtype=np.int32))
            gather.append(seconds(visits, memory, 64, write=False, threads=threads))
            update.append(seconds(visits, memory, 64, write=True, threads=threads))
        found.append((f"random lines, {label}: gather", n / min(gather) / 1e6, "M/s"))
        found.append((f"random lines, {label}: update", n / min(update) / 1e6, "M/s"))
    return found


if __name__ == "__main__":
    print("| what | 1 thread | 2 threads |\n|---|---|---|")
    for (what, one, unit), (_, two, _) in zip(machine(1), machine(2), strict=True):
        print(f"| {what} | {one:.0f} {unit} | {two:.0f} {unit} |")
