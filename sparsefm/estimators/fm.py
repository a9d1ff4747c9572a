"""Second-order factorization machines for a real target and for classes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from ..model import FMParams, score
from ..validation import check_sample_weight, check_target
from .base import _BaseFM, all_or_nothing


class FMRegressor(RegressorMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for a real target, squared loss (Rendle, ICDM 2010).

    The objective, with s_i the sample weights and c_j the weighted share of rows in which feature j occurs:

        (Σ s_i ½(y_i − score_i)²) / Σ s_i + ½ Σ_j c_j (l2_linear w_j² + l2_factors ‖v_j‖²)

    Training sees the target with mean 0 and standard deviation 1, which changes the steps but not the objective;
    so a learning rate suits targets of any scale.

    Parameters
    ----------
    n_factors : int
        Length of a feature's vector; 0 leaves the linear model, on one-hot ids the biases.
    solver : "adagrad", "sgd" or a solver object such as AdaGrad(max_iter=50)
    l2_linear, l2_factors : float
        Penalties. l2_factors=None is 0.1 times the standard deviation of y, which is the same strength at any
        scale of the target.
    init_std : float
        Standard deviation of the starting factors, for a target of standard deviation 1.
    encoder : FrameEncoder or another transformer to sparse rows, optional
        Fitted together with the model. Without one, a frame with text or category columns is encoded by its
        dtypes, and a frame of numbers, integer ids too, is a matrix. Recommending from frames and saving need
        a FrameEncoder.
    clip : bool
        Predictions stay inside the range of the training target.
    early_stopping : bool
        Stop when the loss on eval_set, or on validation_fraction of the rows, no longer falls, and keep the best
        epoch's parameters.
    validation_fraction : float
    callbacks : list of callables, optional
        callback(estimator, record) after each epoch; True stops.
    n_threads : int, optional
        None: every core. The result does not depend on it.
    random_state : int, RandomState or None
    verbose : int
        1 prints a line an epoch to stderr.

    Attributes
    ----------
    params_ : FMParams
    intercept_, coef_, factors_ : float, (n_features,), (n_features, n_factors)
    history_ : list of dict
        One an epoch: epoch, loss (mean of ℓ, each row scored before its own update), seconds, and eval_loss
        with an eval_set.
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

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: float | None = None,
        init_std: float = 0.01,
        encoder: Any = None,
        clip: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.init_std = init_std
        self.encoder = encoder
        self.clip = clip
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fits to rows X (n_rows, n_features) — CSR, any matrix, or with an encoder a DataFrame — and y (n_rows,).

        eval_set is (X, y) or (X, y, sample_weight), watched after each epoch. Raises ValueError for input that is
        not finite or does not fit together, DivergenceError when training runs away.
        """
        rows, y, weight, eval_set = self._start(X, y, sample_weight, eval_set)
        y = check_target(y, rows.n_rows)
        counting = y if weight is None else y[weight > 0]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.average(y, weights=weight))
            spread = float(np.sqrt(np.average((y - mean) ** 2, weights=weight)))
        reach = float(np.finfo(rows.dtype).max) ** 0.5
        if (
            not np.isfinite(mean + spread)
            or spread > reach
            or (spread < 1 / reach and counting.min() != counting.max())
        ):
            raise ValueError(
                f"y goes from {counting.min():.3g} to {counting.max():.3g} with a standard deviation of {spread:.3g}, "
                f"whose square leaves {rows.dtype}: rescale y" + " or pass a float64 X" * (rows.dtype == np.float32)
            )
        scale = spread if spread > 0 else 1.0
        evaluation = None
        if eval_set is not None:
            watched = self._encode(eval_set[0])
            target = check_target(eval_set[1], watched.n_rows, name="the y of eval_set")
            given = check_sample_weight(eval_set[2] if len(eval_set) == 3 else None, watched.n_rows)
            evaluation = (watched, (target - mean) / scale, given)
        self.history_ = []
        # In the standardised problem w and V are 1/scale and 1/√scale of their values, the loss 1/scale²:
        # l2_linear is the same number there, l2_factors is divided by scale.
        params = self._solve(
            rows,
            (y - mean) / scale,
            weight,
            evaluation,
            loss="squared",
            w0=0.0,
            l2_factors=0.1 if self.l2_factors is None else self.l2_factors / scale,
            loss_scale=scale**2,
            seed=self._seed(),
        )
        V, w = params.V, params.w
        V *= V.dtype.type(np.sqrt(scale))
        w *= w.dtype.type(scale)
        self.params_ = FMParams(mean + scale * params.w0, w, V)
        self.target_range_ = (float(counting.min()), float(counting.max()))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted target (n_rows,) float64, inside the training range unless clip=False."""
        check_is_fitted(self)
        params = self._params_of(None)
        # the bias is added in float64: beside a large mean float32 would lose the rest
        deviations = score(FMParams(0.0, params.w, params.V), self._encode(X), n_threads=self.n_threads)
        scores = deviations.astype(np.float64) + params.w0
        return np.asarray(scores.clip(*self.target_range_)) if self.clip else scores


class FMClassifier(ClassifierMixin, _BaseFM):  # type: ignore[misc]
    """Factorization machine for classes, logistic loss; more than two classes one against the rest.

    The objective is FMRegressor's with ℓ(y, score) = log(1 + e^score) − y · score, y in {0, 1}.

    Parameters
    ----------
    l2_linear, l2_factors : float
    class_weight : dict, "balanced" or None
        Weight of a class's rows, times sample_weight; "balanced" is n_rows / (n_classes · rows of the class).

    The others are FMRegressor's.

    Attributes
    ----------
    classes_ : (n_classes,)
    params_ : FMParams, for several classes a tuple of them

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

    def __init__(
        self,
        n_factors: int = 16,
        *,
        solver: Any = "adagrad",
        l2_linear: float = 0.01,
        l2_factors: float = 0.08,
        init_std: float = 0.01,
        encoder: Any = None,
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.init_std = init_std
        self.encoder = encoder
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fits to rows X and labels y (n_rows,) of any sortable type; eval_set as in FMRegressor.fit."""
        rows, y, weight, eval_set = self._start(X, y, sample_weight, eval_set)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: a classifier needs samples of at least two")
        if self.class_weight is not None:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[codes]
            weight = check_sample_weight(of_class if weight is None else of_class * weight, rows.n_rows)
        watched = None
        if eval_set is not None:
            X_watched = self._encode(eval_set[0])
            given = check_sample_weight(eval_set[2] if len(eval_set) == 3 else None, X_watched.n_rows)
            labels = np.asarray(eval_set[1])
            if labels.shape != (X_watched.n_rows,):
                raise ValueError(f"the y of eval_set must have shape ({X_watched.n_rows},), got {labels.shape}")
            known = set(self.classes_.tolist())
            unknown = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
            if unknown:
                raise ValueError(f"the y of eval_set has classes that y has not: {unknown[:5]}")
            watched = (X_watched, labels, given)
        self.history_ = []
        seed = self._seed()
        binary = len(self.classes_) == 2
        fitted = []
        for code in [1] if binary else range(len(self.classes_)):
            target = (codes == code).astype(np.float64)
            share = np.clip(np.average(target, weights=weight), 1e-6, 1 - 1e-6)
            evaluation = None
            if watched is not None:
                evaluation = (watched[0], (watched[1] == self.classes_[code]).astype(np.float64), watched[2])
            fitted.append(
                self._solve(
                    rows,
                    target,
                    weight,
                    evaluation,
                    loss="logistic",
                    w0=float(np.log(share / (1 - share))),
                    l2_factors=self.l2_factors,
                    seed=seed,
                    label=None if binary else {"class": self.classes_.tolist()[code]},
                )
            )
        self.params_ = fitted[0] if binary else tuple(fitted)
        return self

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Scores before the link: (n_rows,), for several classes (n_rows, n_classes)."""
        return self._scores(X)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities (n_rows, n_classes) in the order of classes_; of several classes scaled to sum to 1."""
        scores = self._scores(X).astype(np.float64)
        # exp of a non-positive number only
        e = np.exp(-np.abs(scores))
        share = np.where(scores >= 0, 1, e) / (1 + e)
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
