"""Models of other libraries as models of ours: libFM's text files, and fitted LightFM objects.

Nothing of theirs is imported or unpickled: a file is text, an object is asked for its arrays.
"""

from __future__ import annotations

import math
import os
from array import array
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

_HEADINGS = (b"#global bias W0", b"#unary interactions Wj", b"#pairwise interactions Vj,f")


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
        (libFM's ``-dim 0,0,k``). It has six digits of each number.
    task : {"regression", "classification"}
        Classes are -1 and 1; probabilities are those of the logistic link, which is libFM's for ``-method sgd``. A
        model of ``-method als`` has the probit link there: its probabilities are
        ``scipy.special.ndtr(model.decision_function(X))``.
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
        For a file that is no such model, or damaged; the message names its line. Or a task or range that is none. A
        file without weights that was cut off behind a whole line cannot be told from a smaller model.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from sparsefm.interop import from_libfm
    >>> weights = ["#global bias W0", "3", "#unary interactions Wj", "0.5", "-1"]
    >>> lines = [*weights, "#pairwise interactions Vj,f", "1 2", "3 4"]
    >>> _ = Path("libfm.model").write_text("\\n".join(lines) + "\\n")
    >>> float(from_libfm("libfm.model").predict([[1.0, 1.0]])[0])  # 3 + 0.5 - 1 + 1 * 3 + 2 * 4
    13.5
    """
    if task not in ("regression", "classification"):
        raise ValueError(f"task must be 'regression' or 'classification', got {task!r}")
    bounds = None if target_range is None else _bounds(target_range, task)
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
    options["clip"] = bounds is not None
    meta["target_range"] = bounds or (0.0, 0.0)
    meta["units"] = [0.0, 1.0, 2]
    regressor: FMRegressor = from_state(FMRegressor, meta, arrays)
    return regressor


def _bounds(target_range: Any, task: str) -> tuple[float, float]:
    try:
        low, high = map(float, target_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if task != "regression" or not -math.inf < low < high < math.inf:
        raise ValueError(f"target_range must be two rising numbers, of a regression; got {target_range!r} for {task!r}")
    return low, high


def _read_libfm(path: Path) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Bias, weights (n_features,) and factors (n_features, k); in memory proportional to the file."""
    numbers = [array("d") for _ in _HEADINGS]
    heads, lengths = [0, 0, 0], [0, 0, 0]  # line of each heading, 0 where there is none; lines below it
    part, width, number, line, text = -1, 1, 0, b"\n", b""

    def wrong(what: str, at: int | None = None) -> ValueError:
        return ValueError(f"{path}, line {at or number}: {what}")

    def got() -> str:
        return f"got {text[:60].decode('latin-1')!r}"

    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if text.startswith(b"#") or part < 0:
                later = _HEADINGS[part + 1 :]
                if text not in later:
                    expected = " or ".join(repr(heading.decode()) for heading in later) or "numbers"
                    raise wrong(f"expected {expected}, {got()}")
                part += 1 + later.index(text)
                heads[part] = number
                continue
            try:
                values = [math.nan] if b"_" in text else list(map(float, text.split()))  # Python's 1_0 is a number
            except ValueError:
                values = [math.nan]
            if not all(map(math.isfinite, values)):
                raise wrong(f"expected finite numbers, {got()}")
            if part == 2 and not lengths[2]:
                width = len(values)
            if len(values) != width:
                raise wrong(f"expected {width} numbers, not {len(values)}: {got()}")
            numbers[part].extend(values)
            lengths[part] += 1
    number = max(number, 1)
    if part != 2:
        raise wrong(f"the file ends without {_HEADINGS[2].decode()!r}: it is no model of libFM, or cut off")
    if not line.endswith(b"\n"):
        raise wrong("the file ends inside a line: it may be cut off")
    if heads[0] and lengths[0] != 1:
        raise wrong(f"expected one bias below it, got {lengths[0]}", heads[0])
    if not lengths[2]:
        raise wrong("the file ends before the first feature: it may be cut off")
    if heads[1] and lengths[1] != lengths[2]:
        raise wrong(f"the file ends after {lengths[1]} weights and factors of {lengths[2]} features: it may be cut off")
    w = np.array(numbers[1]) if heads[1] else np.zeros(lengths[2])
    return (numbers[0][0] if heads[0] else 0.0), w, np.array(numbers[2]).reshape(lengths[2], width)


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
    vector and bias of one id each: exact, up to the rounding of float32, for all users and items given. Scores of lists
    leave out b_u, which orders nothing.

    What goes are the features themselves, since in an FM those of one item meet each other too, which they do not
    there. Who is new is folded in by interactions (`fold_in`); an item that is new scores 0, until it is imported with
    a row of its own in `item_features`.

    Parameters
    ----------
    model : LightFM
        Fitted: its arrays user_embeddings, item_embeddings, user_biases and item_biases are read.
    user_features, item_features : sparse (n_users, n_user_features), (n_items, n_item_features), optional
        As given to LightFM's fit and predict; identities if not given.
    user_ids, item_ids : sequence (n_users,), (n_items,), optional
        Ids to recommend by, of one type, each once; LightFM's own numbers if not given.
    interactions : sparse (n_users, n_items), optional
        What was met in training, where it is not zero: `recommend` leaves it out, and new users get what most have met.

    Returns
    -------
    FMRanker
        Fitted, with WARP or BPR as LightFM was trained by, and WARP for its other losses; only `fold_in` trains.

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
    shape = len(p), len(q)
    seen = check_csr(sp.csr_array(shape) if interactions is None else interactions, name="interactions").matrix()
    if seen.shape != shape:
        raise ValueError(f"interactions must be {shape}, users by items; got shape {seen.shape}")

    n = max(len(p), len(q))
    rows = pd.DataFrame({"user_id": np.resize(users, n), "item_id": np.resize(items, n)})
    alone = OneHot(unknown="ignore", missing="ignore")
    encoder = FrameEncoder({"user_id": alone, "item_id": alone}).fit(rows)  # columns in the order of the ids
    solver = "bpr" if getattr(model, "loss", None) == "bpr" else "warp"
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
    arrays: dict[str, NDArray[Any]] = {"w": np.concatenate([b_p, b_q]), "V": np.vstack([p, q])}
    sides = {
        "users": sp.eye_array(len(p), width, format="csr", dtype=np.float32),
        "items": sp.eye_array(len(q), width, k=len(p), format="csr", dtype=np.float32),
        "seen": sp.csr_array((np.ones(seen.nnz, np.float32), seen.indices, seen.indptr), shape=shape),
    }
    for name, matrix in sides.items():
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("indptr", "indices", "data")}
    for name, ids in (("user", users), ("item", items)):
        meta["ids"][name], own = Vocabulary(pd.Series(ids).tolist()).to_state()
        arrays |= {f"{name}.{key}": array for key, array in own.items()}
    arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    ranker: FMRanker = ranker_from_state(FMRanker, meta, arrays)
    return ranker


def _summed(model: Any, side: str, features: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors (n, d) and biases (n,) of users or items."""
    vectors, biases = getattr(model, f"{side}_embeddings", None), getattr(model, f"{side}_biases", None)
    if vectors is None or biases is None:
        raise ValueError(f"model has no {side}_embeddings and {side}_biases: pass a LightFM model that is fitted")
    vectors, biases = np.asarray(vectors, np.float64), np.asarray(biases, np.float64)
    if vectors.ndim != 2 or biases.shape != vectors.shape[:1] or not vectors.size:
        raise ValueError(f"{side}_embeddings and {side}_biases are of shapes {vectors.shape} and {biases.shape}")
    if features is not None:
        rows = check_csr(features, name=f"{side}_features").matrix()
        if rows.shape[1] != len(vectors) or not rows.shape[0]:
            raise ValueError(
                f"{side}_features must be (n_{side}s, {len(vectors)}), a column for each feature of the "
                f"model; got shape {rows.shape}"
            )
        vectors, biases = rows @ vectors, rows @ biases
    with np.errstate(over="ignore"):
        sums = vectors.astype(np.float32), biases.astype(np.float32)
    if not all(np.isfinite(each).all() for each in sums):
        raise ValueError(f"{side}_embeddings or {side}_biases are not finite: the fit had diverged")
    return sums


def _ids(ids: Sequence[Any] | None, n: int, name: str) -> Any:
    found = pd.Series(np.arange(n)) if ids is None else pd.Series(list(ids))
    if len(found) != n or found.duplicated().any() or found.isna().any():
        raise ValueError(f"{name} must be {n} different ids, got {len(found)}, {found.nunique()} of them different")
    return found.to_numpy()
