"""The factorization machine as a layer: in the middle of a network, or on sparse rows."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import ops
from .._kernels.family import HIGHEST_ORDER
from ..model import PAIRS, Family, FMParams
from ..ops import composed
from ..ops.dense import converted
from ..validation import check_positive
from .data import CSRBatch

__all__ = ["FactorizationMachine", "Machine", "as_tensor", "is_distributed"]

_TAKEN_BY = {
    "fm": "FactorizationMachine",
    "anova": "FactorizationMachine",
    "ffm": "FieldAwareFM",
    "fwfm": "FieldWeightedFM",
}


class Machine(nn.Module):
    """What the members of the family share: a bias and two tables, ways in, and arrays in common with the NumPy wing.

    A member says which parameters are of its kind (`_KINDS`), of what order each of a feature's vectors is (`_orders`),
    how sparse rows are scored (`_score`), what the NumPy wing calls it (`_member`), and makes a small layer of the kind
    of given parameters (`_of_family`).
    """

    _KINDS: tuple[str, ...]

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        *,
        blocks: int,
        sparse_grad: bool,
        init_std: float,
        device: Any,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_positive(n_features, "n_features", integer=True)
        check_positive(n_factors, "n_factors", integer=True)
        check_positive(init_std, "init_std", zero=True)
        self.init_std = init_std
        kind = {"device": device, "dtype": dtype}
        self.bias = nn.Parameter(torch.empty((), **kind))
        self.linear = _table(torch.empty((n_features, 1), **kind), sparse_grad)
        self.factors = _table(torch.empty((n_features, blocks * n_factors), **kind), sparse_grad)

    @property
    def _orders(self) -> list[int]:
        raise NotImplementedError

    def _score(self, rows: CSRBatch, sparse_grad: bool) -> Tensor:
        raise NotImplementedError

    def _member(self, copy: bool) -> tuple[Family, NDArray[Any] | None]:
        """The family of the parameters, and the field weights if it has some."""
        raise NotImplementedError

    @classmethod
    def _of_family(cls, params: FMParams, copy: bool) -> Self:
        raise NotImplementedError

    @property
    def n_features(self) -> int:
        return self.factors.num_embeddings

    @property
    def n_factors(self) -> int:
        return self.factors.embedding_dim // max(1, len(self._orders))

    @property
    def sparse_grad(self) -> bool:
        return self.factors.sparse

    def reset_parameters(self) -> None:
        """Draws new factors, and sets the rest to what it begins with."""
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.linear.weight)
        table, k = self.factors.weight.detach(), self.n_factors
        for block, order in enumerate(self._orders):
            nn.init.normal_(table[:, block * k : (block + 1) * k], std=self.init_std ** (1 / (order - 1)))

    def forward(self, x: Tensor | CSRBatch) -> Tensor:
        """Scores, without any link function.

        Parameters
        ----------
        x : Tensor (…, n_features), torch sparse CSR tensor (n_rows, n_features), or CSRBatch

        Returns
        -------
        Tensor (…) or (n_rows,)
            One number a row. For losses that want a column, `.unsqueeze(-1)`.

        Raises
        ------
        ValueError
            For another number of columns, an index outside the columns, or arrays that are no CSR rows.
        TypeError
            For any other input.
        """
        rows = self._rows_of(x)
        return self._score_dense(rows) if isinstance(rows, Tensor) else self._score(rows, self.sparse_grad)

    def _score_dense(self, x: Tensor) -> Tensor:
        """By sparse rows that have every column."""
        shape, m = x.shape[:-1], self.n_features
        x = converted(x, self.factors.weight).reshape(-1, m)
        n_rows = x.shape[0]
        indptr = torch.arange(n_rows + 1, device=x.device) * m
        indices = torch.arange(m, device=x.device).repeat(n_rows)
        return self._score(CSRBatch(indptr, indices, x.reshape(-1), m), False).reshape(shape)

    def _rows_of(self, x: Any) -> Tensor | CSRBatch:
        """A dense tensor as it is, sparse input as a CSRBatch; refuses the rest."""
        if isinstance(x, CSRBatch):
            rows = x
        elif not isinstance(x, Tensor):
            raise TypeError(
                f"input must be a tensor or a CSRBatch, got {type(x).__name__}; "
                "CSRBatch.from_csr(x) takes scipy matrices, arrays and frames of numbers"
            )
        elif x.layout == torch.strided:
            return x
        elif x.layout == torch.sparse_csr and x.dim() == 2:
            rows = CSRBatch(x.crow_indices(), x.col_indices(), x.values(), x.shape[1])
        else:
            raise TypeError(f"sparse input must be two-dimensional and CSR, got {x.dim()} dimensions and {x.layout}")
        if rows.n_features != self.n_features:
            raise ValueError(
                f"the input has {rows.n_features} columns, but this layer has {self.n_features} features: "
                "encode it with the encoder, or build it with the columns, that the layer was made for"
            )
        return rows

    @classmethod
    def from_params(cls, params: FMParams, *, copy: bool = False, sparse_grad: bool = True) -> Self:
        """A layer on the arrays of fitted parameters, for example an estimator's `params_`.

        Parameters
        ----------
        params : FMParams
        copy : bool
            False: `linear` and `factors` are the same memory as params.w and params.V, so training the one changes the
            other; so are field weights. The bias is a number and always copied, and so are fields.
        sparse_grad : bool

        Raises
        ------
        ValueError
            For read-only arrays that are to be shared, and for parameters of another member of the family.
        """
        kind = params.family.kind
        if kind not in cls._KINDS:
            raise ValueError(f"the parameters are of kind {kind!r}: {_TAKEN_BY[kind]}.from_params takes them")
        shared = [each for each in (params.w, params.V, params.field_weights) if each is not None]
        if not copy and not all(each.flags.writeable for each in shared):
            raise ValueError("the parameters are read-only and cannot be shared with a layer: pass copy=True")
        linear, factors = as_tensor(params.w[:, None], copy), as_tensor(params.V, copy)
        layer = cls._of_family(params, copy)
        layer.bias = nn.Parameter(torch.tensor(params.w0, dtype=factors.dtype))
        layer.linear, layer.factors = _table(linear, sparse_grad), _table(factors, sparse_grad)
        return layer

    def to_params(self, *, copy: bool = False) -> FMParams:
        """The parameters for the NumPy wing (`model.score`, `model.represent`, `recommend.top_k`).

        With copy=False they are the layer's own memory.

        Raises
        ------
        ValueError
            For parameters that are not float32 or float64 on the CPU.
        """
        weight = self.factors.weight
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the parameters are {weight.dtype} on {weight.device}, NumPy takes float32 and float64 on the CPU: "
                "call .cpu().float() first"
            )
        w, V = self.linear.weight.detach()[:, 0], weight.detach()
        w, V = (w.clone(), V.clone()) if copy else (w, V)
        return FMParams(self.bias.item(), w.numpy(), V.numpy(), *self._member(copy))

    def extra_repr(self) -> str:
        return f"{self.n_features}, {self.n_factors}, sparse_grad={self.sparse_grad}"


class FactorizationMachine(Machine):
    """Factorization machine, of second order (Rendle, ICDM 2010) unless `order` says something else.

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l + sets of three, four, … features

    Parameters
    ----------
    n_features : int
        Length of an input row.
    n_factors : int
        Length of a feature's factor vector.
    order : int
        How many features meet at most: 1 is the linear model, 3 to 12 add sets of three and more with factors of their
        own for each size, Σ_{t=3..order} Σ_f Σ_{j1<…<jt} Π v_{j f} x_j (Blondel et al., NIPS 2016).
    share_factors : bool
        Whether the sets of all sizes have the factors of the pairs.
    sparse_grad : bool
        Whether sparse input gives `linear` and `factors` row-sparse gradients, so that a step costs what the batch
        touches and not what the tables hold. `AdaGrad` and `LazyAdam` beside it take them, and SGD,
        Adagrad and SparseAdam of torch.optim; torch's others, its weight decay and gradient clipping refuse them: use
        sparse_grad=False there. Dense input always gives dense gradients.
    init_std : float
        Standard deviation of the normal distribution the factors are drawn from (torch's generator: torch.manual_seed),
        init_std^(1 / (t − 1)) for those of sets of t; `bias` and `linear` begin at zero.
    device, dtype : optional
        Of the parameters, as in every torch module.

    Attributes
    ----------
    bias : Parameter ()
    linear : nn.Embedding (n_features, 1)
    factors : nn.Embedding (n_features, n_factors), or (n_features, (order − 1) · n_factors), those of pairs first
        Tables as torch knows them, so that what works on embeddings (DistributedDataParallel with sparse gradients,
        DTensor, a lookup of your own) works on these.

    Examples
    --------
    As a layer (here a batch of 8 rows of 100 numbers becomes 8 scores):

    >>> network = nn.Sequential(nn.Linear(100, 50), nn.Dropout(), FactorizationMachine(50, 5))
    >>> network(torch.randn(8, 100)).shape
    torch.Size([8])

    On sparse rows:

    >>> fm = FactorizationMachine(3, 4)
    >>> fm(CSRBatch.from_csr([[0, 2.5, 0], [1, 0, 3]])).shape
    torch.Size([2])
    """

    _KINDS = ("fm", "anova")

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        *,
        order: int = 2,
        share_factors: bool = False,
        sparse_grad: bool = True,
        init_std: float = 0.01,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_positive(order, "order", integer=True)
        if order > HIGHEST_ORDER:
            raise ValueError(f"order must be at most {HIGHEST_ORDER}, got {order}")
        orders = _orders_of(order, share_factors)
        super().__init__(
            n_features,
            n_factors,
            blocks=len(orders),
            sparse_grad=sparse_grad,
            init_std=init_std,
            device=device,
            dtype=dtype,
        )
        self.order, self.share_factors = int(order), share_factors
        self.reset_parameters()

    @property
    def _orders(self) -> list[int]:
        return _orders_of(self.order, self.share_factors)

    def _score_dense(self, x: Tensor) -> Tensor:
        if self.order > 2:
            return super()._score_dense(x)
        return ops.fm_dense(x, self.bias, self.linear.weight, self.factors.weight)

    def _score(self, rows: CSRBatch, sparse_grad: bool) -> Tensor:
        indptr, indices, data, _ = rows
        parameters = (self.bias, self.linear.weight, self.factors.weight)
        if is_distributed(self.factors.weight):
            entries = (indptr, data, self.bias, self.linear(indices), self.factors(indices))
            return (
                composed.anova(*entries, self.order, self.share_factors) if self.order > 2 else composed.score(*entries)
            )
        if self.order > 2:
            shared = self.share_factors
            return ops.anova(
                indptr, indices, data, *parameters, order=self.order, shared=shared, sparse_grad=sparse_grad
            )
        return ops.fm(indptr, indices, data, *parameters, sparse_grad=sparse_grad)

    def bi_interaction(self, x: Tensor | CSRBatch) -> Tensor:
        """Pairs by factor, (…, n_factors) or (n_rows, n_factors): the vector whose sum is the score's interaction part
        (He & Chua, Neural Factorization Machines, SIGIR 2017). Input and errors as in `forward`; of order 2."""
        if self.order > 2:
            raise ValueError(
                f"bi_interaction is of pairs, this layer is of order {self.order}: use one of order 2 beside it"
            )
        rows = self._rows_of(x)
        if isinstance(rows, Tensor):
            return ops.bi_interaction_dense(rows, self.factors.weight)
        indptr, indices, data, _ = rows
        if is_distributed(self.factors.weight):
            return composed.pairs(indptr, data, self.factors(indices))
        return ops.bi_interaction(indptr, indices, data, self.factors.weight, sparse_grad=self.sparse_grad)

    def _member(self, copy: bool) -> tuple[Family, None]:
        return (Family("anova", self.order, self.share_factors) if self.order > 2 else PAIRS), None

    @classmethod
    def _of_family(cls, params: FMParams, copy: bool) -> Self:
        return cls(1, 1, order=params.family.order, share_factors=params.family.shared)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", order={self.order}" if self.order != 2 else "")


def _orders_of(order: int, shared: bool) -> list[int]:
    """Of each of a feature's vectors the order it is of; 2 where it is of several."""
    return [2] if shared and order > 2 else list(range(2, order + 1))


def as_tensor(array: NDArray[Any], copy: bool) -> Tensor:
    return torch.tensor(array) if copy else torch.from_numpy(array)


def _table(weight: Tensor, sparse_grad: bool) -> nn.Embedding:
    return nn.Embedding(weight.shape[0], weight.shape[1], sparse=sparse_grad, _weight=weight)


def is_distributed(weight: Tensor) -> bool:
    """Whether the table is a DTensor, parts of which lie in other processes; asked without importing those."""
    return hasattr(weight, "device_mesh")
