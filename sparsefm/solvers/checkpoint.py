"""The whole state of a training in one file, and the way back: what stands in the file is always complete."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import persistence
from .._kernels import dispatch
from ..model import FMParams
from ..validation import Rows
from .problem import HALVINGS, Problem

__all__ = ["fingerprint", "restore", "save"]

_FORMAT = 1
_MEANS = ("mean", "kept_mean")


def save(run: Any, path: Any) -> None:
    """Writes what a run of the engine needs to go on to the same bits."""
    table = run.training.table
    arrays = {"table": table.array, "bias": table.bias}
    if run.problem.early_stopping:
        arrays |= dict(zip(("slot", "slot_bias"), run.slot.arrays(table), strict=True))
    for name in _MEANS:
        mean = getattr(run, name)
        if mean is not None:
            arrays |= {f"{name}.w0": np.array([mean.w0]), f"{name}.w": mean.w, f"{name}.V": mean.V}
            if mean.field_weights is not None:
                arrays[f"{name}.r"] = mean.field_weights
    at = {key: value if np.isfinite(value) else None for key, value in vars(run.at).items()}
    rates = [run.training.rate, run.training.bias_rate]
    meta = {"checkpoint": _FORMAT, "fingerprint": run.fingerprint, "at": at, "rates": rates}
    persistence.write(path, meta | {"records": run.records}, arrays)


def restore(run: Any, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Puts a run that has not begun where the one stood that wrote the checkpoint.

    Raises ValueError for a checkpoint of another training, ModelFileError for one that no training writes.
    """
    if meta.get("checkpoint") != _FORMAT or meta.get("fingerprint") != run.fingerprint:
        raise ValueError(
            "resume: the checkpoint is of another training or version; give fit the same X, y, weights, eval_set, "
            "parameters and integer random_state (max_iter and n_threads may differ)"
        )
    _check(run, meta, arrays)
    table = run.training.table
    for key, value in meta["at"].items():
        setattr(run.at, key, np.inf if value is None else value)
    run.training.rate, run.training.bias_rate = meta["rates"]
    table.array[...], table.bias[...] = arrays["table"], arrays["bias"]
    run.records = list(meta["records"])
    if run.problem.recall is not None:
        run.problem.recall(run.records)
    for name in _MEANS:
        if f"{name}.w0" in arrays:
            w0, w, V = (arrays[f"{name}.{part}"] for part in ("w0", "w", "V"))
            r = np.array(arrays[f"{name}.r"]) if f"{name}.r" in arrays else None
            setattr(run, name, FMParams(float(w0[0]), np.array(w), np.array(V), table.family, r))
    if "slot" in arrays:
        run.slot.fill(arrays["slot"], arrays["slot_bias"])
    else:
        run.slot.save(table)


def fingerprint(problem: Problem, method: Any) -> str:
    """Of everything that the result depends on, but for the number of epochs."""
    free = ("max_iter", "checkpoint", "checkpoint_epochs", "checkpoint_minutes")
    said = {key: value for key, value in vars(method).items() if key not in free}
    plain = ("loss", "w0", "n_factors", "l2_linear", "l2_prior", "init_std", "seed", "early_stopping", "shape")
    said |= {key: getattr(problem, key) for key in (*plain, "judged_by", "l2_of_blocks")}
    own = problem.family
    said["family"] = (own.kind, own.order, own.shared, own.n_fields)
    said["l2_factors"] = float(problem.l2_factors) if np.ndim(problem.l2_factors) == 0 else None
    digest = hashlib.blake2b(repr((dispatch.ISA, sorted(said.items()))).encode(), digest_size=16)
    start = () if problem.start is None else (problem.start.w, problem.start.V)
    parts = (problem.rows, problem.y, problem.weight, problem.l2_factors, problem.bucket, *(problem.evaluation or ()))
    for part in (*parts, *start, own.fields, problem.start and problem.start.field_weights):
        for array in (part.indptr, part.indices, part.data) if isinstance(part, Rows) else (part,):
            if isinstance(array, np.ndarray):
                digest.update(repr((array.shape, array.dtype)).encode())
                digest.update(np.ascontiguousarray(array).data)
            else:
                digest.update(b"none")
    return digest.hexdigest()


def _check(run: Any, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Every part has the shape, the type and the range that this training writes."""
    at, rates, records = meta.get("at"), meta.get("rates"), meta.get("records")

    def finite(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # an integer may be of any size

    counts = [field.name for field in fields(run.at) if field.type == "int"]
    if not (
        isinstance(at, dict)
        and at.keys() == vars(run.at).keys()
        and all(type(at[key]) is int and at[key] >= -1 for key in counts)
        and at["epoch"] >= max(1, at["kept_epoch"], at["best_epoch"], at["averaged"], at["kept_averaged"])
        and min(at["averaged"], at["kept_averaged"]) >= 0
        and 0 <= at["halvings"] <= HALVINGS
        and all(at[key] is None or finite(at[key]) for key in ("best", "kept"))
        and type(at["done"]) is bool
        and isinstance(rates, list)
        and len(rates) == 2
        and all(type(rate) is float and 0 < rate < np.inf for rate in rates)
        and isinstance(records, list)
        and all(isinstance(record, dict) for record in records)
        and len(records) == at["epoch"]
        and [record.get("epoch") for record in records] == list(range(1, at["epoch"] + 1))
        and all({"epoch", "loss", "seconds"} <= record.keys() for record in records)
        and all(finite(value) for record in records for value in record.values())
    ):
        raise persistence.ModelFileError("resume: the checkpoint's description is malformed")
    table = run.training.table
    n, k, r = table.n_features, table.width, table.field_weights
    shapes: dict[str, tuple[int, ...]] = {"table": table.array.shape, "bias": table.bias.shape}
    if run.problem.early_stopping:
        shapes |= {"slot": table.array.shape, "slot_bias": table.bias.shape}
    for name, there in (("mean", at["averaged"] > 0), ("kept_mean", at["kept_averaged"] > 0)):
        if there:
            shapes |= {f"{name}.w0": (1,), f"{name}.w": (n,), f"{name}.V": (n, k)}
            if r is not None:
                shapes[f"{name}.r"] = r.shape
    for name in shapes.keys() | arrays.keys():
        array, dtype = arrays.get(name), np.dtype(np.float64) if name.endswith("w0") else table.dtype
        bits = table.layout == "compact" and name in ("table", "slot")  # pairs of bfloat16 are any float
        if (
            array is None
            or array.shape != shapes.get(name)
            or array.dtype != dtype
            or not (bits or np.isfinite(array).all())
        ):
            raise persistence.ModelFileError(f"resume: the checkpoint's array {name!r} is malformed, missing or extra")
