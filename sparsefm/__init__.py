"""sparsefm: factorization machines on sparse data.

Read data (`datasets`), split it (`splits`), encode it (`FrameEncoder` and its columns), fit an estimator
(`FMRegressor`, `FMClassifier`), judge it (`metrics`), recommend, save and `load`.
"""

from . import datasets, metrics, splits
from .encoders import FrameEncoder, MultiHot, Numeric, OneHot
from .estimators import FMClassifier, FMRegressor, load
from .persistence import ModelFileError

__version__ = "0.1.0"

__all__ = [
    "FMClassifier",
    "FMRegressor",
    "FrameEncoder",
    "ModelFileError",
    "MultiHot",
    "Numeric",
    "OneHot",
    "datasets",
    "load",
    "metrics",
    "splits",
]
