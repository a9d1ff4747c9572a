"""Rankings by many items at once: every interaction of a batch against the same items drawn, by angles."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import dispatch, ranking
from ..model import aligned_zeros
from ..validation import check_positive
from .ranking import EPSILON, ByGradient, Side, Training

__all__ = ["CosineContrastive", "SampledSoftmax"]

_BATCH = 256  # interactions


class _Shared(ByGradient):
    """With p and q of length one, so that a score is the cosine of their angle, and no weights."""

    cosine = True
    n_negatives: int

    def _slopes(self, own: NDArray[Any], drawn: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Of cosines with the item met (n,) and with those drawn (n, m), −inf where they were met: the loss (n,) and
        its derivatives by either, the latter perhaps where they were."""
        raise NotImplementedError

    def _check(self) -> None:
        check_positive(self.n_negatives, f"{type(self).__name__}(n_negatives)", integer=True)

    def _pass(self, training: Training, order: NDArray[np.int32], key: int) -> float:
        problem = training.problem
        rng = np.random.default_rng(key)
        place = np.full(problem.items.n_rows, -1)
        total = 0.0
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            context, item = problem.context[batch], problem.item[batch]
            drawn = np.unique(rng.integers(problem.items.n_rows, size=self.n_negatives, dtype=np.int32))
            sides = ((training.contexts, context), (training.items, item), (training.items, drawn))
            (p, of_p), (q, of_q), (n, of_n) = (_unit(_sums(training, *side)) for side in sides)
            against = p @ n.T
            place[drawn] = np.arange(len(drawn))
            row, met = _met(training, context)
            hit = place[met] >= 0
            against[row[hit], place[met[hit]]] = -np.inf
            place[drawn] = -1
            loss, slope, slopes = self._slopes(np.einsum("ij,ij->i", p, q), against)
            weight = np.ones(len(batch), training.table.dtype)
            if problem.weight is not None:
                weight = problem.weight[batch]
                slope *= weight
                slopes *= weight[:, None]
            gradients = (slope[:, None] * q + slopes @ n, slope[:, None] * p, slopes.T @ p)
            units, lengths = (p, q, n), (of_p, of_q, of_n)
            strengths = (weight, weight, np.ones(len(drawn), training.table.dtype))
            for side, unit, length, g, strength in zip(sides, units, lengths, gradients, strengths, strict=True):
                along = (g - np.einsum("ij,ij->i", g, unit)[:, None] * unit) / np.where(length > 0, length, np.inf)
                _rows(training, *side, _aligned(along), strength, self.learning_rate)
            total += float(loss @ weight.astype(np.float64))
        return total


def _sums(training: Training, side: Side, chosen: NDArray[np.int32]) -> NDArray[Any]:
    sums = aligned_zeros((len(chosen), training.table.kp), training.table.dtype)
    _rows(training, side, chosen, sums, None, 1.0)
    return sums


def _rows(training: Training, side: Side, chosen: Any, sums: Any, strength: Any, rate: float) -> None:
    """The sums of these rows; with strengths of L2 a step for each of them, sums being their gradients."""
    ranking.rows(training.table.array, *side, chosen, sums, strength, rate, EPSILON, dispatch.ISA)


def _unit(sums: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.where(lengths > 0, lengths, 1), lengths


def _aligned(values: NDArray[Any]) -> NDArray[Any]:
    found = aligned_zeros(values.shape, values.dtype)
    found[...] = values
    return found


def _met(training: Training, context: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """What each of these contexts has met: numbers of their places, and items."""
    start, stop = training.starts[context], training.starts[context + 1]
    row = np.repeat(np.arange(len(context)), stop - start)
    behind = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - (stop - start), stop - start)
    return row, training.problem.item[start[row] + behind]


class SampledSoftmax(_Shared):
    """Softmax over the item met and items drawn, of cosines over a temperature (Wu et al. 2024).

    Parameters
    ----------
    max_iter : int
        Passes over the interactions.
    learning_rate : float
        Of AdaGrad.
    n_negatives : int
        Items drawn for each batch of 256 interactions.
    temperature : float
        The lower, the more the nearest of the items drawn count.

    Notes
    -----
    Scores are cosines: they know no popularity but that of angles. The same bits at any n_threads; products are
    numpy's, which has threads of its own.
    """

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float = 0.1, n_negatives: int = 256, temperature: float = 0.2
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.n_negatives = n_negatives
        self.temperature = temperature

    def _check(self) -> None:
        super()._check()
        check_positive(self.temperature, "SampledSoftmax(temperature)")

    def _slopes(self, own: NDArray[Any], drawn: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        highest = np.maximum(own, drawn.max(axis=1))
        own = (own - highest) / self.temperature
        drawn -= highest[:, None]
        drawn *= 1 / self.temperature
        chance = np.exp(drawn, out=drawn)
        whole = np.exp(own) + chance.sum(axis=1)
        chance *= (1 / (whole * self.temperature))[:, None]
        return np.log(whole) - own, -chance.sum(axis=1), chance


class CosineContrastive(_Shared):
    """Cosines with items met go to one, those with items drawn below a margin (Mao et al. 2021, "SimpleX").

    An interaction's loss is 1 − cos(p, q_i) + negative_weight · mean of max(0, cos(p, q_j) − margin) over items drawn.

    Parameters
    ----------
    max_iter : int
        Passes over the interactions.
    learning_rate : float
        Of AdaGrad.
    n_negatives : int
        Items drawn for each batch of 256 interactions.
    margin : float
        From −1 to 1; a higher one leaves more of the items drawn alone.
    negative_weight : float
        What all items drawn count together.

    Notes
    -----
    As for SampledSoftmax scores are cosines.
    """

    def __init__(
        self,
        *,
        max_iter: int = 30,
        learning_rate: float = 0.1,
        n_negatives: int = 256,
        margin: float = 0.3,
        negative_weight: float = 10.0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.n_negatives = n_negatives
        self.margin = margin
        self.negative_weight = negative_weight

    def _check(self) -> None:
        super()._check()
        check_positive(self.negative_weight, "CosineContrastive(negative_weight)")
        if isinstance(self.margin, bool) or not isinstance(self.margin, Real) or not -1 <= self.margin <= 1:
            raise ValueError(f"CosineContrastive(margin) must be a number from -1 to 1, got {self.margin!r}")

    def _slopes(self, own: NDArray[Any], drawn: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        each = self.negative_weight / drawn.shape[1]
        above = np.maximum(drawn - self.margin, 0)
        return 1 - own + each * above.sum(axis=1), np.full_like(own, -1), np.where(above > 0, each, 0).astype(own.dtype)
