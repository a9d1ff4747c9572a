"""The units a target is trained in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..model import Family, FMParams, Posterior

__all__ = ["Units"]


@dataclass(frozen=True)
class Units:
    """Training sees (y − centre) / scale, which makes its steps independent of where y lies and how far it spreads.

    With a loss that grows as the power-th power of the residual, the same objective in these units has the weights
    divided by scale, the factors by its root, and penalties as the properties say.
    """

    centre: float = 0.0
    scale: float = 1.0
    power: int = 2

    @property
    def loss(self) -> float:
        """What a loss is multiplied by to be in the target's own units."""
        return self.scale**self.power

    @property
    def l2_linear(self) -> float:
        return self.scale ** (2 - self.power)

    @property
    def l2_factors(self) -> float:
        return self.scale ** (1 - self.power)

    def roots(self, family: Family, n_factors: int) -> Any:
        """What the factors are divided by: each number of a feature's by the root of the order it has a part in."""
        return np.repeat([self.scale ** (1 / order) for order in family.orders], n_factors)

    def l2_of_blocks(self, family: Family) -> tuple[float, ...]:
        """What `l2_factors` is to be multiplied by for each vector of a feature."""
        return tuple(self.scale ** (2 / order - 1) for order in family.orders)

    def into(self, params: FMParams, dtype: Any) -> FMParams:
        """Parameters in the target's own units as training sees them: a copy."""
        w, V = params.w / self.scale, params.V / self.roots(params.family, params.n_factors)
        r = None if params.field_weights is None else params.field_weights.astype(dtype)
        w0 = (params.w0 - self.centre) / self.scale
        return replace(params, w0=w0, w=w.astype(dtype), V=V.astype(dtype), field_weights=r)

    def out_of(self, found: FMParams | Posterior) -> FMParams | Posterior:
        """What training found in the target's own units; its arrays are used up."""
        scale, root = self.scale, np.sqrt(self.scale)
        if scale != 1:
            V, w = found.V, found.w
            V *= self.roots(found.family, found.n_factors).astype(V.dtype) if isinstance(found, FMParams) else root
            w *= w.dtype.type(scale)
        if isinstance(found, FMParams):
            return replace(found, w0=self.centre + scale * found.w0)
        each = np.append(np.full(found.mean.shape[-1] - 1, root), scale)
        return replace(
            found,
            w0=self.centre + scale * found.w0,
            deviation=found.deviation * scale,
            mean=found.mean * each,
            precision=found.precision / each**2,
        )
