"""Optimisers for row-sparse gradients: each step against its formula, and what torch expects of an optimiser."""

import copy
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch", reason="the torch wing")

from torch.nn import functional as F  # noqa: E402

from sparsefm._kernels import dispatch, isa, rowsteps  # noqa: E402
from sparsefm.nn import AdaGrad, CSRBatch, FactorizationMachine, LazyAdam, fit  # noqa: E402

ISAS = [dispatch.ISA_NAMES.index(name) for name in isa.supported()]
MAKERS = {
    "adagrad": AdaGrad,
    "rowwise": lambda params, **options: AdaGrad(params, rowwise=True, **options),
    "adam": LazyAdam,
}
every = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def row_sparse(features, rows, like):
    features = torch.as_tensor(features)[None]
    return torch.sparse_coo_tensor(features, rows, like.shape, check_invariants=True)


def random_steps(n_rows, k, dtype, n_steps=6, repeated=False, seed=0):
    """Distinct rows and their gradients for each step; with repeated, some rows come in two parts."""
    rng = np.random.default_rng(seed)
    for _ in range(n_steps):
        features = rng.permutation(n_rows)[: n_rows // 2]
        if repeated:
            features = np.concatenate((features, features[: n_rows // 5]))
        shape = (len(features), k) if k is not None else len(features)
        yield features, torch.from_numpy(rng.standard_normal(shape)).to(dtype)


class Reference:
    """One row after another, from the formulas in float64."""

    def __init__(self, name, theta, *, lr, eps, weight_decay, start=0.0, betas=(0.9, 0.999)):
        self.theta = theta.detach().double().reshape(len(theta), -1).numpy().copy()
        self.name, self.lr, self.eps, self.weight_decay, self.betas = name, lr, eps, weight_decay, betas
        self.G, self.m, self.s = np.full_like(self.theta, start), np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.age = np.zeros(len(theta), int)

    def step(self, features, rows):
        gradients = {}
        for j, g in zip(features, rows.double().reshape(len(rows), -1).numpy(), strict=True):
            gradients[j] = gradients.get(j, 0) + g
        for j, g in gradients.items():
            g = g + self.weight_decay * self.theta[j]
            if self.name == "adam":
                beta1, beta2 = self.betas
                self.age[j] += 1
                self.m[j] = beta1 * self.m[j] + (1 - beta1) * g
                self.s[j] = beta2 * self.s[j] + (1 - beta2) * g**2
                m, s = self.m[j] / (1 - beta1 ** self.age[j]), self.s[j] / (1 - beta2 ** self.age[j])
                self.theta[j] -= self.lr * m / np.sqrt(self.eps + s)
            else:
                self.G[j] += np.mean(g**2) if self.name == "rowwise" else g**2
                self.theta[j] -= self.lr * g / np.sqrt(self.eps + self.G[j])


def run(name, theta, steps, dense=False, **options):
    """The parameter and its optimiser after steps with row-sparse gradients, or with dense ones of the same values."""
    p = torch.nn.Parameter(theta.clone())
    optimizer = MAKERS[name]([p], **options)
    for features, rows in steps:
        p.grad = row_sparse(features, rows, p)
        if dense:
            p.grad = p.grad.to_dense()
        optimizer.step()
    return p.detach(), optimizer


def within(dtype):
    return {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 1e-12}  # steps of 0.1, right to 5e-6 in float32


# ---- formulas -------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [None, 1, 2, 3, 8, 16, 17, 40])
@pytest.mark.parametrize("path", ISAS)
def test_row_sparse_steps_equal_the_formula(monkeypatch, path, k, dtype, name):
    monkeypatch.setattr(dispatch, "ISA", path)
    theta = torch.randn(23 if k is None else (23, k), dtype=dtype)
    options = {"lr": 0.1, "eps": 1e-4, "weight_decay": 0.05}
    reference = Reference(name, theta, **options)
    for step in random_steps(23, k, dtype):
        reference.step(*step)
    got, _ = run(name, theta, random_steps(23, k, dtype), **options)
    np.testing.assert_allclose(got.double().numpy().reshape(23, -1), reference.theta, **within(dtype))


@every
@pytest.mark.parametrize("shape", [(23, 5), (23,), (23, 2, 3)])
def test_dense_steps_equal_the_formula(name, shape):
    theta, options = torch.randn(shape, dtype=torch.float64), {"lr": 0.1, "eps": 1e-4, "weight_decay": 0.05}
    gradients = [torch.randn(shape, dtype=torch.float64) for _ in range(4)]
    p = torch.nn.Parameter(theta.clone())
    optimizer = MAKERS[name]([p], **options)
    for p.grad in gradients:
        optimizer.step()
    kind = "adagrad" if len(shape) == 1 and name == "rowwise" else name
    reference = Reference(kind, theta, **options)
    for grad in gradients:
        reference.step(range(23), grad)
    np.testing.assert_allclose(p.detach().reshape(23, -1).numpy(), reference.theta, rtol=0, atol=1e-12)


@every
def test_a_single_number_is_stepped_like_a_row(name):
    p = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = MAKERS[name]([p], lr=0.1, eps=1e-4)
    reference = Reference("adam" if name == "adam" else "adagrad", p.reshape(1), lr=0.1, eps=1e-4, weight_decay=0.0)
    for _ in range(3):
        p.grad = p.detach() * 2
        reference.step([0], p.grad.reshape(1))
        optimizer.step()
    assert p.item() == pytest.approx(reference.theta[0, 0], abs=1e-13)


@every
def test_rows_that_occur_twice_are_added_up_first(name):
    theta = torch.randn(20, 5, dtype=torch.float64)
    options = {"lr": 0.1, "eps": 1e-4, "weight_decay": 0.0}
    reference = Reference(name, theta, **options)
    for step in random_steps(20, 5, torch.float64, repeated=True):
        reference.step(*step)
    got, _ = run(name, theta, random_steps(20, 5, torch.float64, repeated=True), **options)
    np.testing.assert_allclose(got.numpy(), reference.theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["adagrad", "rowwise"])
@pytest.mark.parametrize("dense", [False, True])
def test_sums_begin_where_they_are_told_to(dense, name):
    theta, options = torch.randn(20, 5, dtype=torch.float64), {"lr": 0.1, "eps": 1e-4, "weight_decay": 0.0}
    reference = Reference(name, theta, start=0.7, **options)
    for step in random_steps(20, 5, torch.float64):
        reference.step(*step)
    got, _ = run(name, theta, random_steps(20, 5, torch.float64), dense, initial_accumulator_value=0.7, **options)
    np.testing.assert_allclose(got.numpy(), reference.theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["adagrad", "rowwise"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dense_and_sparse_gradients_of_the_same_values_agree(dtype, name):
    theta = torch.randn(30, 6, dtype=dtype)
    sparse, _ = run(name, theta, random_steps(30, 6, dtype), lr=0.1)
    dense, _ = run(name, theta, random_steps(30, 6, dtype), True, lr=0.1)
    torch.testing.assert_close(sparse, dense, **within(dtype))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchs_own_operations_take_the_same_sparse_steps(monkeypatch, dtype, name):
    """The path of other devices."""
    theta = torch.randn(30, 6, dtype=dtype)
    options = {"lr": 0.1, "weight_decay": 0.1}
    kernel, _ = run(name, theta, random_steps(30, 6, dtype), **options)
    monkeypatch.setattr("sparsefm.nn.optimizers.has_kernel", lambda table: False)
    composed, _ = run(name, theta, random_steps(30, 6, dtype), **options)
    torch.testing.assert_close(kernel, composed, **within(dtype))
    assert not torch.equal(kernel, theta)


@every
def test_the_first_step_of_a_rare_row_is_as_long_as_that_of_a_frequent_one(name):
    p = torch.nn.Parameter(torch.zeros(2, 4))
    optimizer = MAKERS[name]([p], lr=0.1)
    moved = []
    for turn in range(50):
        features = [0] if turn < 49 else [1]
        p.grad = row_sparse(features, torch.ones(1, 4), p)
        before = p.detach().clone()
        optimizer.step()
        moved.append((p.detach() - before)[features[0]].abs().max().item())
    assert moved[-1] == pytest.approx(moved[0], rel=1e-4) == pytest.approx(0.1, rel=1e-3)


# ---- rows, bits and memory ------------------------------------------------------------------------------------------


@every
def test_untouched_rows_keep_their_bits(name):
    theta = torch.randn(50, 7)
    touched = [3, 4, 48]
    p, optimizer = run(name, theta, [(touched, torch.randn(3, 7)), (touched, torch.randn(3, 7))], weight_decay=0.1)
    rest = np.delete(np.arange(50), touched)
    assert torch.equal(p[rest], theta[rest])
    assert not (p[touched] == theta[touched]).any()
    (state,) = optimizer.state.values()
    for each in state.values():
        assert (each[rest] == each[0]).all()
        assert (each[touched] != each[0]).any()


@every
@pytest.mark.parametrize("k", [1, 24])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, k, name):
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1000)  # many pieces
    theta, results = torch.randn(3000, k), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        p, optimizer = run(name, theta, random_steps(3000, k, torch.float32), weight_decay=0.01)
        results.append((p, *next(iter(optimizer.state.values())).values()))
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1 << 40)  # one
    p, optimizer = run(name, theta, random_steps(3000, k, torch.float32), weight_decay=0.01)
    results.append((p, *next(iter(optimizer.state.values())).values()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@every
def test_tables_inside_wider_ones_leave_the_other_columns_alone(name):
    wide = torch.randn(20, 9)
    start = wide.clone()
    p = torch.nn.Parameter(wide[:, 2:7])
    optimizer = MAKERS[name]([p], lr=0.1)
    apart = torch.nn.Parameter(start[:, 2:7].clone())
    other = MAKERS[name]([apart], lr=0.1)
    for features, rows in random_steps(20, 5, torch.float32):
        p.grad, apart.grad = row_sparse(features, rows, p), row_sparse(features, rows, p)
        optimizer.step()
        other.step()
    assert torch.equal(wide[:, 2:7], apart)
    assert torch.equal(wide[:, :2], start[:, :2])
    assert torch.equal(wide[:, 7:], start[:, 7:])


@every
def test_transposed_tables_are_stepped_too(name):
    theta = torch.randn(20, 5)
    p = torch.nn.Parameter(theta.T.contiguous().T)
    optimizer = MAKERS[name]([p], lr=0.1)
    for features, rows in random_steps(20, 5, torch.float32):
        p.grad = row_sparse(features, rows, p)
        optimizer.step()
    expected, _ = run(name, theta, random_steps(20, 5, torch.float32), lr=0.1)
    torch.testing.assert_close(p.detach(), expected, **within(torch.float32))


@every
def test_a_gradient_of_no_rows_changes_nothing(name):
    theta = torch.randn(20, 5)
    p, _ = run(name, theta, [([], torch.zeros(0, 5))], weight_decay=1.0)
    assert torch.equal(p, theta)


@every
def test_zero_gradients_stay_finite(name):
    theta = torch.randn(20, 5)
    for dense in (False, True):
        p, _ = run(name, theta, [([1, 2], torch.zeros(2, 5))], dense)
        assert torch.equal(p, theta)


def test_the_sum_of_a_row_takes_one_number():
    theta = torch.randn(20, 5)
    _, optimizer = run("rowwise", theta, random_steps(20, 5, torch.float32))
    (state,) = optimizer.state.values()
    assert {name: each.shape for name, each in state.items()} == {"sum": (20,)}


# ---- what torch expects of an optimiser -----------------------------------------------------------------------------


def machine(n_features=12, **options):
    fm = FactorizationMachine(n_features, 5, init_std=0.3, **options)
    torch.nn.init.normal_(fm.linear.weight)
    return fm


def batches(n_features=12, n_batches=5, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n_batches):
        X = sp.random_array((8, n_features), density=0.3, format="csr", rng=rng, dtype=np.float32)
        yield CSRBatch.from_csr(X), torch.from_numpy(rng.standard_normal(8).astype(np.float32))


def train(fm, optimizer, steps):
    for rows, y in steps:
        optimizer.zero_grad()
        F.mse_loss(fm(rows), y).backward()
        optimizer.step()


def same_parameters(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every
@pytest.mark.parametrize("in_backward", [False, True])
def test_a_saved_state_goes_on_to_the_same_bits(in_backward, name):
    fm = machine()
    optimizer = MAKERS[name](fm.parameters(), lr=0.1, in_backward=in_backward)
    train(fm, optimizer, batches())
    file = io.BytesIO()
    torch.save({"fm": fm.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(fm, optimizer, batches(seed=1))

    file.seek(0)
    saved, again = torch.load(file, weights_only=True), machine()
    loaded = MAKERS[name](again.parameters(), lr=0.5, in_backward=in_backward)
    again.load_state_dict(saved["fm"])
    loaded.load_state_dict(saved["optimizer"])
    train(again, loaded, batches(seed=1))
    assert same_parameters(fm, again)


@every
@pytest.mark.parametrize("in_backward", [False, True])
def test_a_copy_of_both_goes_on_to_the_same_bits(in_backward, name):
    fm = machine()
    optimizer = MAKERS[name](fm.parameters(), lr=0.1, in_backward=in_backward)
    train(fm, optimizer, batches())
    for again, copied in (copy.deepcopy((fm, optimizer)), pickle.loads(pickle.dumps((fm, optimizer)))):
        one, one_optimizer = copy.deepcopy((fm, optimizer))
        train(one, one_optimizer, batches(seed=1))
        train(again, copied, batches(seed=1))
        assert same_parameters(one, again)
        assert not same_parameters(fm, again)


@every
@pytest.mark.parametrize("sparse_grad", [True, False])
def test_steps_in_the_backward_pass_equal_steps_after_it(sparse_grad, name):
    after = machine(sparse_grad=sparse_grad)
    inside = copy.deepcopy(after)
    one = MAKERS[name](after.parameters(), lr=0.1, weight_decay=0.01)
    MAKERS[name](inside.parameters(), lr=0.1, weight_decay=0.01, in_backward=True)
    for rows, y in batches():
        one.zero_grad()
        F.mse_loss(after(rows), y).backward()
        one.step()
        F.mse_loss(inside(rows), y).backward()
        assert all(p.grad is None for p in inside.parameters())
        assert same_parameters(after, inside)


@every
def test_with_steps_in_the_backward_pass_the_usual_loop_takes_each_once(name):
    after = machine()
    inside = copy.deepcopy(after)
    train(after, MAKERS[name](after.parameters(), lr=0.1), batches())
    train(inside, MAKERS[name](inside.parameters(), lr=0.1, in_backward=True), batches())
    assert same_parameters(after, inside)


def test_a_closure_is_called_once_and_its_loss_comes_back():
    rows, y = next(batches())
    results = []
    for in_backward in (False, True):
        torch.manual_seed(1)
        fm, calls = machine(), []
        optimizer = AdaGrad(fm.parameters(), in_backward=in_backward)

        def closure(fm=fm, calls=calls):
            loss = F.mse_loss(fm(rows), y)
            loss.backward()
            calls.append(loss.item())
            return loss.item()

        assert optimizer.step(closure) == calls[0]
        assert len(calls) == 1
        results.append(fm)
    assert same_parameters(*results)


def test_groups_have_options_of_their_own():
    fm = machine()
    linear, factors = fm.linear.weight, fm.factors.weight
    start = linear.detach().clone(), factors.detach().clone()
    optimizer = LazyAdam([{"params": [linear], "lr": 0.0}, {"params": [factors]}], lr=0.1)
    train(fm, optimizer, batches(n_batches=1))
    assert torch.equal(linear, start[0])
    assert (factors - start[1]).abs().max().item() == pytest.approx(0.1, rel=1e-3)
    optimizer.add_param_group({"params": [fm.bias], "lr": 0.2})
    train(fm, optimizer, batches(n_batches=1))
    assert abs(fm.bias.item()) == pytest.approx(0.2, rel=1e-3)


def test_a_schedule_sets_the_step():
    p = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = AdaGrad([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    p.grad = row_sparse([1], torch.ones(1, 3), p)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    before = p.detach().clone()
    optimizer.step()
    assert (p - before)[1, 0].item() == pytest.approx(-0.05 / math.sqrt(2), rel=1e-4)


def test_a_newer_optimiser_takes_the_parameters_over():
    fm = machine()
    AdaGrad(fm.parameters(), in_backward=True)
    optimizer = AdaGrad(fm.parameters())
    start, (rows, y) = copy.deepcopy(fm), next(batches())
    F.mse_loss(fm(rows), y).backward()
    assert same_parameters(fm, start)
    optimizer.step()
    assert not same_parameters(fm, start)


def test_steps_in_the_backward_pass_end_with_the_parameters_and_keep_nothing_alive():
    fm, (rows, y) = machine(), next(batches())
    AdaGrad(fm.parameters(), in_backward=True)  # held by the parameters alone
    start = copy.deepcopy(fm)
    gc.collect()
    F.mse_loss(fm(rows), y).backward()
    assert not same_parameters(fm, start)
    table = weakref.ref(fm.factors.weight)
    del fm
    gc.collect()
    assert table() is None


def test_a_pickled_module_has_no_optimiser():
    fm, (rows, y) = machine(), next(batches())
    AdaGrad(fm.parameters(), in_backward=True)
    again = pickle.loads(pickle.dumps(fm))
    F.mse_loss(again(rows), y).backward()
    assert same_parameters(fm, again)
    AdaGrad(again.parameters()).step()
    assert not same_parameters(fm, again)


def test_a_graph_that_holds_the_old_values_fails():
    fm, (rows, y) = machine(), next(batches())
    AdaGrad(fm.parameters(), in_backward=True)
    loss = F.mse_loss(fm(rows), y)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("in_backward", [False, True])
@every
def test_a_planted_model_is_learned(in_backward, name):
    rng = np.random.default_rng(0)
    n_rows, levels = 4000, np.array([30, 40])
    codes = rng.integers(0, levels, (n_rows, 2))
    indices = (codes + [0, 30]).ravel().astype(np.int32)
    X = sp.csr_array((np.ones(2 * n_rows, np.float32), indices, np.arange(0, 2 * n_rows + 1, 2)), shape=(n_rows, 70))
    planted = FactorizationMachine(70, 4, init_std=0.7)
    torch.nn.init.normal_(planted.linear.weight)
    with torch.no_grad():
        y = planted(CSRBatch.from_csr(X))
    fm = FactorizationMachine(70, 4, init_std=0.1)
    data = [(CSRBatch.from_csr(X[at : at + 100]), y[at : at + 100]) for at in range(0, n_rows, 100)]
    optimizer = MAKERS[name](fm.parameters(), lr=0.03 if name == "adam" else 0.2, in_backward=in_backward)
    history = fit(fm, data, loss=F.mse_loss, optimizer=optimizer, epochs=10)
    assert history[-1]["loss"] < 0.1 * y.var().item()
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [AdaGrad, LazyAdam])
@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"lr": -0.1}, ValueError, r"\(lr\) must be a non-negative number, got -0.1"),
        ({"lr": math.nan}, ValueError, r"\(lr\)"),
        ({"lr": math.inf}, ValueError, r"\(lr\)"),
        ({"lr": "fast"}, ValueError, r"\(lr\)"),
        ({"eps": 0.0}, ValueError, r"\(eps\) must be at least 1e-30, got 0.0"),
        ({"eps": math.nan}, ValueError, r"\(eps\)"),
        ({"weight_decay": -1}, ValueError, r"\(weight_decay\)"),
        ({"weight_decay": math.nan}, ValueError, r"\(weight_decay\)"),
        ({"in_backward": 1}, TypeError, r"\(in_backward\) must be True or False, got 1"),
    ],
)
def test_wrong_options_are_refused(options, error, match, maker):
    p = torch.nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(error, match=match):
        maker([p], **options)


def test_wrong_options_of_one_of_them_are_refused():
    p = torch.nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="initial_accumulator_value"):
        AdaGrad([p], initial_accumulator_value=math.nan)
    with pytest.raises(TypeError, match=r"AdaGrad\(rowwise\) must be True or False, got 'yes'"):
        AdaGrad([p], rowwise="yes")
    for betas in ((0.9, 1.0), (-0.1, 0.9), (math.nan, 0.9)):
        with pytest.raises(ValueError, match="betas"):
            LazyAdam([p], betas=betas)
    with pytest.raises(TypeError, match="two numbers"):
        LazyAdam([p], betas=0.9)


def test_options_that_went_wrong_later_are_refused_before_a_step():
    p, q = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    optimizer = AdaGrad([{"params": [p]}, {"params": [q]}])
    p.grad = q.grad = torch.ones(3, 2)
    optimizer.param_groups[1]["lr"] = math.nan
    with pytest.raises(ValueError, match=r"AdaGrad\(lr\)"):
        optimizer.step()
    assert (p == 1).all()


def test_a_refused_group_is_not_kept_and_hangs_up_no_hooks():
    p, frozen = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3), requires_grad=False)
    with pytest.raises(ValueError, match="requires no gradient"):
        AdaGrad([{"params": [p]}, {"params": [frozen]}], in_backward=True)
    p.sum().backward()
    assert (p == 1).all()
    optimizer = AdaGrad([p])
    with pytest.raises(ValueError, match=r"\(lr\)"):
        optimizer.add_param_group({"params": [frozen], "lr": -1})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match=f"float32 and float64, got {dtype}"):
        AdaGrad([torch.nn.Parameter(torch.zeros(3, 2, dtype=dtype))])


def test_gradients_that_do_not_fit_are_refused_before_a_step():
    first, p = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    optimizer = AdaGrad([first, p])
    first.grad, p.grad = torch.ones(3, 2), torch.ones(3, 2)
    p.data = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"a gradient has shape \(3, 2\)"):
        optimizer.step()
    p.grad = torch.ones(4, 2).to_sparse()  # in both axes
    with pytest.raises(ValueError, match="first axis alone is sparse"):
        optimizer.step()
    for features in ([0, 4], [-1, 2], [2, 2], [3, 1]):
        p.grad = torch.sparse_coo_tensor(
            torch.tensor([features]), torch.ones(2, 2), (4, 2), check_invariants=False, is_coalesced=True
        )
        with pytest.raises(ValueError, match="names rows outside 0 … 3, or says that it is coalesced"):
            optimizer.step()
    assert (first == 1).all()
    assert (p == 1).all()


@every
def test_state_of_another_table_is_refused(name):
    p = torch.nn.Parameter(torch.ones(4, 2))
    _, other = run(name, torch.randn(9, 3), random_steps(9, 3, torch.float32))
    optimizer = MAKERS[name]([p])
    optimizer.load_state_dict(other.state_dict())
    p.grad = torch.ones(4, 2)
    with pytest.raises(ValueError, match="was saved for other parameters or by another optimiser"):
        optimizer.step()
    assert (p == 1).all()


def test_state_of_another_optimiser_is_refused():
    p = torch.nn.Parameter(torch.ones(4, 2))
    with pytest.raises(ValueError, match="lacks rowwise: it was saved by another optimiser"):
        AdaGrad([p]).load_state_dict(torch.optim.Adagrad([p]).state_dict())


def test_several_processes_are_refused_in_the_backward_pass(monkeypatch):
    p = torch.nn.Parameter(torch.ones(4, 2))
    AdaGrad([p], in_backward=True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="pass in_backward=False"):
        p.sum().backward()
    assert (p == 1).all()


def test_which_rows_are_distinct_and_inside():
    def ascending(*features, n_features=5):
        features = np.array(features, np.int64)
        return rowsteps.ascending_at(features.ctypes.data, len(features), n_features)

    assert ascending()
    assert ascending(0, 3, 4)
    for bad in ((-1, 2), (0, 5), (1, 1), (2, 1)):
        assert not ascending(*bad)
