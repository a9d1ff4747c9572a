"""Requests and candidates in raw ids: the two sides of a recommendation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from ..encoders import FrameEncoder
from ..model import FMParams, Posterior, represent
from ..recommend import top_k
from ..validation import check_positive

__all__ = ["as_frame", "check_pairs", "excluded", "fields_of", "kind_of", "recommended", "sides_of", "unit"]


def recommended(
    params: FMParams | Posterior,
    encoder: Any,
    contexts: Any,
    candidates: Any,
    user: str,
    item: str,
    k: int,
    exclude: Any,
    *,
    cosine: bool = False,
    n_threads: int | None,
) -> pd.DataFrame:
    """The k best of the candidates for each context, both frames; cosine: by angles alone."""
    if not isinstance(encoder, FrameEncoder):
        raise TypeError(f"recommending from frames needs a FrameEncoder, not a {type(encoder).__name__}")
    X_users, X_items = _both_sides(encoder, contexts, candidates, user, item)
    users, items = sides_of(params, X_users, X_items, cosine=cosine, n_threads=n_threads)
    pairs = None if exclude is None else excluded(exclude, contexts, candidates, user, item)
    check_positive(k, "k", integer=True)
    k = max(1, min(k, len(candidates)))
    ids, scores = top_k(users, items, k, w0=float(np.mean(params.w0)), exclude=pairs)
    return as_frame(ids, scores, contexts[user], candidates[item], user, item)


def sides_of(params: FMParams | Posterior, X_users: Any, X_items: Any, *, cosine: bool, n_threads: int | None) -> Any:
    """Scores and vectors of both sides, whose inner products are the scores of pairs; cosine: those of their angles."""
    sides = represent(params, X_users, X_items, n_threads=n_threads)
    return tuple((np.zeros_like(bias), unit(vectors)) for bias, vectors in sides) if cosine else sides


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """The rows at length one; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[Any] = vectors / np.where(lengths > 0, lengths, 1)
    return found


def as_frame(ids: NDArray[Any], scores: NDArray[Any], users: Any, items: Any, user: str, item: str) -> pd.DataFrame:
    """Lists of positions, padded with −1, as one row a place in raw ids."""
    request, place = np.nonzero(ids >= 0)
    return pd.DataFrame(
        {
            user: users.array.take(request),
            item: items.array.take(ids[request, place]),
            "rank": place + 1,
            "score": scores[request, place],
        }
    )


def fields_of(encoder: FrameEncoder, columns: set[str]) -> list[str]:
    """The fields whose sources are all among these input columns."""
    return [name for name, column in encoder.columns_.items() if set(column.essential) <= columns]


def _both_sides(encoder: FrameEncoder, contexts: Any, candidates: Any, user: str, item: str) -> tuple[Any, Any]:
    for frame, name, column in ((contexts, "contexts", user), (candidates, "candidates", item)):
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"{name} must be a DataFrame, got {type(frame).__name__}")
        if column not in frame.columns:
            raise ValueError(f"{name} has no column {column!r}, only {list(frame.columns)}")
    read = {source for column in encoder.columns_.values() for source in column.sources}
    both = sorted(read & set(contexts.columns) & set(candidates.columns))
    if both:
        raise ValueError(
            f"columns {both} are in contexts and in candidates: drop each from the side it does not describe"
        )
    for name, field in encoder.columns_.items():
        sources = set(field.essential)
        if not sources.isdisjoint(contexts.columns) and not sources.isdisjoint(candidates.columns):
            raise ValueError(
                f"field {name!r} reads {sorted(sources)}, of contexts and of candidates together, so a score does "
                "not split into their parts: predict such pairs row by row, or fit without this field"
            )
    if candidates[item].duplicated().any():
        twice = candidates[item][candidates[item].duplicated()].iloc[0]
        raise ValueError(f"candidates has {item} {twice!r} more than once: give one row an item")
    return (
        encoder.transform(contexts, columns=fields_of(encoder, set(contexts.columns))),
        encoder.transform(candidates, columns=fields_of(encoder, set(candidates.columns))),
    )


def kind_of(ids: Any) -> str:
    """What sort of values an index has, "" where they are of several or of none."""
    if isinstance(ids, pd.CategoricalIndex):
        ids = ids.categories
    if pd.api.types.is_bool_dtype(ids.dtype):
        return "bool"
    if pd.api.types.is_numeric_dtype(ids.dtype):
        return "number"
    found = pd.api.types.infer_dtype(ids, skipna=True)
    return {"string": "text", "integer": "number", "floating": "number", "mixed-integer-float": "number"}.get(found, "")


def check_pairs(frame: Any, name: str, user: str, item: str) -> None:
    columns = list(frame.columns) if isinstance(frame, pd.DataFrame) else []
    if columns.count(user) != 1 or columns.count(item) != 1:
        found = f"the columns {columns}" if isinstance(frame, pd.DataFrame) else type(frame).__name__
        raise ValueError(f"{name} must be a DataFrame with columns {user!r} and {item!r}, once each; got {found}")


def excluded(exclude: Any, contexts: pd.DataFrame, candidates: pd.DataFrame, user: str, item: str) -> Any:
    """Sparse (n_contexts, n_candidates) with a one at each excluded pair."""
    check_pairs(exclude, "exclude", user, item)
    if len(exclude) == 0:
        return None
    for frame, column in ((contexts, user), (candidates, item)):
        if len({kind_of(pd.Index(f[column])) for f in (frame, exclude)} - {""}) > 1:
            raise ValueError(
                f"{column} is {frame[column].dtype} in the request but {exclude[column].dtype} in exclude: "
                "no pair would match; give both the same type"
            )
    place = pd.Index(candidates[item]).get_indexer(exclude[item])
    known = pd.Index(contexts[user].unique())
    of_context, of_pair = known.get_indexer(contexts[user]), known.get_indexer(exclude[user])
    kept = (place >= 0) & (of_pair >= 0)
    shown = pd.DataFrame({"user": of_pair[kept], "place": place[kept]})
    requests = pd.DataFrame({"user": of_context, "request": np.arange(len(contexts))})
    found = requests.merge(shown, on="user").drop_duplicates()
    ones = np.ones(len(found), dtype=np.int8)
    return sp.coo_array((ones, (found["request"], found["place"])), shape=(len(contexts), len(candidates))).tocsr()
