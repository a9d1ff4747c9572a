"""Rankings judged over all items with ties at their worst, and the baselines they should beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sparsefm import EASE, FMRanker, FMRegressor, FrameEncoder, OneHot, Popularity, evaluation, metrics
from sparsefm.estimators import baselines
from sparsefm.evaluation import evaluate_ranking

OF_HITS = {
    "precision": metrics.precision_at_k,
    "recall": metrics.recall_at_k,
    "ndcg": metrics.ndcg_at_k,
    "mrr": metrics.mrr_at_k,
    "map": metrics.map_at_k,
    "hit_rate": metrics.hit_rate_at_k,
}


class Scores:
    """A model that is a table of scores, by user and item; equal ones rank in the order of its columns."""

    def __init__(self, scores: pd.DataFrame, train: pd.DataFrame) -> None:
        self.scores = scores.astype(float)
        self.left = self.scores.copy()
        for user, item in train[["user_id", "item_id"]].itertuples(index=False):
            if user in scores.index and item in scores.columns:
                self.left.loc[user, item] = np.nan
        self.asked: list[tuple[int, int]] = []

    def recommend(self, users: Any, *, k: int) -> pd.DataFrame:
        self.asked.append((len(users), k))
        rows = [
            (user, item, score)
            for user in users
            for item, score in self.left.loc[user].dropna().sort_values(ascending=False, kind="stable")[:k].items()
        ]
        return pd.DataFrame(rows, columns=["user_id", "item_id", "score"])


def by_definition(model: Scores, test: pd.DataFrame, train: pd.DataFrame, k: int) -> dict[str, float]:
    """Every metric from the whole table: relevant items behind all others of the same score."""
    met = train.groupby("user_id")["item_id"].agg(set)
    lists, relevant, before = [], [], []
    for user, wanted in test.groupby("user_id")["item_id"].agg(set).items():
        wanted = wanted - met.get(user, set())
        if not wanted:
            continue
        left = model.left.loc[user].dropna()
        order = sorted(left.index, key=lambda item: (-left[item], item in wanted))
        lists.append((order + [None] * k)[:k])
        relevant.append(wanted)
        before.append(met.get(user, set()))
    expected = {name: metric(lists, relevant, k) for name, metric in OF_HITS.items()}
    popularity = train.drop_duplicates().groupby("item_id").size()
    known = [[item if item in popularity.index else None for item in row] for row in lists]
    expected["coverage"] = metrics.coverage(known, len(popularity))
    expected["novelty"] = metrics.novelty(lists, popularity, train["user_id"].nunique())
    expected["popularity_lift"] = metrics.popularity_lift(lists, before, popularity)
    return expected | {"n_users": len(lists)}


def tables(seed: int, n_levels: int) -> tuple[Scores, pd.DataFrame, pd.DataFrame]:
    """Scores of few levels, so that most are tied; users and items that train, test or the model do not know."""
    rng = np.random.default_rng(seed)
    users, items = [f"u{i}" for i in range(25)], [f"i{i}" for i in range(30)]
    scores = pd.DataFrame(rng.integers(0, n_levels, (len(users), len(items) - 3)), users, items[:-3])

    def pairs(n: int, users: list[str], items: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"user_id": rng.choice(users, n), "item_id": rng.choice(items, n)})

    train = pairs(150, users[2:], items[4:])
    return Scores(scores, train), pd.concat([pairs(90, users[:-2], items), train[:5]]), train


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_levels", [1, 3, 10**6])
@pytest.mark.parametrize("block", [4, 1 << 20])
def test_it_is_the_definition(seed: int, n_levels: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BLOCK", block)
    model, test, train = tables(seed, n_levels)
    places = [40, 1, 3, 27]
    found = evaluate_ranking(model, test.sample(frac=1, random_state=0), k=places, train=train)
    assert found.index.tolist() == sorted(places)
    assert found.index.name == "k"
    for k in places:
        expected = by_definition(model, test, train, k)
        assert found.columns.tolist() == list(expected)
        np.testing.assert_allclose(found.loc[k], list(expected.values()), rtol=1e-12, atol=1e-12, err_msg=f"k={k}")
    for k in (1, 3):  # a tie that is cut by the last place asked for
        pd.testing.assert_frame_equal(evaluate_ranking(model, test, k=k, train=train), found.loc[[k]])


def test_only_those_who_are_tied_are_asked_again() -> None:
    # of user 1 five items are tied behind the first place, of user 2 none, of user 3 all that there are
    scores = pd.DataFrame([[9, 1, 1, 1, 1, 1, 0, 0], [8, 7, 6, 5, 4, 3, 2, 1], [1] * 8], [1, 2, 3])
    model = Scores(scores, pd.DataFrame({"user_id": [], "item_id": []}))
    test = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 1, 0]})
    found = evaluate_ranking(model, test, k=2)
    assert model.asked == [(3, 3), (2, 12)]
    # the relevant items of users 1 and 3 stand behind the others of their ties
    assert found.loc[2, "hit_rate"] == 1 / 3
    assert found.columns.tolist() == [*OF_HITS, "n_users"]
    assert evaluate_ranking(model, test, k=6).loc[6, "mrr"] == pytest.approx((1 / 6 + 1 / 2 + 0) / 3)


def test_a_model_of_one_score_finds_nothing_before_the_end() -> None:
    rng = np.random.default_rng(0)
    test = pd.DataFrame({"user_id": rng.integers(0, 9, 60), "item_id": rng.integers(0, 12, 60)})
    model = Scores(pd.DataFrame(np.zeros((9, 20))), pd.DataFrame({"user_id": [], "item_id": []}))
    assert (evaluate_ranking(model, test, k=[1, 5, 8])[list(OF_HITS)] == 0).all(axis=None)


def test_what_was_met_is_not_relevant_only_where_train_is_given() -> None:
    train = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [10, 11, 10, 12]})
    test = pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [10, 12, 12, 10]})
    model = Popularity().fit(train)
    given = evaluate_ranking(model, test, k=1, train=train)
    assert given.loc[1, ["recall", "n_users"]].tolist() == [1, 1]
    alone = evaluate_ranking(model, test, k=1)
    assert alone.loc[1, ["recall", "n_users"]].tolist() == [(1 / 2 + 0) / 2, 2]
    assert evaluate_ranking(model, test.assign(item_id=99), k=3, train=train).loc[3, "hit_rate"] == 0


def interactions(n_users: int = 60, n_items: int = 40) -> pd.DataFrame:
    """Users and items of four kinds; most of what a user meets is of his own."""
    rng = np.random.default_rng(0)
    user, item = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    met = rng.random(user.shape) < np.where(user % 4 == item % 4, 0.5, 0.05)
    return pd.DataFrame({"user_id": user[met], "item_id": 100 + item[met]}).sample(frac=1, random_state=0)


def test_by_frames_it_is_the_same_as_by_ids() -> None:
    met = interactions()
    train = met[:-150]
    test = met[-150:][met[-150:]["user_id"].isin(train["user_id"])]  # by ids others get what is popular
    model = FMRanker(6, random_state=0).fit(train)
    frames = {
        "contexts": pd.DataFrame({"user_id": np.arange(80)}),
        "candidates": pd.DataFrame({"item_id": model.item_ids_}),
    }
    by_ids = evaluate_ranking(model, test, k=[2, 5], train=train)
    pd.testing.assert_frame_equal(evaluate_ranking(model, test, k=[2, 5], train=train, **frames), by_ids)
    assert by_ids.loc[5, "recall"] > 1.5 * evaluate_ranking(Popularity().fit(train), test, k=5).loc[5, "recall"]


@pytest.mark.parametrize("excluded", [False, True])
def test_lists_of_a_regressor_are_judged(excluded: bool) -> None:
    met = interactions().rename(columns={"user_id": "who", "item_id": "what"})
    train, test = met[:-150], met[-150:]
    encoder = FrameEncoder({"who": OneHot(), "what": OneHot()})
    model = FMRegressor(3, encoder=encoder, clip=False, random_state=0).fit(train, train["what"] % 7 + train["who"] % 3)
    contexts, candidates = (met[[column]].drop_duplicates() for column in ("who", "what"))
    all_pairs = contexts.merge(candidates, how="cross").assign(score=0.0)
    all_pairs["score"] = model.predict(all_pairs).astype(np.float64)
    table = all_pairs.pivot(index="who", columns="what", values="score")
    pairs = train if excluded else train[:0]
    names = {"who": "user_id", "what": "item_id"}
    model_of_all = Scores(table, pairs.rename(columns=names))
    found = evaluate_ranking(
        model, test, k=4, train=pairs if excluded else None, contexts=contexts, candidates=candidates, user="who",
        item="what",
    )  # fmt: skip
    expected = by_definition(model_of_all, test.rename(columns=names), train.rename(columns=names), 4)
    if excluded:
        np.testing.assert_allclose(found.loc[4], list(expected.values()), rtol=1e-12)
    else:
        assert found.loc[4, "n_users"] == test["who"].nunique()
        assert found.loc[4, "precision"] == pytest.approx(
            evaluate_ranking(model_of_all, test.rename(columns=names), k=4).loc[4, "precision"]
        )


def test_the_catalogue_is_that_of_the_candidates() -> None:
    train = interactions()
    model = FMRanker(4, random_state=0).fit(train)
    test = pd.DataFrame({"user_id": [0, 1], "item_id": [999, 999]})
    candidates = pd.DataFrame({"item_id": [*range(100, 140), 998, 999]})
    contexts = pd.DataFrame({"user_id": [1, 0]})
    found = evaluate_ranking(model, test, k=42, train=train, contexts=contexts, candidates=candidates)
    both = train[train["user_id"].isin([0, 1])]
    by_both = both.groupby("item_id").size().eq(2).sum()  # which are in no list
    assert found.loc[42, "coverage"] == pytest.approx((42 - by_both) / 42)


def test_without_lists_or_history_there_is_no_mean() -> None:
    train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1]})
    new = evaluate_ranking(Popularity().fit(train), pd.DataFrame({"user_id": [7], "item_id": [1]}), k=1, train=train)
    assert new.loc[1, "novelty"] == 0
    assert np.isnan(new.loc[1, "popularity_lift"])
    full = evaluate_ranking(Popularity().fit(train), pd.DataFrame({"user_id": [1], "item_id": [9]}), k=1, train=train)
    assert full.loc[1, ["coverage", "recall"]].tolist() == [0, 0]
    assert full.loc[1, ["novelty", "popularity_lift"]].isna().all()


def test_items_of_which_only_the_model_knows_are_new_to_all() -> None:
    train = pd.DataFrame({"user_id": [1, 2, 3, 4], "item_id": [5, 5, 5, 6]})
    model = Scores(pd.DataFrame([[1.0, 3.0, 2.0]], index=[1], columns=[6, 98, 99]), train)
    found = evaluate_ranking(model, pd.DataFrame({"user_id": [1], "item_id": [6]}), k=[2, 3], train=train)
    assert found["novelty"].tolist() == [2.0, 2.0]  # as if one of four had met them
    assert found["popularity_lift"].tolist() == pytest.approx([0 / 3 - 1, (1 / 3) / 3 - 1])
    assert found["coverage"].tolist() == [0, 1 / 2]
    assert found["mrr"].tolist() == [0, 1 / 3]


class Answers:
    def __init__(self, **columns: Any) -> None:
        self.lists = pd.DataFrame(columns)

    def recommend(self, users: Any, k: int) -> pd.DataFrame:
        return self.lists


def test_what_cannot_be_judged_is_refused() -> None:
    train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1]})
    test = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 2]})
    model = Popularity().fit(train)
    one_user, items = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"item_id": [1, 2]})
    ranker = FMRanker(2, random_state=0).fit(train)
    cases: list[tuple[Any, pd.DataFrame, dict[str, Any], str]] = [
        (model, test[:0], {}, "test has 0 rows"),
        (model, test.drop(columns="item_id"), {}, "test has no column 'item_id', only"),
        (model, test.assign(item_id=[1, None]), {}, "1 values of 'item_id' in test are missing"),
        (model, train, {"train": train}, "all pairs of test are in train"),
        (model, test, {"train": train[["user_id"]]}, "train has no column 'item_id'"),
        (model, test, {"train": train.astype(str)}, "in train, int64 in test: none would match"),
        (model, test.assign(item_id=["a", "b"]), {}, "in the model's lists, .* in test: none would match"),
        (model, test, {"k": 0}, "k must be a positive integer, got 0"),
        (model, test, {"k": [5, 2.5]}, "k must be a positive integer, got 2.5"),
        (model, test, {"k": []}, "k is an empty sequence"),
        (model, test, {"candidates": items}, "contexts and candidates go together"),
        (ranker, test, {"contexts": one_user, "candidates": items}, "1 users of test are not in contexts, such as .*2"),
        (ranker, test, {"contexts": train[["user_id"]], "candidates": items}, "user_id .*1.* more than once"),
        (model, test.rename(columns={"item_id": "film"}), {"item": "film"}, "must return a frame with .*'film'"),
        (Answers(user_id=[5], item_id=[1], score=[1.0]), test, {}, "a list to .*5.*, which was not asked for"),
        (Answers(user_id=[1, 1], item_id=[1, 1], score=[1.0, 0.5]), test, {}, "user_id .*1.* the item .*1.* twice"),
        (Answers(user_id=[1], item_id=[1], score=[np.nan]), test, {}, "1 scores of the model's lists are NaN"),
        (Answers(user_id=[1], item_id=[1]), test, {}, "must return a frame with .*'score', got"),
    ]
    for judged, frame, options, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluate_ranking(judged, frame, **options)
    with pytest.raises(TypeError, match="model must have a method recommend, dict has none"):
        evaluate_ranking({}, test)
    with pytest.raises(TypeError, match="train must be a DataFrame, got list"):
        evaluate_ranking(model, test, train=[1])  # type: ignore[arg-type]


# ---- the baselines


def matrix_of(met: pd.DataFrame, model: Any) -> np.ndarray:
    X = np.zeros((len(model.user_ids_), len(model.item_ids_)))
    users, items = (
        pd.Index(ids).get_indexer(met[c]) for ids, c in ((model.user_ids_, "user_id"), (model.item_ids_, "item_id"))
    )
    np.add.at(X, (users, items), met["weight"] if "weight" in met.columns else 1.0)
    return X


def assert_lists_are(model: Any, scores: np.ndarray, met: np.ndarray) -> None:
    """For each user the best of these scores (n_users, n_items), those met left out or not."""
    for exclude_seen in (True, False):
        lists = model.recommend(model.user_ids_, k=5, exclude_seen=exclude_seen)
        left = np.where(met & exclude_seen, -np.inf, scores)
        for row, (_, own) in enumerate(lists.groupby("user_id", sort=False)):
            best = np.sort(left[row])[::-1][:5]
            np.testing.assert_allclose(own["score"], best[best > -np.inf], rtol=1e-9, atol=1e-12)
            places = pd.Index(model.item_ids_).get_indexer(own["item_id"])
            np.testing.assert_allclose(left[row, places], own["score"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_popularity_counts_users(weighted: bool) -> None:
    met = interactions()
    if weighted:
        met["weight"] = np.random.default_rng(1).integers(1, 9, len(met)) / 4
    model = Popularity().fit(met)
    X = matrix_of(met, model)
    assert_lists_are(model, np.tile(X.sum(axis=0), (len(X), 1)), X > 0)
    twice = pd.concat([met, met[:30]])
    counted = Popularity().fit(twice).recommend([12345], k=50).set_index("item_id")["score"]
    expected = (twice if weighted else met).groupby("item_id")["weight" if weighted else "user_id"]
    pd.testing.assert_series_equal(
        counted.sort_index(), (expected.sum() if weighted else expected.size()).astype(float), check_names=False
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_is_a_ridge_regression_of_each_item_on_the_others(
    weighted: bool, l2: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_BLOCK", 7)
    met = interactions()
    if weighted:
        met["weight"] = np.random.default_rng(1).integers(1, 9, len(met)) / 4
    model = EASE(l2=l2).fit(met)
    X = matrix_of(met, model)
    B = np.zeros((X.shape[1], X.shape[1]))
    for item in range(X.shape[1]):
        others = np.arange(X.shape[1]) != item
        rest = X[:, others]
        B[others, item] = np.linalg.solve(rest.T @ rest + l2 * np.eye(rest.shape[1]), rest.T @ X[:, item])
    assert_lists_are(model, X @ B, X > 0)


@pytest.mark.parametrize("model", [Popularity(), EASE(l2=10)])
def test_who_is_not_known_gets_what_is_popular(model: Any) -> None:
    met = interactions()
    lists = clone(model).fit(met).recommend([3, 12345, -1], k=6)
    counts = met.groupby("item_id").size()
    for user in (12345, -1):
        own = lists[lists["user_id"] == user]
        assert own["score"].tolist() == counts.nlargest(6).tolist()
        assert counts[own["item_id"]].tolist() == own["score"].tolist()


@pytest.mark.parametrize("model", [Popularity(), EASE(l2=10)])
def test_a_matrix_is_its_interactions(model: Any) -> None:
    met = interactions().sort_values(["user_id", "item_id"]).assign(weight=2.0)
    matrix = sp.csr_array((met["weight"], (met["user_id"], met["item_id"] - 100)), shape=(61, 42))
    lists = clone(model).fit(matrix).recommend([3, 60], k=4)
    of_frame = clone(model).fit(met).recommend([3, 12345], k=4)  # row 60 has met nothing
    np.testing.assert_allclose(lists["score"], of_frame["score"])
    assert set(lists["item_id"][:4] + 100) == set(of_frame["item_id"][:4])
    assert clone(model).fit(matrix).recommend([0], k=99, exclude_seen=False)["item_id"].nunique() == 42


def test_baselines_choose_among_items_and_other_columns() -> None:
    met = interactions().rename(columns={"user_id": "who", "item_id": "what"})
    for model in (Popularity(user="who", item="what"), EASE(10, user="who", item="what")):
        lists = clone(model).fit(met).recommend([1, 2], k=9, items=[101, 102, 103], exclude_seen=False)
        assert lists.columns.tolist() == ["who", "what", "rank", "score"]
        assert sorted(lists["what"][:3]) == [101, 102, 103]
        own = pd.DataFrame({"who": [1, 1, 2], "what": [101, 102, 103]})
        pairs = clone(model).fit(met).recommend([1, 2], k=9, items=own, exclude_seen=False)
        assert pairs.groupby("who")["what"].agg(set).tolist() == [{101, 102}, {103}]
        together = lists.merge(pairs, on=["who", "what"])
        np.testing.assert_allclose(together["score_x"], together["score_y"])


def test_ease_learns_what_popularity_cannot() -> None:
    met = interactions(200, 100)
    held_out = met.groupby("user_id").sample(3, random_state=0)
    train = met.drop(held_out.index)
    found = {
        type(model).__name__: evaluate_ranking(model.fit(train), held_out, train=train).loc[10, "recall"]
        for model in (EASE(l2=50), Popularity())
    }
    assert found["EASE"] > 1.5 * found["Popularity"]


def test_what_baselines_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    met = interactions()
    monkeypatch.setattr(baselines, "_MOST_ITEMS", 39)
    wrong: list[tuple[Any, Any, str]] = [
        (EASE(), met, r"EASE keeps n_items² numbers: 40 items would take 0 GB\. At most 39"),
        (EASE(l2=0), met, "l2 must be a positive number, got 0"),
        (EASE(), met[:3].assign(weight=1e200), "weights up to 1e\\+200 are too large to square"),
        (Popularity(user="item_id"), met, "user and item must be the names of two columns"),
        (Popularity(), met[:0], "0 rows"),
        (Popularity(), met.drop(columns="item_id"), "no column 'item_id'"),
        (Popularity(), met.assign(user_id=np.nan), "are missing"),
        (Popularity(), met.assign(weight=-1.0), "not negative"),
    ]
    for model, X, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.fit(X)
        with pytest.raises(NotFittedError):
            model.recommend([1])
    with pytest.raises(TypeError, match="DataFrame of interactions or a sparse matrix, got list"):
        Popularity().fit([1])
    model = EASE(l2=1).fit(met[met["item_id"] < 120])
    before = model.recommend([1])
    with pytest.raises(ValueError, match="At most"):
        model.fit(met)
    pd.testing.assert_frame_equal(model.recommend([1]), before)
