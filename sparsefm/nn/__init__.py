"""PyTorch modules on the operators of `sparsefm.ops`, sparse batches, optimisers, and one plain training loop."""

from .data import CSRBatch, CSRDataset, RowBatches
from .fields import FieldAwareFM, FieldWeightedFM
from .modules import FactorizationMachine
from .optimizers import AdaGrad, LazyAdam
from .training import fit, predict

__all__ = [
    "AdaGrad",
    "CSRBatch",
    "CSRDataset",
    "FactorizationMachine",
    "FieldAwareFM",
    "FieldWeightedFM",
    "LazyAdam",
    "RowBatches",
    "fit",
    "predict",
]
