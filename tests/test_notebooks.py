"""The notebooks: what is committed is whole, and each runs from top to bottom."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


@each_notebook
def test_committed_outputs_are_those_of_one_clean_run(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each_notebook
def test_nothing_committed_names_the_machine_it_was_made_on(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        for output in cell.get("outputs", []):
            texts = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            shown = json.dumps([output.get("text"), texts])
            assert not re.search(r"/(home|Users|root|tmp|work|opt|usr)/|[A-Z]:\\\\", shown)


@pytest.mark.slow
@each_notebook
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="notebooks are run by nbclient, of the extra `notebook`")
    pytest.importorskip("ipykernel", reason="notebooks run in ipykernel, of the extra `notebook`")
    pytest.importorskip("matplotlib", reason="notebooks have pictures, by the extra `plot`")
    import nbclient
    import nbformat

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    # in the root, so that data/ is found
    folder = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    printed = [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert printed == []  # no warnings
    assert path.read_bytes() == before
