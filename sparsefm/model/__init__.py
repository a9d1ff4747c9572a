"""The NumPy face of the equation: parameters, scores, gradients, and the two sides of a recommendation.

    score(x) = w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l        Rendle, Factorization Machines, ICDM 2010

and what the other members of the `Family` put in the place of the last sum.
"""

from .params import PAIRS, Family, FMParams, aligned_zeros, fill, init
from .passes import Gradient, Posterior, gradient, score
from .sides import represent

__all__ = [
    "PAIRS",
    "FMParams",
    "Family",
    "Gradient",
    "Posterior",
    "aligned_zeros",
    "fill",
    "gradient",
    "init",
    "represent",
    "score",
]
