"""recommend: the best items, exactly; and the estimators' recommend, from frames to frames."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, MultiHot, Numeric, OneHot, recommend
from sparsefm.model import score
from sparsefm.recommend import top_k


def brute_force(users: Any, items: Any, k: int, w0: float, exclude: Any) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, sorted by score and then by position."""
    ids = np.full((len(users[0]), k), -1)
    scores = np.full((len(users[0]), k), -np.inf)
    for u in range(len(users[0])):
        every = [
            (-float(w0 + users[0][u] + items[0][i] + users[1][u] @ items[1][i]), i)
            for i in range(len(items[0]))
            if exclude is None or exclude[u, i] == 0
        ]
        for place, (minus, i) in enumerate(sorted(every)[:k]):
            ids[u, place], scores[u, place] = i, -minus
    return ids, scores


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Small integers, so that many scores are equal and every sum is exact."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_users, n_items, d = draw(st.integers(0, 7)), draw(st.integers(0, 12)), draw(st.integers(0, 3))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    spread = draw(st.integers(1, 4))

    def side(n: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            rng.integers(-spread, spread, n).astype(dtype),
            rng.integers(-spread, spread, (n, d)).astype(dtype),
        )

    exclude = None
    if draw(st.booleans()):
        exclude = (rng.random((n_users, n_items)) < draw(st.sampled_from([0.1, 0.7, 1.0]))) * 2
    return {
        "users": side(n_users),
        "items": side(n_items),
        "k": draw(st.integers(1, 15)),
        "w0": float(rng.integers(-3, 3)),
        "exclude": exclude,
    }


@given(requests(), st.sampled_from([1, 7, 20, 1 << 22]))
@settings(max_examples=200, deadline=None)
def test_top_lists_are_those_of_brute_force(case: dict[str, Any], block: int) -> None:
    expected_ids, expected = brute_force(**case)
    exclude = None if case["exclude"] is None else sp.csr_array(case["exclude"])
    whole, recommend._BLOCK = recommend._BLOCK, block
    try:
        ids, scores = top_k(case["users"], case["items"], case["k"], w0=case["w0"], exclude=exclude)
    finally:
        recommend._BLOCK = whole
    assert ids.dtype == np.int64
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected)


def sides(n_users: int = 5, n_items: int = 9, d: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=n_users), rng.normal(size=(n_users, d))), (
        rng.normal(size=n_items),
        rng.normal(size=(n_items, d)),
    )


def test_short_lists_are_padded_and_nothing_is_nan() -> None:
    users, items = sides()
    exclude = np.zeros((5, 9))
    exclude[1] = 1  # nothing left
    exclude[2, 1:] = 1  # one left
    ids, scores = top_k(users, items, 12, exclude=sp.csr_array(exclude))
    assert ids.shape == scores.shape == (5, 12)
    assert (ids[0, :9] >= 0).all()
    assert (ids[:, 9:] == -1).all()
    assert (ids[1] == -1).all()
    assert ids[2].tolist() == [0] + [-1] * 11
    assert not np.isnan(scores).any()
    np.testing.assert_array_equal(ids == -1, scores == -np.inf)
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("form", ["coo", "csc", "csr", "lil", "dok", "dense", "list", "int8", "bool", "int64"])
def test_exclude_in_any_form(form: str) -> None:
    users, items = sides()
    pairs = np.random.default_rng(1).random((5, 9)) < 0.5
    expected = brute_force(users, items, 4, 0.0, pairs)[0]
    exclude: Any = sp.csr_array(pairs.astype(np.float64))
    if form == "dense":
        exclude = pairs
    elif form == "list":
        exclude = pairs.tolist()
    elif form in ("int8", "bool", "int64"):
        exclude = exclude.astype(form)
        if form == "int64":
            exclude.indices, exclude.indptr = exclude.indices.astype(np.int64), exclude.indptr.astype(np.int64)
    else:
        exclude = exclude.asformat(form)
    np.testing.assert_array_equal(top_k(users, items, 4, exclude=exclude)[0], expected)


def test_stored_zeros_exclude_nothing_and_repeated_pairs_exclude_once() -> None:
    users, items = sides(1, 3)
    exclude = sp.coo_array(([1.0, 1, 0], ([0, 0, 0], [1, 1, 2])), shape=(1, 3))
    assert sorted(top_k(users, items, 3, exclude=exclude)[0][0].tolist()) == [-1, 0, 2]


def test_exclude_of_another_shape_or_broken_is_refused() -> None:
    users, items = sides()
    for wrong in (sp.csr_array((9, 5)), np.zeros((5, 8)), sp.csr_array((4, 9))):
        with pytest.raises(ValueError, match=r"exclude must have shape \(n_users, n_items\) = \(5, 9\), got"):
            top_k(users, items, 2, exclude=wrong)
    broken = sp.csr_array(np.ones((5, 9)))
    broken.indices[:] = 10**6
    with pytest.raises(ValueError, match="exclude has column index 1000000"):
        top_k(users, items, 2, exclude=broken)
    broken = sp.csr_array(np.ones((5, 9)))
    broken.indptr[2] = 10**8
    with pytest.raises(ValueError, match="exclude"):
        top_k(users, items, 2, exclude=broken)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, None, "3"])
def test_impossible_lengths(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a positive integer"):
        top_k(*sides(), k)


def test_arguments_are_left_as_they_are() -> None:
    users, items = sides()
    exclude = sp.csr_array(np.eye(5, 9))
    before = [a.copy() for a in (*users, *items, exclude.data, exclude.indices, exclude.indptr)]
    top_k(users, items, 3, w0=1.0, exclude=exclude)
    after = (*users, *items, exclude.data, exclude.indices, exclude.indptr)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)


def test_matrix_form_of_the_estimator() -> None:
    rng = np.random.default_rng(0)
    u, i = rng.integers(0, 6, 200), rng.integers(0, 8, 200)
    X = np.zeros((200, 14), np.float32)
    X[np.arange(200), u] = X[np.arange(200), 6 + i] = 1
    model = FMRegressor(3, clip=False, random_state=0).fit(X, rng.normal(size=200))
    users, items = np.eye(6, 14, dtype=np.float32), np.eye(8, 14, 6, dtype=np.float32)
    ids, scores = model.recommend(users, items, k=9, exclude=sp.csr_array(np.eye(6, 8)))
    assert ids.shape == scores.shape == (6, 9)
    for row in range(6):
        kept = ids[row][ids[row] >= 0]
        assert set(kept) == set(range(8)) - {row}
        np.testing.assert_allclose(scores[row, :7], model.predict(users[[row]] + items[kept]), atol=1e-5)
    with pytest.raises(ValueError, match="non-zero on both sides"):
        model.recommend(users, users, k=2)
    with pytest.raises(ValueError, match="X_items has 3 columns"):
        model.recommend(users, np.eye(3), k=2)


# ---------------------------------------------------------------------------------------- frames


def frames(text: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ratings, users and items, ids int or str; six users, eight items."""
    rng = np.random.default_rng(5)
    name = (lambda kind, n: [f"{kind}{j}" for j in range(n)]) if text else (lambda kind, n: list(range(70, 70 + n)))
    users = pd.DataFrame({"user_id": name("u", 6), "age": rng.integers(18, 60, 6)})
    items = pd.DataFrame({"item_id": name("i", 8), "genres": rng.choice(["a", "b", "a|b", ""], 8)})
    pairs = rng.permutation(48)[:30]
    ratings = pd.DataFrame(
        {
            "user_id": users["user_id"].to_numpy()[pairs // 8],
            "item_id": items["item_id"].to_numpy()[pairs % 8],
            "rating": rng.integers(1, 6, 30).astype(float),
        }
    )
    return ratings, users, items


ENCODER = FrameEncoder({"user_id": OneHot(), "age": Numeric(), "item_id": OneHot(), "genres": MultiHot(sep="|")})


def fitted(text: bool, **options: Any) -> tuple[FMRegressor, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    ratings, users, items = frames(text)
    whole = ratings.merge(users, on="user_id").merge(items, on="item_id")
    model = FMRegressor(4, encoder=ENCODER, clip=False, random_state=0, init_std=0.3, **options)
    return model.fit(whole, whole["rating"]), ratings, users, items


@pytest.mark.parametrize("text", [False, True])
def test_recommended_scores_are_predictions_of_the_joined_frame(text: bool) -> None:
    model, _, users, items = fitted(text)
    got = model.recommend(users, items, k=8)
    assert got.columns.tolist() == ["user_id", "item_id", "rank", "score"]
    assert got["user_id"].tolist() == np.repeat(users["user_id"], 8).tolist()
    assert got["rank"].tolist() == list(range(1, 9)) * 6
    assert got["user_id"].dtype == users["user_id"].dtype
    assert got["item_id"].dtype == items["item_id"].dtype
    joined = got.merge(users, on="user_id", how="left").merge(items, on="item_id", how="left")
    np.testing.assert_allclose(got["score"], model.predict(joined), rtol=1e-5, atol=1e-6)
    assert (got.groupby("user_id")["score"].diff().dropna() <= 0).all()
    assert not got.duplicated(["user_id", "item_id"]).any()
    short = model.recommend(users, items, k=3)
    pd.testing.assert_frame_equal(short, got[got["rank"] <= 3].reset_index(drop=True))


@pytest.mark.parametrize("text", [False, True])
def test_excluded_pairs_are_not_shown_and_all_others_are(text: bool) -> None:
    model, ratings, users, items = fitted(text)
    got = model.recommend(users, items, k=100, exclude=ratings)
    shown = set(zip(got["user_id"], got["item_id"], strict=True))
    seen = set(zip(ratings["user_id"], ratings["item_id"], strict=True))
    assert not shown & seen
    assert len(shown) == len(got) == 48 - 30
    # pairs of users or items that are not asked for, given twice, or of nobody
    more = pd.concat([ratings, ratings.assign(user_id=ratings["user_id"].iloc[0])] * 2)
    few = model.recommend(users.tail(2), items.head(3), k=5, exclude=more)
    assert set(few["user_id"]) <= set(users["user_id"].tail(2))
    assert not set(zip(few["user_id"], few["item_id"], strict=True)) & seen


def test_excluding_everything_leaves_an_empty_frame() -> None:
    model, _, users, items = fitted(False)
    every = users[["user_id"]].merge(items[["item_id"]], how="cross")
    got = model.recommend(users, items, k=3, exclude=every)
    assert got.columns.tolist() == ["user_id", "item_id", "rank", "score"]
    assert len(got) == 0
    assert len(model.recommend(users.iloc[:0], items, k=3)) == 0
    assert len(model.recommend(users, items.iloc[:0], k=3)) == 0


def test_each_request_of_a_user_is_answered_and_filtered() -> None:
    """A user asks twice, in another context each time."""
    model, ratings, users, items = fitted(True)
    contexts = pd.concat([users, users.assign(age=90)], ignore_index=True)
    got = model.recommend(contexts, items, k=8, exclude=ratings)
    assert len(got) == 2 * (48 - 30)
    seen = set(zip(ratings["user_id"], ratings["item_id"], strict=True))
    assert not set(zip(got["user_id"], got["item_id"], strict=True)) & seen


@pytest.mark.parametrize("text", [False, True])
def test_unknown_users_and_items_are_answered(text: bool) -> None:
    model, _, users, items = fitted(text)
    stranger = users.head(2).assign(user_id=["new", "newer"] if text else [-5, 10**12])
    new = pd.concat([items, items.head(1).assign(item_id="new" if text else -1)], ignore_index=True)
    got = model.recommend(stranger, new, k=9)
    assert len(got) == 18
    joined = got.merge(stranger, on="user_id").merge(new, on="item_id")
    np.testing.assert_allclose(joined["score"], model.predict(joined), rtol=1e-5, atol=1e-6)


def test_a_column_on_neither_side_is_an_empty_field() -> None:
    model, _, users, items = fitted(False)
    got = model.recommend(users[["user_id"]], items, k=8)
    assert len(got) == 48
    by_hand = model.encoder_.transform(users[["user_id"]].iloc[[0] * 8], columns=["user_id"])
    by_hand = by_hand + model.encoder_.transform(items, columns=["item_id", "genres"])
    scores = pd.Series(score(model.params_, by_hand), index=items["item_id"])
    first = got[got["user_id"] == users["user_id"][0]]
    np.testing.assert_allclose(first["score"], scores[first["item_id"]], rtol=1e-5, atol=1e-6)


def test_ids_that_only_name_a_row_need_no_encoder_column() -> None:
    ratings, users, items = frames(True)
    whole = ratings.merge(users, on="user_id").merge(items, on="item_id")
    encoder = FrameEncoder({"age": Numeric(), "genres": MultiHot(sep="|")})
    model = FMRegressor(2, encoder=encoder, random_state=0).fit(whole, whole["rating"])
    got = model.recommend(users, items, k=8, exclude=ratings)
    assert len(got) == 48 - 30
    # equal items rank in the order they were given
    place = {item: at for at, item in enumerate(items["item_id"])}
    for (_, _), group in got.groupby(["user_id", "score"]):
        assert group["item_id"].map(place).is_monotonic_increasing


def test_frames_with_any_index_and_other_names() -> None:
    ratings, users, items = frames(True)
    whole = ratings.merge(users, on="user_id").merge(items, on="item_id")
    whole = whole.rename(columns={"user_id": "who", "item_id": "what"})
    encoder = FrameEncoder({"who": OneHot(), "what": OneHot()})
    model = FMRegressor(2, encoder=encoder, random_state=0).fit(whole, whole["rating"])
    who = users.rename(columns={"user_id": "who"}).set_index(pd.Index([5] * 6))
    what = items.rename(columns={"item_id": "what"})[::-1]
    got = model.recommend(who, what, user="who", item="what", k=8, exclude=whole.set_index(whole.index + 9))
    assert got.columns.tolist() == ["who", "what", "rank", "score"]
    assert len(got) == 48 - 30


@pytest.mark.parametrize(("user", "item"), [("request", "place"), ("place", "request"), ("u", "place")])
def test_columns_may_have_any_name(user: str, item: str) -> None:
    ratings, users, items = frames(False)
    names = {"user_id": user, "item_id": item}
    ratings, users, items = (f.rename(columns=names) for f in (ratings, users, items))
    encoder = FrameEncoder({user: OneHot(), item: OneHot()})
    model = FMRegressor(2, encoder=encoder, random_state=0).fit(ratings, ratings["rating"])
    got = model.recommend(users, items, user=user, item=item, k=8, exclude=ratings)
    assert len(got) == 48 - 30


def test_columns_on_both_sides_are_refused() -> None:
    model, ratings, users, items = fitted(False)
    with pytest.raises(ValueError, match=r"columns \['age'\] are in contexts and in candidates: drop"):
        model.recommend(users, items.assign(age=30), k=2)
    with pytest.raises(ValueError, match="item_id"):
        model.recommend(ratings.merge(users, on="user_id"), items, k=2)


def test_an_item_given_twice_is_refused() -> None:
    model, _, users, items = fitted(True)
    with pytest.raises(ValueError, match="candidates has item_id 'i3' more than once"):
        model.recommend(users, pd.concat([items, items.iloc[[3]]]), k=2)


def test_exclude_with_ids_of_another_type_is_refused() -> None:
    for text in (False, True):
        model, ratings, users, items = fitted(text)
        other = ratings["user_id"].astype(str) if not text else np.arange(len(ratings))
        with pytest.raises(ValueError, match=r"user_id is .* in the request but .* in exclude"):
            model.recommend(users, items, k=2, exclude=ratings.assign(user_id=other))
        with pytest.raises(ValueError, match=r"item_id is .* in the request but .* in exclude"):
            model.recommend(users, items, k=2, exclude=ratings.assign(item_id=other))


@pytest.mark.parametrize("text", [False, True])
def test_exclude_with_ids_of_a_kindred_type(text: bool) -> None:
    model, ratings, users, items = fitted(text)
    expected = model.recommend(users, items, k=8, exclude=ratings)
    ids = ["user_id", "item_id"]
    for dtype in [object, "category"] if text else [np.int32, np.float64, "Int64"]:
        got = model.recommend(users, items, k=8, exclude=ratings.astype(dict.fromkeys(ids, dtype)))
        pd.testing.assert_frame_equal(got, expected)


def test_an_empty_exclude_of_no_particular_type() -> None:
    model, _, users, items = fitted(False)
    got = model.recommend(users, items, k=2, exclude=pd.DataFrame(columns=["user_id", "item_id"]))
    assert len(got) == 12


def test_wrong_requests_say_what_is_wrong() -> None:
    model, _, users, items = fitted(False)
    for call, error, message in (
        (lambda: model.recommend(users.to_numpy(), items), TypeError, "contexts must be a DataFrame"),
        (lambda: model.recommend(users, [1, 2]), TypeError, "candidates must be a DataFrame"),
        (lambda: model.recommend(users[["age"]], items), ValueError, "contexts has no column 'user_id'"),
        (lambda: model.recommend(users, items, item="film"), ValueError, "candidates has no column 'film'"),
        (lambda: model.recommend(users, items, exclude=[(1, 2)]), ValueError, "exclude must be a DataFrame"),
        (lambda: model.recommend(users, items, exclude=users), ValueError, "columns 'user_id' and 'item_id'"),
        (lambda: model.recommend(users, items, k=0), ValueError, "k must be a positive integer"),
        (lambda: model.recommend(users, items, label=1), ValueError, "label= is for classifiers"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_of_several_classes_one_is_ranked_by() -> None:
    ratings, users, items = frames(True)
    mood = pd.Series(np.array(["bad", "fair", "good"])[(ratings["rating"] // 2).astype(int)])
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})
    model = FMClassifier(2, encoder=encoder, random_state=0).fit(ratings, mood)
    got = model.recommend(users, items, k=8, label="good")
    joined = got[["user_id", "item_id"]]
    np.testing.assert_allclose(got["score"], model.decision_function(joined)[:, 2], rtol=1e-5, atol=1e-6)
    for wrong in (None, "best", 3):
        with pytest.raises(ValueError, match=r"one of \['bad', 'fair', 'good'\]; got"):
            model.recommend(users, items, label=wrong)


@pytest.mark.parametrize("n_items", [5, 33, 37, 69, 130])
def test_items_that_are_the_same_rank_by_position(n_items: int) -> None:
    """A matrix product may round the last columns of a block otherwise than the rest."""
    rng = np.random.default_rng(0)
    users = rng.normal(size=9).astype(np.float32), rng.normal(size=(9, 13)).astype(np.float32)
    items = np.repeat(np.float32(0.3), n_items), np.tile(rng.normal(size=13).astype(np.float32), (n_items, 1))
    ids, _ = top_k(users, items, 5)
    assert (ids == np.arange(5)).all()


def test_a_list_depends_on_nothing_but_its_user() -> None:
    rng = np.random.default_rng(1)
    users = rng.normal(size=64).astype(np.float32), rng.normal(size=(64, 16)).astype(np.float32)
    items = rng.normal(size=501).astype(np.float32), rng.normal(size=(501, 16)).astype(np.float32)
    ids, scores = top_k(users, items, 7)
    for u in range(64):
        alone = top_k((users[0][u : u + 1], users[1][u : u + 1]), items, 7)
        assert (alone[0] == ids[u]).all()
        assert (alone[1] == scores[u]).all()


def test_a_large_bias_does_not_drown_the_order() -> None:
    rng = np.random.default_rng(2)
    users = np.zeros(3, np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    items = np.zeros(20, np.float32), rng.normal(size=(20, 4)).astype(np.float32)
    assert (top_k(users, items, 20, w0=1e9)[0] == top_k(users, items, 20)[0]).all()


@pytest.mark.parametrize("copies", [1, 255, 256, 512])
def test_a_pair_excluded_many_times_is_excluded(copies: int) -> None:
    ratings = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2]})
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})
    model = FMRegressor(2, encoder=encoder, random_state=0).fit(ratings, [1.0, 2.0, 3.0, 4.0])
    seen = pd.concat([ratings.iloc[[0]]] * copies)
    got = model.recommend(ratings[["user_id"]].iloc[[0]], ratings[["item_id"]].drop_duplicates(), exclude=seen)
    assert got["item_id"].tolist() == [2]
