"""sparsefm: factorization machines on sparse data.

Read data (`datasets`), split it (`splits`), encode it (`FrameEncoder` and its columns), fit an estimator
(`FMRegressor`, `FMClassifier`, `FMOrdinal`, and `FFM…` and `FwFM…` of those that know fields), judge it (`metrics`),
recommend, save and `load`.
Rankings from interactions are fitted by `FMRanker`, `Popularity` and `EASE` and judged by `evaluation`.
"""

from . import datasets, evaluation, metrics, splits
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
from .estimators import (
    EASE,
    FFMClassifier,
    FFMRegressor,
    FMClassifier,
    FMOrdinal,
    FMRanker,
    FMRegressor,
    FwFMClassifier,
    FwFMRegressor,
    Popularity,
    load,
)
from .persistence import ModelFileError
from .validation import RelationBlock

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022  (in the order of sorted, capitals first)
    "Binned",
    "Counts",
    "Cross",
    "Date",
    "EASE",
    "FFMClassifier",
    "FFMRegressor",
    "FMClassifier",
    "FMOrdinal",
    "FMRanker",
    "FMRegressor",
    "FrameEncoder",
    "FwFMClassifier",
    "FwFMRegressor",
    "Hashed",
    "History",
    "ModelFileError",
    "MultiHot",
    "Numeric",
    "OneHot",
    "Popularity",
    "RelationBlock",
    "TargetStats",
    "datasets",
    "evaluation",
    "load",
    "metrics",
    "splits",
]
