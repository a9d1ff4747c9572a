"""The equation in torch's own operations: for devices and types without a kernel, for second derivatives, and for
tables spread over several machines. What it shares with the kernels is the definition only.

Everything is differentiable as often as wanted. With z_p = x_p v_p for the entries p of a row and S = Σ z_p

    pairs_f = (S_f² − Σ_p z_pf²) / 2      ∂pairs_f/∂v_pf = x_p (S_f − z_pf)      ∂pairs_f/∂x_p = v_pf (S_f − z_pf)

The square form loses digits where one entry dominates its row (the kernels use a running form that does not).
Half-precision parameters are added up in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import full_precision, is_recorded, is_transformed, wide

__all__ = ["anova", "backward", "field_aware", "field_weighted", "forward", "pairs", "score"]

# Numbers of a temporary (nnz, factors) that are worth having at once; more factors are taken in turns.
_TILE_NUMBERS = 1 << 24


def _entry_rows(indptr: Tensor, nnz: int) -> Tensor:
    """The row of each entry, (nnz,) int64."""
    at = torch.arange(nnz, device=indptr.device, dtype=indptr.dtype)
    return torch.searchsorted(indptr[1:].contiguous(), at, right=True)


def _per_row(values: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Sums (n_rows, …) of the entries (nnz, …) of each row."""
    return values.new_zeros((n_rows, *values.shape[1:])).index_add(0, rows, values)


def _pairs_and_sums(v: Tensor, data: Tensor | None, rows: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    z = wide(v) if data is None else wide(v) * data[:, None]
    S = _per_row(z, rows, n_rows)
    return (S * S - _per_row(z * z, rows, n_rows)) / 2, S


def _linear(w: Tensor, data: Tensor | None, rows: Tensor, n_rows: int) -> Tensor:
    w = wide(w.reshape(-1))
    return _per_row(w if data is None else w * data, rows, n_rows)


def pairs(indptr: Tensor, data: Tensor | None, V_entries: Tensor) -> Tensor:
    """Pairs by factor (n_rows, n_factors) from the factors of each entry, (nnz, n_factors), however they were looked
    up: the table may be anywhere."""
    rows = _entry_rows(indptr, len(V_entries))
    return _pairs_and_sums(V_entries, data, rows, len(indptr) - 1)[0].to(V_entries.dtype)


def score(indptr: Tensor, data: Tensor | None, w0: Tensor, w_entries: Tensor, V_entries: Tensor) -> Tensor:
    """Scores (n_rows,) from the parameters of each entry, (nnz,) or (nnz, 1) and (nnz, n_factors)."""
    rows, n_rows = _entry_rows(indptr, len(V_entries)), len(indptr) - 1
    by_factor, _ = _pairs_and_sums(V_entries, data, rows, n_rows)
    return (w0.reshape(()) + _linear(w_entries, data, rows, n_rows) + by_factor.sum(1)).to(V_entries.dtype)


def forward(
    indptr: Tensor, indices: Tensor, data: Tensor | None, w0: Tensor | None, w: Tensor | None, V: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores (n_rows,), or without w0 and w the pairs by factor (n_rows, n_factors); and the sums S."""
    nnz, n_rows, k = len(indices), len(indptr) - 1, V.shape[1]
    rows = _entry_rows(indptr, nnz)
    width = max(8, _TILE_NUMBERS // max(nnz, 1))
    tiles = [
        _pairs_and_sums(V[:, f : f + width].index_select(0, indices), data, rows, n_rows)
        for f in range(0, max(k, 1), width)
    ]
    by_factor, sums = (torch.cat(each, 1) for each in zip(*tiles, strict=True))
    if w is None or w0 is None:
        return by_factor.to(V.dtype), sums
    linear = _linear(w.reshape(-1).index_select(0, indices), data, rows, n_rows)
    return (w0.reshape(()) + linear + by_factor.sum(1)).to(V.dtype), sums


def backward(
    d: Tensor, indptr: Tensor, indices: Tensor, data: Tensor | None, w: Tensor | None, V: Tensor, sums: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of each entry: (nnz,) for the values, (nnz,) for w, (nnz, n_factors) for V.

    d is (n_rows,), or (n_rows, n_factors) without w; sums are those of `forward`, computed again if None.
    """
    rows = _entry_rows(indptr, len(indices))
    v = wide(V.index_select(0, indices))
    z = v if data is None else v * data[:, None]
    S = _per_row(z, rows, len(indptr) - 1) if sums is None else sums
    others = S.index_select(0, rows) - z
    each = wide(d).index_select(0, rows)
    if w is None:
        g_data = (each * v * others).sum(1)
        g_V = each * others if data is None else each * data[:, None] * others
        return g_data.to(V.dtype), None, g_V.to(V.dtype)
    g_data = each * (wide(w.reshape(-1).index_select(0, indices)) + (v * others).sum(1))
    g_w = each if data is None else each * data
    return g_data.to(V.dtype), g_w.to(V.dtype), (g_w[:, None] * others).to(V.dtype)


# ---- the rest of the family, from the parameters of each entry as in `score` -----------------------------------------


def anova(
    indptr: Tensor, data: Tensor | None, w0: Tensor, w_entries: Tensor, V_entries: Tensor, order: int, shared: bool
) -> Tensor:
    """Scores (n_rows,) over all sets of 2 to `order` features."""
    rows, n_rows = _entry_rows(indptr, V_entries.shape[0]), indptr.shape[0] - 1
    z = _times(V_entries, data)
    if shared:
        met = _polynomials(z, rows, indptr, order)[1:]
    else:
        blocks = z.reshape(z.shape[0], order - 1, z.shape[1] // (order - 1)).unbind(1)
        met = [_polynomials(each, rows, indptr, top)[-1] for top, each in enumerate(blocks, start=2)]
    linear = _linear(w_entries, data, rows, n_rows)
    return (w0.reshape(()) + linear + torch.cat(met, 1).sum(1)).to(V_entries.dtype)


def field_aware(
    indptr: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w_entries: Tensor,
    V_entries: Tensor,
    fields: Tensor,
    n_fields: int,
) -> Tensor:
    """Scores (n_rows,); fields (nnz,) of the entries. With S_fg the sum of the entries of field f, their vectors for
    field g: (Σ_fg ⟨S_fg, S_gf⟩ − Σ_p ‖z_p for its own field‖²) / 2."""
    nnz, n_rows, k = V_entries.shape[0], indptr.shape[0] - 1, V_entries.shape[1] // n_fields
    rows, fields = _entry_rows(indptr, nnz), fields.long()
    z = _times(V_entries, data).reshape(nnz, n_fields, k)
    own = z.gather(1, fields[:, None, None].expand(-1, 1, k))[:, 0]
    S = _by_field(z, rows, fields, n_rows, n_fields)
    met = (S * S.transpose(1, 2)).sum((1, 2, 3)) - _per_row((own * own).sum(1), rows, n_rows)
    return (w0.reshape(()) + _linear(w_entries, data, rows, n_rows) + met / 2).to(V_entries.dtype)


def field_weighted(
    indptr: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w_entries: Tensor,
    V_entries: Tensor,
    fields: Tensor,
    field_weights: Tensor,
) -> Tensor:
    """Scores (n_rows,); fields (nnz,) of the entries. With S_f the sum of the entries of field f:
    (Σ_fg r_fg ⟨S_f, S_g⟩ − Σ_p r_ff ‖z_p‖²) / 2, f in the second sum the field of p."""
    n_rows, n_fields = indptr.shape[0] - 1, field_weights.shape[0]
    rows, fields, r = _entry_rows(indptr, V_entries.shape[0]), fields.long(), wide(field_weights)
    z = _times(V_entries, data)
    S = _by_field(z, rows, fields, n_rows, n_fields)
    with full_precision(V_entries):
        met = (S * ((r + r.t()) / 2 @ S)).sum((1, 2))
    met = met - _per_row(r.diagonal().index_select(0, fields) * (z * z).sum(1), rows, n_rows)
    return (w0.reshape(()) + _linear(w_entries, data, rows, n_rows) + met / 2).to(V_entries.dtype)


def _times(v: Tensor, data: Tensor | None) -> Tensor:
    return wide(v) if data is None else wide(v) * data[:, None]


def _by_field(z: Tensor, rows: Tensor, fields: Tensor, n_rows: int, n_fields: int) -> Tensor:
    """Sums (n_rows, n_fields, …) of the entries (nnz, …) of each field of each row."""
    return _per_row(z, rows * n_fields + fields, n_rows * n_fields).reshape(n_rows, n_fields, *z.shape[1:])


def _polynomials(z: Tensor, rows: Tensor, indptr: Tensor, top: int) -> list[Tensor]:
    """e_1 … e_top of each row, (n_rows, n_factors) each: e_s is the sum of the products of s different z.

    Each entry starts with its own z and takes in, step by step, what stands 1, 2, 4, … entries before it in its row, by
    e_s of both = Σ_t e_t of the one · e_{s−t} of the other. Nothing is subtracted, so that no digits are lost, and the
    number of steps need not be read from a device.
    """
    nnz = z.shape[0]
    place = torch.arange(nnz, device=z.device) - indptr.index_select(0, rows)
    e = [z] + [torch.zeros_like(z)] * (top - 1)
    longest, span = _longest(indptr, nnz), 1
    while span < longest:
        reaches = (place[span:] >= span)[:, None]
        one, other = [torch.where(reaches, each[:-span], 0) for each in e], [each[span:] for each in e]
        both = [
            sum((one[t] * other[s - 1 - t] for t in range(s)), start=one[s] + other[s])  # e_0 is 1
            for s in range(top)
        ]
        e = [torch.cat((each[:span], new)) for each, new in zip(e, both, strict=True)]
        span *= 2
    last = torch.where(indptr[1:] > indptr[:-1], indptr[1:] - 1, nnz)
    return [torch.nn.functional.pad(each, (0, 0, 0, 1)).index_select(0, last) for each in e]


def _longest(indptr: Tensor, nnz: int) -> int:
    """The length of the longest row, or something above it where that could not be known without waiting."""
    if indptr.device.type != "cpu" or indptr.shape[0] < 2 or is_recorded(indptr) or is_transformed():
        return nnz
    return int(indptr.diff().max())
