"""Time the torch wing against what torch offers by itself, side by side in one run, on the CPU.

    python benchmarks/torch_wing.py                  # everything, on a quiet machine
    python benchmarks/torch_wing.py --only steps     # or dense, overhead, passes
    torchrun --nproc-per-node 2 benchmarks/torch_wing.py --only processes

What is measured, and how to read it: benchmarks/README.md.
"""

import argparse
import functools
import os
import statistics
import time
import warnings

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sparsefm import ops
from sparsefm.nn import AdaGrad, CSRBatch, FactorizationMachine, LazyAdam
from sparsefm.ops import csr

N_ROWS, PER_ROW, DISTINCT, K = 1024, 20, 9000, 16
BATCHES = 8  # different ones in turn: one repeated would lie in the nearest cache


def interleaved(calls, rounds, in_a_row=1):
    """name -> sorted seconds of each call: rounds that make so many calls of each in a row, and time every one but
    the first, which finds the caches full of its predecessor's things."""
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            for again in range(in_a_row):
                start = time.perf_counter()
                call(turn * in_a_row + again)
                if turn and (again or in_a_row == 1):  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    return {name: sorted(each) for name, each in seconds.items()}


def show(title, seconds, base):
    print(f"\n{title}\n\n| | best | median | median, ratio to {base} |\n|---|--:|--:|--:|")
    for name, each in seconds.items():
        ratio = statistics.median(each) / statistics.median(seconds[base])
        print(f"| {name} | {each[0] * 1e6:,.0f} µs | {statistics.median(each) * 1e6:,.0f} µs | {ratio:.2f} |")


def make_batches(n_features, seed=0):
    """Rows that draw from the same number of distinct features, spread over the whole table."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(BATCHES):
        pool = torch.randperm(n_features, generator=generator)[:DISTINCT]
        columns = [torch.randperm(DISTINCT, generator=generator)[:PER_ROW] for _ in range(N_ROWS)]
        indices = pool[torch.stack(columns)].sort(1).values
        y = torch.randn(N_ROWS, generator=generator)
        batches.append((indices, torch.randn(N_ROWS, PER_ROW, generator=generator), y))
    return batches


class Gathered(torch.nn.Module):
    """The formula on looked-up rows, for rows of one length."""

    def __init__(self, start, sparse):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.linear = torch.nn.Embedding(start.shape[0], 1, sparse=sparse, _weight=torch.zeros(start.shape[0], 1))
        self.factors = torch.nn.Embedding(*start.shape, sparse=sparse, _weight=start.clone())

    def forward(self, indices, values):
        z = self.factors(indices) * values[:, :, None]
        linear = (self.linear(indices)[:, :, 0] * values).sum(1)
        return self.bias + linear + (z.sum(1) ** 2 - (z**2).sum(1)).sum(1) / 2


class GatheredOnce(torch.nn.Module):
    """The same with weight and factors in one table of k + 1 columns."""

    def __init__(self, start):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        table = torch.cat((start, torch.zeros(start.shape[0], 1)), 1)
        self.table = torch.nn.Embedding(*table.shape, sparse=True, _weight=table)

    def forward(self, indices, values):
        z = self.table(indices) * values[:, :, None]
        pairs = z[:, :, :-1]
        return self.bias + z[:, :, -1].sum(1) + (pairs.sum(1) ** 2 - (pairs**2).sum(1)).sum(1) / 2


class Formula(torch.nn.Module):
    """The formula on torch's CSR tensors: gradients are dense."""

    def __init__(self, start):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.w = torch.nn.Parameter(torch.zeros(start.shape[0], 1))
        self.V = torch.nn.Parameter(start.clone())

    def forward(self, X, squared):
        return self.bias + (X @ self.w)[:, 0] + ((X @ self.V) ** 2 - squared @ self.V**2).sum(1) / 2


def tables_of(module):
    return [p for p in module.parameters() if p.dim()]


OURS = {
    "nn.AdaGrad": AdaGrad,
    "nn.LazyAdam": LazyAdam,
    "nn.LazyAdam in the backward pass": functools.partial(LazyAdam, in_backward=True),
}


def optimizer_of(name, module):
    if name in OURS:
        return OURS[name](module.parameters(), lr=1e-3)
    if name == "SparseAdam":
        return torch.optim.SparseAdam(tables_of(module), lr=1e-3)
    return getattr(torch.optim, name)(module.parameters(), lr=1e-3)


def steps(rounds):
    """Forward, backward and a step of an optimiser, on tables of growing length."""
    medians = {}
    for n_features in (10_000, 1_000_000, 8_000_000):
        batches = make_batches(n_features)
        ours = [
            CSRBatch(
                torch.arange(0, N_ROWS * PER_ROW + 1, PER_ROW, dtype=torch.int32),
                indices.reshape(-1).int(),
                values.reshape(-1),
                n_features,
            )
            for indices, values, _ in batches
        ]
        pointers = torch.arange(0, N_ROWS * PER_ROW + 1, PER_ROW)
        shape = (N_ROWS, n_features)
        theirs = [
            tuple(torch.sparse_csr_tensor(pointers, i.reshape(-1), v.reshape(-1) ** p, shape) for p in (1, 2))
            for i, v, _ in batches
        ]
        start = torch.randn(n_features, K, generator=torch.Generator().manual_seed(1)) * 0.01
        fm = FactorizationMachine(n_features, K)
        fm.factors.weight.data.copy_(start)
        scores = fm(ours[0])
        torch.testing.assert_close(Gathered(start, True)(*batches[0][:2]), scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(Formula(start)(*theirs[0]), scores, rtol=1e-4, atol=1e-4)

        def step(module, inputs, name, batches=batches):
            optimizer = optimizer_of(name, module)

            def call(turn):
                optimizer.zero_grad()
                F.mse_loss(module(*inputs[turn % BATCHES]), batches[turn % BATCHES][2]).backward()
                optimizer.step()

            return call

        pairs = [each[:2] for each in batches]
        calls = {}
        for name in ("SGD", "Adagrad", "SparseAdam"):
            layer = FactorizationMachine(n_features, K)
            layer.factors.weight.data.copy_(start)
            calls[f"sparsefm, {name}"] = step(layer, [(each,) for each in ours], name)
            calls[f"embeddings with sparse gradients, {name}"] = step(Gathered(start, True), pairs, name)
            calls[f"one embedding with sparse gradients, {name}"] = step(GatheredOnce(start), pairs, name)
        for name in OURS:
            layer = FactorizationMachine(n_features, K)
            layer.factors.weight.data.copy_(start)
            calls[f"sparsefm, {name}"] = step(layer, [(each,) for each in ours], name)
        slow = {}
        if n_features <= 1_000_000:
            slow["embeddings, Adam"] = step(Gathered(start, False), pairs, "Adam")
            slow["CSR formula, Adam"] = step(Formula(start), theirs, "Adam")
            slow["CSR formula, SGD"] = step(Formula(start), theirs, "SGD")
        seconds = interleaved(calls, rounds // 2, BATCHES) | interleaved(slow, max(3, rounds // 10))
        show(f"One step at {n_features:,} features", seconds, "sparsefm, SGD")
        medians[n_features] = {name: statistics.median(each) for name, each in seconds.items()}
    for name in ("SGD", "Adagrad", "SparseAdam", *OURS):
        ours = {n: each[f"sparsefm, {name}"] for n, each in medians.items()}
        print(f"\nsparsefm, {name}: a step at 8M features takes {ours[8_000_000] / ours[1_000_000]:.2f} of one at 1M")


def dense(rounds):
    """The layer on dense rows, forward and backward, against the formula under autograd."""

    def formula(x, w0, w, V):
        s = x @ V
        return w0 + x @ w + 0.5 * (s * s - (x * x) @ (V * V)).sum(-1)

    print("\nDense rows, forward and backward, medians\n\n| inputs | k | batch | formula | sparsefm | ratio |")
    print("|--:|--:|--:|--:|--:|--:|")
    for n_features, k in ((50, 5), (1000, 16)):
        for n_rows in (1, 8, 64, 512, 4096):
            inputs = [
                torch.randn(shape, requires_grad=True)
                for shape in ((n_rows, n_features), (), n_features, (n_features, k))
            ]
            d = torch.ones(n_rows)

            def both(function, inputs=inputs, d=d):
                def call(turn):
                    for each in inputs:
                        each.grad = None
                    function(*inputs).backward(d)

                return call

            seconds = interleaved({"formula": both(formula), "sparsefm": both(ops.fm_dense)}, rounds)
            plain, ours = (statistics.median(seconds[name]) for name in ("formula", "sparsefm"))
            print(
                f"| {n_features} | {k} | {n_rows} | {plain * 1e6:,.0f} µs | {ours * 1e6:,.0f} µs | {plain / ours:.2f} |"
            )


def overhead(rounds):
    """What a call costs when there is nothing to compute."""
    indptr, indices = torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    data, d = torch.ones(2), torch.ones(1)
    w0, w, V = (torch.zeros(shape, requires_grad=True) for shape in ((), 10, (10, K)))

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, data, w0, w, V):
            return torch.empty(1)

        @staticmethod
        def backward(ctx, d):
            return None, d[0], torch.empty(10), torch.empty(10, K)

    def forward_only(turn):
        with torch.no_grad():
            ops.fm(indptr, indices, data, w0, w, V)

    def backward_too(function):
        def call(turn):
            w0.grad = w.grad = V.grad = None
            function().backward(d)

        return call

    calls = {
        "an autograd.Function that does nothing, forward": lambda turn: Nothing.apply(data, w0, w, V),
        "forward": lambda turn: ops.fm(indptr, indices, data, w0, w, V),
        "forward without gradients": forward_only,
        "an autograd.Function that does nothing, forward and backward": backward_too(
            lambda: Nothing.apply(data, w0, w, V)
        ),
        "forward and backward, row-sparse gradients": backward_too(lambda: ops.fm(indptr, indices, data, w0, w, V)),
        "registered operator, forward and backward": backward_too(
            lambda: torch.ops.sparsefm.fm(indptr, indices, data, w0, w, V)
        ),
    }
    show("A call on one row of two non-zeros", interleaved(calls, 20 * rounds), "forward")


def passes(rounds):
    """The backward pass with its transpose against the forward pass."""
    for n_features in (10_000, 1_000_000, 8_000_000):
        rows = [
            (torch.arange(0, N_ROWS * PER_ROW + 1, PER_ROW, dtype=torch.int32), i.reshape(-1).int(), v.reshape(-1))
            for i, v, _ in make_batches(n_features)
        ]
        w0, w, V, d = torch.zeros(()), torch.zeros(n_features), torch.randn(n_features, K), torch.ones(N_ROWS)
        sums = [csr._forward(*each, w0, w, V, True)[1] for each in rows]
        calls = {
            "forward": lambda turn, rows=rows, rest=(w0, w, V): csr._forward(*rows[turn % BATCHES], *rest, True),
            "backward": lambda turn, rows=rows, rest=(w, V), sums=sums, d=d: csr._backward(
                d, *rows[turn % BATCHES], *rest, sums[turn % BATCHES], False, True
            ),
        }
        show(f"Passes at {n_features:,} features", interleaved(calls, 10 * rounds), "forward")


def processes(rounds):
    """A step under DistributedDataParallel, with row-sparse gradients and with dense ones."""
    dist.init_process_group("gloo")
    for n_features in (200_000, 1_000_000):
        pointers = torch.arange(0, N_ROWS * PER_ROW + 1, PER_ROW, dtype=torch.int32)
        batches = [
            (CSRBatch(pointers, indices.reshape(-1).int(), values.reshape(-1), n_features), y)
            for indices, values, y in make_batches(n_features, seed=dist.get_rank())
        ]

        def step(sparse_grad, n_features=n_features, batches=batches):
            torch.manual_seed(0)
            module = DistributedDataParallel(FactorizationMachine(n_features, K, sparse_grad=sparse_grad))
            optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)

            def call(turn):
                rows, y = batches[turn % BATCHES]
                optimizer.zero_grad()
                F.mse_loss(module(rows), y).backward()
                optimizer.step()

            return call

        calls = {"row-sparse gradients": step(True), "dense gradients": step(False)}
        seconds = interleaved(calls, rounds // 2, BATCHES)
        if dist.get_rank() == 0:
            show(f"{dist.get_world_size()} processes, {n_features:,} features, SGD", seconds, "row-sparse gradients")
    dist.destroy_process_group()


PARTS = {"steps": steps, "dense": dense, "overhead": overhead, "passes": passes, "processes": processes}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=["steps", "dense", "overhead", "passes"])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if os.environ.get("RANK", "0") == "0":
        print(f"torch {torch.__version__}, {args.threads} thread(s); {N_ROWS} rows of {PER_ROW} non-zeros, k = {K}")
    for part in args.only:
        PARTS[part](args.rounds)
