"""The torch face of the equation: functions of plain tensors, differentiable in values and parameters."""

from .csr import bi_interaction, fm
from .dense import bi_interaction_dense, fm_dense

__all__ = ["bi_interaction", "bi_interaction_dense", "fm", "fm_dense"]
