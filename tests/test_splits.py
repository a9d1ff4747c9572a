"""sparsefm.splits: every split divides the frame, and does what its name says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from pandas.testing import assert_frame_equal

from sparsefm import splits

Split = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
EVERY: dict[str, Split] = {
    "by_time": splits.by_time,
    "leave_last_out": splits.leave_last_out,
    "random": partial(splits.random, random_state=3),
    "cold_users": partial(splits.cold_users, random_state=3),
    "cold_items": partial(splits.cold_items, random_state=3),
}


def frame(users: list[object], items: list[object], times: list[float]) -> pd.DataFrame:
    index = [f"row {i}" for i in range(len(users))]
    return pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times}, index=index)


@pytest.fixture
def df() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    users, items, times = (rng.integers(0, n, 200).tolist() for n in (20, 30, 50))
    return frame(users, items, times)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30),
    name=st.sampled_from(sorted(EVERY)),
    test_size=st.one_of(st.floats(0.05, 0.95), st.integers(1, 5)),
)
@settings(max_examples=150, deadline=None)
def test_splits_partition_the_frame(rows: list[tuple[int, int, int]], name: str, test_size: float) -> None:
    df = frame(*map(list, zip(*rows, strict=True)))  # type: ignore[arg-type]
    before = df.copy()
    options = {} if name == "leave_last_out" else {"test_size": test_size}
    try:
        train, test = EVERY[name](df, **options)
    except ValueError as error:
        assert "empty" in str(error) or "more than n" in str(error)  # too few rows to divide  # noqa: PT017
        return
    assert_frame_equal(df, before)
    assert len(train) > 0
    assert len(test) > 0
    # in the order of the original, with its index, each row once
    in_test = df.index.isin(test.index)
    assert_frame_equal(train, df[~in_test])
    assert_frame_equal(test, df[in_test])


@pytest.mark.parametrize("name", EVERY)
def test_splits_repeat_themselves(df: pd.DataFrame, name: str) -> None:
    for first, second in zip(EVERY[name](df), EVERY[name](df), strict=True):
        assert_frame_equal(first, second)


@pytest.mark.parametrize("name", EVERY)
def test_rows_of_one_index_label_are_still_rows(df: pd.DataFrame, name: str) -> None:
    df.index = pd.Index(["same"] * len(df))
    train, test = EVERY[name](df)
    assert len(train) + len(test) == len(df)


def test_by_time_tests_on_the_latest() -> None:
    df = frame([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [50, 10, 40, 20, 30])
    train, test = splits.by_time(df, test_size=0.4)
    assert train["timestamp"].tolist() == [10, 20, 30]
    assert test["timestamp"].tolist() == [50, 40]


def test_by_time_breaks_ties_by_row() -> None:
    df = frame([1, 1, 1, 1], [1, 2, 3, 4], [7, 7, 7, 7])
    assert splits.by_time(df, test_size=1)[1]["item_id"].tolist() == [4]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_by_time_reads_dates(zone: str | None) -> None:
    df = frame([1, 1, 1], [1, 2, 3], [0, 0, 0])
    df["timestamp"] = pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02"]).tz_localize(zone)
    assert splits.by_time(df, test_size=1)[1]["item_id"].tolist() == [1]


def test_sizes_are_shares_or_counts(df: pd.DataFrame) -> None:
    assert len(splits.random(df)[1]) == 40
    assert len(splits.random(df, test_size=0.035)[1]) == 7
    assert len(splits.random(df, test_size=np.int64(13))[1]) == 13
    assert splits.cold_users(df, test_size=0.25)[1]["user_id"].nunique() == 5
    assert splits.cold_items(df, test_size=4)[1]["item_id"].nunique() == 4


def test_leave_last_out_takes_each_users_last() -> None:
    df = frame(["a", "b", "a", "a", "c", "b"], [1, 2, 3, 4, 5, 6], [30, 10, 20, 30, 5, 20])
    # a's two rows of time 30: the lower one is the later; c has one row only and stays
    assert splits.leave_last_out(df)[1]["item_id"].tolist() == [4, 6]
    # with n=2 b's two rows stay as well
    assert splits.leave_last_out(df, n=2)[1]["item_id"].tolist() == [1, 4]


def test_cold_users_and_items_are_unknown_to_training(df: pd.DataFrame) -> None:
    train, test = splits.cold_users(df, random_state=0)
    assert not set(train["user_id"]) & set(test["user_id"])
    train, test = splits.cold_items(df.rename(columns={"item_id": "film"}), item="film", random_state=0)
    assert not set(train["film"]) & set(test["film"])


def test_unused_categories_are_nobody() -> None:
    df = frame(["a", "a", "b"], [1, 2, 3], [1, 2, 3])
    df["user_id"] = pd.Categorical(df["user_id"], categories=["z", "b", "a"])
    assert splits.leave_last_out(df)[1]["item_id"].tolist() == [2]
    assert splits.cold_users(df, test_size=1, random_state=0)[1]["user_id"].nunique() == 1


def test_another_seed_is_another_split(df: pd.DataFrame) -> None:
    assert splits.random(df, random_state=0)[1].index.tolist() != splits.random(df, random_state=1)[1].index.tolist()


@pytest.mark.parametrize(
    "test_size", [0, -1, 200, 201, 0.0, 1.0, 1.5, -0.2, 0.001, 0.999, float("nan"), True, "half", None]
)
@pytest.mark.parametrize("split", [splits.by_time, splits.random])
def test_impossible_sizes(df: pd.DataFrame, split: Split, test_size: object) -> None:
    with pytest.raises(ValueError, match="test_size"):
        split(df, test_size=test_size)


def test_one_user_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="1 distinct values of user_id"):
        splits.cold_users(frame([1, 1], [1, 2], [1, 2]))


@pytest.mark.parametrize("n", [0, -1, 1.0, True, None])
def test_impossible_n(df: pd.DataFrame, n: object) -> None:
    with pytest.raises(ValueError, match="n must be a whole number"):
        splits.leave_last_out(df, n=n)  # type: ignore[arg-type]


def test_nobody_with_enough_rows(df: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no user_id has more than n=500 rows"):
        splits.leave_last_out(df, n=500)


@pytest.mark.parametrize("name", EVERY)
def test_empty_frames_and_other_types(df: pd.DataFrame, name: str) -> None:
    with pytest.raises(ValueError, match=r"empty|nothing to test on"):
        EVERY[name](df.iloc[:0])
    with pytest.raises(TypeError, match="pandas DataFrame, got dict"):
        EVERY[name](df.to_dict("list"))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("by_time", "timestamp"),
        ("leave_last_out", "timestamp"),
        ("leave_last_out", "user_id"),
        ("cold_users", "user_id"),
        ("cold_items", "item_id"),
    ],
)
def test_missing_columns_and_values(df: pd.DataFrame, name: str, column: str) -> None:
    with pytest.raises(KeyError, match=f"no column '{column}'; the columns are"):
        EVERY[name](df.drop(columns=column))
    holes = df.astype({column: float})
    holes.iloc[[3, 5], holes.columns.get_loc(column)] = np.nan
    with pytest.raises(ValueError, match=f"2 of 200 values of '{column}' are missing"):
        EVERY[name](holes)


@pytest.mark.parametrize("dtype", ["str", object])
def test_text_is_no_time(df: pd.DataFrame, dtype: type | str) -> None:
    df["timestamp"] = df["timestamp"].astype(str).astype(dtype)
    with pytest.raises(TypeError, match="to_datetime"):
        splits.by_time(df)
