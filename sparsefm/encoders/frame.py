"""The frame: `FrameEncoder` gives each field its encoder and stacks their blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import chain
from numbers import Integral
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .cross import Cross, _Cross
from .field import Block, Column, Frame, Ints, State, _array, _entry, _expect_keys, _same, _short, _stack, _take
from .history import History, _History
from .levels import MultiHot, OneHot, _introduce, _Levels
from .numeric import Numeric, _Number
from .parts import Binned, Date, Hashed, _Binned, _Date, _Hashed
from .tables import columns_of, is_frame
from .target import Counts, TargetStats, _Counts, _TargetStats
from .vocabulary import _factorize

ColumnEncoder = OneHot | MultiHot | Numeric | Binned | Hashed | Date | Cross | History | TargetStats | Counts
_ENCODERS: dict[type[ColumnEncoder], type[Column]] = {
    OneHot: _Levels,
    MultiHot: _Levels,
    Numeric: _Number,
    Binned: _Binned,
    Hashed: _Hashed,
    Date: _Date,
    Cross: _Cross,
    History: _History,
    TargetStats: _TargetStats,
    Counts: _Counts,
}
_BY_NAME = {encoder.__name__: encoder for encoder in _ENCODERS}


class FrameEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Encode the columns of a data frame as one sparse matrix, field by field.

    Parameters
    ----------
    columns : dict of str to an encoder such as OneHot(), or None
        The fields in the order of the output, and how each is encoded. A field is the input column of that name,
        or has a name of your own where its encoder names the columns it reads, as `Cross` does; other columns of
        the frame are ignored. None chooses by dtype: text, object, category and boolean columns are OneHot,
        floats are Numeric, and so are integers unless a OneHot column stands beside them. There an integer may
        be an id, so it is refused and must be named. The columns of an array are called x0, x1, ...

    Attributes
    ----------
    columns_ : dict of str to fitted column
    field_names_ : list of str
    fields_ : (n_features_out_,) int32
        The field of each output column.
    buckets_ : (n_features_out_,) int32
        The column its field gives to unknown levels, -1 where there is none; with these `FMParams.grow` finds a start
        for the columns that partial_fit appended.
    n_features_in_, n_features_out_ : int
        Input columns that are read, and output columns.
    feature_names_in_ : (n_features_in_,) object, only if fitted on a frame with column names
    unknown_report_ : DataFrame, see there

    Raises
    ------
    ValueError
        for an absent column, a wrong option, a level or value that the column's encoder refuses.
    TypeError
        for cells that its encoder cannot read, sparse input, and input that is neither frame nor array.

    Notes
    -----
    Frames are pandas', or any that speak Arrow: polars, pyarrow, DuckDB and others (they need pyarrow: `pip install
    sparsefm[arrow]`). Every error names the column. Levels that training never saw are encoded as the column's
    `unknown` says, missing cells (None, NaN, NaT, pandas.NA) as its `missing` says.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, MultiHot, Numeric, OneHot
    >>> train = pd.DataFrame({
    ...     "user_id": [196, 186, 196],
    ...     "genres": ["Drama|War", "Drama", ""],
    ...     "age": [20.0, 40.0, 60.0],
    ... })
    >>> genres = MultiHot("|", missing="ignore")
    >>> encoder = FrameEncoder({"user_id": OneHot(), "genres": genres, "age": Numeric()})
    >>> X = encoder.fit_transform(train)  # (n_samples, n_features_out_) csr_array, float32
    >>> X.shape
    (3, 8)
    >>> for field, name in zip(encoder.fields_, encoder.get_feature_names_out()):
    ...     print(field, name)
    0 user_id=<unknown>
    0 user_id=<missing>
    0 user_id=196
    0 user_id=186
    1 genres=<unknown>
    1 genres=Drama
    1 genres=War
    2 age
    >>> X.toarray()[0].round(3).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.7070000171661377, 0.7070000171661377, -1.225000023841858]
    >>> encoder.transform(pd.DataFrame({"user_id": [7, 186]}), columns=["user_id"]).toarray()[:, :4].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    >>> encoder.inverse_transform(X)["genres"].tolist()
    ['Drama|War', 'Drama', '']
    """

    def __init__(self, columns: Mapping[str, ColumnEncoder] | None = None) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what a frame or array (n_samples, n_columns) holds. y: (n_samples,) target, for `TargetStats`."""
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> csr_array:
        """Fit and encode the training rows. (n_samples, n_features_out_) csr_array, float32, int32.

        Encoders that look at other rows (`History`, `TargetStats`, `Counts`) leave out a row's own here, so this
        is not fit followed by transform.
        """
        n_rows, blocks, _ = self._fit(X, y)
        return self._assemble(n_rows, blocks)

    def fit_stream(self, frames: Iterable[Any], *, target: str | None = None) -> Self:
        """Fit on frames that come one by one, to the same result as on all of their rows together.

        target: the column that holds y, for `TargetStats`; no field is made of it unless `columns` names it. The
        order of levels, `min_count` and `max_levels` are those of the whole; means and deviations are, to rounding.
        Raises ValueError if no row comes.
        """
        fresh: dict[str, Column] = {}
        for X in frames:
            frame, n_rows, names = self._open(X)
            if n_rows == 0:
                continue
            y = None if target is None else _target(frame, target)
            if not fresh:
                fresh = self._columns({n: c for n, c in frame.items() if self.columns is not None or n != target})
                named = _named(names, fresh)
            _count(fresh, _read(fresh, frame), y)
        if not fresh:
            raise ValueError("frames holds no rows: there is nothing to fit")
        self._settle(fresh, named=named)
        self._note({})
        return self

    def partial_fit(self, X: Any, y: Any = None, *, columns: Collection[str] | None = None) -> Self:
        """Learn more rows: new levels become new columns behind all others, and no column ever moves.

        What a column stands for stays too: the mean and deviation of `Numeric` and the bins of `Binned` are
        those of the first fit. Levels that were too rare for `min_count` go on counting. Without a fit before,
        this is the first. Rows that are refused change nothing.

        columns: the fields that learn, as for `transform`; only after a fit.
        """
        if not hasattr(self, "columns_") and columns is None:
            return self.fit(X, y)
        fields, frame, n_rows = self._chosen(X, columns)
        if n_rows:
            _count(fields, _read(fields, frame), _labels(y, n_rows))
            self._settle(self.columns_)
        return self

    def transform(self, X: Any, *, columns: Collection[str] | None = None) -> csr_array:
        """Encode with all that was fitted. (n_samples, n_features_out_) csr_array, float32, int32.

        columns: the fields to encode. The others stay empty, and X need not have their columns.
        """
        fields, frame, n_rows = self._chosen(X, columns)
        blocks = {name: column.encode(column.read(frame)) for name, column in fields.items()}
        return self._assemble(n_rows, blocks)

    def fit_transform_blocks(self, X: Any, y: Any = None) -> tuple[csr_array, list[EntityBlock]]:
        """As fit_transform, but what is said of an entity comes once: see transform_blocks."""
        n_rows, blocks, entities = self._fit(X, y, apart=True)
        return self._apart(n_rows, blocks, entities)

    def transform_blocks(self, X: Any) -> tuple[csr_array, list[EntityBlock]]:
        """As transform, but what is said of an entity comes once: rows of their own entries, and blocks of entities.

        The entities are the values of `by` of each `History(own=True)`; a block holds these histories, and every other
        field that has equal entries in all rows of an entity. With `rows, blocks` as returned, `rows` plus
        `block.X[block.of]` of each block are what `transform` makes. Without such a History there are no blocks.
        """
        check_is_fitted(self, "columns_")
        frame, n_rows, _ = self._open(X, known=True)
        _require(frame, chain.from_iterable(column.sources for column in self.columns_.values()))
        entities, blocks = _entities(self.columns_, frame), {}
        for name, column in self.columns_.items():
            cells = column.read(frame)
            said = column.entity in entities
            blocks[name] = (
                column.encode_entities(cells, entities[column.entity].example) if said else column.encode(cells)
            )
        return self._apart(n_rows, blocks, entities)

    def inverse_transform(self, X: Any) -> pd.DataFrame:
        """The frame that an encoded matrix (n_samples, n_features_out_) stands for, one column a field.

        Levels come back as they were given (integral floats as integers), numbers as float32. What the
        encoding does not keep: an unknown level is None (MultiHot: left out of its cell), as is a missing or
        empty cell; a text or datetime column shows both as NaN or NaT. A MultiHot cell is text if it has a
        `sep`, else a list, its levels in the order of their columns. A number without an entry is the mean, a
        clipped one is its limit, a binned one is the name of its bin. Fields from which nothing leads back,
        such as hashes and statistics of labels, are left out.
        """
        check_is_fitted(self, "columns_")
        if not issparse(X) or X.ndim != 2:
            X = check_array(X, ensure_min_samples=0, ensure_min_features=0)
        X = csr_array(X, copy=True)
        if X.shape[1] != self.n_features_out_:
            raise ValueError(f"X has {X.shape[1]} columns, the encoder made {self.n_features_out_}")
        X.sum_duplicates()
        X.eliminate_zeros()
        parts = {name: column.decode(X[:, self._slice(name)]) for name, column in self.columns_.items()}
        return pd.DataFrame({name: part for name, part in parts.items() if part is not None}, index=range(X.shape[0]))

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Output column names: "user_id=196", "user_id=<unknown>", "age". (n_features_out_,) object"""
        check_is_fitted(self, "columns_")
        names = self._sources if input_features is None else list(input_features)
        if len(names) != self.n_features_in_:
            raise ValueError(
                f"input_features should have length equal to number of features ({self.n_features_in_}), "
                f"got {len(names)}"
            )
        if hasattr(self, "feature_names_in_") and names != self._sources:
            raise ValueError("input_features is not equal to feature_names_in_")
        called = dict(zip(self._sources, names, strict=True))
        out = np.empty(self.n_features_out_, object)
        for name, column in self.columns_.items():
            out[self._slice(name)] = column.labels(called.get(name, name))
        return out

    @property
    def unknown_report_(self) -> pd.DataFrame:
        """By column, the share of rows with an unknown level and without a value at the last transform."""
        check_is_fitted(self, "columns_")
        shares = np.array(list(self._report.values()), np.float32).reshape(-1, 2)
        return pd.DataFrame(shares, index=list(self._report), columns=["unknown", "missing"])

    def to_state(self) -> State:
        """A JSON-able dict and named C-contiguous arrays (int64, float64, uint8) that `from_state` reads."""
        check_is_fitted(self, "columns_")
        columns: list[dict[str, Any]] = []
        arrays: dict[str, npt.NDArray[Any]] = {"runs": np.array(self._runs, np.int64).ravel()}
        for i, (name, column) in enumerate(self.columns_.items()):
            options = {key: _plain(value) for key, value in asdict(column.encoder).items()}
            state, own = column.to_state()
            encoder = type(column.encoder).__name__
            columns.append({"name": name, "encoder": encoder, "options": options, "state": state})
            arrays.update({f"{i}.{key}": array for key, array in own.items()})
        named, chosen = hasattr(self, "feature_names_in_"), self.columns is None
        return {"version": 2, "named": named, "chosen": chosen, "columns": columns}, arrays

    @classmethod
    def from_state(cls, meta: Any, arrays: Any) -> Self:
        """The fitted encoder that `to_state` wrote. Raises ValueError for anything malformed."""
        _expect_keys(meta, ["version", "named", "chosen", "columns"])
        if _entry(meta, "version", int) != 2:
            raise ValueError(f"encoder state of version {meta['version']}; this release reads version 2")
        parts: list[dict[str, npt.NDArray[Any]]] = [{} for _ in _entry(meta, "columns", list)]
        if not isinstance(arrays, Mapping):
            raise ValueError(f"encoder arrays must be a dict, got {type(arrays).__name__}")
        if "runs" not in arrays:
            raise ValueError("encoder state without the array 'runs'")
        for key, array in arrays.items():
            if key == "runs":
                continue
            match = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.([a-z]+)", key) if isinstance(key, str) else None
            if match is None or int(match[1]) >= len(parts):
                raise ValueError(f"unexpected array {_short(key)} for {len(parts)} columns")
            parts[int(match[1])][match[2]] = array
        fitted: dict[str, Column] = {}
        for entry, own in zip(meta["columns"], parts, strict=True):
            _expect_keys(entry, ["name", "encoder", "options", "state"])
            name, kind = _entry(entry, "name", str), _entry(entry, "encoder", str)
            if name in fitted or kind not in _BY_NAME:
                raise ValueError(f"column {_short(name)} is repeated or of unknown encoder {_short(kind)}")
            options = _entry(entry, "options", dict)
            _expect_keys(options, [field.name for field in fields(_BY_NAME[kind])])
            encoder = _BY_NAME[kind](**{key: _tuples(value) for key, value in options.items()})
            encoder._check(name)
            state = _entry(entry, "state", dict)
            fitted[name] = _ENCODERS[type(encoder)].from_state(name, encoder, state, own)
        if not fitted:
            raise ValueError("encoder state without columns")
        chosen, named = _entry(meta, "chosen", bool), _entry(meta, "named", bool)
        self = cls(None if chosen else {name: column.encoder for name, column in fitted.items()})
        self.columns_ = fitted
        _join(fitted, check=True)
        self._lay_out(_checked_runs(_array(arrays, "runs", np.int64), [column.size for column in fitted.values()]))
        self._name(named)
        self._note({})
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags

    def _columns(self, frame: Frame) -> dict[str, Column]:
        """Columns with nothing counted, for a frame that has what they need."""
        encoders = choose(frame) if self.columns is None else _checked(self.columns)
        fresh = {name: _ENCODERS[type(encoder)](name, encoder) for name, encoder in encoders.items()}
        _join(fresh)
        return fresh

    def _fit(self, X: Any, y: Any, *, apart: bool = False) -> tuple[int, dict[str, Block], dict[str | None, _Entities]]:
        """apart: fields that are said of an entity have a row for each."""
        frame, n_rows, names = self._open(X, least=1)
        fresh, y = self._columns(frame), _labels(y, n_rows)
        _require(frame, chain.from_iterable(column.sources for column in fresh.values()))
        entities = _entities(fresh, frame) if apart else {}
        blocks: dict[str, Block] = {}
        for group in _groups(fresh):  # one after the other, so that only one's cells are held
            read = {name: column.read(frame) for name, column in group.items()}
            _count(group, read, y)
            for column in group.values():
                column.settle()
            for name, column in group.items():
                cells = read.pop(name)
                if column.entity in entities:
                    blocks[name] = column.encode_entities(cells, entities[column.entity].example)
                else:
                    blocks[name] = column.encode_training(cells, y)
        self._settle(fresh, named=_named(names, fresh))
        self._note(blocks)
        return n_rows, {name: blocks[name] for name in fresh}, entities

    def _settle(self, columns: dict[str, Column], *, named: bool | None = None) -> None:
        """Turn what was counted into columns; those that are new come last."""
        for column in columns.values():
            column.settle()
        runs = self._runs if named is None else []
        had = [sum(length for field, length in runs if field == i) for i in range(len(columns))]
        grown = [(i, column.size - size) for i, (column, size) in enumerate(zip(columns.values(), had, strict=True))]
        self.columns_ = columns
        self._lay_out([*runs, *(run for run in grown if run[1])])
        if named is not None:
            self._name(named)

    def _lay_out(self, runs: list[tuple[int, int]]) -> None:
        """Give the fields their columns. runs: (field, number of columns) from the first column to the last."""
        self._runs = runs
        self.field_names_ = list(self.columns_)
        fields, lengths = np.array(runs, np.int64).reshape(-1, 2).T
        if lengths.sum() > np.iinfo(np.int32).max:
            raise ValueError(f"{lengths.sum()} columns in all, more than the {np.iinfo(np.int32).max} there can be")
        self.fields_ = np.repeat(fields.astype(np.int32), lengths)
        self.n_features_out_ = len(self.fields_)
        starts = np.cumsum(lengths) - lengths
        own = {name: np.flatnonzero(fields == i) for i, name in enumerate(self.columns_)}
        self._places: dict[str, int | Ints] = {}
        for name, parts in own.items():
            spans = [np.arange(starts[i], starts[i] + lengths[i]) for i in parts]
            self._places[name] = (
                int(starts[parts[0]]) if len(parts) == 1 else np.concatenate([*spans, np.empty(0, int)])
            )
        self._sources = list(dict.fromkeys(chain.from_iterable(c.sources for c in self.columns_.values())))
        self.n_features_in_ = len(self._sources)

    def _slice(self, name: str) -> slice | Ints:
        """The output columns of a field."""
        places = self._places[name]
        return slice(places, places + self.columns_[name].size) if isinstance(places, int) else places

    @property
    def buckets_(self) -> npt.NDArray[np.int32]:
        check_is_fitted(self, "columns_")
        buckets = np.full(len(self.columns_), -1, np.int32)
        for i, (name, column) in enumerate(self.columns_.items()):
            if column.bucket >= 0:
                places = self._places[name]
                buckets[i] = places + column.bucket if isinstance(places, int) else places[column.bucket]
        return buckets[self.fields_]

    def _name(self, named: bool) -> None:
        if named:
            self.feature_names_in_ = np.array(self._sources, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _note(self, blocks: Mapping[str, Block]) -> None:
        self._report = {name: [block.unknown, block.missing] for name, block in blocks.items()}

    def _assemble(self, n_rows: int, blocks: dict[str, Block]) -> csr_array:
        self._note(blocks)
        return _stack([(self._places[name], b) for name, b in blocks.items()], n_rows, self.n_features_out_)

    def _apart(
        self, n_rows: int, blocks: dict[str, Block], entities: dict[str | None, _Entities]
    ) -> tuple[csr_array, list[EntityBlock]]:
        """blocks: of the entities' fields one row an entity, of the others one a row."""
        self._note(blocks)
        made: list[EntityBlock] = []
        for key, (of, example) in entities.items():
            said = {name: block for name, block in blocks.items() if self.columns_[name].entity == key}
            for name in [name for name, column in self.columns_.items() if column.entity is None and name in blocks]:
                of_entities = _take(blocks[name], example)
                if _same(_take(of_entities, of), blocks[name]):
                    said[name] = of_entities
            blocks = {name: block for name, block in blocks.items() if name not in said}
            parts = [(self._places[name], said[name]) for name in self.columns_ if name in said]
            places = np.concatenate([np.arange(self.n_features_out_)[self._slice(name)] for name in said])
            made.append(EntityBlock(of, _stack(parts, len(example), self.n_features_out_), np.sort(places)))
        own = [(self._places[name], block) for name, block in blocks.items()]
        return _stack(own, n_rows, self.n_features_out_), made

    def _chosen(self, X: Any, columns: Collection[str] | None) -> tuple[dict[str, Any], dict[str, Any], int]:
        """The fields named, None: all; the columns of X, which are there for them; and its number of rows."""
        check_is_fitted(self, "columns_")
        if isinstance(columns, str):
            raise TypeError(f"columns must be a collection of column names, got the text {columns!r}")
        chosen = list(self.columns_) if columns is None else list(columns)
        absent = [name for name in chosen if name not in self.columns_]
        if absent:
            raise ValueError(f"not among the encoded columns: {absent}; these are {_listed(self.columns_)}")
        frame, n_rows, _ = self._open(X, known=columns is None)
        fields = {name: column for name, column in self.columns_.items() if name in set(chosen)}
        _require(frame, chain.from_iterable(f.sources if columns is None else f.essential for f in fields.values()))
        return fields, frame, n_rows

    def _open(self, X: Any, *, least: int = 0, known: bool = False) -> _Opened:
        """The columns of X by name. least: rows that it must have. known: it must look like what was fitted."""
        names: list[Any] = []
        if is_frame(X):
            names, series = columns_of(X)
            head: Any = pd.DataFrame(columns=names)
        else:
            head = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=least, estimator=self)
            series = [pd.Series(head[:, i]).infer_objects() for i in range(head.shape[1])]
        n_rows = len(series[0]) if series else 0
        if n_rows < least or not series:
            raise ValueError(
                f"the frame has shape {(n_rows, len(series))}, a minimum of {least} row and 1 column is required"
            )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"column names must be unique, the frame repeats {_listed(repeated)}")
        if self.columns is None and known:
            validate_data(self, head, reset=False, skip_check_array=True)
            names = names or self._sources  # an array stands in for the frame
        if self.columns is None and 0 < sum(isinstance(name, str) for name in names) < len(names):
            raise TypeError(f"column names must all be text or none of them, got {_listed(names)}")
        if not any(isinstance(name, str) for name in names):
            names = [f"x{i}" for i in range(len(series))]
        return _Opened(dict(zip(names, series, strict=True)), n_rows, names if is_frame(X) else [])


class EntityBlock(NamedTuple):
    """What is said of the entities of one input column."""

    of: Ints  # (n_rows,) the entity of each row
    X: csr_array  # (n_entities, n_features_out_)
    columns: Ints  # that are its own, ascending: no row outside has an entry there


class _Entities(NamedTuple):
    """The values of an input column, a missing one among them."""

    of: Ints  # (n_rows,) of each row
    example: Ints  # (n_entities,) a row of each


def _entities(columns: Mapping[str, Column], frame: Frame) -> dict[str | None, _Entities]:
    """Of the input columns that decide whole fields."""
    found: dict[str | None, _Entities] = {}
    for column in columns.values():
        if column.entity is not None and column.entity not in found:
            codes, _ = _factorize(frame[column.entity], column.entity)
            _, example, index = np.unique(codes, return_index=True, return_inverse=True)
            found[column.entity] = _Entities(index, example)
    return found


class _Opened(NamedTuple):
    """What a frame or array holds."""

    columns: dict[str, pd.Series[Any]]
    n_rows: int
    names: list[Any]  # of a frame's columns


def _groups(columns: Mapping[str, Column]) -> list[dict[str, Column]]:
    """The columns one by one, those that share a vocabulary together."""
    groups: dict[tuple[str, bool], dict[str, Column]] = {}
    for name, column in columns.items():
        shared = getattr(column.encoder, "vocabulary", None)
        groups.setdefault((name, False) if shared is None else (shared, True), {})[name] = column
    return list(groups.values())


def _join(columns: dict[str, Column], *, check: bool = False) -> None:
    """Let columns that name the same vocabulary share it. check: they come from a file, are they equal?"""
    for group in _groups(columns):
        first, *others = group.values()
        for other in others:
            assert isinstance(first, _Levels)  # only their encoders can share
            assert isinstance(other, _Levels)
            if check and other.vocabulary.levels != first.vocabulary.levels:
                raise ValueError(f"columns {first.name!r} and {other.name!r} share a vocabulary and differ in it")
            other.share(first)


def _read(columns: Mapping[str, Column], frame: Frame) -> dict[str, Any]:
    _require(frame, chain.from_iterable(column.sources for column in columns.values()))
    return {name: column.read(frame) for name, column in columns.items()}


def _count(columns: Mapping[str, Column], read: Mapping[str, Any], y: npt.NDArray[Any] | None) -> None:
    """All columns take the rows, or none does."""
    shared = [group for group in _groups(columns) if len(group) > 1]
    for name, column in columns.items():
        column.check(read[name], y)
    for group in shared:
        table = cast(_Levels, next(iter(group.values()))).table
        table.check(list(chain.from_iterable(read[name].levels for name in group)))
    for group in shared:
        _introduce([(cast(_Levels, column).table, read[name]) for name, column in group.items()])
    for name, column in columns.items():
        column.count(read[name], y)


def _labels(y: Any, n_rows: int) -> npt.NDArray[Any] | None:
    if y is None:
        return None
    values: npt.NDArray[Any] = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != n_rows:
        raise ValueError(f"y must have one value for each of the {n_rows} rows, got shape {values.shape}")
    return values


def _target(frame: Frame, target: str) -> npt.NDArray[Any]:
    _require(frame, [target])
    return np.asarray(frame[target])


def _named(names: Collection[object], columns: Mapping[str, Column]) -> bool:
    """Do all input columns have names of their own?"""
    return {source for column in columns.values() for source in column.sources} <= set(names)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _tuples(value: Any) -> Any:
    """JSON knows lists only; specifications are frozen."""
    return tuple(value) if isinstance(value, list) else value


def _checked_runs(runs: Ints, sizes: Sequence[int]) -> list[tuple[int, int]]:
    pairs = runs.reshape(-1, 2) if len(runs) % 2 == 0 else np.full((1, 2), -1)
    if (pairs < 0).any() or (pairs[:, 0] >= len(sizes)).any() or (pairs[:, 1] > max(sizes)).any():
        raise ValueError("array 'runs' must hold pairs of a field and its number of columns")
    if np.bincount(pairs[:, 0], pairs[:, 1], minlength=len(sizes)).tolist() != list(sizes):
        raise ValueError("array 'runs' and the columns do not belong together")
    return [(field, length) for field, length in pairs.tolist()]


def _listed(names: Iterable[object]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _require(frame: Frame, names: Iterable[str]) -> None:
    absent = [name for name in names if name not in frame]
    if absent:
        raise ValueError(f"column(s) {_listed(absent)} not in the input; it has {_listed(frame)}")


def _checked(columns: object) -> dict[str, ColumnEncoder]:
    if not isinstance(columns, dict) or not columns:
        raise ValueError(f"columns must be a non-empty dict from name to encoder, got {_short(columns)}")
    for name, encoder in columns.items():
        if not isinstance(name, str):
            raise ValueError(f"column names must be str, got {type(name).__name__} {_short(name)}")
        if not isinstance(encoder, ColumnEncoder):
            raise ValueError(f"column {name!r} needs an encoder such as OneHot(), got {_short(encoder)}")
        encoder._check(name)
    return columns


def choose(frame: Frame) -> dict[str, ColumnEncoder]:
    """An encoder for each column by its dtype; refuses what could be meant in two ways."""
    encoders: dict[str, ColumnEncoder] = {}
    integers: list[str] = []
    for name, cells in frame.items():
        dtype = cells.dtype
        categorical = isinstance(dtype, pd.CategoricalDtype) or types.is_object_dtype(dtype)
        if categorical or types.is_string_dtype(dtype) or types.is_bool_dtype(dtype):
            encoders[name] = OneHot()
        elif types.is_float_dtype(dtype) or types.is_integer_dtype(dtype):
            encoders[name] = Numeric()
            if types.is_integer_dtype(dtype):
                integers.append(name)
        else:
            raise ValueError(f"column {name!r} has dtype {dtype}: name its encoder: {{{name!r}: OneHot()}}")
    if integers and any(isinstance(encoder, OneHot) for encoder in encoders.values()):
        raise ValueError(
            f"integer column(s) {_listed(integers)} beside categories: is {integers[0]!r} an id (OneHot) "
            f"or a number (Numeric)? Name every encoder: FrameEncoder({{{integers[0]!r}: OneHot(), ...}})"
        )
    return encoders
