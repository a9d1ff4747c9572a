"""Threads for a pass whose members meet at the end of each phase (_kernels/team.h)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .._kernels import dispatch

__all__ = ["work"]


def work(open_pass: Callable[[int], Any], n_threads: int | None) -> Any:
    """The result of a pass, opened for as many members as threads can be had."""
    members = dispatch.n_threads_or_default(n_threads)
    while True:
        each = open_pass(members)
        started = _try(each, members)
        if started == members:
            return each.result()
        members = started


def _try(each: Any, members: int) -> int:
    """Runs a pass with that many threads, this one among them. Returns how many there were; if they were fewer, none
    has begun."""
    ready = threading.Event()
    wanted = [True]

    def member(number: int) -> None:
        ready.wait()
        if wanted[0]:
            each.work(number)

    threads: list[threading.Thread] = []
    started = members
    try:
        for number in range(1, members):
            thread = threading.Thread(target=member, args=(number,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system grants no more
                started = number
                break
            threads.append(thread)
        wanted[0] = started == members
    except BaseException:
        wanted[0] = False
        raise
    finally:
        ready.set()
    interrupted = None
    while wanted[0] and not each.begun:
        try:
            each.work(0)
        except KeyboardInterrupt as interruption:  # before it had begun: the others wait for this one
            interrupted = interruption
    _join(threads, interrupted)
    return started


def _join(threads: list[threading.Thread], interrupted: KeyboardInterrupt | None) -> None:
    """Waits for all of them, an interruption notwithstanding: they work on the table. Then lets it through."""
    while threads:
        try:
            threads[-1].join()
            threads.pop()
        except KeyboardInterrupt as interruption:
            interrupted = interruption
    if interrupted is not None:
        raise interrupted
