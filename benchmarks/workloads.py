"""The four workloads: made data whose best reachable held-out loss is known.

W1  1M ratings, 6,040 users and 3,706 items, two one-hot ids a row, squared loss, k = 8
W2  the same ratings with side features: about 11 non-zeros a row, 10,006 features
W3  1M rows of 39 categorical fields, 1M features, binary label, logistic loss, k = 16
W4  the same with 20M features

Every matrix is a scipy `csr_array`, float32 values, int32 indices sorted within each row. The rows are
drawn independently, so the first nine tenths train and the last tenth is held out. The same `rows` and
`n_features` give the same bits.

`floor` is what the true model reaches on the held-out rows: for W1 and W2 the root mean square of the
noise that was added to them, for W3 and W4 the mean entropy of their true probabilities.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

N_USERS, N_ITEMS, N_GENRES = 6040, 3706, 18
USER_SIDES = (2, 7, 21, 100)  # sex, age band, occupation, region
ITEM_SIDES = (81, 31)  # year, country; the 18 genres are multi-hot
N_FIELDS = 39


@dataclass(frozen=True)
class Workload:
    name: str
    loss: str  # "squared" or "logistic"
    n_factors: int
    field_sizes: tuple[int, ...]
    X_train: sparse.csr_array
    y_train: np.ndarray  # float32; 0 and 1 for "logistic"
    X_test: sparse.csr_array
    y_test: np.ndarray
    floor: float

    def held_out(self, predicted: np.ndarray) -> float:
        """RMSE, or log loss of probabilities, on the held-out rows."""
        predicted = np.asarray(predicted, dtype=np.float64)
        if self.loss == "squared":
            return float(np.sqrt(np.mean((predicted - self.y_test) ** 2)))
        p = np.clip(predicted, 1e-7, 1 - 1e-7)
        return float(-np.mean(np.where(self.y_test > 0, np.log(p), np.log1p(-p))))

    def save(self, path: Path) -> None:
        parts = {}
        for side, X in (("train", self.X_train), ("test", self.X_test)):
            parts |= {f"{side}_indptr": X.indptr, f"{side}_indices": X.indices, f"{side}_data": X.data}
        np.savez(
            path,
            **parts,
            y_train=self.y_train,
            y_test=self.y_test,
            n_features=self.X_train.shape[1],
            field_sizes=self.field_sizes,
            n_factors=self.n_factors,
            floor=self.floor,
            name=self.name,
            loss=self.loss,
        )

    @classmethod
    def load(cls, path: Path) -> "Workload":
        z = np.load(path)
        X = {
            side: sparse.csr_array(
                (z[f"{side}_data"], z[f"{side}_indices"], z[f"{side}_indptr"]),
                shape=(len(z[f"y_{side}"]), int(z["n_features"])),
            )
            for side in ("train", "test")
        }
        return cls(
            name=str(z["name"]),
            loss=str(z["loss"]),
            n_factors=int(z["n_factors"]),
            field_sizes=tuple(z["field_sizes"].tolist()),
            X_train=X["train"],
            y_train=z["y_train"],
            X_test=X["test"],
            y_test=z["y_test"],
            floor=float(z["floor"]),
        )


def make(name: str, rows: int = 1_000_000) -> Workload:
    """Workload "W1" … "W4" with `rows` rows, training and held-out together."""
    if name in ("W1", "W2"):
        return _ratings(name, rows)
    return clicks(name, rows, {"W3": 1_000_000, "W4": 20_000_000}[name])


def validation_split(work: Workload) -> Workload:
    """The last ninth of the training rows in the place of the held-out ones: what settings are chosen on."""
    n = work.X_train.shape[0] * 8 // 9
    X, y = work.X_train, work.y_train
    return Workload(work.name, work.loss, work.n_factors, work.field_sizes, X[:n], y[:n], X[n:], y[n:], work.floor)


def _zipf(rng: np.random.Generator, n: int, levels: int, exponent: float) -> np.ndarray:
    """n levels drawn with P(rank r) about (1 + r)^-exponent, the ranks scattered over the level numbers."""
    power = 1.0 - exponent
    u = rng.random(n)
    u *= (levels + 1.0) ** power - 1.0
    u += 1.0
    rank = np.minimum((u ** (1.0 / power) - 1.0).astype(np.int32), levels - 1)
    return rng.permutation(levels).astype(np.int32)[rank]


def _one_hot(columns: list[np.ndarray], sizes: tuple[int, ...]) -> sparse.csr_array:
    """One non-zero a row and column, the columns' levels side by side."""
    offsets = np.cumsum((0, *sizes[:-1]))
    indices = np.column_stack([c + o for c, o in zip(columns, offsets, strict=True)]).astype(np.int32)
    n, m = indices.shape
    indptr = np.arange(0, n * m + 1, m, dtype=np.int32)
    return sparse.csr_array((np.ones(n * m, np.float32), indices.ravel(), indptr), shape=(n, int(sum(sizes))))


def _genres(rng: np.random.Generator) -> sparse.csr_array:
    """One to five genres an item, weighted 1 / sqrt(count)."""
    count = rng.integers(1, 6, N_ITEMS)
    rank = rng.random((N_ITEMS, N_GENRES)).argsort(axis=1)
    weight = (rank < count[:, None]) / np.sqrt(count[:, None])
    return sparse.csr_array(weight.astype(np.float32))


def _ratings(name: str, rows: int) -> Workload:
    rng = np.random.default_rng(1)
    rank, noise = 8, 0.8
    user_side = _one_hot([rng.integers(0, s, N_USERS) for s in USER_SIDES], USER_SIDES)
    item_side = _one_hot([rng.integers(0, s, N_ITEMS) for s in ITEM_SIDES], ITEM_SIDES)
    item_side = sparse.hstack([item_side, _genres(rng)], format="csr")

    def truth(side: sparse.csr_array, bias: float, factor: float) -> tuple[np.ndarray, np.ndarray]:
        """Biases and vectors: two thirds of the variance from the id, one third from its side features."""
        n, m = side.shape
        per_row = side.multiply(side).sum() / n
        w = rng.normal(0, bias * 0.8165, n) + side @ rng.normal(0, bias * 0.5774 / per_row**0.5, m)
        V = rng.normal(0, factor * 0.8165, (n, rank))
        return w, V + side @ rng.normal(0, factor * 0.5774 / per_row**0.5, (m, rank))

    user_bias, P = truth(user_side, 0.35, 0.4)
    item_bias, Q = truth(item_side, 0.45, 0.4)
    user, item = _zipf(rng, rows, N_USERS, 0.6), _zipf(rng, rows, N_ITEMS, 0.8)
    error = rng.normal(0, noise, rows)
    y = 3.5 + user_bias[user] + item_bias[item] + np.einsum("nk,nk->n", P[user], Q[item]) + error

    X = _one_hot([user, item], (N_USERS, N_ITEMS))
    sizes: tuple[int, ...] = (N_USERS, N_ITEMS)
    if name == "W2":
        X = sparse.csr_array(sparse.hstack([X, user_side[user], item_side[item]], format="csr"))
        sizes = (*sizes, *USER_SIDES, *ITEM_SIDES, N_GENRES)
    n = rows * 9 // 10
    floor = float(np.sqrt(np.mean(error[n:] ** 2)))
    y = y.astype(np.float32)
    return Workload(name, "squared", 8, sizes, X[:n], y[:n], X[n:], y[n:], floor)


def clicks(name: str, rows: int, n_features: int) -> Workload:
    rng = np.random.default_rng(3)
    rank = 4
    # 39 fields from 8 levels up, growing geometrically; the last takes what is left of n_features
    growth = _growth(n_features)
    sizes = [int(8 * growth**f) for f in range(N_FIELDS)]
    sizes[-1] += n_features - sum(sizes)
    offsets = np.cumsum([0, *sizes[:-1]])

    indices = np.empty((rows, N_FIELDS), np.int32)
    linear = np.zeros(rows, np.float32)
    total, squares = np.zeros((rows, rank), np.float32), np.zeros(rows, np.float32)
    for f, size in enumerate(sizes):
        level = _zipf(rng, rows, size, 1.1)
        w = rng.standard_normal(size, dtype=np.float32) * np.float32(0.3)
        V = rng.standard_normal((size, rank), dtype=np.float32) * np.float32(0.12)
        linear += w[level]
        v = V[level]
        total += v
        squares += np.einsum("nk,nk->n", v, v)
        indices[:, f] = level + offsets[f]
    score = linear + 0.5 * (np.einsum("nk,nk->n", total, total) - squares)
    low, high = -20.0, 20.0  # the intercept at which a quarter of the labels is one
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _sigmoid(score + middle).mean() < 0.25 else (low, middle)
    p = _sigmoid(score.astype(np.float64) + low)
    y = (rng.random(rows) < p).astype(np.float32)

    indptr = np.arange(0, rows * N_FIELDS + 1, N_FIELDS, dtype=np.int32)
    X = sparse.csr_array((np.ones(indices.size, np.float32), indices.ravel(), indptr), shape=(rows, n_features))
    n = rows * 9 // 10
    q = np.clip(p[n:], 1e-300, 1 - 1e-16)
    floor = float(-np.mean(q * np.log(q) + (1 - q) * np.log1p(-q)))
    return Workload(name, "logistic", 16, tuple(sizes), X[:n], y[:n], X[n:], y[n:], floor)


def _growth(n_features: int) -> float:
    """The ratio at which 39 field sizes from 8 up sum to at most n_features."""
    low, high = 1.0, 3.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if sum(8 * middle**f for f in range(N_FIELDS)) < n_features else (low, middle)
    return low


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
