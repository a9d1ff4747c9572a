"""The command line as its user meets it: what is printed, what is left on disk, and how it fails."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparsefm
from sparsefm.cli import main
from sparsefm.datasets import MovieLens, load_movielens, make_ratings
from sparsefm.quickstart import _folds, quickstart

TINY = Path(__file__).parent.parent / "datasets" / "tiny"
TABLE_ROW = re.compile(r"^(noise floor|global mean|bias only|FM, ids(?: \+ side)?) +((?:\d\.\d{4} *){6})", re.M)


def table(text: str) -> dict[str, list[float]]:
    """RMSE of the five folds and their mean, by the name of the row."""
    return {name: [float(number) for number in numbers.split()] for name, numbers in TABLE_ROW.findall(text)}


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """python -m sparsefm, where a warning would be an error."""
    command = [sys.executable, "-W", "error", "-m", "sparsefm", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=os.environ | {"PYTHONUTF8": "1"} | env
    )


def test_quickstart_from_a_shell(tmp_path: Path) -> None:
    done = run("quickstart", "--data", TINY / "ml-100k", "--out", tmp_path / "new" / "out", "--user", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 ratings by 10 users of 15 items" in done.stdout
    assert "Five random folds" in done.stdout
    assert "Side features: genres, year, age." in done.stdout
    rows = table(done.stdout)
    assert list(rows) == ["global mean", "bias only", "FM, ids", "FM, ids + side"]
    for *folds, mean in rows.values():
        assert mean == pytest.approx(np.mean(folds), abs=1e-4)
    assert isinstance(sparsefm.load(tmp_path / "new" / "out" / "quickstart.sfm"), sparsefm.FMRegressor)


def test_recommended_items_are_new_to_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", "--data", str(TINY / "ml-1m"), "--out", str(tmp_path), "--user", "4"]) == 0
    shown = re.findall(r"^ +\d+\. (\d\.\d\d)  (.+)$", capsys.readouterr().out, re.M)
    ml = load_movielens(TINY / "ml-1m")
    seen = ml.ratings.loc[ml.ratings["user_id"] == 4, "item_id"]
    unseen = ml.items[~ml.items["item_id"].isin(seen)]
    titles = [re.sub(r" \(\d{4}\)$", "", name) for _, name in shown]
    assert len(titles) == min(10, len(unseen))
    assert len(set(titles)) == len(titles)
    assert set(titles) <= set(unseen["title"])
    stars = [float(number) for number, _ in shown]
    assert stars == sorted(stars, reverse=True)
    assert all(1 <= number <= 5 for number in stars)


def test_the_learning_curve_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")
    quickstart(TINY / "ml-100k", out=tmp_path)
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_only_the_picture_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    quickstart(TINY / "ml-100k", out=tmp_path)
    assert "pip install sparsefm[plot]" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart.sfm"]


def test_users_without_attributes_leave_the_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart(TINY / "ml-latest", out=tmp_path)
    assert "Side features: genres, year." in capsys.readouterr().out


def test_without_side_features_ids_remain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (TINY / "ml-100k" / "u.data").read_text().split("\n")[:-1]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    # ids with a letter are text
    rows = ["u" + "\ti".join(line.split("\t", 1)) for line in lines]
    (tmp_path / "plain.inter").write_text("\n".join([header, *rows]))
    quickstart(tmp_path, out=tmp_path / "out", user="u7")
    text = capsys.readouterr().out
    assert "no side features" in text
    assert list(table(text)) == ["global mean", "bias only", "FM, ids"]
    assert "User u7" in text
    assert re.search(r"^ +1\. \d\.\d\d  item i\d+$", text, re.M)


def test_random_folds_hold_every_rating_once() -> None:
    ml = make_ratings(20, 30, 203, random_state=0)
    folds = _folds(ml)
    assert sorted(np.concatenate([test.index for _, test in folds])) == list(range(203))
    for train, test in folds:
        assert len(train) + len(test) == 203
        assert not set(train.index) & set(test.index)


def test_generated_ratings_are_used_without_data_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("These ratings are made up.")
    assert "Five canonical folds" in text
    rows = table(text)
    means = [rows[name][-1] for name in ("noise floor", "FM, ids + side", "FM, ids", "bias only", "global mean")]
    assert means == sorted(means)
    # the truth is biases and a product of factors, so each model closes a part of the gap
    assert all(math.isfinite(mean) and mean < 1.2 for mean in means)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["quickstart", "--data", "no/such/folder"], "there is no folder or archive at no/such/folder"),
        (["quickstart", "--data", str(TINY)], "found 3 data sets"),
        (["quickstart", "--data", str(TINY / "ml-100k"), "--user", "999"], "there is no user '999'"),
        (["quickstart", "--data", str(TINY / "ml-100k"), "--user", "ann"], "there is no user 'ann'"),
        (["quickstart", "--data", "x", "--generated"], "not allowed with argument --data"),
        (["quickstart", "--sheep"], "unrecognized arguments: --sheep"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as stop:  # argparse leaves in its own way
        code = stop.code
    stderr = capsys.readouterr().err
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1


def test_bad_input_from_a_shell(tmp_path: Path) -> None:
    done = run("quickstart", "--data", tmp_path / "nothing", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sparsefm: error: there is no folder or archive at")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damaged_ratings_are_named_with_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (TINY / "ml-100k").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n1\t2\tthree\t4\n")
    assert main(["quickstart", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "u.data, line 2: rating must be a finite number, found 'three'" in capsys.readouterr().err


def test_too_few_ratings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (TINY / "ml-100k").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    assert main(["quickstart", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "1 ratings are too few" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["quickstart", "--data", str(TINY / "ml-100k"), "--out", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_titles_a_terminal_cannot_show_do_no_harm(tmp_path: Path) -> None:
    done = run("quickstart", "--data", TINY / "ml-100k", "--out", tmp_path, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["quickstart", "--help"]])
def test_help_has_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    assert "  sparsefm quickstart " in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"sparsefm {sparsefm.__version__}\n"


def test_the_first_user_with_ratings_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ml: MovieLens = load_movielens(TINY / "ml-100k")
    quickstart(TINY / "ml-100k", out=tmp_path)
    assert f"User {ml.users['user_id'].iloc[0]} has rated" in capsys.readouterr().out
