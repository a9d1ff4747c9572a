"""scikit-learn estimators over the model and its solvers, and the files they are kept in."""

from __future__ import annotations

import os

from .. import persistence
from ..persistence import ModelFileError
from .baselines import EASE, Popularity
from .fields import FFMClassifier, FFMRegressor, FwFMClassifier, FwFMRegressor
from .files import FORMAT, from_state, ranker_from_state
from .fm import FMClassifier, FMRegressor
from .ordinal import FMOrdinal
from .ranker import FMRanker

__all__ = [
    "EASE",
    "FFMClassifier",
    "FFMRegressor",
    "FMClassifier",
    "FMOrdinal",
    "FMRanker",
    "FMRegressor",
    "FwFMClassifier",
    "FwFMRegressor",
    "Popularity",
    "load",
]

_CLASSES: dict[str, type[FMRegressor] | type[FMClassifier] | type[FMOrdinal]] = {
    "FMRegressor": FMRegressor,
    "FMClassifier": FMClassifier,
    "FMOrdinal": FMOrdinal,
    "FFMRegressor": FFMRegressor,
    "FFMClassifier": FFMClassifier,
    "FwFMRegressor": FwFMRegressor,
    "FwFMClassifier": FwFMClassifier,
}


def load(path: str | os.PathLike[str]) -> FMRegressor | FMClassifier | FMOrdinal | FMRanker:
    """The model in a file that `save` wrote.

    Nothing in the file is executed. Raises ModelFileError for a file that is damaged, malformed or of a newer
    format, OSError for one that cannot be read.
    """
    meta, arrays = persistence.read(path)
    try:
        if "checkpoint" in meta:
            raise ValueError("it is a checkpoint of a training; give it to fit as resume=")
        if meta.get("format") != FORMAT:
            raise ValueError(f"its format is {meta.get('format')!r}, this version reads {FORMAT}; upgrade sparsefm")
        if meta["class"] == "FMRanker":
            ranker: FMRanker = ranker_from_state(FMRanker, meta, arrays)
            return ranker
        model: FMRegressor | FMClassifier | FMOrdinal = from_state(_CLASSES[meta["class"]], meta, arrays)
        return model
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path} does not hold a valid model: {type(error).__name__}: {error}") from error
