"""The Triton kernel against brute force.

The parity tests run on a CUDA device where there is one, and everywhere in Triton's interpreter. That has to be chosen
before triton is imported, which other tests may have done, so they run in a process of their own.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import reference

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="triton is not installed: it comes with torch's CUDA builds")

from sparsefm.ops import _triton  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
RANKS = (0, 1, 3, 8, 16, 17, 64, 100, 130)


def rows(rng, lengths, n_features, dtype, index):
    """CSR rows of the given lengths, columns in ascending order, on the device."""
    indices = [np.sort(rng.choice(n_features, size=n, replace=False)) for n in lengths]
    indptr = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), dtype=index, device=DEVICE)
    indices = torch.tensor(np.concatenate(indices), dtype=index, device=DEVICE)
    return indptr, indices, torch.tensor(rng.standard_normal(len(indices)), dtype=dtype, device=DEVICE)


def parameters(rng, n_features, k, dtype):
    return tuple(
        torch.tensor(rng.standard_normal(shape), dtype=dtype, device=DEVICE)
        for shape in ((), (n_features,), (n_features, k))
    )


def exact(*tensors):
    """The same numbers in float64 on the host; indices stay integers."""
    return [
        None if t is None else t.double().cpu().numpy() if t.is_floating_point() else t.cpu().numpy() for t in tensors
    ]


def pairs_by_factor(indptr, indices, data, V):
    """Σ_{p<q} z_pf z_qf and Σ_p z_pf by a loop over pairs, (n_rows, k) each."""
    out, sums = np.zeros((2, len(indptr) - 1, V.shape[1]))
    for i in range(len(out)):
        columns, values = reference.row(indptr, indices, data, i)
        z = [x * V[j] for j, x in zip(columns, values, strict=True)]
        for a in range(len(z)):
            sums[i] += z[a]
            for b in range(a + 1, len(z)):
                out[i] += z[a] * z[b]
    return out, sums


def assert_close(found, expected, scale, n, dtype):
    """Within n roundings of the type summed in, of what was added up, and one to the type of the output."""
    summed_in = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    stored_in = torch.finfo(found.dtype)
    stored = stored_in.eps * np.maximum(np.abs(expected), stored_in.smallest_normal)
    excess = np.abs(found.double().cpu().numpy() - expected) - n * summed_in.eps * scale - stored
    assert (excess <= 0).all(), excess.max()


def forward(*arguments, **switches):
    return _triton.forward(*arguments, **{"pairs": False, "with_sums": False, **switches})


needs_device = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device")


@needs_device
class TestParity:
    LENGTHS = (5, 0, 1, 2, 9, 7) * 3  # a second, partly filled program where tiles are wide
    MANY = LENGTHS * 4  # and where they are narrow

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("k", RANKS)
    def test_scores_and_sums_equal_the_definition(self, k, dtype):
        rng = np.random.default_rng(k)
        w0, w, V = parameters(rng, 30, k, dtype)
        lengths = self.LENGTHS if k > 17 else self.MANY
        for index, ones in ((torch.int32, False), (torch.int64, False), (torch.int32, True), (torch.int64, True)):
            indptr, indices, data = rows(rng, lengths, 30, dtype, index)
            data = None if ones else data
            scores, sums = forward(indptr, indices, data, w0, w, V, with_sums=True)
            assert scores.dtype == dtype
            assert sums.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            host, V_host = exact(indptr, indices, data), exact(V)[0]
            judge = (*host, float(w0), *exact(w, V))
            assert_close(scores, reference.score(*judge), reference.magnitude(*judge), 10 + k, dtype)
            magnitude = pairs_by_factor(*host[:2], None if ones else np.abs(host[2]), np.abs(V_host))[1]
            assert_close(sums, pairs_by_factor(*host, V_host)[1], magnitude, 10, dtype)
        alone, nothing = forward(indptr, indices, data, w0, w, V)
        assert nothing is None
        assert torch.equal(alone, scores)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("k", (0, 1, 17, 130))
    def test_pairs_by_factor_equal_the_definition(self, k, dtype):
        rng = np.random.default_rng(k)
        _, _, V = parameters(rng, 30, k, dtype)
        for index, ones in ((torch.int32, False), (torch.int64, True)):
            indptr, indices, data = rows(rng, self.LENGTHS, 30, dtype, index)
            data = None if ones else data
            pairs, sums = forward(indptr, indices, data, None, None, V, pairs=True, with_sums=True)
            assert pairs.dtype == dtype
            host = exact(indptr, indices, data)
            expected = pairs_by_factor(*host, exact(V)[0])
            scales = pairs_by_factor(*host[:2], None if ones else np.abs(host[2]), np.abs(exact(V)[0]))
            assert_close(pairs, expected[0], scales[0], 60, dtype)
            assert_close(sums, expected[1], scales[1], 30, dtype)

    @pytest.mark.parametrize("k", (0, 8, 64))
    def test_long_rows(self, k):
        rng = np.random.default_rng(7)
        rows_ = rows(rng, (150, 0, 3), 200, torch.float32, torch.int32)
        w0, w, V = parameters(rng, 200, k, torch.float32)
        judge = (*exact(*rows_), float(w0), *exact(w, V))
        assert_close(
            forward(*rows_, w0, w, V)[0], reference.score(*judge), reference.magnitude(*judge), 150 + k, torch.float32
        )

    def test_one_large_value_costs_no_digits(self):
        rng = np.random.default_rng(1)
        indptr, indices, data = rows(rng, [6] * 20, 30, torch.float32, torch.int32)
        data[::6] = 1000.0
        w0, w, V = parameters(rng, 30, 16, torch.float32)
        V *= 0.1
        expected = reference.score(*exact(indptr, indices, data), float(w0), *exact(w, V))
        errors = np.abs(forward(indptr, indices, data, w0, w, V)[0].cpu().numpy() - expected)
        z = (data[:, None] * V[indices.long()]).reshape(20, 6, 16)
        linear = w0 + (data * w[indices.long()]).reshape(20, 6).sum(1)
        by_squares = linear + ((z.sum(1) ** 2 - (z**2).sum(1)) / 2).sum(1)
        assert errors.max() < 1e-6 * np.abs(expected).max()
        assert errors.max() < np.abs(by_squares.cpu().numpy() - expected).max() / 10

    @pytest.mark.parametrize("k", (0, 5))
    def test_empty_rows_score_the_bias_and_no_rows_nothing(self, k):
        w0, w, V = parameters(np.random.default_rng(0), 4, k, torch.float32)
        none = torch.zeros(0, dtype=torch.int32, device=DEVICE)
        indptr = torch.zeros(4, dtype=torch.int32, device=DEVICE)
        scores, sums = forward(indptr, none, none.float(), w0, w, V, with_sums=True)
        assert torch.equal(scores, w0.expand(3))
        assert torch.equal(sums, torch.zeros((3, k), device=DEVICE))
        scores, sums = forward(indptr[:1], none, None, w0, w, V, with_sums=True)
        assert scores.shape == (0,)
        assert sums.shape == (0, k)
        assert forward(indptr[:1], none, None, None, None, V, pairs=True)[0].shape == (0, k)

    @pytest.mark.parametrize("ones", (False, True))
    @pytest.mark.parametrize("k", (0, 5, 70))
    @pytest.mark.parametrize("index", (torch.int32, torch.int64), ids=str)
    def test_an_index_outside_makes_its_row_nan_and_no_other(self, index, k, ones):
        rng = np.random.default_rng(2)
        indptr, indices, data = rows(rng, [3, 4, 1, 2], 9, torch.float32, index)
        data = None if ones else data
        w0, w, V = parameters(rng, 9, k, torch.float32)
        good = forward(indptr, indices, data, w0, w, V, with_sums=True)
        for outside in (-1, 9, torch.iinfo(index).max, torch.iinfo(index).min):
            for row, entry in ((1, 5), (2, 7)):
                broken = indices.clone()
                broken[entry] = outside
                found = forward(indptr, broken, data, w0, w, V, with_sums=True)
                by_factor = forward(indptr, broken, data, None, None, V, pairs=True)[0]
                for one in (*found, by_factor):
                    assert one[row].isnan().all()
                    assert not torch.cat([one[:row], one[row + 1 :]]).isnan().any()
                for one, before in zip(found, good, strict=True):
                    assert torch.equal(
                        torch.cat([one[:row], one[row + 1 :]]), torch.cat([before[:row], before[row + 1 :]])
                    )

    @pytest.mark.parametrize("k", (0, 5))
    def test_bounds_outside_the_entries_make_their_rows_nan(self, k):
        rng = np.random.default_rng(3)
        _, indices, data = rows(rng, [5, 3, 4, 1, 2, 5], 9, torch.float32, torch.int64)
        indices, data = indices[5:15], data[5:15]  # what lies around them would pass for entries
        w0, w, V = parameters(rng, 9, k, torch.float32)
        indptr = torch.tensor([0, 3, 2, 10, 11, -5, 2, 2**40], device=DEVICE)
        scores, sums = forward(indptr, indices, data, w0, w, V, with_sums=True)
        sound = [True, False, True, False, False, False, False]
        assert (~scores.isnan()).tolist() == sound
        assert (~sums.isnan()).all(1).tolist() == (sound if k else [True] * 7)

    def test_parameters_may_be_columns_of_a_wider_table(self):
        rng = np.random.default_rng(4)
        indptr, indices, data = rows(rng, self.LENGTHS, 30, torch.float32, torch.int32)
        w0, w, V = parameters(rng, 30, 8, torch.float32)
        expected, sums = forward(indptr, indices, data, w0, w, V, with_sums=True)
        for offset in (0, 1, 4):
            table = torch.full((30, 20), torch.nan, device=DEVICE)
            table[:, offset : offset + 8], table[:, 19] = V, w
            inside = (indptr, indices, data, w0, table[:, 19:], table[:, offset : offset + 8])
            for one, other in zip(forward(*inside, with_sums=True), (expected, sums), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        scattered = torch.stack([data, data], 1)[:, 0]
        across = forward(indptr, indices, scattered, w0, w[:, None], V.T.contiguous().T, with_sums=True)
        assert torch.equal(across[0], expected)
        assert torch.equal(across[1], sums)

    def test_same_bits_in_every_run_and_in_every_batch(self):
        rng = np.random.default_rng(5)
        indptr, indices, data = rows(rng, self.LENGTHS, 30, torch.float32, torch.int32)
        w0, w, V = parameters(rng, 30, 70, torch.float32)
        first = forward(indptr, indices, data, w0, w, V, with_sums=True)
        again = forward(indptr, indices, data, w0, w, V, with_sums=True)
        batch = forward(indptr[5:], indices, data, w0, w, V, with_sums=True)  # the same rows in other places of a tile
        for i in range(2):
            assert torch.equal(first[i], again[i])
            assert torch.equal(first[i][5:], batch[i])

    @pytest.mark.skipif(INTERPRETED, reason="nothing waits in the interpreter")
    def test_nothing_waits_for_the_device(self):
        rng = np.random.default_rng(6)
        indptr, indices, data = rows(rng, self.LENGTHS, 30, torch.float32, torch.int32)
        w0, w, V = parameters(rng, 30, 8, torch.float32)
        torch.cuda.set_sync_debug_mode("error")
        try:
            forward(indptr, indices, data, w0, w, V, with_sums=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.skipif(INTERPRETED, reason="takes gigabytes of device memory")
    def test_offsets_beyond_32_bits(self):
        stride = 2**30 + 8
        V = torch.empty(2 * stride + 4, dtype=torch.float16, device=DEVICE).as_strided((3, 4), (stride, 1))
        V.copy_(torch.arange(12.0).reshape(3, 4))
        w0, w = torch.zeros((), device=DEVICE).half(), torch.zeros(3, device=DEVICE).half()
        indptr, indices = torch.tensor([0, 2], device=DEVICE), torch.tensor([0, 2], device=DEVICE)
        assert forward(indptr, indices, None, w0, w, V)[0].tolist() == [0 * 8 + 1 * 9 + 2 * 10 + 3 * 11]


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_parity_in_the_interpreter(capsys):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "TestParity", __file__]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    with capsys.disabled():
        print(f" [interpreter: {run.stdout.splitlines()[-1]}] ", end="")


@pytest.mark.skipif(INTERPRETED, reason="compiles nothing")
@pytest.mark.parametrize("capability", (80, 90))
def test_compiles_without_a_device(capability, monkeypatch, tmp_path):
    """The whole way from `forward` to machine code, short of the launch."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self):
            return f"sm_{capability}"  # Triton keeps compiled kernels by device: none that exists

        def get_current_stream(self, device):
            return 0

    compiled = []
    run = _triton._forward.run
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(
        _triton._forward, "run", lambda *a, grid, warmup, **k: compiled.append(run(*a, grid=grid, warmup=True, **k))
    )
    indptr = torch.tensor([0, 1, 2], dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16):
        w0, w, V = torch.zeros((), dtype=dtype), torch.zeros(4, dtype=dtype), torch.zeros((4, 16), dtype=dtype)
        forward(indptr, indptr[:2], torch.ones(2, dtype=dtype), w0, w, V, with_sums=True)
        forward(indptr, indptr[:2], None, None, None, V, pairs=True)
    assert len(compiled) == 4
    for kernel in compiled:
        assert f".target sm_{capability}" in kernel.asm["ptx"]
        assert "ld.global.v4.b32" in kernel.asm["ptx"]  # a row of V by 16 bytes
        assert "atom." not in kernel.asm["ptx"]  # sums in a fixed order

    # Sizes and where a batch lies in memory change nothing.
    forward(
        torch.arange(18, dtype=torch.int32)[1:],
        torch.arange(17, dtype=torch.int32)[1:],
        None,
        None,
        None,
        V[:3],
        pairs=True,
    )
    assert compiled[-1] is compiled[3]
