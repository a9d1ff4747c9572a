"""The NumPy face of the equation: parameters, scores, gradients, and the two sides of a recommendation.

score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l        Rendle, Factorization Machines, ICDM 2010
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._kernels import adaptive, csr, dispatch, fm
from .validation import Relations, Rows, check_csr

__all__ = ["FMParams", "Gradient", "Posterior", "aligned_zeros", "gradient", "init", "represent", "score"]

_LINE = 64  # bytes of a cache line
_LANES = 16  # reals of the widest vector: rows of sums are padded to it


@dataclass(frozen=True, eq=False)
class FMParams:
    """Parameters of a second-order factorization machine.

    Attributes
    ----------
    w0 : float
        Bias.
    w : (n_features,) float32 or float64
        Linear weights.
    V : (n_features, n_factors), of the same type
        Factors; n_factors may be 0, which leaves the linear model.
    """

    w0: float
    w: NDArray[Any]
    V: NDArray[Any]

    def __post_init__(self) -> None:
        w, V = self.w, self.V
        if not (isinstance(w, np.ndarray) and isinstance(V, np.ndarray)):
            raise TypeError(f"w and V must be NumPy arrays, got {type(w).__name__} and {type(V).__name__}")
        if w.ndim != 1 or V.ndim != 2 or len(w) != len(V):
            raise ValueError(
                f"w must be (n_features,) and V (n_features, n_factors); got shapes {w.shape} and {V.shape}"
            )
        if w.dtype != V.dtype or w.dtype not in (np.float32, np.float64):
            raise ValueError(f"w and V must both be float32 or both float64; got {w.dtype} and {V.dtype}")
        if V.size and (V.strides[1] != V.itemsize or (len(V) > 1 and V.strides[0] < V.shape[1] * V.itemsize)):
            raise ValueError("the factors of one feature must lie side by side: pass np.ascontiguousarray(V)")
        if w.strides[0] % w.itemsize or V.strides[0] % V.itemsize:
            raise ValueError("w and V must not be parts of packed records: pass np.ascontiguousarray of each")

    @property
    def n_features(self) -> int:
        return len(self.w)

    @property
    def n_factors(self) -> int:
        return int(self.V.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.w.dtype

    def grow(self, n_features: int, *, start: Any = None) -> FMParams:
        """A copy with columns appended: n_features in all, those that are here in their places.

        start: (n_features,) int, for each new column the present one whose weight and factors it begins with, -1
        for zeros; what it says of present columns is ignored. With `FrameEncoder.buckets_` a level that was
        unknown until now begins as the unknown ones are scored, so that growing changes no prediction.

        >>> params = FMParams(0.5, np.array([1.0, 2.0]), np.array([[3.0], [4.0]]))
        >>> params.grow(4, start=[-1, -1, 0, -1]).w
        array([1., 2., 1., 0.])
        """
        present = self.n_features
        if n_features < present:
            raise ValueError(f"n_features must be at least the {present} there are, got {n_features}")
        rows = np.full(n_features, -1) if start is None else np.asarray(start)
        if rows.shape != (n_features,) or rows.dtype.kind not in "iu":
            raise ValueError(f"start must hold {n_features} integers, got shape {rows.shape} of {rows.dtype}")
        rows = rows[present:]
        if ((rows < -1) | (rows >= present)).any():
            raise ValueError(
                f"start must name present columns, 0 to {present - 1}, or -1, got {rows.min()} to {rows.max()}"
            )
        w, V = np.zeros(n_features, self.dtype), aligned_zeros((n_features, self.n_factors), self.dtype)
        w[:present], V[:present] = self.w, self.V
        copied = np.flatnonzero(rows >= 0)
        w[present + copied], V[present + copied] = self.w[rows[copied]], self.V[rows[copied]]
        return FMParams(self.w0, w, V)


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
    V: NDArray[Any]  # (n_touched, n_factors)
    data: NDArray[Any]  # (nnz,) with respect to the values of the canonical rows


def aligned_zeros(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """Zeros whose first row begins on a cache line; untouched pages of a large array cost no memory."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    block = np.zeros(size + _LINE, dtype=np.uint8)
    offset = -block.ctypes.data % _LINE
    table: NDArray[Any] = block[offset : offset + size].view(dtype).reshape(shape)
    return table


def init(
    n_features: int,
    n_factors: int,
    *,
    init_std: float = 0.01,
    seed: int = 0,
    features: NDArray[Any] | None = None,
    dtype: Any = np.float32,
) -> FMParams:
    """Starting parameters: zeros, and uniform factors of mean 0 and standard deviation init_std.

    The factor at (feature, factor) is a function of those two and the seed alone, so a feature starts alike
    whichever others there are. With `features` (integers) only those get factors; the rest score zero.
    """
    V = aligned_zeros((n_features, n_factors), dtype)
    if features is None:
        features = np.arange(n_features, dtype=np.int64)
    adaptive.fill_uniform(V, n_factors, features, init_std, seed)
    return FMParams(0.0, np.zeros(n_features, dtype=dtype), V)


def score(params: FMParams, X: Any, *, n_threads: int | None = None) -> NDArray[Any]:
    """Raw scores (n_rows,) of the rows of X, in the parameters' type; the same bits at any n_threads.

    Of `Relations` an entity is looked at once, however many rows it has.
    """
    if isinstance(X, Relations):
        return _score_relations(params, X, n_threads)
    rows = check_csr(X, n_features=params.n_features, dtype=params.dtype)
    return _forward(params, rows, n_threads, with_sums=False)[0]


def _score_relations(params: FMParams, X: Relations, n_threads: int | None) -> NDArray[Any]:
    """w0 + Σ (bias − ½‖vector‖²) + ½‖Σ vectors‖² over the row's own part and its entities."""
    if X.n_features != params.n_features:
        raise ValueError(f"X has {X.n_features} columns, but the parameters have {params.n_features}")
    bare, k = FMParams(0.0, params.w, params.V), params.n_factors
    scores = np.full(X.n_rows, params.w0)
    total = np.zeros((X.n_rows, k))
    parts: list[tuple[Any, Rows]] = [(slice(None), X.rows), *((block.index, block.rows) for block in X.blocks)]
    for index, rows in parts:
        bias, sums = _forward(bare, check_csr(rows, dtype=params.dtype), n_threads, with_sums=True)
        assert sums is not None
        vectors = sums[:, :k].astype(np.float64)
        scores += (bias - np.einsum("ij,ij->i", vectors, vectors) / 2)[index]
        total += vectors[index]
    scores += np.einsum("ij,ij->i", total, total) / 2
    return scores.astype(params.dtype)


def _forward(
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

    Costs about two more passes over the non-zeros; nothing of length n_features is allocated. The same bits
    at any n_threads.

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
    _, sums = _forward(params, rows, n_threads, with_sums=True)
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


Side = tuple[NDArray[Any], NDArray[Any]]


def represent(
    params: FMParams | Posterior, X_users: Any, X_items: Any, *, n_threads: int | None = None
) -> tuple[Side, Side]:
    """Both sides as (bias, vectors), so that the score of the sum of a user row and an item row is

        w0 + bias_user + bias_item + ⟨vector_user, vector_item⟩

    exactly, for rows with disjoint columns: bias is a side's own linear part and pairs, the vector its Σ x_j v_j. Of
    draws, whose mean score it then is with the mean of their w0: biases are means, and vectors those of all draws, one
    behind the other, divided by √n_draws.

    Parameters
    ----------
    X_users, X_items : matrix-like, (n_users, n_features) and (n_items, n_features)
        No column may be non-zero in both.

    Returns
    -------
    ((n_users,), (n_users, n_factors)), ((n_items,), (n_items, n_factors)); of draws n_draws · n_factors
    """
    n_features, dtype = params.w.shape[-1], params.w.dtype
    users = check_csr(X_users, n_features=n_features, dtype=dtype, name="X_users")
    items = check_csr(X_items, n_features=n_features, dtype=dtype, name="X_items")
    shared = np.intersect1d(users.indices, items.indices)
    if len(shared):
        raise ValueError(
            f"{len(shared)} columns are non-zero on both sides, the first being column {shared[0]}: a score splits "
            "into a user part and an item part only if each column belongs to one of them"
        )
    each = [params[draw] for draw in range(len(params))] if isinstance(params, Posterior) else [params]
    k, root = each[0].n_factors, dtype.type(len(each) ** 0.5)
    sides = []
    for rows in (users, items):
        biases, vectors = np.zeros(rows.n_rows, np.float64), np.empty((rows.n_rows, len(each) * k), dtype)
        for draw, own in enumerate(each):
            bias, sums = _forward(FMParams(0.0, own.w, own.V), rows, n_threads, with_sums=True)
            assert sums is not None
            biases += bias
            np.divide(sums[:, :k], root, out=vectors[:, draw * k : (draw + 1) * k])
        sides.append(((biases / len(each)).astype(dtype), vectors))
    return sides[0], sides[1]
