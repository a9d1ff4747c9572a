"""sparsefm.ops: four operators against brute force, in all the ways that torch takes them, and what they refuse.

Run as a program this file goes through the SCENARIOS at its end, each in a forked process of its own, and prints how
each one fared: `test_no_input_brings_the_process_down` reads that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import reference

torch = pytest.importorskip("torch", reason="the torch wing")

import torch.autograd.forward_ad as forward_ad  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from sparsefm import ops  # noqa: E402
from sparsefm._kernels import dispatch, isa  # noqa: E402
from sparsefm.ops import composed  # noqa: E402

SPARSE, DENSE = ("fm", "bi_interaction"), ("fm_dense", "bi_interaction_dense")
OPERATORS = (*SPARSE, *DENSE)
RANKS = (1, 5, 8, 16, 17, 40)
REALS = (torch.float32, torch.float64)
HALVES = (torch.bfloat16, torch.float16)
INDICES = (torch.int32, torch.int64)
ISAS = [dispatch.ISA_NAMES.index(name) for name in isa.supported()]
LENGTHS = (3, 0, 1, 5, 13, 2, 0)  # entries of each row: none, one, all columns
N_FEATURES = 13


@dataclass
class Problem:
    """Rows in both forms, and parameters: every operator takes what it needs."""

    indptr: Any
    indices: Any
    data: Any
    x: Any
    w0: Any
    w: Any
    V: Any

    def inputs(self, op):
        """What the operator is differentiable in, by name."""
        names = ("x",) if op in DENSE else () if self.data is None else ("data",)
        names += ("w0", "w", "V") if op in ("fm", "fm_dense") else ("V",)
        return {name: getattr(self, name) for name in names}

    def __call__(self, op, *, sparse_grad=False, **changed):
        p = replace(self, **changed) if changed else self
        if op == "fm":
            return ops.fm(p.indptr, p.indices, p.data, p.w0, p.w, p.V, sparse_grad=sparse_grad)
        if op == "bi_interaction":
            return ops.bi_interaction(p.indptr, p.indices, p.data, p.V, sparse_grad=sparse_grad)
        return ops.fm_dense(p.x, p.w0, p.w, p.V) if op == "fm_dense" else ops.bi_interaction_dense(p.x, p.V)

    def leaves(self, op):
        """The same problem with leaves that require gradients."""
        return replace(self, **{name: t.detach().clone().requires_grad_() for name, t in self.inputs(op).items()})

    def gradients(self, op, d, **options):
        """Gradients of Σ d · op by name, dense."""
        p = self.leaves(op)
        found = torch.autograd.grad(p(op, **options), tuple(p.inputs(op).values()), d)
        return {name: g.to_dense() if g.is_sparse else g for name, g in zip(p.inputs(op), found, strict=True)}


def make(k=5, real=torch.float64, index=torch.int64, *, ones=False, lengths=LENGTHS, n_features=N_FEATURES, seed=0):
    rng = np.random.default_rng((seed, k))
    columns = [np.sort(rng.choice(n_features, size=n, replace=False)) for n in lengths]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = np.concatenate([*columns, []]).astype(np.int64)
    data = np.ones(len(indices)) if ones else rng.standard_normal(len(indices))
    x = np.zeros((len(lengths), n_features))
    x[np.repeat(np.arange(len(lengths)), lengths), indices] = data
    parameters = (rng.standard_normal(shape) for shape in ((), (n_features,), (n_features, k)))
    return Problem(
        torch.tensor(indptr, dtype=index),
        torch.tensor(indices, dtype=index),
        None if ones else torch.tensor(data, dtype=real),
        *(torch.tensor(each, dtype=real) for each in (x, *parameters)),
    )


def numbers(t):
    """The same numbers in float64; indices stay integers."""
    if t is None:
        return None
    return t.detach().double().numpy() if t.is_floating_point() else t.numpy()


def rows_of(problem, op):
    """CSR arrays for the judge: the dense operators see every column of every row."""
    if op in SPARSE:
        return numbers(problem.indptr), numbers(problem.indices), numbers(problem.data)
    n, m = problem.x.shape
    return np.arange(n + 1) * m, np.tile(np.arange(m), n), numbers(problem.x).ravel()


def brute_force(problem, op):
    """What the operator ought to give, and the size of what it adds up on its way there."""
    rows, w0, w, V = rows_of(problem, op), *map(numbers, (problem.w0.reshape(()), problem.w.reshape(-1), problem.V))
    absolute = None if rows[2] is None else abs(rows[2])
    pairs, size = reference.pairs(*rows, V), reference.pairs(*rows[:2], absolute, abs(V))
    # the square form adds up squares too
    n_rows, x = len(rows[0]) - 1, np.ones(len(rows[1])) if absolute is None else absolute
    np.add.at(size, np.repeat(np.arange(n_rows), np.diff(rows[0])), (x[:, None] * V[rows[1]]) ** 2)
    if op in ("bi_interaction", "bi_interaction_dense"):
        return pairs, size
    linear = reference.magnitude(*rows, w0, w, np.zeros_like(V))
    return reference.score(*rows, w0, w, V), size.sum(1) + linear


def brute_force_gradients(problem, op, d):
    """{name: (gradient, size of what it adds up)}."""
    rows, w0, w, V = rows_of(problem, op), *map(numbers, (problem.w0.reshape(()), problem.w.reshape(-1), problem.V))
    d, absolute = numbers(d), None if rows[2] is None else abs(rows[2])
    if op in ("bi_interaction", "bi_interaction_dense"):
        names = ("V", "values")
        found = reference.pairs_gradient(*rows, V, d)
        sizes = reference.pairs_gradient(*rows[:2], absolute, abs(V), abs(d))
    else:
        names = ("w0", "w", "V", "values")
        found = reference.gradient(*rows, w0, w, V, d)
        sizes = reference.gradient(*rows[:2], absolute, w0, abs(w), abs(V), abs(d))
    # S − z is a sum over the others, found by taking z off again: its own share is rounded too
    x = np.max(1 if absolute is None else absolute, initial=0)
    own = (
        np.max(abs(d), initial=0)
        * np.max(abs(V), initial=0)
        * max(x, x * x, x * np.max(abs(V), initial=0) * V.shape[1])
    )
    judged = {name: (g, 2 * np.max(size, initial=0) + own) for name, g, size in zip(names, found, sizes, strict=True)}
    g, size = judged.pop("values")
    return judged | ({"x": (g.reshape(problem.x.shape), size)} if op in DENSE else {"data": (g, size)})


def assert_close(found, expected, scale, n, dtype):
    """Within n roundings of the type summed in, of what was added up, and one to the type of the result."""
    assert found.dtype == dtype
    assert tuple(found.shape) == np.shape(expected)
    summed, stored = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32), torch.finfo(dtype)
    rounding = stored.eps * np.maximum(np.abs(expected), stored.smallest_normal)
    excess = np.abs(numbers(found) - expected) - n * summed.eps * scale - rounding
    assert (excess <= 0).all(), f"{excess.max()} too far: {numbers(found)} instead of {expected}"


def assert_gradients(found, expected, n, dtype):
    assert found
    for name, g in found.items():
        assert_close(g, *expected[name], n, dtype)


def as_function(p, op, *, sparse_grad=True):
    """The operator as a function of what it is differentiable in, and these values."""
    names = tuple(p.inputs(op))

    def function(*values):
        return p(op, sparse_grad=sparse_grad, **dict(zip(names, values, strict=True)))

    return function, tuple(p.inputs(op).values())


def incoming(problem, op, seed=1):
    """A gradient with respect to the operator's result."""
    out = problem(op)
    return torch.tensor(np.random.default_rng(seed).standard_normal(out.shape), dtype=out.dtype)


def assert_equal(found, expected):
    """The same bits, shape and type; NaN equals NaN."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("real", REALS, ids=str)
@pytest.mark.parametrize("k", (0, *RANKS))
@pytest.mark.parametrize("op", OPERATORS)
def test_values_equal_the_definition(op, k, real, index, ones):
    p = make(k, real, index, ones=ones)
    assert_close(p(op), *brute_force(p, op), N_FEATURES + k + 8, real)


@pytest.mark.parametrize("real", REALS, ids=str)
@pytest.mark.parametrize("k", (1, 17, 40))
@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("path", ISAS)
def test_every_instruction_set_gives_values_and_gradients(monkeypatch, path, op, k, real):
    monkeypatch.setattr(dispatch, "ISA", path)
    p = make(k, real)
    d = incoming(p, op)
    assert_close(p(op), *brute_force(p, op), N_FEATURES + k + 8, real)
    assert_gradients(p.gradients(op, d), brute_force_gradients(p, op, d), N_FEATURES + k + 8, real)


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("real", (*REALS, *HALVES), ids=str)
@pytest.mark.parametrize("k", (0, 5, 17))
def test_the_composed_path_equals_the_definition(monkeypatch, k, real, ones):
    p = make(k, real, ones=ones)
    scores, pairs = brute_force(p, "fm"), brute_force(p, "bi_interaction")
    n = N_FEATURES + k + 8
    w_entries, V_entries = p.w[p.indices], p.V[p.indices]
    assert_close(composed.score(p.indptr, p.data, p.w0, w_entries, V_entries), *scores, n, real)
    assert_close(composed.score(p.indptr, p.data, p.w0[None], w_entries[:, None], V_entries), *scores, n, real)
    assert_close(composed.pairs(p.indptr, p.data, V_entries), *pairs, n, real)
    for numbers_at_once in (1, 1 << 24):  # eight factors at a time, or all
        monkeypatch.setattr(composed, "_TILE_NUMBERS", numbers_at_once)
        rows = p.indptr, p.indices, p.data
        assert_close(composed.forward(*rows, p.w0, p.w, p.V)[0], *scores, n, real)
        assert_close(composed.forward(*rows, p.w0, p.w[:, None], p.V)[0], *scores, n, real)
        assert_close(composed.forward(*rows, None, None, p.V)[0], *pairs, n, real)


@pytest.mark.parametrize("k", RANKS)
def test_the_four_operators_and_the_composed_path_are_one_equation(k):
    p = make(k)
    scores, pairs = p("fm"), p("bi_interaction")
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(p("fm_dense"), scores, **close)
    torch.testing.assert_close(p("bi_interaction_dense"), pairs, **close)
    torch.testing.assert_close(p.w0 + p.x @ p.w + pairs.sum(1), scores, **close)
    torch.testing.assert_close(composed.forward(p.indptr, p.indices, p.data, p.w0, p.w, p.V)[0], scores, **close)
    torch.testing.assert_close(composed.forward(p.indptr, p.indices, p.data, None, None, p.V)[0], pairs, **close)


def test_values_by_hand():
    V = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    indptr, indices, data = torch.tensor([0, 2, 4, 4]), torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 10.0, 1.0, 1.0])
    assert ops.bi_interaction(indptr, indices, data, V).tolist() == [[30, 0], [0, 0], [0, 0]]
    w = torch.tensor([1.0, 2.0, 4.0])
    assert ops.fm(indptr, indices, data, torch.tensor(0.5), w, V).tolist() == [51.5, 6.5, 0.5]
    x = torch.tensor([[1.0, 10.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert ops.bi_interaction_dense(x, V).tolist() == [[30, 0], [0, 0], [0, 0]]
    assert ops.fm_dense(x, torch.tensor(0.5), w, V).tolist() == [51.5, 6.5, 0.5]


@pytest.mark.parametrize("op", SPARSE)
def test_one_large_value_does_not_cancel_the_pairs(op):
    """((Σz)² − Σz²) / 2 loses the small pairs beside one |x| of 1000; the running form keeps them."""
    p = make(16, torch.float32, lengths=(40,), n_features=40, seed=3)
    p.data[7] = 1000.0
    p.V[7] *= 1e-3
    p.w0.zero_()
    expected = brute_force(p, op)[0]
    np.testing.assert_allclose(numbers(p(op)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("k", (5, 16))
@pytest.mark.parametrize("op", SPARSE)
def test_a_column_that_occurs_twice_counts_as_two_features(op, k):
    p = make(k)
    p = replace(p, indices=p.indices.clone())
    p.indices[4:9] = torch.tensor([2, 7, 2, 2, 0])  # and columns in no order
    d = incoming(p, op)
    assert_close(p(op), *brute_force(p, op), 40, torch.float64)
    for sparse_grad in (False, True):
        found = p.gradients(op, d, sparse_grad=sparse_grad)
        assert_gradients(found, brute_force_gradients(p, op, d), 40, torch.float64)


SHAPES = {
    "one row": {"lengths": (4,)},
    "one empty row": {"lengths": (0,)},
    "only empty rows": {"lengths": (0, 0, 0)},
    "no rows": {"lengths": ()},
    "one feature": {"lengths": (1, 0, 1), "n_features": 1},
    "no features": {"lengths": (0, 0), "n_features": 0},
    "no rows and no features": {"lengths": (), "n_features": 0},
}


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", (0, 5, 16))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPERATORS)
def test_small_and_empty_batches(op, shape, k, ones):
    p = make(k, ones=ones, **SHAPES[shape])
    assert_close(p(op), *brute_force(p, op), 40, torch.float64)
    d = incoming(p, op)
    for sparse_grad in (False, True):
        found = p.gradients(op, d, sparse_grad=sparse_grad)
        assert_gradients(found, brute_force_gradients(p, op, d), 40, torch.float64)


@pytest.mark.parametrize("real", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPERATORS)
def test_small_and_empty_batches_in_half_precision(op, shape, real):
    for k in (0, 5):
        p = make(k, real, **SHAPES[shape])
        assert_close(p(op), *brute_force(p, op), 40, real)
        p.gradients(op, incoming(p, op), sparse_grad=True)


@pytest.mark.parametrize("shape", [(), (7, 1), (1, 7), (7, 2), (2, 3, 2), (0, 4), (2, 0, 3)])
@pytest.mark.parametrize("n_features", [0, 1, N_FEATURES])
@pytest.mark.parametrize("op", DENSE)
def test_dense_rows_have_any_leading_shape(op, n_features, shape):
    p = make(5, n_features=n_features, lengths=())
    x = torch.tensor(np.random.default_rng(0).standard_normal((*shape, n_features)), requires_grad=True)
    out = p(op, x=x)
    assert out.shape == (shape if op == "fm_dense" else (*shape, 5))
    rows = x.detach().reshape(int(np.prod(shape)), n_features).requires_grad_()
    expected = p(op, x=rows)
    torch.testing.assert_close(out.reshape(expected.shape), expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert x.grad.shape == x.shape
    torch.testing.assert_close(x.grad.reshape(rows.shape), rows.grad)


def wider(t):
    """t inside a table of more columns, of NaN elsewhere."""
    table = torch.full((len(t), t.shape[1] + 5), torch.nan, dtype=t.dtype)
    table[:, 2 : 2 + t.shape[1]] = t
    return table[:, 2 : 2 + t.shape[1]]


def every_other(t):
    table = torch.full((2 * len(t), *t.shape[1:]), torch.nan).to(t.dtype) if t.is_floating_point() else t.repeat(2)
    table = table.clone()
    table[::2] = t
    return table[::2]


def negated_view(t):
    """t as a tensor whose sign is pending, as the imaginary part of a conjugate is."""
    return torch.complex(torch.zeros_like(t), -t).conj().imag


def negated_in_place(t):
    return torch._neg_view(-t)


LAYOUTS = {
    "V inside a wider table": {"V": wider},
    "V by columns": {"V": lambda V: V.t().contiguous().t()},
    "every other row of V": {"V": every_other},
    "every other column of V": {"V": lambda V: V.repeat_interleave(2, 1)[:, ::2]},
    "V and w in one table": {"V": wider, "w": lambda w: wider(w[:, None])[:, 0]},
    "w as a column": {"w": lambda w: w[:, None]},
    "w as a column of a table": {"w": lambda w: wider(w[:, None])},
    "w strided": {"w": every_other},
    "w0 of one place": {"w0": lambda w0: w0[None]},
    "rows strided": {"indptr": every_other, "indices": every_other, "data": every_other, "x": every_other},
    "x by columns": {"x": lambda x: x.t().contiguous().t()},
    "x inside a wider table": {"x": wider},
    "V with its sign pending": {"V": negated_view},
    "w with its sign pending": {"w": negated_view},
    "values with their sign pending": {"data": negated_view, "x": negated_view},
    "all signs pending, contiguous": dict.fromkeys(("data", "x", "w0", "w", "V"), negated_in_place),
}


@pytest.mark.parametrize("k", (1, 5))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPERATORS)
def test_how_tensors_lie_in_memory_changes_nothing(op, layout, k):
    p = make(k)
    laid = replace(p, **{name: change(getattr(p, name)) for name, change in LAYOUTS[layout].items()})
    expected, d = p(op), incoming(p, op)
    torch.testing.assert_close(laid(op), expected, rtol=1e-12, atol=1e-12)

    inputs = {name: t.detach().requires_grad_() for name, t in laid.inputs(op).items()}
    for sparse_grad in (False, True):
        out = laid(op, sparse_grad=sparse_grad, **inputs)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        found = dict(zip(inputs, torch.autograd.grad(out, tuple(inputs.values()), d), strict=True))
        for name, g in p.gradients(op, d).items():
            assert found[name].shape == inputs[name].shape
            torch.testing.assert_close(found[name].to_dense().reshape(g.shape), g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPERATORS)
def test_repeated_values_may_share_memory(op):
    p = make(5)
    shared = {
        "V": p.V[:1].expand(N_FEATURES, 5),
        "w": p.w[:1].expand(N_FEATURES),
        "x": p.x[:1].expand(7, N_FEATURES),
        "data": p.data[:1].expand(p.data.shape),
    }
    p = replace(p, **shared)
    d = incoming(p, op)
    assert_close(p(op), *brute_force(p, op), 40, torch.float64)
    assert_gradients(p.gradients(op, d), brute_force_gradients(p, op, d), 40, torch.float64)
    narrow = replace(p, V=p.V[:, :1])
    assert_close(narrow(op), *brute_force(narrow, op), 40, torch.float64)


OTHER_TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)


@pytest.mark.parametrize("dtype", OTHER_TYPES, ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_values_of_another_type_are_converted_to_that_of_the_parameters(op, dtype):
    p = make(5, torch.float32)
    given = {name: getattr(p, name).mul(3).abs().to(dtype) for name in ("data", "x")}
    out = p(op, **given)
    assert out.dtype == torch.float32
    assert_equal(out, p(op, **{name: t.float() for name, t in given.items()}))
    if dtype.is_floating_point:
        name = "x" if op in DENSE else "data"
        leaf = given[name].requires_grad_()
        p(op, **{name: leaf}).sum().backward()
        assert leaf.grad.dtype == dtype


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("real", HALVES, ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_half_precision_parameters_are_added_up_in_float32(op, real, k, ones):
    """One rounding to the half type, at the end."""
    p = make(k, real, ones=ones)
    assert_close(p(op), *brute_force(p, op), N_FEATURES + k + 8, real)


@pytest.mark.parametrize("op", OPERATORS)
def test_float16_sums_of_squares_may_exceed_its_range(op):
    """The square of a sum of 300 is no float16 number, the pairs are."""
    p = make(1, torch.float16, lengths=(2,), n_features=2)
    p = replace(p, w0=torch.zeros_like(p.w0), w=torch.zeros_like(p.w), V=torch.tensor([[300.0], [1.0]]).half())
    p = replace(p, data=torch.ones(2).half(), x=torch.ones(1, 2).half())
    assert p(op).flatten().tolist() == [300.0]


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("real", HALVES, ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_half_precision_gradients(op, real, sparse_grad):
    p = make(8, real)
    d = incoming(p, op)
    expected = brute_force_gradients(p, op, d)
    # a row an entry, each rounded before they are added up
    for name, g in p.gradients(op, d, sparse_grad=sparse_grad).items():
        assert g.dtype == real
        assert (np.abs(numbers(g) - expected[name][0]) <= 4 * torch.finfo(real).eps * expected[name][1]).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("k", (1, 5, 16, 17))
@pytest.mark.parametrize("op", OPERATORS)
def test_values_that_are_not_finite_stay_in_their_rows(op, k, bad):
    p = make(k)
    values = p(op)
    p.data[5], p.x[3, p.indices[5]] = bad, bad  # row 3
    out = p(op)
    assert not out[3].isfinite().any()
    if op in SPARSE or not torch.isinf(torch.tensor(bad)):
        kept = torch.arange(len(LENGTHS)) != 3
        torch.testing.assert_close(out[kept], values[kept])
    gradient = p.gradients(op, torch.ones_like(out))["V"]
    assert not gradient[p.indices[5]].isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("k", (1, 5, 17))
@pytest.mark.parametrize("op", SPARSE)
def test_gradients_of_features_in_other_rows_stay_finite(op, k, bad):
    p = make(k, lengths=(2, 3))
    p = replace(p, indices=torch.tensor([0, 1, 2, 3, 4]))
    p.data[1] = bad
    gradients = p.gradients(op, incoming(p, op))
    assert gradients["V"][2:].isfinite().all()
    assert gradients["data"][2:].isfinite().all()
    assert not gradients["V"][0].isfinite().any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("k", (1, 5, 16, 17))
@pytest.mark.parametrize("op", SPARSE)
def test_parameters_that_are_not_finite_reach_the_rows_of_their_feature_only(op, k, bad):
    p = make(k, lengths=(1, 2, 3, 2), n_features=6)
    p = replace(p, indices=torch.tensor([0, 1, 2, 1, 3, 4, 2, 4]))
    p.V[3, k - 1] = bad
    out = p(op)
    assert not out[2].isfinite().all()
    assert out[[0, 1, 3]].isfinite().all()
    p = make(k, lengths=(0, 1), n_features=2)
    p.V[-1] = bad
    assert p(op, indices=torch.tensor([0])).isfinite().all()  # the neighbour in memory is not read


@pytest.mark.parametrize("k", (0, 3, 8, 16))
@pytest.mark.parametrize("op", SPARSE)
def test_a_row_gives_the_same_bits_alone_and_among_others(op, k):
    p = make(k, torch.float32)
    together = p(op)
    for i in range(len(LENGTHS)):
        a, b = p.indptr[i : i + 2].tolist()
        alone = p(op, indptr=torch.tensor([0, b - a]), indices=p.indices[a:b], data=p.data[a:b])
        assert_equal(alone, together[i : i + 1])


# ---------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("index, ones", [(torch.int32, False), (torch.int64, True)])
@pytest.mark.parametrize("real", REALS, ids=str)
@pytest.mark.parametrize("k", (0, *RANKS))
@pytest.mark.parametrize("op", OPERATORS)
def test_gradients_equal_the_definition(op, k, real, index, ones):
    p = make(k, real, index, ones=ones)
    d = incoming(p, op)
    expected = brute_force_gradients(p, op, d)
    for sparse_grad in (False, True) if op in SPARSE else (False,):
        found = p.gradients(op, d, sparse_grad=sparse_grad)
        assert found.keys() == p.inputs(op).keys()
        assert_gradients(found, expected, N_FEATURES + len(LENGTHS) + k + 8, real)


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", (1, 5, 17))
def test_gradients_through_the_composed_path_are_those_of_the_kernels(k, ones):
    p = make(k, ones=ones)
    for op in SPARSE:
        d, leaves = incoming(p, op), p.leaves(op)
        bias, weights = (leaves.w0, leaves.w) if op == "fm" else (None, None)
        out, sums = composed.forward(leaves.indptr, leaves.indices, leaves.data, bias, weights, leaves.V)
        names = tuple(leaves.inputs(op))
        through = torch.autograd.grad(out, tuple(leaves.inputs(op).values()), d)
        written = {"w0": d.sum()}
        for given in (sums.detach(), None):
            g_data, g_w, g_V = composed.backward(d, p.indptr, p.indices, p.data, weights, p.V, given)
            written["data"], written["V"] = g_data, torch.zeros_like(p.V).index_add(0, p.indices, g_V)
            if g_w is not None:
                written["w"] = torch.zeros_like(p.w).index_add(0, p.indices, g_w)
            for name, g in zip(names, through, strict=True):
                torch.testing.assert_close(g, p.gradients(op, d)[name], rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(written[name].detach(), g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_first_and_second_derivatives_equal_finite_differences(op, ones):
    p = make(3, ones=ones, lengths=(2, 0, 3, 1), n_features=4).leaves(op)
    function, leaves = as_function(p, op, sparse_grad=False)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("k", (1, 17))
@pytest.mark.parametrize("op", OPERATORS)
def test_second_derivatives_at_other_ranks(op, k):
    p = make(k, lengths=(2, 0, 3), n_features=3).leaves(op)
    function, leaves = as_function(p, op, sparse_grad=False)
    assert torch.autograd.gradgradcheck(lambda *values: function(*values).sum(), leaves, fast_mode=True)


REGISTERED = {
    "scores": ("data", "w0", "w", "V"),
    "scores of ones": (None, "w0", "w", "V"),
    "pairs": ("data", None, None, "V"),
    "pairs of ones": (None, None, None, "V"),
}


def registered_arguments(which, k=3, *, requires_grad=True):
    """Arguments of sparsefm::fm by name, None among them."""
    p = make(k, lengths=(2, 0, 3, 1), n_features=4)
    arguments = [None if name is None else getattr(p, name) for name in REGISTERED[which]]
    for t in arguments:
        if t is not None:
            t.requires_grad_(requires_grad)
    return p.indptr, p.indices, *arguments


@pytest.mark.parametrize("which", REGISTERED)
def test_derivatives_of_the_registered_operator_equal_finite_differences(which):
    arguments = registered_arguments(which)
    assert torch.autograd.gradcheck(torch.ops.sparsefm.fm, arguments)
    assert torch.autograd.gradgradcheck(torch.ops.sparsefm.fm, arguments)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("op", SPARSE)
def test_the_two_routes_have_the_same_gradients(op, sparse_grad, second):
    p = make(5).leaves(op)
    bias, weights = (p.w0, p.w) if op == "fm" else (None, None)
    routes = p(op, sparse_grad=sparse_grad), torch.ops.sparsefm.fm(p.indptr, p.indices, p.data, bias, weights, p.V)
    leaves, found = tuple(p.inputs(op).values()), []
    for out in routes:
        grads = torch.autograd.grad(out.square().sum(), leaves, create_graph=second)
        if second:
            grads = torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
        found.append((out, *grads))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.to_dense(), b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("k", (0, 5, 16))
@pytest.mark.parametrize("real", (*REALS, torch.bfloat16), ids=str)
def test_row_sparse_gradients_hold_the_features_of_the_batch_and_no_more(real, k, column):
    n_features = 200_000
    p = make(k, real, n_features=n_features, lengths=(4, 0, 9, 1, 0))
    p = replace(p, indices=p.indices % 7 * 28_000, w=p.w[:, None] if column else p.w).leaves("fm")
    g_w0, g_w, g_V, g_data = torch.autograd.grad(p("fm", sparse_grad=True).sum(), (p.w0, p.w, p.V, p.data))
    touched = p.indices.unique()
    assert len(touched) < len(p.indices)
    rows = touched if real in REALS else p.indices  # without a kernel one row an entry
    for leaf, g in ((p.w, g_w), (p.V, g_V)):
        assert g.layout == torch.sparse_coo
        assert g.shape == leaf.shape
        assert g.dtype == leaf.dtype
        assert g.is_coalesced() == (real in REALS)
        assert_equal(g._indices(), rows[None])
        assert g._values().shape == (len(rows), *leaf.shape[1:])
        for part in (g._values(), g._indices()):
            assert part.untyped_storage().nbytes() <= 8 * len(p.indices) * max(1, k)
        assert_equal(g.coalesce().indices(), touched[None])
    assert not g_w0.is_sparse
    assert not g_data.is_sparse


def test_gradients_are_dense_where_that_was_asked_for():
    p = make(5).leaves("fm")
    p("fm", sparse_grad=False).sum().backward()
    assert not p.w.grad.is_sparse
    assert not p.V.grad.is_sparse


@pytest.mark.parametrize("op", SPARSE)
def test_row_sparse_gradients_are_the_default(op):
    p = make(5)
    V = p.V.clone().requires_grad_()
    rows = p.indptr, p.indices, p.data
    (ops.fm(*rows, p.w0, p.w, V) if op == "fm" else ops.bi_interaction(*rows, V)).sum().backward()
    assert V.grad.is_sparse


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("op", SPARSE)
def test_gradients_of_two_batches_accumulate(op, sparse_grad):
    p, other = make(5, seed=1), make(5, seed=2, ones=True)
    shared = p.leaves(op)
    for batch in (p, other, p):
        rows = {"indptr": batch.indptr, "indices": batch.indices, "data": batch.data}
        shared(op, sparse_grad=sparse_grad, **rows).sum().backward()
    for name in ("w", "V") if op == "fm" else ("V",):
        expected = torch.zeros_like(getattr(p, name))
        for batch in (p, other, p):
            one = replace(batch, w0=p.w0, w=p.w, V=p.V)
            expected += one.gradients(op, torch.ones_like(p(op)))[name]
        found = getattr(shared, name).grad
        assert found.is_sparse == sparse_grad
        torch.testing.assert_close(found.to_dense(), expected, rtol=1e-12, atol=1e-12)


def test_row_sparse_gradients_of_w_and_V_can_be_changed_separately():
    p = make(5).leaves("fm")
    p("fm", sparse_grad=True).sum().backward()
    before = p.V.grad.clone()
    p.w.grad.mul_(0)
    p.w.grad.add_(p.w.grad)
    assert_equal(p.V.grad.to_dense(), before.to_dense())


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("real", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_any_subset_of_the_inputs_may_require_gradients(op, real, sparse_grad):
    p = make(5, real)
    d = incoming(p, op)
    expected = p.gradients(op, d, sparse_grad=sparse_grad)
    for size in range(1, len(expected) + 1):
        for names in combinations(expected, size):
            leaves = {name: getattr(p, name).clone().requires_grad_() for name in names}
            out = p(op, sparse_grad=sparse_grad, **leaves)
            out.backward(d)
            for name in names:
                assert_equal(leaves[name].grad.to_dense(), expected[name])


@pytest.mark.parametrize("op", OPERATORS)
def test_no_input_requires_gradients(op):
    assert not make(5)(op, sparse_grad=True).requires_grad


INCOMING = {
    "expanded": lambda d: d.reshape(-1)[0].expand(d.shape),
    "strided": lambda d: torch.stack([d, d.mul(7)], -1)[..., 0],
    "by columns": lambda d: d.t().contiguous().t() if d.dim() == 2 else d,
    "a part of a wider table": lambda d: wider(d) if d.dim() == 2 else d,
    "one row for all": lambda d: d[:1].expand(d.shape),
    "sign pending": negated_view,
    "sign pending, contiguous": negated_in_place,
}


@pytest.mark.parametrize("k", (1, 5, 16))
@pytest.mark.parametrize("layout", INCOMING)
@pytest.mark.parametrize("op", OPERATORS)
def test_incoming_gradients_may_lie_anyhow(op, layout, k):
    p = make(k)
    d = INCOMING[layout](incoming(p, op))
    for sparse_grad in (False, True) if op in SPARSE else (False,):
        found = p.gradients(op, d, sparse_grad=sparse_grad)
        plain = p.gradients(op, d.resolve_neg().clone(memory_format=torch.contiguous_format), sparse_grad=sparse_grad)
        for name, g in plain.items():
            torch.testing.assert_close(found[name], g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPERATORS)
def test_a_sum_sends_back_ones(op):
    p = make(5).leaves(op)
    out = p(op)
    out.sum().backward()
    for name, g in p.gradients(op, torch.ones_like(out)).items():
        torch.testing.assert_close(getattr(p, name).grad, g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_a_graph_that_is_kept_can_be_used_again(op, sparse_grad):
    p = make(5).leaves(op)
    leaves, out = tuple(p.inputs(op).values()), p(op, sparse_grad=sparse_grad).sum()
    first = torch.autograd.grad(out, leaves, retain_graph=True)
    second = torch.autograd.grad(out, leaves)
    for a, b in zip(first, second, strict=True):
        assert_equal(a.to_dense(), b.to_dense())
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(out, leaves)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("op", OPERATORS)
def test_modes_without_gradients_give_the_same_values(op, mode):
    p = make(5).leaves(op)
    expected = p(op)
    assert expected.requires_grad
    with mode():
        out = p(op, sparse_grad=True)
    assert not out.requires_grad
    assert_equal(out.clone(), expected.detach())


@pytest.mark.parametrize("op", OPERATORS)
def test_gradients_through_a_checkpoint_and_tensors_saved_elsewhere(op):
    p = make(5)
    expected = p.gradients(op, incoming(p, op))

    kept, again = p.leaves(op), p.leaves(op)
    with torch.autograd.graph.save_on_cpu():
        kept(op).backward(incoming(p, op))
    function, _ = as_function(again, op, sparse_grad=False)
    checkpoint(function, *again.inputs(op).values(), use_reentrant=False).backward(incoming(p, op))
    for name, g in expected.items():
        assert_equal(getattr(kept, name).grad, g)
        assert_equal(getattr(again, name).grad, g)


@pytest.mark.parametrize("name", ["indptr", "indices", "data", "w", "V"])
def test_a_change_in_place_before_the_backward_pass_is_noticed(name):
    p = make(5).leaves("fm")
    out = p("fm").sum()
    with torch.no_grad():
        getattr(p, name)[0] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.parametrize("op", OPERATORS)
def test_a_batch_of_incoming_gradients(op):
    """What a vectorised Jacobian asks for."""
    p = make(3).leaves(op)
    out, leaves = p(op), tuple(p.inputs(op).values())
    several = torch.stack([incoming(p, op, seed) for seed in range(4)])
    found = torch.autograd.grad(out, leaves, several, is_grads_batched=True, retain_graph=True)
    for i, d in enumerate(several):
        expected = torch.autograd.grad(out, leaves, d, retain_graph=True)
        for g, e in zip(found, expected, strict=True):
            torch.testing.assert_close(g[i], e, rtol=1e-12, atol=1e-12)


@pytest.fixture
def threads():
    """Sets the number of threads; restores it in the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def large():
    """Enough for several pieces of work, and for torch to share a sum among threads."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 17, 40_000)
    indptr = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))
    indices = torch.tensor(rng.integers(0, 5_000, int(indptr[-1])))
    values = (rng.standard_normal(shape, dtype=np.float32) for shape in ((len(indices),), (4_000, 100)))
    parameters = (rng.standard_normal(shape, dtype=np.float32) for shape in ((), (5_000,), (5_000, 17)))
    p = Problem(indptr, indices, *(torch.tensor(each) for each in (*values, *parameters)))
    assert len(indices) * 21 > 3 * dispatch._WORK_PER_PIECE
    assert p.x.numel() * 18 > 3 * dispatch._WORK_PER_PIECE
    return p


def same_at_any_number_of_threads(threads, results):
    for n in (1, 2, 3, 5):
        threads(n)
        found = results()
        if n == 1:
            expected = found
        for a, b in zip(found, expected, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("k", (0, 5, 16))
@pytest.mark.parametrize("op", OPERATORS)
def test_how_the_work_is_cut_changes_nothing(monkeypatch, threads, op, k):
    p = make(k, torch.float32, lengths=LENGTHS * 9, n_features=50)
    d = incoming(p, op)
    expected = p(op), p.gradients(op, d)
    threads(3)
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1)
    assert_equal((p(op), p.gradients(op, d)), expected)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("op", SPARSE)
def test_rows_give_the_same_bits_at_any_number_of_threads(threads, large, op, sparse_grad):
    def results():
        gradients = large.gradients(op, d, sparse_grad=sparse_grad)
        gradients.pop("w0", None)
        return large(op), *gradients.values()

    d = incoming(large, op)
    same_at_any_number_of_threads(threads, results)


def test_dense_scores_give_the_same_bits_at_any_number_of_threads(threads, large):
    p = replace(large, w=large.w[:100], V=large.V[:100])
    d = incoming(p, "fm_dense")
    same_at_any_number_of_threads(threads, lambda: (p("fm_dense"), *p.gradients("fm_dense", d).values()))


def test_the_gradient_of_the_bias_has_the_same_bits_at_any_number_of_threads(threads, large):
    d = incoming(large, "fm")
    same_at_any_number_of_threads(threads, lambda: [large.gradients("fm", d)["w0"]])


@pytest.mark.parametrize("op", OPERATORS)
def test_repetitions_give_the_same_bits(op):
    p = make(17, torch.float32)
    d = incoming(p, op)
    expected = p(op), p.gradients(op, d, sparse_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            assert_equal((p(op), p.gradients(op, d, sparse_grad=True)), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("op", OPERATORS)
def test_several_threads_may_call_at_once(op):
    problems = [make(k, lengths=LENGTHS * 20, seed=k) for k in range(1, 9)]
    several = [(p, incoming(p, op)) for p in problems]

    def results(pair):
        p, d = pair
        return p(op), p.gradients(op, d, sparse_grad=True)

    expected = [results(each) for each in several]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(results, several * 5), expected * 5, strict=True):
            assert_equal(found, right)


# -------------------------------------------------------------------------------------------------------- integration


@pytest.mark.parametrize("which, k", [*((which, 3) for which in REGISTERED), ("scores", 0), ("pairs", 16)])
def test_the_registered_operators_are_as_they_say(which, k):
    arguments = registered_arguments(which, k)
    torch.library.opcheck(torch.ops.sparsefm.fm.default, arguments)
    indptr, indices, data, _, w, V = arguments
    d = torch.randn(len(indptr) - 1, *(() if w is not None else (k,)), dtype=V.dtype, requires_grad=True)
    torch.library.opcheck(torch.ops.sparsefm.fm_backward.default, (d, indptr, indices, data, w, V))


@pytest.mark.parametrize("change", [wider, lambda t: t.t().contiguous().t()], ids=["wider table", "by columns"])
def test_the_registered_operators_are_as_they_say_for_tensors_that_lie_otherwise(change):
    p = make(3)
    p = replace(p, w=wider(p.w[:, None]), V=change(p.V))
    arguments = p.indptr, p.indices, p.data, p.w0, p.w, p.V
    for t in arguments[2:]:
        t.requires_grad_()
    torch.library.opcheck(torch.ops.sparsefm.fm.default, arguments)
    d = torch.randn(len(LENGTHS), dtype=torch.float64)
    torch.library.opcheck(torch.ops.sparsefm.fm_backward.default, (d, p.indptr, p.indices, p.data, p.w, p.V))


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batches(ones, sizes=(LENGTHS, LENGTHS + LENGTHS, (2, 3), (4, 0, 0, 1, 6))):
    """Batches of several sizes with the parameters of the first."""
    first = make(5, ones=ones)
    for seed, lengths in enumerate(sizes):
        yield replace(make(5, ones=ones, lengths=lengths, seed=seed), w0=first.w0, w=first.w, V=first.V)


def assert_compiled_equals_eager(op, problems, backend):
    """Values and gradients of a function around the operator, compiled once for all sizes, beside the eager ones."""

    def function(scale, *tensors):
        p = Problem(*tensors)
        return (scale * p(op, sparse_grad=True)).tanh()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for batch in problems:
        results = []
        for each in (compiled, function):
            p = batch.leaves(op)
            tensors = (getattr(p, name) for name in Problem.__dataclass_fields__)
            out = each(torch.tensor(0.1, dtype=torch.float64), *tensors)
            out.sum().backward()
            results.append((out.detach(), *(t.grad for t in p.inputs(op).values())))
        for found, expected in zip(*results, strict=True):
            assert not found.is_sparse
            torch.testing.assert_close(found, expected.to_dense(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_compiled_functions_equal_eager_ones(fresh_compiler, op, ones):
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_compiled_equals_eager(op, batches(ones), "aot_eager")


@pytest.mark.parametrize("op", ["fm", "bi_interaction", "fm_dense"])
def test_compiled_functions_take_one_row_and_none(fresh_compiler, op):
    """Sizes of which torch compiles a version each."""
    assert_compiled_equals_eager(op, batches(False, [(3,), (), (0, 0, 0)]), "aot_eager")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
def test_inductor(fresh_compiler):
    assert_compiled_equals_eager("fm", batches(False), "inductor")


def test_a_compiled_function_checks_the_rows_of_each_call(fresh_compiler):
    compiled = torch.compile(lambda *a: ops.fm(*a), fullgraph=True, dynamic=True, backend="aot_eager")
    p = make(5)
    compiled(p.indptr, p.indices, p.data, p.w0, p.w, p.V)
    bad = p.indices.clone()
    bad[4] = 13
    with pytest.raises(ValueError, match="column index 13 in row 3 is outside 0 … 12"):
        compiled(p.indptr, bad, p.data, p.w0, p.w, p.V)


@pytest.mark.parametrize("transform, op", [*(("grad", op) for op in OPERATORS), ("vmap", "fm"), ("vmap", "fm_dense")])
def test_compiled_transforms(fresh_compiler, op, transform):
    p = make(3)

    def function(V):
        return p(op, V=V).square().sum()

    function = torch.func.grad(function) if transform == "grad" else torch.func.vmap(function)
    V = p.V if transform == "grad" else torch.stack([p.V, p.V * 2])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(V), function(V), rtol=1e-12, atol=1e-12)


def jacobians(p, op):
    """∂out/∂each input, one row of eager gradients at a time."""
    size = p(op).numel()
    rows = [tuple(p.gradients(op, d.reshape(p(op).shape)).values()) for d in torch.eye(size, dtype=torch.float64)]
    return [torch.stack(each).reshape(*p(op).shape, *each[0].shape) for each in zip(*rows, strict=True)]


# torch's own way to the derivatives of derivatives
scripted = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@scripted
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_transforms_of_first_order(op, ones):
    p = make(3, ones=ones, lengths=(2, 0, 3, 1), n_features=4)
    function, values = as_function(p, op)
    everywhere, out = tuple(range(len(values))), p(op)
    exact = jacobians(p, op)
    close = {"rtol": 1e-11, "atol": 1e-11}

    d = incoming(p, op)
    found = torch.func.grad(lambda *v: (function(*v) * d).sum(), everywhere)(*values)
    value, pullback = torch.func.vjp(function, *values)
    for g, again, expected in zip(found, pullback(d), p.gradients(op, d).values(), strict=True):
        torch.testing.assert_close(g, expected, **close)
        torch.testing.assert_close(again, expected, **close)

    tangents = tuple(torch.randn_like(t) for t in values)
    pushed, tangent = torch.func.jvp(function, values, tangents)
    along = sum(J.reshape(out.numel(), -1) @ t.reshape(-1) for J, t in zip(exact, tangents, strict=True))
    torch.testing.assert_close(value, out, **close)
    torch.testing.assert_close(pushed, out, **close)
    torch.testing.assert_close(tangent, along.reshape(out.shape), **close)

    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for J, expected in zip(transform(function, everywhere)(*values), exact, strict=True):
            torch.testing.assert_close(J, expected, **close)


@scripted
@pytest.mark.parametrize("op", OPERATORS)
def test_transforms_of_second_order(op):
    p = make(2, lengths=(2, 0, 3, 1), n_features=3)
    function, values = as_function(p, op, sparse_grad=False)
    everywhere = tuple(range(len(values)))

    def loss(*v):
        return function(*v).square().sum()

    found = torch.func.hessian(loss, everywhere)(*values)
    expected = torch.autograd.functional.hessian(loss, values)
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("op", OPERATORS)
def test_several_models_at_once(op):
    """vmap over stacked parameters, as for an ensemble."""
    p = make(3)
    models = [make(3, seed=seed) for seed in (5, 6, 7)]
    stacked = [torch.stack([getattr(model, name) for model in models]) for name in ("w0", "w", "V")]
    found = torch.func.vmap(lambda w0, w, V: p(op, w0=w0, w=w, V=V))(*stacked)
    each = torch.stack([p(op, w0=model.w0, w=model.w, V=model.V) for model in models])
    torch.testing.assert_close(found, each, rtol=1e-12, atol=1e-12)
    scaled = torch.func.vmap(lambda scale: p(op, data=p.data * scale, x=p.x * scale))(torch.arange(3.0).double())
    each = torch.stack([p(op, data=p.data * s, x=p.x * s) for s in (0.0, 1.0, 2.0)])
    torch.testing.assert_close(scaled, each, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", DENSE)
def test_gradients_of_each_dense_row(op):
    p = make(3)
    torch.testing.assert_close(torch.func.vmap(lambda x: p(op, x=x))(p.x), p(op), rtol=1e-12, atol=1e-12)
    found = torch.func.vmap(torch.func.grad(lambda V, x: p(op, x=x, V=V).sum()), in_dims=(None, 0))(p.V, p.x)
    for i in range(len(p.x)):
        one = replace(p, x=p.x[i : i + 1])
        torch.testing.assert_close(found[i], one.gradients(op, torch.ones_like(one(op)))["V"], rtol=1e-12, atol=1e-12)


@scripted
@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.no_grad])
@pytest.mark.parametrize("op", OPERATORS)
def test_dual_numbers_get_their_tangent_or_are_refused(op, mode):
    """Forward-mode differentiation outside torch.func: a result without a tangent would say that it is zero."""
    p = make(3)
    _, expected = torch.func.jvp(lambda V: p(op, V=V), (p.V,), (torch.ones_like(p.V),))
    with forward_ad.dual_level(), mode(), contextlib.suppress(NotImplementedError):
        out = p(op, V=forward_ad.make_dual(p.V, torch.ones_like(p.V)))
        tangent = forward_ad.unpack_dual(out).tangent
        assert tangent is not None
        torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_autocast_keeps_the_type_and_the_precision_of_the_parameters(op, values):
    p = make(17, torch.float32)
    p = replace(p, data=p.data.to(values), x=p.x.to(values))
    d = incoming(p, op)
    expected, gradients = p(op), p.gradients(op, d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = p(op)
        leaves = p.leaves(op)
        graph = leaves(op)
    assert out.dtype == torch.float32
    assert_equal(out, expected)
    graph.backward(d)
    for name, g in gradients.items():
        assert_equal(getattr(leaves, name).grad, g)


@pytest.mark.parametrize("op", [*SPARSE, "fm_dense"])  # the last of the four is plain operations of torch
def test_a_backward_pass_under_autocast_keeps_the_precision(op):
    p = make(17, torch.float32)
    d = incoming(p, op)
    expected = p.gradients(op, d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = p.gradients(op, d)
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g)


@pytest.mark.parametrize("op", OPERATORS)
def test_transforms_and_compiled_functions_keep_the_precision_under_autocast(fresh_compiler, op):
    p = make(17, torch.float32)
    expected = p(op)
    function, values = as_function(p, op)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        through = torch.func.vjp(function, *values)[0]
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(*values)
    torch.testing.assert_close(through, expected)
    torch.testing.assert_close(compiled, expected)


class Wrapped(torch.nn.Module):
    def __init__(self, op, problem):
        super().__init__()
        self.op = op
        self.w0, self.w, self.V = (torch.nn.Parameter(t) for t in (problem.w0, problem.w, problem.V))

    def forward(self, indptr, indices, data, x):
        return Problem(indptr, indices, data, x, self.w0, self.w, self.V)(self.op, sparse_grad=True)


def arguments_of(p):
    return p.indptr, p.indices, p.data, p.x


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_exported_modules_take_batches_of_any_size(op, ones):
    """From two rows on: torch makes an assumption about sizes of one, here of len(indptr) − 1."""
    first, *others = batches(ones)
    n_bounds, nnz, n_rows = torch.export.Dim("n_bounds", min=3), torch.export.Dim("nnz"), torch.export.Dim("n_rows")
    shapes = {0: n_bounds}, {0: nnz}, None if ones else {0: nnz}, {0: n_rows}
    module = Wrapped(op, first)
    program = torch.export.export(module, arguments_of(first), dynamic_shapes=shapes).module()
    for p in (first, *others):
        torch.testing.assert_close(program(*arguments_of(p)), module(*arguments_of(p)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPERATORS)
def test_modules_are_functions_of_their_parameters(op):
    p = make(3)
    module, other = Wrapped(op, p), make(3, seed=9)
    found = functional_call(module, {"w0": other.w0, "w": other.w, "V": other.V}, arguments_of(p))
    assert_equal(found.detach(), p(op, w0=other.w0, w=other.w, V=other.V))


@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_fake_tensors_get_the_shape_and_type_of_the_result(op, real):
    p = make(3, real).leaves(op)
    out = p(op)
    with FakeTensorMode() as mode:
        fake = Problem(*(mode.from_tensor(getattr(p, name)) for name in Problem.__dataclass_fields__))
        found = fake(op)
        assert (found.shape, found.dtype, found.device) == (out.shape, out.dtype, out.device)
        found.sum().backward()
        for name, t in p.inputs(op).items():
            assert getattr(fake, name).grad.shape == t.shape


@pytest.mark.parametrize("op", OPERATORS)
def test_rows_and_parameters_on_the_meta_device_give_a_shape(op):
    p = make(3)
    meta = Problem(*(getattr(p, name).to("meta") for name in Problem.__dataclass_fields__)).leaves(op)
    out = meta(op)
    assert out.is_meta
    assert out.shape == p(op).shape
    out.sum().backward()
    assert meta.V.grad.shape == p.V.shape


# ------------------------------------------------------------------------------------------------------------- errors


def put(t, place, value):
    t = t.clone()
    t[place] = value
    return t


# Row 3 of LENGTHS holds entries 4 … 8; there are 24 in all.
BAD_ROWS = {
    "too large an index": (
        lambda p: {"indices": put(p.indices, 6, 13)},
        r"column index 13 in row 3 is outside 0 … 12",
    ),
    "an index at the end": (lambda p: {"indices": put(p.indices, 23, 13)}, r"column index 13 in row 5 is outside"),
    "a negative index": (lambda p: {"indices": put(p.indices, 4, -1)}, r"column index -1 in row 3 is outside 0 … 12"),
    "a huge index": (
        lambda p: {"indices": put(p.indices, 0, torch.iinfo(p.indices.dtype).max)},
        r"column index \d+ in row 0",
    ),
    "a very negative index": (
        lambda p: {"indices": put(p.indices, 0, torch.iinfo(p.indices.dtype).min)},
        r"column index -\d+ in row 0",
    ),
    "indptr begins above 0": (lambda p: {"indptr": put(p.indptr, 0, 1)}, r"indptr must begin with 0"),
    "indptr shifted": (
        lambda p: {"indptr": p.indptr + 1},
        r"end with the number of indices, 24; it runs from 1 to 25",
    ),
    "indptr begins below 0": (lambda p: {"indptr": put(p.indptr, 0, -1)}, r"runs from -1 to 24"),
    "indptr falls": (lambda p: {"indptr": put(p.indptr, 2, 0)}, r"falls on the way"),
    "indptr leaves the entries and returns": (lambda p: {"indptr": put(p.indptr, 3, 30)}, r"falls on the way"),
    "indptr ends early": (lambda p: {"indptr": put(p.indptr, slice(6, 8), 23)}, r"runs from 0 to 23"),
    "indptr ends late": (lambda p: {"indptr": put(p.indptr, 7, 25)}, r"runs from 0 to 25"),
    "no rows but entries": (lambda p: {"indptr": p.indptr[:1]}, r"number of indices, 24; it runs from 0 to 0"),
}

BAD_TYPES = {
    "int32 beside int64": (lambda p: {"indptr": p.indptr.int()}, r"both int32 or both int64; got .*int32.*int64"),
    "int64 beside int32": (lambda p: {"indices": p.indices.int()}, r"both int32 or both int64; got .*int64.*int32"),
    "float rows": (
        lambda p: {"indptr": p.indptr.double(), "indices": p.indices.double()},
        r"both int32 or both int64; got .*float64",
    ),
    "short integers": (lambda p: {"indptr": p.indptr.short(), "indices": p.indices.short()}, r"got .*int16"),
    "booleans": (lambda p: {"indptr": p.indptr.bool(), "indices": p.indices.bool()}, r"got .*bool"),
    "empty indptr": (lambda p: {"indptr": p.indptr[:0]}, r"indptr must be \(n_rows \+ 1,\).* got shape \(0,\)"),
    "indptr as a table": (lambda p: {"indptr": p.indptr[None]}, r"got shape \(1, 8\)"),
    "indices as a table": (lambda p: {"indices": p.indices[None]}, r"and shape \(1, 24\)"),
    "a number for indptr": (lambda p: {"indptr": p.indptr[0]}, r"got shape \(\)"),
    "too few values": (lambda p: {"data": p.data[:-1]}, r"one real value for each of the 24 indices.* \(23,\)"),
    "too many values": (lambda p: {"data": torch.cat([p.data, p.data])}, r"for each of the 24 indices.* \(48,\)"),
    "one value": (lambda p: {"data": p.data[0]}, r"for each of the 24 indices.* got shape \(\)"),
    "values in a column": (lambda p: {"data": p.data[:, None]}, r"for each of the 24 indices.* \(24, 1\)"),
    "complex values": (lambda p: {"data": p.data.cdouble()}, r"one real value .*complex128"),
    "values on another device": (lambda p: {"data": p.data.to("meta")}, r"beside them on cpu; .*meta"),
    "indices on another device": (lambda p: {"indices": p.indices.to("meta")}, r"on one device; .* on meta"),
    "indptr on another device": (lambda p: {"indptr": p.indptr.to("meta")}, r"on one device; .*indptr on meta"),
    "rows on another device": (
        lambda p: {name: getattr(p, name).to("meta") for name in ("indptr", "indices", "data")},
        r"on one device; .*V on cpu.*move the batch with \.to\(device\)",
    ),
    "V on another device": (lambda p: {"V": p.V.to("meta")}, r"one device; .*meta"),
}

BAD_PARAMETERS = {
    "w too short": (lambda p: {"w": p.w[:-1]}, r"w \(n_features,\) or .*\(12,\) and \(13, 5\)"),
    "w too long": (lambda p: {"w": torch.cat([p.w, p.w])}, r"w \(n_features,\) or .*\(26,\)"),
    "w as a row": (lambda p: {"w": p.w[None]}, r"w \(n_features,\) or .*\(1, 13\)"),
    "w of three axes": (lambda p: {"w": p.w[:, None, None]}, r"w \(n_features,\) or .*\(13, 1, 1\)"),
    "w a number": (lambda p: {"w": p.w[0]}, r"w \(n_features,\) or .*got shapes \(\), \(\)"),
    "w0 of two": (lambda p: {"w0": p.w[:2]}, r"w0 must be one number.*got shapes \(2,\)"),
    "w0 of none": (lambda p: {"w0": p.w[:0]}, r"w0 must be one number.*got shapes \(0,\)"),
    "w0 of another type": (lambda p: {"w0": p.w0.float()}, r"one type and one device; got torch.float32"),
    "w of another type": (lambda p: {"w": p.w.float()}, r"one type and one device; .*float32"),
    "V of another type beside": (lambda p: {"V": p.V.float()}, r"one type and one device; .*float32"),
    "w on another device": (lambda p: {"w": p.w.to("meta")}, r"one device; .*on meta"),
    "w0 on another device": (lambda p: {"w0": p.w0.to("meta")}, r"one device; .*on meta"),
}

BAD_FACTORS = {
    "V a vector": (lambda p: {"V": p.V[:, 0]}, r"V .*\(n_features, n_factors\).*\(13,\)"),
    "V of three axes": (lambda p: {"V": p.V[None]}, r"V .*\(n_features, n_factors\).*\(1, 13, 5\)"),
    "complex": (lambda p: {name: getattr(p, name).cdouble() for name in ("w0", "w", "V")}, r"complex128"),
    "integers": (lambda p: {name: getattr(p, name).long() for name in ("w0", "w", "V")}, r"int64"),
}

BAD_DENSE = {
    "x too narrow": (lambda p: {"x": p.x[:, :-1]}, r"x must be \(…, n_features\).*\(7, 12\) and \(13, 5\)"),
    "x too wide": (lambda p: {"x": torch.cat([p.x, p.x], 1)}, r"x must be \(…, n_features\).*\(7, 26\)"),
    "x by columns": (lambda p: {"x": p.x.t()}, r"x must be \(…, n_features\).*\(13, 7\)"),
    "x a number": (lambda p: {"x": p.x[0, 0]}, r"x must be \(…, n_features\).*\(\)"),
    "x complex": (lambda p: {"x": p.x.cdouble()}, r"x must hold real numbers.*complex128"),
    "x on another device": (lambda p: {"x": p.x.to("meta")}, r"beside the parameters on cpu.*meta"),
}


def cases(operators, table):
    """(operator, change, message) for each operator and each case of the table."""
    return [
        pytest.param(op, change, message, id=f"{op}-{name}")
        for op in operators
        for name, (change, message) in table.items()
    ]


@pytest.mark.parametrize(
    "op, change, message",
    [
        *cases(SPARSE, BAD_ROWS | BAD_TYPES),
        *cases(("fm", "fm_dense"), BAD_PARAMETERS),
        *cases(OPERATORS, BAD_FACTORS),
        *cases(DENSE, BAD_DENSE),
    ],
)
def test_what_does_not_belong_together_is_refused(op, change, message):
    p = make(5)
    with pytest.raises(ValueError, match=message):
        p(op, **change(p))


@pytest.mark.parametrize("op, change, message", cases(SPARSE, BAD_ROWS))
def test_the_registered_operator_checks_rows(op, change, message):
    p = make(5)
    p = replace(p, **change(p))
    parameters = (p.w0, p.w, p.V) if op == "fm" else (None, None, p.V)
    with pytest.raises(ValueError, match=message):
        torch.ops.sparsefm.fm(p.indptr, p.indices, p.data, *parameters)


@pytest.mark.parametrize("op", SPARSE)
def test_a_row_number_counts_empty_rows(op):
    p = make(5, lengths=(0, 0, 2, 0, 0, 1, 0))
    with pytest.raises(ValueError, match="column index 99 in row 5"):
        p(op, indices=put(p.indices, 2, 99))
    with pytest.raises(ValueError, match="column index 99 in row 2"):
        p(op, indices=put(p.indices, 0, 99))


def test_the_first_of_several_bad_indices_is_named():
    p = make(5)
    with pytest.raises(ValueError, match="column index -7 in row 0"):
        p("fm", indices=put(put(p.indices, 20, 99), 1, -7))


@pytest.mark.parametrize("op", SPARSE)
def test_no_index_is_known_to_a_model_without_features(op):
    p = make(5)
    with pytest.raises(ValueError, match="column index"):
        p(op, w=p.w[:0], V=p.V[:0])


# ------------------------------------------------------------------------------------------- the process stays alive

SCENARIOS = {}


def scenario(function):
    """A test that may bring its process down: it runs in a forked one, see __main__."""
    SCENARIOS[function.__name__] = function
    return function


def changed_behind_torch(name, value):
    """A backward pass after one entry of the rows was changed through memory shared with NumPy."""
    for op in SPARSE:
        for sparse_grad in (False, True):
            p = make(5).leaves(op)
            out = p(op, sparse_grad=sparse_grad)
            getattr(p, name).numpy()[2] = value
            with contextlib.suppress(ValueError, RuntimeError, IndexError):
                out.sum().backward()


@scenario
def malformed_rows_beside_parameters_of_any_type():
    """What has no kernel hands the rows to torch's operators, some of which write where the rows say."""
    for real in (*REALS, *HALVES):
        for index in INDICES:
            p = make(5, real, index)
            for op in SPARSE:
                for change, message in BAD_ROWS.values():
                    for requires_grad in (False, True):
                        p.V.requires_grad_(requires_grad)
                        with pytest.raises(ValueError, match=message):
                            p(op, **change(p))


@scenario
def malformed_rows_in_a_transform():
    """Here torch's own complaint about an index will do."""
    p = make(5)
    for op in SPARSE:
        for name, (change, _) in BAD_ROWS.items():
            try:
                torch.func.grad(lambda V, op=op, change=change: p(op, V=V, **change(p)).sum())(p.V)
            except (ValueError, IndexError, RuntimeError):
                continue
            pytest.fail(f"{op} takes {name}")


@scenario
def indices_changed_behind_torch():
    for value in (2**40, -(2**40), 10**9, -1, 2**63 - 1):
        changed_behind_torch("indices", value)


@scenario
def indptr_changed_behind_torch():
    for value in (2**40, -(2**40), 10**9, -1, 2**63 - 1):
        changed_behind_torch("indptr", value)


@scenario
def indices_changed_through_data():
    p = make(5).leaves("fm")
    out = p("fm")
    p.indices.data[0] = 2**40
    with contextlib.suppress(ValueError, RuntimeError, IndexError):
        out.sum().backward()


def replaced(name, value, p, op, **options):
    """A backward pass after a parameter got other memory."""
    out = p(op, **options)
    getattr(p, name).data = value
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        out.sum().backward()


@scenario
def fewer_features_at_the_backward_pass():
    for op in ("fm", "bi_interaction"):
        for sparse_grad in (False, True):
            p = make(1, torch.float32)
            p = replace(p, V=torch.zeros(20_000_000, 1), w=torch.zeros(1).expand(20_000_000))
            p = replace(p, indices=p.indices + 19_999_000).leaves(op)
            replaced("V", torch.zeros(2, 1), p, op, sparse_grad=sparse_grad)


@scenario
def more_factors_at_the_backward_pass():
    for op in OPERATORS:
        p = make(1, lengths=(2, 1, 2), n_features=2).leaves(op)
        replaced("V", torch.zeros(2, 5_000_000, dtype=torch.float64), p, op)


@scenario
def another_type_at_the_backward_pass():
    for op in OPERATORS:
        for before, after in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
            p = make(5, before, lengths=LENGTHS * 1000).leaves(op)
            replaced("V", p.V.detach().to(after), p, op)


@scenario
def fewer_weights_at_the_backward_pass():
    p = make(5, torch.float32).leaves("fm")
    p = replace(p, V=torch.zeros(5_000_000, 1), w=torch.zeros(5_000_000), indices=p.indices + 4_999_000).leaves("fm")
    replaced("w", torch.zeros(2), p, "fm")


@scenario
def another_default_device():
    """With a device set by default, new tensors would lie there and not beside the parameters."""
    for op in OPERATORS:
        p = make(5)
        expected, d = p(op), incoming(p, op)
        gradients = p.gradients(op, d, sparse_grad=True)
        with torch.device("meta"):
            assert_equal(p(op), expected)
            assert_equal(p.gradients(op, d, sparse_grad=True), gradients)
        torch.set_default_device("meta")
        assert_equal(p.gradients(op, d, sparse_grad=True), gradients)
        torch.set_default_device(None)


@scenario
def fake_tensors_outside_their_mode():
    mode = FakeTensorMode()
    for op in OPERATORS:
        p = make(5).leaves(op)
        fake = Problem(*(mode.from_tensor(getattr(p, name)) for name in Problem.__dataclass_fields__))
        out = fake(op)
        assert out.shape == p(op).shape
        out.sum().backward()


class Doubled(torch.Tensor):
    """A tensor that holds another and doubles what torch's operators give."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=held.device)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        def plain(t):
            return t.held if isinstance(t, cls) else t

        tree_map = torch.utils._pytree.tree_map
        out = function(*tree_map(plain, args), **tree_map(plain, kwargs or {}))
        return tree_map(lambda t: cls(t) if isinstance(t, torch.Tensor) else t, out)


@scenario
def tensors_that_only_look_like_memory():
    """Distributed tensors, say: operators are to be handed to the subclass, as every operator of torch is."""
    for op in OPERATORS:
        p = make(5)
        expected = p(op)
        for wrapped in (("V",), ("w0", "w", "V"), ("indptr", "indices", "data", "x")):
            out = p(op, **{name: Doubled(getattr(p, name)) for name in wrapped})
            assert isinstance(out, Doubled)
            torch.testing.assert_close(out.held, expected)


@scenario
def tensors_in_other_layouts():
    for op in OPERATORS:
        for k in (1, 5):
            p = make(k, torch.float32)
            for name in ("indptr", "indices", "data", "x", "w0", "w", "V"):
                for change in (torch.Tensor.to_sparse, torch.Tensor.to_mkldnn):
                    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, TypeError):
                        p(op, **{name: change(getattr(p, name))})


def wrapping(p):
    """Bounds whose differences overflow to something harmless: 2⁶³ − 1, then down to −2, then up to nnz."""
    n = p.indices.numel()
    return torch.tensor([0, 2**63 - 1, -2, n])


@scenario
def indptr_that_overflows():
    for real in (torch.float64, torch.float32, *HALVES):
        p = make(5, real)
        for op in SPARSE:
            with pytest.raises(ValueError, match="indptr must begin with 0, never fall"):
                p(op, indptr=wrapping(p))


@scenario
def indptr_that_overflows_in_a_transform():
    p = make(5)
    for op in SPARSE:
        with pytest.raises((ValueError, RuntimeError)):
            torch.func.grad(lambda V, op=op: p(op, V=V, indptr=wrapping(p)).sum())(p.V)


@scenario
def extreme_rows():
    for index in INDICES:
        p, limits = make(5, index=index), torch.iinfo(index)
        for op in SPARSE:
            for bad in (limits.max, limits.max - 1, limits.min, limits.min + 1, -1, N_FEATURES, limits.max // 2):
                for place in (0, 11, 23):
                    with pytest.raises(ValueError, match=f"column index {bad} in row"):
                        p(op, indices=put(p.indices, place, bad))
                for place in range(8):
                    with pytest.raises(ValueError, match="indptr must begin with 0"):
                        p(op, indptr=put(p.indptr, place, bad if bad != N_FEATURES else 99))
                for shape in (1, 2, 100_000):
                    with pytest.raises(ValueError, match="indptr must begin with 0"):
                        p(op, indptr=torch.full((shape,), bad if bad != N_FEATURES else 99, dtype=index))
            nothing = {"indptr": p.indptr[:1], "indices": p.indices[:0], "data": p.data[:0]}
            assert len(p(op, **nothing)) == 0
            with pytest.raises(ValueError, match="column index"):
                p(op, V=p.V[:0], w=p.w[:0])


@scenario
def more_features_than_int32_counts():
    w = torch.zeros(1).expand(2**33)
    V = torch.empty(2**33, 0)
    for index in INDICES:
        p = make(0, torch.float32, index)
        p = replace(p, w=w, V=V).leaves("fm") if index is None else replace(p, w=w.detach().requires_grad_(), V=V)
        p = replace(p, indices=put(p.indices, 0, torch.iinfo(torch.int32).max))
        if index is torch.int64:
            p = replace(p, indices=put(p.indices, 4, 2**33 - 1))
        out = p("fm", sparse_grad=True)
        torch.testing.assert_close(out.detach(), p.w0.expand(len(LENGTHS)))
        (g,) = torch.autograd.grad(out.sum(), p.w)
        assert_equal(g.indices()[0], p.indices.unique().long())
        if index is torch.int64:
            with pytest.raises(ValueError, match=f"column index {2**33} in row 3"):
                p("fm", indices=put(p.indices, 4, 2**33))


@scenario
def one_factor_repeated_for_many_features():
    """Takes no memory, and should take no time that grows with it."""
    p = make(1, torch.float64)
    V = torch.ones(1, 1, dtype=torch.float64).expand(2**40, 1)
    with contextlib.suppress(RuntimeError):  # no memory for a copy
        torch.testing.assert_close(p("bi_interaction", V=V), p("bi_interaction", V=torch.ones_like(p.V)))


@scenario
def registered_operators_called_with_what_does_not_fit():
    p = make(5)
    rows, d = (p.indptr, p.indices), torch.ones(len(LENGTHS), dtype=torch.float64)
    for call in (
        lambda: torch.ops.sparsefm.fm(*rows, p.data[:1], p.w0, p.w, p.V),
        lambda: torch.ops.sparsefm.fm(*rows, p.data, p.w0, p.w[:1], p.V),
        lambda: torch.ops.sparsefm.fm(*rows, p.data, p.w0, p.w.float(), p.V),
        lambda: torch.ops.sparsefm.fm(p.indptr.int(), p.indices, p.data, p.w0, p.w, p.V),
        lambda: torch.ops.sparsefm.fm(p.indptr[:0], p.indices[:0], None, p.w0, p.w, p.V),
        lambda: torch.ops.sparsefm.fm_backward(d[:1], *rows, p.data, p.w, p.V),
        lambda: torch.ops.sparsefm.fm_backward(d.float(), *rows, p.data, p.w, p.V),
        lambda: torch.ops.sparsefm.fm_backward(d[:, None].expand(-1, 3), *rows, p.data, None, p.V),
    ):
        with pytest.raises((ValueError, RuntimeError, TypeError)):
            call()
    with contextlib.suppress(ValueError, RuntimeError, TypeError):  # refused or converted
        found = torch.ops.sparsefm.fm(*rows, p.data.float(), p.w0, p.w, p.V)
        torch.testing.assert_close(found, p("fm", data=p.data.float()))


def at_the_end_of_memory(t):
    """A copy of t whose last byte is the last before a page that must not be touched."""
    if t.numel() == 0:
        return t
    size = t.numel() * t.element_size()
    pages = -(-size // mmap.PAGESIZE)
    block = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    memory = np.frombuffer(block, dtype=np.uint8)
    end = memory.ctypes.data + pages * mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = torch.frombuffer(block, dtype=t.dtype, count=t.numel(), offset=pages * mmap.PAGESIZE - size)
    return copy.reshape(t.shape).copy_(t)


@scenario
def memory_that_ends_where_the_tensors_do():
    """A read past any of them would end in a page that is forbidden."""
    for path in ISAS:
        dispatch.ISA = path
        for real in REALS:
            for k in (0, 1, 5, 9, 16, 33):
                p = make(k, real)
                tight = Problem(*(at_the_end_of_memory(getattr(p, name)) for name in Problem.__dataclass_fields__))
                for op in OPERATORS:
                    d, names = incoming(p, op), tuple(p.inputs(op))
                    leaves = {name: getattr(tight, name).detach().requires_grad_() for name in names}
                    out = tight(op, sparse_grad=True, **leaves)
                    found = torch.autograd.grad(out, tuple(leaves.values()), at_the_end_of_memory(d))
                    expected = p.gradients(op, d)
                    torch.testing.assert_close(out.detach(), p(op))
                    for name, g in zip(names, found, strict=True):
                        torch.testing.assert_close(g.to_dense(), expected[name])


@scenario
def a_forked_child_of_a_process_that_has_used_threads():
    """A pool of threads that outlived its call would be dead in the child, and waited for. (That is so of torch's own
    products, which bi_interaction_dense takes.)"""
    dispatch._WORK_PER_PIECE = 1
    torch.set_num_threads(4)
    for op in ("fm", "bi_interaction", "fm_dense"):
        p = make(5, lengths=LENGTHS * 9)
        d = incoming(p, op)
        expected = p.gradients(op, d)
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            found = p.gradients(op, d)
            os._exit(not all(torch.equal(g, expected[name]) for name, g in found.items()))
        assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def outcomes():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="forks processes and protects pages of memory")
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_input_brings_the_process_down(name, outcomes):
    assert outcomes[name] == "passed", outcomes[name]


def run_scenarios():
    """How each scenario fared: 'passed', a traceback, or the signal that ended it."""
    outcomes = {}
    for name, function in SCENARIOS.items():
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(15)
            os.close(source)
            try:
                function()
                outcome = "passed"
            except BaseException:
                outcome = traceback.format_exc()
            os.write(sink, outcome[-4000:].encode())
            os._exit(0)
        os.close(sink)
        with os.fdopen(source, "rb") as pipe:
            outcome = pipe.read().decode(errors="replace")
        status = os.waitpid(child, 0)[1]
        outcomes[name] = f"ended by {signal.Signals(status).name}" if os.WIFSIGNALED(status) else outcome
    return outcomes


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(run_scenarios()))
