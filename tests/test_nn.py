"""The factorization machine as a torch module, and the training loop."""

import copy
import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import reference
import scipy.sparse as sp

torch = pytest.importorskip("torch", reason="the torch wing")

import safetensors.torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from sparsefm import FMRegressor, FrameEncoder, Numeric, OneHot, model  # noqa: E402
from sparsefm.nn import CSRBatch, CSRDataset, FactorizationMachine, RowBatches, fit, predict  # noqa: E402

# torch tells everybody once that CSR tensors are young, and its optimisers that nobody asked for sparse checks
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)


def matrix(n_rows=12, n_features=9, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return sp.random_array((n_rows, n_features), density=0.4, format="csr", rng=rng, dtype=dtype)


def csr_tensor(X):
    X = sp.csr_array(X)
    return torch.sparse_csr_tensor(
        torch.from_numpy(X.indptr), torch.from_numpy(X.indices), torch.from_numpy(X.data), X.shape
    )


def layer(n_features=9, n_factors=5, **options):
    fm = FactorizationMachine(n_features, n_factors, init_std=0.3, **options)
    torch.nn.init.normal_(fm.linear.weight)
    torch.nn.init.normal_(fm.bias)
    return fm


def brute_force(fm, X):
    X = sp.csr_array(X)
    w, V = fm.linear.weight.detach()[:, 0], fm.factors.weight.detach()
    return reference.score(X.indptr, X.indices, X.data, fm.bias.item(), w.numpy(), V.numpy())


# ---- what fmpytorch showed ------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """The feed-forward model of fmpytorch's README."""

    def __init__(self, n_in, n_hidden):
        super().__init__()
        self.linear = torch.nn.Linear(n_in, n_hidden)
        self.dropout = torch.nn.Dropout(0.5)
        self.fm = FactorizationMachine(n_hidden, 5)

    def forward(self, x):
        return self.fm(self.dropout(self.linear(x)))


def test_the_model_of_the_seeds_readme_maps_a_batch_to_one_number_a_row():
    network = Network(100, 50)
    out = network(torch.randn(32, 100))
    assert out.shape == (32,)
    out.sum().backward()
    assert all(p.grad is not None and not p.grad.is_sparse for p in network.parameters())
    assert network.linear.weight.grad.abs().sum() > 0


def test_the_seeds_toy_learns_a_sum():
    network, rng = Network(100, 100), np.random.default_rng(1)
    network.dropout.p = 0.0
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(300):
        x = rng.random(size=(16, 100)).astype(np.float32)
        optimizer.zero_grad()
        loss = F.mse_loss(network(torch.from_numpy(x)), torch.from_numpy(x.sum(axis=1)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    variance = 100 / 12  # of a sum of 100 uniform numbers
    assert losses[0] > 100 * variance
    assert np.mean(losses[-20:]) < 0.5 * variance


def test_the_seeds_regression_finds_a_polynomial_with_plain_steps():
    weights, bias = torch.randn(4) * 5, torch.randn(()) * 5
    fm = FactorizationMachine(4, 5)
    losses = []
    for _ in range(1500):
        x = torch.randn(32)
        x = torch.stack([x**i for i in range(1, 5)], dim=1)
        fm.zero_grad()
        loss = F.smooth_l1_loss(fm(x), x @ weights + bias)
        loss.backward()
        for p in fm.parameters():
            p.data.add_(p.grad, alpha=-0.01)
        losses.append(loss.item())
    assert np.mean(losses[-50:]) < 0.2 * np.mean(losses[:50])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_and_backward_agree_with_the_naive_formula_as_in_the_seeds_test(dtype):
    fm = layer(50, 5, dtype=dtype)
    w0, w, V = (p.detach().clone().requires_grad_() for p in (fm.bias, fm.linear.weight, fm.factors.weight))
    for _ in range(10):
        x, y = torch.rand(32, 50, dtype=dtype), torch.rand(32, dtype=dtype)
        slow = w0 + (x @ w)[:, 0] + ((x @ V) ** 2 - x**2 @ V**2).sum(1) / 2
        fast = fm(x)
        torch.testing.assert_close(fast, slow)
        expected = torch.autograd.grad(F.mse_loss(slow, y), (w0, w, V))
        got = torch.autograd.grad(F.mse_loss(fast, y), tuple(fm.parameters()))
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


# ---- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_factors", [1, 5, 8, 16, 20])
def test_every_kind_of_input_gives_the_scores_of_the_definition(n_factors):
    X = matrix()
    fm = layer(n_factors=n_factors)
    expected = brute_force(fm, X)
    inputs = CSRBatch.from_csr(X), csr_tensor(X), torch.tensor(X.toarray())
    for x in inputs:
        np.testing.assert_allclose(fm(x).detach(), expected, rtol=1e-5, atol=1e-5)
        pairs = fm.bi_interaction(x)
        assert pairs.shape == (12, n_factors)
        linear = fm.bias + torch.tensor(X.toarray()) @ fm.linear.weight[:, 0]
        torch.testing.assert_close(pairs.sum(1) + linear, fm(x), rtol=1e-5, atol=1e-5)


def test_dense_input_may_have_any_number_of_leading_axes():
    fm, x = layer(), torch.randn(2, 3, 4, 9)
    assert fm(x).shape == (2, 3, 4)
    assert fm(x[0, 0, 0]).shape == ()
    assert fm.bi_interaction(x).shape == (2, 3, 4, 5)
    torch.testing.assert_close(fm(x)[1, 2, 3], fm(x[1, 2, 3]))


def test_gradients_reach_every_kind_of_input():
    fm, X = layer(), matrix()
    x = torch.tensor(X.toarray(), requires_grad=True)
    fm(x).sum().backward()
    values = CSRBatch.from_csr(X)
    values.data.requires_grad_()
    fm(values).sum().backward()
    sparse = csr_tensor(X).requires_grad_()
    fm(sparse).sum().backward()
    at = X.nonzero()
    torch.testing.assert_close(values.data.grad, x.grad[at])
    torch.testing.assert_close(sparse.grad.values(), x.grad[at])


def test_sparse_input_gives_row_sparse_gradients_and_dense_input_dense_ones():
    fm = layer(1000)
    X = sp.csr_array(([1.0, 2.0, 3.0], ([0, 0, 1], [7, 900, 7])), shape=(2, 1000))
    fm(CSRBatch.from_csr(X)).sum().backward()
    for weight in (fm.linear.weight, fm.factors.weight):
        assert weight.grad.is_sparse
        assert weight.grad._indices().tolist() == [[7, 900]]
        assert weight.grad._values().shape == (2, weight.shape[1])
    sparse = fm.factors.weight.grad.to_dense()
    fm.zero_grad()
    fm(
        torch.tensor(sp.csr_array(([1.0, 2.0, 3.0], ([0, 0, 1], [7, 900, 7])), shape=(2, 1000)).toarray())
    ).sum().backward()
    assert not fm.factors.weight.grad.is_sparse
    torch.testing.assert_close(fm.factors.weight.grad, sparse)


def test_dense_gradients_on_sparse_input_where_asked_for():
    fm, X = layer(sparse_grad=False), matrix()
    assert not fm.sparse_grad
    fm(CSRBatch.from_csr(X)).sum().backward()
    assert not fm.factors.weight.grad.is_sparse


@pytest.mark.parametrize(
    "x, error, message",
    [
        (torch.zeros(2, 8), ValueError, "x must be"),
        (CSRBatch.from_csr(sp.csr_array((2, 8))), ValueError, "8 columns, but this layer has 9 features"),
        (torch.zeros(2, 9).to_sparse_coo(), TypeError, "CSR"),
        (np.zeros((2, 9)), TypeError, "CSRBatch.from_csr"),
        (sp.csr_array((2, 9)), TypeError, "CSRBatch.from_csr"),
        (CSRBatch(torch.tensor([0, 1]), torch.tensor([9]), None, 9), ValueError, "column index 9 in row 0"),
        (CSRBatch(torch.tensor([0, 1]), torch.tensor([-1]), None, 9), ValueError, "column index -1 in row 0"),
        (CSRBatch(torch.tensor([0, 2]), torch.tensor([1]), None, 9), ValueError, "indptr must begin with 0"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(x, error, message):
    with pytest.raises(error, match=message):
        layer()(x)


@pytest.mark.parametrize("name, value", [("n_features", 0), ("n_factors", 0), ("n_factors", 2.0), ("init_std", -1.0)])
def test_bad_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        FactorizationMachine(**({"n_features": 9, "n_factors": 5} | {name: value}))


def test_a_new_layer_starts_with_small_factors_that_the_seed_decides():
    torch.manual_seed(3)
    a = FactorizationMachine(2000, 8)
    torch.manual_seed(3)
    b = FactorizationMachine(2000, 8)
    assert torch.equal(a.factors.weight, b.factors.weight)
    assert a.factors.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not a.linear.weight.any()
    assert not a.bias.any()
    a.reset_parameters()
    assert not torch.equal(a.factors.weight, b.factors.weight)


# ---- a good citizen -------------------------------------------------------------------------------------------------


def test_copies_pickles_and_files_score_alike(tmp_path):
    fm, batch = layer(), CSRBatch.from_csr(matrix())
    safetensors.torch.save_model(fm, str(tmp_path / "fm.safetensors"))
    torch.save(fm.state_dict(), tmp_path / "fm.pt")
    assert list(fm.state_dict()) == ["bias", "linear.weight", "factors.weight"]
    from_file, from_state = layer(), layer()
    safetensors.torch.load_model(from_file, str(tmp_path / "fm.safetensors"))
    from_state.load_state_dict(torch.load(tmp_path / "fm.pt", weights_only=True))
    for other in (copy.deepcopy(fm), pickle.loads(pickle.dumps(fm)), from_file, from_state):
        assert torch.equal(other(batch), fm(batch))
        assert other.sparse_grad


def test_scripts_print_it_readably():
    assert str(FactorizationMachine(9, 5)).startswith("FactorizationMachine(\n  9, 5, sparse_grad=True")


def test_parameters_are_shared_with_the_numpy_wing():
    X, y = matrix(60), np.random.default_rng(0).standard_normal(60).astype(np.float32)
    params = FMRegressor(n_factors=4, random_state=0).fit(X, y).params_
    fm = FactorizationMachine.from_params(params)
    np.testing.assert_array_equal(fm(CSRBatch.from_csr(X)).detach(), model.score(params, X))
    fm(CSRBatch.from_csr(X)).sum().backward()
    before = params.V.copy()
    torch.optim.SGD(fm.parameters(), lr=0.1).step()
    assert not np.array_equal(params.V, before)
    back = fm.to_params()
    assert np.shares_memory(back.V, params.V)
    assert np.shares_memory(back.w, params.w)
    np.testing.assert_array_equal(model.score(back, X), fm(CSRBatch.from_csr(X)).detach())


def test_copied_parameters_are_not_shared():
    w, V = np.ones(3, np.float32), np.ones((3, 2), np.float32)
    w.flags.writeable = V.flags.writeable = False
    params = model.FMParams(0.5, w, V)
    with pytest.raises(ValueError, match="copy=True"):
        FactorizationMachine.from_params(params)
    fm = FactorizationMachine.from_params(params, copy=True)
    copied = fm.to_params(copy=True)
    torch.nn.init.zeros_(fm.factors.weight)
    assert copied.V.all()
    assert params.V.all()
    assert copied.w0 == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linear_model_is_a_layer_too(dtype):
    X = matrix(dtype=dtype)
    params = model.FMParams(0.5, np.arange(9, dtype=dtype), np.empty((9, 0), dtype))
    fm = FactorizationMachine.from_params(params, sparse_grad=False)
    assert fm.n_factors == 0
    assert not fm.sparse_grad
    for x in (CSRBatch.from_csr(X), torch.tensor(X.toarray())):
        out = fm(x)
        np.testing.assert_allclose(out.detach(), model.score(params, X), rtol=1e-6)
        out.sum().backward()


def test_parameters_numpy_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"call .cpu\(\).float\(\) first"):
        layer().bfloat16().to_params()


def test_compiled_whole_it_takes_batches_of_any_size():
    fm = layer()
    compiled = torch.compile(fm, fullgraph=True, dynamic=True, backend="aot_eager")
    for n_rows in (12, 5, 7):
        X = matrix(n_rows, seed=n_rows)
        for x in (CSRBatch.from_csr(X), torch.tensor(X.toarray())):
            fm.zero_grad()
            compiled(x).square().sum().backward()
            got = [p.grad for p in fm.parameters()]
            assert not any(g.is_sparse for g in got)
            fm.zero_grad()
            fm(x).square().sum().backward()
            for a, b in zip(got, fm.parameters(), strict=True):
                torch.testing.assert_close(a, b.grad.to_dense())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in torch itself
def test_inductor_compiles_it_inside_a_network():
    network = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), layer())
    x = torch.randn(5, 6)
    compiled = torch.compile(network, fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x), network(x))


def test_exported_it_takes_batches_of_any_size():
    fm, auto = layer(), torch.export.Dim.AUTO
    dense = torch.export.export(fm, (torch.randn(4, 9),), dynamic_shapes=({0: auto},))
    batch = CSRBatch.from_csr(matrix())
    shapes = (CSRBatch({0: auto}, {0: auto}, {0: auto}, None),)
    sparse = torch.export.export(fm, (batch,), dynamic_shapes=shapes)
    assert "sparsefm.fm" in str(sparse.graph)
    other = matrix(7, seed=1)
    torch.testing.assert_close(sparse.module()(CSRBatch.from_csr(other)), fm(CSRBatch.from_csr(other)))
    torch.testing.assert_close(dense.module()(torch.tensor(other.toarray())), fm(torch.tensor(other.toarray())))


def test_autocast_leaves_the_scores_in_full_precision():
    fm, X = layer(), matrix()
    batch, x = CSRBatch.from_csr(X), torch.tensor(X.toarray())
    with torch.autocast("cpu", torch.bfloat16):
        network = torch.nn.Sequential(torch.nn.Linear(9, 9), fm)
        assert network(x).dtype == torch.float32
        assert torch.equal(fm(batch), layer_scores(fm, batch))
        torch.testing.assert_close(fm(x), layer_scores(fm, batch), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fm.bi_interaction(x), fm.bi_interaction(batch), rtol=1e-5, atol=1e-5)
    network(x).sum().backward()
    assert network[0].weight.grad is not None


def layer_scores(fm, batch):
    with torch.autocast("cpu", enabled=False):
        return fm(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parameters_give_scores_of_half_precision(dtype):
    fm, X = layer(), matrix()
    exact = fm(CSRBatch.from_csr(X)).detach()
    half = fm.to(dtype)
    for x in (CSRBatch.from_csr(X), torch.tensor(X.toarray())):
        out = half(x)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)
        out.sum().backward()


def test_functional_transforms_apply():
    fm, X = layer(), matrix()
    batch, x = CSRBatch.from_csr(X), torch.tensor(X.toarray())
    parameters = dict(fm.named_parameters())

    def total(parameters, x):
        return torch.func.functional_call(fm, parameters, (x,)).sum()

    fm(batch).sum().backward()
    for each in (batch, x):
        gradients = torch.func.grad(total)(parameters, each)
        for name, p in parameters.items():
            torch.testing.assert_close(gradients[name], p.grad.to_dense(), rtol=1e-5, atol=1e-5)
    per_row = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(parameters, x)
    torch.testing.assert_close(per_row["factors.weight"].sum(0), gradients["factors.weight"], rtol=1e-5, atol=1e-5)


# ---- optimisers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
)
def test_row_sparse_and_dense_gradients_train_alike(make):
    X, y = matrix(40), torch.randn(40)
    sparse = layer()
    dense = layer(sparse_grad=False)
    dense.load_state_dict(sparse.state_dict())
    for fm in (sparse, dense):
        optimizer = make(fm.parameters())
        for start in range(0, 40, 10):
            optimizer.zero_grad()
            F.mse_loss(fm(CSRBatch.from_csr(X[start : start + 10])), y[start : start + 10]).backward()
            optimizer.step()
    for a, b in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_sparse_adam_moves_touched_rows_only():
    fm = layer(100)
    before = fm.factors.weight.detach().clone()
    batch = CSRBatch.from_csr(sp.csr_array(([1.0, 1.0], ([0, 0], [3, 50])), shape=(1, 100)))
    optimizer = torch.optim.SparseAdam([fm.linear.weight, fm.factors.weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        fm(batch).sum().backward()
        optimizer.step()
    moved = (fm.factors.weight != before).any(1).nonzero()[:, 0]
    assert moved.tolist() == [3, 50]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: torch.optim.Adam(p), "does not support sparse gradients"),
        (lambda p: torch.optim.AdamW(p), "does not support sparse gradients"),
        (lambda p: torch.optim.Adagrad(p, weight_decay=0.1), "weight_decay option is not compatible"),
    ],
)
def test_what_torch_refuses_with_row_sparse_gradients_is_as_documented(make, message):
    fm = layer()
    optimizer = make(fm.parameters())
    fm(CSRBatch.from_csr(matrix())).sum().backward()
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()


# ---- fit and predict ------------------------------------------------------------------------------------------------


def ratings(n=3000, seed=0):
    """User and item effects and one interaction, little noise."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 30, n), rng.integers(0, 20, n)
    b, c, p, q = rng.normal(size=30), rng.normal(size=20), rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
    y = b[users] + c[items] + (p[users] * q[items]).sum(1) + 0.1 * rng.normal(size=n)
    frame = pd.DataFrame({"user": [f"u{i}" for i in users], "item": items, "age": rng.normal(size=n)})
    return frame, y.astype(np.float32)


def loaders(frame, y, encoder, batch_size=100, n_train=2500, **options):
    X = encoder.fit_transform(frame)
    train = CSRDataset(X[:n_train], y[:n_train])
    held_out = CSRDataset(X[n_train:], y[n_train:])
    sampler = RowBatches(len(train), batch_size, shuffle=True, generator=torch.Generator().manual_seed(0))
    return (
        DataLoader(train, sampler=sampler, batch_size=None, **options),
        DataLoader(held_out, sampler=RowBatches(len(held_out), 1000), batch_size=None),
    )


ENCODER = {"user": OneHot(), "item": OneHot(), "age": Numeric()}


def test_a_fitted_module_predicts_a_frame_through_the_same_encoder():
    frame, y = ratings()
    encoder = FrameEncoder(ENCODER)
    train, held_out = loaders(frame, y, encoder)
    fm = FactorizationMachine(encoder.n_features_out_, 4, init_std=0.1)
    history = fit(
        fm,
        train,
        loss=F.mse_loss,
        optimizer=torch.optim.Adagrad(fm.parameters(), lr=0.2),
        epochs=15,
        validation=held_out,
    )
    assert [each["epoch"] for each in history] == list(range(1, 16))
    assert history[-1]["validation_loss"] < 0.1 * y.var()
    assert not fm.training
    scores = predict(fm, encoder.transform(frame[2500:]), batch_size=64)
    assert np.mean((scores - y[2500:]) ** 2) == pytest.approx(history[-1]["validation_loss"], rel=1e-4)
    assert scores.dtype == np.float32


def test_the_same_seed_trains_the_same_bits_with_and_without_workers():
    frame, y = ratings(600)
    weights = []
    for options in ({}, {}, {"num_workers": 1, "multiprocessing_context": "fork"}):
        torch.manual_seed(5)
        encoder = FrameEncoder(ENCODER)
        train, _ = loaders(frame, y, encoder, n_train=500, **options)
        fm = FactorizationMachine(encoder.n_features_out_, 4)
        fit(fm, train, loss=F.mse_loss, optimizer=torch.optim.SGD(fm.parameters(), lr=0.1), epochs=2)
        weights.append(fm.factors.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_early_stopping_goes_back_to_the_best_weights():
    frame, y = ratings()
    encoder = FrameEncoder(ENCODER)
    train, held_out = loaders(frame, y, encoder, n_train=150)
    fm = FactorizationMachine(encoder.n_features_out_, 8, init_std=0.5)
    history = fit(
        fm,
        train,
        loss=F.mse_loss,
        optimizer=torch.optim.Adagrad(fm.parameters(), lr=0.5),
        epochs=200,
        validation=held_out,
        patience=3,
    )
    losses = [each["validation_loss"] for each in history]
    assert len(losses) < 200
    assert np.argmin(losses) == len(losses) - 4
    again = fit(
        fm, train, loss=F.mse_loss, optimizer=torch.optim.SGD(fm.parameters(), lr=0.0), epochs=1, validation=held_out
    )
    assert again[0]["validation_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_a_callback_sees_every_epoch_and_can_stop():
    frame, y = ratings(300)
    encoder = FrameEncoder(ENCODER)
    train, _ = loaders(frame, y, encoder, n_train=250)
    fm = FactorizationMachine(encoder.n_features_out_, 4)
    seen = []

    def stop_at_three(module, metrics):
        assert module is fm
        seen.append(metrics["epoch"])
        return len(seen) == 3

    fit(
        fm,
        train,
        loss=F.mse_loss,
        optimizer=torch.optim.SGD(fm.parameters(), lr=0.01),
        epochs=9,
        callback=stop_at_three,
    )
    assert seen == [1, 2, 3]


def test_several_optimisers_weights_and_mixed_precision_work_together():
    frame, y = ratings()
    encoder = FrameEncoder(ENCODER)
    X = encoder.fit_transform(frame)
    train = CSRDataset(X, y, np.where(np.arange(len(y)) < 2000, 1.0, 0.0))
    loader = DataLoader(train, sampler=RowBatches(len(train), 100), batch_size=None)

    class NFM(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fm = FactorizationMachine(encoder.n_features_out_, 4, init_std=0.1)
            self.deep = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

        def forward(self, x):
            return self.fm(x) + self.deep(self.fm.bi_interaction(x))[:, 0]

    network = NFM()
    tables = [network.fm.linear.weight, network.fm.factors.weight]
    rest = [network.fm.bias, *network.deep.parameters()]
    history = fit(
        network,
        loader,
        loss=lambda out, y, weight: (weight * (out - y) ** 2).mean(),
        optimizer=[torch.optim.SparseAdam(tables, lr=0.02), torch.optim.Adam(rest, lr=0.02)],
        epochs=8,
        autocast=torch.bfloat16,
    )
    assert history[-1]["loss"] < 0.4 * history[0]["loss"]
    assert len(predict(network, X)) == len(y)


def test_divergence_is_noticed_and_explained():
    frame, y = ratings(300)
    encoder = FrameEncoder(ENCODER)
    train, _ = loaders(frame, y, encoder, n_train=250)
    fm = FactorizationMachine(encoder.n_features_out_, 4, init_std=1.0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(fm, train, loss=F.mse_loss, optimizer=torch.optim.SGD(fm.parameters(), lr=1e6), epochs=20)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patience": 3}, "needs validation data"),
        ({"autocast": torch.float16}, "loss scaling"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    fm = layer()
    with pytest.raises(ValueError, match=message):
        fit(fm, [], loss=F.mse_loss, optimizer=torch.optim.SGD(fm.parameters()), **options)


def test_no_batches_and_batches_without_target_are_refused():
    fm = layer()
    options = {"loss": F.mse_loss, "optimizer": torch.optim.SGD(fm.parameters())}
    with pytest.raises(ValueError, match="there are no batches"):
        fit(fm, [], **options)
    with pytest.raises(ValueError, match="got a CSRBatch alone"):
        fit(fm, [CSRBatch.from_csr(matrix())], **options)


def test_prediction_puts_the_module_back_into_training_mode():
    fm = torch.nn.Sequential(layer())
    fm.train()
    predict(fm, matrix())
    assert fm.training


def test_the_logistic_loss_learns_probabilities():
    rng = np.random.default_rng(0)
    X = sp.csr_array(np.eye(4, dtype=np.float32)[rng.integers(0, 4, 4000)])
    p = np.array([0.1, 0.4, 0.6, 0.9])
    y = (rng.random(4000) < p[X.indices]).astype(np.float32)
    fm = FactorizationMachine(4, 2)
    loader = DataLoader(CSRDataset(X, y), sampler=RowBatches(4000, 200), batch_size=None)
    optimizer = torch.optim.Adagrad(fm.parameters(), lr=0.3)
    fit(fm, loader, loss=F.binary_cross_entropy_with_logits, optimizer=optimizer, epochs=20)
    found = 1 / (1 + np.exp(-predict(fm, sp.csr_array(np.eye(4, dtype=np.float32)))))
    means = np.array([y[X.indices == j].mean() for j in range(4)])
    np.testing.assert_allclose(found, means, atol=0.03)


def test_nothing_warns_that_torch_does_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fm = layer()
        fm(CSRBatch.from_csr(matrix())).sum().backward()
        torch.optim.SGD(fm.parameters(), lr=0.1).step()
    assert math.isfinite(fm.bias.item())
