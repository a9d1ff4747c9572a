"""sparsefm.metrics: by hand as fractions, and against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from math import log, log2, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from sparsefm.metrics import (
    auc,
    calibration_error,
    coverage,
    hit_rate_at_k,
    log_loss,
    mae,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    novelty,
    popularity_lift,
    precision_at_k,
    recall_at_k,
    rmse,
)

Metric = Callable[..., float]
POINTWISE: list[Metric] = [rmse, mae, log_loss, auc, calibration_error]
RANKING: list[Metric] = [precision_at_k, recall_at_k, hit_rate_at_k, mrr_at_k, map_at_k, ndcg_at_k]


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


@pytest.mark.parametrize("metric", [log_loss, auc, calibration_error])
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


@pytest.mark.parametrize("metric", [log_loss, auc, calibration_error])
@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [-1, 1, 0], [1, 5]])
def test_other_labels_are_refused(metric: Metric, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="y_true must hold 0 and 1"):
        metric(labels, [0.5] * len(labels))


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="only one class"):
        auc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="only one class"):
        auc([1, 0], [0.1, 0.2], sample_weight=[1, 0])


@pytest.mark.parametrize("metric", [log_loss, calibration_error])
def test_what_is_no_probability_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"found values from -0\.1 to 1\.5"):
        metric([0, 1, 1], [-0.1, 0.5, 1.5])


@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_calibration_error_is_its_definition(n_bins: int, sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, p, w = sample
    p[:2] = 0, 1
    expected = 0.0
    for number in range(n_bins):
        low, high = number / n_bins, (number + 1) / n_bins
        rows = (p > low) & (p <= high) | (p == 0) & (number == 0)
        if w[rows].sum() > 0:
            gap = np.average(y[rows], weights=w[rows]) - np.average(p[rows], weights=w[rows])
            expected += w[rows].sum() / w.sum() * abs(gap)
    assert calibration_error(y, p, n_bins=n_bins, sample_weight=w) == pytest.approx(expected)


def test_calibration_error_of_what_holds_and_of_what_does_not() -> None:
    assert calibration_error([0, 0, 0, 1], [0.25] * 4) == 0
    assert calibration_error([0, 1], [1.0, 0.0]) == 1
    with pytest.raises(ValueError, match="n_bins must be a whole number of bins, at least 1, got 0"):
        calibration_error([0, 1], [0.5, 0.5], n_bins=0)


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


def test_recall_and_average_precision_divide_by_all_that_is_relevant() -> None:
    assert recall_at_k(LISTS, RELEVANT, 4) == pytest.approx((2 / 3 + 1 / 1 + 0 / 5) / 3)
    assert recall_at_k(LISTS, RELEVANT, 1) == pytest.approx((1 / 3 + 0 / 1 + 0 / 5) / 3)
    assert map_at_k(LISTS, RELEVANT, 4) == pytest.approx(((1 / 1 + 2 / 4) / 3 + (1 / 2) / 1 + 0 / 5) / 3)
    # of three relevant items one has room
    assert map_at_k(LISTS[:1], RELEVANT[:1], 1) == pytest.approx((1 / 1) / 3)


def test_first_hits() -> None:
    assert mrr_at_k(LISTS, RELEVANT, 4) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert mrr_at_k([[5, 6, 7]], [{7}], 2) == 0
    assert hit_rate_at_k(LISTS, RELEVANT, 4) == 2 / 3
    assert hit_rate_at_k(LISTS, RELEVANT, 1) == 1 / 3


def random_lists(rng: np.random.Generator, n_users: int = 40, n_items: int = 15) -> tuple[list[Any], list[set[int]]]:
    """Lists of all lengths up to that of the catalogue, and relevant items of which some are in no list."""
    lists = []
    for _ in range(n_users):
        own = rng.permutation(n_items)[: rng.integers(0, n_items + 1)].tolist()
        lists.append(own + [-1] * (n_items - len(own)))
    return lists, [set(rng.permutation(n_items + 5)[: rng.integers(1, 9)].tolist()) for _ in range(n_users)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 15])
def test_lists_are_judged_by_the_definitions(seed: int, k: int) -> None:
    lists, relevant = random_lists(np.random.default_rng(seed))
    expected: dict[Metric, list[float]] = {metric: [] for metric in RANKING}
    for shown, wanted in zip(lists, relevant, strict=True):
        found = [place for place in range(1, k + 1) if shown[place - 1] in wanted]
        expected[precision_at_k].append(len(found) / k)
        expected[recall_at_k].append(len(found) / len(wanted))
        expected[hit_rate_at_k].append(1 if found else 0)
        expected[mrr_at_k].append(1 / found[0] if found else 0)
        expected[map_at_k].append(sum(hit / place for hit, place in enumerate(found, 1)) / len(wanted))
        ideal = sum(1 / log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        expected[ndcg_at_k].append(sum(1 / log2(place + 1) for place in found) / ideal)
    for metric, values in expected.items():
        assert metric(lists, relevant, k) == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_same_as_trec_eval(k: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="trec_eval, of the package pytrec-eval-terrier")
    lists, relevant = random_lists(np.random.default_rng(0))
    some = [number for number, items in enumerate(lists) if items[0] != -1]  # it leaves out queries without a list
    lists, relevant = [lists[number] for number in some], [relevant[number] for number in some]
    wanted = {str(user): {str(item): 1 for item in items} for user, items in enumerate(relevant)}
    run = {
        str(user): {str(item): float(-place) for place, item in enumerate(items) if item != -1}
        for user, items in enumerate(lists)
    }
    measures = {*(f"{name}.{k}" for name in ("P", "recall", "ndcg_cut", "map_cut", "success")), "recip_rank"}
    theirs = pd.DataFrame(pytrec_eval.RelevanceEvaluator(wanted, measures).evaluate(run)).mean(axis=1)
    ours = {
        f"P_{k}": precision_at_k,
        f"recall_{k}": recall_at_k,
        f"ndcg_cut_{k}": ndcg_at_k,
        f"map_cut_{k}": map_at_k,
        f"success_{k}": hit_rate_at_k,
    }
    for name, metric in ours.items():
        assert metric(lists, relevant, k) == pytest.approx(theirs[name], abs=1e-9), name
    assert mrr_at_k(lists, relevant, 15) == pytest.approx(theirs["recip_rank"], abs=1e-9)


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


# ------------------------------------------------------------------------------------------- lists alone

POPULARITY = {1: 8, 2: 4, 5: 1}


def test_coverage_counts_each_item_once() -> None:
    assert coverage([[1, 2, 3], [3, 2, -1]], 10) == 3 / 10
    assert coverage([["a", None], [None, None]], 2) == 1 / 2


def test_novelty_by_hand() -> None:
    # in bits: of 8 users 8, 4 and 1 met the items 1, 2 and 5, and nobody item 9, which counts as one
    assert novelty([[1, 2], [5, 9], [1, -1], [-1, -1]], POPULARITY, 8) == pytest.approx(
        ((log2(1) + log2(2)) / 2 + (log2(8) + log2(8)) / 2 + log2(1)) / 3
    )
    assert novelty([[1, 2]], pd.Series(POPULARITY), 8) == novelty([[1, 2]], POPULARITY, 8)
    assert novelty([[1]], pd.Series([4.0, 8.0], index=["a", "b"]), 8) == log2(8)  # a label, not a position


def test_popularity_lift_by_hand() -> None:
    # the third has no list and the fourth met nothing
    lists, met = [[1, 2], [5, -1], [-1, -1], [1, 2]], [{2}, {1, 9}, {1}, set()]
    assert popularity_lift(lists, met, POPULARITY) == pytest.approx(((8 + 4) / 2 + 1) / (4 + (8 + 0) / 2) - 1)
    shares = pd.Series(POPULARITY) / 8
    assert popularity_lift(lists, met, shares) == pytest.approx(popularity_lift(lists, met, POPULARITY))
    assert popularity_lift([[1, 2]], [[2, 1]], POPULARITY) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage([[1, 2]], 0), "n_items must be a whole number of items, at least 1, got 0"),
        (lambda: coverage([[1, 2]], 1), "holds 2 items, more than the n_items=1"),
        (lambda: coverage([1, 2], 3), r"one row a user .*got shape \(2,\)"),
        (lambda: coverage([[1, 1]], 3), r"recommended\[0\] holds an item twice"),
        (lambda: novelty([[1]], {1: 3}, 2), "popularity says 3 users for an item, more than n_users=2"),
        (lambda: novelty([[1]], {1: -3}, 2), "popularity must not be negative, found -3"),
        (lambda: novelty([[1]], {1: np.nan}, 2), "popularity has 1 missing"),
        (lambda: novelty([[1]], {1: 1}, 0), "n_users must be a whole number of users"),
        (lambda: novelty([[-1]], {1: 1}, 2), "all lists are empty"),
        (lambda: popularity_lift([[1]], [], {1: 1}), "recommended has 1 rows, met has 0"),
        (lambda: popularity_lift([["a"]], ["a"], {"a": 1}), r"met\[0\] must be a collection"),
        (lambda: popularity_lift([[1]], [{2}], {1: 1}), "nothing to compare with"),
        (lambda: popularity_lift([[-1]], [{1}], {1: 1}), "nothing to compare with"),
    ],
)
def test_lists_that_say_nothing_are_refused(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
