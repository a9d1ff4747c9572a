"""Second-order factorization machines for a real target and for classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from ..model import FMParams, Posterior, score
from ..solvers import MCMC, make_solver
from ..validation import Relations, Rows, check_positive, check_target
from .base import _BaseFM
from .units import Units

_AT_ONCE = 1 << 22  # scores held to find quantiles
_HALVINGS = 40  # of the interval that a quantile lies in
_FARTHEST = 1e18  # from the centre of the target, in units of its spread


class FMRegressor(RegressorMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for a real target (Rendle, ICDM 2010).

    The objective, with s_i the sample weights, n_j the weight of the rows in which feature j occurs and n that of all:

        (Σ s_i ℓ(y_i, score_i)) / Σ s_i + ½ Σ_j (n_j + l2_prior) / n · (l2_linear w_j² + l2_factors ‖v_j‖²)

    Training sees the target centred and scaled to a spread of 1, which changes the steps but not the objective; so the
    defaults suit targets of any scale, and rows of many fields as well as of two (see AdaGrad).

    Parameters
    ----------
    n_factors : int
        Length of a feature's vector; 0 leaves the linear model, on one-hot ids the biases.
    loss : "squared", "huber", "quantile" or "poisson"
        ½ r²; the same up to |r| = delta · spread and linear beyond (the spread is 1.48 times the median absolute
        deviation); the pinball loss, whose prediction is a quantile of the target; e^score − y · score for counts,
        whose prediction is e^score.
    order : int
        Of the interactions: 2 for pairs of features, m for all sets of 2 to m of them (Blondel et al., NIPS 2016),
        1 for the linear model. Above 2 with solvers of gradients only.
    share_factors : bool
        One vector a feature for all orders; else each order has its own. A regressor with shared ones trains on the
        target as it is, only centred: the orders scale differently.
    solver : "adagrad", "sgd", "adam", "ftrl", "als", "mcmc", "auto" or a solver object such as AdaGrad(max_iter=50)
        "auto" finds the number of passes and the strength of the penalties by a short search; "als" and "mcmc" have no
        learning rate, and "mcmc" no penalties either.
    l2_linear, l2_factors : float
        Penalties. l2_factors may be a mapping from field to strength, fields not named keeping the default; None is
        0.025 times the spread of y (with loss="quantile" 0.025), which is the same strength at any scale of the target.
    l2_prior : float
        As if each feature had occurred in so many rows more: the penalty that rare features have. With 0 each
        visit to a feature pays the same share; with l2 · l2_prior held and l2 → 0 it is a Gaussian prior, as in
        Bayesian factorization machines (Freudenthaler, Schmidt-Thieme & Rendle 2011). The default is chosen with the
        solver's.
    init_std : float
        Standard deviation of the starting factors, for a target of spread 1; of those of order t its (t − 1)-th root.
    quantile, delta : float
        Of the losses "quantile" and "huber".
    encoder : FrameEncoder or another transformer to sparse rows, optional
        Fitted together with the model. Without one, a frame with text or category columns is encoded by its
        dtypes, and a frame of numbers, integer ids too, is a matrix. Recommending from frames and saving need
        a FrameEncoder.
    fields : (n_features,) int, optional
        The field of each column of a matrix, for `l2_factors` by field.
    clip : bool
        Predictions stay inside the range of the training target.
    early_stopping : bool
        Stop when what is watched on eval_set, or on validation_fraction of the rows, no longer betters, and keep the
        best epoch's parameters.
    validation_fraction : float
    eval_metric : "loss", "rmse", "mae" or callable
        What is watched. A function of (y, prediction), with sample_weight= where weights are given, of which more is
        better, as in scikit-learn, unless it is one of sparsefm.metrics of which less is.
    callbacks : list of callables, optional
        callback(estimator, record) after each epoch; True stops.
    n_threads : int, optional
        None: every core. The result does not depend on it.
    random_state : int, RandomState or None
    verbose : int
        1 prints a line an epoch to stderr, with the time left, and on a terminal a bar within long ones.
    warm_start : bool
        fit goes on from the parameters of the last fit (on a matrix of the same columns).

    Attributes
    ----------
    params_ : FMParams
        With solver="mcmc" the last draw.
    posterior_ : Posterior or None
        The draws of solver="mcmc".
    intercept_, coef_, factors_ : float, (n_features,), (n_features, n_factors)
        Of order m (m − 1) times n_factors numbers a feature, those of order 2 first.
    history_ : list of dict
        One an epoch: epoch, loss (mean of ℓ, each row scored before its own update), seconds, and with an eval_set
        eval_loss and, unless it is the loss, eval_metric.
    n_iter_ : int
    encoder_ : fitted encoder or None
    fields_ : (n_features,) int32 or None
    target_range_ : (lowest, highest) training target

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import FMRegressor, FrameEncoder, OneHot
    >>> frame = pd.DataFrame({"user": ["ann", "ann", "bob", "bob"], "film": ["Up", "Jaws", "Up", "Jaws"]})
    >>> model = FMRegressor(encoder=FrameEncoder({"user": OneHot(), "film": OneHot()}), random_state=0)
    >>> model.fit(frame, [5.0, 1.0, 4.0, 2.0]).predict(frame).shape
    (4,)
    """

    _LOSSES = ("squared", "huber", "quantile", "poisson")

    target_range_: tuple[float, float]
    _standard: Units

    def __init__(
        self,
        n_factors: int = 16,
        *,
        loss: str = "squared",
        order: int = 2,
        share_factors: bool = False,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: Any = None,
        l2_prior: float = 250.0,
        init_std: float = 0.01,
        quantile: float = 0.5,
        delta: float = 1.35,
        encoder: Any = None,
        fields: Any = None,
        clip: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        eval_metric: Any = "loss",
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        self.n_factors = n_factors
        self.loss = loss
        self.order = order
        self.share_factors = share_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.l2_prior = l2_prior
        self.init_std = init_std
        self.quantile = quantile
        self.delta = delta
        self.encoder = encoder
        self.fields = fields
        self.clip = clip
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.eval_metric = eval_metric
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_positive(self.delta, "delta")
        check_positive(self.quantile, "quantile")
        if not self.quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, got {self.quantile!r}")

    def _shape(self) -> float:
        return {"huber": self.delta, "quantile": self.quantile}.get(self._loss, 0.0)

    def _units(self) -> Units:
        return self._standard

    def _learn_target(self, y: Any, weight: NDArray[Any] | None, dtype: Any) -> None:
        y = check_target(y, len(y))
        counting = y if weight is None else y[weight > 0]
        low, high = float(counting.min()), float(counting.max())
        if self.loss == "poisson":
            if low < 0 or high == 0:
                raise ValueError(
                    f"loss='poisson' needs counts, not negative and not all zero; y goes from {low} to {high}"
                )
            centre, spread = 0.0, 1.0
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                centre, spread = self._centre(y, weight)
            if self.order > 2 and self.share_factors and spread > 0:
                spread = 1.0
        reach = float(np.finfo(dtype).max) ** 0.5
        if not np.isfinite(centre + spread) or spread > reach or (spread < 1 / reach and low != high):
            raise ValueError(
                f"y goes from {low:.3g} to {high:.3g} with a spread of {spread:.3g}, whose square leaves "
                f"{dtype}: rescale y" + " or pass a float64 X" * (dtype == np.float32)
            )
        self._standard = Units(centre, spread if spread > 0 else 1.0, 1 if self.loss == "quantile" else 2)
        self.target_range_ = (low, high)

    def _centre(self, y: NDArray[np.float64], weight: NDArray[Any] | None) -> tuple[float, float]:
        """Where y lies and how far it spreads, as the loss sees it."""
        mean = float(np.average(y, weights=weight))
        deviation = float(np.sqrt(np.average((y - mean) ** 2, weights=weight)))
        if self.loss == "squared":
            return mean, deviation
        middle = _quantile(y, weight, 0.5)
        robust = 1.4826 * _quantile(np.abs(y - middle), weight, 0.5)
        spread = robust if robust > 0 else deviation
        return (_quantile(y, weight, self.quantile) if self.loss == "quantile" else middle), spread

    def _learn_more(self, y: Any) -> None:
        low, high = self.target_range_
        self.target_range_ = (min(low, float(np.min(y))), max(high, float(np.max(y))))

    def _targets(self, y: Any, n_rows: int, name: str = "y") -> list[NDArray[np.float64]]:
        units, y = self._units(), check_target(y, n_rows, name=name)
        if self.loss == "poisson" and n_rows and y.min() < 0:
            raise ValueError(f"loss='poisson' needs counts, not negative; {name} has {y.min():.3g}")
        target = (y - units.centre) / units.scale
        if n_rows and np.abs(target).max() > _FARTHEST:
            raise ValueError(
                f"{name} has {y[np.abs(target).argmax()]:.3g}, which is {np.abs(target).max():.3g} times the spread of "
                "the target away from its centre: its square leaves float32"
            )
        return [target]

    def _start_of(self, target: NDArray[np.float64], weight: NDArray[Any] | None) -> float:
        return float(np.log(np.average(target, weights=weight))) if self.loss == "poisson" else 0.0

    def _predicted(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        if self.loss == "poisson":
            with np.errstate(over="ignore"):
                scores = np.exp(scores)
        return np.asarray(scores.clip(*self.target_range_)) if self.clip else scores

    @overload
    def predict(self, X: Any, *, return_std: Literal[False] = False) -> NDArray[Any]: ...
    @overload
    def predict(self, X: Any, *, return_std: Literal[True, "mean"]) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def predict(self, X: Any, *, return_std: bool | str = False) -> Any:
        """Predicted target (n_rows,) float64, inside the training range unless clip=False.

        With solver="mcmc" the mean over the draws; return_std=True adds the standard deviation (n_rows,) of a new
        target given the row, "mean" that of its mean, which leaves the noise of the single target out. Neither knows
        of clip.
        """
        check_is_fitted(self)
        if return_std not in (False, True, "mean"):
            raise ValueError(f"return_std must be True, False or 'mean', got {return_std!r}")
        if return_std is False and self.posterior_ is None:
            assert isinstance(self.params_, FMParams)
            return self._predicted(self._sums(self.params_, self._encode(X)))
        draws = self._draws("return_std")
        rows = self._encode(X)
        mean, squares = np.zeros(rows.n_rows), np.zeros(rows.n_rows)
        for n, draw in enumerate(range(len(draws)), 1):  # Welford's
            value = self._sums(draws[draw], rows)
            off = value - mean
            mean = mean + off / n
            squares = squares + off * (value - mean)
        if return_std is False:
            return self._predicted(mean)
        variance = squares / len(draws) + (np.mean(draws.deviation**2) if return_std is True else 0.0)
        return self._predicted(mean), np.sqrt(variance)

    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        """(n_rows, n_quantiles) of a new target given the row; needs solver="mcmc". Not clipped.

        Of the mixture, over the draws, of normals around their scores.
        """
        check_is_fitted(self)
        q = np.atleast_1d(np.asarray(quantiles, np.float64))
        if q.ndim != 1 or not ((q > 0) & (q < 1)).all():
            raise ValueError(f"quantiles must be numbers between 0 and 1, got {quantiles!r}")
        draws, rows = self._draws("predict_quantiles"), self._encode(X)
        out = np.empty((rows.n_rows, len(q)))
        per = max(1, _AT_ONCE // len(draws))
        for start in range(0, rows.n_rows, per):
            some = rows.take(np.arange(start, min(start + per, rows.n_rows)))
            scores = np.stack([self._sums(draws[draw], some) for draw in range(len(draws))], axis=1)
            out[start : start + per] = _mixture_quantiles(scores, draws.deviation, q)
        return out

    def _sums(self, params: FMParams, rows: Rows | Relations) -> NDArray[np.float64]:
        """Scores with the bias added in float64: beside a large mean float32 would lose the rest."""
        own = score(replace(params, w0=0.0), rows, n_threads=self.n_threads)
        return own.astype(np.float64) + params.w0

    def _draws(self, what: str) -> Posterior:
        if not isinstance(self.posterior_, Posterior):
            raise ValueError(f"{what} needs draws of the parameters: fit with solver='mcmc'")
        return self.posterior_


def _mixture_quantiles(
    means: NDArray[np.float64], deviations: NDArray[np.float64], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n_rows, n_quantiles) of equal mixtures of normals, by bisection; means (n_rows, n_draws)."""
    low = (means + deviations * ndtri(q.min())).min(axis=1)
    high = (means + deviations * ndtri(q.max())).max(axis=1)
    out = np.empty((len(means), len(q)))
    for i, share in enumerate(q):
        a, b = low.copy(), high.copy()
        for _ in range(_HALVINGS):
            middle = (a + b) / 2
            below = ndtr((middle[:, None] - means) / deviations).mean(axis=1) < share
            a, b = np.where(below, middle, a), np.where(below, b, middle)
        out[:, i] = (a + b) / 2
    return out


def _quantile(values: NDArray[np.float64], weight: NDArray[Any] | None, share: float) -> float:
    """The smallest value below or at which lies that share of the weight."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(np.ones(len(values)) if weight is None else weight[order])
    return float(values[order[min(np.searchsorted(below, share * below[-1]), len(values) - 1)]])


def _has_probabilities(model: Any) -> bool:
    if model.loss == "hinge":
        raise AttributeError("loss='hinge' gives no probabilities; use loss='logistic', or decision_function")
    return True


class FMClassifier(ClassifierMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for classes; more than two classes one against the rest.

    The objective is FMRegressor's with ℓ(y, score) = log(1 + e^score) − y · score, y in {0, 1}.

    Parameters
    ----------
    loss : "logistic", "hinge" or "probit", optional
        "hinge" is max(0, 1 − t · score), t in {−1, 1}, without probabilities; "probit" −log Φ(t · score), Φ the normal
        distribution function, which only solver="mcmc" takes. None is "probit" there and "logistic" with all others.
    l2_linear, l2_factors : float
    eval_metric : "loss", "auc", "log_loss" or callable
        Of (y, probability), y in {0, 1}; with "hinge" the scores. With several classes each is watched for itself.
    class_weight : dict, "balanced" or None
        Weight of a class's rows, times sample_weight; "balanced" is n_rows / (n_classes · rows of the class).

    Notes
    -----
    The others are FMRegressor's.

    Attributes
    ----------
    classes_ : (n_classes,)
    params_ : FMParams, for several classes a tuple of them

    Notes
    -----
    The others are FMRegressor's; with several classes each record of history_ names its "class".

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMClassifier
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> y = np.array(["same", "other", "other", "same"] * 25)
    >>> FMClassifier(random_state=0).fit(X, y).classes_
    array(['other', 'same'], dtype='<U5')
    """

    _LOSSES = ("logistic", "hinge", "probit")

    def __init__(
        self,
        n_factors: int = 16,
        *,
        loss: str | None = None,
        order: int = 2,
        share_factors: bool = False,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: Any = 0.025,
        l2_prior: float = 250.0,
        init_std: float = 0.01,
        encoder: Any = None,
        fields: Any = None,
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        eval_metric: Any = "loss",
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        self.n_factors = n_factors
        self.loss = loss
        self.order = order
        self.share_factors = share_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.l2_prior = l2_prior
        self.init_std = init_std
        self.encoder = encoder
        self.fields = fields
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.eval_metric = eval_metric
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    @property
    def _loss(self) -> str:
        if self.loss is not None:
            return self.loss
        return "probit" if isinstance(make_solver(self.solver), MCMC) else "logistic"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if (
            self.class_weight is not None
            and not isinstance(self.class_weight, Mapping)
            and self.class_weight != "balanced"
        ):
            raise ValueError(f"class_weight must be None, 'balanced' or a dict, got {self.class_weight!r}")

    def _learn_target(self, y: Any, weight: NDArray[Any] | None, dtype: Any) -> None:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: a classifier needs samples of at least two")

    def _averaged(self, draws: Posterior, rows: Rows | Relations) -> NDArray[np.float64]:
        """The score whose probability is the draws' mean one."""
        mean = np.zeros(rows.n_rows)
        for each in draws.scores(rows, n_threads=self.n_threads):
            mean += ndtr(each.astype(np.float64))
        return np.asarray(ndtri(mean / len(draws)))

    @property
    def _labels(self) -> list[dict[str, Any]]:
        if len(self.classes_) == 2:
            return [{}]
        return [{"class": label} for label in self.classes_.tolist()]

    def _weights(self, y: Any, weight: NDArray[Any] | None) -> NDArray[Any] | None:
        if self.class_weight is None:
            return weight
        codes = np.searchsorted(self.classes_, y)
        of_class = self._class_weights(np.bincount(codes, minlength=len(self.classes_)))
        assert of_class is not None
        return np.asarray(of_class[codes] if weight is None else of_class[codes] * weight)

    def _class_weights(self, counts: NDArray[Any]) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return None
        if self.class_weight == "balanced":
            return np.asarray(counts.sum() / (len(counts) * counts))
        classes = self.classes_.tolist()
        unknown = [of for of in self.class_weight if of not in classes]
        if unknown:
            raise ValueError(f"class_weight names {unknown[:5]}; the classes are {classes[:20]}")
        weights = [self.class_weight.get(of, 1.0) for of in classes]
        for of, each in zip(classes, weights, strict=True):
            check_positive(each, f"class_weight[{of!r}]", zero=True)
        return np.array(weights, np.float64)

    def _targets(self, y: Any, n_rows: int, name: str = "y") -> list[NDArray[np.float64]]:
        labels = np.asarray(y)
        if labels.shape != (n_rows,):
            raise ValueError(f"{name} must have shape ({n_rows},), got {labels.shape}")
        known = set(self.classes_.tolist())
        unknown = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
        if unknown:
            raise ValueError(f"{name} has classes that the first y has not: {unknown[:5]}")
        chosen = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        return [(labels == label).astype(np.float64) for label in chosen]

    def _start_of(self, target: NDArray[np.float64], weight: NDArray[Any] | None) -> float:
        if self._loss == "hinge":
            return 0.0
        share = np.clip(np.average(target, weights=weight), 1e-6, 1 - 1e-6)
        return float(ndtri(share) if self._loss == "probit" else np.log(share / (1 - share)))

    def _predicted(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        if self._loss == "hinge":
            return np.asarray(scores, np.float64)
        if self._loss == "probit":
            return np.asarray(ndtr(scores), np.float64)
        # exp of a non-positive number only
        e = np.exp(-np.abs(scores))
        return np.asarray(np.where(scores >= 0, 1, e) / (1 + e))

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Scores before the link: (n_rows,), for several classes (n_rows, n_classes)."""
        return self._scores(X)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities (n_rows, n_classes) in the order of classes_; of several classes scaled to sum to 1. Not with
        loss="hinge", whose scores are none."""
        share = self._predicted(self._scores(X).astype(np.float64))
        if share.ndim == 1:
            return np.stack([1 - share, share], axis=1)
        total = share.sum(axis=1, keepdims=True)
        scaled: NDArray[Any] = np.where(
            total > 0, share / np.maximum(total, np.finfo(np.float64).tiny), 1 / share.shape[1]
        )
        return scaled

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class (n_rows,)."""
        scores = self._scores(X)
        best = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])
