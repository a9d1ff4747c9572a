"""The scripts of docs/distributed.md, run as written: two processes reach the losses of one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the torch wing")

PAGE = Path(__file__).parents[1] / "docs" / "distributed.md"

pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="tests run without a checkout"),
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch without gloo"
    ),
]


def script(name, folder):
    """The block of the page with this name, as a file."""
    blocks = dict(re.findall(r"```python (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))
    path = folder / name
    path.write_text(blocks[name], encoding="utf-8")
    return path


# torch 2.13's gloo destroys a thread that still runs, once in a while: what it does with plain embeddings as well.
GLOO = "terminate called without an active exception"


def run(n_processes, path, *arguments):
    """What the script prints under torchrun; 0 processes: without it."""
    command = [sys.executable]
    if n_processes:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(3):
        done = subprocess.run(
            [*command, str(path), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120
        )
        if GLOO not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(printed):
    return [float(each) for each in re.search(r"losses (.*)", printed)[1].split()]


# Sums over a batch are taken in two parts instead of one: float32 rounding, which a few dozen steps carry on.
NEARLY = {"rel": 1e-4}


def test_two_processes_with_row_sparse_gradients_reach_the_losses_of_one(tmp_path):
    path = script("train.py", tmp_path)
    alone, together = losses(run(0, path)), losses(run(2, path))
    assert len(alone) == 3
    assert alone[-1] < 0.9 * alone[0]
    assert together == pytest.approx(alone, **NEARLY)


def test_a_table_in_two_processes_reaches_the_losses_of_one_and_its_checkpoint_is_read_by_one(tmp_path):
    path = script("table.py", tmp_path)
    together, alone = run(2, path, tmp_path / "two"), run(1, path, tmp_path / "one")
    assert "(2500, 8)" in together
    assert "(5000, 8)" in alone
    assert losses(alone)[-1] < 0.5 * losses(alone)[0]
    assert losses(together) == pytest.approx(losses(alone), **NEARLY)
    resumed = losses(run(1, path, tmp_path / "two", "resume"))
    assert resumed == pytest.approx(losses(together)[-1:], rel=1e-5)
