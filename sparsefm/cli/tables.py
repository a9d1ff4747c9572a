"""Tables that come in, and tables that go out: to a terminal, a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import iter_frames, load_libffm, load_libfm, load_libsvm
from ..persistence import replacing

__all__ = ["LAYOUTS", "check_output", "expect", "is_matrix", "plain", "read_matrix", "read_table", "show"]

_MATRICES: dict[str, Any] = {"libsvm": load_libsvm, "libfm": load_libfm, "libffm": load_libffm}
_SUFFIXES = {".libsvm": "libsvm", ".svm": "libsvm", ".svmlight": "libsvm", ".libfm": "libfm", ".libffm": "libffm"}
_SUFFIXES |= {".ffm": "libffm"}
LAYOUTS = ("csv", "tsv", "parquet", "recbole", "criteo", "avazu", *_MATRICES)
_WRITERS = (".csv", ".tsv", ".parquet")
_ROWS_SHOWN = 40


def _matrix_layout(path: str, layout: str | None) -> str | None:
    if layout is not None:
        return layout if layout in _MATRICES else None
    return _SUFFIXES.get(Path(path.removesuffix(".gz")).suffix)


def is_matrix(paths: Sequence[str], layout: str | None) -> bool:
    """Whether these are files of a label and numbered entries a line, not tables with names."""
    return _matrix_layout(paths[0], layout) is not None


def read_matrix(paths: Sequence[str], layout: str | None, n_features: int | None = None) -> tuple[Any, Any, Any]:
    """Rows (n_rows, n_features) as CSR, labels (n_rows,), and fields (n_features,) or None, of one file."""
    if len(paths) > 1:
        raise ValueError(f"one file of this layout at a time, got {len(paths)}; put them together first")
    loaded = _MATRICES[_matrix_layout(paths[0], layout) or ""](paths[0], n_features=n_features)
    return loaded if len(loaded) == 3 else (*loaded, None)


def read_table(paths: Sequence[str], layout: str | None = None, joined: Sequence[str] = ()) -> pd.DataFrame:
    """All rows of the files, one after the other, with the columns of the tables joined to them."""
    if is_matrix(paths, layout):
        raise ValueError(f"{paths[0]} has no columns with names; give a table, such as a .csv or .parquet file")
    frame = pd.concat(iter_frames([*paths], layout=layout), ignore_index=True)
    for path in joined:
        frame = _join(frame, read_table([path]), path)
    return frame


def _join(frame: pd.DataFrame, other: pd.DataFrame, path: str) -> pd.DataFrame:
    keys = [column for column in frame.columns if column in other.columns]
    if not keys:
        raise ValueError(
            f"--join {path}: it has no column in common with the table; its columns are {', '.join(other.columns)}, "
            f"the table's {', '.join(frame.columns)}"
        )
    if other.duplicated(keys).any():
        twice = other.loc[other.duplicated(keys), keys].iloc[0].to_dict()
        raise ValueError(f"--join {path}: it has several rows of {twice}, so which one to join is open")
    for key in keys:
        if pd.api.types.is_numeric_dtype(frame[key]) != pd.api.types.is_numeric_dtype(other[key]):
            raise ValueError(f"--join {path}: {key} holds numbers in one of the tables and text in the other")
    return frame.merge(other, on=keys, how="left", sort=False)


def check_output(path: str | None, suffixes: Sequence[str] = _WRITERS) -> None:
    """Raises for a file that could not be written, before the work is done."""
    if path is None:
        return
    target = Path(path)
    if suffixes and target.suffix not in suffixes:
        raise ValueError(f"--out {path}: the name must end in {', '.join(suffixes)}")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {target.parent}")
    if target.is_dir():
        raise ValueError(f"--out {path} is a folder; name a file")


def show(frame: pd.DataFrame, out: str | None, as_json: bool) -> None:
    """Writes a table to the file, or shows it: JSON lines, aligned columns in a terminal, tab-separated to a pipe."""
    if out is not None:
        _write(frame, Path(out))
    elif as_json:
        print(frame.to_json(orient="records", lines=True, double_precision=9), end="")
    elif sys.stdout.isatty():
        print(frame[:_ROWS_SHOWN].to_string(index=False, float_format=lambda value: f"{value:.4g}"))
        if len(frame) > _ROWS_SHOWN:
            print(f"... {len(frame) - _ROWS_SHOWN:,} more rows: a pipe, or --out FILE, takes them all")
    else:
        frame.to_csv(sys.stdout, sep="\t", index=False, float_format="%.9g", lineterminator="\n")


def _write(frame: pd.DataFrame, path: Path) -> None:
    with replacing(path) as file:
        if path.suffix == ".parquet":
            try:
                frame.to_parquet(file, index=False, engine="pyarrow")
            except ImportError as error:
                raise ImportError(f"{path}: Parquet is written by pyarrow: pip install sparsefm[arrow]") from error
        else:
            sep = "\t" if path.suffix == ".tsv" else ","
            file.write(frame.to_csv(sep=sep, index=False, float_format="%.9g", lineterminator="\n").encode())
    print(f"Wrote {len(frame):,} rows to {path}.", file=sys.stderr)


def plain(value: Any) -> Any:
    """NumPy's numbers as JSON has them."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def expect(frame: pd.DataFrame, column: str, what: str) -> None:
    if column not in frame.columns:
        raise ValueError(f"{what}: there is no column {column!r}, only {', '.join(map(str, frame.columns))}")
