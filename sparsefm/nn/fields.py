"""The factorization machines that know which field a feature is of, as layers."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import ops
from ..model import Family, FMParams
from ..ops import composed
from ..validation import check_positive
from .data import CSRBatch
from .modules import Machine, as_tensor, is_distributed

__all__ = ["FieldAwareFM", "FieldWeightedFM"]


class _OfFields(Machine):
    fields: Tensor

    def _set_fields(self, fields: NDArray[np.int32], n_fields: int, device: Any = None) -> None:
        self.register_buffer("fields", torch.tensor(fields, device=device))
        self.n_fields = n_fields

    def _family(self, kind: str) -> Family:
        return Family(kind, fields=self.fields.numpy().copy(), n_fields=self.n_fields)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n_fields={self.n_fields}"


class FieldAwareFM(_OfFields):
    """Field-aware factorization machine (Juan et al., RecSys 2016): a vector for each field that a feature meets.

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j[field of l], v_l[field of j]⟩ x_j x_l

    Parameters
    ----------
    n_features, n_factors : int
        Length of an input row, and of one of a feature's vectors.
    fields : (n_features,) of integers
        The field of each feature, numbers from 0: the `fields_` of a FrameEncoder.
    sparse_grad, init_std, device, dtype
        As in `FactorizationMachine`.

    Attributes
    ----------
    bias, linear
        As in `FactorizationMachine`.
    factors : nn.Embedding (n_features, n_fields · n_factors)
        A feature's vector for field 0 first.
    fields : (n_features,) int32, a buffer
    n_fields : int

    Examples
    --------
    >>> ffm = FieldAwareFM(3, 4, fields=[0, 0, 1])
    >>> ffm(CSRBatch.from_csr([[0, 2.5, 0], [1, 0, 3]])).shape
    torch.Size([2])
    """

    _KINDS = ("ffm",)

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        fields: Any,
        *,
        sparse_grad: bool = True,
        init_std: float = 0.01,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        numbers, n_fields = _checked_fields(fields, n_features)
        super().__init__(
            n_features,
            n_factors,
            blocks=n_fields,
            sparse_grad=sparse_grad,
            init_std=init_std,
            device=device,
            dtype=dtype,
        )
        self._set_fields(numbers, n_fields, device)
        self.reset_parameters()

    @property
    def _orders(self) -> list[int]:
        return [2] * self.n_fields

    def _score(self, rows: CSRBatch, sparse_grad: bool) -> Tensor:
        indptr, indices, data, _ = rows
        w0, w, V, fields, n_fields = self.bias, self.linear.weight, self.factors.weight, self.fields, self.n_fields
        if is_distributed(V):
            entries = (self.linear(indices), self.factors(indices), fields.index_select(0, indices))
            return composed.field_aware(indptr, data, w0, *entries, n_fields)
        return ops.field_aware(indptr, indices, data, w0, w, V, fields, n_fields=n_fields, sparse_grad=sparse_grad)

    def _member(self, copy: bool) -> tuple[Family, None]:
        return self._family("ffm"), None

    @classmethod
    def _of_family(cls, params: FMParams, copy: bool) -> Self:
        layer = cls(1, 1, [0])
        layer._set_fields(_fields_of(params), params.family.n_fields)
        return layer


class FieldWeightedFM(_OfFields):
    """Field-weighted factorization machine (Pan et al., WWW 2018): a number for each pair of fields.

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} r[field of j, field of l] ⟨v_j, v_l⟩ x_j x_l

    Parameters
    ----------
    n_features, n_factors : int
        Length of an input row, and of a feature's factor vector.
    fields : (n_features,) of integers
        The field of each feature, numbers from 0: the `fields_` of a FrameEncoder.
    sparse_grad, init_std, device, dtype
        As in `FactorizationMachine`.

    Attributes
    ----------
    bias, linear, factors
        As in `FactorizationMachine`.
    field_weights : Parameter (n_fields, n_fields)
        Begins with ones, which are the factorization machine. Its symmetric part is r, and its gradient is symmetric.
    fields : (n_features,) int32, a buffer
    n_fields : int

    Examples
    --------
    >>> fwfm = FieldWeightedFM(3, 4, fields=[0, 0, 1])
    >>> fwfm(CSRBatch.from_csr([[0, 2.5, 0], [1, 0, 3]])).shape
    torch.Size([2])
    """

    _KINDS = ("fwfm",)

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        fields: Any,
        *,
        sparse_grad: bool = True,
        init_std: float = 0.01,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        numbers, n_fields = _checked_fields(fields, n_features)
        super().__init__(
            n_features, n_factors, blocks=1, sparse_grad=sparse_grad, init_std=init_std, device=device, dtype=dtype
        )
        self._set_fields(numbers, n_fields, device)
        self.field_weights = nn.Parameter(torch.empty((n_fields, n_fields), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new factors, and sets the rest to what it begins with."""
        super().reset_parameters()
        nn.init.ones_(self.field_weights)

    @property
    def _orders(self) -> list[int]:
        return [2]

    def _score(self, rows: CSRBatch, sparse_grad: bool) -> Tensor:
        indptr, indices, data, _ = rows
        w0, w, V, fields, r = self.bias, self.linear.weight, self.factors.weight, self.fields, self.field_weights
        if is_distributed(V):
            entries = (self.linear(indices), self.factors(indices), fields.index_select(0, indices))
            return composed.field_weighted(indptr, data, w0, *entries, r)
        return ops.field_weighted(indptr, indices, data, w0, w, V, fields, r, sparse_grad=sparse_grad)

    def _member(self, copy: bool) -> tuple[Family, NDArray[Any]]:
        r = self.field_weights.detach()
        if not torch.equal(r, r.t()):
            r = (r + r.t()) / 2
        return self._family("fwfm"), (r.clone() if copy else r).numpy()

    @classmethod
    def _of_family(cls, params: FMParams, copy: bool) -> Self:
        assert params.field_weights is not None
        layer = cls(1, 1, [0])
        layer._set_fields(_fields_of(params), params.family.n_fields)
        layer.field_weights = nn.Parameter(as_tensor(params.field_weights, copy))
        return layer


def _checked_fields(fields: Any, n_features: int) -> tuple[NDArray[np.int32], int]:
    """The fields as numbers, and how many there are."""
    check_positive(n_features, "n_features", integer=True)
    numbers = np.asarray(fields.cpu() if isinstance(fields, Tensor) else fields)
    if numbers.shape != (n_features,) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"fields must be one integer for each of the {n_features} features; got shape {numbers.shape} of "
            f"{numbers.dtype}"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= np.iinfo(np.int32).max:
        raise ValueError(f"fields must be numbers from 0 on, and fit int32; got {low} to {high}")
    return numbers.astype(np.int32), high + 1


def _fields_of(params: FMParams) -> NDArray[np.int32]:
    fields = params.family.fields
    assert fields is not None
    return fields
