"""The frame: `FrameEncoder` gives each column its encoder and stacks their blocks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from itertools import chain
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data

from .field import Block, Frame, State, _entry, _expect_keys, _short, _stack
from .levels import MultiHot, OneHot, _Levels
from .numeric import Numeric, _Number

ColumnEncoder = OneHot | MultiHot | Numeric
_Column = _Levels | _Number
_ENCODERS: dict[type[ColumnEncoder], type[_Column]] = {OneHot: _Levels, MultiHot: _Levels, Numeric: _Number}
_BY_NAME = {encoder.__name__: encoder for encoder in _ENCODERS}


class FrameEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Encode the columns of a data frame as one sparse matrix, field by field.

    Parameters
    ----------
    columns : dict of str to OneHot, MultiHot or Numeric, or None
        The columns to encode and how, in the order of the output; other columns of the frame are ignored.
        None chooses by dtype: text, object, category and boolean columns are OneHot, floats are Numeric, and
        so are integers unless a OneHot column stands beside them. There an integer may be an id, so it is
        refused and must be named. The columns of an array are called x0, x1, ...

    Attributes
    ----------
    columns_ : dict of str to fitted column
    field_names_ : list of str, one per encoded column
    fields_ : (n_features_out_,) int32, the field of each output column
    n_features_in_, n_features_out_ : int, encoded input columns and output columns
    feature_names_in_ : (n_features_in_,) object, only if fitted on a frame with column names
    unknown_report_ : DataFrame, see there

    Raises
    ------
    ValueError
        for an absent column, a wrong option, a level or value that the column's encoder refuses.
    TypeError
        for cells that its encoder cannot read, sparse input, and frames other than pandas'.

    Every error names the column. Levels that training never saw are encoded as the column's `unknown` says,
    missing cells (None, NaN, NaT, pandas.NA) as its `missing` says.

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
        """Learn the levels, means and deviations of a frame or array of shape (n_samples, n_columns)."""
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> csr_array:
        """Fit and encode the training rows. (n_samples, n_features_out_) csr_array, float32, int32."""
        n_rows, blocks = self._fit(X, y)
        return self._assemble(n_rows, blocks)

    def transform(self, X: Any, *, columns: Collection[str] | None = None) -> csr_array:
        """Encode with all that was fitted. (n_samples, n_features_out_) csr_array, float32, int32.

        columns: the input columns to encode. The fields of the others stay empty, and X need not have them.
        """
        check_is_fitted(self, "columns_")
        if isinstance(columns, str):
            raise TypeError(f"columns must be a collection of column names, got the text {columns!r}")
        chosen = list(self.columns_) if columns is None else list(columns)
        absent = [name for name in chosen if name not in self.columns_]
        if absent:
            raise ValueError(f"not among the encoded columns: {absent}; these are {_listed(self.columns_)}")
        frame, n_rows = self._open(X, reset=False, by_name=columns is not None)
        _require(frame, chosen)
        encoded = set(chosen)
        blocks = {name: column.encode(frame) for name, column in self.columns_.items() if name in encoded}
        return self._assemble(n_rows, blocks)

    def inverse_transform(self, X: Any) -> pd.DataFrame:
        """The frame that an encoded matrix (n_samples, n_features_out_) stands for, one column a field.

        Levels come back as they were given (integral floats as integers), numbers as float32. What the
        encoding does not keep: an unknown level is None (MultiHot: left out of its cell), as is a missing or
        empty cell; a text or datetime column shows both as NaN or NaT. A MultiHot cell is text if it has a
        `sep`, else a list, its levels in the order of their columns. A number without an entry is the mean.
        """
        check_is_fitted(self, "columns_")
        if not issparse(X):
            X = check_array(X, ensure_min_samples=0, ensure_min_features=0)
        X = csr_array(X, copy=True)
        if X.shape[1] != self.n_features_out_:
            raise ValueError(f"X has {X.shape[1]} columns, the encoder made {self.n_features_out_}")
        X.sum_duplicates()
        X.eliminate_zeros()
        starts = self._starts
        parts = {n: c.decode(X[:, starts[n] : starts[n] + c.size]) for n, c in self.columns_.items()}
        return pd.DataFrame(parts)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Output column names: "user_id=196", "user_id=<unknown>", "age". (n_features_out_,) object"""
        check_is_fitted(self, "columns_")
        names = self.field_names_ if input_features is None else list(input_features)
        if len(names) != self.n_features_in_:
            raise ValueError(
                f"input_features should have length equal to number of features ({self.n_features_in_}), "
                f"got {len(names)}"
            )
        if hasattr(self, "feature_names_in_") and names != self.field_names_:
            raise ValueError("input_features is not equal to feature_names_in_")
        labels = (column.labels(name) for name, column in zip(names, self.columns_.values(), strict=True))
        return np.array(list(chain.from_iterable(labels)), dtype=object)

    @property
    def unknown_report_(self) -> pd.DataFrame:
        """By column, the share of rows with an unknown level and without a value at the last transform."""
        check_is_fitted(self, "columns_")
        shares = np.array(list(self._report.values()), np.float32).reshape(-1, 2)
        return pd.DataFrame(shares, index=list(self._report), columns=["unknown", "missing"])

    def to_state(self) -> State:
        """A JSON-able dict and named C-contiguous arrays (int64, uint8) that `from_state` reads."""
        check_is_fitted(self, "columns_")
        columns, arrays = [], {}
        for i, (name, column) in enumerate(self.columns_.items()):
            options = {k: int(v) if isinstance(v, Integral) else v for k, v in asdict(column.encoder).items()}
            state, own = column.to_state()
            encoder = type(column.encoder).__name__
            columns.append({"name": name, "encoder": encoder, "options": options, "state": state})
            arrays.update({f"{i}.{key}": array for key, array in own.items()})
        named, chosen = hasattr(self, "feature_names_in_"), self.columns is None
        return {"version": 1, "named": named, "chosen": chosen, "columns": columns}, arrays

    @classmethod
    def from_state(cls, meta: Any, arrays: Any) -> Self:
        """The fitted encoder that `to_state` wrote. Raises ValueError for anything malformed."""
        _expect_keys(meta, ["version", "named", "chosen", "columns"])
        if _entry(meta, "version", int) != 1:
            raise ValueError(f"encoder state of version {meta['version']}; this release reads version 1")
        parts: list[dict[str, npt.NDArray[Any]]] = [{} for _ in _entry(meta, "columns", list)]
        if not isinstance(arrays, Mapping):
            raise ValueError(f"encoder arrays must be a dict, got {type(arrays).__name__}")
        for key, array in arrays.items():
            match = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.([a-z]+)", key) if isinstance(key, str) else None
            if match is None or int(match[1]) >= len(parts):
                raise ValueError(f"unexpected array {_short(key)} for {len(parts)} columns")
            parts[int(match[1])][match[2]] = array
        fitted: dict[str, _Column] = {}
        for entry, own in zip(meta["columns"], parts, strict=True):
            _expect_keys(entry, ["name", "encoder", "options", "state"])
            name, kind = _entry(entry, "name", str), _entry(entry, "encoder", str)
            if name in fitted or kind not in _BY_NAME:
                raise ValueError(f"column {_short(name)} is repeated or of unknown encoder {_short(kind)}")
            options = _entry(entry, "options", dict)
            _expect_keys(options, [field.name for field in fields(_BY_NAME[kind])])
            encoder = _BY_NAME[kind](**options)
            encoder._check(name)
            state = _entry(entry, "state", dict)
            fitted[name] = _ENCODERS[type(encoder)].from_state(name, encoder, state, own)
        if not fitted:
            raise ValueError("encoder state without columns")
        chosen, named = _entry(meta, "chosen", bool), _entry(meta, "named", bool)
        self = cls(None if chosen else {name: column.encoder for name, column in fitted.items()})
        self._settle(fitted, {}, named=named)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags

    def _fit(self, X: Any, y: Any) -> tuple[int, dict[str, Block]]:
        frame, n_rows = self._open(X, reset=True)
        if y is not None:
            check_consistent_length(X, y)
        encoders = _choose(frame) if self.columns is None else _checked(self.columns)
        _require(frame, encoders)
        fitted: dict[str, _Column] = {}
        blocks: dict[str, Block] = {}
        for name, encoder in encoders.items():
            fitted[name], blocks[name] = _ENCODERS[type(encoder)].fit(name, encoder, frame, y)
        self._settle(fitted, blocks, named=isinstance(X, pd.DataFrame) and set(fitted) <= set(X.columns))
        return n_rows, blocks

    def _settle(self, fitted: dict[str, _Column], blocks: dict[str, Block], *, named: bool) -> None:
        self.columns_ = fitted
        self.field_names_ = list(fitted)
        sizes = [column.size for column in fitted.values()]
        self.fields_ = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.n_features_in_, self.n_features_out_ = len(sizes), sum(sizes)
        self._starts = dict(zip(fitted, np.cumsum([0, *sizes]).tolist(), strict=False))
        if named:
            self.feature_names_in_ = np.array(list(fitted), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._note(blocks)

    def _note(self, blocks: Mapping[str, Block]) -> None:
        self._report = {name: [block.unknown, block.missing] for name, block in blocks.items()}

    def _assemble(self, n_rows: int, blocks: dict[str, Block]) -> csr_array:
        self._note(blocks)
        return _stack([(self._starts[name], b) for name, b in blocks.items()], n_rows, self.n_features_out_)

    def _open(self, X: Any, *, reset: bool, by_name: bool = False) -> tuple[dict[str, pd.Series[Any]], int]:
        """The columns of X by name and the number of rows."""
        if isinstance(X, pd.DataFrame):
            repeated = list(X.columns[X.columns.duplicated()].unique())
            if repeated:
                raise ValueError(f"column names must be unique, the frame repeats {_listed(repeated)}")
            if reset and 0 in X.shape:
                raise ValueError(f"the frame has shape {X.shape}, a minimum of 1 row and 1 column is required")
            series = [X.iloc[:, i] for i in range(X.shape[1])]
            names = list(X.columns)
        else:
            if hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"):
                raise TypeError(f"a frame must be a pandas.DataFrame, got {type(X)}")
            rows = int(reset)  # fit needs one
            X = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=rows, estimator=self)
            series = [pd.Series(X[:, i]).infer_objects() for i in range(X.shape[1])]
            names = []
        if self.columns is None and not by_name:
            validate_data(self, X, reset=reset, skip_check_array=True)
            names = names if reset else self.field_names_
        if not any(isinstance(name, str) for name in names):
            names = [f"x{i}" for i in range(len(series))]
        return dict(zip(names, series, strict=True)), X.shape[0]


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


def _choose(frame: Frame) -> dict[str, ColumnEncoder]:
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
