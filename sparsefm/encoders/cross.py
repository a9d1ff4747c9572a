"""Pairs of levels of two columns: `Cross`, its fitted column, and the tables that number levels and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from .field import MISSING, UNKNOWN, Block, Column, Frame, Ints, State, _array, _entry, _expect_keys, _share, _short
from .levels import Cells, OneHot, _LevelTable
from .vocabulary import Vocabulary

_VOCABULARY = ("levels", "bytes", "offsets", "tags")  # the arrays a vocabulary may have


@dataclass(frozen=True)
class Cross:
    """The pair of the levels of two columns: a 1 in the column of that pair.

    ``FrameEncoder({"sex×job": Cross("sex", "job")})`` has one column for each pair that occurs in the training
    rows. With the factors of two `OneHot` fields a factorization machine models all pairs, seen or not; a cross
    gives each frequent pair a weight (and factors) of its own.

    Parameters
    ----------
    first, second : str
        The input columns.
    min_count, max_levels, unknown, missing
        As in `OneHot`, of pairs. A pair that training never saw is unknown, even where both of its levels are
        known; it is missing where either of its cells is.

    Notes
    -----
    `inverse_transform` gives tuples (first, second), None where the pair is unknown or missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import Cross, FrameEncoder
    >>> frame = pd.DataFrame({"sex": ["F", "M"], "job": ["artist", "writer"]})
    >>> FrameEncoder({"both": Cross("sex", "job")}).fit(frame).get_feature_names_out().tolist()
    ['both=<unknown>', 'both=<missing>', 'both=F & artist', 'both=M & writer']
    """

    first: str
    second: str
    _: KW_ONLY
    min_count: int = 1
    max_levels: int | None = None
    unknown: Literal["bucket", "ignore", "error"] = "bucket"
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        OneHot(min_count=self.min_count, max_levels=self.max_levels, unknown=self.unknown, missing=self.missing)._check(
            column
        )
        for source in (self.first, self.second):
            if not isinstance(source, str):
                raise ValueError(f"column {column!r}: a cross is of two column names, got {_short(source)}")
        if self.first == self.second:
            raise ValueError(f"column {column!r}: a cross is of two columns, got {self.first!r} twice")


class PairCells(NamedTuple):
    """Two columns of levels as they were read."""

    codes: Ints  # (n_rows,) the distinct pair of each row, -1 where either cell is missing
    first: Ints  # (n_pairs,) a distinct pair's number among the levels of the first column ...
    second: Ints  # (n_pairs,) ... and of the second
    sides: tuple[Cells, Cells]


def _pair_up(first: Ints, second: Ints) -> tuple[Ints, Ints, Ints]:
    """The distinct pairs in the order of first appearance: their numbers (n_rows,) and both parts (n_pairs,)."""
    width = int(second.max(initial=0)) + 1
    codes, keys = pd.factorize(first * width + second)
    return codes.astype(np.int64, copy=False), *np.divmod(keys.astype(np.int64, copy=False), width)


class _LevelNumbers:
    """The levels of one input column, numbered as they come."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._table = _LevelTable(source, 1, None)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._table.vocabulary

    def read(self, frame: Frame) -> Cells:
        return OneHot()._read(frame[self.source], self.source)

    def check(self, cells: Cells) -> None:
        self._table.check(cells.levels)

    def add(self, cells: Cells) -> Ints:
        """Takes in the levels that are new; the numbers of all. (n_levels,)"""
        if not len(self.vocabulary):
            self.vocabulary.zone = self._table.waiting.zone = cells.zone
        self._table.count(cells.levels, np.ones(len(cells.levels), np.int64))
        self._table.settle()
        return self.find(cells)

    def find(self, cells: Cells) -> Ints:
        """The number of each level, -1 for one that is not here. (n_levels,)"""
        return self.vocabulary.numbers(cells.levels)

    def to_state(self, prefix: str) -> State:
        meta, arrays = self.vocabulary.to_state()
        return meta, {prefix + key: array for key, array in arrays.items()}

    @classmethod
    def from_state(
        cls, source: str, prefix: str, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[Self, list[str]]:
        """The numbers that `to_state` wrote, and the names of the arrays they are in."""
        self, own = cls(source), [key for key in _VOCABULARY if prefix + key in arrays]
        self._table.vocabulary = Vocabulary.from_state(meta, {key: arrays[prefix + key] for key in own})
        return self, [prefix + key for key in own]


class _PairNumbers:
    """Pairs of numbers below 2³¹, numbered as they come."""

    def __init__(self) -> None:
        self._keys = pd.Index(np.empty(0, np.int64))  # it hashes them when first asked

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def table(self) -> Ints:
        """(n_pairs, 2)"""
        keys = self._keys.to_numpy()
        return np.column_stack([keys >> 32, keys & 0xFFFFFFFF])

    def extend(self, first: Ints, second: Ints) -> None:
        """Takes in distinct pairs that are not here."""
        self._keys = self._keys.append(pd.Index(first << 32 | second))

    def find(self, first: Ints, second: Ints) -> Ints:
        """The number of each pair, -1 for one that is not here or has a negative part. (n,)"""
        keys = np.where((first < 0) | (second < 0), -1, first << 32 | second)
        return self._keys.get_indexer(pd.Index(keys)).astype(np.int64, copy=False)

    def add(self, first: Ints, second: Ints) -> Ints:
        """Takes in those of these distinct pairs that are new; the numbers of all. (n,)"""
        numbers = self.find(first, second)
        fresh = numbers < 0
        numbers[fresh] = np.arange(fresh.sum()) + len(self)
        self.extend(first[fresh], second[fresh])
        return numbers

    @classmethod
    def from_table(cls, flat: Ints, limits: tuple[int, int]) -> Self:
        """The numbers with this table, laid out row by row. Raises ValueError for a malformed one."""
        if len(flat) % 2:
            raise ValueError(f"a table of pairs has an even number of entries, got {len(flat)}")
        table = flat.reshape(-1, 2)
        if (table < 0).any() or (table >= np.array(limits)).any():
            raise ValueError(f"pairs must be of numbers from 0 to below {limits}")
        self = cls()
        self.extend(table[:, 0], table[:, 1])
        if not self._keys.is_unique:
            raise ValueError("a table of pairs holds each once, got a repeated pair")
        return self


class _Cross(Column):
    """A fitted `Cross`: the pairs that have columns, behind the special ones, and those that wait to be frequent."""

    def __init__(self, name: str, encoder: Cross) -> None:
        super().__init__(name, encoder)
        self.special = [UNKNOWN] * (encoder.unknown == "bucket") + [MISSING] * (encoder.missing == "own")
        self.sides = _LevelNumbers(encoder.first), _LevelNumbers(encoder.second)
        self.pairs, self.waiting = _PairNumbers(), _PairNumbers()
        self.counts = np.zeros(0, np.int64)  # of the waiting pairs

    @property
    def sources(self) -> tuple[str, ...]:
        return self.encoder.first, self.encoder.second

    @property
    def bucket(self) -> int:
        return self._place(UNKNOWN)

    @property
    def _room(self) -> int | None:
        return None if self.encoder.max_levels is None else self.encoder.max_levels - len(self.pairs)

    def read(self, frame: Frame) -> PairCells:
        first, second = (side.read(frame) for side in self.sides)
        present = (first.codes >= 0) & (second.codes >= 0)
        missing = int((~present).sum()) if self.encoder.missing == "error" else 0
        if missing:
            raise ValueError(f"column {self.name!r}: {missing} missing value(s), refused by missing='error'")
        codes = np.full(len(present), -1, np.int64)
        codes[present], *parts = _pair_up(first.codes[present], second.codes[present])
        return PairCells(codes, parts[0], parts[1], (first, second))

    def check(self, cells: PairCells, y: object) -> None:
        for side, own in zip(self.sides, cells.sides, strict=True):
            side.check(own)

    def count(self, cells: PairCells, y: object) -> None:
        numbers = [side.add(own) for side, own in zip(self.sides, cells.sides, strict=True)]
        if self._room == 0:
            return
        first, second = numbers[0][cells.first], numbers[1][cells.second]
        rows = np.bincount(cells.codes[cells.codes >= 0], minlength=len(first))
        absent = self.pairs.find(first, second) < 0
        places = self.waiting.add(first[absent], second[absent])
        self.counts = np.append(self.counts, np.zeros(len(self.waiting) - len(self.counts), np.int64))
        self.counts[places] += rows[absent]

    def settle(self) -> None:
        kept = np.flatnonzero(self.counts >= self.encoder.min_count)
        if self._room is not None:
            kept = np.sort(kept[np.argsort(-self.counts[kept], kind="stable")[: self._room]])
        table, stays = self.waiting.table, np.ones(len(self.counts), np.bool_)
        stays[kept] = False
        self.pairs.extend(table[kept, 0], table[kept, 1])
        stays &= self._room != 0  # nothing can come any more
        self.waiting, self.counts = _PairNumbers(), self.counts[stays]
        self.waiting.extend(table[stays, 0], table[stays, 1])
        self.size = len(self.special) + len(self.pairs)

    def encode(self, cells: PairCells) -> Block:
        numbers = [side.find(own) for side, own in zip(self.sides, cells.sides, strict=True)]
        found = self.pairs.find(numbers[0][cells.first], numbers[1][cells.second])
        unknown = found < 0
        if self.encoder.unknown == "error" and unknown.any():
            absent = np.flatnonzero(unknown)
            levels = [cells.sides[0].levels, cells.sides[1].levels]
            some = ", ".join(_short((levels[0][cells.first[i]], levels[1][cells.second[i]])) for i in absent[:5])
            more = ", ..." * (len(absent) > 5)
            raise ValueError(f"column {self.name!r}: {len(absent)} unknown pair(s), not seen in fit: {some}{more}")
        columns = np.where(unknown, self._place(UNKNOWN), found + len(self.special))
        indices = np.append(columns, self._place(MISSING)).astype(np.int32)[cells.codes]
        entry = indices >= 0
        counts = None if entry.all() else entry.astype(np.int8)
        shares = _share(np.append(unknown, False)[cells.codes]), _share(cells.codes < 0)
        return Block(counts, indices[entry], None, *shares)

    def _place(self, special: str) -> int:
        return self.special.index(special) if special in self.special else -1

    def labels(self, name: str) -> list[str]:
        texts = [_texts(side.vocabulary) for side in self.sides]
        table = self.pairs.table
        pairs = zip(texts[0][table[:, 0]], texts[1][table[:, 1]], strict=True)
        return [f"{name}={label}" for label in (*self.special, *(f"{first} & {second}" for first, second in pairs))]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        counts = np.diff(X.indptr)
        if (counts > 1).any():
            raise ValueError(f"column {self.name!r}: row {int(np.argmax(counts > 1))} has several pairs")
        numbers = np.full(X.shape[0], -1, np.int64)
        numbers[counts == 1] = X.indices.astype(np.int64) - len(self.special)
        table = self.pairs.table
        levels = (side.vocabulary.take(part).tolist() for side, part in zip(self.sides, table.T, strict=True))
        pairs = np.empty(len(table) + 1, object)
        pairs[:-1] = [*zip(*levels, strict=True)] if len(table) else []
        return pd.Series(pairs[np.maximum(numbers, -1)], dtype=object)

    def to_state(self) -> State:
        first, arrays = self.sides[0].to_state("first")
        second, others = self.sides[1].to_state("second")
        tables = {"pairs": self.pairs.table.ravel(), "waiting": self.waiting.table.ravel(), "counts": self.counts}
        return {"first": first, "second": second}, arrays | others | tables

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, ["first", "second"])
        self = cls(name, encoder)
        sides, used = zip(
            *(
                _LevelNumbers.from_state(source, side, _entry(meta, side, dict), arrays)
                for side, source in (("first", encoder.first), ("second", encoder.second))
            ),
            strict=True,
        )
        _expect_keys(arrays, [*used[0], *used[1], "pairs", "waiting", "counts"])
        self.sides = sides
        limits = len(sides[0].vocabulary), len(sides[1].vocabulary)
        self.pairs, self.waiting = (
            _PairNumbers.from_table(_array(arrays, key, np.int64), limits) for key in ("pairs", "waiting")
        )
        self.counts = _array(arrays, "counts", np.int64).copy()
        if len(self.counts) != len(self.waiting) or (self.counts < 1).any():
            raise ValueError(f"{len(self.waiting)} waiting pairs need as many counts above 0")
        if (self.pairs.find(*self.waiting.table.T) >= 0).any():
            raise ValueError("a pair has a column and waits to have one")
        if self._room is not None and self._room < 0:
            raise ValueError(f"{len(self.pairs)} pairs where max_levels is {encoder.max_levels}")
        self.size = len(self.special) + len(self.pairs)
        return self


def _texts(vocabulary: Vocabulary) -> npt.NDArray[np.object_]:
    """The labels of levels, quoted where two with " & " between them could be taken for two others."""
    texts = [
        repr(level) if label == level and (" & " in label or label[:1] in ("'", '"')) else label
        for level, label in zip(vocabulary.levels, vocabulary.labels(), strict=True)
    ]
    return np.array(texts, object)
