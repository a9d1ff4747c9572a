"""Everyone on every data set at hand: sparsefm as it comes, its peers tuned; quality beside seconds.

    python benchmarks/leaderboard.py --data DIR --out DIR --peers PYTHON     # about 25 minutes; leave the machine alone
    python benchmarks/leaderboard.py --out DIR --quick                       # does it all still work? about a minute

Writes leaderboard.md and leaderboard.csv to --out, after every task, and leaderboard.svg at the end. MovieLens-100K is
looked for in data/ (as the wheel of `make movielens`, or ml-100k*), and like ml-latest-small, movietweetings-100k,
InstEval and Adult in --data; made ratings, clicks and interactions are always there. PYTHON has the peers;
scikit-learn's models run here.

Ratings and labels are divided by time where there are times, at random elsewhere; rankings leave each user's last item
out. sparsefm runs with its default arguments. A peer's settings are the point of its grid (below the tables) with the
best first measure on the last part of the training rows, divided in the same way; then it is fitted to all of them.
Seconds are of the fits alone, on one thread: of xLearn, modern-fm without reading and checking. Everyone gets the same
encoded rows; trees get codes of the same columns instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any

import leaderboard_data as data
import numpy as np
from fit_curves import write
from leaderboard_fits import Pairs, Rows
from leaderboard_report import Line, as_csv, as_markdown, draw
from ranking import grid

HERE = Path(__file__).resolve().parent
LIMIT = 300.0  # seconds of a system on a task: search, fit and all that is around them
REPEATS = 3  # of a chosen fit that is shorter than a second; the median counts

# ---- who takes part


@dataclass(frozen=True)
class System:
    """What its adapter in leaderboard_fits.py is told, by kind of task; a kind that is not here is not run."""

    adapter: str
    grids: dict[str, dict[str, list[Any]]]  # of one point: nothing to tune
    module: str = "sparsefm"
    package: str = "sparsefm"

    @property
    def ours(self) -> bool:
        return self.module == "sparsefm"

    @property
    def here(self) -> bool:
        """Whether it runs in this interpreter."""
        return self.module in ("sparsefm", "sklearn")

    def points(self, kind: str, quick: bool) -> list[dict[str, Any]]:
        """The grid; if quick the first value of each setting, and two of the last one."""
        values = self.grids[kind]
        if quick:
            last = list(values)[-1:]
            values = {name: of_it[: 1 + (name in last)] for name, of_it in values.items()}
        points: list[dict[str, Any]] = grid(**values)
        return points


def _both(of_ratings: dict[str, list[Any]], of_labels: dict[str, list[Any]] | None = None) -> dict[str, Any]:
    return {"ratings": of_ratings, "labels": of_ratings if of_labels is None else of_labels}


SYSTEMS = {
    "sparsefm default": System("fm", _both({})),
    "sparsefm auto": System("fm", _both({"solver": ["auto"]})),
    "sparsefm mcmc": System("fm", {"ratings": {"solver": ["mcmc"]}}),
    "myFM": System("myfm", _both({"sweeps": [100], "rank": [8, 16]}), "myfm", "myfm"),
    "modern-fm": System(
        "modern_fm",
        _both(
            {"epochs": [5, 20], "lr": [0.03, 0.1], "l2": [2e-3, 1e-2]},
            {"epochs": [3, 10], "lr": [0.01, 0.03], "l2": [1e-4, 1e-3]},
        ),
        "modern_fm",
        "modern-fm",
    ),
    "xLearn": System(
        "xlearn",
        _both(
            {"epochs": [5, 20], "lr": [0.03, 0.1, 0.3], "l2": [2e-3, 1e-2, 5e-2]},
            {"epochs": [3, 10], "lr": [0.03, 0.1, 0.3], "l2": [1e-5, 1e-4, 1e-3]},
        ),
        "xlearn",
        "xlearn",
    ),
    "HistGradientBoosting": System(
        "boosting",
        _both({"max_iter": [100, 300], "max_leaf_nodes": [15, 31], "learning_rate": [0.05, 0.1]}),
        "sklearn",
        "scikit-learn",
    ),
    "one-hot + linear": System(
        "linear",
        _both({"l2": [1.0, 3.0, 10.0, 30.0, 100.0]}, {"l2": [0.3, 1.0, 3.0, 10.0, 30.0]}),
        "sklearn",
        "scikit-learn",
    ),
    "CatBoost": System(
        "catboost", _both({"iterations": [100, 300], "learning_rate": [0.05, 0.15]}), "catboost", "catboost"
    ),
    "sparsefm warp (default)": System("ranker", {"ranking": {}}),
    "sparsefm sampled_softmax": System("ranker", {"ranking": {"solver": ["sampled_softmax"]}}),
    "sparsefm implicit_als": System("ranker", {"ranking": {"solver": ["implicit_als"]}}),
    "sparsefm EASE": System("ease", {"ranking": {}}),
    "sparsefm Popularity": System("popularity", {"ranking": {}}),
    "LightFM WARP": System(
        "lightfm",
        {"ranking": {"epochs": [10, 30], "lr": [0.02, 0.05, 0.1], "l2": [0.0, 1e-5, 1e-4]}},
        "lightfm",
        "lightfm-next",
    ),
    "implicit ALS": System(
        "implicit_als", {"ranking": {"alpha": [1.0, 5.0, 20.0], "l2": [0.1, 1.0, 10.0]}}, "implicit", "implicit"
    ),
    "implicit BPR": System(
        "implicit_bpr",
        {"ranking": {"epochs": [50, 150], "lr": [0.03, 0.1], "l2": [0.001, 0.01, 0.1]}},
        "implicit",
        "implicit",
    ),
}


def choose(values: Sequence[float], lower: bool) -> int | None:
    """Place of the best value, the first of equal ones; NaN stands for a fit that failed. None: all did."""
    finite = [(value if lower else -value, place) for place, value in enumerate(values) if math.isfinite(value)]
    return min(finite)[1] if finite else None


def in_words(point: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )


# ---- a process a system


@dataclass
class Worker:
    """The process of one system. One that has died or run out of time is replaced when the next order comes."""

    python: str
    adapter: str
    folder: Path
    process: subprocess.Popen[str] | None = None

    def ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer, or {"error": why there is none}."""
        try:
            if self.process is None:
                self.process = start([self.python, self.adapter], self.folder)
            orders, answers = pipes(self.process)
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            if not select.select([answers], [], [], max(0.0, seconds))[0]:
                self.close()
                return {"error": f"no result in {seconds:.0f} s"}
            told: dict[str, Any] = json.loads(answers.readline() or "{}")
        except BrokenPipeError:
            told = {}
        if told:
            return told
        self.close()
        return {"error": "its process died"}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in pipes(self.process):
                with contextlib.suppress(BrokenPipeError):  # of an order that nobody read
                    pipe.close()
            self.process = None


def pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Its standard input and output."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    return process.stdin, process.stdout


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """leaderboard_fits.py with one thread, in a folder that it may litter."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(limits, "1") | {"PYTHONDONTWRITEBYTECODE": "1"}
    python, *rest = command
    return subprocess.Popen(
        [python, str(HERE / "leaderboard_fits.py"), *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=folder,
    )


def versions(python: str, names: dict[str, str], folder: Path) -> dict[str, dict[str, str]]:
    """What an interpreter says of modules: {"version": ...} or {"error": ...} each."""
    process = start([python, "--versions", *(f"{module}={package}" for module, package in names.items())], folder)
    said, _ = process.communicate(timeout=120)
    if process.returncode or not said:
        return {name: {"error": f"the interpreter ended with {process.returncode}"} for name in names}
    told: dict[str, dict[str, str]] = json.loads(said)
    return told


# ---- a task


@dataclass
class Prepared:
    """Both divisions of a task, as every system gets them."""

    task: data.Task
    search: Rows | Pairs
    full: Rows | Pairs
    folders: tuple[Path, Path] = field(init=False)

    @classmethod
    def of(cls, task: data.Task, folder: Path) -> Prepared:
        train, watched = task.cut(task.train)
        names = f"{folder.name}-search", f"{folder.name}-full"  # xLearn's adapter knows its files again by them
        parts = data.encoded(task, train, watched, names[0]), data.encoded(task, task.train, task.test, names[1])
        made = cls(task, *parts)
        made.folders = (folder / "search", folder / "full")
        for part, own in zip(parts, made.folders, strict=True):
            own.mkdir(parents=True)
            part.save(own)
        return made


def run(name: str, worker: Worker, prepared: Prepared, quick: bool, limit: float = LIMIT) -> Line:
    """Search and fit of one system."""
    system, task = SYSTEMS[name], prepared.task
    line = Line(task.kind, task.data, task.split, len(task.train), len(task.test), name, system.ours, floor=task.floor)
    points, began = system.points(task.kind, quick), time.perf_counter()
    out = worker.folder / f"{worker.adapter}.npy"

    def fitted(part: int, point: dict[str, Any], repeats: int, limit: float) -> tuple[float, tuple[float, ...], str]:
        """Seconds, measures and why there are none; what failed took as long as it was waited for."""
        order = {"rows": str(prepared.folders[part]), "out": str(out), "settings": point, "repeats": repeats}
        asked = time.perf_counter()
        answer = worker.ask(order, limit)
        if "error" in answer:
            return time.perf_counter() - asked, (math.nan, math.nan), answer["error"]
        try:
            quality = data.measured((prepared.search, prepared.full)[part], np.load(out))
        except ValueError as error:
            return answer["seconds"], (math.nan, math.nan), f"what it gave cannot be judged: {error}"
        return answer["seconds"], quality, ""

    search, chosen, notes = 0.0, points[0], ""
    if len(points) > 1:
        tried: list[float] = []
        why = ""
        for point in points:
            took, quality, error = fitted(0, point, 1, limit / 4)
            tried.append(quality[0])
            search, why = search + took, error or why
            if time.perf_counter() - began > limit / 2:
                break
        best = choose(tried, task.kind in data.LOWER_IS_BETTER)
        if best is None:
            return line.failed(why)
        chosen, notes = points[best], of_search(len(points), tried)
    took, quality, error = fitted(1, chosen, REPEATS, limit - (time.perf_counter() - began))
    words = (in_words(chosen) or "as it comes") + notes
    return line.failed(f"{words}: {error}") if error else line.done(words, quality, took, search)


def of_search(n_points: int, tried: list[float]) -> str:
    """What should be known of a search that did not see the whole grid."""
    missed, failed = n_points - len(tried), sum(map(math.isnan, tried))
    notes = [f"{missed} of {n_points} points not tried: time was up"] * (missed > 0)
    notes += [f"{failed} of {n_points} points failed"] * (failed > 0)
    return f" ({'; '.join(notes)})" if notes else ""


# ---- all of them


def processor() -> str:
    """Its name, as Linux or else Python has it."""
    told = Path("/proc/cpuinfo")
    rows = told.read_text().splitlines() if told.exists() else []
    names = [row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def preface(known: dict[str, str], skipped: list[str], load: float, quick: bool) -> list[str]:
    """What stands above the tables."""
    found = ", ".join(f"{package} {version}" for package, version in sorted(known.items()))
    lines = ["# Leaderboard", ""]
    if quick:
        lines += ["A check on small samples and grids: these numbers mean nothing.", ""]
    begun = f"{date.today().isoformat()}; {processor()}, load average {load:.1f} before the run"
    lines += [f"{begun}; one thread; seed 0; Python {platform.python_version()}; {found}.", ""]
    return lines + [f"Left out: {reason}\n" for reason in skipped]


def grids() -> list[str]:
    """What stands below the tables."""
    lines = ["## Grids", "", "Every combination is tried. Settings with one value are fixed.", ""]
    for name, system in SYSTEMS.items():
        for kind, values in system.grids.items():
            if len(system.points(kind, quick=False)) > 1:
                told = "; ".join(f"{setting} {', '.join(f'{v:g}' for v in of_it)}" for setting, of_it in values.items())
                lines.append(f"- {name}, {kind}: {told}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with further data sets")
    parser.add_argument("--out", type=Path, default=Path("out/leaderboard"))
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--quick", action="store_true", help="a check on small samples, no result")
    args = parser.parse_args()
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data must be a folder, there is none at {args.data}")
    peers = shutil.which(args.peers)
    if peers is None:
        parser.error(f"--peers must be a Python interpreter, there is none at {args.peers}")
    args.peers = str(Path(peers).absolute())  # it is started in other folders; its links stay, a venv is known by them
    args.out.mkdir(parents=True, exist_ok=True)
    found = data.find([HERE.parent / "data", *([args.data] if args.data else [])])
    print("found: " + (", ".join(found) or "nothing, so made data only"), flush=True)

    with tempfile.TemporaryDirectory(prefix="sparsefm-leaderboard-") as folder:
        everyone(found, Path(folder), args)
    print(f"written to {args.out}")


def everyone(found: dict[str, Path], folder: Path, args: argparse.Namespace) -> None:
    """All tasks, one after the other, each with all systems that can be imported."""
    load = os.getloadavg()[0]  # seconds are worth less where others compute too
    here = {name: name for name in ("sparsefm", "numpy", "scipy", "pandas")} | {"sklearn": "scikit-learn"}
    there = {system.module: system.package for system in SYSTEMS.values() if not system.here}
    told = versions(args.peers, there, folder) | versions(sys.executable, here, folder)
    known = {(here | there)[module]: say["version"] for module, say in told.items() if "version" in say}
    skipped = [f"{there[module]}: {say['error']}" for module, say in told.items() if "error" in say]
    for reason in skipped:
        print(f"left out: {reason}", flush=True)
    workers = {
        name: Worker(sys.executable if system.here else args.peers, system.adapter, folder / name)
        for name, system in SYSTEMS.items()
        if "version" in told[system.module]
    }
    lines: list[Line] = []
    at_once = (os.cpu_count() or 1) if args.quick else 1  # quick seconds are no result
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for worker in workers.values():
                worker.folder.mkdir()
            for number, task in enumerate(data.tasks(found, args.quick)):
                began = time.perf_counter()
                prepared = Prepared.of(task, folder / str(number))
                runs = [
                    pool.submit(run, name, worker, prepared, args.quick)
                    for name, worker in workers.items()
                    if task.kind in SYSTEMS[name].grids
                ]
                for each in runs:
                    lines.append(each.result())
                    print(lines[-1].said(), flush=True)
                print(f"{task.kind}, {task.data}: {time.perf_counter() - began:.0f} s", flush=True)
                text = "\n".join([*preface(known, skipped, load, args.quick), as_markdown(lines), *grids(), ""])
                write_text(args.out / "leaderboard.md", text)
                write_text(args.out / "leaderboard.csv", as_csv(lines))
    finally:
        for worker in workers.values():
            worker.close()
    write(args.out / "leaderboard.svg", lambda part: draw(part, lines))


def write_text(path: Path, text: str) -> None:
    write(path, lambda part: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
