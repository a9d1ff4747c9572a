"""The tasks of leaderboard.py: data sets found by path or made up, divided, and encoded alike for every system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import workloads
from label_statistics import Adult, InstEval, with_bins
from label_statistics import encoders as recipes
from leaderboard_fits import LISTED, Pairs, Rows
from workloads import Workload

from sparsefm import FrameEncoder, MultiHot, OneHot, metrics, splits
from sparsefm.datasets import load_movielens, make_ratings

RATED = ("user_id", "item_id", "gender", "age", "occupation", "decade", "genres")  # as far as a data set has them
N_FACTORS = 16  # of everyone who has factors and takes rows; those who rank have ranking.py's 32
LIKED = 0.8  # of the highest rating: four of five stars, eight of ten
QUICK_ROWS, QUICK_USERS = 1_500, 150

Frame = pd.DataFrame
Cut = Callable[[Frame], tuple[Frame, Frame]]


@dataclass(frozen=True)
class Task:
    """Training and test rows of one question to one data set."""

    kind: str  # "ratings", "labels" or "ranking"
    data: str
    split: str  # in words
    cut: Cut  # how training rows are divided once more, to choose settings on
    train: Frame
    test: Frame
    columns: dict[str, Any]  # of FrameEncoder; empty for "ranking"
    target: str = ""
    numbers: tuple[str, ...] = ()  # columns that trees take as they are; all others are codes of levels
    floor: str = ""  # what is known of the best that can be reached


# ---- what is at hand


def find(folders: list[Path]) -> dict[str, Path]:
    """Data sets by name, each where it is found first."""
    patterns = {
        "MovieLens-100K": ("ml-100k*", "recbole-1.2.1-py3-none-any.whl"),
        "MovieLens latest small": ("ml-latest-small*",),
        "MovieTweetings-100K": ("movietweetings-100k*",),
        "InstEval": ("InstEval.csv", "insteval/InstEval.csv"),
        "Adult": ("adult.csv", "adult.parquet", "adult/adult.csv", "adult/adult.parquet"),
    }
    found: dict[str, Path] = {}
    for name, globs in patterns.items():
        paths = [path for folder in folders for glob in globs for path in sorted(folder.glob(glob))]
        if paths:
            found[name] = paths[0]
    return found


def tasks(found: dict[str, Path], quick: bool) -> Iterator[Task]:
    """Everything that fits the data sets found, and the made ones."""
    for name in ("MovieLens-100K", "MovieLens latest small", "MovieTweetings-100K"):
        if name in found:
            yield from of_ratings(name, load_movielens(found[name]), quick)
    made = make_ratings(random_state=0)
    yield from of_ratings("made ratings", made, quick, f"noise floor RMSE {made.noise_floor:.4f}")
    work = workloads.clicks("W3", 40_000, 6_000)
    frame, columns = clicks_frame(work)
    yield table_task(
        "labels", "made clicks", frame, columns, "y", None, quick, f"noise floor log loss {work.floor:.4f}"
    )
    if "Adult" in found:
        frame = with_bins(Adult, Adult.load(str(found["Adult"])))
        columns = recipes(Adult)["+ OneHot of the numbers"]
        yield table_task("labels", "Adult", frame, columns, "y", None, quick, numbers=Adult.numeric)
    if "InstEval" in found:
        frame = InstEval.load(found["InstEval"])
        columns = {name: OneHot(unknown="ignore") for name in InstEval.levels}
        yield table_task("ratings", "InstEval", frame, columns, "y", None, quick)


def of_ratings(name: str, ml: Any, quick: bool, floor: str = "") -> Iterator[Task]:
    """Ratings and whether they are high, by time; and the lists in which a user's last liked item should stand."""
    frame = ml.ratings.merge(ml.users, on="user_id", how="left").merge(ml.items, on="item_id", how="left")
    frame["liked"] = (frame["rating"] >= LIKED * frame["rating"].max()).astype(int)
    if "age" in frame:
        frame["age"] //= 10
    if "year" in frame:
        frame["decade"] = frame["year"] // 10
    columns = {
        each: MultiHot("|", unknown="ignore") if each == "genres" else OneHot(unknown="ignore")
        for each in RATED
        if each in frame
    }
    yield table_task("ratings", name, frame, columns, "rating", "timestamp", quick, floor)
    yield table_task("labels", name, frame, columns, "liked", "timestamp", quick)
    yield ranking_task(name, frame[frame["liked"] == 1], quick)


def clicks_frame(work: Workload) -> tuple[Frame, dict[str, Any]]:
    """The workload's rows as a frame of its fields, with their encoders."""
    n_fields = len(work.field_sizes)
    cells = np.concatenate([work.X_train.indices, work.X_test.indices]).reshape(-1, n_fields)
    names = [f"field {f}" for f in range(n_fields)]
    frame = pd.DataFrame(cells, columns=names).assign(y=np.concatenate([work.y_train, work.y_test]))
    return frame, {name: OneHot(unknown="ignore") for name in names}


def table_task(
    kind: str,
    name: str,
    frame: Frame,
    columns: dict[str, Any],
    target: str,
    time: str | None,
    quick: bool,
    floor: str = "",
    numbers: tuple[str, ...] = (),
) -> Task:
    """The last fifth by time is the test, or a random one where there are no times."""
    if quick:
        frame = splits.random(frame, test_size=min(QUICK_ROWS, len(frame) - 1), random_state=0)[1]
    if time is None:
        words, cut = "a random fifth", partial(splits.random, test_size=0.2, random_state=0)
    else:
        words, cut = "the last fifth by time", partial(splits.by_time, test_size=0.2, time=time)
    train, test = cut(frame)
    return Task(kind, name, words, cut, train, test, columns, target, numbers, floor)


def ranking_task(name: str, liked: Frame, quick: bool) -> Task:
    """Each user's last item is to be found among all that are new to the user."""
    if quick:
        liked = liked[liked["user_id"].isin(np.sort(liked["user_id"].unique())[:QUICK_USERS])]
    train, test = splits.leave_last_out(liked)
    return Task("ranking", name, "each user's last", splits.leave_last_out, train, test, {})


# ---- as the systems get it


def encoded(task: Task, train: Frame, test: Frame, name: str) -> Rows | Pairs:
    """Both parts as the systems get them; nothing is learned from `test`. `name` is the workload's, for file names."""
    if task.kind == "ranking":
        return pairs_of(train, test)
    encoder = FrameEncoder(task.columns)
    X, X_test = encoder.fit_transform(train, train[task.target]), encoder.transform(test)
    sizes = np.bincount(encoder.fields_)
    if (np.diff(encoder.fields_) < 0).any():
        raise ValueError("fields must be blocks of columns, one after the other")
    y, y_test = (part[task.target].to_numpy(np.float32) for part in (train, test))
    loss = "squared" if task.kind == "ratings" else "logistic"
    work = Workload(name, loss, N_FACTORS, tuple(sizes.tolist()), X, y, X_test, y_test, np.nan)
    inputs = [column for column in task.columns if column not in with_bins_names(task.numbers)]
    both = [codes_of(train[column], test[column], column in task.numbers) for column in inputs]
    codes, codes_test = (np.column_stack(side) for side in zip(*both, strict=True))
    return Rows(work, codes, codes_test, np.array([column not in task.numbers for column in inputs]))


def with_bins_names(numbers: tuple[str, ...]) -> set[str]:
    """The second copies that `with_bins` makes."""
    return {f"{name} binned" for name in numbers}


def codes_of(train: pd.Series, test: pd.Series, number: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as they are; else places in the sorted levels of `train`, NaN for what is missing or not among them."""
    if number:
        return train.to_numpy(np.float64), test.to_numpy(np.float64)
    levels = pd.Index(np.sort(train.dropna().unique()))
    found = (levels.get_indexer(part).astype(np.float64) for part in (train, test))
    codes, codes_test = (np.where(each < 0, np.nan, each) for each in found)
    return codes, codes_test


def pairs_of(train: Frame, test: Frame) -> Pairs:
    """Users and items numbered in the order of their ids in `train`; an item that is not there has number n_items."""
    users, items = (pd.Index(np.sort(train[name].unique())) for name in ("user_id", "item_id"))
    met = train[["user_id", "item_id"]].drop_duplicates()
    test = test[test["user_id"].isin(users)].drop_duplicates("user_id")
    asked, wanted = users.get_indexer(test["user_id"]), items.get_indexer(test["item_id"])
    return Pairs.of(
        users.get_indexer(met["user_id"]),
        items.get_indexer(met["item_id"]),
        (len(users), len(items)),
        asked,
        np.where(wanted < 0, len(items), wanted),
    )


# ---- as they are judged


MEASURES = {"ratings": ("RMSE", "MAE"), "labels": ("log loss", "AUC"), "ranking": ("NDCG@10", f"recall@{LISTED}")}
LOWER_IS_BETTER = {"ratings", "labels"}  # of the first measure, by which settings are chosen


def measured(rows: Rows | Pairs, given: np.ndarray) -> tuple[float, float]:
    """Both measures. Ratings are clipped to the range of the training part, probabilities to [1e-7, 1 - 1e-7]."""
    if isinstance(rows, Pairs):
        relevant = [[item] for item in rows.wanted.tolist()]
        return metrics.ndcg_at_k(given, relevant, 10), metrics.recall_at_k(given, relevant, LISTED)
    y, given = rows.work.y_test, np.asarray(given, np.float64)
    if rows.work.loss == "squared":
        given = np.clip(given, rows.work.y_train.min(), rows.work.y_train.max())
        return metrics.rmse(y, given), metrics.mae(y, given)
    given = np.clip(given, 1e-7, 1 - 1e-7)
    return metrics.log_loss(y, given), metrics.auc(y, given)
