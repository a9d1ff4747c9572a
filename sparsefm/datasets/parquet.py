"""Parquet files as frames whose dtypes never change along the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .movielens import DataFileError, _text
from .values import _convert, _MisfitError


@dataclass(frozen=True)
class _ParquetFile:
    path: Path
    types: dict[str, Any]  # Arrow's types by column; see _arrow_type


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files are read with pyarrow: pip install sparsefm[arrow]") from error
    return pyarrow, pyarrow.parquet


def _arrow_type(kind: Any) -> Any:
    """The type without regard to how it is stored: dictionaries decoded, all text the same."""
    pa, _ = _pyarrow()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if str(kind) in ("large_string", "string_view", "null") else kind


def _open_parquet(path: Path) -> _ParquetFile:
    pa, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} is no whole Parquet file: {error}") from error
    types: dict[str, Any] = {}
    for field in schema:
        if field.name in types:
            raise DataFileError(f"{path}: two columns have the name {field.name!r}")
        types[field.name] = _arrow_type(field.type)
    return _ParquetFile(path, types)


def _convert_cells(cells: Any, dtype: str | None, gaps: bool) -> Any:
    """An Arrow column as pandas', in `dtype` or, if that is None, in its own type, nullable if there may be gaps."""
    pa, _ = _pyarrow()
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if _arrow_type(cells.type) == pa.string() or dtype == "str":
        texts = cells.cast(pa.string()).to_pylist()
        if dtype in (None, "str"):
            return _text(texts)
        # by the rule for text files: Arrow would make 7 of 007
        return _convert(np.array(["" if text is None else text for text in texts], dtype=object), dtype)
    if dtype is not None:
        cells = cells.cast(pa.float64() if dtype == "float64" else pa.int64())
        gaps = dtype == "Int64"
    if not (pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type)):
        return cells.to_pandas()
    if cells.null_count and not gaps:
        raise _MisfitError(cells.is_null().to_pylist().index(True), "")
    plain = np.dtype(cells.type.to_pandas_dtype())
    # numpy's int8 is pandas' Int8, uint8 is UInt8
    name = "boolean" if plain == np.bool_ else plain.name.replace("i", "I").replace("u", "U")
    column = pa.table({"": cells}).to_pandas(types_mapper=lambda _: pd.api.types.pandas_dtype(name))[""]
    return column if gaps else column.astype(plain)


def _check_types(files: Sequence[_ParquetFile], columns: Sequence[str], given: dict[str, str]) -> None:
    first = files[0]
    for file in files:
        for column in columns:
            if column not in given and file.types[column] != first.types[column]:
                raise DataFileError(
                    f"{file.path}: column {column!r} is {file.types[column]}, in {first.path} it is "
                    f'{first.types[column]}; pass dtypes={{"{column}": "str"}}'
                )


def _batches(file: _ParquetFile, columns: Sequence[str], rows: int) -> Iterator[Any]:
    pa, parquet = _pyarrow()
    n_rows = 0
    try:
        with parquet.ParquetFile(file.path) as opened:
            for batch in opened.iter_batches(batch_size=rows, columns=list(columns)):
                yield batch
                n_rows += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{file.path}: cannot be read beyond row {n_rows}: {error}") from error


def _gaps(files: Sequence[_ParquetFile], columns: Sequence[str]) -> set[str]:
    """Columns of integers or booleans with a gap anywhere.

    They are read for it. The footer's statistics would be quicker, but may be absent, and pyarrow ends the
    process when it asks a damaged footer for them.
    """
    pa, _ = _pyarrow()
    types = files[0].types
    asked = [c for c in columns if pa.types.is_integer(types[c]) or pa.types.is_boolean(types[c])]
    return {
        column
        for file in files
        for batch in (_batches(file, asked, 100_000) if asked else ())
        for column in asked
        if batch.column(column).null_count
    }


def _parquet_frames(
    files: Sequence[_ParquetFile], columns: Sequence[str], rows: int, given: dict[str, str]
) -> Iterator[pd.DataFrame]:
    pa, _ = _pyarrow()
    gaps = _gaps(files, [column for column in columns if column not in given])
    n_rows = 0
    for file in files:
        in_file = 0
        for batch in _batches(file, columns, rows):
            frame: dict[str, Any] = {}
            for column in columns:
                where = f"rows {in_file + 1} to {in_file + len(batch)}"
                try:
                    frame[column] = _convert_cells(batch.column(column), given.get(column), column in gaps)
                    continue
                except _MisfitError as misfit:
                    where, what = f"row {in_file + misfit.row + 1}", misfit.text or "a gap"
                except (pa.ArrowException, UnicodeDecodeError) as error:
                    what = str(error)
                raise DataFileError(
                    f"{file.path}, {where}: column {column!r} is not {given.get(column, 'as its type says')}, found "
                    f'{what}; leave its dtype to the file or pass dtypes={{"{column}": "str"}}'
                )
            if len(batch):
                yield pd.DataFrame(frame).set_axis(pd.RangeIndex(n_rows, n_rows + len(batch)))
            in_file += len(batch)
            n_rows += len(batch)
    if n_rows == 0:
        raise DataFileError(f"{', '.join(str(file.path) for file in files)}: no rows")
