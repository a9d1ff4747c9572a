"""Which path a kernel takes and how its work is shared among threads.

Work is cut into a number of pieces that follows from its size alone; threads only claim pieces. A pool lives
for one call: a pool kept between calls would be dead, and waited for, in a forked child.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

from . import isa

ISA_NAMES = ("plain", "base", "avx2", "avx512")

# About a fifth of a millisecond of multiply-adds: below that, starting a thread costs more than it saves.
_WORK_PER_PIECE = 1 << 21
_MAX_PIECES = 64


def choose_isa(wanted: str | None) -> int:
    """Number of the path to take: the widest supported, or the one that SPARSEFM_ISA names."""
    supported = isa.supported()
    if not wanted:
        return ISA_NAMES.index(supported[-1])
    if wanted not in supported:
        raise ValueError(
            f"SPARSEFM_ISA is {wanted!r}, but this machine and build offer {', '.join(supported)}; unset it"
        )
    return ISA_NAMES.index(wanted)


ISA = choose_isa(os.environ.get("SPARSEFM_ISA"))


def address(array: Any) -> int:
    """Where a contiguous NumPy array lies, for the kernels that take addresses; 0 of None."""
    return 0 if array is None else int(array.ctypes.data)


def n_threads_or_default(n_threads: int | None) -> int:
    """The number of threads asked for; None means every core this process may use."""
    if type(n_threads) is int and n_threads > 0:  # as a rule, and a small batch notices the rest
        return n_threads
    if n_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(n_threads, bool) or not isinstance(n_threads, Integral) or n_threads < 1:
        raise ValueError(f"n_threads must be a positive integer or None (every core), got {n_threads!r}")
    return int(n_threads)


def run_pieces(run: Callable[[int, int], None], n: int, work: int, n_threads: int | None) -> None:
    """Calls run(start, stop) for consecutive pieces of range(n).

    `work` is the total number of multiply-adds, `run` must give the same result however range(n) is cut.
    """
    n_threads = n_threads_or_default(n_threads)
    n_pieces = max(1, min(_MAX_PIECES, n, work // _WORK_PER_PIECE))
    if n_pieces == 1:
        return run(0, n)
    bounds = [n * i // n_pieces for i in range(n_pieces + 1)]
    pieces = iter(list(itertools.pairwise(bounds)))

    def claim() -> None:
        for start, stop in pieces:  # the next that nobody has claimed
            run(start, stop)

    n_threads = min(n_threads, n_pieces)
    if n_threads == 1:
        return claim()
    with ThreadPoolExecutor(n_threads - 1) as pool:
        others = [pool.submit(claim) for _ in range(n_threads - 1)]
        claim()
        for future in others:
            future.result()
