"""Rankings from interactions: quality and seconds an epoch beside LightFM and implicit, on MovieLens-100K.

    python benchmarks/ranking.py PATH                # quality, by time and leave-last-out; equal grids for all systems
    python benchmarks/ranking.py PATH --epochs       # seconds an epoch, or a sweep, interleaved, and what it reaches
    python benchmarks/ranking.py PATH --cold         # items that nobody met in training, by their attributes
    python benchmarks/ranking.py --top               # ten best of 60,000 items for 100,000 users, and for a million

One interpreter must have all packages; the lines of those that are missing are left out. What is measured, and how to
read it: benchmarks/README.md.
"""

import argparse
import itertools
import os
import time
from importlib.util import find_spec

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sparsefm import FMRanker, FrameEncoder, MultiHot, OneHot, splits
from sparsefm.datasets import load_movielens
from sparsefm.evaluation import evaluate_ranking
from sparsefm.recommend import top_k
from sparsefm.solvers import BPR, WARP, CosineContrastive, ImplicitALS, SampledSoftmax

RANK = 32
EPOCHS = (10, 20, 40)


class Data:
    """Positives of a training and a test part as matrices of all users and items."""

    def __init__(self, ml, train, test):
        self.users, self.items = np.sort(ml.users["user_id"]), np.sort(ml.items["item_id"])
        self.frame, self.test_frame, self.ml = train, test, ml
        self.train, self.test = self.matrix(train), self.matrix(test)

    def matrix(self, frame):
        at = np.searchsorted(self.users, frame["user_id"]), np.searchsorted(self.items, frame["item_id"])
        shape = len(self.users), len(self.items)
        return sp.csr_matrix((np.ones(len(frame), np.float32), at), shape=shape)

    def quality(self, scores):
        """(precision@10, recall@20, NDCG@10) over users with training and test items, training items not shown."""
        users = np.flatnonzero((np.diff(self.train.indptr) > 0) & (np.diff(self.test.indptr) > 0))
        scores = np.array(scores[users], np.float64)
        scores[self.train[users].toarray() > 0] = -np.inf
        relevant = self.test[users].toarray() > 0
        top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
        hit, n = np.take_along_axis(relevant, top, axis=1), relevant.sum(axis=1)
        discount = 1 / np.log2(np.arange(2, 12))
        ideal = np.array([discount[: min(10, each)].sum() for each in n])
        gain = (hit[:, :10] * discount).sum(axis=1) / ideal
        return hit[:, :10].mean(), (hit.sum(axis=1) / n).mean(), gain.mean()


# ---- each takes data and settings, returns scores (n_users, n_items) and seconds an epoch


def popularity(data):
    return np.broadcast_to(np.asarray(data.train.sum(axis=0)), data.train.shape), np.nan


def ours(solver, sides=False):
    def fit(data, epochs, l2, rank=RANK, **options):
        encoder = None
        items = pd.DataFrame({"item_id": data.items})
        users = pd.DataFrame({"user_id": data.users})
        if sides:
            items = data.ml.items[["item_id", "genres", "year"]]
            users = data.ml.users[["user_id", "age", "gender", "occupation"]].assign(age=lambda u: u["age"] // 10)
            one_hot = ("user_id", "age", "gender", "occupation", "item_id", "year")
            encoder = FrameEncoder({name: OneHot() for name in one_hot} | {"genres": MultiHot("|")})
        model = FMRanker(
            rank,
            solver=solver(max_iter=epochs, **options),
            l2_linear=l2,
            l2_factors=l2,
            encoder=encoder,
            n_threads=data.threads,
            random_state=0,
        )
        model.fit(data.frame[["user_id", "item_id"]], users=users, items=items)
        p, q = model.user_vectors().loc[data.users], model.item_vectors().loc[data.items]
        return p.to_numpy() @ q.to_numpy().T, np.median([record["seconds"] for record in model.history_])

    return fit


def lightfm(loss):
    def fit(data, epochs, l2, learning_rate):
        from lightfm import LightFM

        model = LightFM(RANK, loss=loss, learning_rate=learning_rate, item_alpha=l2, user_alpha=l2, random_state=0)
        seconds = []
        for _ in range(epochs):
            start = time.perf_counter()
            model.fit_partial(data.train.tocoo(), epochs=1, num_threads=data.threads)
            seconds.append(time.perf_counter() - start)
        scores = model.user_embeddings @ model.item_embeddings.T + model.item_biases
        return scores, np.median(seconds)

    return fit


def implicit(name):
    def fit(data, epochs, l2, rank=RANK, **options):
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        from implicit.als import AlternatingLeastSquares
        from implicit.bpr import BayesianPersonalizedRanking

        kind = AlternatingLeastSquares if name == "als" else BayesianPersonalizedRanking
        model = kind(
            factors=rank, regularization=l2, iterations=epochs, num_threads=data.threads, random_state=0, **options
        )
        start = time.perf_counter()
        model.fit(data.train, show_progress=False)
        seconds = (time.perf_counter() - start) / epochs
        return np.asarray(model.user_factors) @ np.asarray(model.item_factors).T, seconds

    return fit


def grid(**values):
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


PAIRWISE = {"epochs": EPOCHS, "learning_rate": (0.02, 0.05, 0.1)}
SOFTMAX = grid(epochs=EPOCHS, learning_rate=(0.05, 0.1, 0.2), temperature=(0.1, 0.2, 0.4), l2=(0.0,))
SYSTEMS = {
    "popularity": (popularity, [{}]),
    "sparsefm WARP": (ours(WARP), grid(**PAIRWISE, l2=(0.01, 0.03, 0.1))),
    "sparsefm BPR": (ours(BPR), grid(**PAIRWISE, l2=(0.01, 0.03, 0.1))),
    "sparsefm ImplicitALS": (
        ours(ImplicitALS),
        grid(epochs=(10, 20, 40), unobserved=(0.05, 0.2, 0.8), l2=(0.003, 0.01, 0.03)),
    ),
    "sparsefm WARP + side": (ours(WARP, sides=True), grid(**PAIRWISE, l2=(0.01, 0.03, 0.1))),
    "sparsefm BPR + side": (ours(BPR, sides=True), grid(**PAIRWISE, l2=(0.01, 0.03, 0.1))),
    "sparsefm ImplicitALS + side": (
        ours(ImplicitALS, sides=True),
        grid(epochs=(10, 20, 40), unobserved=(0.05, 0.2, 0.8), l2=(0.003, 0.01, 0.03)),
    ),
    "sparsefm SampledSoftmax": (ours(SampledSoftmax), SOFTMAX),
    "sparsefm SampledSoftmax + side": (ours(SampledSoftmax, sides=True), SOFTMAX),
    "sparsefm CosineContrastive": (
        ours(CosineContrastive),
        grid(epochs=EPOCHS, learning_rate=(0.05, 0.1, 0.2), margin=(0.2, 0.4, 0.6), l2=(0.0,)),
    ),
    "lightfm WARP": (lightfm("warp"), grid(**PAIRWISE, l2=(0.0, 1e-5, 1e-4))),
    "lightfm BPR": (lightfm("bpr"), grid(**PAIRWISE, l2=(0.0, 1e-5, 1e-4))),
    "implicit ALS": (implicit("als"), grid(epochs=(10, 20, 40), alpha=(1.0, 5.0, 20.0), l2=(0.1, 1.0, 10.0))),
    "implicit BPR": (
        implicit("bpr"),
        grid(epochs=(50, 100, 200), learning_rate=(0.01, 0.03, 0.1), l2=(0.001, 0.01, 0.1)),
    ),
}


def parts(ml):
    """Positives split globally by time, and each user's last one out."""
    liked = ml.ratings[ml.ratings["rating"] >= 4]
    yield "by time, the last fifth", splits.by_time, {"test_size": 0.2}, liked
    yield "leave last out", splits.leave_last_out, {}, liked


def quality(ml, systems):
    for name, split, options, liked in parts(ml):
        train, test = split(liked, **options)
        inner, held_out = split(train, **options)
        print(f"\n{name}: {len(train)} positives to train on, {len(test)} to find\n")
        print("| system | precision@10 | recall@20 | NDCG@10 | settings |\n|---|--:|--:|--:|---|")
        for system in systems:
            fit, points = SYSTEMS[system]
            if find_spec(system.split()[0]) is None and system != "popularity":
                continue
            chosen, best = points[0], -1.0
            for point in points if len(points) > 1 else []:
                data = Data(ml, inner, held_out)
                data.threads = 1
                scores, _ = fit(data, **point)
                if data.quality(scores)[2] > best:
                    chosen, best = point, data.quality(scores)[2]
            data = Data(ml, train, test)
            data.threads = 1
            found = data.quality(fit(data, **chosen)[0])
            cells = [system, *(f"{value:.4f}" for value in found), ", ".join(f"{k} {v:g}" for k, v in chosen.items())]
            print("| " + " | ".join(cells) + " |", flush=True)


# Equal settings where systems have the same; each with the penalty that the grid of `quality` chose.
EPOCH_SETTINGS = [
    ("WARP", "sparsefm WARP", {"epochs": 20, "l2": 0.01, "learning_rate": 0.05}),
    ("WARP", "lightfm WARP", {"epochs": 20, "l2": 0.0, "learning_rate": 0.05}),
    ("BPR", "sparsefm BPR", {"epochs": 40, "l2": 0.01, "learning_rate": 0.1}),
    ("BPR", "lightfm BPR", {"epochs": 40, "l2": 0.0, "learning_rate": 0.05}),
    ("BPR", "implicit BPR", {"epochs": 40, "l2": 0.01, "learning_rate": 0.1}),
    *(
        (f"ALS, k = {rank}", *each)
        for rank in (64, 128, 256)
        for each in (
            ("sparsefm ImplicitALS", {"epochs": 15, "unobserved": 0.2, "l2": 0.006, "rank": rank}),
            ("implicit ALS", {"epochs": 15, "alpha": 5.0, "l2": 10.0, "rank": rank}),
        )
    ),
]


def epochs(ml, systems, rounds=5):
    """Seconds of the median epoch, the median of several rounds, and the quality at its end, the last one out."""
    liked = ml.ratings[ml.ratings["rating"] >= 4]
    data = Data(ml, *splits.leave_last_out(liked))
    print(f"\n{len(data.frame)} interactions, k = {RANK} where none is named\n")
    print("| what | system | 1 thread | 2 threads | recall@20 | NDCG@10 |\n|---|---|--:|--:|--:|--:|")
    chosen = [each for each in EPOCH_SETTINGS if each[1] in systems and find_spec(each[1].split()[0]) is not None]
    seconds, found = {}, {}
    for _, (what, system, settings), threads in itertools.product(range(rounds), chosen, (1, 2)):
        data.threads = threads
        scores, each = SYSTEMS[system][0](data, **settings)
        seconds.setdefault((what, system, threads), []).append(each)
        found[what, system] = data.quality(scores)
    for what, system, _ in chosen:
        both = [f"{1000 * np.median(seconds[what, system, threads]):.1f} ms" for threads in (1, 2)]
        print("| " + " | ".join([what, system, *both, *(f"{value:.4f}" for value in found[what, system][1:])]) + " |")


def top():
    """Seconds and memory of lists of ten from random factors of rank 32, what a user met left out."""
    rng = np.random.default_rng(0)
    n_users, n_items = 100_000, 60_000
    p, q = (rng.normal(size=(n, 32)).astype(np.float32) for n in (n_users, n_items))
    met = sp.csr_array(
        (np.ones(50 * n_users, np.float32), rng.integers(n_items, size=50 * n_users), np.arange(n_users + 1) * 50),
        shape=(n_users, n_items),
    )
    met.sum_duplicates()
    none = np.zeros(n_users, np.float32), np.zeros(n_items, np.float32)

    def ours():
        return top_k((none[0], p), (none[1], q), 10, exclude=met)[0]

    def theirs():
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(factors=32)
        model.user_factors, model.item_factors = p, q
        return model.recommend(np.arange(n_users), sp.csr_matrix(met), N=10)[0]

    systems = {"sparsefm": ours} | ({"implicit": theirs} if find_spec("implicit") else {})
    print(f"\n{n_users} users, {n_items} items\n\n| system | s | MB above the model |\n|---|--:|--:|")
    for name, run in systems.items():
        found, seconds = run(), []
        for _ in range(3):
            before = memory(reset=True)
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        print(f"| {name} | {np.median(seconds):.2f} | {memory() - before:.0f} |", flush=True)
        systems[name] = found
    if len(systems) == 2:
        same = np.mean([len(set(a) & set(b)) for a, b in zip(*systems.values(), strict=True)]) / 10
        print(f"\n{100 * same:.2f} % of the items of both lists are the same.")
    many = np.concatenate([p] * 10)
    before, start = memory(reset=True), time.perf_counter()
    top_k((np.zeros(len(many), np.float32), many), (none[1], q), 10)
    print(f"\nA million users: {time.perf_counter() - start:.1f} s, {memory() - before:.0f} MB above the model.")


def memory(reset=False):
    """MB in use, at the peak since the last reset."""
    if reset:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS" if reset else "VmHWM")) / 1024


class Shuffled:
    """The items in an order of no meaning, another for each user."""

    def __init__(self, items, seed):
        self.items, self.rng = items.to_numpy(), np.random.default_rng(seed)

    def recommend(self, users, k):
        k = min(k, len(self.items))
        shown = np.concatenate([self.rng.choice(self.items, k, replace=False) for _ in users])
        score = np.tile(-np.arange(k, dtype=float), len(users))
        return pd.DataFrame({"user_id": np.repeat(users, k), "item_id": shown, "score": score})


def cold(ml):
    """NDCG@10 among items that training has not seen, a fifth of all, and of warm ones with and without attributes."""
    liked = ml.ratings[ml.ratings["rating"] >= 4]
    warm, unseen = splits.cold_items(liked, test_size=0.2, random_state=0)
    train, held_out = splits.leave_last_out(warm)
    items = ml.items[["item_id", "genres"] + (["year"] if "year" in ml.items else [])]
    columns = {"user_id": OneHot(), "item_id": OneHot(), "genres": MultiHot("|")}
    encoder = FrameEncoder(columns | ({"year": OneHot()} if "year" in items else {}))
    print("\n| solver | cold, attributes | cold, by chance | warm, attributes | warm, ids |\n|---|--:|--:|--:|--:|")
    of_cold = items[items["item_id"].isin(unseen["item_id"])]
    for solver in ("warp", "bpr", "sampled_softmax", "implicit_als"):
        options = {"solver": solver, "n_factors": RANK, "random_state": 0}
        sides = FMRanker(encoder=encoder, **options).fit(train[["user_id", "item_id"]], items=items)
        ids = FMRanker(**options).fit(train[["user_id", "item_id"]])
        users = pd.DataFrame({"user_id": train["user_id"].unique()})
        asked = unseen[unseen["user_id"].isin(users["user_id"])]
        chance = np.mean(
            [evaluate_ranking(Shuffled(of_cold["item_id"], seed), asked)["ndcg"].iloc[0] for seed in range(5)]
        )
        of_them = evaluate_ranking(sides, asked, contexts=users, candidates=of_cold)["ndcg"].iloc[0]
        warm_ones = [evaluate_ranking(model, held_out, train=train)["ndcg"].iloc[0] for model in (sides, ids)]
        print("| " + " | ".join([solver, *(f"{value:.4f}" for value in (of_them, chance, *warm_ones))]) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path", nargs="?")
    parser.add_argument("--epochs", action="store_true")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--top", action="store_true")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    args = parser.parse_args()
    if args.top:
        top()
    elif args.cold:
        cold(load_movielens(args.path))
    else:
        (epochs if args.epochs else quality)(load_movielens(args.path), args.systems)


if __name__ == "__main__":
    main()
