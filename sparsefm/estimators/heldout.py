"""Lists for held-out interactions, judged after each epoch of a ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..model import FMParams
from ..recommend import top_k
from .sides import sides_of

__all__ = ["HeldOut", "metric_at"]

_METRICS: dict[str, Any] = {
    "hit_rate": metrics.hit_rate_at_k,
    "map": metrics.map_at_k,
    "mrr": metrics.mrr_at_k,
    "ndcg": metrics.ndcg_at_k,
    "precision": metrics.precision_at_k,
    "recall": metrics.recall_at_k,
}


def metric_at(text: Any) -> tuple[Any, int]:
    """The function and the number of places that a name such as "ndcg@10" means."""
    name, _, places = text.partition("@") if isinstance(text, str) else ("", "", "")
    if name not in _METRICS or not places.isdecimal() or int(places) < 1:
        raise ValueError(
            f"eval_metric must be one of {', '.join(sorted(_METRICS))} and a number of places, such as 'ndcg@10', "
            f"got {text!r}"
        )
    return _METRICS[name], int(places)


class HeldOut:
    """Contexts (n, n_features), all items, what each context met since, and what is not shown to it.

    `best` are the parameters of the best epoch, once there is a patience: epochs that may pass without a better one.
    """

    def __init__(
        self,
        metric: str,
        patience: int | None,
        sides: tuple[Any, Any],
        relevant: list[set[int]],
        seen: Any,
        cosine: bool,
        n_threads: int | None,
    ) -> None:
        self.metric, self.k = metric_at(metric)
        self.patience, self.sides, self.relevant, self.seen = patience, sides, relevant, seen
        self.cosine, self.n_threads = cosine, n_threads
        self.best: FMParams | None = None
        self._best: tuple[float, int] = (-np.inf, 0)

    def epoch(self, record: dict[str, Any], current: Callable[[], FMParams]) -> bool:
        """Adds to the record; says whether it is time to end."""
        params = current()
        contexts, items = sides_of(params, *self.sides, cosine=self.cosine, n_threads=self.n_threads)
        ids: NDArray[np.int64] = top_k(contexts, items, self.k, exclude=self.seen, n_threads=self.n_threads)[0]
        record["eval_metric"] = value = self.metric(ids, self.relevant, self.k)
        if self.patience is None:
            return False
        if value > self._best[0]:
            self._best, self.best = (value, record["epoch"]), params
        return int(record["epoch"]) - self._best[1] >= self.patience
