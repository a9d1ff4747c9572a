"""Parameters of a machine, and which machine they are of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import adaptive, family

__all__ = ["PAIRS", "FMParams", "Family", "aligned_zeros", "fill", "init"]

_LINE = 64  # bytes of a cache line


@dataclass(frozen=True, eq=False)
class Family:
    """How the features of a row meet in its score; z_j = x_j v_j.

    Attributes
    ----------
    kind : "fm", "anova", "ffm" or "fwfm"
        Σ_{j<l} ⟨z_j, z_l⟩; the same over all sets of 2 to `order` features (Blondel et al., NIPS 2016); with a vector
        for each field a feature meets, Σ_{j<l} ⟨z_j[field of l], z_l[field of j]⟩ (Juan et al., RecSys 2016); with a
        number for each pair of fields, Σ_{j<l} r[field of j, field of l] ⟨z_j, z_l⟩ (Pan et al., WWW 2018).
    order : int
        Of "anova".
    shared : bool
        Whether one vector a feature serves all orders; else each order has its own, that of order 2 first.
    fields : (n_features,) int32, of "ffm" and "fwfm"
    n_fields : int
    """

    kind: str = "fm"
    order: int = 2
    shared: bool = False
    fields: NDArray[np.int32] | None = None
    n_fields: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("fm", *family.KINDS):
            raise ValueError(f"kind must be 'fm', 'anova', 'ffm' or 'fwfm', got {self.kind!r}")
        if self.kind == "anova" and not 2 <= self.order <= family.HIGHEST_ORDER:
            raise ValueError(f"order must be 2 to {family.HIGHEST_ORDER}, got {self.order}")
        if self.of_fields:
            fields = self.fields
            if fields is None or fields.ndim != 1 or fields.dtype != np.int32 or not fields.flags.c_contiguous:
                raise ValueError(f"{self.kind!r} needs fields, a contiguous (n_features,) int32 array, got {fields!r}")
            if fields.min(initial=0) < 0 or fields.max(initial=-1) >= self.n_fields:
                raise ValueError(
                    f"fields must be numbers from 0 to {self.n_fields - 1}, got {fields.min()} to {fields.max()}"
                )

    @property
    def of_fields(self) -> bool:
        return self.kind in ("ffm", "fwfm")

    @property
    def blocks(self) -> int:
        """How many vectors a feature has."""
        if self.kind == "ffm":
            return self.n_fields
        return self.order - 1 if self.kind == "anova" and not self.shared else 1

    @property
    def orders(self) -> list[int]:
        """Of each of a feature's vectors the order it is of; 2 where it is of several."""
        own = self.kind == "anova" and not self.shared
        return [2 + block if own else 2 for block in range(self.blocks)]

    def check_columns(self, n_features: int) -> None:
        if self.fields is not None and len(self.fields) != n_features:
            raise ValueError(f"there are fields of {len(self.fields)} columns, but {n_features} columns")


PAIRS = Family()


@dataclass(frozen=True, eq=False)
class FMParams:
    """Parameters of a factorization machine, of second order unless `family` says something else.

    Attributes
    ----------
    w0 : float
        Bias.
    w : (n_features,) float32 or float64
        Linear weights.
    V : (n_features, family.blocks · n_factors), of the same type
        Factors; n_factors may be 0, which leaves the linear model.
    family : Family
    field_weights : (n_fields, n_fields), of the same type, symmetric; of "fwfm"
    """

    w0: float
    w: NDArray[Any]
    V: NDArray[Any]
    family: Family = PAIRS
    field_weights: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        w, V = self.w, self.V
        if not (isinstance(w, np.ndarray) and isinstance(V, np.ndarray)):
            raise TypeError(f"w and V must be NumPy arrays, got {type(w).__name__} and {type(V).__name__}")
        if w.ndim != 1 or V.ndim != 2 or len(w) != len(V):
            raise ValueError(
                f"w must be (n_features,) and V (n_features, n_factors); got shapes {w.shape} and {V.shape}"
            )
        if w.dtype != V.dtype or w.dtype not in (np.float32, np.float64):
            raise ValueError(f"w and V must both be float32 or both float64; got {w.dtype} and {V.dtype}")
        if V.size and (V.strides[1] != V.itemsize or (len(V) > 1 and V.strides[0] < V.shape[1] * V.itemsize)):
            raise ValueError("the factors of one feature must lie side by side: pass np.ascontiguousarray(V)")
        if w.strides[0] % w.itemsize or V.strides[0] % V.itemsize:
            raise ValueError("w and V must not be parts of packed records: pass np.ascontiguousarray of each")
        self.family.check_columns(len(w))
        blocks = self.family.blocks
        if blocks == 0 or V.shape[1] % blocks:
            raise ValueError(f"{self.family.kind!r} has {blocks} vectors a feature, V {V.shape[1]} columns")
        r, n = self.field_weights, self.family.n_fields
        if (r is None) == (self.family.kind == "fwfm"):
            raise ValueError(f"field_weights is for 'fwfm', which needs it; the kind is {self.family.kind!r}")
        if r is not None and (
            not isinstance(r, np.ndarray) or r.shape != (n, n) or r.dtype != w.dtype or not np.array_equal(r, r.T)
        ):
            raise ValueError(f"field_weights must be a symmetric ({n}, {n}) array of {w.dtype}")

    @property
    def n_features(self) -> int:
        return len(self.w)

    @property
    def n_factors(self) -> int:
        return int(self.V.shape[1]) // self.family.blocks

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.w.dtype

    def grow(self, n_features: int, *, start: Any = None, fields: Any = None) -> FMParams:
        """A copy with columns appended: n_features in all, those that are here in their places.

        start: (n_features,) int, for each new column the present one whose weight and factors it begins with, -1
        for zeros; what it says of present columns is ignored. With `FrameEncoder.buckets_` a level that was
        unknown until now begins as the unknown ones are scored, so that growing changes no prediction.
        fields: (n_features,) int, where the family has them.

        >>> params = FMParams(0.5, np.array([1.0, 2.0]), np.array([[3.0], [4.0]]))
        >>> params.grow(4, start=[-1, -1, 0, -1]).w
        array([1., 2., 1., 0.])
        """
        present = self.n_features
        if n_features < present:
            raise ValueError(f"n_features must be at least the {present} there are, got {n_features}")
        rows = np.full(n_features, -1) if start is None else np.asarray(start)
        if rows.shape != (n_features,) or rows.dtype.kind not in "iu":
            raise ValueError(f"start must hold {n_features} integers, got shape {rows.shape} of {rows.dtype}")
        rows = rows[present:]
        if ((rows < -1) | (rows >= present)).any():
            raise ValueError(
                f"start must name present columns, 0 to {present - 1}, or -1, got {rows.min()} to {rows.max()}"
            )
        grown = self.family
        if grown.of_fields:
            if fields is None:
                raise ValueError(f"{grown.kind!r} needs to know the fields of the new columns: give fields")
            grown = replace(grown, fields=np.ascontiguousarray(fields, np.int32))
        w, V = np.zeros(n_features, self.dtype), aligned_zeros((n_features, self.V.shape[1]), self.dtype)
        w[:present], V[:present] = self.w, self.V
        copied = np.flatnonzero(rows >= 0)
        w[present + copied], V[present + copied] = self.w[rows[copied]], self.V[rows[copied]]
        return replace(self, w=w, V=V, family=grown)


def aligned_zeros(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """Zeros whose first row begins on a cache line; untouched pages of a large array cost no memory."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    block = np.zeros(size + _LINE, dtype=np.uint8)
    offset = -block.ctypes.data % _LINE
    table: NDArray[Any] = block[offset : offset + size].view(dtype).reshape(shape)
    return table


def init(
    n_features: int,
    n_factors: int,
    *,
    init_std: float = 0.01,
    seed: int = 0,
    features: NDArray[Any] | None = None,
    dtype: Any = np.float32,
    family: Family = PAIRS,
) -> FMParams:
    """Starting parameters: zeros, field weights of one, and uniform factors of mean 0 and standard deviation init_std,
    those of order t of init_std^(1 / (t − 1)), so that the first gradients of all orders are of one size.

    The factor at (feature, factor) is a function of those two and the seed alone, so a feature starts alike
    whichever others there are. With `features` (integers) only those get factors; the rest score zero.
    """
    V = aligned_zeros((n_features, family.blocks * n_factors), dtype)
    if features is None:
        features = np.arange(n_features, dtype=np.int64)
    fill(V, n_factors, features, family, init_std, seed)
    field_weights = np.ones((family.n_fields,) * 2, dtype) if family.kind == "fwfm" else None
    return FMParams(0.0, np.zeros(n_features, dtype=dtype), V, family, field_weights)


def fill(
    table: NDArray[Any],
    n_factors: int,
    features: NDArray[Any],
    family: Family,
    init_std: float,
    seed: int,
    scale: float = 1.0,
    half: bool = False,
) -> None:
    """Gives some rows of a table their starting factors, `scale` times those of `init`; half: as bfloat16."""
    for block, order in enumerate(family.orders):
        std = init_std ** (1 / (order - 1)) * scale
        adaptive.fill_uniform(table, block * n_factors, n_factors, features, std, seed, half)
