"""The torch face of the equation: functions of plain tensors, differentiable in values and parameters."""

from .csr import bi_interaction, fm
from .dense import bi_interaction_dense, fm_dense
from .family import anova, field_aware, field_weighted

__all__ = ["anova", "bi_interaction", "bi_interaction_dense", "field_aware", "field_weighted", "fm", "fm_dense"]
