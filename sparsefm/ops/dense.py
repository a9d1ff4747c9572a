"""The second-order operator on dense rows, for the middle of a network: differentiable in the rows as well.

    score = w0 + ⟨w, x⟩ + Σ_f pairs_f        pairs_f = ((Σ_j V[j, f] x_j)² − Σ_j V[j, f]² x_j²) / 2

Eager calls take one autograd.Function with a hand-written backward pass: with s = x V and u_j = ‖v_j‖²

    ∂score/∂x_j = w_j + ⟨v_j, s⟩ − u_j x_j        ∂score/∂V_jf = x_j s_f − x_j² V_jf

so that no array of the shape of x is squared or kept. torch.compile, torch.export and torch.func see the formula.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from .csr import _check_parameters

__all__ = ["bi_interaction_dense", "fm_dense"]


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

    >>> fm_dense(torch.tensor([1.0, 10.0]), torch.tensor(0.5), torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]]))
    tensor(141.5000)
    """
    _check_parameters(w0, w, V)
    rows = _flat(x, V)
    w0, w = w0.reshape(()), w.reshape(-1)
    with torch.autocast(V.device.type, enabled=False):
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            out = w0 + rows @ w + _pairs(rows, V).sum(-1)
        else:
            out = cast(Tensor, _Dense.apply(rows, w0, w, V))  # type: ignore[no-untyped-call]
    return out.reshape(x.shape[:-1])


def bi_interaction_dense(x: Tensor, V: Tensor) -> Tensor:
    """Pairs by factor of dense rows, (…, n_factors): `bi_interaction` for x (…, n_features).

    >>> bi_interaction_dense(torch.tensor([1.0, 10.0]), torch.tensor([[3.0, 1.0], [4.0, 5.0]]))
    tensor([120.,  50.])
    """
    rows = _flat(x, V)
    with torch.autocast(V.device.type, enabled=False):
        return _pairs(rows, V).reshape(*x.shape[:-1], V.shape[1])


def _flat(x: Tensor, V: Tensor) -> Tensor:
    """x as (n_rows, n_features) in the type of V."""
    if V.dim() != 2 or x.dim() < 1 or x.shape[-1] != V.shape[0]:
        raise ValueError(
            f"x must be (…, n_features) for V of shape (n_features, n_factors); got shapes {tuple(x.shape)} and "
            f"{tuple(V.shape)}"
        )
    if x.device != V.device or x.dtype.is_complex:
        raise ValueError(
            f"x must hold real numbers beside the parameters on {V.device}; got {x.dtype} on {x.device}: "
            "move one of them with .to(device)"
        )
    return x.to(V.dtype).reshape(-1, V.shape[0])


def _pairs(x: Tensor, V: Tensor) -> Tensor:
    s = x @ V
    return (s * s - (x * x) @ (V * V)) / 2


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w0: Tensor, w: Tensor, V: Tensor) -> Tensor:
        s, u = x @ V, (V * V).sum(1)
        ctx.save_for_backward(x, w, V, s, u)
        own = torch.mv(x * x, u)
        return torch.addmv(w0, x, w).add_((s * s).sum(1).sub_(own), alpha=0.5)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        x, w, V, s, u = ctx.saved_tensors
        needs_x, needs_w0, needs_w, needs_V = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again: s and u as functions of x and V
            s, u = x @ V, (V * V).sum(1)
        column = d[:, None]
        ds = column * s
        g_x = torch.addmm(column * w, ds, V.t()) - column * x * u if needs_x else None
        g_V = torch.addmm(V * (x * x).t().mv(d)[:, None], x.t(), ds, beta=-1) if needs_V else None
        return g_x, d.sum() if needs_w0 else None, x.t().mv(d) if needs_w else None, g_V
