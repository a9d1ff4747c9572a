"""sparsefm.nn.data: batches are the rows asked for, in memory of their own, and every row comes once an epoch."""

from __future__ import annotations

import pickle
import tempfile
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch", reason="the torch wing")

from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler  # noqa: E402

from sparsefm.nn.data import CSRBatch, CSRDataset, RowBatches  # noqa: E402
from sparsefm.validation import Rows  # noqa: E402

N_ROWS, N_FEATURES = 40, 17
TORCH_TYPES = {np.float32: torch.float32, np.float64: torch.float64, np.int32: torch.int32, np.int64: torch.int64}


def random_matrix(*, index=np.int32, real=np.float32, ones=False, n_rows=N_ROWS):
    """Rows of different lengths, the first and last of them empty."""
    X = sp.random_array((n_rows, N_FEATURES), density=0.3, rng=np.random.default_rng(0), dtype=np.float64).tolil()
    X[0] = X[n_rows - 1] = 0
    X = X.tocsr()
    values = np.ones(X.nnz) if ones else X.data + 1
    return sp.csr_array((values.astype(real), X.indices.astype(index), X.indptr.astype(index)), shape=X.shape)


@pytest.fixture
def X():
    return random_matrix()


@pytest.fixture
def y():
    return np.random.default_rng(1).normal(size=N_ROWS).astype(np.float32)


def save_mapped(path, array):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


@pytest.fixture
def mapped(tmp_path, X, y):
    """X and y in arrays mapped read-only from files."""
    data, indices, indptr = (
        save_mapped(tmp_path / f"{name}.npy", getattr(X, name)) for name in ("data", "indices", "indptr")
    )
    return sp.csr_array((data, indices, indptr), shape=X.shape), save_mapped(tmp_path / "y.npy", y)


def assert_rows(batch, expected):
    """The batch holds the rows of a scipy matrix, entry by entry."""
    assert isinstance(batch, CSRBatch)
    assert batch.n_features == expected.shape[1]
    assert batch.n_rows == expected.shape[0]
    assert batch.nnz == expected.nnz
    np.testing.assert_array_equal(batch.indptr.numpy(), expected.indptr)
    np.testing.assert_array_equal(batch.indices.numpy(), expected.indices)
    values = np.ones(expected.nnz) if batch.data is None else batch.data.numpy()
    np.testing.assert_array_equal(values, expected.data)


def assert_same_items(got, expected):
    """Two epochs of (CSRBatch, target), bit for bit."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        ours, theirs = pytree.tree_leaves(list(one)), pytree.tree_leaves(list(other))
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            if isinstance(a, torch.Tensor):
                torch.testing.assert_close(a, b, rtol=0, atol=0)
            else:
                assert a == b


# ---------------------------------------------------------------------------------------------------- CSRBatch


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_a_batch_of_a_matrix_has_its_rows_and_types(index, real):
    X = random_matrix(index=index, real=real)
    batch = CSRBatch.from_csr(X)
    assert_rows(batch, X)
    assert batch.indptr.dtype == batch.indices.dtype == TORCH_TYPES[index]
    assert batch.data.dtype == TORCH_TYPES[real]


def test_a_batch_of_ones_has_no_values():
    assert CSRBatch.from_csr(random_matrix(ones=True)).data is None


def test_a_batch_is_made_of_dense_rows_too():
    batch = CSRBatch.from_csr([[0, 2.5, 0], [0, 0, 0]], dtype=torch.float32)
    assert_rows(batch, sp.csr_array(np.array([[0, 2.5, 0], [0, 0, 0]], dtype=np.float32)))
    assert batch.data.dtype == torch.float32


def test_a_batch_takes_the_type_asked_for(X):
    assert CSRBatch.from_csr(X, dtype=torch.float64).data.dtype == torch.float64
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.float64, got torch\.float16"):
        CSRBatch.from_csr(X, dtype=torch.float16)


def test_a_batch_of_a_bad_matrix_is_refused():
    with pytest.raises(ValueError, match="NaN in row 1"):
        CSRBatch.from_csr([[1.0, 0.0], [np.nan, 0.0]])


def test_changing_a_batch_leaves_the_matrix_alone(X):
    before = X.copy()
    batch = CSRBatch.from_csr(X)
    for tensor in batch[:3]:
        tensor.zero_()
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(X, name), getattr(before, name))


def test_to_converts_the_values_only(X):
    batch = CSRBatch.from_csr(X).to(dtype=torch.float64)
    assert batch.data.dtype == torch.float64
    assert batch.indptr.dtype == batch.indices.dtype == torch.int32
    assert_rows(batch, X)
    assert CSRBatch.from_csr(random_matrix(ones=True)).to(dtype=torch.float64).data is None


@pytest.mark.parametrize("ones", [False, True])
def test_to_moves_every_tensor(ones):
    batch = CSRBatch.from_csr(random_matrix(ones=ones)).to("meta", non_blocking=True)
    assert batch.indptr.is_meta
    assert batch.indices.is_meta
    assert batch.data is None if ones else batch.data.is_meta
    assert batch.n_features == N_FEATURES


@pytest.mark.parametrize("ones", [False, True])
def test_pinning_reaches_every_tensor_and_nothing_else(ones, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    batch = CSRBatch.from_csr(random_matrix(ones=ones))
    copy = batch.pin_memory()
    assert {*map(id, pinned)} == {id(field) for field in batch[:3] if field is not None}
    assert_rows(copy, random_matrix(ones=ones))
    assert copy.indptr is not batch.indptr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("ones", [False, True])
def test_a_loader_pins_batches_for_the_gpu(ones, y):
    X = random_matrix(ones=ones)
    loader = DataLoader(CSRDataset(X, y), sampler=RowBatches(N_ROWS, 16), batch_size=None, pin_memory=True)
    for at, (batch, target) in zip(RowBatches(N_ROWS, 16), loader, strict=True):
        assert all(tensor.is_pinned() for tensor in (*batch[:3], target) if tensor is not None)
        assert_rows(batch.to("cuda", non_blocking=True).to("cpu"), X[at])


@pytest.mark.parametrize("ones", [False, True])
def test_a_batch_survives_being_taken_apart_and_put_together(ones):
    batch = CSRBatch.from_csr(random_matrix(ones=ones))
    again = pytree.tree_map_only(torch.Tensor, torch.clone, batch)
    assert_rows(again, random_matrix(ones=ones))
    assert (again.data is None) == ones


# -------------------------------------------------------------------------------------------------- CSRDataset

MASK = np.arange(N_ROWS) % 3 == 0
INDICES = {
    "slice": (slice(5, 20), slice(5, 20)),
    "everything": (slice(None), slice(None)),
    "open slice": (slice(-7, None), slice(-7, None)),
    "slice past the end": (slice(30, 1000), slice(30, N_ROWS)),
    "steps": (slice(3, 30, 4), slice(3, 30, 4)),
    "backwards": (slice(None, None, -1), np.arange(N_ROWS)[::-1]),
    "empty slice": (slice(9, 2), []),
    "int": (7, [7]),
    "negative int": (-2, [N_ROWS - 2]),
    "numpy int": (np.int32(7), [7]),
    "empty row": (0, [0]),
    "list": ([3, 1, 1, -1], [3, 1, 1, N_ROWS - 1]),
    "empty list": ([], []),
    "list of booleans": (MASK.tolist(), np.flatnonzero(MASK)),
    "array": (np.array([8, 2, 0]), [8, 2, 0]),
    "small array": (np.array([8, -1], dtype=np.int8), [8, N_ROWS - 1]),
    "unsigned array": (np.array([8, 2], dtype=np.uint64), [8, 2]),
    "empty array": (np.array([], dtype=np.int64), []),
    "mask": (MASK, np.flatnonzero(MASK)),
    "mask of nothing": (np.zeros(N_ROWS, dtype=bool), []),
    "tensor": (torch.tensor([8, 2, -3]), [8, 2, N_ROWS - 3]),
    "tensor of one number": (torch.tensor(4), [4]),
    "tensor mask": (torch.from_numpy(MASK), np.flatnonzero(MASK)),
}


def indexed(X, rows):
    """X[rows] by scipy, which takes an empty list for one of floats."""
    cut = X[np.asarray(rows, dtype=np.int64)] if isinstance(rows, list) else X[rows]
    assert cut.ndim == 2
    return cut


@pytest.mark.parametrize("rows, same", INDICES.values(), ids=INDICES)
def test_batches_are_the_rows_scipy_gives(rows, same, X, y):
    batch, target = CSRDataset(X, y)[rows]
    assert_rows(batch, indexed(X, same))
    np.testing.assert_array_equal(target.numpy(), y[same])


@pytest.mark.parametrize("rows", [slice(0, 9), [0, 5, 3, 39], slice(4, 4), []], ids=str)
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_batches_keep_the_types_of_the_matrix(index, real, ones, rows):
    X = random_matrix(index=index, real=real, ones=ones)
    batch = CSRDataset(X)[rows]
    assert_rows(batch, indexed(X, rows))
    assert batch.indptr.dtype == batch.indices.dtype == TORCH_TYPES[index]
    assert batch.indptr[0] == 0
    if ones:
        assert batch.data is None
    else:
        assert batch.data.dtype == TORCH_TYPES[real]


def test_a_dataset_knows_its_size(X):
    ds = CSRDataset(X)
    assert (len(ds), ds.n_features) == (N_ROWS, N_FEATURES)


def test_without_targets_an_item_is_the_batch_alone(X, y):
    assert isinstance(CSRDataset(X)[:3], CSRBatch)
    assert [type(part) for part in CSRDataset(X, y, y)[:3]] == [CSRBatch, torch.Tensor, torch.Tensor]


def test_dense_rows_and_lists_are_taken(X):
    ds = CSRDataset(X.toarray(), list(range(N_ROWS)))
    batch, target = ds[10:20]
    assert_rows(batch, X[10:20])
    assert target.tolist() == list(range(10, 20))


def test_iterating_gives_each_row_once(X):
    batches = list(CSRDataset(X))
    assert len(batches) == N_ROWS
    assert torch.cat([batch.indices for batch in batches]).tolist() == X.indices.tolist()


@pytest.mark.parametrize("n_rows", [0, 1])
def test_datasets_of_one_row_or_none_work(n_rows):
    X = sp.csr_array(np.array([[0, 2, 3]], dtype=np.float32)[:n_rows])
    ds = CSRDataset(X, np.ones(n_rows))
    batch, target = ds[:]
    assert_rows(batch, X)
    assert target.shape == (n_rows,)
    items = list(DataLoader(ds, sampler=RowBatches(n_rows, 8, shuffle=True), batch_size=None))
    assert [batch.nnz for batch, _ in items] == [2] * n_rows


def test_mapped_arrays_are_used_in_place(mapped):
    X, y = mapped
    ds = CSRDataset(X, y)
    for used, given in zip((*ds._rows[:3], *ds._targets), (X.indptr, X.indices, X.data, y), strict=True):
        assert np.shares_memory(used, given)
    matrix = ds._matrix
    assert np.shares_memory(matrix.indices, X.indices)
    assert np.shares_memory(matrix.data, X.data)


@pytest.mark.parametrize("rows", [slice(2, 30), [20, 3], 5], ids=str)
def test_batches_of_mapped_arrays_can_be_changed(mapped, rows, X, y):
    ds = CSRDataset(*mapped)
    batch, target = ds[rows]
    for tensor in (*batch[:3], target):
        tensor.fill_(1)
    again, target = ds[rows]
    assert_rows(again, indexed(X, [rows] if isinstance(rows, int) else rows))
    np.testing.assert_array_equal(target.numpy(), np.atleast_1d(y[rows]))


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(1, 2), MASK, list(range(N_ROWS)), 3],
    ids=["all", "one", "mask", "list", "int"],
)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_batches_own_their_memory(index, rows, y):
    X = random_matrix(index=index)
    ds = CSRDataset(X, y)
    batch, target = ds[rows]
    for tensor, whole in zip((*batch[:3], target), (X.indptr, X.indices, X.data, y), strict=True):
        assert not np.shares_memory(tensor.numpy(), whole)


def test_integer_indices_wider_than_needed_are_not_narrowed_by_a_copy():
    X = random_matrix(index=np.int64)
    assert np.shares_memory(CSRDataset(X)._matrix.indices, X.indices)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_floating_and_boolean_targets_take_the_real_type_of_the_matrix(real, y):
    X = random_matrix(real=real)
    _, *targets = CSRDataset(X, y.astype(np.float32), y.astype(np.float64), y.astype(np.float16), y > 0)[:]
    assert {target.dtype for target in targets} == {TORCH_TYPES[real]}
    assert targets[3].tolist() == (y > 0).tolist()


def test_targets_beside_a_matrix_of_ones_are_float32_by_default(y):
    ds = CSRDataset(random_matrix(ones=True), y.astype(np.float64))
    assert ds[:][1].dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", ">i4"])
def test_class_numbers_keep_their_type(X, dtype):
    classes = (np.arange(N_ROWS) % 3).astype(dtype)
    _, target = CSRDataset(X, classes)[5:9]
    assert target.dtype == getattr(torch, np.dtype(dtype).name)
    assert target.tolist() == [2, 0, 1, 2]


def test_series_and_tensors_are_targets_by_position(X, y):
    series = pd.Series(y, index=range(N_ROWS, 0, -1))
    _, *targets = CSRDataset(X, series, torch.from_numpy(y))[[4, 2]]
    for target in targets:
        np.testing.assert_array_equal(target.numpy(), y[[4, 2]])


@pytest.mark.parametrize(
    "target, message",
    [
        (np.ones(N_ROWS - 1), rf"targets\[1\] must have one value a row of X, shape \({N_ROWS},\); got .*{N_ROWS - 1}"),
        (np.ones((N_ROWS, 1)), r"shape \(40,\); got shape \(40, 1\)"),
        (3.0, r"got shape \(\)"),
        (np.full(N_ROWS, "a"), "must hold numbers, got an array of type <U1"),
        (np.full(N_ROWS, None), "must hold numbers, got an array of type object"),
        (np.ones(N_ROWS, dtype=complex), "type complex128"),
        (np.r_[np.ones(N_ROWS - 1), np.nan], r"targets\[1\] contains NaN at position 39 \(1 such"),
        (np.r_[1.0, -np.inf, np.full(N_ROWS - 2, np.inf)], r"infinity .* at position 1 \(39 such"),
        (np.full(N_ROWS, 1e300), "too large for float32"),
    ],
    ids=["short", "column", "number", "text", "objects", "complex", "nan", "infinity", "overflow"],
)
def test_bad_targets_are_refused(X, y, target, message):
    with pytest.raises(ValueError, match=message):
        CSRDataset(X, y, target)


def test_a_bad_matrix_is_refused():
    with pytest.raises(ValueError, match="NaN in row 0"):
        CSRDataset([[np.nan]])


@pytest.mark.parametrize(
    "rows", [N_ROWS, -N_ROWS - 1, [0, 1, N_ROWS], np.array([3, -41]), torch.tensor([40]), np.array([2**63], np.uint64)]
)
def test_rows_out_of_range_are_named(X, rows):
    numbers = np.atleast_1d(np.asarray(rows))
    with pytest.raises(IndexError, match=rf"row {numbers[-1]} is out of range: the dataset has 40 rows"):
        CSRDataset(X)[rows]


@pytest.mark.parametrize("rows", [np.ones(3, dtype=bool), torch.ones(41, dtype=torch.bool), [True]], ids=str)
def test_a_mask_of_another_length_is_refused(X, rows):
    with pytest.raises(IndexError, match=rf"one boolean a row, 40 in all; got {len(rows)}$"):
        CSRDataset(X)[rows]


def test_a_table_of_row_numbers_is_refused(X):
    with pytest.raises(IndexError, match=r"one-dimensional, got shape \(2, 3\)"):
        CSRDataset(X)[np.zeros((2, 3), dtype=int)]


@pytest.mark.parametrize("rows", ["3", None, (1, 2), 2.0, [1.5], np.array([]), True, [2**70], ["a"]], ids=repr)
def test_anything_else_is_no_row_number(X, rows):
    with pytest.raises(TypeError, match="row numbers"):
        CSRDataset(X)[rows]


# -------------------------------------------------------------------------------------------- pickled datasets


def test_pickling_carries_the_place_in_the_file_instead_of_the_content(tmp_path):
    values = save_mapped(tmp_path / "values.npy", np.full(100_000, 0.5, dtype=np.float32))
    indices = save_mapped(tmp_path / "indices.npy", np.arange(100_000, dtype=np.int32))
    X = sp.csr_array((values, indices, np.array([0, 100_000], dtype=np.int32)), shape=(1, 100_000))
    ds = CSRDataset(X)
    content = pickle.dumps(ds)
    assert len(content) < 10_000
    assert_rows(pickle.loads(content)[:], X)


def test_pickling_finds_parts_of_a_file(tmp_path, X, y):
    both = save_mapped(tmp_path / "both.npy", np.concatenate([np.zeros(7, dtype=np.float32), X.data, y]))
    rows = Rows(X.indptr, X.indices, both[7:][: X.nnz], N_FEATURES, -1, np.dtype(np.float32))
    ds = pickle.loads(pickle.dumps(CSRDataset(rows, both[7 + X.nnz :])))
    batch, target = ds[:]
    assert_rows(batch, X)
    np.testing.assert_array_equal(target.numpy(), y)


def test_pickling_carries_the_content_where_no_file_has_it(tmp_path, X, y):
    np.save(tmp_path / "y.npy", y)
    changed = np.load(tmp_path / "y.npy", mmap_mode="c")
    changed += 1
    strided = np.load(tmp_path / "y.npy", mmap_mode="r")[::-1]
    with tempfile.TemporaryFile() as nameless:
        nameless.write(y.tobytes())
        unnamed = np.memmap(nameless, np.float32, "r")
        _, *targets = pickle.loads(pickle.dumps(CSRDataset(X, changed, strided, unnamed)))[:]
    for target, expected in zip(targets, (y + 1, y[::-1], y), strict=True):
        np.testing.assert_array_equal(target.numpy(), expected)


@pytest.mark.parametrize("ones", [False, True])
def test_a_pickled_dataset_of_arrays_in_memory_is_the_same(ones, y):
    X = random_matrix(ones=ones, index=np.int64)
    ds = pickle.loads(pickle.dumps(CSRDataset(X, y)))
    assert_same_items([ds[:], ds[[3, 1]]], [CSRDataset(X, y)[:], CSRDataset(X, y)[[3, 1]]])


def test_an_empty_mapped_dataset_can_be_pickled(tmp_path):
    indptr = save_mapped(tmp_path / "indptr.npy", np.zeros(4, dtype=np.int32))
    indices = save_mapped(tmp_path / "indices.npy", np.ones(5, dtype=np.int32))[5:]
    X = sp.csr_array((np.ones(0, dtype=np.float32), indices, indptr), shape=(3, 4))
    assert_rows(pickle.loads(pickle.dumps(CSRDataset(X)))[:], X)


# -------------------------------------------------------------------------------------------------- RowBatches


def numbers(rows):
    """Row numbers of one batch as a list."""
    return list(range(N_ROWS)[rows]) if isinstance(rows, slice) else rows.tolist()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_in_order_batches_are_slices():
    batches = list(RowBatches(10, 4))
    assert batches == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_shuffled_batches_are_arrays_of_int64():
    for rows in RowBatches(10, 4, shuffle=True):
        assert isinstance(rows, np.ndarray)
        assert rows.dtype == np.int64


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 40, 41])
def test_every_row_comes_once_an_epoch(batch_size, shuffle):
    sampler = RowBatches(N_ROWS, batch_size, shuffle=shuffle)
    for _ in range(2):
        epoch = [numbers(rows) for rows in sampler]
        assert sorted(chain(*epoch)) == list(range(N_ROWS))
        assert len(epoch) == len(sampler)
        assert all(len(rows) == batch_size for rows in epoch[:-1])


@pytest.mark.parametrize("n_rows, batch_size, length", [(40, 7, 5), (42, 7, 6), (6, 7, 0), (0, 7, 0)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_drop_last_leaves_out_the_smaller_batch(n_rows, batch_size, length, shuffle):
    sampler = RowBatches(n_rows, batch_size, shuffle=shuffle, drop_last=True)
    sizes = [rows.stop - rows.start if isinstance(rows, slice) else len(rows) for rows in sampler]
    assert sizes == [batch_size] * length
    assert len(sampler) == length


def test_each_epoch_has_another_order():
    sampler = RowBatches(N_ROWS, N_ROWS, shuffle=True, generator=seeded())
    (first,), (second,) = sampler, sampler
    assert first.tolist() != second.tolist()


def test_a_generator_repeats_the_epochs():
    one, other = (RowBatches(N_ROWS, 16, shuffle=True, generator=seeded(5)) for _ in range(2))
    for _ in range(2):
        assert [*map(numbers, one)] == [*map(numbers, other)]
    assert [*map(numbers, one)] != [*map(numbers, RowBatches(N_ROWS, 16, shuffle=True, generator=seeded(6)))]


def test_torch_manual_seed_repeats_the_epochs():
    with torch.random.fork_rng():
        epochs = []
        for _ in range(2):
            torch.manual_seed(3)
            sampler = RowBatches(N_ROWS, 16, shuffle=True)
            epochs.append([[*map(numbers, sampler)], [*map(numbers, sampler)]])
        assert epochs[0] == epochs[1]
        assert epochs[0][0] != epochs[0][1]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("n_rows, batch_size", [(40, 12), (40, 5), (37, 12), (40, 41), (39, 6)])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_processes_together_see_the_batches_of_one(n_rows, batch_size, world_size, drop_last, shuffle):
    def sampler(**options):
        return RowBatches(
            n_rows, batch_size, shuffle=shuffle, generator=seeded() if shuffle else None, drop_last=drop_last, **options
        )

    ranks = [sampler(rank=rank, world_size=world_size) for rank in range(world_size)]
    single, shares = sampler(), [[*map(numbers, rank)] for rank in ranks]
    whole = [rows for rows in map(numbers, single) if len(rows) >= world_size]
    assert [len(share) for share in shares] == [len(rank) for rank in ranks] == [len(whole)] * world_size
    for parts, rows in zip(zip(*shares, strict=True), whole, strict=True):
        assert [*chain(*parts)] == rows
        sizes = [*map(len, parts)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


def test_a_last_batch_that_would_leave_a_process_without_rows_is_dropped():
    ranks = [RowBatches(10, 4, rank=rank, world_size=3) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [2, 2, 2]
    assert [len(list(rank)) for rank in ranks] == [2, 2, 2]


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((-1, 4), {}, "n_rows must be a non-negative integer, got -1"),
        ((2.5, 4), {}, "n_rows must be a non-negative integer"),
        ((10, 0), {}, "batch_size must be a positive integer, got 0"),
        ((10, 4), {"world_size": 0}, "world_size must be a positive integer"),
        ((10, 4), {"rank": -1}, "rank must be a non-negative integer"),
        ((10, 4), {"rank": 2, "world_size": 2}, r"rank must be in 0 … world_size − 1 = 1, got 2"),
        ((10, 4), {"world_size": 5}, "batch_size=4 leaves some of world_size=5 processes without a row"),
        ((10, 4), {"world_size": 2, "shuffle": True}, "2 processes must shuffle alike: .* same seed"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        RowBatches(*arguments, **options)


def test_a_seed_is_no_generator():
    with pytest.raises(TypeError, match=r"must be a torch.Generator, got 0; write torch.Generator\(\).manual_seed"):
        RowBatches(10, 4, shuffle=True, generator=0)


# ----------------------------------------------------------------------------------------------- with DataLoader


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_passes_batches_on_untouched(ones, shuffle, y):
    X = random_matrix(ones=ones)
    ds = CSRDataset(X, y)
    loader = DataLoader(ds, sampler=RowBatches(N_ROWS, 16, shuffle=shuffle, generator=seeded()), batch_size=None)
    epoch = list(loader)
    assert len(epoch) == len(loader) == 3
    for rows, (batch, target) in zip(RowBatches(N_ROWS, 16, shuffle=shuffle, generator=seeded()), epoch, strict=True):
        assert_rows(batch, X[rows])
        assert (batch.data is None) == ones
        assert type(batch.n_features) is int
        np.testing.assert_array_equal(target.numpy(), y[rows])


def test_a_loader_without_targets_gives_batches(X):
    loader = DataLoader(CSRDataset(X), sampler=RowBatches(N_ROWS, 16), batch_size=None)
    for rows, batch in zip(RowBatches(N_ROWS, 16), loader, strict=True):
        assert_rows(batch, X[rows])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.skipif("fork" not in torch.multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of a process with threads, from 3.12
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_forked_workers_give_the_same_batches(ones, shuffle, y):
    ds = CSRDataset(random_matrix(ones=ones), y)

    def epochs(**options):
        sampler = RowBatches(N_ROWS, 7, shuffle=shuffle, generator=seeded())
        loader = DataLoader(ds, sampler=sampler, batch_size=None, **options)
        return [item for _ in range(2) for item in loader]

    assert_same_items(epochs(num_workers=2, multiprocessing_context="fork"), epochs())


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_spawned_workers_give_the_same_batches(mapped):
    ds = CSRDataset(*mapped)

    def epoch(**options):
        sampler = RowBatches(N_ROWS, 16, shuffle=True, generator=seeded())
        return list(DataLoader(ds, sampler=sampler, batch_size=None, **options))

    assert_same_items(epoch(num_workers=1, multiprocessing_context="spawn"), epoch())


def test_torch_samplers_serve_in_a_batch_sampler(X, y):
    ds = CSRDataset(X, y)
    loader = DataLoader(ds, sampler=BatchSampler(SequentialSampler(ds), 16, False), batch_size=None)
    assert_same_items(list(loader), [list(ds[rows]) for rows in RowBatches(N_ROWS, 16)])
    shuffled = DataLoader(ds, sampler=BatchSampler(RandomSampler(ds), 16, False), batch_size=None)
    assert sorted(torch.cat([target for _, target in shuffled]).tolist()) == sorted(y.tolist())


@pytest.mark.parametrize("targets", [0, 1])
def test_a_loader_that_collects_single_rows_is_told_what_to_do(X, y, targets):
    loader = DataLoader(CSRDataset(X, *[y] * targets), batch_size=8, shuffle=True)
    with pytest.raises(TypeError, match=r"sampler=RowBatches\(.*batch_size=None"):
        next(iter(loader))
