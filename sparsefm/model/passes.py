"""Passes over rows: scores, gradients, and what a representation is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._kernels import csr, dispatch, family, fm
from .._kernels.dispatch import address
from ..validation import Relations, Rows, check_csr
from .params import FMParams, aligned_zeros

__all__ = ["Gradient", "Posterior", "forward", "gradient", "polynomials", "score"]

_LANES = 16  # reals of the widest vector: rows of sums are padded to it


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of a machine's parameters from their distribution given the data.

    Factors are known up to a rotation only, so that their mean over draws says nothing: scores are averaged.

    Attributes
    ----------
    w0, w, V : (n_draws,) float64, (n_draws, n_features), (n_draws, n_features, n_factors)
    deviation : (n_draws,)
        Standard deviation of the target around the score.
    mean, precision : (n_draws, n_groups, n_factors + 1)
        Of the normal distributions of factors and, last, weights, by group of features.
    chain : (n_draws,) int32
        Which chain each is of.
    cuts : (n_draws, n_levels − 1), optional
        Of an ordered target.
    """

    w0: NDArray[np.float64]
    w: NDArray[Any]
    V: NDArray[Any]
    deviation: NDArray[np.float64]
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    chain: NDArray[np.int32]
    cuts: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.w0)

    def __getitem__(self, draw: int) -> FMParams:
        return FMParams(float(self.w0[draw]), self.w[draw], self.V[draw])

    def scores(self, X: Any, *, n_threads: int | None = None) -> Iterator[NDArray[Any]]:
        """Raw scores (n_rows,) under each draw in turn."""
        rows = X if isinstance(X, Relations) else check_csr(X, n_features=self.w.shape[1], dtype=self.w.dtype)
        for draw in range(len(self)):
            yield score(self[draw], rows, n_threads=n_threads)


class Gradient(NamedTuple):
    """Gradient of Σ_i d_i · score_i; w and V have a row for each feature that occurs, and no others."""

    w0: float
    features: NDArray[Any]  # (n_touched,) int64, ascending
    w: NDArray[Any]  # (n_touched,)
    V: NDArray[Any]  # (n_touched, numbers of a feature)
    data: NDArray[Any]  # (nnz,) with respect to the values of the canonical rows
    field_weights: NDArray[Any] | None = (
        None  # (n_fields, n_fields) of "fwfm", half of a pair's in each of its two places
    )


def score(params: FMParams, X: Any, *, n_threads: int | None = None) -> NDArray[Any]:
    """Raw scores (n_rows,) of the rows of X, in the parameters' type; the same bits at any n_threads.

    Of `Relations` an entity is looked at once, however many rows it has.
    """
    if isinstance(X, Relations) and params.family.kind == "fm":
        return _score_relations(params, X, n_threads)
    rows = check_csr(X.flat() if isinstance(X, Relations) else X, n_features=params.n_features, dtype=params.dtype)
    if params.family.kind != "fm":
        out = np.empty(rows.n_rows, params.dtype)
        _family(params, rows, n_threads, out=out)
        return out
    return forward(params, rows, n_threads, with_sums=False)[0]


def _score_relations(params: FMParams, X: Relations, n_threads: int | None) -> NDArray[Any]:
    """w0 + Σ (bias − ½‖vector‖²) + ½‖Σ vectors‖² over the row's own part and its entities."""
    if X.n_features != params.n_features:
        raise ValueError(f"X has {X.n_features} columns, but the parameters have {params.n_features}")
    bare, k = FMParams(0.0, params.w, params.V), params.n_factors
    scores = np.full(X.n_rows, params.w0)
    total = np.zeros((X.n_rows, k))
    parts: list[tuple[Any, Rows]] = [(slice(None), X.rows), *((block.index, block.rows) for block in X.blocks)]
    for index, rows in parts:
        bias, sums = forward(bare, check_csr(rows, dtype=params.dtype), n_threads, with_sums=True)
        assert sums is not None
        vectors = sums[:, :k].astype(np.float64)
        scores += (bias - np.einsum("ij,ij->i", vectors, vectors) / 2)[index]
        total += vectors[index]
    scores += np.einsum("ij,ij->i", total, total) / 2
    return scores.astype(params.dtype)


def forward(
    params: FMParams, rows: Rows, n_threads: int | None, *, with_sums: bool
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    out = np.empty(rows.n_rows, dtype=params.dtype)
    sums = aligned_zeros((rows.n_rows, _padded(params.n_factors)), params.dtype) if with_sums else None

    def run(start: int, stop: int) -> None:
        fm.forward(
            out,
            rows.indptr,
            rows.indices,
            rows.data,
            params.w0,
            params.w,
            params.V,
            sums,
            start,
            stop,
            dispatch.ISA,
        )

    dispatch.run_pieces(run, rows.n_rows, rows.nnz * (params.n_factors + 4), n_threads)
    return out, sums


def _padded(n_factors: int) -> int:
    return -(-n_factors // _LANES) * _LANES


def gradient(params: FMParams, X: Any, d: Any, *, n_threads: int | None = None) -> Gradient:
    """Gradient of Σ_i d_i · score_i, with d (n_rows,) the derivative of your loss by the scores.

    Costs about two more passes over the non-zeros; nothing of length n_features is allocated, but for other families
    than "fm" a row of V for each non-zero. The same bits at any n_threads.

    >>> import numpy as np
    >>> params = FMParams(0.5, np.array([1.0, 2.0]), np.array([[3.0], [4.0]]))
    >>> g = gradient(params, [[1.0, 10.0]], np.array([1.0]))
    >>> g.w, g.V
    (array([ 1., 10.]), array([[40.],
           [30.]]))
    """
    rows = check_csr(X, n_features=params.n_features, dtype=params.dtype)
    d = np.ascontiguousarray(d, dtype=params.dtype)
    if d.shape != (rows.n_rows,):
        raise ValueError(f"d must have one value a row of X, shape ({rows.n_rows},); got shape {d.shape}")
    if params.family.kind != "fm":
        return _family_gradient(params, rows, d, n_threads)
    _, sums = forward(params, rows, n_threads, with_sums=True)
    assert sums is not None
    work = rows.nnz * (params.n_factors + 4)

    g_data = np.empty(rows.nnz, dtype=params.dtype)

    def by_row(start: int, stop: int) -> None:
        fm.backward_rows(
            g_data,
            rows.indptr,
            rows.indices,
            rows.data,
            params.w,
            params.V,
            sums,
            d,
            start,
            stop,
            dispatch.ISA,
        )

    dispatch.run_pieces(by_row, rows.n_rows, work, n_threads)

    features, colptr, entry_rows = (np.empty(rows.nnz + extra, dtype=np.int64) for extra in (0, 1, 0))
    entry_data = None if rows.data is None else np.empty_like(rows.data)
    n_touched = csr.transpose(
        features, colptr, entry_rows, g_data if entry_data is None else entry_data, rows.indptr, rows.indices, rows.data
    )
    features = features[:n_touched].copy()
    g_w = np.empty(n_touched, dtype=params.dtype)
    g_V = np.empty((n_touched, params.n_factors), dtype=params.dtype)

    def by_feature(start: int, stop: int) -> None:
        fm.backward_columns(
            g_w, g_V, features, colptr, entry_rows, entry_data, params.V, sums, d, start, stop, dispatch.ISA
        )

    dispatch.run_pieces(by_feature, n_touched, work, n_threads)
    return Gradient(float(d.sum(dtype=np.float64)), features, g_w, g_V, g_data)


def polynomials(params: FMParams, rows: Rows, n_threads: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of "anova" the scores without w0, and e_1 … e_t of each vector, (n_rows, Σ t · n_factors), t being its order."""
    own = params.family
    tops = [own.order] if own.shared else own.orders
    out = np.empty(rows.n_rows, params.dtype)
    sums = np.empty((rows.n_rows, sum(tops) * params.n_factors), params.dtype)
    _family(replace(params, w0=0.0), rows, n_threads, out=out, sums=sums)
    return out, sums


def _family(
    params: FMParams,
    rows: Rows,
    n_threads: int | None,
    *,
    out: NDArray[Any] | None = None,
    sums: NDArray[Any] | None = None,
    d: NDArray[Any] | None = None,
    g_V: NDArray[Any] | None = None,
    g_data: NDArray[Any] | None = None,
    g_weights: NDArray[np.float64] | None = None,
) -> None:
    """A pass of the kernel of the other families: what is given is written."""
    own, w, V, k = params.family, params.w, params.V, params.n_factors
    longest, size = int(np.diff(rows.indptr).max(initial=0)), params.dtype.itemsize
    pieces: dict[int, NDArray[np.float64]] = {}

    def run(start: int, stop: int) -> None:
        if g_weights is not None:
            pieces[start] = np.zeros_like(g_weights)
        family.family_at(
            dispatch.ISA,
            size == 8,
            rows.indices.itemsize == 8,
            start,
            stop,
            longest,
            address(rows.indptr),
            address(rows.indices),
            address(rows.data),
            family.KINDS[own.kind],
            own.order,
            own.shared,
            k,
            V.shape[1],
            own.n_fields,
            address(own.fields),
            address(weights),
            params.w0,
            address(w),
            w.strides[0] // size,
            address(V),
            V.strides[0] // size,
            params.n_features,
            address(out),
            address(sums),
            0 if sums is None else sums.shape[1],
            address(d),
            address(g_V),
            address(g_data),
            address(pieces.get(start)),
        )

    weights = None if params.field_weights is None else np.ascontiguousarray(params.field_weights)
    met = longest if own.kind == "ffm" else own.order
    dispatch.run_pieces(run, rows.n_rows, rows.nnz * (k * met + 4), n_threads)
    if g_weights is not None:
        for start in sorted(pieces):
            g_weights += pieces[start]


def _family_gradient(params: FMParams, rows: Rows, d: NDArray[Any], n_threads: int | None) -> Gradient:
    g_V, g_data = np.empty((rows.nnz, params.V.shape[1]), params.dtype), np.empty(rows.nnz, params.dtype)
    n = params.family.n_fields
    g_weights = np.zeros((n, n)) if params.field_weights is not None else None
    _family(params, rows, n_threads, d=d, g_V=g_V, g_data=g_data, g_weights=g_weights)
    order = np.argsort(rows.indices, kind="stable")
    features, starts = np.unique(rows.indices[order], return_index=True)
    g_w = np.repeat(d, np.diff(rows.indptr))
    if rows.data is not None:
        g_w *= rows.data
    g_w, g_V = (np.add.reduceat(each[order], starts, axis=0) if len(features) else each for each in (g_w, g_V))
    if g_weights is not None:  # which holds a pair once
        g_weights = ((g_weights + g_weights.T) / 2).astype(params.dtype)
    return Gradient(float(d.sum(dtype=np.float64)), features.astype(np.int64), g_w, g_V, g_data, g_weights)
