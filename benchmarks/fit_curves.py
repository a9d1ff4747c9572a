"""Held-out loss against training seconds: sparsefm as it comes, its peers tuned, on the same splits.

    python benchmarks/fit_curves.py --python PEERS --movielens PATH --threads 1 2 --out DIR
    python benchmarks/fit_curves.py --python PEERS --movielens PATH --out DIR --quick      # does it all still work?

Writes DIR/fit_curves.md (tables), DIR/fit_curves.svg (one panel a workload) and DIR/fit_curves.json (every point).
Workloads that an earlier run left in DIR stay there, so they can be measured one at a time. PEERS is an interpreter
that has the peers; sparsefm runs in the one that runs this. What is measured, and how to read it:
benchmarks/README.md.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import workloads
from peers import SYSTEMS
from run import run_one
from scipy import sparse
from workloads import Workload

OURS = "sparsefm defaults"
PEERS = ("torch adagrad", "modern-fm adagrad", "xlearn adagrad", "libmf", "myfm")  # slowest to tune first
ONE_THREAD = {"modern-fm adagrad", "myfm"}  # more threads change nothing
SWEEPS = 16  # of a sampler for an epoch of the others: a sweep is no epoch, `--seconds` is what ends it
GRIDS: dict[str, dict[str, list[float]]] = {
    "squared": {"lr": [0.03, 0.1, 0.3], "l2": [2e-3, 1e-2, 5e-2]},
    "logistic": {"lr": [0.03, 0.1, 0.3], "l2": [1e-5, 1e-4, 1e-3]},
}
TUNED_AS = {"W4": "W3"}  # same fields, larger vocabularies
KIN = {"ML": "W1"}  # two ids: the settings that no grid chooses are W1's


@dataclass(frozen=True)
class Curve:
    """Held-out losses of one system after so many training seconds, summed up from the start."""

    system: str
    threads: int
    settings: str  # the chosen ones, in words
    seconds: list[float]
    losses: list[float]
    error: str = ""

    def best(self) -> tuple[float, float]:
        """(lowest loss, seconds when it was first reached)."""
        at = int(np.argmin(self.losses))
        return self.losses[at], self.seconds[at]


@dataclass(frozen=True)
class Panel:
    """What one run found on one workload."""

    title: str
    quality: str  # "RMSE" or "log loss"
    curves: list[Curve]


def time_to_loss(seconds: list[float], losses: list[float], target: float) -> float | None:
    """Seconds at the first point whose loss is `target` or lower, with nothing in between; None: there is none."""
    return next((s for s, loss in zip(seconds, losses, strict=True) if loss <= target), None)


# ---- the data


def movielens(path: Path) -> Workload:
    """MovieLens-100K, its canonical fold 1, two ids a row; nobody knows its noise floor."""
    from sparsefm.datasets import load_movielens

    train, test = load_movielens(path).fold(1)
    # every id has a column, also those without a training row: some peers take two entries a row and no fewer
    levels = [np.unique(np.concatenate([train[c], test[c]])) for c in ("user_id", "item_id")]
    sizes = (len(levels[0]), len(levels[1]))

    def side(frame: Any) -> tuple[sparse.csr_array, np.ndarray]:
        columns = np.searchsorted(levels[0], frame["user_id"]), sizes[0] + np.searchsorted(levels[1], frame["item_id"])
        n = len(frame)
        indices, indptr = np.column_stack(columns).astype(np.int32).ravel(), np.arange(0, 2 * n + 1, 2, dtype=np.int32)
        X = sparse.csr_array((np.ones(2 * n, np.float32), indices, indptr), shape=(n, sum(sizes)))
        return X, frame["rating"].to_numpy(np.float32)

    return Workload("ML", "squared", 8, sizes, *side(train), *side(test), math.nan)


def make(name: str, args: argparse.Namespace) -> Workload:
    if name != "ML":
        return workloads.make(name, args.rows)
    work = movielens(args.movielens)
    return limited(work, args.rows, args.rows) if args.quick else work


def limited(work: Workload, n_train: int, n_test: int) -> Workload:
    """The first rows of both sides."""
    sides = (work.X_train[:n_train], work.y_train[:n_train], work.X_test[:n_test], work.y_test[:n_test])
    return Workload(work.name, work.loss, work.n_factors, work.field_sizes, *sides, work.floor)


# ---- settings


def base_settings(name: str, workload: str) -> dict[str, Any] | None:
    """What a peer runs with before the grid; None: it cannot run this workload."""
    return SYSTEMS[name].settings.get(KIN.get(workload, workload))


def grid_points(loss: str, quick: bool) -> list[dict[str, float]]:
    grid = {key: values[1:2] if quick else values for key, values in GRIDS[loss].items()}
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def in_words(loss: str, point: dict[str, float]) -> str:
    """The chosen values; a better one may lie beyond one that is the grid's last."""
    edges = {key: (min(values), max(values)) for key, values in GRIDS[loss].items()}
    return ", ".join(f"{key} {value:g}" + " (edge)" * (value in edges[key]) for key, value in point.items())


def choose(work: Workload, name: str, args: argparse.Namespace) -> dict[str, float] | str:
    """The grid's point with the lowest loss on the validation rows, or why there is none."""
    tried, error = [], ""
    with tempfile.TemporaryDirectory(prefix="sparsefm-tune-") as folder:  # one a peer: two may be tuned at once
        data = Path(folder) / f"{work.name}.npz"
        work.save(data)
        for point in grid_points(work.loss, args.quick):
            settings = (base_settings(name, work.name) or {}) | point
            got = run_one(name, data, args.tune_epochs, 1, settings, python=args.python, timeout=args.timeout)
            if "error" in got:
                error = got["error"]
            elif math.isfinite(got["held_out"]):
                tried.append((got["held_out"], point))
    return min(tried, key=lambda t: t[0])[1] if tried else error or "no finite loss anywhere on the grid"


def choose_all(work: Workload, args: argparse.Namespace) -> dict[str, dict[str, float] | str]:
    """Every peer's point. No time is taken here, so as many peers at once as the curves may have threads."""
    names = [n for n in args.peers if base_settings(n, work.name) is not None and n != "myfm"]
    split = limited(workloads.validation_split(work), args.tune_rows, args.tune_rows // 8)
    with ThreadPoolExecutor(max(args.threads)) as pool:
        return dict(zip(names, pool.map(lambda name: choose(split, name, args), names), strict=True))


# ---- curves


def trace(work: Workload, data: Path, name: str, threads: int, point: dict[str, float], args: Any) -> Curve:
    """One system's curve: of one fit that tells its losses, else of fits of 1, 2, 4, … epochs.

    What was measured before an error is kept.

    It ends after --epochs (ours: after its own default), after --seconds of training, and, where a longer fit is a
    new one, when the loss has risen.
    """
    words = "as it comes" if name == OURS else in_words(work.loss, point) or "nothing to tune"
    settings = (base_settings(name, work.name) or {}) | point
    seconds: list[float] = []
    losses: list[float] = []

    epochs = SWEEPS * args.epochs if SYSTEMS[name].family == "sweep" else args.epochs
    tells = name in (OURS, "torch adagrad", "myfm")
    python = sys.executable if name == OURS else args.python
    limit = {"stop_after": args.seconds}
    error = ""
    for n in [epochs] if tells else [2**i for i in range(epochs.bit_length())]:
        got = run_one(name, data, n, threads, settings | limit, python=python, timeout=args.timeout)
        if "error" in got:
            error = got["error"]
            break
        if tells:
            seconds, losses = np.cumsum(got["seconds"]).tolist(), got["losses"]
            break
        seconds.append(n * float(np.mean(got["seconds"])))  # of some there is one mean only
        losses.append(got["held_out"])
        if 2 * seconds[-1] > args.seconds or not losses[-1] <= min(losses):
            break
    while losses and not math.isfinite(losses[-1]):  # it ran away there
        del seconds[-1], losses[-1]
        error = error or "its loss became infinite"
    return Curve(name, threads, words, seconds, losses, error)


def curves(work: Workload, chosen: dict[str, dict[str, float] | str], args: argparse.Namespace) -> list[Curve]:
    """All systems one after another, each in processes of its own, ours with each number of threads."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sparsefm-curves-") as folder:
        data = Path(folder) / f"{work.name}.npz"
        work.save(data)
        for turn, threads in enumerate(args.threads):
            for name in (OURS, *args.peers):
                point, began = chosen.get(name, {}), time.perf_counter()
                cannot = name != OURS and base_settings(name, work.name) is None
                if cannot or (turn > 0 and name in ONE_THREAD):
                    continue
                if isinstance(point, str):
                    found.append(Curve(name, threads, "", [], [], point))
                else:
                    found.append(trace(work, data, name, threads, point, args))
                took = f"{time.perf_counter() - began:.0f} s, reading and conversion included"
                print(f"{work.name}: {name}, threads {threads}: {found[-1].error or took}", file=sys.stderr, flush=True)
    return found


# ---- what is written


def table(panel: Panel) -> str:
    """The Markdown table of a workload, a part for each number of threads with a sentence on the best peer.

    A peer that has one thread only is compared again with ours on several: it has nothing faster to offer.
    """
    found, quality = panel.curves, panel.quality
    lines = [panel.title, ""]
    for ours in (c for c in found if c.system == OURS and c.losses):
        peers = [c for c in found if c.system != OURS and c.losses]
        peers = [c for c in peers if c.threads == ours.threads or c.system in ONE_THREAD]
        lines += [
            f"| system | threads | settings | best held-out {quality} | at, s | curve ends, s | sparsefm there, s "
            "| ratio |",
            "|---|--:|---|--:|--:|--:|--:|--:|",
            _line(ours, []),
        ]
        for peer in sorted(peers, key=lambda c: c.best()[0]):
            lines.append(_line(peer, _against(ours, peer)))
        if peers:
            lines += ["", _headline(ours, min(peers, key=lambda c: c.best()[0]), quality)]
        lines.append("")
    errors = {c.system: c.error for c in found if c.error}
    return "\n".join(lines + [f"{system}: {error}\n" for system, error in errors.items()])


def _against(ours: Curve, peer: Curve) -> list[str]:
    """When ours is as good as the peer's best, and the peer's seconds for that over ours."""
    loss, peer_seconds = peer.best()
    seconds = time_to_loss(ours.seconds, ours.losses, loss)
    return ["never", ""] if seconds is None else [f"{seconds:.3f}", f"{peer_seconds / seconds:.1f}"]


def _line(curve: Curve, against: list[str]) -> str:
    loss, seconds = curve.best()
    falling = loss == curve.losses[-1]
    cells = [curve.system, str(curve.threads), curve.settings, f"{loss:.4f}" + " ↓" * falling]
    return "| " + " | ".join([*cells, f"{seconds:.3f}", f"{curve.seconds[-1]:.3f}", *(against or ["", ""])]) + " |"


def _headline(ours: Curve, peer: Curve, quality: str) -> str:
    loss, peer_seconds = peer.best()
    seconds = time_to_loss(ours.seconds, ours.losses, loss)
    said = (
        f"Time to the best peer's best loss ({peer.system}, {quality} {loss:.4f} after {peer_seconds:.3f} s): sparsefm "
    )
    if seconds is None:
        return said + f"does not reach it, its best is {ours.best()[0]:.4f}."
    return said + f"{seconds:.3f} s, ratio {peer_seconds / seconds:.1f}."


def draw(path: Path, panels: dict[str, Panel]) -> None:
    """One panel a workload; further numbers of threads are dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    colours = {name: f"C{i}" for i, name in enumerate((OURS, *PEERS))}
    for ax, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        told = [c for c in panel.curves if c.losses]
        first = min((c.threads for c in told), default=1)
        for c in told:
            label = f"{c.system}, {c.threads} thread{'s' * (c.threads > 1)}"
            (line,) = ax.plot(c.seconds, c.losses, color=colours[c.system], label=label, marker=".", linewidth=1.2)
            line.set(linestyle="-" if c.threads == first else "--", zorder=3 if c.system == OURS else 2)
        best = sorted(c.best()[0] for c in told)
        if best:  # the first epochs of some would flatten all the rest
            spread = best[-1] - best[0] + 1e-3
            ax.set_ylim(best[0] - 0.1 * spread, best[-1] + 1.5 * spread)
        ax.set_xscale("log")
        ax.set_title(name, loc="left")
        ax.set_xlabel("training seconds")
        ax.set_ylabel(f"held-out {panel.quality}")
        ax.grid(color="#d9d9d9", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    entries = {label: line for ax in figure.axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=2 * len(panels),
        frameon=False,
        fontsize="small",
    )
    write(path, lambda part: figure.savefig(part, format="svg"))


def write(path: Path, how: Callable[[Path], Any]) -> None:
    """All of a file or nothing."""
    part = path.with_name(path.name + ".part")
    how(part)
    os.replace(part, path)


def write_all(folder: Path, panels: dict[str, Panel]) -> None:
    points = json.dumps({name: asdict(panel) for name, panel in panels.items()}, indent=1)
    tables = "\n".join(table(panel) for panel in panels.values())
    write(folder / "fit_curves.json", lambda part: part.write_text(points))
    write(folder / "fit_curves.md", lambda part: part.write_text(tables, encoding="utf-8"))
    draw(folder / "fit_curves.svg", panels)


def read_all(folder: Path) -> dict[str, Panel]:
    path = folder / "fit_curves.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    return {n: Panel(p["title"], p["quality"], [Curve(**c) for c in p["curves"]]) for n, p in told.items()}


def describe(work: Workload) -> tuple[str, str]:
    """Title and name of the loss."""
    quality = "RMSE" if work.loss == "squared" else "log loss"
    rows, n_features = work.X_train.shape
    floor = "" if math.isnan(work.floor) else f"; noise floor {quality} {work.floor:.4f}"
    name = "ML: MovieLens-100K, fold 1" if work.name == "ML" else work.name
    title = (
        f"{name}: {rows:,} training rows, {work.X_train.nnz / rows:.1f} non-zeros a row, {n_features:,} features, "
        f"k = {work.n_factors}{floor}"
    )
    return title, quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--workloads", nargs="*", default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--movielens", type=Path, help="MovieLens-100K as for load_movielens; left out without")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, default=1_000_000, help="training and held-out rows together")
    parser.add_argument("--epochs", type=int, default=16, help="of a peer's curve")
    parser.add_argument("--seconds", type=float, default=15.0, help="of training in one curve")
    parser.add_argument("--tune-rows", type=int, default=200_000, help="training rows of a tuning fit")
    parser.add_argument("--tune-epochs", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one process: some hang now and then")
    parser.add_argument("--out", type=Path, required=True, help="a folder for tables, picture and points")
    parser.add_argument("--quick", action="store_true", help="a check on 20,000 rows, no result")
    args = parser.parse_args()
    if importlib.util.find_spec("matplotlib") is None:  # not after minutes of measuring
        parser.error("the picture is drawn by matplotlib: pip install matplotlib")
    if args.quick:
        args.rows, args.epochs, args.tune_rows, args.tune_epochs = 20_000, 2, 5_000, 2
    args.out.mkdir(parents=True, exist_ok=True)

    chosen: dict[str, dict[str, dict[str, float] | str]] = {}
    panels = read_all(args.out)
    for name in [*args.workloads, *(["ML"] if args.movielens else [])]:
        began = time.perf_counter()
        work = make(name, args)
        tuned = TUNED_AS.get(name, name)
        if tuned not in chosen:
            chosen[tuned] = choose_all(work if tuned == name else make(tuned, args), args)
        tuning = time.perf_counter() - began
        panels[name] = Panel(*describe(work), curves(work, chosen[tuned], args))
        took = f"{tuning:.0f} s of tuning, {time.perf_counter() - began:.0f} s in all"
        print(f"{table(panels[name])}\n({took})\n", flush=True)
        write_all(args.out, panels)  # after each workload: what is measured is kept if a later one fails


if __name__ == "__main__":
    main()
