"""What the README and the pages in docs/ show runs as it stands."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ENCODERS = ROOT / "docs" / "encoders.md"
TORCH = ROOT / "docs" / "torch.md"
TRAINING = ROOT / "docs" / "training.md"
BAYESIAN = ROOT / "docs" / "bayesian.md"

no_checkout = pytest.mark.skipif(not README.exists(), reason="tests run without a checkout")


def run_blocks(page):
    """Runs each block of Python by itself, or with the names of the one before where it says that it continues it;
    blocks on torch only where there is one, and pictures only where there is matplotlib."""
    names = {}
    needed = {"import torch\n": "torch", "from sparsefm.plots import": "matplotlib"}
    blocks = re.findall(r"```python( continued)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for continued, block in blocks:
        if any(text in block and importlib.util.find_spec(package) is None for text, package in needed.items()):
            continue
        names = names if continued else {"__name__": "__main__"}
        exec(compile(block, str(page), "exec"), names)


@no_checkout
def test_the_python_blocks_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(README)
    assert "noise floor" in capsys.readouterr().out


@no_checkout
def test_the_python_blocks_of_the_training_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(TRAINING)


@no_checkout
def test_the_python_blocks_of_the_ranking_page_run():
    run_blocks(ROOT / "docs" / "ranking.md")


@no_checkout
def test_the_python_blocks_of_the_evaluation_page_run_and_show_the_leak(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(ROOT / "docs" / "evaluation.md")
    out = capsys.readouterr().out
    for model in ("Popularity", "EASE", "FMRanker"):
        past, future, same_past, same_future = map(float, re.findall(rf"{model} +(0\.\d+)", out))
        assert past < future
        assert same_past < same_future
    assert float(re.search(r"calibration error: ([\d.]+)", out)[1]) < 0.1


@no_checkout
def test_the_python_blocks_of_the_encoder_page_run_and_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(ENCODERS)
    out = capsys.readouterr().out
    assert float(re.search(r"with histories: ([\d.]+)", out)[1]) < 1.0
    assert float(re.search(r"AUC: ([\d.]+)", out)[1]) > 0.6


@no_checkout
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # of torch's own optimisers
def test_the_python_blocks_of_the_torch_page_run_and_learn(capsys):
    pytest.importorskip("torch", reason="the torch wing")
    run_blocks(TORCH)
    out = capsys.readouterr().out
    assert float(re.search(r"held-out RMSE ([\d.]+)", out)[1]) < 1.0
    for name in ("NFM", "DeepFM"):
        assert float(re.search(rf"{name}: ([\d.]+)", out)[1]) < 0.1


@no_checkout
def test_the_python_blocks_of_the_bayesian_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(BAYESIAN)
    assert "90 % intervals hold" in capsys.readouterr().out
