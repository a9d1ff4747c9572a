"""One plain training loop, and prediction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ..validation import check_positive
from .data import CSRBatch, CSRDataset, RowBatches

__all__ = ["fit", "predict"]

Metrics = dict[str, float]


def fit(
    module: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Callable[..., Tensor],
    optimizer: Optimizer | Sequence[Optimizer],
    epochs: int = 10,
    validation: Iterable[Any] | None = None,
    patience: int | None = None,
    callback: Callable[[nn.Module, Metrics], Any] | None = None,
    autocast: torch.dtype | None = None,
) -> list[Metrics]:
    """Trains a module in place, and leaves it in evaluation mode.

    Parameters
    ----------
    module : nn.Module
        Any, wherever its parameters are; wrapped in DistributedDataParallel under torchrun.
    batches : iterable of (input, target, …), gone through once an epoch
        A DataLoader, usually. Batches are moved to the module's device.
    loss : callable(output, target, …) -> Tensor ()
        Mean loss of a batch, for example torch.nn.functional.mse_loss; it gets whatever follows the input.
    optimizer : torch optimizer, or several
        Several where no single one takes all gradients, for example SparseAdam for the tables and Adam for the rest.
    epochs : int
    validation : iterable of (input, target, …), optional
        Its loss is measured after each epoch.
    patience : int, optional
        Stop when the validation loss has not improved for so many epochs, and go back to the best weights.
    callback : callable(module, metrics), optional
        Called after each epoch; True stops.
    autocast : torch.bfloat16, optional
        Mixed precision.

    Returns
    -------
    list of dict
        An epoch each: epoch, loss, seconds, and validation_loss if there is validation data. Under several processes
        the losses are means over the rows of all of them.

    Raises
    ------
    ValueError
        For patience without validation data, or no batches at all.
    FloatingPointError
        When the loss is no longer finite.
    """
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to judge by: pass validation=")
    if autocast not in (None, torch.bfloat16):
        raise ValueError(f"autocast must be torch.bfloat16 or None, got {autocast}: float16 would need loss scaling")
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    check_positive(epochs, "epochs", integer=True)
    history: list[Metrics] = []
    best, best_loss, waited = None, np.inf, 0
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        module.train()
        metrics = {"epoch": epoch, "loss": _pass(module, batches, loss, optimizers, autocast)}
        if validation is not None:
            module.eval()
            with torch.no_grad():
                metrics["validation_loss"] = _pass(module, validation, loss, [], autocast)
        metrics["seconds"] = time.perf_counter() - start
        history.append(metrics)
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError(f"the loss is {metrics['loss']} in epoch {epoch}: lower the learning rate")
        if callback is not None and callback(module, metrics) is True:
            break
        if patience is not None:
            if metrics["validation_loss"] < best_loss:
                best = {name: each.detach().clone() for name, each in module.state_dict().items()}
                best_loss, waited = metrics["validation_loss"], 0
            else:
                waited += 1
            if waited >= patience:
                break
    if best is not None:
        module.load_state_dict(best)
    module.eval()
    return history


def _pass(
    module: nn.Module,
    batches: Iterable[Any],
    loss: Callable[..., Tensor],
    optimizers: Sequence[Optimizer],
    autocast: torch.dtype | None,
) -> float:
    """Mean loss of one pass over the batches, training if there are optimizers."""
    device = next(module.parameters()).device
    total = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for batch in batches:
        if isinstance(batch, (Tensor, CSRBatch)):
            raise ValueError(f"a batch must be (input, target, …), got a {type(batch).__name__} alone")
        rows, *rest = (_to(each, device) for each in batch)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            value = loss(module(rows), *rest)
        if optimizers:
            for each in optimizers:
                each.zero_grad()
            value.backward()
            for each in optimizers:
                each.step()
        n_rows = len(rest[0])
        total += torch.stack((value.detach() * n_rows, value.new_tensor(n_rows))).to(total)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    if total[1] == 0:
        raise ValueError("there are no batches: batches must be something that can be gone through every epoch")
    return float(total[0] / total[1])


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, (Tensor, CSRBatch)) else value


def predict(module: nn.Module, X: Any, *, batch_size: int = 65_536) -> NDArray[Any]:
    """Outputs of a module for the rows of a matrix, for example what the encoder it was trained with makes of a frame:
    `predict(module, encoder.transform(frame))`.

    Parameters
    ----------
    module : nn.Module
        Takes a CSRBatch; put into evaluation mode meanwhile.
    X : matrix-like (n_rows, n_features)
        As in `CSRDataset`.
    batch_size : int
        Rows at a time.

    Returns
    -------
    array (n_rows, …)
    """
    device, was_training = next(module.parameters()).device, module.training
    dataset = CSRDataset(X)
    module.eval()
    try:
        with torch.no_grad():
            parts = [module(_to(dataset[rows], device)).float().cpu() for rows in RowBatches(len(dataset), batch_size)]
    finally:
        module.train(was_training)
    result: NDArray[Any] = torch.cat(parts).numpy()
    return result
