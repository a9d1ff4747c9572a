"""Machines that know the fields of their columns: field-aware and field-weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fm import FMClassifier, FMRegressor

__all__ = ["FFMClassifier", "FFMRegressor", "FwFMClassifier", "FwFMRegressor"]


class FFMRegressor(FMRegressor):
    """Field-aware factorization machine for a real target (Juan, Zhuang, Chin & Lin, RecSys 2016).

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j[field of l], v_l[field of j]⟩ x_j x_l

    A feature has a vector for each field that it may meet, so that a row of n non-zeros costs
    O(n · n_fields · n_factors) and few factors do. The objective is FMRegressor's, with ‖v_j‖² over all vectors of a
    feature.

    Parameters
    ----------
    n_factors : int
        Length of each of a feature's vectors.
    normalize : bool
        Rows are scaled to length 1 before they are scored (libFFM's instance-wise normalisation). A score then has no
        user's and item's part: `recommend` refuses it.
    encoder : FrameEncoder, optional
        Whose columns of the frame are the fields.
    fields : (n_features,) int, optional
        The field of each column of a matrix, from 0 on; without them each column is a field of its own (up to 1000).

    Notes
    -----
    The others are FMRegressor's, but order and share_factors; the solver is one of gradients and trains sample after
    sample.

    Attributes
    ----------
    factors_ : (n_features, n_fields · n_factors)
    fields_ : (n_features,) int32

    Notes
    -----
    The others are FMRegressor's.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FFMRegressor
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> model = FFMRegressor(2, fields=[0, 0, 1, 1], random_state=0).fit(X, [1.0, 0.0, 0.0, 1.0] * 25)
    >>> model.factors_.shape
    (4, 4)
    """

    _KIND = "ffm"

    def __init__(
        self,
        n_factors: int = 4,
        *,
        normalize: bool = False,
        loss: str = "squared",
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
        super().__init__(
            n_factors,
            loss=loss,
            solver=solver,
            l2_linear=l2_linear,
            l2_factors=l2_factors,
            l2_prior=l2_prior,
            init_std=init_std,
            quantile=quantile,
            delta=delta,
            encoder=encoder,
            fields=fields,
            clip=clip,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            eval_metric=eval_metric,
            callbacks=callbacks,
            n_threads=n_threads,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.normalize = normalize


class FFMClassifier(FMClassifier):
    """Field-aware factorization machine for classes (Juan et al., RecSys 2016): FFMRegressor's score, FMClassifier's
    objective and options.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FFMClassifier
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> FFMClassifier(2, fields=[0, 0, 1, 1], random_state=0).fit(X, ["same", "other", "other", "same"] * 25).n_iter_
    15
    """

    _KIND = "ffm"

    def __init__(
        self,
        n_factors: int = 4,
        *,
        normalize: bool = False,
        loss: str | None = None,
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
        super().__init__(
            n_factors,
            loss=loss,
            solver=solver,
            l2_linear=l2_linear,
            l2_factors=l2_factors,
            l2_prior=l2_prior,
            init_std=init_std,
            encoder=encoder,
            fields=fields,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            eval_metric=eval_metric,
            callbacks=callbacks,
            n_threads=n_threads,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.normalize = normalize


class FwFMRegressor(FMRegressor):
    """Field-weighted factorization machine for a real target (Pan et al., WWW 2018).

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} r[field of j, field of l] ⟨v_j, v_l⟩ x_j x_l

    One vector a feature and a number r for each pair of fields, which begins at one and is learned: as small as a
    factorization machine, nearly as apt as a field-aware one where fields differ in how they interact. r is drawn to
    one by a tenth of l2_factors.

    Parameters
    ----------
    encoder, fields
        As for FFMRegressor.

    Notes
    -----
    The others are FMRegressor's, but order and share_factors; the solver is one of gradients and trains sample after
    sample.

    Attributes
    ----------
    field_weights_ : (n_fields, n_fields)
        r, symmetric; on the diagonal of pairs within a field.
    fields_ : (n_features,) int32

    Notes
    -----
    The others are FMRegressor's.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FwFMRegressor
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> model = FwFMRegressor(2, fields=[0, 0, 1, 1], random_state=0).fit(X, [1.0, 0.0, 0.0, 1.0] * 25)
    >>> model.field_weights_.shape
    (2, 2)
    """

    _KIND = "fwfm"

    def __init__(
        self,
        n_factors: int = 16,
        *,
        loss: str = "squared",
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
        super().__init__(
            n_factors,
            loss=loss,
            solver=solver,
            l2_linear=l2_linear,
            l2_factors=l2_factors,
            l2_prior=l2_prior,
            init_std=init_std,
            quantile=quantile,
            delta=delta,
            encoder=encoder,
            fields=fields,
            clip=clip,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            eval_metric=eval_metric,
            callbacks=callbacks,
            n_threads=n_threads,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
        )

    @property
    def field_weights_(self) -> NDArray[Any]:
        """(n_fields, n_fields)."""
        return _field_weights(self)


class FwFMClassifier(FMClassifier):
    """Field-weighted factorization machine for classes (Pan et al., WWW 2018): FwFMRegressor's score, FMClassifier's
    objective and options.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FwFMClassifier
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> FwFMClassifier(2, fields=[0, 0, 1, 1], random_state=0).fit(X, ["same", "other", "other", "same"] * 25).n_iter_
    15
    """

    _KIND = "fwfm"

    def __init__(
        self,
        n_factors: int = 16,
        *,
        loss: str | None = None,
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
        super().__init__(
            n_factors,
            loss=loss,
            solver=solver,
            l2_linear=l2_linear,
            l2_factors=l2_factors,
            l2_prior=l2_prior,
            init_std=init_std,
            encoder=encoder,
            fields=fields,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            eval_metric=eval_metric,
            callbacks=callbacks,
            n_threads=n_threads,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
        )

    @property
    def field_weights_(self) -> NDArray[Any]:
        """(n_fields, n_fields), for several classes (n_classes, n_fields, n_fields)."""
        return _field_weights(self)


def _field_weights(model: Any) -> NDArray[Any]:
    if isinstance(model.params_, tuple):
        return np.stack([params.field_weights for params in model.params_])
    return np.asarray(model.params_.field_weights)
