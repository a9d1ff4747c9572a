"""What the metrics take, as arrays and lists that are sound; or an error that says what came."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Bools", "Floats", "check_whole", "places_of", "set_of", "vector"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def vector(values: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    try:
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} missing or infinite values")
    return array


def check_whole(value: Any, name: str, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of {what}, at least 1, got {value!r}")


def places_of(recommended: Any, k: int | None = None) -> list[list[Any]]:
    """What stands in the first k places of each list, or in all; None where nothing does."""
    # as objects: beside text ids NumPy would turn the padding into text too
    lists = recommended if isinstance(recommended, np.ndarray) else np.asarray(recommended, dtype=object)
    if lists.ndim != 2 or lists.shape[1] < (k or 0):
        least = "" if k is None else f" and at least k={k} columns"
        raise ValueError(
            f"recommended must have one row a user{least} (fill short lists up with -1), got shape {lists.shape}"
        )
    places = [[None if item == -1 or pd.isna(item) else item for item in row] for row in lists[:, :k].tolist()]
    for number, row in enumerate(places):
        items = [item for item in row if item is not None]
        if len(set(items)) < len(items):
            raise ValueError(f"recommended[{number}] holds an item twice: {items}")
    return places


def set_of(collection: Collection[Any], name: str, row: int) -> set[Any]:
    if isinstance(collection, str):
        raise ValueError(f"{name}[{row}] must be a collection of item ids, got the text {collection!r}")
    return set(collection)
