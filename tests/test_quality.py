"""Quality on real data, where the Makefile has fetched it."""

from pathlib import Path

import numpy as np
import pytest

from sparsefm import FMRegressor, FrameEncoder, MultiHot, Numeric, OneHot
from sparsefm.datasets import load_movielens
from sparsefm.metrics import rmse

IDS = {"user_id": OneHot(), "item_id": OneHot()}
SIDE = {"genres": MultiHot(sep="|"), "year": Numeric(), "age": Numeric()}
FOUND = sorted((Path(__file__).parents[1] / "data").glob("recbole-*.whl"))


@pytest.mark.slow
@pytest.mark.skipif(not FOUND, reason="MovieLens-100K may not be redistributed; `make movielens` fetches it into data/")
def test_default_arguments_reach_their_figures_on_the_canonical_folds():
    ml = load_movielens(FOUND[0])
    frame = ml.ratings.merge(ml.users, on="user_id").merge(ml.items, on="item_id").set_index(ml.ratings.index)
    assert (frame["rating"] == ml.ratings["rating"]).all()

    def mean_rmse(columns, **options):
        errors = []
        for k in range(1, 6):
            train, test = (frame.loc[part.index] for part in ml.fold(k))
            model = FMRegressor(encoder=FrameEncoder(columns), random_state=0, **options).fit(train, train["rating"])
            errors.append(rmse(test["rating"], model.predict(test)))
        return np.mean(errors)

    bias_only, ids, side = mean_rmse(IDS, n_factors=0), mean_rmse(IDS), mean_rmse(IDS | SIDE)
    assert side < ids <= 0.915 < bias_only
