"""sparsefm fit, predict, recommend, explain and info, as their user meets them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sparsefm
from sparsefm.cli import main
from sparsefm.cli.roles import choose, guess_side
from sparsefm.datasets import dump_libffm, dump_libsvm, make_ratings

no_parquet = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is of the extra `arrow`")


@pytest.fixture(scope="module")
def ml() -> Any:
    return make_ratings(60, 80, 2_000, random_state=0)


def write(ml: Any, folder: Path) -> None:
    """ratings.csv, movies.csv and users.csv."""
    ml.ratings.to_csv(folder / "ratings.csv", index=False)
    ml.items[["item_id", "title", "genres"]].to_csv(folder / "movies.csv", index=False)
    ml.users[["user_id", "age"]].to_csv(folder / "users.csv", index=False)


@pytest.fixture
def folder(ml: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with these files."""
    monkeypatch.chdir(tmp_path)
    write(ml, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def kept(ml: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these files and a model, in which nothing is to change."""
    folder = tmp_path_factory.mktemp("kept")
    write(ml, folder)
    (folder / "other.csv").write_text("a,b\n1,2\n")
    main(["fit", str(folder / "ratings.csv"), "--epochs", "1", "-o", str(folder / "model.sfm")])
    return folder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """python -m sparsefm, where a warning would be an error."""
    command = [sys.executable, "-W", "error", "-m", "sparsefm", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=os.environ | {"PYTHONUTF8": "1"}
    )


def fails(*arguments: str) -> str:
    """The message of a command that ends in exit code 2; run in this process."""
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
        try:
            code: object = main(list(arguments))
        except SystemExit as stop:
            code = stop.code
    assert code == 2, stderr.getvalue()
    assert stderr.getvalue().count("\n") == 1
    return stderr.getvalue()


def tsv(text: str) -> pd.DataFrame:
    lines = [line.split("\t") for line in text.splitlines()]
    return pd.DataFrame(lines[1:], columns=lines[0])


def test_ratings_from_two_files_to_lists_in_a_shell(folder: Path, ml: Any) -> None:
    fitted = run("fit", "ratings.csv", "--join", "movies.csv", "--by-time", "timestamp", "-o", "model.sfm")
    assert (fitted.returncode, fitted.stderr) == (0, "")
    assert "Read 2,000 rows, target rating (1 to 5; regression, guessed)." in fitted.stdout
    for words in ("user_id    id", "timestamp  ignored", "title      ignored", "genres     multi"):
        assert words in fitted.stdout
    assert "Held out 200 rows (the latest by timestamp): rmse" in fitted.stdout

    ask = ("--join", "movies.csv", "--keep", "user_id,item_id", "--target", "rating")
    predicted = run("predict", "model.sfm", "ratings.csv", *ask)
    assert predicted.returncode == 0
    assert predicted.stderr.startswith("2,000 rows: rmse ")
    table = tsv(predicted.stdout)
    model = sparsefm.load("model.sfm")
    frame = ml.ratings.merge(ml.items, on="item_id", how="left")
    np.testing.assert_allclose(table["prediction"].astype(float), model.predict(frame), rtol=1e-6)
    assert table["user_id"].tolist() == ml.ratings["user_id"].astype(str).tolist()

    user = str(ml.ratings.sort_values("timestamp")["user_id"].iloc[0])  # not among the latest alone
    ask = ("--items", "movies.csv", "--exclude", "ratings.csv", "-k", "3", "--show", "title")
    lists = run("recommend", "model.sfm", "--user", user, *ask)
    assert lists.returncode == 0, lists.stderr
    table = tsv(lists.stdout)
    seen = ml.ratings.loc[ml.ratings["user_id"] == int(user), "item_id"]
    assert len(table) == 3
    assert not set(table["item_id"].astype(int)) & set(seen)
    titles = ml.items.set_index("item_id")["title"]
    assert table["title"].tolist() == titles[table["item_id"].astype(int)].tolist()

    parts = tsv(run("explain", "model.sfm", "ratings.csv", "--join", "movies.csv", "--row", "7", "--top", "2").stdout)
    assert parts["part"].tolist()[-1] == "score"
    assert len(parts) == 5
    values = parts["value"].astype(float)
    assert values[:-1].sum() == pytest.approx(values.iloc[-1], rel=1e-6)
    assert values.iloc[-1] == pytest.approx(model.set_params(clip=False).predict(frame[7:8])[0], rel=1e-5)


def test_clicks_in_criteos_layout_from_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    n = 3_000
    counts = rng.poisson(20, (n, 13))
    levels = rng.integers(0, 30, (n, 26))
    click = rng.random(n) < np.where(levels[:, 0] % 2 == 0, 0.1, 0.6) * (counts[:, 0] / 20)
    rows = zip(click.astype(int), counts, levels, strict=True)
    lines = ["\t".join(map(str, [label, *numbers, *map(hex, words)])) + "\n" for label, numbers, words in rows]
    Path("train.txt").write_text("".join(lines))
    ask = ("--format", "criteo", "--early-stopping", "--metric", "log_loss", "--json", "-o", "clicks.sfm")
    done = run("fit", "train.txt", *ask)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["task"], report["model"], report["rows"]) == ("classification", "FMClassifier", 2_700)
    assert [column["column"] for column in report["columns"]][:2] == ["I1", "I2"]
    assert report["held_out"]["auc"] > 0.6
    assert report["held_out"]["log_loss"] < report["held_out"]["log_loss_of_the_shares"]

    made = run("predict", "clicks.sfm", "train.txt", "--format", "criteo", "--json")
    rows = [json.loads(line) for line in made.stdout.splitlines()]
    assert len(rows) == n
    assert set(rows[0]) == {"prediction", "probability"}
    assert all((row["probability"] > 0.5) == bool(row["prediction"]) for row in rows)


def test_a_ranking_from_a_shell(folder: Path, ml: Any) -> None:
    sides = ("--join", "movies.csv", "--join", "users.csv")
    fitted = run("fit", "ratings.csv", "--task", "ranking", *sides, "--epochs", "3", "-o", "ranker.sfm")
    assert (fitted.returncode, fitted.stderr) == (0, "")
    assert "ndcg@10" in fitted.stdout
    model = sparsefm.load("ranker.sfm")
    assert model.item_columns == ["item_id", "genres"]
    assert len(model.history_) == 3
    user = ml.ratings["user_id"].iloc[0]
    shown = tsv(run("recommend", "ranker.sfm", "--user", str(user), "-k", "4").stdout)
    assert shown["item_id"].astype(int).tolist() == model.recommend([user], k=4)["item_id"].tolist()
    assert "is a ranking" in fails("predict", "ranker.sfm", "ratings.csv")
    joined = ("--join", "movies.csv", "--join", "users.csv")
    parts = tsv(run("explain", "ranker.sfm", "ratings.csv", *joined).stdout)
    assert parts["part"].tolist()[-1] == "score"
    assert "--fields is of models that predict rows" in fails(
        "explain", "ranker.sfm", "ratings.csv", *joined, "--fields"
    )


def test_the_same_command_makes_the_same_file(folder: Path) -> None:
    for name in ("one.sfm", "two.sfm"):
        assert main(["fit", "ratings.csv", "--quiet", "--threads", "1", "-o", name]) == 0
    assert Path("one.sfm").read_bytes()[:8] == Path("two.sfm").read_bytes()[:8]
    one, two = sparsefm.load("one.sfm"), sparsefm.load("two.sfm")
    np.testing.assert_array_equal(one.factors_, two.factors_)


def test_roles_as_said_are_the_encoders(folder: Path) -> None:
    said = ("--ignore", "title,timestamp", "--multi", "genres:|", "--bins", "age", "--id", "user_id", "--id", "item_id")
    joined = ("--join", "movies.csv", "--join", "users.csv")
    assert main(["fit", "ratings.csv", *joined, *said, "--target", "rating", "--holdout", "0", "-o", "m.sfm"]) == 0
    encoder = sparsefm.load("m.sfm").encoder_
    kinds = {name: type(column.encoder).__name__ for name, column in encoder.columns_.items()}
    assert kinds == {"user_id": "OneHot", "item_id": "OneHot", "genres": "MultiHot", "age": "Binned"}


def test_dates_of_a_csv_are_read_at_fit_and_at_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365 * 24, 500), "h")
    frame = pd.DataFrame({"when": when.astype(str), "y": when.hour.to_numpy() + rng.normal(0, 0.1, 500)})
    frame.to_csv("t.csv", index=False)
    assert main(["fit", "t.csv", "--date", "when", "--epochs", "40", "-o", "m.sfm"]) == 0
    assert main(["predict", "m.sfm", "t.csv", "--target", "y", "-o", "p.csv"]) == 0
    assert np.corrcoef(pd.read_csv("p.csv")["prediction"], frame["y"])[0, 1] > 0.9
    frame.assign(when="soon").to_csv("t.csv", index=False)
    assert "column 'when' holds no dates" in fails("predict", "m.sfm", "t.csv")


def test_a_posterior_has_standard_deviations(folder: Path) -> None:
    assert main(["fit", "ratings.csv", "--solver", "mcmc", "--epochs", "5", "--factors", "3", "-o", "m.sfm"]) == 0
    assert main(["predict", "m.sfm", "ratings.csv", "--std", "-o", "p.tsv"]) == 0
    found = pd.read_csv("p.tsv", sep="\t")
    mean, deviation = sparsefm.load("m.sfm").predict(pd.read_csv("ratings.csv"), return_std=True)
    np.testing.assert_allclose(found[["prediction", "std"]], np.column_stack([mean, deviation]), rtol=1e-6)
    assert main(["fit", "ratings.csv", "-o", "plain.sfm"]) == 0
    message = fails("predict", "plain.sfm", "ratings.csv", "--std")
    assert "--std needs a model of numbers fitted with --solver mcmc" in message


def test_stars_have_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "ratings.csv", "--task", "ordinal", "--epochs", "5", "-o", "m.sfm"]) == 0
    assert main(["info", "m.sfm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["model"], found["levels"], found["draws"]) == ("FMOrdinal", [1, 2, 3, 4, 5], 5)


def test_rows_of_numbers_are_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = np.eye(6)[rng.integers(0, 3, 300)] + np.eye(6)[rng.integers(3, 6, 300)]
    y = np.where(X[:, 0] == X[:, 3], 1.0, -1.0)
    dump_libsvm(X[:200], y[:200], "train.libsvm")
    dump_libsvm(X[200:], y[200:], "test.libsvm")
    assert main(["fit", "train.libsvm", "--holdout", "test.libsvm", "--epochs", "60", "-o", "m.sfm"]) == 0
    assert main(["predict", "m.sfm", "test.libsvm", "-o", "p.csv"]) == 0
    assert np.mean(pd.read_csv("p.csv")["prediction"] == y[200:]) > 0.95
    dump_libffm(X, y, [0, 0, 0, 1, 1, 1], "train.ffm")
    assert main(["fit", "train.ffm", "--model", "ffm", "--factors", "2", "-o", "f.sfm"]) == 0
    assert sparsefm.load("f.sfm").fields_.tolist() == [0, 0, 0, 1, 1, 1]
    assert "--id names a column, and train.libsvm has none" in fails("fit", "train.libsvm", "--id", "a", "-o", "m.sfm")
    Path("t.csv").write_text("a,b\n1,2\n")
    assert "fitted to a matrix of 6 columns without names" in fails("predict", "m.sfm", "t.csv")


@no_parquet
def test_parquet_in_and_out(folder: Path) -> None:
    pd.read_csv("ratings.csv").to_parquet("ratings.parquet")
    assert main(["fit", "ratings.parquet", "-o", "m.sfm"]) == 0
    assert main(["predict", "m.sfm", "ratings.parquet", "-o", "p.parquet"]) == 0
    found = pd.read_parquet("p.parquet")["prediction"]
    np.testing.assert_array_equal(found, sparsefm.load("m.sfm").predict(pd.read_csv("ratings.csv")))


def test_info_says_what_is_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "ratings.csv", "--factors", "3", "--l2", "0.5", "-o", "m.sfm"]) == 0
    capsys.readouterr()
    assert main(["info", "m.sfm"]) == 0
    text = capsys.readouterr().out
    for words in ("FMRegressor", "AdaGrad", "n_factors 3", "l2_factors 0.5", "user_id\tOneHot\t62"):
        assert words in text
    assert main(["info", "m.sfm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = sparsefm.load("m.sfm")
    assert (found["features"], found["factors"]) == (model.params_.n_features, 3)
    assert sum(column["encoded columns"] for column in found["columns"]) == model.params_.n_features


def test_fields_are_weighed_and_pictures_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")
    assert main(["fit", "ratings.csv", "-o", "m.sfm"]) == 0
    capsys.readouterr()
    assert main(["explain", "m.sfm", "ratings.csv", "--fields", "--plot", "f.png"]) == 0
    table = tsv(capsys.readouterr().out)
    expected = sparsefm.load("m.sfm").field_importance(pd.read_csv("ratings.csv"))
    np.testing.assert_allclose(table["importance"].astype(float), expected["importance"], rtol=1e-6)
    assert main(["explain", "m.sfm", "ratings.csv", "--plot", "row.png"]) == 0
    for name in ("f.png", "row.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")


def test_columns_are_guessed_by_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "zip": rng.integers(10_000, 99_999, n),
            "visits": rng.integers(0, 4, n),
            "age": rng.integers(18, 90, n),
            "code7": rng.integers(0, 60, n),
            "price": rng.normal(size=n),
            "city": rng.choice(["a", "b"], n),
            "tags": rng.choice(["x|y", "y"], n),
            "note": [f"text {i}" for i in range(n)],
            "nothing": None,
            "signup_time": rng.integers(10**9, 2 * 10**9, n),
            "day": pd.Timestamp("2024-01-01"),
            "ordered": "2024-01-01 13:00",
            "member": rng.choice([True, False], n),
        }
    )
    frame["zip_name"] = "z" + frame["zip"].astype(str)
    found = {choice.column: choice.role for choice in choose(frame, {}, [])}
    assert found == {
        "zip": "id",
        "visits": "id",
        "age": "bins",
        "code7": "id",
        "price": "bins",
        "city": "id",
        "tags": "multi",
        "note": "ignored",
        "nothing": "ignored",
        "signup_time": "ignored",
        "day": "date",
        "ordered": "date",
        "member": "id",
        "zip_name": "ignored",
    }
    assert guess_side(["userId", "movieId"], "user") == "userId"
    assert guess_side(["userId", "movieId"], "item") == "movieId"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fit", "nothing.csv", "-o", "m.sfm"], "there is no file at nothing.csv"),
        (["fit", "ratings.csv"], "the following arguments are required: -o/--out"),
        (["fit", "ratings.csv", "-o", "no/such/m.sfm"], "there is no folder no"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--target", "stars"], "there is no column 'stars', only user_id"),
        (
            ["fit", "movies.csv", "-o", "m.sfm"],
            "name it by --target; there are item_id",
        ),
        (["fit", "movies.csv", "-o", "m.sfm", "--target", "genres", "--task", "regression"], "the target is text"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--id", "nope"], "--id nope: there is no such column"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--id", "user_id", "--number", "user_id"], "already has a role"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--ignore", "user_id,item_id"], "no column is left to learn from"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--holdout", "2"], "at least 0 and below 1; got 2"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--holdout", "x.csv"], "there is no x.csv"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--by-time", "when"], "there is no column 'when'"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--solver", "nag"], "solver must be one of 'adagrad'"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--solver", "als", "--learning-rate", "1"], "als takes no steps"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--factors", "-1"], "n_factors"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--model", "ffm", "--order", "3"], "--order is of --model fm"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--model", "ffm", "--task", "ordinal"], "fitted by --model fm alone"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--task", "ordinal", "--l2", "1"], "draws from its posterior"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--join", "other.csv"], "no column in common"),
        (["fit", "users.csv", "-o", "m.sfm", "--target", "age", "--join", "ratings.csv"], "several rows of"),
        (["fit", "ratings.csv", "-o", "m.sfm", "--task", "ranking", "--target", "rating"], "takes no --model"),
        (["fit", "movies.csv", "-o", "m.sfm", "--task", "ranking"], "holds the users? name it by --user-column"),
        (["predict", "ratings.csv", "ratings.csv"], "is not a sparsefm model file"),
        (["predict", "model.sfm", "users.csv"], "there is no column 'item_id', only user_id, age"),
        (["predict", "model.sfm", "ratings.csv", "-o", "p.xlsx"], "must end in .csv, .tsv, .parquet"),
        (["predict", "model.sfm", "ratings.csv", "--keep", "shoe"], "there is no column 'shoe'"),
        (["recommend", "model.sfm"], "one of the arguments --user --users is required"),
        (["recommend", "model.sfm", "--user", "nobody"], "the model knows no user_id 'nobody'; they look like"),
        (["recommend", "model.sfm", "--user", "1", "--item-column", "film"], "the model reads no 'film'"),
        (["recommend", "model.sfm", "--user", "1", "--show", "title"], "--show shows columns of --items"),
        (["explain", "model.sfm", "ratings.csv", "--row", "5000"], "there are rows 0 to 1999"),
        (["explain", "model.sfm", "ratings.csv", "--fields", "--row", "1"], "--fields is of all rows together"),
        (["explain", "model.sfm", "ratings.csv", "--label", "1"], "--label is of models of classes; this one is FMReg"),
        (["recommend", "model.sfm", "--user", "1", "--label", "1"], "--label is of models of classes"),
        (["explain", "model.sfm", "ratings.csv", "--plot", "a.jpg"], "must end in .png"),
        (["info", "model.sfm", "--yaml"], "unrecognized arguments: --yaml"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    kept: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kept)
    before = sorted(kept.iterdir())
    assert message in fails(*arguments)
    assert sorted(kept.iterdir()) == before


@pytest.mark.parametrize("command", ["fit", "predict", "recommend", "explain", "info"])
def test_each_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert text.count(f"  sparsefm {command} ") >= 2
