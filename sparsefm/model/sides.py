"""The two sides of a recommendation: a score as a product of what is the user's and what is the item's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..validation import Rows, check_csr
from .params import FMParams
from .passes import Posterior, forward, polynomials, score

__all__ = ["represent"]

Side = tuple[NDArray[Any], NDArray[Any]]


def represent(
    params: FMParams | Posterior, X_users: Any, X_items: Any, *, n_threads: int | None = None
) -> tuple[Side, Side]:
    """Both sides as (bias, vectors), so that the score of the sum of a user row and an item row is

        w0 + bias_user + bias_item + ⟨vector_user, vector_item⟩

    exactly, for rows with disjoint columns: bias is a side's own linear part and pairs, the vector its Σ x_j v_j. Of
    draws, whose mean score it then is with the mean of their w0: biases are means, and vectors those of all draws, one
    behind the other, divided by √n_draws. Of order m a vector holds the sums of products of s of a side's features, s
    from 1 to t − 1 for each order t, beside those of t − s of the other's; of field-aware machines Σ x_j v_j by own and
    other field, of field-weighted ones by the user's fields, the items' weighted.

    Parameters
    ----------
    X_users, X_items : matrix-like, (n_users, n_features) and (n_items, n_features)
        No column may be non-zero in both.

    Returns
    -------
    ((n_users,), (n_users, n_numbers)), ((n_items,), (n_items, n_numbers)), n_numbers being n_factors, of draws
    n_draws · n_factors, and of the rest of the family as above
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
    if isinstance(params, FMParams) and params.family.kind != "fm":
        return _family_sides(params, users, items, n_threads)
    each = [params[draw] for draw in range(len(params))] if isinstance(params, Posterior) else [params]
    k, root = each[0].n_factors, dtype.type(len(each) ** 0.5)
    sides = []
    for rows in (users, items):
        biases, vectors = np.zeros(rows.n_rows, np.float64), np.empty((rows.n_rows, len(each) * k), dtype)
        for draw, own in enumerate(each):
            bias, sums = forward(FMParams(0.0, own.w, own.V), rows, n_threads, with_sums=True)
            assert sums is not None
            biases += bias
            np.divide(sums[:, :k], root, out=vectors[:, draw * k : (draw + 1) * k])
        sides.append(((biases / len(each)).astype(dtype), vectors))
    return sides[0], sides[1]


def _family_sides(params: FMParams, users: Rows, items: Rows, n_threads: int | None) -> tuple[Side, Side]:
    family, k = params.family, params.n_factors
    if family.kind == "anova":  # e_t(u + i) = Σ_s e_s(u) e_{t−s}(i)
        bias_u, e_u = polynomials(params, users, n_threads)
        bias_i, e_i = polynomials(params, items, n_threads)
        left, right, at = [], [], 0
        for top in [family.order] if family.shared else family.orders:
            of_u, of_i = ([e[:, at + s * k : at + (s + 1) * k] for s in range(top)] for e in (e_u, e_i))
            left += of_u[:-1]
            right += [sum(of_i[: top - s - 1]) if family.shared else of_i[top - s - 2] for s in range(top - 1)]
            at += top * k
        return (bias_u, np.concatenate(left, axis=1)), (bias_i, np.concatenate(right, axis=1))
    assert family.fields is not None
    fields = [np.unique(family.fields[rows.indices]) for rows in (users, items)]
    bias_u, bias_i = (score(replace(params, w0=0.0), rows, n_threads=n_threads) for rows in (users, items))
    if family.kind == "ffm":
        left = [_field_sum(params, users, f)[:, g * k : (g + 1) * k] for f in fields[0] for g in fields[1]]
        right = [_field_sum(params, items, g)[:, f * k : (f + 1) * k] for f in fields[0] for g in fields[1]]
    else:
        assert params.field_weights is not None
        left = [_field_sum(params, users, f) for f in fields[0]]
        of_items = [_field_sum(params, items, g) for g in fields[1]]
        right = [
            sum(
                (params.field_weights[f, g] * own for g, own in zip(fields[1], of_items, strict=True)),
                np.zeros((items.n_rows, k)),
            )
            for f in fields[0]
        ]
    vectors_u, vectors_i = (
        np.concatenate([np.empty((rows.n_rows, 0)), *parts], axis=1).astype(params.dtype)
        for rows, parts in ((users, left), (items, right))
    )
    return (bias_u, vectors_u), (bias_i, vectors_i)


def _field_sum(params: FMParams, rows: Rows, field: int) -> NDArray[Any]:
    """Σ x_j v_j over a row's features j of the field: (n_rows, numbers of a feature)."""
    assert params.family.fields is not None
    matrix = rows.matrix()
    kept = matrix.indices[params.family.fields[matrix.indices] == field]
    columns = np.unique(kept)
    return np.asarray(matrix[:, columns] @ params.V[columns].astype(np.float64))
