"""PyTorch modules on the operators of `sparsefm.ops`, sparse batches, optimisers, and one plain training loop."""

from .data import CSRBatch, CSRDataset, RowBatches
from .modules import FactorizationMachine
from .optimizers import AdaGrad, LazyAdam
from .training import fit, predict

__all__ = ["AdaGrad", "CSRBatch", "CSRDataset", "FactorizationMachine", "LazyAdam", "RowBatches", "fit", "predict"]
