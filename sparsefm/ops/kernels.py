"""What both operators ask before they hand tensors to a kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = [
    "LANES",
    "check_factors",
    "check_parameters",
    "check_unchanged",
    "full_precision",
    "has_kernel",
    "is_recorded",
    "is_transformed",
    "padded",
    "plain",
    "row_stride",
    "side_by_side",
    "total",
    "wide",
]

LANES = 16  # reals of the widest vector
_SHORT = 4096  # numbers that torch sums in one thread
_PLAIN = {Tensor, torch.nn.Parameter, type(None)}


def has_kernel(V: Tensor) -> bool:
    return V.device.type == "cpu" and V.dtype in (torch.float32, torch.float64)


def is_recorded(*tensors: Tensor | None) -> bool:
    """Whether torch.compile, torch.export, a dispatch mode (fake tensors, say) or a subclass of Tensor is to see
    operators instead of kernels."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or not _PLAIN.issuperset(map(type, tensors))
    )


def is_transformed(values: Tensor | None = None) -> bool:
    """Whether a transform of torch.func is at work, or `values` are a batch of gradients in torch's older vmap."""
    return torch._C._are_functorch_transforms_active() or (
        values is not None and torch._C._functorch.is_legacy_batchedtensor(values)
    )


def full_precision(V: Tensor) -> AbstractContextManager[None]:
    """Switches autocast off where it exists: the parameters' type is the one to compute in."""
    kind = V.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def wide(values: Tensor) -> Tensor:
    """values in a type to add them up in."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def padded(n_factors: int) -> int:
    """Length of a row of sums, whole vectors and at least one."""
    return max(1, -(-n_factors // LANES)) * LANES


def total(d: Tensor, like: Tensor) -> Tensor:
    """Sum of all, shaped like the one number `like`, in an order that does not depend on the number of threads: torch
    cuts a long sum among them."""
    if d.numel() > _SHORT:
        d = torch.nn.functional.pad(d.reshape(-1), (0, -d.numel() % _SHORT)).reshape(-1, _SHORT).sum(1)
    return d.sum() if like.dim() == 0 else d.sum().reshape(like.shape)


def plain(values: Tensor) -> Tensor:
    """values as its memory reads: contiguous, and without a negation that torch has put off."""
    return values.contiguous().resolve_neg()


def row_stride(V: Tensor) -> int:
    """Numbers from one row of V to the next; a single row may carry any stride."""
    return V.stride(0) if V.shape[0] > 1 else V.shape[1]


def side_by_side(V: Tensor) -> Tensor:
    """V, or a copy if the factors of a feature do not lie side by side."""
    return V if (V.shape[1] < 2 or V.stride(1) == 1) and not V.is_neg() else plain(V)


def check_factors(V: Tensor) -> None:
    if V.dim() != 2 or not V.dtype.is_floating_point:
        raise ValueError(f"V must be (n_features, n_factors) of floats; got shape {tuple(V.shape)} of {V.dtype}")


def check_parameters(w0: Tensor, w: Tensor, V: Tensor) -> None:
    check_factors(V)
    n_features = V.shape[0]
    if (w.shape != (n_features,) and w.shape != (n_features, 1)) or w0.numel() != 1:
        raise ValueError(
            "w0 must be one number, w (n_features,) or (n_features, 1) and V (n_features, n_factors); got shapes "
            f"{tuple(w0.shape)}, {tuple(w.shape)} and {tuple(V.shape)}"
        )
    if not w0.dtype == w.dtype == V.dtype or not w0.device == w.device == V.device:
        raise ValueError(
            f"w0, w and V must have one type and one device; got {w0.dtype} on {w0.device}, {w.dtype} on {w.device} "
            f"and {V.dtype} on {V.device}"
        )


def check_unchanged(sums: Tensor, n_rows: int, w: Tensor | None, V: Tensor) -> None:
    """Refuses a backward pass over other shapes than those of the forward pass: `.data = ` changes them behind torch's
    back."""
    if (
        sums.shape != (n_rows, padded(V.shape[1]))
        or sums.dtype != V.dtype
        or (w is not None and (w.shape[0] != V.shape[0] or w.dtype != V.dtype))
    ):
        raise RuntimeError("rows or parameters have got another shape or type since the forward pass: run that again")
