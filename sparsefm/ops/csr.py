"""The second-order operator on CSR rows, differentiable in its values and in every parameter.

    score_i = w0 + Σ_p w[j_p] x_p + Σ_f pairs_if        pairs_if = Σ_{p<q} V[j_p, f] x_p V[j_q, f] x_q

over the entries p of row i (Rendle 2010). Two routes lead to the same leaves. Eager calls take one autograd.Function,
which keeps the sums of the forward pass and can return row-sparse gradients; under torch.compile, torch.export and
dispatch modes the registered operator `sparsefm::fm` is called, whose gradients are dense. The transforms of torch.func
see the composed path, which any of them can take apart.

This file alone decides which leaf computes: the kernels for float32 and float64 on the CPU, a Triton kernel for the
forward pass on CUDA where Triton is installed, and otherwise torch's own operations (composed.py), which also give
second derivatives.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor

from .._kernels import csr as csr_kernels
from .._kernels import dispatch
from .._kernels import fm as fm_kernels
from . import composed
from .kernels import (
    check_factors,
    check_parameters,
    check_unchanged,
    has_kernel,
    is_recorded,
    is_transformed,
    padded,
    plain,
    row_stride,
    side_by_side,
    total,
)

try:
    from . import _triton
except ImportError:  # it comes with torch's CUDA builds
    _triton = None  # type: ignore[assignment]

__all__ = ["bi_interaction", "check_bounds", "check_rows", "fm", "row_sparse", "scattered"]


def fm(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w: Tensor,
    V: Tensor,
    *,
    sparse_grad: bool = True,
) -> Tensor:
    """Scores of a second-order factorization machine on CSR rows.

    Parameters
    ----------
    indptr, indices : (n_rows + 1,) and (nnz,), both int32 or both int64
        A column that occurs twice in a row counts as two features with equal parameters.
    data : (nnz,) or None
        Values, converted to the type of V; None: every value is one.
    w0 : () or (1,)
        Bias.
    w : (n_features,) or (n_features, 1)
        Linear weights.
    V : (n_features, n_factors)
        Factors. w0, w and V have one type: float32, float64, or bfloat16 and float16, which are added up in float32.
    sparse_grad : bool
        Whether w and V get row-sparse gradients (sparse COO tensors with a row for each feature of the batch), so that
        no work grows with n_features; dense ones otherwise, and always under torch.compile and torch.func.

    Returns
    -------
    (n_rows,) of the type of V
        The same bits at any number of threads. On the CPU an index outside 0 … n_features − 1 raises; on other devices,
        where that would mean waiting for them, its row is NaN or torch's own assertion fails.

    Raises
    ------
    ValueError, TypeError
        For arrays that are not CSR rows, or parameters that do not belong together.

    Examples
    --------
    >>> indptr, indices = torch.tensor([0, 2]), torch.tensor([0, 1])
    >>> fm(indptr, indices, None, torch.tensor(0.5), torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]]))
    tensor([15.5000])
    """
    check_parameters(w0, w, V)
    return _rows(indptr, indices, data, w0, w, V, sparse_grad)


def bi_interaction(
    indptr: Tensor, indices: Tensor, data: Tensor | None, V: Tensor, *, sparse_grad: bool = True
) -> Tensor:
    """Pairs by factor, (n_rows, n_factors): the vector whose sum is the interaction part of the score.

    The bi-interaction pooling of He & Chua, Neural Factorization Machines, SIGIR 2017. Arguments, gradients and errors
    as in `fm`.

    >>> bi_interaction(torch.tensor([0, 2]), torch.tensor([0, 1]), None, torch.tensor([[3.0, 1.0], [4.0, 5.0]]))
    tensor([[12.,  5.]])
    """
    check_factors(V)
    return _rows(indptr, indices, data, None, None, V, sparse_grad)


def _rows(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    sparse_grad: bool,
) -> Tensor:
    data = check_rows(indptr, indices, data, V)
    if is_transformed():
        if not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(indices):
            with torch._C._DisableFuncTorch():  # else even copies of plain tensors come wrapped
                check_bounds(indptr, indices, V.shape[0])
        return composed.forward(indptr, indices, data, w0, w, V)[0]
    if is_recorded(indptr, indices, data, w0, w, V):
        return cast(Tensor, torch.ops.sparsefm.fm(indptr, indices, data, w0, w, V))
    return cast(Tensor, _Rows.apply(indptr, indices, data, w0, w, V, sparse_grad))  # type: ignore[no-untyped-call]


def check_rows(indptr: Tensor, indices: Tensor, data: Tensor | None, V: Tensor) -> Tensor | None:
    """Refuses arrays that cannot be CSR rows of V's features; returns data in the type of V."""
    if (
        indptr.dim() != 1
        or indices.dim() != 1
        or indptr.shape[0] < 1
        or indptr.dtype != indices.dtype
        or indptr.dtype not in (torch.int32, torch.int64)
    ):
        raise ValueError(
            "indptr must be (n_rows + 1,) and indices (nnz,), both int32 or both int64; got shape "
            f"{tuple(indptr.shape)} of {indptr.dtype} and shape {tuple(indices.shape)} of {indices.dtype}"
        )
    if V.device != indices.device or indptr.device != indices.device:
        raise ValueError(
            f"rows and parameters must be on one device; got indptr on {indptr.device}, indices on {indices.device} "
            f"and V on {V.device}: move the batch with .to(device)"
        )
    if data is None:
        return None
    if data.shape != indices.shape or data.device != indices.device or data.dtype.is_complex:
        raise ValueError(
            f"data must hold one real value for each of the {indices.shape[0]} indices, beside them on "
            f"{indices.device}; got shape {tuple(data.shape)} of {data.dtype} on {data.device}"
        )
    return data if data.dtype == V.dtype else data.to(V.dtype)


def check_bounds(indptr: Tensor, indices: Tensor, n_features: int) -> None:
    """Refuses rows that would have a pass read or write outside its arrays; other devices than the CPU check for
    themselves."""
    if indices.device.type == "cpu":
        is_i64, at_indptr, at_indices = indices.dtype == torch.int64, plain(indptr), plain(indices)
        if not csr_kernels.valid_at(
            is_i64, indptr.shape[0] - 1, indices.shape[0], n_features, at_indptr.data_ptr(), at_indices.data_ptr()
        ):
            raise ValueError(_fault(indptr, indices, n_features))


def _fault(indptr: Tensor, indices: Tensor, n_features: int) -> str:
    """What is wrong with arrays that are no CSR rows of n_features columns."""
    nnz, falls = len(indices), bool((indptr[1:] < indptr[:-1]).any())
    if indptr[0] != 0 or indptr[-1] != nnz or falls:
        return (
            f"indptr must begin with 0, never fall and end with the number of indices, {nnz}; it runs from "
            f"{int(indptr[0])} to {int(indptr[-1])}" + (" and falls on the way" if falls else "")
        )
    bad = int(((indices < 0) | (indices >= n_features)).nonzero()[0])
    row = int(torch.searchsorted(indptr, bad, right=True)) - 1
    return (
        f"column index {int(indices[bad])} in row {row} is outside 0 … {n_features - 1}: "
        "the rows were encoded for other parameters than these"
    )


# ---- leaves ---------------------------------------------------------------------------------------------------------


def _forward(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    with_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """Scores, or without w0 and w the pairs by factor; and the sums that `_backward` wants, in the leaf's own form."""
    check_bounds(indptr, indices, V.shape[0])
    if has_kernel(V):
        return _forward_kernel(indptr, indices, data, w0, w, V, with_sums)
    if V.is_cuda and _triton is not None:
        return _triton.forward(indptr, indices, data, w0, w, V, pairs=w is None, with_sums=with_sums)
    return composed.forward(indptr, indices, data, w0, w, V)


def _backward(
    d: Tensor,
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    sums: Tensor,
    needs_data: bool,
    needs_parameters: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, bool]:
    """(g_data, features, g_w, g_V, ascending): one row of g_w and g_V for each of `features`.

    The kernels list each touched feature once, in ascending order; elsewhere there is one row an entry, since finding
    the distinct features would mean waiting for the device.
    """
    check_bounds(indptr, indices, V.shape[0])  # again: .data and .numpy() change tensors behind torch's back
    if has_kernel(V):
        check_unchanged(sums, indptr.shape[0] - 1, w, V)
        return *_backward_kernel(d, indptr, indices, data, w, V, sums, needs_data, needs_parameters), True
    g_data, g_w, g_V = composed.backward(d, indptr, indices, data, w, V, sums)
    return g_data, indices.long(), g_w, g_V, False


def _forward_kernel(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    with_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    n_rows, nnz = indptr.shape[0] - 1, indices.shape[0]
    n_features, k = V.shape
    is_f64, is_i64 = V.dtype == torch.float64, indices.dtype == torch.int64
    indptr, indices, V = indptr.contiguous(), indices.contiguous(), side_by_side(V)
    data = None if data is None else plain(data)
    w = None if w is None else w.resolve_neg()
    at_indptr, at_indices = indptr.data_ptr(), indices.data_ptr()
    stride = padded(k)
    sums = V.new_empty((n_rows, stride)) if with_sums else None
    out = V.new_empty(n_rows if w is not None else (n_rows, k))
    at_data = 0 if data is None else data.data_ptr()
    at_w, w_stride, bias = (0, 0, 0.0) if w is None else (w.data_ptr(), w.stride(0), cast(Tensor, w0).item())
    at_out, at_pairs = (0, out.data_ptr()) if w is None else (out.data_ptr(), 0)
    at_sums, at_V, v_stride = 0 if sums is None else sums.data_ptr(), V.data_ptr(), row_stride(V)

    def run(start: int, stop: int) -> None:
        fm_kernels.forward_at(
            dispatch.ISA,
            is_f64,
            is_i64,
            start,
            stop,
            at_indptr,
            at_indices,
            at_data,
            bias,
            at_w,
            w_stride,
            at_V,
            v_stride,
            n_features,
            k,
            at_out,
            at_pairs,
            at_sums,
            stride,
        )

    if k or w is not None:
        dispatch.run_pieces(run, n_rows, nnz * (k + 4), torch.get_num_threads())
    return out, sums


def _backward_kernel(
    d: Tensor,
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w: Tensor | None,
    V: Tensor,
    sums: Tensor,
    needs_data: bool,
    needs_parameters: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    n_rows, nnz = indptr.shape[0] - 1, indices.shape[0]
    n_features, k = V.shape
    is_f64, is_i64 = V.dtype == torch.float64, indices.dtype == torch.int64
    indptr, indices, V = indptr.contiguous(), indices.contiguous(), side_by_side(V)
    data = None if data is None else plain(data)
    w = None if w is None else w.resolve_neg()
    stride, by_factor, threads = sums.shape[1], w is None, torch.get_num_threads()
    d = torch.nn.functional.pad(d, (0, stride - k)) if by_factor and stride > k else plain(d)
    at_indptr, at_indices, at_data = indptr.data_ptr(), indices.data_ptr(), 0 if data is None else data.data_ptr()
    at_V, v_stride, at_sums, at_d = V.data_ptr(), row_stride(V), sums.data_ptr(), d.data_ptr()
    work = nnz * (k + 4)

    g_data = None
    if needs_data:
        g_data = V.new_empty(nnz)
        at_w, w_stride = (0, 0) if w is None else (w.data_ptr(), w.stride(0))
        at_g_data = g_data.data_ptr()

        def by_row(start: int, stop: int) -> None:
            fm_kernels.backward_rows_at(
                dispatch.ISA,
                is_f64,
                is_i64,
                start,
                stop,
                at_indptr,
                at_indices,
                at_data,
                at_w,
                w_stride,
                at_V,
                v_stride,
                n_features,
                k,
                at_sums,
                stride,
                at_d,
                by_factor,
                at_g_data,
            )

        dispatch.run_pieces(by_row, n_rows, work, threads)
    if not needs_parameters:
        return g_data, None, None, None

    features = indices.new_empty(nnz, dtype=torch.int64)
    scratch = indices.new_empty(2 * nnz + 1, dtype=torch.int64)
    at_features, at_colptr = features.data_ptr(), scratch.data_ptr()
    at_rows = at_colptr + 8 * (nnz + 1)
    entry_data = None if data is None else torch.empty_like(data)
    at_entry_data = 0 if entry_data is None else entry_data.data_ptr()
    n_touched = csr_kernels.transpose_at(
        is_f64,
        is_i64,
        n_rows,
        nnz,
        at_features,
        at_colptr,
        at_rows,
        at_entry_data,
        at_indptr,
        at_indices,
        at_data,
    )
    g_w = None if w is None else V.new_empty((n_touched, *w.shape[1:]))
    g_V = V.new_empty((n_touched, k))
    at_g_w, at_g_V = 0 if g_w is None else g_w.data_ptr(), g_V.data_ptr()

    def by_feature(start: int, stop: int) -> None:
        fm_kernels.backward_columns_at(
            dispatch.ISA,
            is_f64,
            start,
            stop,
            n_touched,
            at_features,
            at_colptr,
            at_rows,
            at_entry_data,
            at_V,
            v_stride,
            k,
            at_sums,
            stride,
            at_d,
            by_factor,
            at_g_w,
            at_g_V,
        )

    dispatch.run_pieces(by_feature, n_touched, work, threads)
    return g_data, features[:n_touched], g_w, g_V


# ---- the eager route ------------------------------------------------------------------------------------------------


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, indptr: Tensor, indices: Tensor, data: Any, w0: Any, w: Any, V: Tensor, sparse: bool
    ) -> Tensor:
        out, ctx.sums = _forward(indptr, indices, data, w0, w, V, any(ctx.needs_input_grad))
        ctx.save_for_backward(indptr, indices, data, w0, w, V)
        ctx.sparse = sparse
        return out

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        indptr, indices, data, w0, w, V = ctx.saved_tensors
        _, _, needs_data, needs_w0, needs_w, needs_V, _ = ctx.needs_input_grad
        g_w0 = total(d, w0) if needs_w0 else None
        if torch.is_grad_enabled() or is_transformed(d):  # somebody wants to differentiate this again, or a batch of it
            g_data, of_w, of_V = composed.backward(d, indptr, indices, data, w, V, None)
            g_w = scattered(indices, of_w, w) if needs_w else None
            g_V = scattered(indices, of_V, V) if needs_V else None
            return None, None, g_data if needs_data else None, g_w0, g_w, g_V, None
        found = _backward(d, indptr, indices, data, w, V, ctx.sums, needs_data, needs_w or needs_V)
        values, features, *rows, ascending = found
        if ctx.sparse and features is not None:
            features = features[None]
        made: Any = functools.partial(row_sparse, ascending=ascending) if ctx.sparse else scattered
        g_w = made(features, rows[0], w) if needs_w else None
        g_V = made(features, rows[1], V) if needs_V else None
        return None, None, values if needs_data else None, g_w0, g_w, g_V, None


def row_sparse(features: Any, rows: Any, like: Tensor, ascending: bool) -> Tensor:
    if rows.dim() != like.dim():
        rows = rows.reshape(rows.shape[0], *like.shape[1:])
    return torch.sparse_coo_tensor(features, rows, like.shape, check_invariants=False, is_coalesced=ascending or None)


def scattered(features: Any, rows: Any, like: Any) -> Tensor:
    """Zeros of the shape of `like`, with the rows added where they belong; differentiable in them."""
    zeros: Tensor = like.new_zeros(like.shape)
    rows = rows.reshape(rows.shape[0], *like.shape[1:])
    return zeros.index_add(0, features, rows) if is_transformed(rows) else zeros.index_add_(0, features, rows)


# ---- the registered route -------------------------------------------------------------------------------------------

torch.library.define(
    "sparsefm::fm",
    "(Tensor indptr, Tensor indices, Tensor? data, Tensor? w0, Tensor? w, Tensor V) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "sparsefm::fm_backward",
    "(Tensor d, Tensor indptr, Tensor indices, Tensor? data, Tensor? w, Tensor V) -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


def _fm_op(indptr: Tensor, indices: Tensor, data: Any, w0: Any, w: Any, V: Tensor) -> Tensor:
    check_factors(V)
    if w0 is not None and w is not None:
        check_parameters(w0, w, V)
    elif w0 is not None or w is not None:
        raise ValueError("w0 and w go together: pass both for scores, or neither for pairs by factor")
    data = check_rows(indptr, indices, data, V)
    return _forward(indptr, indices, data, w0, w, V, False)[0]


def _fm_fake(indptr: Tensor, indices: Tensor, data: Any, w0: Any, w: Any, V: Tensor) -> Tensor:
    n_rows = indptr.shape[0] - 1
    return V.new_empty(n_rows if w is not None else (n_rows, V.shape[1]))


def _fm_backward_op(
    d: Tensor, indptr: Tensor, indices: Tensor, data: Any, w: Any, V: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Dense gradients; without w the second is empty."""
    check_factors(V)
    data, n_rows = check_rows(indptr, indices, data, V), indptr.shape[0] - 1
    if d.shape != ((n_rows,) if w is not None else (n_rows, V.shape[1])) or d.dtype != V.dtype:
        raise ValueError(f"d must be shaped like the result and of {V.dtype}; got shape {tuple(d.shape)} of {d.dtype}")
    zero = None if w is None else V.new_zeros(())
    sums = _forward(indptr, indices, data, zero, w, V, True)[1]
    g_data, features, g_w, g_V, _ = _backward(d, indptr, indices, data, w, V, cast(Tensor, sums), True, True)
    dense_w = V.new_empty(0) if w is None else scattered(features, g_w, w)
    return cast(Tensor, g_data), dense_w, scattered(features, g_V, V)


def _fm_backward_fake(
    d: Tensor, indptr: Tensor, indices: Tensor, data: Any, w: Any, V: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    g_w = V.new_empty(0 if w is None else w.shape)
    return V.new_empty(indices.shape), g_w, V.new_empty(V.shape)


def _setup_fm(ctx: Any, inputs: Any, output: Any) -> None:
    indptr, indices, data, w0, w, V = inputs
    ctx.save_for_backward(indptr, indices, data, w0, w, V)


def _fm_op_backward(ctx: Any, d: Tensor) -> Any:
    indptr, indices, data, w0, w, V = ctx.saved_tensors
    g_data, g_w, g_V = torch.ops.sparsefm.fm_backward(d, indptr, indices, data, w, V)
    return (
        None,
        None,
        None if data is None else g_data,
        None if w0 is None else d.sum().reshape(w0.shape),
        None if w is None else g_w,
        g_V,
    )


def _setup_fm_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _fm_backward_op_backward(ctx: Any, *grads: Any) -> Any:
    """Second derivatives, by differentiating the composed gradient."""
    saved: Any = ctx.saved_tensors
    indptr, indices = saved[1:3]
    with torch.enable_grad():
        leaves: Any = [None if each is None else each.detach().requires_grad_() for each in (saved[0], *saved[3:])]
        d, data, w, V = leaves
        g_data, g_w, g_V = composed.backward(d, indptr, indices, data, w, V, None)
        outputs, wanted = [g_data, scattered(indices, g_V, V)], [grads[0], grads[2]]
        if w is not None:
            outputs.append(scattered(indices, g_w, w))
            wanted.append(grads[1])
        inputs = [each for each in (d, data, w, V) if each is not None]
        found = iter(torch.autograd.grad(outputs, inputs, wanted, allow_unused=True))
    g_d, gg_data, gg_w, gg_V = (None if each is None else next(found) for each in (d, data, w, V))
    return g_d, None, None, gg_data, gg_w, gg_V


torch.library.impl("sparsefm::fm", "CompositeExplicitAutograd", _fm_op)
torch.library.impl("sparsefm::fm_backward", "CompositeExplicitAutograd", _fm_backward_op)
torch.library.register_fake("sparsefm::fm", _fm_fake)
torch.library.register_fake("sparsefm::fm_backward", _fm_backward_fake)
torch.library.register_autograd("sparsefm::fm", _fm_op_backward, setup_context=_setup_fm)
torch.library.register_autograd("sparsefm::fm_backward", _fm_backward_op_backward, setup_context=_setup_fm_backward)
