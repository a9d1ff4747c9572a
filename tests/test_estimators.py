"""Estimators: scikit-learn's own checks first."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsefm import FMClassifier, FMRegressor

SAMPLING = {
    name: "a sampling solver visits a row of weight 2 once with a longer step, not twice"
    for name in ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")
}


@parametrize_with_checks(
    [FMRegressor(), FMClassifier()], expected_failed_checks=lambda estimator: SAMPLING
)
def test_scikit_learn_conventions_hold(estimator, check):
    check(estimator)
