"""sparsefm: factorization machines on sparse data.

Read data (`datasets`), split it (`splits`), encode it (`FrameEncoder` and its columns), fit an estimator
(`FMRegressor`, `FMClassifier`, `FMOrdinal`), judge it (`metrics`), recommend, save and `load`.
"""

from . import datasets, metrics, splits
from .encoders import (
    Binned,
    Counts,
    Cross,
    Date,
    FrameEncoder,
    Hashed,
    History,
    MultiHot,
    Numeric,
    OneHot,
    TargetStats,
)
from .estimators import FMClassifier, FMOrdinal, FMRanker, FMRegressor, load
from .persistence import ModelFileError
from .validation import RelationBlock

__version__ = "0.1.0"

__all__ = [
    "Binned",
    "Counts",
    "Cross",
    "Date",
    "FMClassifier",
    "FMOrdinal",
    "FMRanker",
    "FMRegressor",
    "FrameEncoder",
    "Hashed",
    "History",
    "ModelFileError",
    "MultiHot",
    "Numeric",
    "OneHot",
    "RelationBlock",
    "TargetStats",
    "datasets",
    "load",
    "metrics",
    "splits",
]
