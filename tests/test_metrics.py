"""sparsefm.metrics: by hand as fractions, and against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from math import log, log2, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from sparsefm.metrics import auc, log_loss, mae, ndcg_at_k, precision_at_k, rmse

Metric = Callable[..., float]
POINTWISE: list[Metric] = [rmse, mae, log_loss, auc]
RANKING: list[Metric] = [precision_at_k, ndcg_at_k]


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    # many ties
    return rng.integers(0, 2, 300), rng.integers(1, 20, 300) / 20, rng.integers(0, 4, 300).astype(float)


def test_errors_by_hand() -> None:
    assert rmse([1, 2, 3, 4], [1, 2, 3, 8]) == sqrt(16 / 4)
    assert rmse([0, 0], [1, 2], sample_weight=[3, 1]) == pytest.approx(sqrt((3 * 1 + 1 * 4) / 4))
    assert mae([1, 2, 3, 4], [1, 2, 1, 8]) == (2 + 4) / 4
    assert mae([0, 0], [1, 2], sample_weight=[3, 1]) == pytest.approx((3 * 1 + 1 * 2) / 4)


def test_log_loss_by_hand() -> None:
    assert log_loss([1, 0], [1 / 4, 1 / 3]) == pytest.approx((log(4) + log(3 / 2)) / 2)
    assert log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-15)
    # certain and wrong: clipped to the float64 eps
    assert log_loss([1], [0.0]) == pytest.approx(-log(2.0**-52))


def test_auc_by_hand() -> None:
    assert auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert auc([1, 1, 0, 0], [1, 2, 3, 4]) == 0
    # pairs (positive, negative): 2 > 1, 2 < 3, 4 > 1, 4 > 3
    assert auc([0, 1, 0, 1], [1, 2, 3, 4]) == 3 / 4
    # 2 > 1, 2 = 2
    assert auc([0, 1, 0], [1, 2, 2]) == (1 + 1 / 2) / 2
    assert auc([0, 1], [5, 5]) == 1 / 2


def test_same_as_scikit_learn(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, p, w = sample
    for weight in (None, w):
        for ours, theirs in (
            (rmse, sklearn.metrics.root_mean_squared_error),
            (mae, sklearn.metrics.mean_absolute_error),
            (log_loss, sklearn.metrics.log_loss),
            (auc, sklearn.metrics.roc_auc_score),
        ):
            assert ours(y, p, sample_weight=weight) == pytest.approx(theirs(y, p, sample_weight=weight), rel=1e-12)


@pytest.mark.parametrize("metric", POINTWISE)
def test_a_weight_of_two_is_a_sample_given_twice(
    metric: Metric, sample: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    y, p, w = sample
    times = w.astype(int)
    repeated = metric(np.repeat(y, times), np.repeat(p, times))
    assert metric(y, p, sample_weight=w) == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize("metric", [log_loss, auc])
def test_labels_may_be_signs_or_booleans(metric: Metric, sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, p, _ = sample
    assert metric(2 * y - 1, p) == metric(y == 1, p) == metric(pd.Series(y), pd.Series(p)) == metric(y, p)


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize(
    ("y", "p", "weight", "message"),
    [
        ([], [], None, "empty"),
        ([0, 1], [0.5], None, "y_true has 2 samples, y_.* has 1"),
        ([0, 1], [0.5, 0.5], [1], "y_true has 2 samples, sample_weight has 1"),
        ([0, np.nan], [0.5, 0.5], None, "y_true has 1 missing or infinite"),
        ([0, 1], [0.5, np.inf], None, "has 1 missing or infinite"),
        ([0, None], [0.5, 0.5], None, "y_true"),
        ([0, 1], ["a", "b"], None, "must be numbers"),
        ([[0, 1]], [[0.5, 0.5]], None, "one-dimensional"),
        ([0, 1], [0.5, 0.5], [1, -1], "must not be negative"),
        ([0, 1], [0.5, 0.5], [0, 0], "zero everywhere"),
        ([0, 1], [0.5, 0.5], [1, np.nan], "sample_weight has 1 missing"),
    ],
)
def test_wrong_arrays(metric: Metric, y: Any, p: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(y, p, sample_weight=weight)


@pytest.mark.parametrize("metric", [log_loss, auc])
@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [-1, 1, 0], [1, 5]])
def test_other_labels_are_refused(metric: Metric, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="y_true must hold 0 and 1"):
        metric(labels, [0.5] * len(labels))


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="only one class"):
        auc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="only one class"):
        auc([1, 0], [0.1, 0.2], sample_weight=[1, 0])


def test_log_loss_of_no_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found values from -0\.1 to 1\.5"):
        log_loss([0, 1, 1], [-0.1, 0.5, 1.5])


# ------------------------------------------------------------------------------------------------- ranking

LISTS = [[1, 2, 3, 4], [5, 6, -1, -1], [7, 8, 9, 10]]
RELEVANT = [{1, 4, 99}, {6}, {20, 21, 22, 23, 24}]


def test_precision_divides_by_k() -> None:
    assert precision_at_k(LISTS, RELEVANT, 4) == pytest.approx((2 / 4 + 1 / 4 + 0 / 4) / 3)
    assert precision_at_k(LISTS, RELEVANT, 2) == pytest.approx((1 / 2 + 1 / 2 + 0 / 2) / 3)
    assert precision_at_k(LISTS, RELEVANT, 1) == pytest.approx((1 / 1 + 0 / 1 + 0 / 1) / 3)
    # a user with one relevant item reaches 1/4 at best, and a short list is not rewarded
    assert precision_at_k([[6, -1, -1, -1]], [{6}], 4) == 1 / 4


def test_ndcg_divides_by_all_that_is_relevant() -> None:
    first = (1 / log2(2) + 1 / log2(5)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4))
    second = (1 / log2(3)) / (1 / log2(2))
    assert ndcg_at_k(LISTS, RELEVANT, 4) == pytest.approx((first + second + 0) / 3)
    # at k = 2 the ideal list has two places
    first = (1 / log2(2)) / (1 / log2(2) + 1 / log2(3))
    assert ndcg_at_k(LISTS, RELEVANT, 2) == pytest.approx((first + second + 0) / 3)
    assert ndcg_at_k([[1, 2, 3]], [{1, 2, 3, 4}], 3) == pytest.approx(1)


def test_ndcg_same_as_scikit_learn_on_whole_rankings() -> None:
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(12.0), (30, 1)), axis=1)
    wanted = rng.random((30, 12)) < 0.3
    wanted[:, 0] |= ~wanted.any(axis=1)
    lists = np.argsort(-scores, axis=1)
    ours = ndcg_at_k(lists, [np.flatnonzero(row).tolist() for row in wanted], 5)
    assert ours == pytest.approx(sklearn.metrics.ndcg_score(wanted, scores, k=5))


@pytest.mark.parametrize("metric", RANKING)
def test_users_with_nothing_relevant_are_left_out(metric: Metric) -> None:
    assert metric([*LISTS, [1, 2, 3, 4]], [*RELEVANT, set()], 4) == metric(LISTS, RELEVANT, 4)
    with pytest.raises(ValueError, match="no user has a relevant item"):
        metric(LISTS, [set(), [], ()], 4)


@pytest.mark.parametrize("metric", RANKING)
def test_ids_may_be_text_padded_with_none(metric: Metric) -> None:
    text = [[None if i == -1 else f"film {i}" for i in row] for row in LISTS]
    relevant = [pd.Series([f"film {i}" for i in items]) for items in RELEVANT]
    assert metric(np.array(text, dtype=object), relevant, 4) == metric(np.array(LISTS), RELEVANT, 4)


@pytest.mark.parametrize("metric", RANKING)
def test_padding_is_never_a_hit(metric: Metric) -> None:
    assert metric([[-1, -1]], [{-1, 3}], 2) == 0


@pytest.mark.parametrize("metric", RANKING)
@pytest.mark.parametrize(
    ("recommended", "relevant", "k", "message"),
    [
        (LISTS, RELEVANT, 0, "k must be a whole number"),
        (LISTS, RELEVANT, 2.0, "k must be a whole number"),
        (LISTS, RELEVANT, 5, r"at least k=5 columns .*shape \(3, 4\)"),
        ([1, 2, 3], [{1}], 2, r"shape \(3,\)"),
        (LISTS, RELEVANT[:2], 4, "recommended has 3 rows, relevant has 2"),
        ([[1, 2, 1]], [{1}], 3, r"recommended\[0\] holds an item twice"),
        ([["a", "b"]], ["ab"], 2, r"relevant\[0\] must be a collection"),
    ],
)
def test_wrong_lists(metric: Metric, recommended: Any, relevant: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(recommended, relevant, k)


def test_padding_beside_text_ids_is_padding():
    assert precision_at_k([["a", "b", "c", -1, -1]], [{"a"}], k=5) == 1 / 5
    assert precision_at_k([["a", "b", "c", None, None]], [{"a"}], k=5) == 1 / 5
