"""PyTorch modules on the operators of `sparsefm.ops`, sparse batches, and one plain training loop."""

from .data import CSRBatch, CSRDataset, RowBatches
from .modules import FactorizationMachine
from .training import fit, predict

__all__ = ["CSRBatch", "CSRDataset", "FactorizationMachine", "RowBatches", "fit", "predict"]
