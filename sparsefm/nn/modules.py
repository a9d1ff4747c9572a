"""The factorization machine as a layer: in the middle of a network, or on sparse rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..model import FMParams
from ..ops import composed
from ..validation import check_positive
from .data import CSRBatch

__all__ = ["FactorizationMachine"]


class FactorizationMachine(nn.Module):
    """Second-order factorization machine (Rendle, ICDM 2010).

        score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l

    Parameters
    ----------
    n_features : int
        Length of an input row.
    n_factors : int
        Length of a feature's factor vector.
    sparse_grad : bool
        Whether sparse input gives `linear` and `factors` row-sparse gradients, so that a step costs what the batch
        touches and not what the tables hold. `AdaGrad` and `LazyAdam` beside it take them, and SGD,
        Adagrad and SparseAdam of torch.optim; torch's others, its weight decay and gradient clipping refuse them: use
        sparse_grad=False there. Dense input always gives dense gradients.
    init_std : float
        Standard deviation of the normal distribution the factors are drawn from (torch's generator: torch.manual_seed);
        `bias` and `linear` begin at zero.
    device, dtype : optional
        Of the parameters, as in every torch module.

    Attributes
    ----------
    bias : Parameter ()
    linear : nn.Embedding (n_features, 1)
    factors : nn.Embedding (n_features, n_factors)
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

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        *,
        sparse_grad: bool = True,
        init_std: float = 0.01,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(n_features, "n_features", integer=True)
        check_positive(n_factors, "n_factors", integer=True)
        check_positive(init_std, "init_std", zero=True)
        self.init_std = init_std
        kind = {"device": device, "dtype": dtype}
        self.bias = nn.Parameter(torch.empty((), **kind))
        self.linear = _table(torch.empty((n_features, 1), **kind), sparse_grad)
        self.factors = _table(torch.empty((n_features, n_factors), **kind), sparse_grad)
        self.reset_parameters()

    @property
    def n_features(self) -> int:
        return self.factors.num_embeddings

    @property
    def n_factors(self) -> int:
        return self.factors.embedding_dim

    @property
    def sparse_grad(self) -> bool:
        return self.factors.sparse

    def reset_parameters(self) -> None:
        """Draws new factors, and sets the rest to zero."""
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.linear.weight)
        nn.init.normal_(self.factors.weight, std=self.init_std)

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
        if isinstance(rows, Tensor):
            return ops.fm_dense(rows, self.bias, self.linear.weight, self.factors.weight)
        indptr, indices, data, _ = rows
        if _is_distributed(self.factors.weight):
            return composed.score(indptr, data, self.bias, self.linear(indices), self.factors(indices))
        return ops.fm(
            indptr, indices, data, self.bias, self.linear.weight, self.factors.weight, sparse_grad=self.sparse_grad
        )

    def bi_interaction(self, x: Tensor | CSRBatch) -> Tensor:
        """Pairs by factor, (…, n_factors) or (n_rows, n_factors): the vector whose sum is the score's interaction part
        (He & Chua, Neural Factorization Machines, SIGIR 2017). Input and errors as in `forward`."""
        rows = self._rows_of(x)
        if isinstance(rows, Tensor):
            return ops.bi_interaction_dense(rows, self.factors.weight)
        indptr, indices, data, _ = rows
        if _is_distributed(self.factors.weight):
            return composed.pairs(indptr, data, self.factors(indices))
        return ops.bi_interaction(indptr, indices, data, self.factors.weight, sparse_grad=self.sparse_grad)

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
    def from_params(cls, params: FMParams, *, copy: bool = False, sparse_grad: bool = True) -> FactorizationMachine:
        """A layer on the arrays of fitted parameters, for example an estimator's `params_`.

        Parameters
        ----------
        params : FMParams
        copy : bool
            False: `linear` and `factors` are the same memory as params.w and params.V, so training the one changes the
            other. The bias is a number and always copied.
        sparse_grad : bool

        Raises
        ------
        ValueError
            For read-only arrays that are to be shared.
        """
        w, V = params.w[:, None], params.V
        if not copy and not (w.flags.writeable and V.flags.writeable):
            raise ValueError("the parameters are read-only and cannot be shared with a layer: pass copy=True")
        linear, factors = (torch.tensor(each) if copy else torch.from_numpy(each) for each in (w, V))
        layer = cls(1, 1)
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
        return FMParams(self.bias.item(), w.numpy(), V.numpy())

    def extra_repr(self) -> str:
        return f"{self.n_features}, {self.n_factors}, sparse_grad={self.sparse_grad}"


def _table(weight: Tensor, sparse_grad: bool) -> nn.Embedding:
    return nn.Embedding(weight.shape[0], weight.shape[1], sparse=sparse_grad, _weight=weight)


def _is_distributed(weight: Tensor) -> bool:
    """Whether the table is a DTensor, parts of which lie in other processes; asked without importing those."""
    return hasattr(weight, "device_mesh")
