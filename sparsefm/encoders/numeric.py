"""Columns of numbers: `Numeric` and its fitted column."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array

from .field import MISSING, Block, Column, Frame, State, _check_choice, _entry, _expect_keys, _share, _short


@dataclass(frozen=True)
class Numeric:
    """A number: one column with its value.

    Parameters
    ----------
    scale : {"standard", None}
        "standard": minus the mean of the training data, divided by its standard deviation (a constant column
        becomes 0). None: as it is.
    clip : float or None
        Values beyond ±clip, once scaled, become ±clip; of a standardised column 5 is a usual choice.
    missing : {"own", "ignore", "error"}
        A missing number has value 0, which is the mean if scaled, and with "own" an entry in a second column
        that says so. That column exists only if values were missing in fit (or in a later partial_fit); if they
        first are in transform, value 0 is all they get. "error": ValueError.

    Notes
    -----
    Mean and deviation are those of the first fit: partial_fit leaves them, since the model knows the column by
    them. Of chunks they are, to rounding, those of the whole. An infinite value, or one that float32 cannot hold
    once scaled, is a ValueError; text is a TypeError.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, Numeric
    >>> encoder = FrameEncoder({"age": Numeric(clip=1.0)})
    >>> encoder.fit_transform(pd.DataFrame({"age": [20, 30, 40]})).toarray().tolist()
    [[-1.0], [0.0], [1.0]]
    """

    scale: Literal["standard"] | None = "standard"
    _: KW_ONLY
    clip: float | None = None
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        _check_choice(column, "scale", self.scale, ("standard", None))
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))
        if self.clip is not None and not (
            isinstance(self.clip, (int, float))
            and not isinstance(self.clip, bool)
            and 0 < self.clip <= sys.float_info.max
        ):
            raise ValueError(f"column {column!r}: clip must be a number above 0 or None, got {_short(self.clip)}")


class _Number(Column):
    """A fitted `Numeric`: the value's column and, if `indicator`, the missing one's."""

    def __init__(self, name: str, encoder: Numeric) -> None:
        super().__init__(name, encoder)
        self.n_values, self.gaps = 0, False  # counted so far
        self.mean, self.std, self.indicator = 0.0, 0.0 if encoder.scale == "standard" else 1.0, False

    def read(self, frame: Frame) -> npt.NDArray[np.float64]:
        values = _read_numbers(frame[self.name], self.name)
        missing = int(np.isnan(values).sum()) if self.encoder.missing == "error" else 0
        if missing:
            raise ValueError(f"column {self.name!r}: {missing} missing value(s), refused by missing='error'")
        return values

    def count(self, cells: npt.NDArray[np.float64], y: object) -> None:
        values = cells[~np.isnan(cells)]
        self.gaps |= len(values) < len(cells)
        if self.encoder.scale == "standard" and self.size == 0 and len(values):
            mean, std = _moments(values)
            self.n_values += len(values)
            part = len(values) / self.n_values
            between = mean - self.mean
            # var = (1-p) var_a + p var_b + p(1-p) (mean_b - mean_a)², by roots: squares could overflow
            within = math.hypot(math.sqrt(1 - part) * self.std, math.sqrt(part) * std)
            self.std = math.hypot(within, math.sqrt(part * (1 - part)) * between)
            self.mean = mean if part == 1 else self.mean + part * between

    def settle(self) -> None:
        self.std = self.std or 1.0
        self.indicator |= self.gaps and self.encoder.missing == "own"
        self.size = 1 + self.indicator

    def encode(self, cells: npt.NDArray[np.float64]) -> Block:
        missing = np.isnan(cells)
        with np.errstate(over="ignore", under="ignore"):
            scaled = (cells - self.mean) / self.std
            if self.encoder.clip is not None:
                scaled = np.clip(scaled, -self.encoder.clip, self.encoder.clip)
            data = scaled.astype(np.float32)
        if np.isinf(data).any():
            worst = cells[np.argmax(np.isinf(data))]
            raise ValueError(f"column {self.name!r}: {worst} is too large for float32 after scaling")
        data[missing] = 1 if self.indicator else 0
        entry = data != 0
        if entry.all():
            return Block(None, missing.astype(np.int32), data, 0.0, _share(missing))
        return Block(entry.astype(np.int8), missing[entry].astype(np.int32), data[entry], 0.0, _share(missing))

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
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, ["mean", "std", "indicator"])
        _expect_keys(arrays, [])
        mean, std = _entry(meta, "mean", float), _entry(meta, "std", float)
        if not math.isfinite(mean) or not math.isfinite(std) or std <= 0:
            raise ValueError(f"column {name!r}: mean {mean} and standard deviation {std} scale nothing")
        indicator = _entry(meta, "indicator", bool)
        if (indicator and encoder.missing != "own") or (encoder.scale is None and (mean, std) != (0.0, 1.0)):
            raise ValueError(f"column {name!r}: state {_short(meta)} does not go with {encoder}")
        self = cls(name, encoder)
        self.mean, self.std, self.gaps = mean, std, indicator
        self.settle()
        return self


def _read_numbers(cells: pd.Series[Any], column: str) -> npt.NDArray[np.float64]:
    """The numbers of a column, NaN where missing. (n_rows,)"""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        cells = cells.astype(object)
    kind = types.infer_dtype(cells, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty") and not (
        types.is_numeric_dtype(cells.dtype) and kind != "complex"
    ):
        raise TypeError(f"column {column!r}: numbers are needed, got {cells.dtype} cells ({kind})")
    try:
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {column!r}: numbers must fit in float64: {error}") from None
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"column {column!r}: {infinite} infinite value(s); numbers must be finite")
    return values


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, of one or more numbers of any size."""
    if values.min() == values.max():
        return float(values[0]), 0.0
    size = float(np.abs(values).max())
    with np.errstate(under="ignore"):
        mean, std = (values / size).mean() * size, (values / size).std() * size
    return float(mean), float(std)
