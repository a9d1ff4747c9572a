"""What a score is made of: the bias, what each column or field adds by itself, and what each pair of them adds.

With S_f = Σ_{j in f} x_j v_j of the non-zeros of a row in field f, the score is exactly (Rendle 2010, by field)

    w0 + Σ_f Σ_{j in f} w_j x_j + Σ_{f<g} ⟨S_f, S_g⟩ + Σ_f ½ (‖S_f‖² − Σ_{j in f} x_j² ‖v_j‖²)

and with each column for a field of its own it is the definition. Of draws every part is the mean over them, and the
parts add up to the mean score. Of the family's other members each set of columns of a row is a part, those of a field
added up afterwards. All sums are in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from .model import FMParams, Posterior
from .validation import Rows, check_csr

__all__ = ["Parts", "explanation", "importance", "parts"]

_MOST_LINES = 10_000_000
_AT_ONCE = 1 << 20  # parts held while their deviation is summed up

_Ints = NDArray[np.int64]

# What the columns of a table call the members of a set.
_PLACES = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
)


class Parts(NamedTuple):
    """What the scores of rows are made of, beside the intercept that all share: linear parts, then sets of columns."""

    intercept: float
    row: _Ints  # (n_parts,)
    first: _Ints  # (n_parts,) column, or field
    second: _Ints  # (n_parts,) column or field, at least first; −1 of a linear part
    value: NDArray[np.float64]  # (n_parts,)
    further: _Ints  # (n_parts, order − 2) the third and later ones of a set, −1 where it is smaller

    @property
    def members(self) -> _Ints:
        """(n_parts, order) columns, or fields, in ascending order; −1 behind the last."""
        return np.column_stack([self.first, self.second, self.further])


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
    if isinstance(params, FMParams) and params.family.kind != "fm":
        found = _family_parts(params, rows)
        return found if fields is None else _by_field(found, _checked(fields, rows.n_features))
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
        np.empty((len(row) + len(a) + len(several), 0), np.int64),
    )


def _family_parts(params: FMParams, rows: Rows) -> Parts:
    """By column, each set from the definition in _kernels/families.h."""
    family, k = params.family, params.n_factors
    lengths = np.diff(rows.indptr)
    counts = {int(n): int(times) for n, times in zip(*np.unique(lengths, return_counts=True), strict=True)}
    n_lines = sum(times * sum(comb(n, size) for size in range(family.order + 1)) for n, times in counts.items())
    if n_lines > _MOST_LINES:
        raise ValueError(
            f"{rows.n_rows} rows with up to {lengths.max()} columns each have {n_lines:,} parts of up to "
            f"{family.order} columns, more than {_MOST_LINES:,}: explain fewer rows"
        )
    w, V = params.w.astype(np.float64), params.V
    row, members, value = [], [], []
    for n in counts:
        of = np.flatnonzero(lengths == n)
        at = rows.indptr[of].astype(np.int64)[:, None] + np.arange(n)
        columns = rows.indices[at].astype(np.int64)
        x = np.ones(columns.shape) if rows.data is None else rows.data[at].astype(np.float64)
        for size in range(1, min(family.order, n) + 1):
            sets = np.array(list(itertools.combinations(range(n), size)), np.int64)
            step = max(1, _AT_ONCE // max(1, len(sets) * size * max(1, k)))
            for start in range(0, len(of), step):
                some = slice(start, start + step)
                j, product = columns[some][:, sets], x[some][:, sets].prod(axis=2)
                if size == 1:
                    product *= w[j[..., 0]]
                elif family.kind == "anova":
                    first = 0 if family.shared else (size - 2) * k
                    product *= V[:, first : first + k][j].astype(np.float64).prod(axis=2).sum(axis=-1)
                else:
                    assert family.fields is not None
                    a, b, f, g = j[..., 0], j[..., 1], family.fields[j[..., 0]], family.fields[j[..., 1]]
                    if params.field_weights is None:
                        aware = V.reshape(len(V), family.n_fields, k)
                        product *= np.einsum("...k,...k->...", aware[a, g].astype(np.float64), aware[b, f])
                    else:
                        product *= params.field_weights[f, g]
                        product *= np.einsum("...k,...k->...", V[a].astype(np.float64), V[b])
                row.append(np.repeat(of[some], len(sets)))
                value.append(product.ravel())
                padded = np.full((product.size, max(2, family.order)), -1)
                padded[:, :size] = j.reshape(-1, size)
                members.append(padded)
    if not row:
        row, members, value = [np.empty(0, int)], [np.empty((0, max(2, family.order)), int)], [np.empty(0)]
    every = np.concatenate(members).astype(np.int64)
    size_of = (every >= 0).sum(axis=1)
    order = np.argsort(size_of > 1, kind="stable")
    every = every[order]
    of_row = np.concatenate(row)[order].astype(np.int64)
    values: NDArray[np.float64] = np.concatenate(value)[order]
    return Parts(params.w0, of_row, every[:, 0], every[:, 1], values, every[:, 2:])


def _by_field(found: Parts, fields: _Ints) -> Parts:
    """The parts of the same fields of a row added up."""
    members = np.append(fields, np.iinfo(np.int64).max)[found.members]  # behind all fields: none
    members.sort(axis=1)
    members[members == np.iinfo(np.int64).max] = -1
    linear = members[:, 1] < 0
    keys, place = np.unique(np.column_stack([~linear, found.row, members]), axis=0, return_inverse=True)
    value = np.bincount(place.ravel(), found.value, len(keys))
    return Parts(found.intercept, keys[:, 1], keys[:, 2], keys[:, 3], value.astype(np.float64), keys[:, 4:])


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
        shown = np.unique(found.first)  # which each column has a linear part in
        names = _column_names(encoder, columns, shown)
    else:
        found = parts(params, rows, fields=fields)
        shown = np.unique(found.first)
        names = _field_names(encoder, shown)
    names = np.append(names, "")  # of −1
    n, several = rows.n_rows, ["pair", "triple", *(f"set of {size}" for size in range(4, 2 + found.members.shape[1]))]
    kind = np.array(["intercept", "linear", *several], object)
    row = np.concatenate([np.arange(n), found.row])
    part = np.concatenate([np.zeros(n, np.int64), (found.members >= 0).sum(axis=1)])
    value = np.concatenate([np.full(n, found.intercept), found.value])
    order = np.lexsort((-np.abs(value), part > 0, row))
    table = {"row": row[order], "part": kind[part[order]]}
    for title, own in zip(_PLACES, found.members.T, strict=False):
        at = np.concatenate([np.full(n, len(shown)), np.where(own < 0, len(shown), np.searchsorted(shown, own))])
        table[title] = names[at[order]]
    return pd.DataFrame(table | {"value": value[order]})


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
    width, size = len(shown) + 1, params.family.order if isinstance(params, FMParams) else 2
    if len(shown) * width ** (size - 1) > _MOST_LINES:
        raise ValueError(f"{len(shown)} fields make more than {_MOST_LINES // 2:,} sets of {size}: give fewer fields")
    seen, mean, squares = np.zeros((3, len(shown) * width ** (size - 1)))  # by (first · width + second + 1) · width + …
    step = max(1, _AT_ONCE // len(seen))
    for start in range(0, rows.n_rows, step):
        some = rows.take(np.arange(start, min(start + step, rows.n_rows)))
        found, n = parts(params, some, fields=group), some.n_rows
        key = found.first
        for other in found.members.T[1:]:
            key = key * width + other + 1
        count = np.bincount(key, minlength=len(mean))
        own = np.bincount(key, found.value, len(mean)) / n
        # a row without the part has zero of it
        own_squares = np.bincount(key, (found.value - own[key]) ** 2, len(mean)) + (n - count) * own**2
        off = own - mean  # Chan, Golub & LeVeque 1983: the squares around the mean of both
        seen += count
        squares += own_squares + off**2 * (start * n / (start + n))
        mean += off * (n / (start + n))
    rest = np.arange(len(mean))
    members: list[_Ints] = []
    for _ in range(size - 1):
        rest, last = np.divmod(rest, width)
        members.insert(0, last - 1)
    lines = (
        np.flatnonzero((members[0] < 0) | (members[0] > rest) | (seen > 0)) if size == 2 else np.flatnonzero(seen > 0)
    )
    lines = lines[np.argsort(-squares[lines], kind="stable")]
    names = np.append(_field_names(encoder, shown), "")  # of −1
    table = {title: names[own[lines]] for title, own in zip(_PLACES, (rest, *members), strict=False)}
    return pd.DataFrame(table | {"importance": np.sqrt(squares[lines] / rows.n_rows)})


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
