"""What the fitted rows say of a level: its labels (`TargetStats`) and how often it occurs (`Counts`)."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain, combinations, pairwise
from numbers import Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from .cross import _LevelNumbers, _pair_up, _PairNumbers
from .field import (
    Block,
    Column,
    Frame,
    Ints,
    State,
    _array,
    _check_choice,
    _check_integer,
    _entry,
    _expect_keys,
    _share,
    _short,
)
from .levels import Cells
from .vocabulary import Level, _factorize

Floats = npt.NDArray[np.float64]
_FOLDS = 5
_NOTHING = "<nothing>"  # the bin of rows of whose level nothing is known


def _check_columns(encoder: TargetStats | Counts, column: str) -> None:
    names = encoder.columns
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"column {column!r}: columns must be a list of column names, got {_short(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"column {column!r}: columns must be distinct, got {_short(names)}")
    if encoder.crosses not in (1, 2) or isinstance(encoder.crosses, bool):
        raise ValueError(f"column {column!r}: crosses must be 1 or 2, got {_short(encoder.crosses)}")


@dataclass(frozen=True)
class TargetStats:
    """The mean label of each level, and of each pair of levels, by rows other than the row itself.

    Of a level with n rows and labels that sum to s the statistic is (s + prior·m) / (n + prior), m the mean of
    all labels. Its log-odds or bins are a short and dense description of columns with many levels.

    Parameters
    ----------
    columns : sequence of str
        The input columns. Numbers are levels here too, which serves those that repeat, such as an age.
    crosses : {1, 2}
        1: a statistic for each column. 2: one for each pair of columns as well.
    scheme : {"ordered", "kfold"}
        Which rows the statistics of a training row come from. "ordered": those before it in a random
        permutation (CatBoost: Prokhorenkova et al., NeurIPS 2018). "kfold": those of the other 4 of 5 random
        folds. "kfold" has the lower held-out loss, for its statistics rest on about as many rows as later those
        of `transform` do, while "ordered" gives the first rows of a level next to none.
    prior : float
        The number of rows that the overall mean counts for.
    permutations : int
        The statistics of training rows are means over this many independent permutations, or partitions. The
        more there are, the closer each row comes to the mean of its level without itself, and beside the level
        that gives its label away: of rows of one level, those of the larger label have the smaller mean. The
        noise of a single permutation hides much of this. More than one hardly helps where levels are frequent,
        and harms where they are rare, or where fine bins can tell such means apart.
    n_bins : int
        At most so many bins of a statistic.
    output : {"logit", "bins"}
        "logit": for each statistic one column with its log-odds (for a real target the statistic itself), minus
        their mean over the training rows, divided by their standard deviation. "bins": for each statistic an
        entry in one of its bins, which are cut at the quantiles of the training rows; of K statistics each
        entry is 1/√K, so that every row has length 1.
    random_state : int
        Of the permutations.

    Notes
    -----
    The target y has two classes of any type (two distinct numbers are two classes), the larger in sorted order
    being 1, or is a real number.

    In `fit_transform` no row sees its own label: its level is described by other rows. Only m has all labels in
    it. It is the same for every row and so tells no two apart; an m without the row's own label would not be,
    and would give that label away. `transform` uses all fitted rows. A missing cell is a level of its own.
    Where no other row speaks for a level or pair (in `transform`: one that training never saw) there is nothing
    to say: no entry, or a bin of its own. `partial_fit` goes on counting; means, deviations and bins stay as
    first settled.

    Chunks counted one by one give the same `transform` as the whole, to rounding where labels are not integers.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, TargetStats
    >>> clicks = pd.DataFrame({"ad": ["a", "b"] * 50})
    >>> encoder = FrameEncoder({"stats": TargetStats(["ad"])}).fit(clicks, [1, 0] * 49 + [0, 1])
    >>> encoder.transform(pd.DataFrame({"ad": ["a", "b"]})).toarray().round(0).tolist()
    [[1.0], [-1.0]]
    """

    columns: Sequence[str]
    _: KW_ONLY
    crosses: Literal[1, 2] = 1
    scheme: Literal["ordered", "kfold"] = "kfold"
    prior: float = 3.0
    permutations: int = 1
    n_bins: int = 16
    output: Literal["logit", "bins"] = "logit"
    random_state: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.columns, list):
            object.__setattr__(self, "columns", tuple(self.columns))
        if isinstance(self.prior, Real) and not isinstance(self.prior, bool) and abs(self.prior) <= sys.float_info.max:
            object.__setattr__(self, "prior", float(self.prior))

    def _check(self, column: str) -> None:
        _check_columns(self, column)
        _check_choice(column, "scheme", self.scheme, ("ordered", "kfold"))
        _check_choice(column, "output", self.output, ("bins", "logit"))
        if not isinstance(self.prior, float) or not 0 < self.prior < math.inf:
            raise ValueError(f"column {column!r}: prior must be a finite number above 0, got {_short(self.prior)}")
        _check_integer(column, "permutations", self.permutations, 1, 1000)
        _check_integer(column, "n_bins", self.n_bins, 2, 10000)
        _check_integer(column, "random_state", self.random_state, 0, 2**63 - 1)


@dataclass(frozen=True)
class Counts:
    """How often each level, and each pair of levels, occurs in the fitted rows.

    Parameters
    ----------
    columns : sequence of str
        The input columns.
    crosses : {1, 2}
        1: a count for each column. 2: one for each pair of columns as well.
    output : {"bins", "log"}
        "bins": for each count an entry in one of the bins 0, 1, 2-3, 4-7, ...; the last one, which holds the
        largest count of the first fit, is open; of K counts each entry is 1/√K. "log": for each count n one
        column with log(1 + n), minus its mean over the training rows, divided by its standard deviation.

    Notes
    -----
    In `fit_transform` a row leaves itself out. A missing cell is a level of its own. `partial_fit` goes on
    counting; bins, means and deviations stay as first settled. No y is needed.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import Counts, FrameEncoder
    >>> encoder = FrameEncoder({"seen": Counts(["ad"])}).fit(pd.DataFrame({"ad": ["a", "a", "a", "b"]}))
    >>> encoder.get_feature_names_out().tolist()
    ['seen:ad=0', 'seen:ad=1', 'seen:ad=2+']
    """

    columns: Sequence[str]
    _: KW_ONLY
    crosses: Literal[1, 2] = 1
    output: Literal["bins", "log"] = "bins"

    def __post_init__(self) -> None:
        if isinstance(self.columns, list):
            object.__setattr__(self, "columns", tuple(self.columns))

    def _check(self, column: str) -> None:
        _check_columns(self, column)
        _check_choice(column, "output", self.output, ("bins", "log"))


class StatisticCells(NamedTuple):
    """Columns of levels as they were read, and their pairs."""

    sides: list[Cells]
    pairs: list[tuple[Ints, Ints, Ints]]  # the distinct pair of each row; distinct pairs of codes + 1, 0: missing


class _Statistics(Column):
    """Statistics of columns and of their pairs, side by side: which level each row has, and its columns.

    Statistic k counts the levels 0, 1, 2, ..., where level 0 of a column is the missing one; those of a pair are
    pairs of these.
    """

    def __init__(self, name: str, encoder: TargetStats | Counts) -> None:
        super().__init__(name, encoder)
        self.sides = [_LevelNumbers(source) for source in encoder.columns]
        self.couples = list(combinations(range(len(self.sides)), 2)) if encoder.crosses == 2 else []
        self.pairs = [_PairNumbers() for _ in self.couples]
        self.counts = [np.zeros(0, np.int64) for _ in range(self.n_statistics)]  # rows of each level

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.encoder.columns)

    @property
    def n_statistics(self) -> int:
        return len(self.sides) + len(self.couples)

    def read(self, frame: Frame) -> StatisticCells:
        sides = [side.read(frame) for side in self.sides]
        return StatisticCells(sides, [_pair_up(sides[i].codes + 1, sides[j].codes + 1) for i, j in self.couples])

    def check(self, cells: StatisticCells, y: npt.NDArray[Any] | None) -> None:
        for side, own in zip(self.sides, cells.sides, strict=True):
            side.check(own)

    def _levels(self, cells: StatisticCells, *, add: bool = False) -> Iterator[Ints]:
        """Statistic by statistic, the level of each row, -1 where it is unknown. add: take in what is new."""
        tables = []
        for side, own in zip(self.sides, cells.sides, strict=True):
            numbers = side.add(own) if add else side.find(own)
            tables.append(np.append(0, np.where(numbers < 0, -1, numbers + 1)))  # by code + 1
            yield tables[-1][own.codes + 1]
        for (i, j), pairs, (codes, first, second) in zip(self.couples, self.pairs, cells.pairs, strict=True):
            numbers = (pairs.add if add else pairs.find)(tables[i][first], tables[j][second])
            yield numbers[codes]

    def _count(self, k: int, levels: npt.NDArray[Any]) -> None:
        self.counts[k] = _accumulate(self.counts[k], np.bincount(levels))

    def _names(self) -> list[str]:
        quoted = [repr(name) if "×" in name or name[:1] in ("'", '"') else name for name in self.sources]
        return [*quoted, *(f"{quoted[i]}×{quoted[j]}" for i, j in self.couples)]

    def _shares(self, cells: StatisticCells) -> tuple[float, float]:
        """Of rows with an unknown level, and with a missing one."""
        strange, missing = (np.zeros(len(cells.sides[0].codes), np.bool_) for _ in range(2))
        for side, own in zip(self.sides, cells.sides, strict=True):
            strange |= np.append(side.find(own) < 0, False)[own.codes]
            missing |= own.codes < 0
        return _share(strange), _share(missing)

    def _block(self, entries: Sequence[Sequence[npt.NDArray[Any]]], cells: StatisticCells) -> Block:
        """entries: for each statistic the column of each row and, unless it is a bin, the number in it."""
        indices = np.stack([own[0] for own in entries], axis=1)
        if len(entries[0]) == 1:
            counts = np.full(len(indices), self.n_statistics, np.int64)
            weights = np.full(indices.size, 1 / math.sqrt(self.n_statistics), np.float32)
            return Block(counts, indices.ravel(), weights, *self._shares(cells))
        data = np.stack([own[1] for own in entries], axis=1)
        entry = data != 0
        return Block(entry.sum(axis=1), indices[entry], data[entry], *self._shares(cells))

    def decode(self, X: csr_array) -> None:
        return None

    @abstractmethod
    def _settled(self) -> State:
        """The columns, and what else was counted."""

    def to_state(self) -> State:
        meta, arrays = self._settled()
        meta["sides"] = []
        for i, side in enumerate(self.sides):
            own, parts = side.to_state(_prefix(i))
            meta["sides"].append(own)
            arrays |= parts
        meta["pairs"] = [len(pairs) for pairs in self.pairs]
        arrays["pairs"] = np.concatenate([np.zeros(0, np.int64), *(pairs.table.ravel() for pairs in self.pairs)])
        arrays["counts"] = np.concatenate(self.counts)
        return meta, arrays

    def _restore(self, meta: Any, arrays: Mapping[str, npt.NDArray[Any]], keys: list[str], names: list[str]) -> None:
        """Reads what `to_state` wrote beside the entries `keys` and the arrays `names`."""
        _expect_keys(meta, [*keys, "sides", "pairs"])
        sides, lengths = _entry(meta, "sides", list), _entry(meta, "pairs", list)
        if len(sides) != len(self.sides) or len(lengths) != len(self.pairs):
            raise ValueError(
                f"state of {len(sides)} columns and {len(lengths)} pairs, expected those of {self.encoder}"
            )
        used = [*names, "pairs", "counts"]
        for i, (source, own) in enumerate(zip(self.sources, sides, strict=True)):
            self.sides[i], parts = _LevelNumbers.from_state(source, _prefix(i), own, arrays)
            used += parts
        _expect_keys(arrays, used)
        sizes = [len(side.vocabulary) + 1 for side in self.sides]
        flat = _split(_array(arrays, "pairs", np.int64), [2 * n if type(n) is int else -1 for n in lengths], "pairs")
        self.pairs = [
            _PairNumbers.from_table(part, (sizes[i], sizes[j])) for (i, j), part in zip(self.couples, flat, strict=True)
        ]
        self.counts = _split(_array(arrays, "counts", np.int64), [*sizes, *lengths], "counts")
        totals = {int(counts.sum()) for counts in self.counts}
        if len(totals) > 1 or 0 in totals or any((counts < 0).any() for counts in self.counts):
            raise ValueError(f"counts of levels must be of the same rows in every statistic, got {_short(totals)}")

    def _check_moments(self, means: Floats, stds: Floats) -> None:
        alike = len(means) == len(stds) == self.n_statistics
        if not alike or not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
            raise ValueError(f"{self.n_statistics} statistics need as many finite means and deviations above 0")


class _TargetStats(_Statistics):
    """A fitted `TargetStats`. Rows wait for the first settle, which makes bins of what they say of each other."""

    def __init__(self, name: str, encoder: TargetStats) -> None:
        super().__init__(name, encoder)
        self.sums = [np.zeros(0) for _ in self.counts]  # of the labels of each level
        self.classes: list[Any] | None = None  # None: the target is a number, as far as is known
        self.numeric: bool | None = None  # None: not known yet
        self.rows: list[tuple[list[npt.NDArray[np.int32]], Floats]] = []  # levels and labels to be counted
        self.edges: list[Floats] = []
        self.means = self.stds = np.zeros(0)

    def check(self, cells: StatisticCells, y: npt.NDArray[Any] | None) -> None:
        super().check(cells, y)
        self._read_target(y)

    def count(self, cells: StatisticCells, y: npt.NDArray[Any] | None) -> None:
        labels, self.numeric, self.classes = self._read_target(y)
        levels = [numbers.astype(np.int32) for numbers in self._levels(cells, add=True)]
        self.rows.append((levels, labels))

    def settle(self) -> None:
        if not self.rows:
            return
        parts, labels = zip(*self.rows, strict=True)
        levels, y = [np.concatenate(chunks) for chunks in zip(*parts, strict=True)], np.concatenate(labels)
        self.rows = []
        if first := self.size == 0:
            y = self._settle_classes(y)
        for k, own in enumerate(levels):
            self._count(k, own)
            self.sums[k] = _accumulate(self.sums[k], np.bincount(own, y))
        if first:
            self._settle_columns(levels, y)

    def _settle_columns(self, levels: Sequence[npt.NDArray[Any]], y: Floats) -> None:
        means, stds = [], []
        for values, known in self._out_of_fold(levels, y):
            values = values[known]
            if self.encoder.output == "bins":
                values = np.sort(values)
                cuts = np.arange(1, self.encoder.n_bins) * len(values) // self.encoder.n_bins
                edges = np.unique(values[cuts]) if len(values) else values
                self.edges.append(edges[edges > values[0]] if len(values) else edges)
            else:
                values = self._scale(values)
                mean, std = (values.mean(), values.std()) if len(values) else (0.0, 0.0)
                means.append(mean)
                stds.append(_spread(std, mean))
        self.means, self.stds = np.array(means), np.array(stds)
        self._lay_out()

    def _lay_out(self) -> None:
        bins = [len(edges) + 2 for edges in self.edges]
        self.size = sum(bins) if self.encoder.output == "bins" else self.n_statistics
        self.starts = np.cumsum([0, *bins])

    def encode(self, cells: StatisticCells) -> Block:
        entries = []
        for k, own in enumerate(self._levels(cells)):
            known = np.append(self.counts[k] > 0, False)  # the last one answers for level -1
            values = np.append(self._smooth(self.counts[k], self.sums[k]), 0.0)
            entries.append([part[own] for part in self._entries(k, values, known)])
        return self._block(entries, cells)

    def encode_training(self, cells: StatisticCells, y: npt.NDArray[Any] | None) -> Block:
        labels, _, _ = self._read_target(y)
        out = self._out_of_fold(list(self._levels(cells)), labels)
        return self._block([self._entries(k, *statistic) for k, statistic in enumerate(out)], cells)

    # ---- labels ----

    def _read_target(self, y: npt.NDArray[Any] | None) -> tuple[Floats, bool, list[Any] | None]:
        """y as numbers, whether they are numbers as given, and else the classes met so far whose places they are."""
        if y is None:
            raise ValueError(f"column {self.name!r}: TargetStats are statistics of labels: fit needs y")
        values, words = _read_labels(y, self.name)
        numeric = words is None
        if self.numeric not in (None, numeric):
            raise ValueError(f"column {self.name!r}: y is now {'numbers' if numeric else 'classes'} and was not before")
        if words is None:
            if self.classes is None:
                return values, True, None
            distinct, places = np.unique(values, return_inverse=True)
            words, values = distinct.tolist(), places.astype(np.float64)
        known = list(dict.fromkeys([*(self.classes or []), *words]))
        if len(known) > 2 or len(set(map(type, known))) > 1:
            raise ValueError(
                f"column {self.name!r}: y must be a number or of two classes, got {_short(known)}; of more classes "
                "each needs statistics of its own, fitted on y == class"
            )
        number = np.array([known.index(word) for word in words], np.float64)
        return number[values.astype(np.int64)], numeric, known

    def _settle_classes(self, y: Floats) -> Floats:
        """The labels of all rows counted, the larger of two classes as 1."""
        if self.classes is None:
            distinct = pd.unique(y)
            if len(distinct) != 2:
                return y
            self.classes = distinct.tolist()
            y = (y == distinct[1]).astype(np.float64)
        if len(self.classes) < 2:
            raise ValueError(f"column {self.name!r}: y must be a number or of two classes, got {self.classes} only")
        if self.classes[0] > self.classes[1]:
            self.classes, y = self.classes[::-1], 1 - y
        return y

    # ---- statistics ----

    @property
    def _mean(self) -> float:
        return float(self.sums[0].sum() / self.counts[0].sum())

    def _smooth(self, n: npt.NDArray[Any], s: Floats) -> Floats:
        prior: float = self.encoder.prior
        return (s + prior * self._mean) / (n + prior)

    def _out_of_fold(
        self, levels: Sequence[npt.NDArray[Any]], y: Floats
    ) -> Iterator[tuple[Floats, npt.NDArray[np.bool_]]]:
        """Statistic by statistic, the value of each training row, and whether another row speaks for its level."""
        rng = np.random.default_rng(self.encoder.random_state)
        orders = [rng.permutation(len(y)) for _ in range(self.encoder.permutations)]
        others = _rows_before if self.encoder.scheme == "ordered" else _rows_of_other_folds
        for own in levels:
            values, known = np.zeros(len(y)), np.zeros(len(y), np.bool_)
            for order in orders:
                n, s = others(own, y, order)
                values += self._smooth(n, s) / len(orders)
                known |= n > 0
            yield values, known

    def _scale(self, values: Floats) -> Floats:
        if self.classes is None:
            return values
        values = np.clip(values, 1e-9, 1 - 1e-9)  # a tiny prior leaves 0 and 1
        return np.log(values / (1 - values))

    def _entries(self, k: int, values: Floats, known: npt.NDArray[np.bool_]) -> list[npt.NDArray[Any]]:
        """The column of each value of statistic k and, if it is no bin, the number in it (0: no entry)."""
        if self.encoder.output == "bins":
            bins = np.where(known, np.searchsorted(self.edges[k], values, side="right") + 1, 0)
            return [(bins + self.starts[k]).astype(np.int32)]
        numbers = np.zeros(len(values), np.float32)
        with np.errstate(over="ignore", under="ignore"):
            numbers[known] = (self._scale(values[known]) - self.means[k]) / self.stds[k]
        if not np.isfinite(numbers).all():
            raise ValueError(f"column {self.name!r}: statistics of such labels are too large for float32; rescale y")
        return [np.full(len(values), k, np.int32), numbers]

    def labels(self, name: str) -> list[str]:
        names = [f"{name}:{statistic}" for statistic in self._names()]
        if self.encoder.output == "logit":
            return names
        return list(chain.from_iterable(_bin_labels(own, edges) for own, edges in zip(names, self.edges, strict=True)))

    def _settled(self) -> State:
        arrays: dict[str, npt.NDArray[Any]] = {"sums": np.concatenate(self.sums), "means": self.means}
        arrays |= {"stds": self.stds, "edges": np.concatenate([np.zeros(0), *self.edges])}
        return {"classes": self.classes, "edges": [len(edges) for edges in self.edges]}, arrays

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        self = cls(name, encoder)
        self._restore(meta, arrays, ["classes", "edges"], ["sums", "means", "stds", "edges"])
        self.classes = classes = _entry(meta, "classes", list, type(None))
        if classes is not None:
            kinds = set(map(type, classes))
            if len(classes) != 2 or len(kinds) > 1 or not kinds <= {str, bool, float} or not classes[0] < classes[1]:
                raise ValueError(f"column {name!r}: two classes in sorted order expected, got {_short(classes)}")
        self.numeric = classes is None or type(classes[0]) is float
        self.sums = _split(_array(arrays, "sums", np.float64), [len(counts) for counts in self.counts], "sums")
        for counts, sums in zip(self.counts, self.sums, strict=True):
            impossible = not np.isfinite(sums).all() or (sums[counts == 0] != 0).any()
            if impossible or (classes is not None and ((sums < 0) | (sums > counts)).any()):
                raise ValueError(f"column {name!r}: sums of labels that no rows could have")
        with np.errstate(over="ignore"):
            mean = self._mean
        if not (0 < mean < 1 if classes else math.isfinite(mean)):
            raise ValueError(f"column {name!r}: labels of mean {mean}, which no rows could have")
        bins = encoder.output == "bins"
        lengths = _entry(meta, "edges", list)
        if len(lengths) != self.n_statistics * bins:
            raise ValueError(
                f"column {name!r}: {len(lengths)} statistics have bins, expected {self.n_statistics * bins}"
            )
        self.edges = _split(_array(arrays, "edges", np.float64), lengths, "edges")
        if not all(np.isfinite(edges).all() and (np.diff(edges) > 0).all() for edges in self.edges):
            raise ValueError(f"column {name!r}: the edges of bins must rise")
        self.means, self.stds = _array(arrays, "means", np.float64), _array(arrays, "stds", np.float64)
        if bins and len(self.means) + len(self.stds):
            raise ValueError(f"column {name!r}: bins have no means and deviations")
        if not bins:
            self._check_moments(self.means, self.stds)
        self._lay_out()
        return self


class _Counts(_Statistics):
    """A fitted `Counts`."""

    def __init__(self, name: str, encoder: Counts) -> None:
        super().__init__(name, encoder)
        self.bins: list[int] = []  # of each statistic
        self.means = self.stds = np.zeros(0)

    def count(self, cells: StatisticCells, y: object) -> None:
        for k, levels in enumerate(self._levels(cells, add=True)):
            self._count(k, levels)

    def settle(self) -> None:
        if self.size:
            return
        if self.encoder.output == "bins":
            self.bins = [int(_power(counts.max())) + 1 for counts in self.counts]
        else:
            moments = []
            for counts in self.counts:  # n rows of a level leave themselves out
                values = np.log1p(np.maximum(counts - 1, 0))
                mean = np.average(values, weights=counts)
                moments.append((mean, _spread(math.sqrt(np.average((values - mean) ** 2, weights=counts)), mean)))
            self.means, self.stds = np.array(moments).T.copy()
        self._lay_out()

    def _lay_out(self) -> None:
        self.size = sum(self.bins) if self.encoder.output == "bins" else self.n_statistics
        self.starts = np.cumsum([0, *self.bins])

    def encode(self, cells: StatisticCells) -> Block:
        return self._encode(cells, 0)

    def encode_training(self, cells: StatisticCells, y: object) -> Block:
        return self._encode(cells, 1)

    def _encode(self, cells: StatisticCells, own: int) -> Block:
        """own: how many of the counted rows of its level each row is itself."""
        entries = []
        for k, levels in enumerate(self._levels(cells)):
            counts = np.maximum(np.append(self.counts[k], 0) - own, 0)  # the last one answers for level -1
            entries.append([part[levels] for part in self._entries(k, counts)])
        return self._block(entries, cells)

    def _entries(self, k: int, counts: Ints) -> list[npt.NDArray[Any]]:
        if self.encoder.output == "bins":
            return [(np.minimum(_power(counts), self.bins[k] - 1) + self.starts[k]).astype(np.int32)]
        numbers = (np.log1p(counts) - self.means[k]) / self.stds[k]
        return [np.full(len(counts), k, np.int32), numbers.astype(np.float32)]

    def labels(self, name: str) -> list[str]:
        names = [f"{name}:{statistic}" for statistic in self._names()]
        if self.encoder.output == "log":
            return names
        return [f"{own}={label}" for own, n in zip(names, self.bins, strict=True) for label in _power_labels(n)]

    def _settled(self) -> State:
        return {"bins": self.bins}, {"means": self.means, "stds": self.stds}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        self = cls(name, encoder)
        self._restore(meta, arrays, ["bins"], ["means", "stds"])
        self.bins = _entry(meta, "bins", list)
        self.means, self.stds = _array(arrays, "means", np.float64), _array(arrays, "stds", np.float64)
        if encoder.output == "log":
            self._check_moments(self.means, self.stds)
            if self.bins:
                raise ValueError(f"column {name!r}: logarithms have no bins")
        else:
            if len(self.bins) != self.n_statistics or not all(type(n) is int and 2 <= n <= 64 for n in self.bins):
                raise ValueError(
                    f"column {name!r}: {self.n_statistics} numbers of bins expected, got {_short(self.bins)}"
                )
            if len(self.means) + len(self.stds):
                raise ValueError(f"column {name!r}: bins have no means and deviations")
        self._lay_out()
        return self


def _read_labels(y: npt.NDArray[Any], column: str) -> tuple[Floats, list[Level] | None]:
    """Numbers and None, or the number of each row's class and the classes in order of first appearance."""
    words: list[Level] | None = None
    if y.dtype.kind in "iuf":
        values = y.astype(np.float64)
    else:
        codes, levels = _factorize(pd.Series(y), "y")
        if all(type(level) in (int, float) for level in levels):
            values = np.append(np.array(levels, np.float64), np.nan)[codes]
        elif all(type(level) in (str, bool) for level in levels):
            values, words = np.where(codes < 0, np.nan, codes), levels
        else:
            raise ValueError(f"column {column!r}: y must be numbers, text or booleans, got {_short(levels)}")
    if not np.isfinite(values).all():
        raise ValueError(f"column {column!r}: {int((~np.isfinite(values)).sum())} missing or infinite value(s) in y")
    return values, words


def _rows_before(levels: npt.NDArray[Any], y: Floats, order: Ints) -> tuple[Ints, Floats]:
    """Of the rows of the same level that come earlier in the order: their number, and the sum of their labels."""
    rows = order[np.argsort(levels[order], kind="stable")]  # level by level, each in the order
    starts = np.append(True, np.diff(levels[rows]) != 0)
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1] if len(rows) else rows
    before = np.cumsum(np.append(0.0, y[rows]))  # without the row itself, whatever the rounding
    n, s = np.empty(len(y), np.int64), np.empty(len(y))
    n[rows] = np.arange(len(y)) - first
    s[rows] = before[:-1] - before[first]
    return n, s


def _rows_of_other_folds(levels: npt.NDArray[Any], y: Floats, order: Ints) -> tuple[Ints, Floats]:
    """Of the rows of the same level in other folds: their number, and the sum of their labels."""
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % _FOLDS
    cell, n_cells = levels * np.int64(_FOLDS) + fold, (int(levels.max(initial=0)) + 1) * _FOLDS
    others = 1 - np.eye(_FOLDS)  # a sum over these: to take a fold from the whole would leave its rounding
    n = (np.bincount(cell, minlength=n_cells).reshape(-1, _FOLDS) @ others).ravel()
    s = (np.bincount(cell, y, n_cells).reshape(-1, _FOLDS) @ others).ravel()
    return n[cell].astype(np.int64), s[cell]


def _spread(std: float, mean: float) -> float:
    """What to divide by: 1 where the values are equal but for rounding."""
    return std if std > 1e-9 * abs(mean) else 1.0


def _accumulate(total: npt.NDArray[Any], more: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Their sum, the shorter one being followed by zeros."""
    out = np.zeros(max(len(total), len(more)), total.dtype)
    out[: len(total)] = total
    out[: len(more)] += more
    return out


def _split(flat: npt.NDArray[Any], lengths: Sequence[object], name: str) -> list[npt.NDArray[Any]]:
    sizes = [length for length in lengths if isinstance(length, int) and length >= 0]
    if len(sizes) < len(lengths) or sum(sizes) != len(flat):
        raise ValueError(f"array {name!r} of {len(flat)} entries cannot have parts of {_short(list(lengths))}")
    return np.split(flat.copy(), np.cumsum(sizes)[:-1]) if sizes else []


def _prefix(i: int) -> str:
    """A word for column i that ends where the word of another does not go on."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(i)) + "x"


def _bin_labels(name: str, edges: Floats) -> list[str]:
    digits = 2
    while len(texts := [f"{edge:.{digits}g}" for edge in edges]) > len(set(texts)):
        digits += 1
    ends = ["-inf", *texts, "inf"]
    return [f"{name}={_NOTHING}", *(f"{name}=[{a}, {b})" for a, b in pairwise(ends))]


def _power(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """0, 1, 2-3, 4-7, ... as 0, 1, 2, 3, ..."""
    return np.frexp(counts.astype(np.float64))[1]


def _power_labels(n: int) -> list[str]:
    ranges = [f"{2**i}-{2 ** (i + 1) - 1}" for i in range(1, n - 1)]
    return [*["0", "1", *ranges][: n - 1], f"{2 ** (n - 2)}+"]
