"""Brute force in float64, written from the definitions: the judge of the kernels and the solvers.

Rows come as CSR arrays with each column at most once a row; data=None means that every value is one.
Nothing here is clever, and nothing here is imported from the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log1p, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def row(indptr: Any, indices: Any, data: Any, i: int) -> tuple[list[int], list[float]]:
    """Columns and values of row i."""
    start, stop = int(indptr[i]), int(indptr[i + 1])
    columns = [int(j) for j in indices[start:stop]]
    return columns, [1.0] * len(columns) if data is None else [float(x) for x in data[start:stop]]


def score(indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any) -> Floats:
    """w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l, by a double loop over pairs. (n_rows,)"""
    w, V = np.asarray(w, dtype=np.float64), np.asarray(V, dtype=np.float64)
    out = np.zeros(len(indptr) - 1)
    for i in range(len(out)):
        columns, values = row(indptr, indices, data, i)
        total = float(w0)
        for a in range(len(columns)):
            total += w[columns[a]] * values[a]
            for b in range(a + 1, len(columns)):
                total += float(V[columns[a]] @ V[columns[b]]) * values[a] * values[b]
        out[i] = total
    return out


def magnitude(indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any) -> Floats:
    """The sum of the absolute values of all that `score` adds up: what rounding errors are a share of."""
    every = None if data is None else np.abs(data)
    return score(indptr, indices, every, abs(w0), np.abs(w), np.abs(V))


def gradient(
    indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any, d: Any
) -> tuple[float, Floats, Floats, Floats]:
    """Gradient of Σ_i d_i score_i by w0, w (n_features,), V (n_features, n_factors) and data (nnz,):

    ∂/∂w0 = 1    ∂/∂w_j = x_j    ∂/∂v_j = x_j Σ_{l≠j} x_l v_l    ∂/∂x_j = w_j + ⟨v_j, Σ_{l≠j} x_l v_l⟩
    """
    w, V, d = (np.asarray(each, dtype=np.float64) for each in (w, V, d))
    g_w, g_V, g_data = np.zeros(len(w)), np.zeros(V.shape), np.zeros(len(indices))
    for i in range(len(indptr) - 1):
        columns, values = row(indptr, indices, data, i)
        for a in range(len(columns)):
            others = np.zeros(V.shape[1])
            for b in range(len(columns)):
                if b != a:
                    others += values[b] * V[columns[b]]
            g_w[columns[a]] += d[i] * values[a]
            g_V[columns[a]] += d[i] * values[a] * others
            g_data[int(indptr[i]) + a] = d[i] * (w[columns[a]] + float(V[columns[a]] @ others))
    return float(d.sum()), g_w, g_V, g_data


def pairs(indptr: Any, indices: Any, data: Any, V: Any) -> Floats:
    """Σ_{j<l} x_j v_jf x_l v_lf for each factor f, by a double loop over pairs. (n_rows, n_factors)"""
    V = np.asarray(V, dtype=np.float64)
    out = np.zeros((len(indptr) - 1, V.shape[1]))
    for i in range(len(out)):
        columns, values = row(indptr, indices, data, i)
        for a in range(len(columns)):
            for b in range(a + 1, len(columns)):
                out[i] += values[a] * V[columns[a]] * values[b] * V[columns[b]]
    return out


def pairs_gradient(indptr: Any, indices: Any, data: Any, V: Any, d: Any) -> tuple[Floats, Floats]:
    """Gradient of Σ_if d_if pairs_if by V (n_features, n_factors) and data (nnz,):

    ∂/∂v_jf = d_if x_j Σ_{l≠j} x_l v_lf    ∂/∂x_j = Σ_f d_if v_jf Σ_{l≠j} x_l v_lf
    """
    V, d = np.asarray(V, dtype=np.float64), np.asarray(d, dtype=np.float64)
    g_V, g_data = np.zeros(V.shape), np.zeros(len(indices))
    for i in range(len(indptr) - 1):
        columns, values = row(indptr, indices, data, i)
        for a in range(len(columns)):
            others = np.zeros(V.shape[1])
            for b in range(len(columns)):
                if b != a:
                    others += values[b] * V[columns[b]]
            g_V[columns[a]] += d[i] * values[a] * others
            g_data[int(indptr[i]) + a] = float(np.sum(d[i] * V[columns[a]] * others))
    return g_V, g_data


def loss(name: str, y: float, s: float) -> tuple[float, float]:
    """ℓ(y, s) and its derivative by s: ½ (s − y)², or log(1 + e^s) − y s for y in {0, 1}."""
    if name == "squared":
        return 0.5 * (s - y) ** 2, s - y
    if s >= 0:
        return s + log1p(exp(-s)) - y * s, 1 / (1 + exp(-s)) - y
    return log1p(exp(s)) - y * s, exp(s) / (1 + exp(s)) - y


def objective(
    indptr: Any,
    indices: Any,
    data: Any,
    y: Any,
    w0: float,
    w: Any,
    V: Any,
    *,
    name: str,
    l2_linear: float,
    l2_factors: float,
    sample_weight: Any = None,
) -> float:
    """(Σ s_i ℓ_i) / Σ s_i + ½ Σ_j c_j (l2_linear w_j² + l2_factors ‖v_j‖²), with c_j the weighted share of the
    rows in which column j is not zero."""
    s = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    scores = score(indptr, indices, data, w0, w, V)
    total = sum(s[i] * loss(name, float(y[i]), float(scores[i]))[0] for i in range(len(y))) / s.sum()
    for i in range(len(y)):
        columns, values = row(indptr, indices, data, i)
        for j, x in zip(columns, values, strict=True):
            if x != 0:
                penalty = l2_linear * float(w[j]) ** 2 + l2_factors * float(np.sum(np.square(V[j])))
                total += 0.5 * s[i] / s.sum() * penalty
    return float(total)


@dataclass
class Training:
    """Parameters on their way, with the sums of squared gradients that AdaGrad keeps."""

    w0: float
    w: Floats
    V: Floats
    w0_state: float = 0.0

    def __post_init__(self) -> None:
        self.w_state, self.V_state = np.zeros(self.w.shape), np.zeros(self.V.shape)


def epoch(
    at: Training,
    indptr: Any,
    indices: Any,
    data: Any,
    y: Any,
    weight: Any,
    order: Any,
    *,
    adagrad: bool,
    name: str,
    learning_rate: float,
    epsilon: float,
    l2_linear: float,
    l2_factors: float,
) -> float:
    """One pass over the rows in the given order, changing `at`; returns Σ weight · loss before each step.

    For a row of weight s and d = s ∂ℓ/∂score, S_f = Σ_j x_j v_jf, every gradient taken before any change:
        g(w0) = d    g(w_j) = d x_j + s l2_linear w_j    g(v_jf) = d x_j (S_f − x_j v_jf) + s l2_factors v_jf
        SGD: θ −= η g        AdaGrad: G += g²; θ −= η g / √(ε + G)
    """

    def step(theta: float, state: float, g: float) -> tuple[float, float]:
        if not adagrad:
            return theta - learning_rate * g, state
        state += g * g
        return theta - learning_rate * g / sqrt(epsilon + state), state

    total = 0.0
    for r in order:
        columns, values = row(indptr, indices, data, int(r))
        s = 1.0 if weight is None else float(weight[r])
        if s == 0:
            continue
        here = float(score([0, len(columns)], columns, values, at.w0, at.w, at.V)[0])
        each, slope = loss(name, float(y[r]), here)
        total += s * each
        d = s * slope
        S = sum((x * at.V[j] for j, x in zip(columns, values, strict=True)), np.zeros(at.V.shape[1]))
        at.w0, at.w0_state = step(at.w0, at.w0_state, d)
        for j, x in zip(columns, values, strict=True):
            g_w = d * x + s * l2_linear * at.w[j]
            g_v = d * x * (S - x * at.V[j]) + s * l2_factors * at.V[j]
            at.w[j], at.w_state[j] = step(at.w[j], at.w_state[j], g_w)
            for f in range(len(g_v)):
                at.V[j, f], at.V_state[j, f] = step(at.V[j, f], at.V_state[j, f], g_v[f])
    return total
