"""Columns of numbers: `Numeric` and its fitted column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array

from .field import MISSING, Block, Frame, State, _check_choice, _entry, _expect_keys, _share, _short


@dataclass(frozen=True)
class Numeric:
    """A number: one column with its value.

    Parameters
    ----------
    scale : {"standard", None}
        "standard": minus the mean of the training data, divided by its standard deviation (a constant column
        becomes 0). None: as it is.
    missing : {"own", "ignore", "error"}
        A missing number has value 0, which is the mean if scaled, and with "own" an entry in a second column
        that says so. That column exists only if values were missing in fit; if they first are in transform,
        value 0 is all they get. "error": ValueError.

    An infinite value, or one that float32 cannot hold once scaled, is a ValueError; text is a TypeError.
    """

    scale: Literal["standard"] | None = "standard"
    _: KW_ONLY
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        _check_choice(column, "scale", self.scale, ("standard", None))
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))


class _Number:
    """A fitted `Numeric`: the value's column and, if `indicator`, the missing one's."""

    def __init__(self, name: str, encoder: Numeric, mean: float, std: float, indicator: bool) -> None:
        self.name, self.encoder = name, encoder
        self.mean, self.std, self.indicator = mean, std, indicator
        self.size = 1 + indicator

    @classmethod
    def fit(cls, name: str, encoder: Any, frame: Frame, y: object) -> tuple[_Number, Block]:
        values = _read_numbers(frame[name], name)
        missing = np.isnan(values)
        mean, std = (0.0, 1.0) if encoder.scale is None else _moments(values[~missing])
        column = cls(name, encoder, mean, std, encoder.missing == "own" and bool(missing.any()))
        return column, column._encode(values)

    def encode(self, frame: Frame) -> Block:
        return self._encode(_read_numbers(frame[self.name], self.name))

    def _encode(self, values: npt.NDArray[np.float64]) -> Block:
        missing = np.isnan(values)
        if self.encoder.missing == "error" and missing.any():
            raise ValueError(f"column {self.name!r}: {missing.sum()} missing value(s), refused by missing='error'")
        with np.errstate(over="ignore", under="ignore"):
            data = ((values - self.mean) / self.std).astype(np.float32)
        if np.isinf(data).any():
            worst = values[np.argmax(np.isinf(data))]
            raise ValueError(f"column {self.name!r}: {worst} is too large for float32 after scaling")
        data[missing] = 1 if self.indicator else 0
        entry = data != 0
        counts = None if entry.all() else entry.astype(np.int64)
        return Block(counts, missing[entry].astype(np.int64), data[entry], 0.0, _share(missing))

    def labels(self, name: str) -> list[str]:
        return [name, f"{name}={MISSING}"] if self.indicator else [name]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        dense = X.toarray().astype(np.float64)
        values = dense[:, 0] * self.std + self.mean
        if self.indicator:
            values[dense[:, 1] != 0] = np.nan
        return pd.Series(values.astype(np.float32))

    def to_state(self) -> State:
        return {"mean": self.mean, "std": self.std, "indicator": self.indicator}, {}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> _Number:
        _expect_keys(meta, ["mean", "std", "indicator"])
        _expect_keys(arrays, [])
        mean, std = _entry(meta, "mean", float), _entry(meta, "std", float)
        if not math.isfinite(mean) or not math.isfinite(std) or std <= 0:
            raise ValueError(f"column {name!r}: mean {mean} and standard deviation {std} scale nothing")
        indicator = _entry(meta, "indicator", bool)
        if (indicator and encoder.missing != "own") or (encoder.scale is None and (mean, std) != (0.0, 1.0)):
            raise ValueError(f"column {name!r}: state {_short(meta)} does not go with {encoder}")
        return cls(name, encoder, mean, std, indicator)


def _read_numbers(cells: pd.Series[Any], column: str) -> npt.NDArray[np.float64]:
    """The numbers of a column, NaN where missing. (n_rows,)"""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        cells = cells.astype(object)
    kind = types.infer_dtype(cells, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty") and not (
        types.is_numeric_dtype(cells.dtype) and kind != "complex"
    ):
        raise TypeError(f"column {column!r}: Numeric needs numbers, got {cells.dtype} cells ({kind})")
    try:
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {column!r}: Numeric needs numbers that float64 can hold: {error}") from None
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"column {column!r}: {infinite} infinite value(s); Numeric needs finite numbers")
    return values


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, of numbers of any size; the deviation of a constant is 1."""
    if values.size == 0:
        return 0.0, 1.0
    if values.min() == values.max():
        return float(values[0]), 1.0
    size = float(np.abs(values).max())
    with np.errstate(under="ignore"):
        mean, std = (values / size).mean() * size, (values / size).std() * size
    return float(mean), float(std) or 1.0
