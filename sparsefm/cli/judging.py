"""How good predictions are, beside what is known without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import sklearn.metrics
from sklearn.base import is_classifier

from .. import metrics

__all__ = ["judge"]


def judge(model: Any, X: Any, y: Any, trained: Any) -> dict[str, float]:
    """Metrics of these rows, and what a constant prediction comes to."""
    if not is_classifier(model):
        y, constant = y.to_numpy(np.float64), np.full(len(y), float(np.mean(trained)))
        predicted = model.predict(X)
        found = {"rmse": metrics.rmse(y, predicted), "mae": metrics.mae(y, predicted)}
        return found | {"rmse_of_the_mean": metrics.rmse(y, constant)}
    unknown = sorted(set(y) - set(model.classes_), key=str)
    if unknown:
        raise ValueError(f"the rows to judge by have the class {unknown[0]!r}, which the fit has not seen")
    p = np.clip(model.predict_proba(X), 1e-15, 1)
    found = {"log_loss": float(sklearn.metrics.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=model.classes_))}
    happened = y == model.classes_[-1]
    if len(model.classes_) == 2 and happened.nunique() == 2:
        found["auc"] = metrics.auc(happened, p[:, 1])
    found["accuracy"] = float(np.mean(model.classes_[p.argmax(axis=1)] == y.to_numpy()))
    shares = pd.Series(trained).value_counts(normalize=True).reindex(model.classes_).to_numpy()
    constant = np.tile(shares, (len(y), 1))
    return found | {"log_loss_of_the_shares": float(sklearn.metrics.log_loss(y, constant, labels=model.classes_))}
