"""Brute force in float64, written from the definitions: the judge of the kernels and the solvers.

Rows come as CSR arrays with each column at most once a row; data=None means that every value is one.
Nothing here is clever, and nothing here is imported from the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
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


def loss(name: str, y: float, s: float, shape: float = 0.0) -> tuple[float, float]:
    """ℓ(y, s) and its derivative by s. y is 0 or 1 for "logistic" and "hinge"; shape: δ of "huber", τ of "quantile"."""
    if name == "squared":
        return 0.5 * (s - y) ** 2, s - y
    if name == "logistic":
        if s >= 0:
            return s + log1p(exp(-s)) - y * s, 1 / (1 + exp(-s)) - y
        return log1p(exp(s)) - y * s, exp(s) / (1 + exp(s)) - y
    if name == "hinge":
        t = 1.0 if y == 1 else -1.0
        return max(0.0, 1 - t * s), -t if t * s < 1 else 0.0
    if name == "poisson":
        return exp(s) - y * s, exp(s) - y
    r = s - y
    if name == "huber":
        if abs(r) <= shape:
            return 0.5 * r * r, r
        return shape * (abs(r) - 0.5 * shape), shape if r > 0 else -shape
    assert name == "quantile"
    return (-shape * r, -shape) if r < 0 else ((1 - shape) * r, (1 - shape) * (r > 0))


def occurrences(indptr: Any, indices: Any, n_features: int, weight: Any = None) -> Floats:
    """Sum of the weights of the rows in which each column is not zero. (n_features,)"""
    out = np.zeros(n_features)
    for i in range(len(indptr) - 1):
        for j in row(indptr, indices, None, i)[0]:
            out[j] += 1.0 if weight is None else float(weight[i])
    return out


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
    l2_factors: Any,
    l2_prior: float = 0.0,
    sample_weight: Any = None,
    shape: float = 0.0,
) -> float:
    """(Σ s_i ℓ_i) / n + ½ Σ_j c_j (l2_linear w_j² + l2_factors_j ‖v_j‖²), the weights s scaled to mean 1, and
    c_j = (n_j + l2_prior) / n with n_j the sum of the s_i of the rows in which column j is not zero; 0 without any."""
    s = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    s = s * len(s) / s.sum()
    strengths = np.broadcast_to(np.asarray(l2_factors, dtype=np.float64), len(w))
    scores = score(indptr, indices, data, w0, w, V)
    total = sum(s[i] * loss(name, float(y[i]), float(scores[i]), shape)[0] for i in range(len(y))) / len(y)
    for j, n_j in enumerate(occurrences(indptr, indices, len(w), s)):
        if n_j > 0:
            penalty = l2_linear * float(w[j]) ** 2 + strengths[j] * float(np.sum(np.square(V[j])))
            total += 0.5 * (n_j + l2_prior) / len(y) * penalty
    return float(total)


def scale(indptr: Any, data: Any, weight: Any = None) -> float:
    """Half the weighted mean over the rows of Σ x², at least a quarter. The weights have mean 1."""
    n, squares = len(indptr) - 1, 0.0
    for i in range(n):
        x = np.ones(indptr[i + 1] - indptr[i]) if data is None else np.asarray(data[indptr[i] : indptr[i + 1]])
        squares += (1.0 if weight is None else float(weight[i])) * float(np.sum(x.astype(np.float64) ** 2))
    return max(squares / n / 2, 0.25)


@dataclass
class Steps:
    """An optimiser: "sgd", "adagrad", "rowwise", "adam" or "ftrl", and its numbers."""

    name: str
    rate: float
    epsilon: float = 0.0
    bias_rate: float = 0.0
    bias_epsilon: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    l1: float = 0.0


class Vector:
    """Some parameters that are stepped together, with what the optimiser remembers of them."""

    def __init__(self, theta: Any, rate: float, epsilon: float) -> None:
        self.theta = np.array(theta, dtype=np.float64)
        self.rate, self.epsilon = rate, epsilon
        self.G, self.m, self.s = (np.zeros(self.theta.shape) for _ in range(3))
        self.age = 0
        self.r = np.full(self.theta.shape, sqrt(epsilon))
        self.z = -self.theta * self.r / rate

    def step(self, steps: Steps, g: Any, *, linear: bool, l1: float = 0.0) -> None:
        """One step down the gradient g. FTRL is for weights; with it factors take AdaGrad's."""
        if steps.name == "sgd":
            self.theta -= self.rate * g
        elif steps.name == "adam":
            self.age += 1
            self.m = steps.beta1 * self.m + (1 - steps.beta1) * g
            self.s = steps.beta2 * self.s + (1 - steps.beta2) * g * g
            m, s = self.m / (1 - steps.beta1**self.age), self.s / (1 - steps.beta2**self.age)
            self.theta -= self.rate * m / np.sqrt(self.epsilon + s)
        elif steps.name == "ftrl" and linear:
            r = np.sqrt(self.r**2 + g * g)
            self.z += g - (r - self.r) * self.theta / self.rate
            self.r = r
            self.theta = np.where(np.abs(self.z) <= l1, 0, -self.rate * (self.z - np.sign(self.z) * l1) / r)
        elif steps.name == "rowwise" and not linear:
            self.G += np.mean(g * g) if len(g) else 0
            self.theta -= self.rate * g / np.sqrt(self.epsilon + self.G)
        else:
            self.G += g * g
            self.theta -= self.rate * g / np.sqrt(self.epsilon + self.G)


class Training:
    """Parameters on their way."""

    def __init__(self, steps: Steps, w0: float, w: Any, V: Any) -> None:
        self.steps = steps
        self.bias = Vector(w0, steps.bias_rate, steps.bias_epsilon)
        self.linear = [Vector(each, steps.rate, steps.epsilon) for each in w]
        self.factors = [Vector(each, steps.rate, steps.epsilon) for each in V]

    def set_rate(self, rate: float, bias_rate: float) -> None:
        self.bias.rate = bias_rate
        for each in self.linear + self.factors:
            each.rate = rate

    @property
    def w0(self) -> float:
        return float(self.bias.theta)

    @property
    def w(self) -> Floats:
        return np.array([each.theta for each in self.linear])

    @property
    def V(self) -> Floats:
        return np.array([each.theta for each in self.factors])


def epoch(
    at: Training,
    indptr: Any,
    indices: Any,
    data: Any,
    y: Any,
    weight: Any,
    batches: Any,
    *,
    name: str,
    l2_linear: Any,
    l2_factors: Any,
    shape: float = 0.0,
) -> float:
    """One pass over batches, lists of rows, changing `at`; returns Σ weight · loss before each batch's step.

    With d_i = s_i ∂ℓ/∂score_i and λ a column's own strengths, a batch takes one step for the bias and for each column
    that it touches, with the gradients

        Σ_i d_i    Σ_i (d_i x_ij + s_i λ_j w_j)    Σ_i (d_i x_ij (Σ_l x_il v_l − x_ij v_j) + s_i λ_j v_j)

    over the rows i of the batch, for a column those in which it is not zero, all taken before any change. A row of
    weight zero is as if it were not there.
    """
    total = 0.0
    for batch in batches:
        counted = [int(i) for i in batch if weight is None or weight[i] > 0]
        g_bias, g_w, g_v = 0.0, {}, {}
        w, V = at.w, at.V
        for i in counted:
            columns, values = row(indptr, indices, data, i)
            s = 1.0 if weight is None else float(weight[i])
            here = float(score([0, len(columns)], columns, values, at.w0, w, V)[0])
            each, slope = loss(name, float(y[i]), here, shape)
            total += s * each
            d = s * slope
            g_bias += d
            S = sum((x * V[j] for j, x in zip(columns, values, strict=True)), np.zeros(V.shape[1]))
            for j, x in zip(columns, values, strict=True):
                g_w[j] = g_w.get(j, 0.0) + d * x + s * l2_linear[j] * w[j]
                g_v[j] = g_v.get(j, 0.0) + d * x * (S - x * V[j]) + s * l2_factors[j] * V[j]
        if counted:
            at.bias.step(at.steps, g_bias, linear=True)
        for j in g_w:
            at.linear[j].step(at.steps, g_w[j], linear=True, l1=at.steps.l1)
            at.factors[j].step(at.steps, g_v[j], linear=False)
    return total


def anova(indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any, order: int, shared: bool = False) -> Floats:
    """w0 + Σ_j w_j x_j + Σ_{t=2..order} Σ_{j1<…<jt} Σ_f Π_s x_js v_js,f over all sets. (n_rows,)

    v are the columns of V for order t: those of order 2 first, or where they are shared all, for every t.
    """
    w, V = np.asarray(w, dtype=np.float64), np.asarray(V, dtype=np.float64)
    k = V.shape[1] if shared else V.shape[1] // (order - 1)
    out = np.zeros(len(indptr) - 1)
    for i in range(len(out)):
        columns, values = row(indptr, indices, data, i)
        out[i] = w0 + sum(w[j] * x for j, x in zip(columns, values, strict=True))
        for t in range(2, order + 1):
            block = V if shared else V[:, (t - 2) * k : (t - 1) * k]
            for chosen in combinations(range(len(columns)), t):
                product = np.ones(k)
                for p in chosen:
                    product = product * values[p] * block[columns[p]]
                out[i] += product.sum()
    return out


def field_aware(indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any, fields: Any, n_fields: int) -> Floats:
    """w0 + Σ_j w_j x_j + Σ_{j<l} ⟨v_j for the field of l, v_l for the field of j⟩ x_j x_l. (n_rows,)"""
    w, V = np.asarray(w, dtype=np.float64), np.asarray(V, dtype=np.float64)
    vectors = V.reshape(len(w), n_fields, -1)
    out = np.zeros(len(indptr) - 1)
    for i in range(len(out)):
        columns, values = row(indptr, indices, data, i)
        out[i] = w0 + sum(w[j] * x for j, x in zip(columns, values, strict=True))
        for a, b in combinations(range(len(columns)), 2):
            j, l = columns[a], columns[b]
            out[i] += float(vectors[j, fields[l]] @ vectors[l, fields[j]]) * values[a] * values[b]
    return out


def field_weighted(
    indptr: Any, indices: Any, data: Any, w0: float, w: Any, V: Any, fields: Any, field_weights: Any
) -> Floats:
    """w0 + Σ_j w_j x_j + Σ_{j<l} r[field of j, field of l] ⟨v_j, v_l⟩ x_j x_l. (n_rows,)"""
    w, V, r = (np.asarray(each, dtype=np.float64) for each in (w, V, field_weights))
    out = np.zeros(len(indptr) - 1)
    for i in range(len(out)):
        columns, values = row(indptr, indices, data, i)
        out[i] = w0 + sum(w[j] * x for j, x in zip(columns, values, strict=True))
        for a, b in combinations(range(len(columns)), 2):
            j, l = columns[a], columns[b]
            out[i] += r[fields[j], fields[l]] * float(V[j] @ V[l]) * values[a] * values[b]
    return out
