"""The best items for many requests, exactly, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import dispatch, topk
from .validation import check_csr, check_positive

__all__ = ["top_k"]

_BLOCK = 1 << 20  # scores held at once


def top_k(
    users: tuple[NDArray[Any], NDArray[Any]],
    items: tuple[NDArray[Any], NDArray[Any]],
    k: int,
    *,
    w0: float = 0.0,
    exclude: Any = None,
    n_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The k items with the highest score w0 + b_u + b_i + ⟨p_u, q_i⟩ for each user.

    Exact: every pair is scored, in blocks of about a million scores (4 MB in float32); beyond them memory grows with
    the output alone. The winners, and all that come within rounding of them, are scored once more in float64, so
    that a list depends on nothing but its user and the items; equal scores rank by position, lower first.

    Parameters
    ----------
    users, items : (bias (n,), vectors (n, d)) of model.represent
    k : int
        Length of the lists.
    exclude : scipy sparse (n_users, n_items), optional
        Pairs not to show: the stored non-zeros.
    n_threads : int, optional
        That choose the best; None: every core. Products are numpy's, which has threads of its own.

    Returns
    -------
    ids : (n_users, k) int64
        Positions in `items`; −1 where fewer than k items are left.
    scores : (n_users, k) float64
        Descending; −inf where the id is −1.
    """
    check_positive(k, "k", integer=True)
    (user_bias, user_vectors), (item_bias, item_vectors) = users, items
    n_users, n_items = len(user_bias), len(item_bias)
    if exclude is not None:
        seen = check_csr(exclude, dtype=np.float64, name="exclude")
        if (seen.n_rows, seen.n_features) != (n_users, n_items):
            raise ValueError(
                f"exclude must have shape (n_users, n_items) = ({n_users}, {n_items}), "
                f"got {(seen.n_rows, seen.n_features)}"
            )
    ids = np.full((n_users, k), -1, dtype=np.int64)
    top = np.full((n_users, k), -np.inf)
    n_shown = min(k, n_items)
    if n_shown == 0 or n_users == 0:
        return ids, top
    step = min(n_users, max(1, _BLOCK // n_items))
    # a bound on the rounding of a product of d terms: d · eps · ‖p‖ · ‖q‖
    dtype = np.result_type(user_vectors, item_vectors, item_bias)
    user_vectors, item_vectors = (np.ascontiguousarray(side, dtype) for side in (user_vectors, item_vectors))
    bias = np.ascontiguousarray(item_bias, dtype)
    rounding = 2 * (user_vectors.shape[1] + 2) * np.finfo(dtype).eps
    longest, highest = _lengths(item_vectors).max(), np.abs(bias).max()
    slack = rounding * (_lengths(user_vectors) * longest + highest)
    held = np.empty((step, n_items), dtype)
    starts = left_out = None
    if exclude is not None:
        starts, left_out = seen.indptr.astype(np.int64), seen.indices.astype(np.int32)
    for start in range(0, n_users, step):
        stop = min(start + step, n_users)
        block, scores = slice(start, stop), held[: stop - start]
        np.matmul(user_vectors[block], item_vectors.T, out=scores)

        def select(begin: int, end: int, block: slice = block, scores: Any = scores) -> None:
            topk.top(
                scores, user_vectors[block], item_vectors, bias, slack[block],
                None if starts is None else starts[block.start : block.stop + 1], left_out, ids[block], top[block],
                np.empty(k, dtype), np.empty(n_items, np.int32), begin, end, dispatch.ISA,
            )  # fmt: skip

        dispatch.run_pieces(select, stop - start, scores.size, n_threads)
    top += (user_bias.astype(np.float64) + w0)[:, None]
    return ids, top


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return lengths
