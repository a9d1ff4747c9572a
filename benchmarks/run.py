"""Time sparsefm, its peers and the machine on the same data, side by side in one run.

    python benchmarks/run.py                                              # everything, on a quiet machine
    python benchmarks/run.py --workloads W1 W3 --systems sparsefm xlearn
    python benchmarks/run.py --quick                                      # does it all still work?
    python benchmarks/run.py --tune --systems torch --workloads W1        # try settings instead of timing

What is measured, and how to read it: benchmarks/README.md.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workloads
from ceiling import Ceilings
from peers import SYSTEMS

HERE = Path(__file__).resolve().parent
SWEEPS = 64  # a sampler's first run, from which its quality comes: posterior means need more than 8 sweeps


def run_one(name: str, data: Path, epochs: int, threads: int, settings: dict, *, python: str, timeout: float) -> dict:
    """The result of one system in a process of its own, or {"error": one line}."""
    result = data.parent / "result.json"
    result.unlink(missing_ok=True)
    command = [python, str(HERE / "peers.py"), name, str(data), str(result)]
    command += ["--epochs", str(epochs), "--threads", str(threads), "--settings", json.dumps(settings)]
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | dict.fromkeys(limits, str(threads)) | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no result in {timeout:.0f} s"}
    if done.returncode or not result.exists():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": said[-1]}
    return json.loads(result.read_text())


def measure(work: workloads.Workload, chosen: list[tuple[str, int]], folder: Path, args: argparse.Namespace) -> dict:
    """Every system and the ceilings once a round; each round starts one system further on."""
    data = folder / f"{work.name}.npz"
    work.save(data)
    ceilings = Ceilings(work.X_train, work.n_factors)
    passes: dict[int, list[dict]] = {t: [] for t in args.threads}
    runs: dict[tuple[str, int], dict] = {}
    for turn in range(args.rounds):
        first = turn % max(1, len(chosen))
        for name, threads in chosen[first:] + chosen[:first]:
            system, so_far = SYSTEMS[name], runs.setdefault((name, threads), {"seconds": [], "forward": []})
            if "error" in so_far:
                continue
            many = system.family == "sweep" and turn == 0 and not args.quick
            epochs, settings = SWEEPS if many else args.epochs, system.settings[work.name]
            got = run_one(name, data, epochs, threads, settings, python=args.python, timeout=args.timeout)
            if "error" in got:
                print(f"{work.name}: {name} skipped: {got['error']}", flush=True)
                so_far["error"] = got["error"]
                continue
            so_far["seconds"] += got["seconds"]
            so_far["forward"] += [got["forward_rows"] / s for s in got["forward_seconds"]]
            so_far.setdefault("held_out", got["held_out"])
        for t in args.threads:
            passes[t] += [ceilings.measure(t) for _ in range(3)]
    systems = [{"system": n, "threads": t, **run} for (n, t), run in runs.items()]
    return {"workload": work.name, "floor": work.floor, "ceilings": passes, "systems": systems}


def table(work: workloads.Workload, found: dict) -> str:
    """One workload's results as a Markdown table with a title."""
    rows, quality = work.X_train.shape[0], "RMSE" if work.loss == "squared" else "log loss"
    lines = [
        f"{work.name}: {rows:,} training rows, {work.X_train.nnz / rows:.1f} non-zeros a row, "
        f"{work.X_train.shape[1]:,} features, k = {work.n_factors}; noise floor {quality} {work.floor:.4f}",
        "",
        "| system | threads | s / epoch: best | median | M rows/s | share of ceiling | ratio to sparsefm "
        f"| held-out {quality} | forward M rows/s: best | median | share of ceiling |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    best = {
        threads: {kind: min(p[kind] for p in passes) for kind in passes[0]}
        for threads, passes in found["ceilings"].items()
    }
    done = [s for s in found["systems"] if "error" not in s]
    base: dict[str, float] = {}  # family -> seconds of its first sparsefm system, which the ratios refer to
    for s in done:
        if s["system"].startswith("sparsefm"):
            base.setdefault(SYSTEMS[s["system"]].family, min(s["seconds"]))
    for s in done:
        system, ceiling, fastest = SYSTEMS[s["system"]], best[s["threads"]], min(s["seconds"])
        cells = [
            s["system"] + (" (sweep)" if system.family == "sweep" else ""),
            s["threads"],
            f"{fastest:.4f}",
            f"{statistics.median(s['seconds']):.4f}",
            f"{rows / fastest / 1e6:.2f}",
            f"{ceiling[system.ceiling] / fastest:.0%}" if system.ceiling else "",
            f"{fastest / base[system.family]:.2f}" if system.family in base else "",
            "" if s["held_out"] is None else f"{s['held_out']:.4f}",
        ]
        rates = s["forward"]
        cells += [f"{r / 1e6:.1f}" for r in (max(rates), statistics.median(rates))] if rates else ["", ""]
        cells.append(f"{max(rates) * ceiling['gather separate'] / rows:.0%}" if rates else "")
        lines.append(_line(cells))
    for threads, passes in found["ceilings"].items():
        for kind, fastest in best[threads].items():
            middle = statistics.median(p[kind] for p in passes)
            cells = [f"*ceiling: {kind}*", threads]
            if kind.startswith("update"):
                cells += [f"{fastest:.4f}", f"{middle:.4f}", f"{rows / fastest / 1e6:.2f}", *[""] * 6]
            else:
                cells += [*[""] * 6, f"{rows / fastest / 1e6:.1f}", f"{rows / middle / 1e6:.1f}", ""]
            lines.append(_line(cells))
    notes = [f"\n{s['system']}: {SYSTEMS[s['system']].note}" for s in done if SYSTEMS[s["system"]].note]
    return "\n".join(lines + notes)


def _line(cells: list) -> str:
    return f"| {' | '.join(str(c) for c in cells)} |"


def tune(work: workloads.Workload, name: str, folder: Path, args: argparse.Namespace) -> None:
    """Held-out loss over a system's grid, on the last ninth of the training rows; best first."""
    data, system = folder / f"{work.name}-validation.npz", SYSTEMS[name]
    if not data.exists():
        workloads.validation_split(work).save(data)
    tried = []
    for values in itertools.product(*system.grid.values()):
        settings = system.settings[work.name] | dict(zip(system.grid, values, strict=True))
        got = run_one(name, data, args.epochs, 1, settings, python=args.python, timeout=args.timeout)
        if "error" in got:
            print(f"{work.name}: {name} {settings}: {got['error']}")
        elif got["held_out"] is not None:
            tried.append((got["held_out"], min(got["seconds"]), settings))
    for held_out, seconds, settings in sorted(tried, key=lambda t: t[0])[:6]:
        print(f"{work.name}: {name}: {held_out:.4f} {seconds:.3f} s {json.dumps(settings)}", flush=True)


def select(workload: str, args: argparse.Namespace) -> list[tuple[str, int]]:
    """(system, threads) with settings for the workload: sparsefm on all of --threads, peers on the first."""
    chosen = []
    for name, system in SYSTEMS.items():
        if workload not in system.settings or not name.startswith(tuple(args.systems)):
            continue
        chosen += [(name, t) for t in (args.threads if name.startswith("sparsefm") else args.threads[:1])]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--systems", "--peers", nargs="+", default=[""], help="beginnings of names")
    parser.add_argument("--rows", type=int, default=1_000_000, help="training and held-out rows together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one system in one round")
    parser.add_argument("--json", type=Path, help="every single time goes here")
    parser.add_argument("--quick", action="store_true", help="a check on 20,000 rows, no result")
    parser.add_argument("--tune", action="store_true", help="try each system's grid instead of timing")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.rounds, args.epochs = 20_000, 1, 2
    found = []
    for name in args.workloads:
        start = time.perf_counter()
        work = workloads.make(name, args.rows)
        with tempfile.TemporaryDirectory(prefix="sparsefm-bench-") as folder:
            chosen = select(name, args)
            if args.tune:
                for system, _ in chosen:
                    tune(work, system, Path(folder), args)
                continue
            found.append(measure(work, chosen, Path(folder), args))
        print(f"\n{table(work, found[-1])}\n\n({time.perf_counter() - start:.0f} s)\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
