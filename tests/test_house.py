"""The house keeps its shape: arrows between rooms point down, and importing stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsefm

HOUSE = Path(sparsefm.__file__).parent

# Floor of each room; a room may import from lower floors, and from the rooms named beside it.
FLOORS = {
    "_kernels": 0,
    "validation": 1,
    "model": 2,
    "persistence": 2,
    "ops": 2,
    "solvers": 3,
    "recommend": 3,
    "explain": 3,
    "nn": 3,
    "estimators": 4,
    "evaluation": 4,
    "plots": 4,
    "interop": 5,
    "quickstart": 5,
    "cli": 6,
    "__main__": 7,
}
GARDEN = {"encoders", "datasets", "splits", "metrics"}  # know no model and import nothing of ours


def rooms():
    for path in sorted(HOUSE.rglob("*.py")):
        room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield pytest.param(room, path, id=str(path.relative_to(HOUSE)))


def imported_rooms(path):
    """First names below sparsefm that a file imports, its own package's included."""
    here = path.relative_to(HOUSE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level + 1]
                names = [
                    (*base, *(node.module or "").split(".")) if node.module else (*base, a.name) for a in node.names
                ]
            else:
                names = (
                    [tuple((node.module or "").split("."))[1:]] if (node.module or "").startswith("sparsefm") else []
                )
            yield from (name[0] for name in names if name and name[0])
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("sparsefm."))


@pytest.mark.parametrize("room, path", list(rooms()))
def test_arrows_point_down(room, path):
    for target in set(imported_rooms(path)) - {room}:
        if room in GARDEN:
            pytest.fail(f"{path.name}: {room} is a garden room and imports {target}")
        if target not in GARDEN:
            assert FLOORS[target] < FLOORS[room], f"{path.name}: {room} imports {target}"


def test_every_room_has_a_floor():
    assert {room.values[0] for room in rooms()} <= set(FLOORS) | GARDEN


def test_importing_leaves_heavy_packages_alone():
    code = (
        "import sys, sparsefm; "
        "heavy = {'torch', 'matplotlib', 'pooch', 'sklearn.model_selection', 'sklearn.ensemble'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_exist_and_are_listed_in_order():
    assert list(sparsefm.__all__) == sorted(sparsefm.__all__)
    assert all(hasattr(sparsefm, name) for name in sparsefm.__all__)
