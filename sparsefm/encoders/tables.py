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
    """Names and columns of a frame; Arrow's text and numbers stay where they are."""
    if isinstance(X, pd.DataFrame):
        return list(X.columns), [X.iloc[:, i] for i in range(X.shape[1])]
    try:
        import pyarrow as pa
    except ImportError:
        raise ImportError(f"a {type(X).__name__} is read with pyarrow: pip install sparsefm[arrow]") from None
    table = pa.table(X)
    series: list[pd.Series[Any]] = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if pa.types.is_string_view(kind.value_type):  # of polars; pyarrow cannot yet make objects of it
                column = column.cast(pa.large_list(pa.large_string()))
            series.append(column.to_pandas())
            continue
        if pa.types.is_dictionary(kind) or pa.types.is_null(kind):
            series.append(column.to_pandas())
            continue
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("us"))
        elif pa.types.is_string_view(kind):
            column = column.cast(pa.large_string())
        series.append(pd.Series(pd.arrays.ArrowExtensionArray(column)))
    return table.column_names, series
