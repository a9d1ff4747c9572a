"""The best items for many requests, exactly, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .validation import check_csr, check_positive

__all__ = ["top_k"]

_BLOCK = 1 << 22  # scores held at once


def top_k(
    users: tuple[NDArray[Any], NDArray[Any]],
    items: tuple[NDArray[Any], NDArray[Any]],
    k: int,
    *,
    w0: float = 0.0,
    exclude: Any = None,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The k items with the highest score w0 + b_u + b_i + ⟨p_u, q_i⟩ for each user.

    Exact: every pair is scored, in blocks of about four million scores (16 MB in float32); beyond them memory grows
    with the output alone. The winners, and all that come within rounding of them, are scored once more in float64, so
    that a list depends on nothing but its user and the items; equal scores rank by position, lower first.

    Parameters
    ----------
    users, items : (bias (n,), vectors (n, d)) of model.represent
    k : int
        Length of the lists.
    exclude : scipy sparse (n_users, n_items), optional
        Pairs not to show: the stored non-zeros.

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
    if n_shown == 0:
        return ids, top
    step = max(1, _BLOCK // n_items)
    # a bound on the rounding of a product of d terms: d · eps · ‖p‖ · ‖q‖
    rounding = 2 * (user_vectors.shape[1] + 2) * np.finfo(item_vectors.dtype).eps
    longest, highest = np.linalg.norm(item_vectors, axis=1).max(), np.abs(item_bias).max()
    for start in range(0, n_users, step):
        block = slice(start, min(start + step, n_users))
        scores = user_vectors[block] @ item_vectors.T
        scores += item_bias  # a user's bias and w0 do not change the order of the items
        if exclude is not None:
            bounds = seen.indptr[start : block.stop + 1]
            request = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
            scores[request, seen.indices[bounds[0] : bounds[-1]]] = -np.inf
        cut = np.partition(scores, n_items - n_shown, axis=1)[:, n_items - n_shown]
        for row, (each, least) in enumerate(zip(scores, cut, strict=True), start):
            vector = user_vectors[row].astype(np.float64)
            near = least - rounding * (np.linalg.norm(vector) * longest + highest)
            best = np.flatnonzero((each >= near) & (each > -np.inf))
            vectors = item_vectors[best].astype(np.float64)
            exact = np.einsum("id,d->i", vectors, vector) + item_bias[best]
            order = np.lexsort((best, -exact))[:n_shown]
            ids[row, : len(order)] = best[order]
            top[row, : len(order)] = exact[order] + float(user_bias[row]) + w0
    return ids, top
