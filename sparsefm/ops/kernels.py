"""What both operators ask before they hand tensors to a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "LANES",
    "check_parameters",
    "has_kernel",
    "is_recorded",
    "is_transformed",
    "padded",
    "row_stride",
    "side_by_side",
]

LANES = 16  # reals of the widest vector


def has_kernel(V: Tensor) -> bool:
    return V.device.type == "cpu" and V.dtype in (torch.float32, torch.float64)


def is_recorded() -> bool:
    """Whether torch.compile, torch.export or a dispatch mode (fake tensors, say) is to see operators, not kernels."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work."""
    return torch._C._are_functorch_transforms_active()


def padded(n_factors: int) -> int:
    """Length of a row of sums, whole vectors and at least one."""
    return max(1, -(-n_factors // LANES)) * LANES


def row_stride(V: Tensor) -> int:
    """Numbers from one row of V to the next; a single row may carry any stride."""
    return V.stride(0) if V.shape[0] > 1 else V.shape[1]


def side_by_side(V: Tensor) -> Tensor:
    """V, or a copy if the factors of a feature do not lie side by side."""
    return V if V.shape[1] < 2 or (V.stride(1) == 1 and V.stride(0) >= V.shape[1]) else V.contiguous()


def check_parameters(w0: Tensor, w: Tensor, V: Tensor) -> None:
    n_features = V.shape[0] if V.dim() == 2 else -1
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
