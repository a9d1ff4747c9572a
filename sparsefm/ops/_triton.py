"""The forward pass on CSR rows as one Triton kernel; importing this raises ImportError where Triton is missing.

    score_i = w0 + Σ_p w[j_p] x_p + Σ_f Σ_{p<q} z_pf z_qf        z_pf = x_p V[j_p, f]

over the entries p of row i (Rendle 2010), with the double sum in the running form of _kernels/rows.h, which has none of
the cancellation of (Σz)² − Σz²:

    e2 += e1 · z;   e1 += z        (e1 = Σ z so far, in the end S; e2 = Σ of products of pairs so far)

Layout: a program holds a tile of BLOCK_ROWS rows times BLOCK_K factors, e1 and e2 in registers, and walks the entries
of all its rows at once, up to the longest of them; k beyond BLOCK_K is walked again, tile by tile. The factors of a
feature are contiguous, so the lanes of a row read whole sectors. Rows of V are found at random in a large table: what
limits the kernel are loads in flight, not arithmetic. Hence many rows a program, little kept for each (so that many
programs fit a multiprocessor) and UNROLL entries at once, whose loads do not wait for one another. A row that ended
before the longest masks its loads: that costs instructions, of which there are some to spare, and no traffic. The
linear part has a walk of its own with entries for lanes: a weight for every row and step would need another layout of
the tile, and each index a second load.

A row is summed by one program in an order of its own, without atomics: its bits are the same in every run and in every
batch. (A row that overflows may be infinite in one batch and NaN in another.)

There is no way to raise from a device without waiting for it. An entry whose index is outside 0 … n_features − 1 is
never read through but takes the value NaN, which reaches all results of its row; so does a row whose bounds are not
0 ≤ indptr[i] ≤ indptr[i + 1] ≤ nnz, or that has 2³⁰ entries.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

_TILE = 1024  # rows times factors of a program: eight a thread
_WARPS = 4
_UNROLL = 4
_MIN_K, _MAX_K = 8, 64  # also the entries at once of the linear part
# Fewer than threads: with a row for every thread, Triton would pass what it loads for each row through shared memory,
# with barriers at every step.
_MAX_ROWS = 64


# Sizes change from batch to batch and entries start anywhere: none of them may cost a new compilation. The rank and the
# row stride of V are the model's, and known when compiling they tell how wide a load may be and whether it has a mask.
@triton.jit(  # type: ignore[untyped-decorator,unused-ignore]
    do_not_specialize=("n_rows", "nnz", "n_features"),
    do_not_specialize_on_alignment=("indptr", "indices", "data", "w0", "w"),
)
def _forward(  # type: ignore[no-untyped-def]
    indptr,
    indices,
    data,  # None: every value is one
    w0,
    w,  # None: out is e2 by factor, without a linear part
    V,
    out,
    sums,  # None: not wanted
    n_rows,
    nnz,
    n_features,
    w_stride,
    V_STRIDE: tl.constexpr,
    K: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILES: tl.constexpr,
    UNROLL: tl.constexpr,
    REAL: tl.constexpr,
):
    # Rows, entries and features are 64 bits wide from here on: times a stride they pass 2³¹.
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    exists = row < n_rows
    start = tl.load(indptr + row, mask=exists, other=0).to(tl.int64)
    stop = tl.load(indptr + row + 1, mask=exists, other=0).to(tl.int64)
    sound = (start >= 0) & (start <= stop) & (stop <= nnz) & (stop - start < 2**30)
    length = tl.where(sound, stop - start, 0).to(tl.int32)
    longest = tl.max(length, axis=0)
    nothing = tl.where(sound, 0.0, float("nan")).to(REAL)

    total = tl.zeros((BLOCK_ROWS, BLOCK_K), REAL) + nothing[:, None]
    if w is not None:
        lane = tl.arange(0, BLOCK_K)
        for first in range(0, longest, BLOCK_K):
            live = first + lane[None, :] < length[:, None]
            p = start[:, None] + first + lane[None, :]
            j = tl.load(indices + p, mask=live, other=0).to(tl.int64)
            known = live & (j >= 0) & (j < n_features)
            x = tl.load(w + j * w_stride, mask=known, other=0.0).to(REAL)
            if data is not None:
                x *= tl.load(data + p, mask=live, other=0.0).to(REAL)
            total += tl.where(known == live, x, float("nan"))

    for tile in range(TILES):
        f = tile * BLOCK_K + tl.arange(0, BLOCK_K)
        e1 = tl.zeros((BLOCK_ROWS, BLOCK_K), REAL) + nothing[:, None]
        e2 = e1
        for first in range(0, longest, UNROLL):
            for u in tl.static_range(UNROLL):
                live = first + u < length
                p = start + first + u
                j = tl.load(indices + p, mask=live, other=0).to(tl.int64)
                known = live & (j >= 0) & (j < n_features)
                if data is None:
                    x = tl.where(known == live, 1.0, float("nan")).to(REAL)
                else:
                    x = tl.load(data + p, mask=live, other=0.0).to(REAL)
                    x = tl.where(known == live, x, float("nan"))
                at = V + j[:, None] * V_STRIDE + f[None, :]
                z = x[:, None] * tl.load(at, mask=known[:, None] & (f < K)[None, :], other=0.0).to(REAL)
                e2 += e1 * z
                e1 += z
        in_table = exists[:, None] & (f < K)[None, :]
        if sums is not None:
            tl.store(sums + row[:, None] * K + f[None, :], e1, mask=in_table)
        if w is None:
            tl.store(out + row[:, None] * K + f[None, :], e2, mask=in_table)
        else:
            total += e2
    if w is not None:
        tl.store(out + row, tl.load(w0).to(REAL) + tl.sum(total, axis=1), mask=exists)


def forward(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    *,
    pairs: bool,
    with_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """Scores (n_rows,) in V's type or, with `pairs`, e2 by factor (n_rows, k), where w0 and w are None; and S
    (n_rows, k) in the type that is summed in: float64 for float64, float32 for the others.

    indptr (n_rows + 1,) and indices (nnz,) are both int32 or both int64; data (nnz,) or None for ones. w0 is one
    number, w (n_features,) or (n_features, 1) of any stride, V (n_features, k); data, w and V have one type.
    """
    n_rows, (n_features, k) = indptr.shape[0] - 1, V.shape
    real, tl_real = (torch.float64, tl.float64) if V.dtype == torch.float64 else (torch.float32, tl.float32)
    if k > 1 and V.stride(1) != 1:
        V = V.contiguous()
    out = V.new_empty((n_rows, k) if pairs else n_rows)
    sums = V.new_empty((n_rows, k), dtype=real) if with_sums else None
    if n_rows == 0:
        return out, sums
    block_k = min(max(triton.next_power_of_2(k), _MIN_K), _MAX_K)
    block_rows = min(_TILE // block_k, _MAX_ROWS)
    # Triton launches on the current device, which need not be V's.
    with torch.cuda.device_of(V):
        _forward[(triton.cdiv(n_rows, block_rows),)](
            indptr.contiguous(),
            indices.contiguous(),
            None if data is None else data.contiguous(),
            w0,
            w,
            V,
            out,
            sums,
            n_rows,
            indices.shape[0],
            n_features,
            0 if w is None else w.stride(0),
            V_STRIDE=V.stride(0),
            K=k,
            BLOCK_ROWS=block_rows,
            BLOCK_K=block_k,
            TILES=triton.cdiv(k, block_k),
            UNROLL=_UNROLL,
            REAL=tl_real,
            num_warps=_WARPS,
        )
    return out, sums
