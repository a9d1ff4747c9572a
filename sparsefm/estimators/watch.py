"""What is watched while a model trains: metrics of the rows set aside, and the lines that tell of progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from .units import Units

__all__ = ["Progress", "check_metric", "judge_of"]

# Names and functions of (y, prediction), and whether more is better.
_REGRESSION: dict[str, tuple[Any, bool]] = {"rmse": (metrics.rmse, False), "mae": (metrics.mae, False)}
_CLASSIFICATION: dict[str, tuple[Any, bool]] = {"auc": (metrics.auc, True), "log_loss": (metrics.log_loss, False)}


def check_metric(metric: Any, classifies: bool) -> None:
    if metric == "loss" or callable(metric):
        return
    names = _CLASSIFICATION if classifies else _REGRESSION
    if not isinstance(metric, str) or metric not in names:
        raise ValueError(
            f"eval_metric must be 'loss', {', '.join(map(repr, names))} or a function of (y, prediction), "
            f"got {metric!r}"
        )


def judge_of(
    metric: Any,
    target: NDArray[Any],
    weight: NDArray[Any] | None,
    predicted: Callable[[NDArray[Any]], NDArray[np.float64]],
    units: Units,
) -> Callable[[NDArray[Any]], tuple[float, bool]] | None:
    """A function of the watched scores: (value, whether more is better). None for "loss"."""
    if isinstance(metric, str) and metric == "loss":
        return None
    known = {**_REGRESSION, **_CLASSIFICATION}
    if callable(metric):
        better = next((better for function, better in known.values() if function is metric), True)
        function = metric
    else:
        function, better = known[metric]
    weighted = {} if weight is None else {"sample_weight": weight}
    y = units.centre + units.scale * target

    def judge(scores: NDArray[Any]) -> tuple[float, bool]:
        prediction = predicted(units.centre + units.scale * scores.astype(np.float64))
        try:
            value = function(y, prediction, **weighted)
        except ValueError as error:
            raise ValueError(f"eval_metric={metric!r} of the rows to watch: {error}") from error
        if not isinstance(value, (int, float, np.integer, np.floating)) or not np.isfinite(value):
            raise ValueError(f"eval_metric must return a finite number, got {value!r}")
        return float(value), better

    return judge


class Progress:
    """Lines on stderr: nothing unless verbose, a line an epoch, and within long ones a bar where it is a terminal."""

    def __init__(self, name: str, label: dict[str, Any], max_iter: int, verbose: int) -> None:
        self.name = name + (f" class {label['class']}" if label else "")
        self.max_iter, self.verbose = max_iter, verbose
        self.began = perf_counter()

    def epoch(self, record: dict[str, Any]) -> None:
        if not self.verbose:
            return
        shown = ("loss", "eval_loss", "eval_metric")
        parts = [f"{key} {record[key]:.4f}" for key in shown if key in record]
        left = (perf_counter() - self.began) / record["epoch"] * (self.max_iter - record["epoch"])
        self._print(f"{self._bar(record['epoch'], 0)}  {'  '.join(parts)}  {record['seconds']:.2f} s{_eta(left)}", "\n")

    def within(self, epoch: int, share: float) -> None:
        """Called now and then within an epoch, `share` of whose rows are done."""
        if sys.stderr.isatty():
            done = epoch - 1 + share
            left = (perf_counter() - self.began) / done * (self.max_iter - done)
            self._print(f"{self._bar(epoch, share)}{_eta(left)}", "\r")

    def _bar(self, epoch: int, share: float) -> str:
        filled = round(20 * (epoch - (share > 0) + share) / self.max_iter)
        return f"{self.name} epoch {epoch}/{self.max_iter} [{'#' * filled}{'.' * (20 - filled)}]"

    def _print(self, text: str, end: str) -> None:
        clear = "\033[K" if sys.stderr.isatty() else ""
        print(text + clear, end=end, file=sys.stderr, flush=True)


def _eta(seconds: float) -> str:
    return "" if seconds < 0.5 else f"  {seconds:.0f} s left at most"
