"""FrameEncoder against scikit-learn's OneHotEncoder, and MultiHot against CountVectorizer.

    python benchmarks/encoders.py [--rows 1000000] [--repeat 3]

A frame of ten columns with 2 to 100,000 levels (half of them evenly spread, half with the frequencies of ids on the
web), once as each kind of column. Both encoders see the same frame in the same process by turns; seconds are the best
of the repetitions. Peak memory is taken in fresh processes: the resident set at its highest during fit_transform, less
what it was before. OneHotEncoder takes no polars frames; there it gets the pandas frame of text.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

N_LEVELS = (2, 7, 24, 100, 500, 2_000, 10_000, 30_000, 100_000, 100_000)
KINDS = ("str", "category", "pyarrow", "int64", "object", "polars", "arrow table")


def codes(rows: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    even = [rng.integers(n, size=rows) for n in N_LEVELS]
    return [
        c if i % 2 else (n * rng.random(rows) ** 3).astype(np.int64)
        for i, (c, n) in enumerate(zip(even, N_LEVELS, strict=True))
    ]


def frame(kind: str, rows: int) -> Any:
    """The frame as this kind: the same rows, the same levels."""
    numbers = pd.DataFrame({f"c{i}": c for i, c in enumerate(codes(rows))})
    if kind == "int64":
        return numbers
    objects = pd.DataFrame(
        {
            name: np.array([f"level{i}" for i in range(n)], object)[c]
            for (name, c), n in zip(numbers.items(), N_LEVELS, strict=True)
        }
    )
    if kind == "object":
        return objects.astype(object)
    text = objects.astype("str")
    if kind == "str":
        return text
    if kind == "category":
        return text.astype("category")
    import pyarrow as pa

    table = pa.Table.from_pandas(text, preserve_index=False)
    if kind == "pyarrow":
        return table.to_pandas(types_mapper=pd.ArrowDtype)
    if kind == "polars":
        import polars

        return polars.from_arrow(table)
    return table


def lists(rows: int) -> pd.Series:
    """Cells such as "Comedy|Drama": one to five of forty words, about 4,000 combinations."""
    rng = np.random.default_rng(1)
    words = np.array([f"word{i:02d}" for i in range(40)], object)
    cells = np.array(["|".join(words[rng.choice(40, rng.integers(1, 6), replace=False)]) for _ in range(4_000)], object)
    return pd.Series(cells[(4_000 * rng.random(rows) ** 2).astype(int)], name="genres").astype("str")


def ours(frame: Any) -> Any:
    from sparsefm.encoders import FrameEncoder, OneHot

    names = frame.column_names if hasattr(frame, "column_names") else list(frame.columns)
    return FrameEncoder({name: OneHot() for name in names})


def theirs(frame: Any) -> Any:
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(handle_unknown="ignore")


def seconds(run: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak(kind: str, rows: int, which: str) -> float:
    """MiB that fit_transform takes at most, in a process of its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--rows", str(rows), "--peak", which, "--kind", kind],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(out.stdout)


def resident(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def print_peak(kind: str, rows: int, which: str) -> None:
    data = frame(kind, rows)
    small = data.slice(0, 100) if kind in ("polars", "arrow table") else data.iloc[:100]
    encoder = ours(data) if which == "ours" else theirs(data)
    encoder.fit_transform(small)  # imports
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    encoder.fit_transform(data)
    print(resident("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--peak", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.kind, args.rows, args.peak)
        return
    print(
        f"{args.rows:,} rows x 10 columns          OneHotEncoder         FrameEncoder       ratio            peak MiB"
    )
    for kind in [args.kind] if args.kind else KINDS:
        data = frame(kind, args.rows)
        other = frame("str", args.rows) if kind in ("polars", "arrow table") else data
        times: dict[str, list[float]] = {}
        for _ in range(args.repeat):
            for who, make, X in (("theirs", theirs, other), ("ours", ours, data)):
                encoder = make(X)
                times.setdefault(f"{who} fit", []).append(
                    seconds(lambda encoder=encoder, X=X: encoder.fit_transform(X))
                )
                times.setdefault(f"{who} use", []).append(seconds(lambda encoder=encoder, X=X: encoder.transform(X)))
        best = {name: min(values) for name, values in times.items()}
        del data, other
        memory = [
            peak(kind if who == "ours" or kind not in ("polars", "arrow table") else "str", args.rows, who)
            for who in ("theirs", "ours")
        ]
        for step, text in (("fit", "fit_transform"), ("use", "transform")):
            a, b = best[f"theirs {step}"], best[f"ours {step}"]
            tail = f"{memory[0]:8.0f} {memory[1]:8.0f}" if step == "fit" else ""
            print(f"{kind:12} {text:14} {a:15.3f} s {b:18.3f} s {a / b:10.1f}x {tail}", flush=True)
    multihot(args.rows, args.repeat)


def multihot(rows: int, repeat: int) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    from sparsefm.encoders import FrameEncoder, MultiHot

    cells = lists(rows)
    frame = cells.to_frame()
    encoder = FrameEncoder({"genres": MultiHot("|", weight=None, unknown="ignore", missing="ignore")})
    vectorizer = CountVectorizer(token_pattern=r"[^|]+", lowercase=False, binary=True)
    a, b = [], []
    for _ in range(repeat):
        a.append(seconds(lambda: vectorizer.fit_transform(cells)))
        b.append(seconds(lambda: encoder.fit_transform(frame)))
    same = vectorizer.get_feature_names_out().tolist()
    ours = encoder.transform(frame)
    place = [encoder.get_feature_names_out().tolist().index(f"genres={name}") for name in same]
    assert (ours[:, place] != vectorizer.transform(cells)).nnz == 0
    print(
        f"{'MultiHot':12} {'fit_transform':14} {min(a):15.3f} s {min(b):18.3f} s {min(a) / min(b):10.1f}x  "
        "(CountVectorizer; the same matrix)"
    )


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
