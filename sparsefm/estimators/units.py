"""The units a target is trained in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..model import FMParams, Posterior

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

    def into(self, params: FMParams, dtype: Any) -> FMParams:
        """Parameters in the target's own units as training sees them: a copy."""
        w, V = params.w / self.scale, params.V / np.sqrt(self.scale)
        return FMParams((params.w0 - self.centre) / self.scale, w.astype(dtype), V.astype(dtype))

    def out_of(self, found: FMParams | Posterior) -> FMParams | Posterior:
        """What training found in the target's own units; its arrays are used up."""
        scale, root = self.scale, np.sqrt(self.scale)
        if scale != 1:
            V, w = found.V, found.w
            V *= V.dtype.type(root)
            w *= w.dtype.type(scale)
        if isinstance(found, FMParams):
            return FMParams(self.centre + scale * found.w0, found.w, found.V)
        each = np.append(np.full(found.mean.shape[-1] - 1, root), scale)
        return replace(
            found,
            w0=self.centre + scale * found.w0,
            deviation=found.deviation * scale,
            mean=found.mean * each,
            precision=found.precision / each**2,
        )
