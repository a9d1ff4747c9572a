"""Models of other libraries as models of ours: libFM's text files, and fitted LightFM objects.

Nothing of theirs is imported or unpickled: a file is text, an object is asked for its arrays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from .encoders import FrameEncoder, OneHot, Vocabulary
from .estimators import FMClassifier, FMRanker, FMRegressor
from .estimators.files import FORMAT, from_state, ranker_from_state
from .validation import check_csr

__all__ = ["from_libfm", "from_lightfm"]

_SECTIONS = ("#global bias W0", "#unary interactions Wj", "#pairwise interactions Vj,f")


def from_libfm(
    path: str | os.PathLike[str],
    *,
    task: Literal["regression", "classification"] = "regression",
    target_range: tuple[float, float] | None = None,
) -> FMRegressor | FMClassifier:
    """The model that libFM wrote with -save_model, for rows with columns numbered as libFM's features are, from 0.

    libFM (Rendle, *Factorization Machines with libFM*, ACM TIST 2012) does not write which task it was, nor the range
    that it cuts predictions to.

    Parameters
    ----------
    path : str or Path
        The text file: the bias, the weights and the factors, each under its own heading; the first two may be missing
        (libFM's ``-dim 0,0,k``).
    task : {"regression", "classification"}
        Classes are -1 and 1; probabilities are those of the logistic link, as libFM's gradient learners train it.
    target_range : (float, float), optional
        Of a regression: predictions are cut to it, as libFM does with the range of its training targets. Without it
        they are left as they are.

    Returns
    -------
    FMRegressor or FMClassifier
        Fitted, without an encoder: `datasets.load_libfm` reads rows for it.

    Raises
    ------
    ValueError
        For a file that is no such model, or damaged; the message names its line. Or a task or range that is none.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from sparsefm.interop import from_libfm
    >>> weights = ["#global bias W0", "3", "#unary interactions Wj", "0.5", "-1"]
    >>> _ = Path("libfm.model").write_text("\\n".join([*weights, "#pairwise interactions Vj,f", "1 2", "3 4"]))
    >>> float(from_libfm("libfm.model").predict([[1.0, 1.0]])[0])  # 3 + 0.5 - 1 + 1 * 3 + 2 * 4
    13.5
    """
    if task not in ("regression", "classification"):
        raise ValueError(f"task must be 'regression' or 'classification', got {task!r}")
    if target_range is not None and (task != "regression" or not target_range[0] < target_range[1]):
        raise ValueError(f"target_range must be two rising numbers, of a regression; got {target_range!r} for {task!r}")
    w0, w, V = _read_libfm(Path(path))
    options: dict[str, Any] = {"n_factors": V.shape[1], "solver": {"name": "sgd", "options": {}}, "fields": None}
    meta: dict[str, Any] = {
        "class": "FMRegressor" if task == "regression" else "FMClassifier",
        "options": options,
        "n_params": 1,
        "n_features_in": len(w),
        "feature_names_in": None,
        "history": [{"epoch": 0}],
        "encoder": None,
    }
    arrays = {"w0.0": np.array([w0]), "w.0": w, "V.0": V}
    if task == "classification":
        meta["classes"] = {"dtype": "<f8", "labels": [-1.0, 1.0]}
        classifier: FMClassifier = from_state(FMClassifier, meta, arrays)
        return classifier
    options["clip"] = target_range is not None
    meta["target_range"] = target_range or (0.0, 0.0)
    meta["units"] = [0.0, 1.0, 2]
    regressor: FMRegressor = from_state(FMRegressor, meta, arrays)
    return regressor


def _read_libfm(path: Path) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    try:
        lines = path.read_text("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no model of libFM: it is no plain text") from error
    found: dict[str, list[list[float]]] = {}
    section = ""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("#"):
            if text not in _SECTIONS or any(_SECTIONS.index(each) >= _SECTIONS.index(text) for each in found):
                order = ", ".join(_SECTIONS)
                raise ValueError(f"{path}, line {number}: expected {order}, in this order; got {text[:60]!r}")
            section, found[text] = text, []
            continue
        if not text and number == len(lines):
            continue  # behind the last line
        if not section:
            raise ValueError(f"{path}, line {number}: expected a heading such as {_SECTIONS[0]!r}, got {text[:60]!r}")
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)) or (section != _SECTIONS[2] and len(values) != 1):
            raise ValueError(f"{path}, line {number}: expected finite numbers, got {text[:60]!r}")
        rows = found[section]
        if rows and len(values) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: expected {len(rows[0])} factors, got {len(values)}")
        rows.append(values)
    bias, linear, factors = (found.get(name) for name in _SECTIONS)
    if factors is None or (bias is not None and len(bias) != 1):
        what = f"no heading {_SECTIONS[2]!r}" if factors is None else f"{len(bias or ())} biases"
        raise ValueError(f"{path} is no model of libFM, or cut off: it has {what}")
    if linear is not None and len(linear) != len(factors):
        raise ValueError(f"{path} may be cut off: it has {len(linear)} weights and factors of {len(factors)} features")
    if not factors:
        raise ValueError(f"{path} has no feature")
    w = np.zeros(len(factors)) if linear is None else np.array(linear)[:, 0]
    V = np.array(factors, np.float64).reshape(len(factors), -1)
    return 0.0 if bias is None else bias[0][0], w, np.ascontiguousarray(V)


def from_lightfm(
    model: Any,
    user_features: Any = None,
    item_features: Any = None,
    *,
    user_ids: Sequence[Any] | None = None,
    item_ids: Sequence[Any] | None = None,
    interactions: Any = None,
) -> FMRanker:
    """A fitted LightFM model as an FMRanker that gives the same scores and lists.

    LightFM's score is ⟨p_u, q_i⟩ + b_u + b_i, each the sum over the features of a user or item (Kula, *Metadata
    Embeddings for User and Item Cold-start Recommendations*, CBRecSys 2015). These sums are taken here and become the
    vector and bias of one id each: exact for all users and items given. What goes are the features themselves: someone
    new has to be folded in by interactions (`fold_in`), not described by features.

    Parameters
    ----------
    model : LightFM
        Fitted: its arrays user_embeddings, item_embeddings, user_biases and item_biases are read.
    user_features, item_features : sparse (n_users, n_user_features), (n_items, n_item_features), optional
        As given to LightFM's fit and predict; identities if not given.
    user_ids, item_ids : sequence (n_users,), (n_items,), optional
        Ids to recommend by, of one type, each once; LightFM's own numbers if not given.
    interactions : sparse (n_users, n_items), optional
        What was met in training: `recommend` leaves it out, and new users get what most have met.

    Returns
    -------
    FMRanker
        Fitted, with the loss of LightFM's that it was trained by if it has a counterpart here (BPR, WARP).

    Raises
    ------
    ValueError
        If the model is not fitted, or shapes or ids do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> from sparsefm.interop import from_lightfm
    >>> theirs = SimpleNamespace(
    ...     user_embeddings=np.eye(2), user_biases=np.zeros(2),
    ...     item_embeddings=np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]]), item_biases=np.array([0.0, 0.0, -4.0]),
    ... )
    >>> ours = from_lightfm(theirs, user_ids=["ann", "bob"], item_ids=["Up", "Jaws", "Heat"])
    >>> ours.recommend(["ann"], k=2)["item_id"].tolist()
    ['Up', 'Jaws']
    """
    p, b_p = _summed(model, "user", user_features)
    q, b_q = _summed(model, "item", item_features)
    if p.shape[1] != q.shape[1]:
        raise ValueError(f"users have {p.shape[1]} numbers each and items {q.shape[1]}; the model is damaged")
    users, items = _ids(user_ids, len(p), "user_ids"), _ids(item_ids, len(q), "item_ids")
    nobody = sp.csr_array((len(p), len(q)), dtype=np.float32)
    seen = nobody if interactions is None else sp.csr_array(interactions, copy=True)
    if seen.shape != (len(p), len(q)):
        raise ValueError(f"interactions must be ({len(p)}, {len(q)}), users by items; got shape {seen.shape}")
    seen.eliminate_zeros()
    seen.data = np.ones(seen.nnz, np.float32)

    n = max(len(p), len(q))
    rows = pd.DataFrame({"user_id": np.resize(users, n), "item_id": np.resize(items, n)})
    alone = OneHot(unknown="ignore", missing="ignore")
    encoder = FrameEncoder({"user_id": alone, "item_id": alone}).fit(rows)  # columns in the order of the ids
    solver = {"bpr": "bpr", "warp": "warp"}.get(getattr(model, "loss", ""), "warp")
    encoder_meta, encoder_arrays = encoder.to_state()
    meta: dict[str, Any] = {
        "format": FORMAT,
        "class": "FMRanker",
        "options": {"n_factors": p.shape[1], "solver": {"name": solver, "options": {}}, "item_columns": None},
        "history": [{"epoch": 0}],
        "item_fields": ["item_id"],
        "weight_unit": 1.0,
        "ids": {},
        "encoder": encoder_meta,
    }
    width = len(p) + len(q)
    V = np.ascontiguousarray(np.vstack([p, q]), dtype=np.float32)
    arrays: dict[str, NDArray[Any]] = {"w": np.concatenate([b_p, b_q]).astype(np.float32), "V": V}
    sides = {
        "users": sp.eye_array(len(p), width, format="csr", dtype=np.float32),
        "items": sp.eye_array(len(q), width, k=len(p), format="csr", dtype=np.float32),
        "seen": check_csr(seen).matrix(),
    }
    for name, matrix in sides.items():
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("indptr", "indices", "data")}
    for name, ids in (("user", users), ("item", items)):
        meta["ids"][name], own = Vocabulary(pd.Series(ids).tolist()).to_state()
        arrays |= {f"{name}.{key}": array for key, array in own.items()}
    arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    ranker: FMRanker = ranker_from_state(FMRanker, meta, arrays)
    return ranker


def _summed(model: Any, side: str, features: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors (n, d) and biases (n,) of users or items."""
    vectors, biases = getattr(model, f"{side}_embeddings", None), getattr(model, f"{side}_biases", None)
    if vectors is None or biases is None:
        raise ValueError(f"model has no {side}_embeddings and {side}_biases: pass a LightFM model that is fitted")
    vectors, biases = np.asarray(vectors, np.float64), np.asarray(biases, np.float64)
    if vectors.ndim != 2 or biases.shape != vectors.shape[:1] or not vectors.size:
        raise ValueError(f"{side}_embeddings and {side}_biases are of shapes {vectors.shape} and {biases.shape}")
    if not (np.isfinite(vectors).all() and np.isfinite(biases).all()):
        raise ValueError(f"{side}_embeddings or {side}_biases are not finite: the fit had diverged")
    if features is None:
        return vectors, biases
    rows = check_csr(features).matrix()
    if rows.shape[1] != len(vectors):
        raise ValueError(f"{side}_features has {rows.shape[1]} columns, the model {len(vectors)} features of {side}s")
    return rows @ vectors, rows @ biases


def _ids(ids: Sequence[Any] | None, n: int, name: str) -> Any:
    found = pd.Series(np.arange(n)) if ids is None else pd.Series(list(ids))
    if len(found) != n or found.duplicated().any() or found.isna().any():
        raise ValueError(f"{name} must be {n} different ids, got {len(found)}, {found.nunique()} of them different")
    return found.to_numpy()
