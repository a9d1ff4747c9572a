"""Frames of all kinds as columns of pandas: pandas' own, and whatever exports Arrow."""

from __future__ import annotations

from typing import Any

import pandas as pd


def is_frame(X: Any) -> bool:
    """Has X named columns? The others are arrays."""
    if isinstance(X, pd.DataFrame) or hasattr(X, "__arrow_c_stream__"):
        return True
    if hasattr(X, "__dataframe__"):
        raise TypeError(f"a frame must be pandas' or one that exports Arrow (__arrow_c_stream__), got {type(X)}")
    return False


def columns_of(X: Any) -> tuple[list[Any], list[pd.Series[Any]]]:
    """Names and columns of a frame."""
    if isinstance(X, pd.DataFrame):
        columns = [X.iloc[:, i] for i in range(X.shape[1])]
        return list(X.columns), [_own(c) if isinstance(c.dtype, pd.ArrowDtype) else c for c in columns]
    try:
        import pyarrow as pa
    except ImportError:
        raise ImportError(f"a {type(X).__name__} is read with pyarrow: pip install sparsefm[arrow]") from None
    table = pa.table(X)
    return table.column_names, [_from_arrow(column) for column in table.columns]


def _own(cells: pd.Series[Any]) -> pd.Series[Any]:
    import pyarrow as pa

    column = pa.array(cells.array)
    return _from_arrow(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))


def _from_arrow(column: Any) -> pd.Series[Any]:
    """A chunked array as a column whose cells are what they are elsewhere: text and numbers stay where they lie."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    texts = types.is_string(kind) or types.is_large_string(kind)
    if texts or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    if types.is_string_view(kind):
        return _from_arrow(column.cast(pa.large_string()))
    if types.is_timestamp(kind) or types.is_null(kind):
        return pd.Series(column.to_pandas())
    if types.is_date(kind):
        return pd.Series(column.cast(pa.timestamp("ms")).to_pandas())
    if types.is_dictionary(kind):
        if not types.is_timestamp(kind.value_type):  # it would lose its zone
            try:
                return pd.Series(column.to_pandas())
            except ValueError:  # no categories of pandas: missing or repeated values
                pass
        return _from_arrow(column.cast(kind.value_type))
    return pd.Series(column.to_pylist(), dtype=object)  # lists, and what cells can be refused for by name
