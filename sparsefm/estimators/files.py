"""A fitted estimator as JSON and arrays, and back: what a model file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin, clone

from ..encoders import FrameEncoder, Vocabulary
from ..model import FMParams, Posterior
from ..solvers import RANKERS, SOLVERS, make_solver
from ..validation import check_csr
from .units import Units

FORMAT = 2
_LABEL_KINDS = {"b": bool, "i": int, "u": int, "f": float, "U": str, "O": str}


def to_state(model: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A fitted estimator as a JSON-able dict and arrays."""
    first = model.params_[0] if isinstance(model.params_, tuple) else model.params_
    if isinstance(model.encoder_, FrameEncoder) and model.encoder_.n_features_out_ != first.n_features:
        raise ValueError(
            f"the encoder makes {model.encoder_.n_features_out_} columns and the parameters have "
            f"{first.n_features}: it has grown since the fit; grow the parameters too (FMParams.grow) or fit again"
        )
    options = model.get_params(deep=False)
    del options["callbacks"], options["encoder"]
    if options["fields"] is not None:
        options["fields"] = np.asarray(options["fields"]).tolist()
    if isinstance(options.get("l2_factors"), Mapping):
        options["l2_factors"] = [[_plain(key), _plain(value)] for key, value in options["l2_factors"].items()]
    if callable(options.get("eval_metric")):
        options["eval_metric"] = "loss"  # it only watched
    options["solver"] = _solver_state(make_solver(options["solver"]), SOLVERS)
    if not isinstance(options["random_state"], (int, np.integer)):
        options["random_state"] = None
    if isinstance(options.get("class_weight"), dict):
        options["class_weight"] = [[_plain(key), _plain(value)] for key, value in options["class_weight"].items()]
    several = isinstance(model.params_, tuple)
    params = model.params_ if several else (model.params_,)
    arrays = {}
    for i, p in enumerate(params):
        arrays[f"w0.{i}"] = np.array([p.w0])
        arrays[f"w.{i}"], arrays[f"V.{i}"] = p.w, p.V
        if p.field_weights is not None:
            arrays[f"field_weights.{i}"] = p.field_weights
    draws = model.posterior_ if isinstance(model.posterior_, tuple) else (model.posterior_,)
    for i, posterior in enumerate(draws):
        if posterior is not None:
            arrays |= {f"draws.{name}.{i}": part for name, part in vars(posterior).items() if part is not None}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "class": type(model).__name__,
        "options": {key: _plain(value) for key, value in options.items()},
        "n_params": len(params),
        "n_features_in": model.n_features_in_,
        "feature_names_in": model.feature_names_in_.tolist() if hasattr(model, "feature_names_in_") else None,
        "history": [{key: _plain(value) for key, value in record.items()} for record in model.history_],
        "encoder": None,
    }
    if isinstance(model, ClassifierMixin):
        kind = model.classes_.dtype.kind
        labels = model.classes_.tolist()
        if kind not in _LABEL_KINDS or not all(isinstance(label, _LABEL_KINDS[kind]) for label in labels):
            raise TypeError(
                f"classes of type {model.classes_.dtype} cannot be saved: use str, int, float or bool labels"
            )
        meta["classes"] = {"dtype": model.classes_.dtype.str, "labels": labels}
    elif hasattr(model, "levels_"):
        meta["levels"] = model.levels_.tolist()
    else:
        meta["target_range"] = list(model.target_range_)
        meta["units"] = [model._standard.centre, model._standard.scale, model._standard.power]
    if model.encoder_ is not None:
        if not isinstance(model.encoder_, FrameEncoder):
            raise TypeError(f"only a FrameEncoder can be saved inside a model, not a {type(model.encoder_).__name__}")
        meta["encoder"], encoder_arrays = model.encoder_.to_state()
        arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    return meta, arrays


def ranker_state(model: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A fitted FMRanker as a JSON-able dict and arrays: with the parameters what answers by id."""
    options = model.get_params(deep=False)
    del options["callbacks"], options["encoder"]
    options["solver"] = _solver_state(make_solver(options["solver"], RANKERS), RANKERS)
    if options["item_columns"] is not None:
        options["item_columns"] = list(options["item_columns"])
    if not isinstance(options["random_state"], (int, np.integer)):
        options["random_state"] = None
    p = model.params_
    arrays = {"w": p.w, "V": p.V}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "class": type(model).__name__,
        "options": {key: _plain(value) for key, value in options.items()},
        "history": [{key: _plain(value) for key, value in record.items()} for record in model.history_],
        "item_fields": model.item_fields_,
        "weight_unit": model.weight_unit_,
        "ids": {},
    }
    for name, matrix in (("users", model.X_sides_[0]), ("items", model.X_sides_[1]), ("seen", model.seen_)):
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("indptr", "indices", "data")}
    for name, ids in (("user", model.user_ids_), ("item", model.item_ids_)):
        if ids is not None:
            values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in pd.Series(ids).tolist()]
            vocabulary = Vocabulary(values)
            if len(vocabulary) != len(ids):
                raise TypeError(f"ids of {name}s of type {ids.dtype} cannot be saved: use str or int")
            meta["ids"][name], own = vocabulary.to_state()
            arrays |= {f"{name}.{key}": array for key, array in own.items()}
    meta["encoder"], encoder_arrays = model.encoder_.to_state()
    return meta, arrays | {f"encoder.{name}": array for name, array in encoder_arrays.items()}


def ranker_from_state(cls: Any, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    """The FMRanker that `ranker_state` described."""
    options = dict(meta["options"])
    solver = options.pop("solver")
    model = cls(solver=RANKERS[solver["name"]](**solver["options"]), **options)
    model._check_parameters()
    params = FMParams(0.0, arrays["w"], arrays["V"])
    if params.V.shape != (params.n_features, model.n_factors) or params.V.dtype != params.w.dtype:
        raise ValueError("its parameters do not agree in shape")
    if not (np.isfinite(params.w).all() and np.isfinite(params.V).all()):
        raise ValueError("its parameters are not finite")

    def under(prefix: str) -> dict[str, NDArray[Any]]:
        return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}

    model.encoder_ = FrameEncoder.from_state(meta["encoder"], under("encoder."))
    if model.encoder_.n_features_out_ != params.n_features:
        raise ValueError("its columns and its parameters do not belong together")
    model.item_fields_ = list(meta["item_fields"])
    model.weight_unit_ = float(meta["weight_unit"])
    if not 0 < model.weight_unit_ < np.inf:
        raise ValueError(f"its interactions had a mean weight of {model.weight_unit_}")
    if not set(model.item_fields_) <= set(model.encoder_.columns_):
        raise ValueError("it names fields of items that its encoder does not have")
    ids = {name: Vocabulary.from_state(state, under(f"{name}.")).levels for name, state in meta["ids"].items()}
    matrices = {}
    for name, width in (("users", params.n_features), ("items", params.n_features), ("seen", len(ids["item"]))):
        parts = under(f"{name}.")
        shape = (len(parts["indptr"]) - 1, width)
        rows = check_csr(sp.csr_array((parts["data"], parts["indices"], parts["indptr"]), shape=shape))
        matrices[name] = rows.matrix()
    n_users, n_items = matrices["users"].shape[0], matrices["items"].shape[0]
    if matrices["seen"].shape != (n_users, n_items) or len(ids["item"]) != n_items:
        raise ValueError("its items and what was met do not belong together")
    if len(ids.get("user", range(n_users))) != n_users:
        raise ValueError("its users and what was met do not belong together")
    model.params_, model.seen_ = params, matrices["seen"].astype(np.uint8)
    model.X_sides_ = matrices["users"], matrices["items"]
    model.history_ = meta["history"]
    model.encoder = clone(model.encoder_)
    model._index(pd.Series(ids["user"]).array if "user" in ids else None, pd.Series(ids["item"]).array)
    return model


def _solver_state(solver: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name, kind in known.items() if kind is type(solver)]
    if not names:
        raise TypeError(
            f"a model with a solver of your own, {type(solver).__name__}, cannot be saved: load could not make it"
        )
    options = {key: _plain(value) for key, value in solver.get_params().items() if key != "checkpoint"}
    return {"name": names[0], "options": options}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def from_state(cls: Any, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    """The estimator of class `cls` that `to_state` described."""
    options = dict(meta["options"])
    solver = options.pop("solver")
    weights = options.get("class_weight")
    if isinstance(weights, list):
        options["class_weight"] = dict(weights)
    if isinstance(options.get("l2_factors"), list):
        options["l2_factors"] = dict(options["l2_factors"])
    if options["fields"] is not None:
        options["fields"] = np.array(options["fields"])
    model = cls(solver=SOLVERS[solver["name"]](**solver["options"]), **options)
    model._check_parameters()

    n_params = meta["n_params"]
    if not isinstance(n_params, int) or isinstance(n_params, bool) or not 1 <= n_params <= len(arrays):
        raise ValueError(f"it announces {n_params!r} score functions")
    if issubclass(cls, RegressorMixin) and n_params != 1:
        raise ValueError(f"it announces {n_params} score functions for a regressor")
    n_features = len(arrays["w.0"])
    model.encoder_ = None
    if meta["encoder"] is not None:
        prefix = "encoder."
        state = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        model.encoder_ = FrameEncoder.from_state(meta["encoder"], state)
        model.encoder = clone(model.encoder_)
    n_in = meta["n_features_in"]
    width = n_features if model.encoder_ is None else model.encoder_.n_features_in_
    if n_in != width or (model.encoder_ is not None and model.encoder_.n_features_out_ != n_features):
        raise ValueError("its columns and its parameters do not belong together")
    model.n_features_in_ = n_in
    family, params = model._family(), []
    for i in range(n_params):
        w0, w, V = (arrays[f"{name}.{i}"] for name in ("w0", "w", "V"))
        if w0.shape != (1,) or w0.dtype != np.float64:
            raise ValueError(f"its bias is of shape {w0.shape} and type {w0.dtype}")
        p = FMParams(float(w0[0]), w, V, family, arrays.get(f"field_weights.{i}"))
        parts = (p.w0, p.w, p.V, 0 if p.field_weights is None else p.field_weights)
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError("its parameters are not finite")
        params.append(p)
    if len({(p.n_features, p.n_factors, p.dtype) for p in params}) > 1 or params[0].n_factors != model._rank:
        raise ValueError("its parameters do not agree in shape")
    model.params_ = params[0] if n_params == 1 else tuple(params)
    model.posterior_ = None
    if "draws.w0.0" in arrays:
        draws = tuple(_posterior(arrays, i, p) for i, p in enumerate(params))
        model.posterior_ = draws[0] if n_params == 1 else draws

    names = meta["feature_names_in"]
    if names is not None:
        if not isinstance(names, list) or len(names) != n_in or not all(isinstance(name, str) for name in names):
            raise ValueError("its column names are malformed")
        model.feature_names_in_ = np.array(names, dtype=object)
    history = meta["history"]
    if (
        not isinstance(history, list)
        or not history
        or not all(isinstance(r, dict) and isinstance(r["epoch"], int) for r in history)
    ):
        raise ValueError("its history is malformed")
    model.history_ = history
    if isinstance(model, ClassifierMixin):
        model.classes_ = _labels(meta["classes"], n_params)
    elif meta["class"] == "FMOrdinal":
        model.levels_ = np.array(meta["levels"], np.float64)
        cuts = model.posterior_ and model.posterior_.cuts
        if (
            model.levels_.ndim != 1
            or not np.isfinite(model.levels_).all()
            or (np.diff(model.levels_) <= 0).any()
            or cuts is None
            or cuts.dtype != np.float64
            or cuts.shape != (len(model.posterior_), len(model.levels_) - 1)
            or not np.isfinite(cuts).all()
            or (np.diff(cuts, axis=1) <= 0).any()
        ):
            raise ValueError("its levels and their cut points do not belong together")
    else:
        low, high = (float(bound) for bound in meta["target_range"])
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"its target range is {low} to {high}")
        model.target_range_ = (low, high)
        centre, scale, power = meta["units"]
        if not (np.isfinite(centre) and 0 < scale < np.inf and power in (1, 2)):
            raise ValueError(f"its target was trained in units {meta['units']}")
        model._standard = Units(float(centre), float(scale), int(power))
    return model


def _posterior(arrays: dict[str, NDArray[Any]], i: int, params: FMParams) -> Posterior:
    parts = {field.name: arrays.get(f"draws.{field.name}.{i}") for field in fields(Posterior)}
    if any(part is None for name, part in parts.items() if name != "cuts"):
        raise ValueError("its draws are incomplete")
    found = Posterior(**parts)  # type: ignore[arg-type]
    n, groups = len(found.w0), found.mean.shape[1:2]
    shapes: dict[str, tuple[Any, ...]] = {"w0": (n,), "w": (n, params.n_features), "V": (n, *params.V.shape)}
    shapes |= {"deviation": (n,), "chain": (n,), "mean": (n, *groups, params.n_factors + 1)}
    shapes["precision"] = shapes["mean"]
    for name, shape in shapes.items():
        part = getattr(found, name)
        dtype = params.dtype if name in "wV" else np.int32 if name == "chain" else np.float64
        if n == 0 or part.shape != shape or part.dtype != dtype or not np.isfinite(part).all():
            raise ValueError(f"its draws of {name} are of shape {part.shape} and type {part.dtype}, or not finite")
    if (found.deviation <= 0).any():
        raise ValueError("its draws have standard deviations that are not positive")
    return found


def _labels(state: dict[str, Any], n_params: int) -> NDArray[Any]:
    dtype, labels = np.dtype(state["dtype"]), state["labels"]
    if dtype.kind not in _LABEL_KINDS or not all(isinstance(label, _LABEL_KINDS[dtype.kind]) for label in labels):
        raise ValueError("its class labels are malformed")
    if dtype.itemsize > 4096:
        raise ValueError(f"its class labels take {dtype.itemsize} bytes each")
    classes = np.array(labels, dtype=dtype)
    if (
        classes.tolist() != labels
        or len(classes) != max(n_params, 2)
        or n_params == 2
        or len(set(labels)) != len(labels)
    ):
        raise ValueError("its class labels and its score functions do not belong together")
    return classes
