"""The rest of the family in torch: operators against brute force, and the layers on them."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import reference
import scipy.sparse as sp

torch = pytest.importorskip("torch", reason="the torch wing")

from torch.nn.functional import mse_loss  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from sparsefm import model, ops  # noqa: E402
from sparsefm._kernels import dispatch, isa  # noqa: E402
from sparsefm.model import Family, FMParams  # noqa: E402
from sparsefm.nn import (  # noqa: E402
    CSRBatch,
    CSRDataset,
    FactorizationMachine,
    FieldAwareFM,
    FieldWeightedFM,
    LazyAdam,
    RowBatches,
    fit,
    predict,
)

# torch tells everybody once that CSR tensors are young, and its optimisers that nobody asked for sparse checks
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]

ISAS = [dispatch.ISA_NAMES.index(name) for name in isa.supported()]
MEMBERS = ("anova 3", "anova 5", "anova 4 shared", "ffm", "fwfm")
REALS = (torch.float32, torch.float64)
LENGTHS = (3, 0, 1, 5, 11, 2, 0)  # entries of each row: none, one, all columns
FIELDS = (0, 0, 1, 1, 1, 3, 3, 2, 0, 3, 1)  # a row of all columns has several of each
N_FEATURES, N_FIELDS = len(FIELDS), 5  # and no column is of the last field


@dataclass
class Problem:
    member: str
    indptr: Any
    indices: Any
    data: Any
    w0: Any
    w: Any
    V: Any
    fields: Any
    field_weights: Any

    def __call__(self, *, sparse_grad=False, **changed):
        p = replace(self, **changed)
        rows = (p.indptr, p.indices, p.data, p.w0, p.w, p.V)
        if p.member == "ffm":
            return ops.field_aware(*rows, p.fields, n_fields=N_FIELDS, sparse_grad=sparse_grad)
        if p.member == "fwfm":
            return ops.field_weighted(*rows, p.fields, p.field_weights, sparse_grad=sparse_grad)
        return ops.anova(*rows, order=order_of(p.member), shared="shared" in p.member, sparse_grad=sparse_grad)

    @property
    def inputs(self):
        """What the operator is differentiable in, by name."""
        names = () if self.data is None else ("data",)
        names += ("w0", "w", "V", *(("field_weights",) if self.member == "fwfm" else ()))
        return {name: getattr(self, name) for name in names}

    def function(self, **options):
        """The operator as a function of what it is differentiable in, and leaves."""
        names = tuple(self.inputs)

        def function(*values):
            return self(**options, **dict(zip(names, values, strict=True)))

        return function, tuple(each.detach().clone().requires_grad_() for each in self.inputs.values())

    def gradients(self, d, **options):
        function, leaves = self.function(**options)
        return dict(zip(self.inputs, torch.autograd.grad(function(*leaves), leaves, d), strict=True))

    def brute_force(self):
        arrays = [numbers(each) for each in (self.indptr, self.indices, self.data, self.w0, self.w, self.V)]
        if self.member == "ffm":
            return reference.field_aware(*arrays, FIELDS, N_FIELDS)
        if self.member == "fwfm":
            r = numbers(self.field_weights)
            return reference.field_weighted(*arrays, FIELDS, (r + r.T) / 2)
        return reference.anova(*arrays, order_of(self.member), "shared" in self.member)

    def params(self):
        """The same for the NumPy wing."""
        fields, r = np.array(FIELDS, np.int32), None
        if self.member == "ffm":
            family = Family("ffm", fields=fields, n_fields=N_FIELDS)
        elif self.member == "fwfm":
            family, r = Family("fwfm", fields=fields, n_fields=N_FIELDS), self.field_weights.numpy()
            r = (r + r.T) / 2
        else:
            family = Family("anova", order_of(self.member), "shared" in self.member)
        return FMParams(float(self.w0), self.w.numpy().copy(), self.V.numpy().copy(), family, r)

    def matrix(self):
        data = np.ones(len(self.indices)) if self.data is None else self.data.numpy()
        return sp.csr_array((data, self.indices.numpy(), self.indptr.numpy()), shape=(len(LENGTHS), N_FEATURES))


def order_of(member):
    return int(member.split()[1])


def numbers(t):
    if t is None:
        return None
    return t.detach().double().numpy() if t.is_floating_point() else t.numpy()


def make(member, k=3, real=torch.float64, index=torch.int64, *, ones=False, lengths=LENGTHS, n_features=N_FEATURES):
    rng = np.random.default_rng((k, len(lengths)))
    columns = [np.sort(rng.choice(n_features, size=n, replace=False)) for n in lengths]
    blocks = N_FIELDS if member == "ffm" else 1 if member == "fwfm" or "shared" in member else order_of(member) - 1
    indptr, indices = np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([*columns, []])
    shapes = ((len(indices),), (), (n_features,), (n_features, blocks * k), (N_FIELDS, N_FIELDS))
    data, w0, w, V, r = (torch.tensor(rng.standard_normal(shape), dtype=real) for shape in shapes)
    fields = torch.tensor(FIELDS * -(-n_features // N_FEATURES))[:n_features]
    rows = (torch.tensor(each.astype(np.int64)).to(index) for each in (indptr, indices))
    return Problem(member, *rows, None if ones else data, w0, w, V, fields.to(index), r)


def dense(gradients):
    return {name: g.to_dense() for name, g in gradients.items()}


def assert_all_close(found, expected, **tolerances):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], **tolerances)


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("k", [1, 8, 17])
@pytest.mark.parametrize("member", MEMBERS)
def test_values_equal_the_definition(member, k, index, ones):
    p = make(member, k, index=index, ones=ones)
    np.testing.assert_allclose(p(), p.brute_force(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("path", ISAS)
@pytest.mark.parametrize("member", MEMBERS)
def test_float32_is_near_float64_on_every_instruction_set(monkeypatch, member, path):
    monkeypatch.setattr(dispatch, "ISA", path)
    exact, near = make(member), make(member, real=torch.float32)
    torch.testing.assert_close(near().double(), exact(), rtol=1e-4, atol=1e-4)
    d = torch.ones(len(LENGTHS))
    found, expected = near.gradients(d), exact.gradients(d.double())
    assert {g.dtype for g in found.values()} == {torch.float32}
    assert_all_close({name: g.double() for name, g in found.items()}, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("real", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("member", MEMBERS)
def test_half_precision_is_added_up_in_float32(member, real):
    p = make(member, real=real)
    out = p()
    assert out.dtype == real
    np.testing.assert_allclose(out.float(), p.brute_force(), rtol=2e-2, atol=2e-2)
    gradients = p.gradients(torch.ones_like(out), sparse_grad=True)
    assert gradients["V"].is_sparse
    wide = replace(p, **{name: each.double() for name, each in p.inputs.items()})
    expected = wide.gradients(torch.ones(len(LENGTHS), dtype=torch.float64))
    found = {name: g.double() for name, g in dense(gradients).items()}
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g, rtol=2e-2, atol=2e-2 * float(g.abs().max()))


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", [1, 5])
def test_members_that_are_the_factorization_machine(k, ones):
    p = make("anova 2", k, ones=ones)
    rows = (p.indptr, p.indices, p.data, p.w0, p.w)
    expected = ops.fm(*rows, p.V)
    torch.testing.assert_close(p(), expected)
    torch.testing.assert_close(ops.anova(*rows, p.V, order=2, shared=True), expected)
    equal_blocks = p.V.repeat(1, N_FIELDS)
    torch.testing.assert_close(ops.field_aware(*rows, equal_blocks, p.fields, n_fields=N_FIELDS), expected)
    one = torch.ones_like(p.field_weights)
    torch.testing.assert_close(ops.field_weighted(*rows, p.V, p.fields, one), expected)


def test_a_column_without_factors_leaves_the_linear_model():
    for member in MEMBERS:
        p = make(member, 0)
        np.testing.assert_allclose(p(), p.brute_force(), rtol=1e-12)
        d = torch.ones(len(LENGTHS), dtype=torch.float64)
        assert_all_close(p.gradients(d), dense(p.gradients(d, sparse_grad=True)))


@pytest.mark.parametrize("member", MEMBERS)
def test_rows_of_one_entry_have_no_sets(member):
    p = make(member, lengths=(1, 0, 1))
    expected = p.w0 + torch.tensor([1.0, 0, 1]) * p.data[[0, 0, 1]] * p.w[p.indices[[0, 0, 1]]]
    with torch._subclasses.fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        assert p().shape == (3,)
    torch.testing.assert_close(p(), expected)
    function, leaves = p.function()
    assert torch.autograd.gradgradcheck(function, leaves)
    for second in (False, True):  # by the kernel, and composed
        g_V = torch.autograd.grad(function(*leaves).sum(), leaves[3], create_graph=second)[0]
        assert not g_V.any()


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
@pytest.mark.parametrize("member", MEMBERS)
def test_empty_batches(member, lengths):
    p = make(member, lengths=lengths)
    for real in (torch.float64, torch.bfloat16):
        q = replace(p, data=p.data.to(real), **{n: each.to(real) for n, each in p.inputs.items() if n != "data"})
        out = q()
        torch.testing.assert_close(out, q.w0.expand(len(lengths)))
        assert all(not g.to_dense().any() for name, g in q.gradients(out).items() if name != "w0")


def test_one_large_value_does_not_cancel_the_rest():
    p = make("anova 5", 2, torch.float32, lengths=(11,))
    p.data[4] = 1e4
    # sets with the large one are 1e4 times too large to see the others beside them: leave it without factors
    p.V[p.indices[4]] = 0
    np.testing.assert_allclose(p(), p.brute_force(), rtol=1e-4)


@pytest.mark.parametrize("member", MEMBERS)
def test_what_is_not_finite_stays_in_its_row(member):
    p = make(member)
    p.data[5] = float("nan")
    for out in (p(), torch.func.vmap(lambda w0: p(w0=w0))(p.w0[None])[0]):
        assert out.isnan().tolist() == [i == 3 for i in range(len(LENGTHS))]


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("member", MEMBERS)
def test_first_and_second_derivatives_equal_finite_differences(member, ones):
    function, leaves = make(member, 2, ones=ones).function()
    assert torch.autograd.gradcheck(function, leaves, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("member", MEMBERS)
def test_row_sparse_gradients_are_the_dense_ones(member, index):
    p = make(member, real=torch.float32, index=index)
    p = replace(p, w=p.w[:, None])
    d = torch.randn(len(LENGTHS), generator=torch.Generator().manual_seed(0))
    sparse, whole = p.gradients(d, sparse_grad=True), p.gradients(d)
    assert {name for name, g in sparse.items() if g.is_sparse} == {"w", "V"}
    assert not any(g.is_sparse for g in whole.values())
    assert sparse["V"]._indices().tolist() == [p.indices.tolist()]
    assert_all_close(dense(sparse), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("member", MEMBERS)
def test_any_subset_of_the_inputs_may_require_gradients(member):
    p = make(member)
    d = torch.ones(len(LENGTHS), dtype=torch.float64)
    for second in (False, True):
        every = p.gradients(d)
        for name in p.inputs:
            leaf = getattr(p, name).clone().requires_grad_()
            found = torch.autograd.grad(p(**{name: leaf}), leaf, d, create_graph=second)[0]
            torch.testing.assert_close(found, every[name])


@pytest.mark.parametrize("member", MEMBERS)
def test_both_wings_score_and_differentiate_alike(member):
    p = make(member)
    params, X = p.params(), p.matrix()
    np.testing.assert_allclose(p(), model.score(params, X), rtol=1e-12)
    d = torch.linspace(-1, 2, len(LENGTHS), dtype=torch.float64)
    found, expected = p.gradients(d), model.gradient(params, X, d.numpy())
    np.testing.assert_allclose(found["w0"], expected.w0, rtol=1e-12)
    np.testing.assert_allclose(found["data"], expected.data, rtol=1e-10)
    for name in ("w", "V"):
        whole = np.zeros(getattr(p, name).shape)
        whole[expected.features] = getattr(expected, name)
        np.testing.assert_allclose(found[name], whole, rtol=1e-10, atol=1e-12)
    if member == "fwfm":
        np.testing.assert_allclose(found["field_weights"], expected.field_weights, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_field_weights_is_symmetric_and_only_their_symmetric_part_counts():
    p = make("fwfm")
    g = p.gradients(torch.ones(len(LENGTHS), dtype=torch.float64))["field_weights"]
    assert torch.equal(g, g.t())
    torch.testing.assert_close(p(field_weights=p.field_weights.t()), p())


@pytest.mark.parametrize("member", MEMBERS)
def test_the_same_bits_however_the_work_is_shared(monkeypatch, member):
    p = make(member, 8, torch.float32, lengths=(11, 3, 0, 7) * 50)
    d = torch.randn(200, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1000)
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append({"out": p(), **p.gradients(d)})
    assert_all_close(*results, rtol=0, atol=0)
    first = p(indptr=p.indptr[:101], indices=p.indices[:525], data=p.data[:525])
    second = p(indptr=p.indptr[100:] - 525, indices=p.indices[525:], data=p.data[525:])
    torch.testing.assert_close(torch.cat([first, second]), results[0]["out"], rtol=0, atol=0)


@pytest.mark.parametrize("member", MEMBERS)
def test_how_tensors_lie_in_memory_changes_nothing(member):
    p = make(member, real=torch.float32)
    d = torch.ones(1).expand(len(LENGTHS))
    expected = {"out": p(), **p.gradients(d)}
    twice = {name: torch.stack([t, t], -1)[..., 0] for name, t in vars(p).items() if name not in ("member", "w0")}
    by_columns = {"V": p.V.t().contiguous().t(), "field_weights": p.field_weights.t().contiguous().t()}
    for layout in (twice, by_columns):
        q = replace(p, **layout)
        assert_all_close({"out": q(), **q.gradients(d)}, expected, rtol=0, atol=0)


def test_a_change_behind_the_back_of_torch_is_noticed():
    p = make("ffm")
    out = p(V=p.V.requires_grad_())
    p.indices.numpy()[0] = 99
    with pytest.raises(ValueError, match="column index 99"):
        out.sum().backward()
    p = make("fwfm")
    out = p(V=p.V.requires_grad_())
    p.V.data = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="another shape or type since the forward pass"):
        out.sum().backward()


# ---- transforms and compilers ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch itself
@pytest.mark.parametrize("member", MEMBERS)
def test_functional_transforms_equal_rows_of_eager_gradients(member):
    function, leaves = make(member, 2).function()
    everything = tuple(range(len(leaves)))
    expected = torch.autograd.functional.jacobian(function, leaves)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for found, each in zip(transform(function, everything)(*leaves), expected, strict=True):
            torch.testing.assert_close(found, each)


@pytest.mark.parametrize("member", MEMBERS)
def test_compiled_whole_it_takes_batches_of_any_size(member):
    torch._dynamo.reset()
    compiled = torch.compile(lambda p: p(), fullgraph=True, dynamic=True, backend="aot_eager")
    for lengths in (LENGTHS, (4, 2, 9), (1, 1, 8, 0, 3)):
        results = []
        for call in (compiled, lambda p: p()):
            p = make(member, real=torch.float32, lengths=lengths)
            leaves = {name: each.requires_grad_() for name, each in p.inputs.items()}
            out = call(p)
            out.square().sum().backward()
            results.append({"out": out.detach(), **{name: each.grad for name, each in leaves.items()}})
        assert_all_close(*results, rtol=1e-5, atol=1e-5)
    bad = make(member, real=torch.float32)
    bad.indices[0] = -1
    with pytest.raises(ValueError, match="column index -1 in row 0"):
        compiled(bad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in torch itself
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("member", MEMBERS)
def test_inductor(member):
    torch._dynamo.reset()
    p = make(member, real=torch.float32)
    torch.testing.assert_close(torch.compile(lambda p: 2 * p(), fullgraph=True)(p), 2 * p())


@pytest.mark.parametrize("member", ["anova 3", "ffm", "fwfm"])
def test_the_registered_operators_are_as_they_say(member):
    p = make(member, 2, lengths=(3, 0, 1))
    fields = None if member == "anova 3" else p.fields
    own = ("anova", 3, False, 0) if member == "anova 3" else (member, 2, False, N_FIELDS)

    def arguments(*values):
        now = dict(zip(p.inputs, values, strict=True))
        tensors = (p.indptr, p.indices, now["data"], now["w0"], now["w"], now["V"], fields)
        return *own, *tensors, now.get("field_weights")

    _, leaves = p.function()
    d = torch.ones(3, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.sparsefm.family.default, arguments(*leaves))
    torch.library.opcheck(torch.ops.sparsefm.family_backward.default, (d, *arguments(*leaves)))
    assert torch.autograd.gradgradcheck(lambda *values: torch.ops.sparsefm.family(*arguments(*values)), leaves)


@pytest.mark.parametrize("member", MEMBERS)
def test_autocast_keeps_the_precision_of_the_parameters(member):
    p = make(member, real=torch.float32)
    expected = p()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(p(), expected)
        torch.testing.assert_close(torch.func.vmap(lambda w0: p(w0=w0))(p.w0[None])[0], expected, rtol=1e-4, atol=1e-4)


# ---- errors ---------------------------------------------------------------------------------------------------------


def put(t, place, value):
    t = t.clone()
    t[place] = value
    return t


BAD = {
    "an index": ("anova 3", lambda p: {"indices": put(p.indices, 4, 11)}, "column index 11 in row 3 is outside 0 … 10"),
    "an index of ffm": ("ffm", lambda p: {"indices": put(p.indices, 4, -1)}, "column index -1 in row 3"),
    "indptr": ("fwfm", lambda p: {"indptr": p.indptr + 1}, "indptr must begin with 0"),
    "values": ("ffm", lambda p: {"data": p.data[:-1]}, "one real value for each of the 22 indices"),
    "w": ("fwfm", lambda p: {"w": p.w[:-1]}, r"w \(n_features,\)"),
    "types": ("anova 3", lambda p: {"w": p.w.float()}, "one type and one device"),
    "columns of anova": (
        "anova 3",
        lambda p: {"V": p.V[:, :5]},
        r"\(order − 1\) · n_factors columns, order is 3; got 5",
    ),
    "columns of ffm": ("ffm", lambda p: {"V": p.V[:, :7]}, "n_fields · n_factors columns, n_fields is 5; got 7"),
    "fields too few": ("ffm", lambda p: {"fields": p.fields[:-1]}, r"fields must be \(11,\).*shape \(10,\)"),
    "fields of floats": ("fwfm", lambda p: {"fields": p.fields.double()}, "int32 or int64 .*float64"),
    "fields elsewhere": ("fwfm", lambda p: {"fields": p.fields.to("meta")}, "beside V on cpu; got .* on meta"),
    "a field": (
        "ffm",
        lambda p: {"fields": put(p.fields, p.indices[0], 5)},
        r"from 0 to 4, but that of column \d+ is 5",
    ),
    "a negative field": ("fwfm", lambda p: {"fields": put(p.fields, p.indices[0], -1)}, r"that of column \d+ is -1"),
    "a huge field": ("ffm", lambda p: {"fields": put(p.fields, p.indices[0], 1 << 32)}, "is 4294967296"),
    "oblong weights": ("fwfm", lambda p: {"field_weights": p.field_weights[:2]}, r"\(n_fields, n_fields\).*\(2, 5\)"),
    "a row of weights": ("fwfm", lambda p: {"field_weights": p.field_weights[0]}, r"\(n_fields, n_fields\).*\(5,\)"),
    "weights of another type": (
        "fwfm",
        lambda p: {"field_weights": p.field_weights.float()},
        "float64 like V.*float32",
    ),
    "no weights": ("fwfm", lambda p: {"field_weights": p.field_weights[:0, :0]}, "n_fields must be a positive integer"),
}


@pytest.mark.parametrize("member, change, message", BAD.values(), ids=BAD)
def test_what_does_not_belong_together_is_refused(member, change, message):
    p = make(member)
    with pytest.raises(ValueError, match=message):
        p(**change(p))


@pytest.mark.parametrize("order", [1, 13, 2.0, True])
def test_orders_that_there_are_not_are_refused(order):
    p = make("anova 2")
    with pytest.raises(ValueError, match=r"order must be an integer from 2 to 12"):
        ops.anova(p.indptr, p.indices, p.data, p.w0, p.w, p.V, order=order)


@pytest.mark.parametrize("n_fields", [0, -1, 2.5, True])
def test_numbers_of_fields_that_cannot_be_are_refused(n_fields):
    p = make("ffm")
    with pytest.raises(ValueError, match="n_fields must be a positive integer"):
        ops.field_aware(p.indptr, p.indices, p.data, p.w0, p.w, p.V, p.fields, n_fields=n_fields)


# ---- layers ---------------------------------------------------------------------------------------------------------


def layer(member, k=3, **options):
    """A layer with the parameters of make(member, k), in float32."""
    if "anova" in member:
        order, shared = order_of(member), "shared" in member
        made = FactorizationMachine(N_FEATURES, k, order=order, share_factors=shared, **options)
    else:
        made = {"ffm": FieldAwareFM, "fwfm": FieldWeightedFM}[member](N_FEATURES, k, FIELDS, **options)
    torch.manual_seed(0)
    for each in made.parameters():
        torch.nn.init.normal_(each, std=0.5)
    return made


def expected_of(fm, X):
    X = sp.csr_array(X)
    w0, w, V = (each.detach().double().numpy() for each in (fm.bias, fm.linear.weight[:, 0], fm.factors.weight))
    rows = (X.indptr, X.indices, X.data, w0, w, V)
    if isinstance(fm, FieldAwareFM):
        return reference.field_aware(*rows, FIELDS, fm.n_fields)
    if isinstance(fm, FieldWeightedFM):
        r = fm.field_weights.detach().double().numpy()
        return reference.field_weighted(*rows, FIELDS, (r + r.T) / 2)
    return reference.anova(*rows, fm.order, fm.share_factors)


@pytest.mark.parametrize("member", MEMBERS)
def test_layers_take_every_kind_of_input(member):
    X = make(member, real=torch.float32).matrix()
    fm, batch = layer(member), CSRBatch.from_csr(X)
    x, values = torch.tensor(X.toarray(), requires_grad=True), batch.data.clone().requires_grad_()
    tensor = torch.sparse_csr_tensor(batch.indptr, batch.indices, batch.data, X.shape).requires_grad_()
    for each in (batch._replace(data=values), tensor, x):
        out = fm(each)
        np.testing.assert_allclose(out.detach(), expected_of(fm, X), rtol=1e-4, atol=1e-4)
        fm.zero_grad()
        out.sum().backward()
        assert fm.factors.weight.grad.is_sparse == (each is not x)
    at = X.nonzero()
    torch.testing.assert_close(values.grad, x.grad[at], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tensor.grad.values(), x.grad[at], rtol=1e-4, atol=1e-4)
    assert fm(x[None, :4, None]).shape == (1, 4, 1)
    torch.testing.assert_close(fm(x[3]), fm(x)[3])
    assert fm(x[:0]).shape == (0,)
    with pytest.raises(ValueError, match="x must be"):
        fm(x[:, :-1])


@pytest.mark.parametrize("member", MEMBERS)
def test_layers_share_parameters_with_the_numpy_wing(member):
    p = make(member, real=torch.float32)
    params, X = p.params(), p.matrix()
    made = type(layer(member))
    fm = made.from_params(params, sparse_grad=False)
    assert (fm.n_features, fm.n_factors, fm.sparse_grad) == (N_FEATURES, 3, False)
    np.testing.assert_array_equal(predict(fm, X), model.score(params, X))
    back = fm.to_params()
    for name in ("w", "V", "field_weights"):
        if getattr(params, name) is not None:
            assert np.shares_memory(getattr(back, name), getattr(params, name))
    assert (back.family.kind, back.family.order, back.family.shared) == (
        params.family.kind,
        params.family.order,
        params.family.shared,
    )
    np.testing.assert_array_equal(model.score(back, X), model.score(params, X))
    copied, before = made.from_params(params, copy=True).to_params(copy=True), params.V.copy()
    for each in fm.parameters():
        torch.nn.init.zeros_(each)
    assert not params.V.any()
    np.testing.assert_array_equal(copied.V, before)


def test_field_weights_reach_the_numpy_wing_as_what_counts_of_them():
    fm = layer("fwfm")
    X = make("fwfm", real=torch.float32).matrix()
    np.testing.assert_allclose(model.score(fm.to_params(), X), predict(fm, X), rtol=1e-5, atol=1e-5)


def test_parameters_of_another_member_name_the_layer_that_takes_them():
    with pytest.raises(ValueError, match=r"kind 'ffm': FieldAwareFM.from_params takes them"):
        FactorizationMachine.from_params(make("ffm").params())
    with pytest.raises(ValueError, match=r"kind 'anova': FactorizationMachine.from_params takes them"):
        FieldWeightedFM.from_params(make("anova 3").params())
    params = make("fwfm").params()
    params.field_weights.flags.writeable = False
    with pytest.raises(ValueError, match="copy=True"):
        FieldWeightedFM.from_params(params)


@pytest.mark.parametrize("member", MEMBERS)
def test_copies_and_files_score_alike(tmp_path, member):
    fm, batch = layer(member), CSRBatch.from_csr(make(member, real=torch.float32).matrix())
    torch.save(fm.state_dict(), tmp_path / "fm.pt")
    other = layer(member)
    other.reset_parameters()
    assert not torch.equal(other(batch), fm(batch))
    other.load_state_dict(torch.load(tmp_path / "fm.pt", weights_only=True))
    for each in (other, copy.deepcopy(fm)):
        assert torch.equal(each(batch), fm(batch))


@pytest.mark.parametrize("member", ["anova 3", "ffm", "fwfm"])
def test_layers_are_compiled_exported_and_transformed(member):
    torch._dynamo.reset()
    fm, auto = layer(member), torch.export.Dim.AUTO
    X = make(member, real=torch.float32).matrix()
    batch, x = CSRBatch.from_csr(X), torch.tensor(X.toarray())
    compiled = torch.compile(fm, fullgraph=True, dynamic=True, backend="aot_eager")
    for each in (batch, x):
        assert torch.equal(compiled(each), fm(each))
    exported = torch.export.export(fm, (batch,), dynamic_shapes=(CSRBatch({0: auto}, {0: auto}, {0: auto}, None),))
    assert "sparsefm.family" in str(exported.graph)
    other = CSRBatch.from_csr(X[2:5])
    assert torch.equal(exported.module()(other), fm(other))

    parameters = dict(fm.named_parameters())

    def total(parameters, x):
        return torch.func.functional_call(fm, parameters, (x,)).sum()

    fm(x).sum().backward()
    per_row = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(parameters, x)
    for name, each in parameters.items():
        torch.testing.assert_close(per_row[name].sum(0), each.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("member", MEMBERS)
def test_rows_and_parameters_on_the_meta_device_give_a_shape(member):
    fm, batch = layer(member, sparse_grad=False).to("meta"), CSRBatch.from_csr(make(member).matrix()).to("meta")
    out = fm(batch)
    assert out.is_meta
    assert out.shape == (len(LENGTHS),)
    out.sum().backward()
    assert fm.factors.weight.grad.shape == fm.factors.weight.shape


def test_factors_of_larger_sets_begin_larger_so_that_their_gradients_are_of_one_size():
    torch.manual_seed(0)
    fm = FactorizationMachine(20_000, 4, order=4)
    assert fm.factors.weight.shape == (20_000, 12)
    assert fm.n_factors == 4
    found = [block.std().item() for block in fm.factors.weight.detach().split(4, 1)]
    assert found == pytest.approx([0.01, 0.01 ** (1 / 2), 0.01 ** (1 / 3)], rel=0.02)
    assert FactorizationMachine(9, 4, order=4, share_factors=True).factors.weight.shape == (9, 4)


def test_order_one_is_the_linear_model():
    fm, X = FactorizationMachine(N_FEATURES, 4, order=1), make("anova 2", real=torch.float32).matrix()
    torch.nn.init.normal_(fm.linear.weight)
    expected = X.toarray() @ fm.linear.weight.detach()[:, 0].numpy()
    for x in (CSRBatch.from_csr(X), torch.tensor(X.toarray())):
        np.testing.assert_allclose(fm(x).detach(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.score(fm.to_params(), X), expected, rtol=1e-5, atol=1e-6)


def test_what_a_layer_cannot_be_is_refused():
    for order in (0, 13, 2.5):
        with pytest.raises(ValueError, match="order must be"):
            FactorizationMachine(9, 4, order=order)
    with pytest.raises(ValueError, match="this layer is of order 3"):
        FactorizationMachine(9, 4, order=3).bi_interaction(torch.zeros(2, 9))
    for made in (FieldAwareFM, FieldWeightedFM):
        for fields, message in (([0, 1], "one integer for each of the 3"), ([0.0] * 3, "float64"), ([0, -1, 0], "-1")):
            with pytest.raises(ValueError, match=message):
                made(3, 4, fields)


@pytest.mark.parametrize("member", ["anova 3", "ffm", "fwfm"])
def test_layers_learn_a_planted_truth(member):
    """Rows of three fields, targets by a layer of the same member: training leaves a small part of their variance."""
    rng = np.random.default_rng(0)
    n_rows, levels = 3000, 5
    columns = rng.integers(0, levels, (n_rows, 3)) + levels * np.arange(3)
    X = sp.csr_array(
        (np.ones(3 * n_rows, np.float32), columns.ravel(), np.arange(0, 3 * n_rows + 1, 3)), shape=(n_rows, 15)
    )
    fields = np.repeat(np.arange(3), levels)

    def fresh(k):
        if member == "anova 3":
            return FactorizationMachine(15, k, order=3, init_std=0.1)
        return (FieldAwareFM if member == "ffm" else FieldWeightedFM)(15, k, fields, init_std=0.1)

    torch.manual_seed(0)
    truth = fresh(2)
    for each in (truth.factors.weight, *([truth.field_weights] if member == "fwfm" else [])):
        torch.nn.init.normal_(each)
    y = predict(truth, X)
    fm, data = fresh(4), CSRDataset(X, y)
    batches = DataLoader(data, sampler=RowBatches(n_rows, 100, shuffle=True), batch_size=None)
    history = fit(fm, batches, loss=mse_loss, optimizer=LazyAdam(fm.parameters(), lr=0.02), epochs=15)
    assert y.var() > 1
    assert history[-1]["loss"] < 0.02 * y.var()
