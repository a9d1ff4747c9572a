"""What a score is made of: the bias, what each column or field adds by itself, and what each pair of them adds.

With S_f = Σ_{j in f} x_j v_j of the non-zeros of a row in field f, the score is exactly (Rendle 2010, by field)

    w0 + Σ_f Σ_{j in f} w_j x_j + Σ_{f<g} ⟨S_f, S_g⟩ + Σ_f ½ (‖S_f‖² − Σ_{j in f} x_j² ‖v_j‖²)

and with each column for a field of its own it is the definition. Of draws every part is the mean over them, and the
parts add up to the mean score. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from .model import FMParams, Posterior
from .validation import check_csr

__all__ = ["Parts", "explanation", "importance", "parts"]

_MOST_LINES = 10_000_000
_AT_ONCE = 1 << 20  # parts held while their deviation is summed up

_Ints = NDArray[np.int64]


class Parts(NamedTuple):
    """What the scores of rows are made of, beside the intercept that all share: linear parts, then pairs."""

    intercept: float
    row: _Ints  # (n_parts,)
    first: _Ints  # (n_parts,) column, or field
    second: _Ints  # (n_parts,) column or field, at least first; −1 of a linear part
    value: NDArray[np.float64]  # (n_parts,)


def parts(params: FMParams | Posterior, X: Any, *, fields: Any = None) -> Parts:
    """The parts of the scores of the rows of X: of each row one for each column that is not zero and for each pair.

    Parameters
    ----------
    X : matrix-like (n_rows, n_features)
    fields : (n_features,) int, optional
        The field of each column. The parts are then those of the fields of a row's non-zeros, among them a field with
        itself where two of its columns are not zero, and the cost follows the non-zeros and the pairs of fields.

    Raises
    ------
    ValueError
        For an X of another width, fields that are not one number a column, and more than ten million parts.

    Examples
    --------
    >>> import numpy as np
    >>> params = FMParams(0.5, np.array([1.0, 2.0]), np.array([[3.0], [4.0]]))
    >>> parts(params, [[1.0, 10.0]]).value
    array([  1.,  20., 120.])
    >>> parts(params, [[1.0, 10.0]], fields=[7, 7]).value
    array([ 21., 120.])
    """
    rows = check_csr(X, n_features=params.w.shape[-1], dtype=params.w.dtype)  # as they are scored
    # a cell is what a row has in one group of columns: a field, or a column by itself
    group: _Ints = rows.indices.astype(np.int64) if fields is None else _checked(fields, rows.n_features)[rows.indices]
    of_row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    order = np.lexsort((group, of_row))
    of_row, group = of_row[order], group[order]
    starts = np.flatnonzero((np.diff(of_row, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
    row, group = of_row[starts], group[starts]
    per_row = np.bincount(row, minlength=rows.n_rows)
    n_lines = int((1 + per_row * (per_row + 1) // 2).sum())
    if n_lines > _MOST_LINES:
        what, way_out = ("columns", ", or give by='field', with a part a field") if fields is None else ("fields", "")
        raise ValueError(
            f"{rows.n_rows} rows with up to {per_row.max()} {what} each have {n_lines:,} parts, more than "
            f"{_MOST_LINES:,}: explain fewer rows{way_out}"
        )
    used, place = np.unique(rows.indices[order], return_inverse=True)
    data = np.ones(rows.nnz) if rows.data is None else rows.data[order].astype(np.float64)
    cells = sp.csr_array((data, place, np.append(starts, rows.nnz)), shape=(len(starts), len(used)))
    several = np.flatnonzero(np.diff(cells.indptr) > 1)
    inner = cells[several]
    squares = inner.power(2)
    later = np.cumsum(per_row)[row] - np.arange(len(row)) - 1  # cells of the same row behind each
    a = np.repeat(np.arange(len(row)), later)
    b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(later) - later, later)

    linear, between, within = np.zeros(len(row)), np.zeros(len(a)), np.zeros(len(several))
    draws = [params[draw] for draw in range(len(params))] if isinstance(params, Posterior) else [params]
    for draw in draws:
        linear += cells @ draw.w[used].astype(np.float64)
        for v in np.ascontiguousarray(draw.V[used].T, np.float64):  # one factor at a time holds no vector a part
            sums = cells @ v
            between += sums[a] * sums[b]
            within += (sums[several] ** 2 - squares @ v**2) / 2
    return Parts(
        float(np.mean(params.w0)),
        np.concatenate([row, row[a], row[several]]),
        np.concatenate([group, group[a], group[several]]),
        np.concatenate([np.full(len(row), -1), group[b], group[several]]),
        np.concatenate([linear, between, within]) / len(draws),
    )


def explanation(
    params: FMParams | Posterior,
    X: Any,
    *,
    by: Any = None,
    fields: Any = None,
    encoder: Any = None,
    columns: Any = None,
) -> pd.DataFrame:
    """`parts` as a table with names, a line a part: what the estimators' `explain` returns, which says more.

    Parameters
    ----------
    by : "column", "field" or None
        None is by field where fields are given.
    fields : (n_features,) int, optional
    encoder : fitted encoder, optional
        Whose names its fields and columns have.
    columns : (n_features,) names, optional
        Of the columns of a matrix; with an encoder they count for nothing.
    """
    if by not in ("column", "field", None):
        raise ValueError(f"by must be 'column', 'field' or None, got {by!r}")
    if by == "field":
        _require(fields, "by='field'")
    rows = check_csr(X, n_features=params.w.shape[-1])
    if by == "column" or fields is None:
        found = parts(params, rows)
        shown = np.unique(found.first)
        names = _column_names(encoder, columns, shown)
    else:
        found = parts(params, rows, fields=fields)
        shown = np.unique(found.first)
        names = _field_names(encoder, shown)
    names = np.append(names, "")  # of −1
    n, kind = rows.n_rows, np.array(["intercept", "linear", "pair"], object)
    row = np.concatenate([np.arange(n), found.row])
    first = np.concatenate([np.full(n, len(shown)), np.searchsorted(shown, found.first)])
    second = np.concatenate(
        [np.full(n, len(shown)), np.where(found.second < 0, len(shown), np.searchsorted(shown, found.second))]
    )
    part = np.concatenate([np.zeros(n, np.int64), np.where(found.second < 0, 1, 2)])
    value = np.concatenate([np.full(n, found.intercept), found.value])
    order = np.lexsort((-np.abs(value), part > 0, row))
    return pd.DataFrame(
        {
            "row": row[order],
            "part": kind[part[order]],
            "first": names[first[order]],
            "second": names[second[order]],
            "value": value[order],
        }
    )


def importance(params: FMParams | Posterior, X: Any, *, fields: Any, encoder: Any = None) -> pd.DataFrame:
    """How much each field, and each pair of fields, makes the scores of the rows of X differ.

    Rows are taken in blocks, so that memory grows with the non-zeros and with the square of the number of fields.

    Parameters
    ----------
    X : matrix-like (n_rows, n_features)
    fields : (n_features,) int
    encoder : fitted encoder, optional
        Whose names its fields have.

    Returns
    -------
    DataFrame
        As the estimators' `field_importance` says.
    """
    _require(fields, "field_importance")
    rows = check_csr(X, n_features=params.w.shape[-1])
    if rows.n_rows == 0:
        raise ValueError("X has 0 rows: nothing differs")
    shown, group = np.unique(_checked(fields, rows.n_features), return_inverse=True)
    width = len(shown) + 1
    if len(shown) * width > _MOST_LINES:
        raise ValueError(f"{len(shown)} fields make more than {_MOST_LINES // 2:,} pairs: give fewer fields")
    seen, mean, squares = np.zeros((3, len(shown) * width))  # by first · width + second + 1
    step = max(1, _AT_ONCE // (len(shown) * width))
    for start in range(0, rows.n_rows, step):
        some = rows.take(np.arange(start, min(start + step, rows.n_rows)))
        found, n = parts(params, some, fields=group), some.n_rows
        key = found.first * width + found.second + 1
        count = np.bincount(key, minlength=len(mean))
        own = np.bincount(key, found.value, len(mean)) / n
        # a row without the part has zero of it
        own_squares = np.bincount(key, (found.value - own[key]) ** 2, len(mean)) + (n - count) * own**2
        off = own - mean  # Chan, Golub & LeVeque 1983: the squares around the mean of both
        seen += count
        squares += own_squares + off**2 * (start * n / (start + n))
        mean += off * (n / (start + n))
    first, second = np.divmod(np.arange(len(mean)), width)
    second -= 1
    lines = np.flatnonzero((second < 0) | (second > first) | (seen > 0))
    lines = lines[np.argsort(-squares[lines], kind="stable")]
    names = np.append(_field_names(encoder, shown), "")  # of −1
    return pd.DataFrame(
        {
            "first": names[first[lines]],
            "second": names[second[lines]],
            "importance": np.sqrt(squares[lines] / rows.n_rows),
        }
    )


def _require(fields: Any, what: str) -> None:
    if fields is None:
        raise ValueError(f"{what} needs to know the fields: give an encoder, or fields=(n_features,) numbers")


def _checked(fields: Any, n_features: int) -> _Ints:
    numbers = np.asarray(fields)
    if numbers.shape != (n_features,) or numbers.dtype.kind not in "iu" or numbers.min(initial=0) < 0:
        raise ValueError(
            f"fields must hold the number of the field of each of the {n_features} columns, from 0 on; "
            f"got shape {numbers.shape} of {numbers.dtype}"
        )
    return numbers.astype(np.int64)


def _column_names(encoder: Any, columns: Sequence[Any] | None, shown: _Ints) -> NDArray[np.object_]:
    if encoder is not None:
        columns = encoder.get_feature_names_out() if hasattr(encoder, "get_feature_names_out") else None
    return _texts(f"column {j}" if columns is None else columns[j] for j in shown)


def _field_names(encoder: Any, shown: _Ints) -> NDArray[np.object_]:
    names = getattr(encoder, "field_names_", None)
    return _texts(f"field {f}" if names is None else names[f] for f in shown)


def _texts(names: Any) -> NDArray[np.object_]:
    return np.array([str(name) for name in names], object)
