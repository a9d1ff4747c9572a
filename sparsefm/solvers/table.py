"""The interleaved training table of _kernels/steps.h, private to one training, and the slot its state is kept in."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import adaptive, dispatch, minibatch
from ..model import PAIRS, Family, FMParams, aligned_zeros, fill, score
from ..validation import Rows

__all__ = ["Slot", "Table"]

# Number of each layout in steps.h, and the reals of its tail: w, λ_w, λ_v and the state of the row.
LAYOUTS = {"sgd": (0, 3), "adagrad": (1, 4), "rowwise": (2, 5), "adam": (3, 7), "ftrl": (4, 5), "compact": (5, 5)}
_W, _L2_LINEAR, _L2_FACTORS, _STATE = range(4)  # places in a tail
_STILL = 1e30
_LONGEST = 7  # tail, and that of a field weight
_CHUNK = 1 << 16  # features converted at a time
_IN_MEMORY = 1 << 30  # bytes of a slot beyond which it is a file
_LARGE = 1 << 26  # bytes of a table beyond which its memory is used again for what comes out of it


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class Table:
    """One row a feature: factors, their state, weight, its strengths of L2 and its state; and a tail for the bias, with
    those of field weights behind it."""

    def __init__(
        self, layout: str, n_features: int, n_factors: int, dtype: Any, epsilon: float, family: Family = PAIRS
    ) -> None:
        self.layout, self.n_factors, self.family = layout, n_factors, family
        self.width = family.blocks * n_factors  # numbers of a feature
        self.optimiser, tail = LAYOUTS[layout]
        wide = self.width > 64  # then whole cache lines cost little, and no vector straddles two
        self.kp = _rounded(self.width, 16 if wide else 8)
        self.at = int(adaptive.tail_of(self.optimiser, self.kp))
        self._compact = layout == "compact"
        stride = _rounded(self.at + tail, 16 if wide or self._compact else 8)
        self.array = aligned_zeros((n_features, stride), dtype)
        n_weights = family.n_fields**2 if family.kind == "fwfm" else 0
        self.bias = np.zeros(_LONGEST * (1 + n_weights), dtype)
        self.admitted = np.zeros(n_features, dtype=bool)
        # what the state of a row, and of the bias, begins as where that is not zero
        self.fresh_state: dict[int, float] = {}
        if layout == "adam":
            self.fresh_state = {_STATE: 1.0, _STATE + 1: 1.0}
        elif layout == "ftrl":
            self.fresh_state = {_STATE + 1: epsilon**0.5}

    @property
    def n_features(self) -> int:
        return len(self.array)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def w0(self) -> float:
        return float(self.bias[_W])

    @property
    def _pair_tails(self) -> NDArray[Any]:
        """(n_fields, n_fields, 7), of which those at f ≤ g are used; empty without field weights."""
        n = self.family.n_fields if len(self.bias) > _LONGEST else 0
        return self.bias[_LONGEST:].reshape(n, n, _LONGEST)

    @property
    def field_weights(self) -> NDArray[Any] | None:
        upper = np.triu(self._pair_tails[..., _W])
        return np.ascontiguousarray(upper + np.triu(upper, 1).T) if upper.size else None

    def clear(self) -> None:
        self.array[...] = 0
        self.bias[...] = 0
        self.admitted[:] = False

    def admit(self, features: NDArray[Any], init_std: float, seed: int, scale: float = 1.0) -> None:
        """Gives starting factors, scale times those of `model.init`, to those of the features that have had none. One
        never admitted scores zero."""
        fresh = features[~self.admitted[features]]
        self.admitted[fresh] = True
        for place, value in self.fresh_state.items():
            self.array[fresh, self.at + place] = value
        fill(self.array, self.n_factors, fresh, self.family, init_std, seed, scale, self._compact)

    def strengthen(self, features: NDArray[Any], l2_linear: Any, l2_factors: Any) -> None:
        """Sets the strengths of L2 of some features."""
        self.array[features, self.at + _L2_LINEAR] = l2_linear
        self.array[features, self.at + _L2_FACTORS] = l2_factors

    def strengthen_pairs(self, l2: float) -> None:
        """Sets the strength with which field weights are drawn to one."""
        self._pair_tails[..., _L2_LINEAR] = l2

    def hold(self, features: NDArray[Any]) -> None:
        """Keeps them where they are, by sums of squares so large that no step of AdaGrad's is one."""
        self.array[features, self.kp : 2 * self.kp] = _STILL
        self.array[features, self.at + _STATE] = _STILL

    def start(self, params: FMParams, rate: float, l1: float) -> None:
        """Takes its parameters from a fit: those of every feature, whose state is left at its beginning."""
        self.admitted[:] = True
        for place, value in self.fresh_state.items():
            self.array[:, self.at + place] = value
        self.array[:, self.at] = params.w
        if self.layout == "ftrl":  # whose weights follow from their state
            root = self.fresh_state[_STATE + 1]
            self.array[:, self.at + _STATE] = -params.w * root / rate - np.sign(params.w) * l1
        if params.field_weights is not None:
            self._pair_tails[..., _W] = params.field_weights
        for start in range(0, self.n_features, _CHUNK):
            V = params.V[start : start + _CHUNK]
            if self._compact:
                bits = np.ascontiguousarray(V, np.float32).view(np.uint32)
                halves = self.array[start : start + _CHUNK].view(np.uint16)
                halves[:, : self.width] = (bits.astype(np.uint64) + 0x8000) >> 16
            else:
                self.array[start : start + _CHUNK, : self.width] = V

    def grow(self, n_features: int, start: NDArray[Any], family: Family) -> None:
        """Appends rows; start: for each feature the row it begins as, -1 for one never seen; family: with their
        fields."""
        self.family = family
        present = self.n_features
        array = aligned_zeros((n_features, self.array.shape[1]), self.dtype)
        array[:present] = self.array
        admitted = np.zeros(n_features, dtype=bool)
        admitted[:present] = self.admitted
        copied = present + np.flatnonzero(start[present:] >= 0)
        array[copied], admitted[copied] = self.array[start[copied]], self.admitted[start[copied]]
        self.array, self.admitted = array, admitted

    def scores(self, rows: Rows, n_threads: int | None) -> NDArray[Any]:
        """(n_rows,) scores, from where the parameters are."""
        if not self._compact:
            return score(self.view(), rows, n_threads=n_threads)
        out = np.empty(rows.n_rows, np.float32)

        def run(start: int, stop: int) -> None:
            minibatch.compact_scores(
                out, rows.indptr, rows.indices, rows.data, self.array, self.kp, self.w0, start, stop, dispatch.ISA
            )

        dispatch.run_pieces(run, rows.n_rows, rows.nnz * (self.n_factors + 4), n_threads)
        return out

    def view(self) -> FMParams:
        """The parameters where they are; not of a compact table."""
        return self._params(self.array[:, self.at], self.array[:, : self.width])

    def copy(self, features: Any = slice(None)) -> FMParams:
        """The parameters, or those of some features, in arrays of their own."""
        rows = self.array[features]
        w = np.ascontiguousarray(rows[:, self.at])
        if self._compact:
            return self._params(w, _widened(rows, self.width))
        V = aligned_zeros((len(rows), self.width), self.dtype)
        V[...] = rows[:, : self.width]
        return self._params(w, V, features)

    def _params(self, w: NDArray[Any], V: NDArray[Any], features: Any = slice(None)) -> FMParams:
        family = self.family
        if family.fields is not None:
            family = replace(family, fields=np.ascontiguousarray(family.fields[features]))
        return FMParams(self.w0, w, V, family, self.field_weights)

    def unpack(self) -> FMParams:
        """The parameters in separate arrays, in the memory of the table, which is used up."""
        n, k, stride = self.n_features, self.width, self.array.shape[1]
        if stride < k or self.array.nbytes < _LARGE:
            return self.copy()
        w = np.ascontiguousarray(self.array[:, self.at])
        flat, rows = self.array.reshape(-1), self.array
        for start in range(0, n, _CHUNK):  # what is written lies at or before what has been read
            some = rows[start : start + _CHUNK]
            V = _widened(some, k) if self._compact else some[:, :k].copy()
            flat[start * k : start * k + V.size] = V.reshape(-1)
        block: Any = self.array
        while isinstance(block.base, np.ndarray):
            block = block.base
        offset = flat.ctypes.data - block.ctypes.data
        dtype, size = self.dtype, n * k * self.dtype.itemsize
        del self.array, flat, rows, some
        block.resize(offset + size, refcheck=False)  # nothing else refers to it
        return self._params(w, block[offset:].view(dtype).reshape(n, k))

    @property
    def by_rate(self) -> NDArray[Any]:
        """(n_features,) what of the state depends on the length of the step: FTRL's z; of others nothing."""
        return self.array[:, self.at + _STATE] if self.layout == "ftrl" else self.array[:0, 0]

    def slow(self, factor: float, l1: float) -> None:
        """Prepares the state for a step that is `factor` as long: only FTRL's depends on it, beyond l1."""
        if self.layout == "ftrl":
            z = self.array[:, self.at + _STATE]
            z += (z - np.clip(z, -l1, l1)) * (1 / factor - 1)
            self.bias[_STATE] /= factor

    def start_bias(self, w0: float, rate: float, epsilon: float) -> None:
        self.bias[_W] = w0
        self._pair_tails[..., _W] = 1
        if self.layout == "adam":
            self._pair_tails[..., _STATE : _STATE + 2] = 1
            self.bias[_STATE : _STATE + 2] = 1
        elif self.layout == "ftrl":
            self.bias[_STATE : _STATE + 2] = -w0 * epsilon**0.5 / rate, epsilon**0.5


def _widened(rows: NDArray[Any], n_factors: int) -> NDArray[Any]:
    """Factors of compact rows as float32."""
    V = aligned_zeros((len(rows), n_factors), np.float32)
    np.left_shift(rows.view(np.uint16)[:, :n_factors], 16, out=V.view(np.uint32), dtype=np.uint32)
    return V


class Slot:
    """Keeps one state of a table, in memory or, above a gibibyte, in a temporary file."""

    def __init__(self) -> None:
        self._array: NDArray[Any] | None = None
        self._file: Any = None
        self.bias: NDArray[Any] | None = None

    @property
    def filled(self) -> bool:
        return self.bias is not None

    def save(self, table: Table) -> None:
        self.bias = None  # empty, should it be interrupted
        if table.array.nbytes <= _IN_MEMORY:
            if self._array is None:
                self._array = np.empty_like(table.array)
            self._array[...] = table.array
        else:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sparsefm-", suffix=".table")  # noqa: SIM115
            self._file.seek(0)
            self._file.write(table.array.data)
            self._file.flush()
        self.bias = table.bias.copy()

    def fill(self, array: NDArray[Any], bias: NDArray[Any]) -> None:
        """Takes arrays that another slot has given."""
        self._array, self.bias = np.array(array), np.array(bias)

    def arrays(self, table: Table) -> tuple[NDArray[Any], NDArray[Any]]:
        """What it holds, as (array, bias)."""
        assert self.bias is not None
        if self._array is None:
            self._file.seek(0)
            return np.fromfile(self._file, table.dtype).reshape(table.array.shape), self.bias
        return self._array, self.bias

    def close(self) -> None:
        """Gives up its memory or its file."""
        if self._file is not None:
            self._file.close()
        self._array = self._file = self.bias = None

    def restore(self, table: Table) -> None:
        assert self.bias is not None
        if self._array is not None:
            table.array[...] = self._array
        else:
            self._file.seek(0)
            if self._file.readinto(table.array.reshape(-1).view(np.uint8).data) != table.array.nbytes:
                raise OSError("the temporary file that keeps the state of the training has been cut short")
        table.bias[...] = self.bias
