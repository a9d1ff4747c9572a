"""benchmarks/fit_curves.py: what its tables say about given curves. No peer runs here and nothing is timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks/ lies beside the tests in a checkout only", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import fit_curves  # noqa: E402
from fit_curves import GRIDS, OURS, Curve, Panel, grid_points, in_words, read_all, table, time_to_loss, write_all  # noqa: E402

PEER = "xlearn adagrad"
ours = Curve(OURS, 1, "as it comes", [0.1, 0.2, 0.4], [1.0, 0.8, 0.9])


def cells(text: str, system: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {system} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_time_to_loss_is_the_first_point_at_or_below_it() -> None:
    seconds, losses = [0.1, 0.2, 0.4, 0.8], [1.0, 0.8, 0.9, 0.7]
    assert time_to_loss(seconds, losses, 0.8) == 0.2
    assert time_to_loss(seconds, losses, 0.79) == 0.8
    assert time_to_loss(seconds, losses, 5.0) == 0.1
    assert time_to_loss(seconds, losses, 0.69) is None


def test_best_is_the_lowest_loss_where_it_was_first_reached() -> None:
    assert Curve(PEER, 1, "", [1.0, 2.0, 3.0], [0.9, 0.8, 0.8]).best() == (0.8, 2.0)


def test_table_tells_when_ours_is_as_good_as_a_peer() -> None:
    text = table(Panel("W1", "RMSE", [ours, Curve(PEER, 1, "lr 0.1", [1.0, 2.0, 4.0], [0.95, 0.85, 0.87])]))
    assert cells(text, OURS) == [OURS, "1", "as it comes", "0.8000", "0.200", "0.400", "", ""]
    assert cells(text, PEER) == [PEER, "1", "lr 0.1", "0.8500", "2.000", "4.000", "0.200", "10.0"]
    assert "(xlearn adagrad, RMSE 0.8500 after 2.000 s): sparsefm 0.200 s, ratio 10.0." in text


def test_table_tells_when_ours_never_gets_there_and_when_a_peer_still_falls() -> None:
    text = table(Panel("W1", "RMSE", [ours, Curve(PEER, 1, "lr 0.1", [1.0, 2.0], [0.9, 0.7])]))
    assert cells(text, PEER)[3:] == ["0.7000 ↓", "2.000", "2.000", "never", ""]
    assert "sparsefm does not reach it, its best is 0.8000." in text


def test_headline_is_about_the_peer_with_the_lowest_loss_not_the_fastest() -> None:
    fast = Curve("libmf", 1, "", [0.01, 0.02], [0.99, 0.98])
    good = Curve(PEER, 1, "", [2.0, 4.0], [0.9, 0.85])
    text = table(Panel("W1", "RMSE", [ours, fast, good]))
    assert "best loss (xlearn adagrad," in text
    assert text.index("| xlearn adagrad") < text.index("| libmf")


def test_each_number_of_threads_has_its_part_and_peers_of_one_thread_are_in_all() -> None:
    two = Curve(OURS, 2, "as it comes", [0.05], [0.8])
    slow, single = Curve(PEER, 2, "", [1.0], [0.9]), Curve("myfm", 1, "", [3.0], [0.85])
    first, second = table(Panel("W1", "RMSE", [ours, single, two, slow])).split("Time to the best peer's")[:2]
    assert PEER not in first
    assert cells(second, PEER)[1:] == ["2", "", "0.9000 ↓", "1.000", "1.000", "0.050", "20.0"]
    assert cells(second, "myfm")[5:] == ["3.000", "0.050", "60.0"]


def test_what_an_earlier_run_left_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_curves, "draw", lambda path, panels: None)  # matplotlib may be missing
    panels = {"W1": Panel("W1: 9 rows", "RMSE", [ours, Curve(PEER, 1, "lr 0.1", [1.0], [0.9], "hung")])}
    assert read_all(tmp_path) == {}
    write_all(tmp_path, panels)
    assert read_all(tmp_path) == panels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit_curves.json", "fit_curves.md"]


def test_a_peer_that_failed_is_named_with_its_error() -> None:
    text = table(Panel("W1", "RMSE", [ours, Curve(PEER, 1, "", [], [], "not installed: No module named 'xlearn'")]))
    assert "xlearn adagrad: not installed: No module named 'xlearn'" in text
    assert "Time to the best" not in text


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_no_peer_gets_more_than_nine_points_and_edges_are_marked(loss: str) -> None:
    points = grid_points(loss, quick=False)
    assert len(points) == 9
    assert {in_words(loss, point).count("edge") for point in points} == {0, 1, 2}
    (middle,) = (point for point in points if "edge" not in in_words(loss, point))
    assert middle == {key: values[1] for key, values in GRIDS[loss].items()}
