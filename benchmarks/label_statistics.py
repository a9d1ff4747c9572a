"""Crosses, label statistics and counts on real data: held-out loss beside one-hot columns and scikit-learn's models.

    python benchmarks/label_statistics.py --adult PATH --insteval PATH
    python benchmarks/label_statistics.py --adult PATH --options       the options of TargetStats instead

Adult: CSV or parquet with the columns of UCI's "Census Income" (target income; names as in adult.csv, dots or
hyphens). InstEval: CSV of lme4's data set, with lme4's column names or G, H, A, I, Y for s, d, service, dept, y.

A fifth of the rows is held out (`splits.random`, one seed after the other). A tenth of the others stops the
factorization machines early and chooses the penalty, theirs and the linear models', from the grids below;
HistGradientBoosting sets a tenth of its own aside. Everything runs on one thread with OMP_NUM_THREADS=1.
"""

import argparse
import itertools
import warnings

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import KFold
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, OneHot
from sparsefm.encoders import Binned, Counts, Cross, Numeric, TargetStats
from sparsefm.solvers import AdaGrad
from sparsefm.splits import random

L2_FACTORS = [0.001, 0.01, 0.1, 1.0]
INVERSE_C = [0.1, 1.0, 10.0]
WATCHED = 0.1


class Adult:
    name, measure, classes = "Adult", "log loss", True
    numeric = ("age", "educational-num", "capital-gain", "capital-loss", "hours-per-week")
    levels = (
        *("workclass", "education", "marital-status", "occupation"),
        *("relationship", "race", "gender", "native-country"),
    )
    crosses = (("occupation", "education"), ("marital-status", "gender"), ("occupation", "workclass"))
    stats = ("workclass", "education", "marital-status", "occupation", "relationship", "native-country")

    @staticmethod
    def load(path):
        frame = pd.read_csv(path, skipinitialspace=True) if path.endswith(".csv") else pd.read_parquet(path)
        frame.columns = [name.replace(".", "-") for name in frame.columns]
        frame = frame.rename(columns={"education-num": "educational-num", "sex": "gender"})
        y = (frame.pop("income").astype(str).str.strip().str.rstrip(".") == ">50K").astype(int)
        return frame[[*Adult.numeric, *Adult.levels]].assign(y=y)


class InstEval:
    name, measure, classes = "InstEval", "RMSE", False
    numeric = ()
    levels = ("s", "d", "studage", "lectage", "service", "dept")
    crosses = (("d", "service"), ("d", "dept"), ("s", "dept"))
    stats = levels

    @staticmethod
    def load(path):
        names = {"G": "s", "H": "d", "A": "service", "I": "dept", "Y": "y"}
        return pd.read_csv(path).rename(columns=names)[[*InstEval.levels, "y"]]


def encoders(data):
    plain = {name: OneHot() for name in data.levels} | {name: Numeric() for name in data.numeric}
    binned = {f"{name} binned": Binned(16) for name in data.numeric}
    crosses = {f"{a}×{b}": Cross(a, b, min_count=5) for a, b in data.crosses}
    values = {f"{name} binned": OneHot(min_count=5) for name in data.numeric}
    counts = {"counts": Counts(data.stats, crosses=2)}
    everything = data.stats + data.numeric
    specifications = {
        "one-hot, numbers": plain,
        "+ Binned": plain | binned,
        "+ OneHot of the numbers": plain | values,
        "+ Cross": plain | crosses,
        "+ Counts": plain | counts,
        "all of these": plain | values | crosses | counts,
        "+ TargetStats of categories, crosses=2": plain | stats(data.stats, crosses=2),
        "+ TargetStats of all columns": plain | stats(everything),
        "+ TargetStats of all columns, crosses=2": plain | stats(everything, crosses=2),
        "+ TargetStats of all columns, crosses=2, bins": plain | stats(everything, crosses=2, output="bins"),
        "+ TargetStats of all columns, crosses=2, ordered": plain | stats(everything, crosses=2, scheme="ordered"),
        "all": plain | values | crosses | counts | stats(everything),
    }
    idle = () if data.numeric else ("+ Binned", "+ OneHot of the numbers", "+ TargetStats of categories, crosses=2")
    return {name: specification for name, specification in specifications.items() if name not in idle}


def stats(columns, **options):
    return {"stats": TargetStats(columns, **options)}


def with_bins(data, frame):
    """A second copy of each number, for its bins."""
    return frame.assign(**{f"{name} binned": frame[name] for name in data.numeric})


def loss(data, y, prediction):
    return log_loss(y, prediction) if data.classes else root_mean_squared_error(y, prediction)


def predict(data, model, X):
    return model.predict_proba(X)[:, 1] if data.classes else model.predict(X)


def factorization(data, specification, fit, watched, test):
    """Held-out loss of the penalty with the lowest loss on the watched rows."""
    Model = FMClassifier if data.classes else FMRegressor
    encoder = FrameEncoder(specification)
    X = encoder.fit_transform(fit, fit["y"])
    X_watched, X_test = encoder.transform(watched), encoder.transform(test)
    results = []
    for l2 in L2_FACTORS:
        solver = AdaGrad(max_iter=60, patience=3)
        model = Model(8, solver=solver, l2_factors=l2, early_stopping=True, random_state=0, n_threads=1)
        model.fit(X, fit["y"], eval_set=(X_watched, watched["y"]))
        results.append(
            [loss(data, part["y"], predict(data, model, Z)) for part, Z in ((watched, X_watched), (test, X_test))]
        )
    return min(results)[1]


def linear(data, fit, watched, test):
    encoder = FrameEncoder({name: OneHot() for name in data.levels} | {name: Numeric() for name in data.numeric})
    X = encoder.fit_transform(fit)
    results = []
    for strength in INVERSE_C:
        model = LogisticRegression(C=1 / strength, max_iter=300) if data.classes else Ridge(strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, fit["y"])
        results.append(
            [loss(data, part["y"], predict(data, model, encoder.transform(part))) for part in (watched, test)]
        )
    return min(results)[1]


def boosting(data, fit, test, *, target=False):
    """Levels as categories where there are few enough for scikit-learn; else as ordinal codes, or as label means."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, min_frequency=2)
    X, X_test = codes.fit_transform(fit[list(data.levels)]), codes.transform(test[list(data.levels)])
    few = np.nanmax(X, axis=0) < 255
    if target:
        folds = KFold(5, shuffle=True, random_state=0)
        means = TargetEncoder(target_type="binary" if data.classes else "continuous", cv=folds)
        many = [name for name, f in zip(data.levels, few, strict=True) if not f]
        X[:, ~few], X_test[:, ~few] = means.fit_transform(fit[many], fit["y"]), means.transform(test[many])
    X, X_test = (np.hstack([Z, part[list(data.numeric)]]) for Z, part in ((X, fit), (X_test, test)))
    Model = HistGradientBoostingClassifier if data.classes else HistGradientBoostingRegressor
    categorical = [*few, *[False] * len(data.numeric)]
    model = Model(categorical_features=categorical, max_iter=500, early_stopping=True, random_state=0)
    return loss(data, test["y"], predict(data, model.fit(X, fit["y"]), X_test))


def compare(data, frame, seeds):
    """Prints the held-out loss of every model, mean over the seeds and each."""
    lines = {}
    for seed in range(100, 100 + seeds):  # other splits than those on which the defaults of TargetStats were chosen
        train, test = random(frame, test_size=0.2, random_state=seed)
        fit, watched = random(train, test_size=WATCHED, random_state=seed)
        lines.setdefault("linear model on one-hot", []).append(linear(data, fit, watched, test))
        lines.setdefault("HistGradientBoosting", []).append(boosting(data, train, test))
        if train[list(data.levels)].nunique().max() > 255:
            line = lines.setdefault("HistGradientBoosting, TargetEncoder", [])
            line.append(boosting(data, train, test, target=True))
        for name, specification in encoders(data).items():
            lines.setdefault(f"FM: {name}", []).append(factorization(data, specification, fit, watched, test))
    show(data, lines)


def compare_options(data, frame, seeds):
    """Prints the held-out loss of one-hot columns with TargetStats, one group of its options after the other."""
    plain = {name: OneHot() for name in data.levels} | {name: Numeric() for name in data.numeric}
    grid = [
        *(
            {"scheme": s, "permutations": p, "output": o}
            for o, s, p in itertools.product(("bins", "logit"), ("ordered", "kfold"), (1, 2, 4, 16))
        ),
        *({"output": o, "prior": prior} for o in ("bins", "logit") for prior in (1.0, 3.0, 10.0, 30.0)),
        *({"output": "bins", "n_bins": n} for n in (4, 8, 16, 32, 64)),
    ]
    lines = {}
    for seed in range(seeds):
        train, test = random(frame, test_size=0.2, random_state=seed)
        fit, watched = random(train, test_size=WATCHED, random_state=seed)
        for options in grid:
            for kind, others in (("beside one-hot", plain), ("alone", {})):
                name = f"{kind} " + " ".join(f"{key}={value}" for key, value in options.items())
                lines.setdefault(name, []).append(
                    factorization(data, others | stats(data.stats, crosses=2, **options), fit, watched, test)
                )
    show(data, lines)


def show(data, lines):
    print(f"\n{data.name}, held-out {data.measure}: mean over the seeds, and each")
    for name, losses in lines.items():
        print(f"  {name:<62} {np.mean(losses):.4f}   ", *(f"{value:.4f}" for value in losses))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adult")
    parser.add_argument("--insteval")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", action="store_true")
    arguments = parser.parse_args()
    for data, path in ((Adult, arguments.adult), (InstEval, arguments.insteval)):
        if path:
            frame = with_bins(data, data.load(path))
            (compare_options if arguments.options else compare)(data, frame, arguments.seeds)


if __name__ == "__main__":
    main()
