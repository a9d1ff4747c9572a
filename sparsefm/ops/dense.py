"""The second-order operator on dense rows, for the middle of a network: differentiable in the rows as well.

    score = w0 + ⟨w, x⟩ + Σ_f pairs_f        pairs_f = ((Σ_j V[j, f] x_j)² − Σ_j V[j, f]² x_j²) / 2

Eager calls take one autograd.Function with a hand-written backward pass: with s = x V and u_j = ‖v_j‖²

    ∂score/∂x_j = w_j + ⟨v_j, s⟩ − u_j x_j        ∂score/∂V_jf = x_j s_f − x_j² V_jf

in kernels for float32 and float64 on the CPU, and in torch's products elsewhere. torch.compile, torch.export and
torch.func see the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .._kernels import dense as kernels
from .._kernels import dispatch
from .kernels import (
    LANES,
    check_factors,
    check_parameters,
    check_unchanged,
    full_precision,
    has_kernel,
    is_recorded,
    is_transformed,
    padded,
    plain,
    row_stride,
    side_by_side,
    total,
    wide,
)

__all__ = ["bi_interaction_dense", "converted", "fm_dense"]


def fm_dense(x: Tensor, w0: Tensor, w: Tensor, V: Tensor) -> Tensor:
    """Scores of a second-order factorization machine on dense rows.

    Parameters
    ----------
    x : (…, n_features)
        Converted to the type of V; under autocast the parameters' type is kept.
    w0, w, V
        As in `fm`; all gradients are dense.

    Returns
    -------
    (…) of the type of V

    Raises
    ------
    ValueError
        For shapes, types or devices that do not belong together.

    Examples
    --------
    >>> fm_dense(torch.tensor([1.0, 10.0]), torch.tensor(0.5), torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]]))
    tensor(141.5000)
    """
    check_parameters(w0, w, V)
    x = converted(x, V)
    if V.dtype != x.dtype:
        return fm_dense(x, wide(w0), wide(w), wide(V)).to(V.dtype)
    if is_transformed() or is_recorded(x, w0, w, V):
        with full_precision(V):
            return w0.reshape(()) + x @ w.reshape(-1) + _pairs(x, V).sum(-1)
    return cast(Tensor, _Dense.apply(x, w0, w, V))  # type: ignore[no-untyped-call]


def bi_interaction_dense(x: Tensor, V: Tensor) -> Tensor:
    """Pairs by factor of dense rows, (…, n_factors): `bi_interaction` for x (…, n_features).

    >>> bi_interaction_dense(torch.tensor([1.0, 10.0]), torch.tensor([[3.0, 1.0], [4.0, 5.0]]))
    tensor([120.,  50.])
    """
    check_factors(V)
    x = converted(x, V)
    with full_precision(V):
        return _pairs(x, wide(V)).to(V.dtype)


def converted(x: Tensor, V: Tensor) -> Tensor:
    """x in the type to compute in, that of V unless V is of half precision; refuses what does not fit V."""
    if x.dim() < 1 or x.shape[-1] != V.shape[0]:
        raise ValueError(
            f"x must be (…, n_features) for V of shape (n_features, n_factors); got shapes {tuple(x.shape)} and "
            f"{tuple(V.shape)}"
        )
    if x.device != V.device or x.dtype.is_complex:
        raise ValueError(
            f"x must hold real numbers beside the parameters on {V.device}; got {x.dtype} on {x.device}: "
            "move one of them with .to(device)"
        )
    x = x if x.dtype == V.dtype else x.to(V.dtype)
    return wide(x)


def _pairs(x: Tensor, V: Tensor) -> Tensor:
    s = x @ V
    return (s * s - (x * x) @ (V * V)) / 2


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w0: Tensor, w: Tensor, V: Tensor) -> Tensor:
        forward = _forward_kernel if has_kernel(V) else _forward_composed
        out, ctx.sums = forward(_two_axes(x), w0, _shaped(w, (-1,)), V, any(ctx.needs_input_grad))
        ctx.save_for_backward(x, w0, w, V)
        return _shaped(out, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        x, w0, w, V = ctx.saved_tensors
        needs_x, needs_w0, needs_w, needs_V = ctx.needs_input_grad
        again = torch.is_grad_enabled() or is_transformed(d)  # to be differentiated once more, or a batch of it
        backward = _backward_kernel if has_kernel(V) and not again else _backward_composed
        d, rows, weights = _shaped(d, (-1,)), _two_axes(x), _shaped(w, (-1,))
        g_x, g_w, g_V = backward(d, rows, weights, V, None if again else ctx.sums, needs_x, needs_w or needs_V)
        return (
            _shaped(g_x, x.shape) if g_x is not None else None,
            total(d, w0) if needs_w0 else None,
            _shaped(g_w, w.shape) if needs_w and g_w is not None else None,
            g_V if needs_V else None,
        )


def _shaped(values: Tensor, shape: Sequence[int]) -> Tensor:
    """values.reshape(shape), which costs a microsecond, unless the number of axes shows that nothing changes."""
    return values if values.dim() == len(shape) else values.reshape(shape)


def _two_axes(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x[None] if x.dim() == 1 else x.flatten(0, -2)


def _forward_composed(x: Tensor, w0: Tensor, w: Tensor, V: Tensor, with_sums: bool) -> tuple[Tensor, Tensor | None]:
    with full_precision(V):
        s = x @ V
        own = torch.mv(x * x, (V * V).sum(1))
        return w0.reshape(()) + x @ w + ((s * s).sum(1) - own) / 2, s


def _backward_composed(
    d: Tensor, x: Tensor, w: Tensor, V: Tensor, sums: Tensor | None, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Without sums they are computed again, and everything is differentiable."""
    g_x = g_w = g_V = None
    with full_precision(V):
        column = d[:, None]
        ds = column * (x @ V if sums is None else sums)
        if needs_x:
            g_x = torch.addmm(column * w, ds, V.t()) - column * x * (V * V).sum(1)
        if needs_parameters:
            g_w = x.t().mv(d)
            g_V = torch.addmm(V * (x * x).t().mv(d)[:, None], x.t(), ds, beta=-1)
    return g_x, g_w, g_V


def _forward_kernel(x: Tensor, w0: Tensor, w: Tensor, V: Tensor, with_sums: bool) -> tuple[Tensor, Tensor | None]:
    n_rows, (n_features, k) = x.shape[0], V.shape
    is_f64 = V.dtype == torch.float64
    x, w, V = plain(x), plain(w), side_by_side(V)
    stride = padded(k)
    sums = V.new_zeros((n_rows, stride)) if with_sums else None
    out = V.new_empty(n_rows)
    at_sums = 0 if sums is None else sums.data_ptr()
    at_x, bias, at_w, at_V, at_out = x.data_ptr(), w0.item(), w.data_ptr(), V.data_ptr(), out.data_ptr()
    v_stride = row_stride(V)

    def run(start: int, stop: int) -> None:
        kernels.forward_at(
            dispatch.ISA,
            is_f64,
            start,
            stop,
            at_x,
            bias,
            at_w,
            at_V,
            v_stride,
            n_features,
            k,
            at_out,
            at_sums,
            stride,
        )

    dispatch.run_pieces(run, n_rows, n_rows * n_features * (k + 1), torch.get_num_threads())
    return out, sums


def _backward_kernel(
    d: Tensor, x: Tensor, w: Tensor, V: Tensor, sums: Any, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    n_rows, (n_features, k) = d.shape[0], V.shape
    check_unchanged(sums, n_rows, w, V)
    if x.shape != (n_rows, n_features) or x.dtype != V.dtype:
        raise RuntimeError("x has got another shape or type since the forward pass: run that again")
    is_f64 = V.dtype == torch.float64
    x, w, V, d = plain(x), plain(w), side_by_side(V), plain(d)
    g_x = x.new_empty(x.shape) if needs_x else None
    g_w = w.new_empty(w.shape) if needs_parameters else None
    g_V = V.new_empty((n_features, k)) if needs_parameters else None
    at_g_x, at_g_w, at_g_V = (0 if each is None else each.data_ptr() for each in (g_x, g_w, g_V))
    at_x, at_w, at_V, at_d, at_sums = x.data_ptr(), w.data_ptr(), V.data_ptr(), d.data_ptr(), sums.data_ptr()
    stride, v_stride = sums.shape[1], row_stride(V)

    def run(start: int, stop: int) -> None:
        kernels.backward_at(
            dispatch.ISA,
            is_f64,
            start * LANES,
            min(stop * LANES, n_features),
            at_x,
            at_w,
            at_V,
            v_stride,
            n_rows,
            n_features,
            k,
            at_sums,
            stride,
            at_d,
            at_g_x,
            at_g_w,
            at_g_V,
        )

    work = 2 * n_rows * n_features * (k + 1)
    dispatch.run_pieces(run, -(-n_features // LANES), work, torch.get_num_threads())
    return g_x, g_w, g_V
