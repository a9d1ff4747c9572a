"""What the README, the pages in docs/ and the docstrings show runs as it stands."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shutil
from pathlib import Path

import pytest

import sparsefm

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists() and "```python\n" in page.read_text(encoding="utf-8")]
MODULES = [module.name for module in pkgutil.walk_packages(sparsefm.__path__, "sparsefm.")]
# What a page or a module needs beside the package itself.
NEEDED = {
    "torch": ("import torch\n", "sparsefm.nn", "sparsefm.ops"),
    "matplotlib": ("sparsefm.plots", "plots."),
    "fastapi": ("fastapi",),
}


def number(pattern, text):
    return float(re.search(pattern, text)[1])


def run_blocks(page):
    """Runs each block of Python by itself, or with the names of the one before where it says that it continues it; what
    needs torch or matplotlib, and what continues it, only where there is one."""
    names = {}
    blocks = re.findall(r"```python( continued)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    left_out = False
    for continued, block in blocks:
        left_out = is_out_of_reach(block) or bool(continued and left_out)
        if left_out:
            continue
        names = names if continued else {"__name__": "__main__"}
        exec(compile(block, str(page), "exec"), names)


def is_out_of_reach(text):
    return any(
        importlib.util.find_spec(package) is None and any(word in text for word in words)
        for package, words in NEEDED.items()
    )


@pytest.mark.skipif(not PAGES, reason="tests run without a checkout")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # of torch's own optimisers
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    if page.stem == "torch":
        pytest.importorskip("torch", reason="the torch wing")
    monkeypatch.chdir(tmp_path)
    run_blocks(page)
    out = capsys.readouterr().out
    if page in CHECKS:
        CHECKS[page](out)


def check_evaluation(out):
    """The leak of a random split is there to be seen."""
    for model in ("Popularity", "EASE", "FMRanker"):
        past, future, same_past, same_future = map(float, re.findall(rf"{model} +(0\.\d+)", out))
        assert past < future
        assert same_past < same_future
    assert number(r"calibration error: ([\d.]+)", out) < 0.1


def check_encoders(out):
    assert number(r"with histories: ([\d.]+)", out) < 1.0
    assert number(r"AUC: ([\d.]+)", out) > 0.6


def check_torch(out):
    assert number(r"held-out RMSE ([\d.]+)", out) < 1.0
    for name in ("NFM", "DeepFM", "WideAndDeep"):
        assert number(rf"{name}: ([\d.]+)", out) < 0.1


def check_family(out):
    assert number(r"order 3: RMSE ([\d.]+)", out) < 0.5 * number(r"order 2: RMSE ([\d.]+)", out)


def check_cold_start(out):
    assert number(r"ids and attributes: RMSE ([\d.]+)", out) < number(r"ids: RMSE ([\d.]+)", out)
    assert number(r"after fold_in: ([\d.]+)", out) < number(r"before fold_in: ([\d.]+)", out)


def check_explain(out):
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")
    assert "adds up to the prediction: True" in out
    assert sorted(path.name for path in Path().iterdir()) == ["importance.png", "row.png"]


def check_regression(out):
    assert 0.7 < number(r"(\d+)% lie between", out) / 100 < 0.9
    assert number(r", and it expects ([\d.]+)", out) == pytest.approx(number(r"([\d.]+), and it expects", out), rel=0.1)


CHECKS = {
    ROOT / "README.md": lambda out: number(r"([\d.]+) noise floor", out),
    ROOT / "docs" / "bayesian.md": lambda out: number(r"intervals hold (8\d|9\d)%", out),
    ROOT / "docs" / "classification.md": lambda out: number(r"AUC (0\.[78]\d+)", out),
    ROOT / "docs" / "cold_start.md": check_cold_start,
    ROOT / "docs" / "encoders.md": check_encoders,
    ROOT / "docs" / "evaluation.md": check_evaluation,
    ROOT / "docs" / "explain.md": check_explain,
    ROOT / "docs" / "family.md": check_family,
    ROOT / "docs" / "ordinal.md": lambda out: number(r"geometric mean (0\.2[5-9]\d*|0\.[3-9]\d*)", out),
    ROOT / "docs" / "regression.md": check_regression,
    ROOT / "docs" / "torch.md": check_torch,
}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    if is_out_of_reach(name):
        pytest.skip(f"{name} needs what is not installed")
    if (ROOT / "datasets").is_dir():
        shutil.copytree(ROOT / "datasets", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="tests run without a checkout")
def test_what_the_comparison_says_of_us_is_tested():
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    table, tested = page.split("## Where each yes")
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    claims = {name.strip() for name, ours in rows if ours.strip() == "yes"}
    named = {}
    for line in tested.splitlines():
        if line.startswith("| ") and "`" in line:
            for name in line.split("|")[1].split(";"):
                named[name.strip()] = re.findall(r"`tests/(\w+)\.py(?:::(\w+))?`", line)
    assert claims == set(named)
    for name, tests in named.items():
        assert tests, name
        for file, function in tests:
            text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
            assert not function or f"def {function}(" in text, f"{name}: {file}::{function}"
