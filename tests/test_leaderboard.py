"""benchmarks/leaderboard.py: how it divides, encodes, chooses, judges and reports. No system is fitted."""

from __future__ import annotations

import csv
import io
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks/ lies beside the tests in a checkout only", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import leaderboard  # noqa: E402
import leaderboard_data as data  # noqa: E402
import leaderboard_fits as fits  # noqa: E402
from leaderboard import SYSTEMS, Worker, choose, in_words, of_search  # noqa: E402
from leaderboard_report import Line, as_csv, as_markdown, colours, draw, limit_of, ratios, seconds  # noqa: E402

from sparsefm import OneHot  # noqa: E402
from sparsefm.datasets import make_ratings  # noqa: E402

OURS = Line("ratings", "D", "by time", 80, 20, "sparsefm default", True, "as it comes", (0.9, 0.7), 0.5, 0.0)
PEER = replace(OURS, system="xLearn", ours=False, settings="lr 0.1", quality=(0.8, 0.75), seconds=2.0, search=30.0)


@pytest.fixture(scope="module")
def made() -> Any:
    return make_ratings(40, 30, 1_200, random_state=0)


def task_of(made: Any, kind: str) -> data.Task:
    (task,) = (task for task in data.of_ratings("made", made, quick=False) if task.kind == kind)
    return task


# ---- what is at hand


def test_data_are_found_by_path_in_the_first_folder_that_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first / "ml-100k", second / "ml-100k", second / "insteval"):
        path.mkdir(parents=True)
    (second / "insteval" / "InstEval.csv").write_text("")
    found = data.find([first, second, tmp_path / "missing"])
    assert found == {"MovieLens-100K": first / "ml-100k", "InstEval": second / "insteval" / "InstEval.csv"}
    assert data.find([]) == {}


def test_tables_with_times_are_divided_by_them(made: Any) -> None:
    task = task_of(made, "ratings")
    assert (len(task.train), len(task.test)) == (960, 240)
    assert task.train["timestamp"].max() <= task.test["timestamp"].min()
    kept, watched = task.cut(task.train)
    assert len(kept) + len(watched) == 960
    assert kept["timestamp"].max() <= watched["timestamp"].min()


def test_tables_without_times_are_divided_at_random_and_always_alike() -> None:
    frame = pd.DataFrame({"a": np.arange(100), "y": 1.0})
    parts = [data.table_task("ratings", "D", frame, {"a": OneHot()}, "y", None, False) for _ in range(2)]
    assert len(parts[0].test) == 20
    assert parts[0].test["a"].tolist() == parts[1].test["a"].tolist() != list(range(80, 100))


def test_rankings_leave_the_last_liked_item_of_each_user_out(made: Any) -> None:
    task = task_of(made, "ranking")
    liked = made.ratings[made.ratings["rating"] >= 4]
    last = liked.groupby("user_id")["timestamp"].max()
    assert not task.test["user_id"].duplicated().any()
    assert (task.test["timestamp"].to_numpy() == last[task.test["user_id"]].to_numpy()).all()
    assert len(task.train) + len(task.test) == len(liked)


def test_liked_is_four_of_five_stars_and_eight_of_ten(made: Any) -> None:
    task = task_of(made, "labels")
    assert (task.train["liked"] == (task.train["rating"] >= 4)).all()
    made.ratings["rating"] *= 2
    try:
        doubled = task_of(made, "labels")
    finally:
        made.ratings["rating"] /= 2
    assert doubled.train["liked"].tolist() == task.train["liked"].tolist()


def test_clicks_are_a_frame_that_encodes_back_to_the_same_rows() -> None:
    work = data.workloads.clicks("W3", 300, 2_000)
    frame, columns = data.clicks_frame(work)
    assert frame.shape == (300, 40)
    task = data.table_task("labels", "clicks", frame, columns, "y", None, False)
    rows = data.encoded(task, task.train, task.test, "clicks")
    assert isinstance(rows, data.Rows)
    assert rows.work.X_train.sum() == 240 * 39
    assert len(rows.work.field_sizes) == 39
    assert rows.work.X_test.sum() < 60 * 39  # levels that training has not seen are left out


# ---- as the systems get it


def test_codes_are_places_in_the_sorted_levels_of_training_and_else_missing() -> None:
    train, test = pd.Series(["b", "a", None, "c"]), pd.Series(["c", "d", None])
    codes, codes_test = data.codes_of(train, test)
    np.testing.assert_array_equal(codes, [1, 0, np.nan, 2])
    np.testing.assert_array_equal(codes_test, [2, np.nan, np.nan])


def test_numbers_are_their_own_codes() -> None:
    codes, codes_test = data.codes_of(pd.Series([30, 10]), pd.Series([20]), number=True)
    assert (codes.tolist(), codes_test.tolist()) == ([30.0, 10.0], [20.0])


def test_everyone_gets_the_same_rows_and_they_are_read_as_they_were_written(made: Any, tmp_path: Path) -> None:
    task = task_of(made, "ratings")
    rows = data.encoded(task, task.train, task.test, "name")
    assert isinstance(rows, data.Rows)
    rows.save(tmp_path)
    again = data.Rows.load(tmp_path)
    assert (again.work.X_train != rows.work.X_train).nnz == 0
    assert sum(again.work.field_sizes) == again.work.X_test.shape[1]
    np.testing.assert_array_equal(again.codes_test, rows.codes_test)
    assert again.codes_train.shape == (960, len(task.columns))
    assert again.categorical.all()


def test_nothing_is_learned_from_test_rows(made: Any) -> None:
    task = task_of(made, "ratings")
    new = task.test.assign(user_id=10**6, occupation="juggler")
    rows = [data.encoded(task, task.train, test, "name") for test in (task.test, new)]
    assert rows[0].work.X_test.shape == rows[1].work.X_test.shape
    assert (rows[1].work.X_test[:, : rows[1].work.field_sizes[0]]).nnz == 0
    assert np.isnan(rows[1].codes_test[:, 0]).all()


def test_items_that_training_has_not_seen_are_wanted_in_vain_and_new_users_are_not_asked(tmp_path: Path) -> None:
    train = pd.DataFrame({"user_id": [7, 7, 9, 9], "item_id": ["a", "b", "b", "b"]})
    test = pd.DataFrame({"user_id": [9, 7, 8], "item_id": ["a", "z", "a"]})
    pairs = data.pairs_of(train, test)
    np.testing.assert_array_equal(pairs.met.toarray(), [[1, 1], [0, 1]])
    assert (pairs.asked.tolist(), pairs.wanted.tolist()) == ([1, 0], [0, 2])
    assert data.measured(pairs, np.array([[0] + [-1] * 19, [-1] * 20])) == (0.5, 0.5)
    pairs.save(tmp_path)
    again = data.Pairs.load(tmp_path)
    np.testing.assert_array_equal(again.met.toarray(), pairs.met.toarray())
    assert again.wanted.tolist() == [0, 2]


def test_lists_are_the_best_items_that_are_new_to_the_user() -> None:
    rng = np.random.default_rng(0)
    met = rng.random((50, 25)) < 0.5
    users, items = np.nonzero(met)
    pairs = fits.Pairs.of(users, items, met.shape, np.arange(50)[::-1], np.zeros(50, int))
    p, q, bias = rng.normal(size=(50, 3)), rng.normal(size=(25, 3)), rng.normal(size=25)
    lists = pairs.lists(p, q, bias)
    assert lists.shape == (50, fits.LISTED)
    for user, shown in zip(pairs.asked, lists, strict=True):
        scores = {item: p[user] @ q[item] + bias[item] for item in np.flatnonzero(~met[user])}
        expected = sorted(scores, key=scores.__getitem__, reverse=True)[: fits.LISTED]
        assert shown[shown >= 0].tolist() == expected
        assert (shown[len(expected) :] == -1).all()


def test_lists_of_fewer_items_than_places_are_filled_up() -> None:
    pairs = fits.Pairs.of(np.array([0]), np.array([0]), (1, 3), np.array([0]), np.array([1]))
    assert pairs.lists(np.ones((1, 1)), np.array([[9.0], [1.0], [2.0]]))[0].tolist() == [2, 1] + [-1] * 18


# ---- judged and chosen


def test_ratings_are_judged_inside_the_range_of_training(made: Any) -> None:
    task = task_of(made, "ratings")
    rows = data.encoded(task, task.train, task.test, "name")
    top = rows.work.y_train.max()
    far, near = (data.measured(rows, np.full(len(task.test), value)) for value in (top + 100, top))
    assert far == near
    assert data.measured(rows, rows.work.y_test) == (0.0, 0.0)


def test_a_sure_and_wrong_label_costs_no_infinity(made: Any) -> None:
    task = task_of(made, "labels")
    rows = data.encoded(task, task.train, task.test, "name")
    loss, area = data.measured(rows, 1 - rows.work.y_test)
    assert loss == pytest.approx(-math.log(1e-7))
    assert area == 0


def test_the_best_value_is_chosen_and_of_equal_ones_the_first() -> None:
    assert choose([0.9, 0.7, 0.7, math.nan], lower=True) == 1
    assert choose([0.1, math.nan, 0.3, 0.3], lower=False) == 2
    assert choose([math.inf, 5.0], lower=True) == 1


def test_nothing_is_chosen_where_all_failed() -> None:
    assert choose([math.nan, math.nan], lower=True) is None
    assert choose([], lower=False) is None


def test_a_search_that_did_not_see_the_whole_grid_says_so() -> None:
    assert of_search(2, [0.5, 0.6]) == ""
    assert of_search(4, [0.5, math.nan]) == " (2 of 4 points not tried: time was up; 1 of 4 points failed)"


def test_settings_in_words() -> None:
    assert in_words({"epochs": 5, "l2": 1e-5, "solver": "auto"}) == "epochs 5, l2 1e-05, solver auto"
    assert in_words({}) == ""


@pytest.mark.parametrize("name", SYSTEMS)
def test_sparsefm_has_nothing_to_tune_and_peers_small_grids(name: str) -> None:
    system = SYSTEMS[name]
    assert system.adapter in fits.ADAPTERS
    for kind in system.grids:
        assert kind in data.MEASURES
        points, few = system.points(kind, quick=False), system.points(kind, quick=True)
        assert len(points) == math.prod(map(len, system.grids[kind].values()))
        assert len(few) <= 2
        assert all(point in points for point in few)
        assert len(points) == 1 if system.ours else 1 < len(points) <= 18


# ---- a system's process


def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[np.ndarray], took: list[float]) -> dict[str, Any]:
    """An order for an adapter that answers with these, one after the other."""
    fits.Pairs.of(np.array([0]), np.array([0]), (1, 1), np.array([0]), np.array([0])).save(tmp_path)
    answers = iter(zip(took, given, strict=True))
    monkeypatch.setitem(fits.ADAPTERS, "fake", lambda rows, settings: next(answers))
    return {"rows": str(tmp_path), "out": str(tmp_path / "out.npy"), "settings": {}, "repeats": 3}


def test_the_median_of_short_fits_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = fake(monkeypatch, tmp_path, [np.array([1.0])] * 3, [0.5, 0.1, 0.2])
    assert fits.carry_out("fake", order) == {"seconds": 0.2}
    assert np.load(order["out"]).tolist() == [1.0]


def test_a_long_fit_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = fake(monkeypatch, tmp_path, [np.array([1.0])], [fits.LONG])
    assert fits.carry_out("fake", order) == {"seconds": fits.LONG}


def test_predictions_that_ran_away_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = fake(monkeypatch, tmp_path, [np.array([math.inf])], [fits.LONG])
    assert "no finite numbers" in fits.carry_out("fake", order)["error"]


def test_a_worker_that_fails_says_so_and_the_next_order_finds_another(tmp_path: Path) -> None:
    worker = Worker(sys.executable, "no such adapter", tmp_path)
    order = {"rows": str(tmp_path), "out": str(tmp_path / "out.npy"), "settings": {}, "repeats": 1}
    try:
        assert worker.ask(order, 0.0) == {"error": "no result in 0 s"}
        assert worker.process is None
        assert worker.ask(order, 60.0)["error"].startswith("FileNotFoundError")
        assert worker.process is not None  # it answered, so it stays
    finally:
        worker.close()


def test_a_worker_whose_process_dies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "HERE", tmp_path)  # where there is nothing to start
    worker = Worker(sys.executable, "fm", tmp_path)
    assert worker.ask({}, 60.0) == {"error": "its process died"}
    assert worker.process is None


# ---- what is written


def cells(text: str, system: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if f"| {system} |" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_to_the_first_line_of_sparsefm() -> None:
    auto = replace(OURS, system="sparsefm auto", seconds=1.0)
    assert ratios([PEER, OURS, auto]) == [4.0, 1.0, 2.0]
    assert math.isnan(ratios([PEER])[0])


def test_table_has_measures_ratio_and_both_times() -> None:
    text = as_markdown([replace(OURS, floor="noise floor RMSE 0.7"), PEER])
    assert text.startswith(
        "## Ratings\n\n| data set | rows: train | test | system | settings | RMSE | MAE | fit / ours |"
    )
    ours = ["D, by time; noise floor RMSE 0.7", "80", "20", "sparsefm default", "as it comes"]
    assert cells(text, "sparsefm default") == [*ours, "0.9000", "**0.7000**", "1", "0.500", "none"]
    peer = ["D, by time", "80", "20", "xLearn", "lr 0.1"]
    assert cells(text, "xLearn") == [*peer, "**0.8000**", "0.7500", "4", "2.00", "30.0"]
    assert "Labels" not in text


@pytest.mark.parametrize(
    ("kind", "bold"), [("ratings", (0, 0)), ("labels", (0, 1)), ("ranking", (1, 1))], ids=lambda each: str(each)
)
def test_bold_is_the_lower_loss_and_the_higher_share(kind: str, bold: tuple[int, int]) -> None:
    lines = [
        replace(OURS, kind=kind, system="low", quality=(0.2, 0.2)),
        replace(PEER, kind=kind, system="high", quality=(0.6, 0.6)),
    ]
    text = as_markdown(lines)
    for measure, place in enumerate(bold):
        shown = [cells(text, system)[5 + measure] for system in ("low", "high")]
        assert [cell.startswith("**") for cell in shown] == [place == 0, place == 1]


def test_a_failure_is_a_row_that_says_so() -> None:
    text = as_markdown([OURS, replace(PEER, quality=(math.nan, math.nan)).failed("no result in 300 s | hung")])
    assert cells(text, "xLearn")[4] == "*no result in 300 s / hung*"
    assert {len(line.split("|")) for line in text.splitlines() if line.startswith("|")} == {12}
    assert cells(text, "sparsefm default")[5] == "**0.9000**"


def test_csv_has_every_line_in_full_and_nothing_where_nothing_was_measured() -> None:
    failed = Line("ranking", "D", "last", 8, 2, "LightFM WARP", False).failed("its process died")
    rows = list(csv.DictReader(io.StringIO(as_csv([failed, replace(OURS, quality=(1 / 3, 0.7)), PEER]))))
    assert [row["system"] for row in rows] == ["sparsefm default", "xLearn", "LightFM WARP"]
    assert float(rows[0]["value"]) == 1 / 3
    assert (rows[1]["measure"], rows[1]["second_measure"], float(rows[1]["ratio_to_ours"])) == ("RMSE", "MAE", 4.0)
    assert (rows[2]["value"], rows[2]["seconds_fit"], rows[2]["error"]) == ("", "", "its process died")


def test_seconds_have_three_digits_and_no_more_than_milliseconds() -> None:
    assert [seconds(value) for value in (123.4, 12.34, 1.234, 0.1234, 0.001234, 0.0, math.nan)] == [
        *("123", "12.3", "1.23", "0.123", "0.001", "0", "")
    ]


def test_a_panel_ends_before_a_value_that_would_flatten_it() -> None:
    assert limit_of([1.0, 1.1, 1.2, 9.0, 1.05], lower=True) == pytest.approx(1.3)
    assert limit_of([0.5, 0.4, 0.0], lower=False) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", data.MEASURES)
def test_every_system_of_a_kind_has_its_colour(kind: str) -> None:
    lines = [replace(OURS, system=name, ours=s.ours) for name, s in SYSTEMS.items() if kind in s.grids]
    given = colours(lines)
    assert len(set(given.values())) == len(given) == len(lines)


def test_the_picture_leaves_failures_out_and_keeps_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")
    failed = Line("labels", "D", "by time", 8, 2, "CatBoost", False).failed("its process died")
    draw(tmp_path / "some.svg", [OURS, PEER, failed, replace(OURS, kind="labels", quality=(0.6, 0.7))])
    text = (tmp_path / "some.svg").read_text(encoding="utf-8")
    assert f">{OURS.system}<" in text
    assert f">{PEER.system}<" in text
    assert ">CatBoost<" not in text


def test_the_picture_is_drawn_where_a_kind_has_nothing_but_failures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")
    failed = Line("labels", "D", "by time", 8, 2, "CatBoost", False).failed("its process died")
    draw(tmp_path / "none.svg", [OURS, failed])
    assert f">{OURS.system}<" in (tmp_path / "none.svg").read_text(encoding="utf-8")
