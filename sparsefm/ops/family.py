"""The rest of the family on CSR rows, differentiable in their values and in every parameter: sets of more than two
features, vectors for each field that a feature meets, numbers for each pair of fields.

The routes are those of csr.py: one autograd.Function for eager calls, the registered operator `sparsefm::family` under
torch.compile, torch.export and dispatch modes, and torch's own operations (composed.py) under torch.func, for second
derivatives, and for devices and types without a kernel. The kernels compute a row's forward pass again in the backward
pass and give one row of the gradient an entry, so nothing is kept between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .._kernels import dispatch
from .._kernels import family as kernels
from . import composed
from .csr import check_bounds, check_rows, row_sparse, scattered
from .kernels import check_parameters, has_kernel, is_recorded, is_transformed, plain, row_stride, side_by_side, total

__all__ = ["anova", "field_aware", "field_weighted"]


class _Member(NamedTuple):
    kind: str  # as in the kernels
    order: int = 2
    shared: bool = False
    n_fields: int = 0

    @property
    def blocks(self) -> int:
        """How many vectors a feature has."""
        if self.kind == "anova":
            return 1 if self.shared else self.order - 1
        return self.n_fields if self.kind == "ffm" else 1


class _Tensors(NamedTuple):
    indptr: Tensor
    indices: Tensor
    data: Tensor | None
    w0: Tensor
    w: Tensor
    V: Tensor
    fields: Tensor | None = None
    field_weights: Tensor | None = None

    @property
    def nnz(self) -> int:
        return self.indices.shape[0]


def anova(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w: Tensor,
    V: Tensor,
    *,
    order: int,
    shared: bool = False,
    sparse_grad: bool = True,
) -> Tensor:
    """Scores of a factorization machine of higher order on CSR rows (Blondel et al., NIPS 2016).

        score_i = w0 + Σ_p w[j_p] x_p + Σ_{t=2..order} Σ_f Σ_{p1<…<pt} z_{p1 f} … z_{pt f}        z_p = x_p V[j_p]

    with factors of its own for each t.

    Parameters
    ----------
    indptr, indices, data, w0, w
        As in `fm`.
    V : (n_features, (order − 1) · n_factors)
        Factors of order 2, then those of order 3, and so on.
    order : int
        2 to 12; 2 is `fm`.
    shared : bool
        Whether one set of factors, V (n_features, n_factors), serves all orders.
    sparse_grad : bool
        Whether w and V get row-sparse gradients, sparse COO tensors with a row for each entry of the batch; dense ones
        otherwise, and always under torch.compile and torch.func.

    Returns
    -------
    (n_rows,) of the type of V
        The same bits at any number of threads. Indices outside the columns as in `fm`.

    Raises
    ------
    ValueError, TypeError
        For arrays that are not CSR rows, or parameters that do not belong together.

    Examples
    --------
    >>> indptr, indices, V = torch.tensor([0, 3]), torch.tensor([0, 1, 2]), torch.tensor([[1.0, 2.0]] * 3)
    >>> anova(indptr, indices, None, torch.tensor(0.5), torch.zeros(3), V, order=3)  # 0.5 + 3 · 1² + 2³
    tensor([11.5000])
    """
    member = _Member("anova", order=order, shared=shared)
    return _score(member, _Tensors(indptr, indices, data, w0, w, V), sparse_grad)


def field_aware(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w: Tensor,
    V: Tensor,
    fields: Tensor,
    *,
    n_fields: int,
    sparse_grad: bool = True,
) -> Tensor:
    """Scores of a field-aware factorization machine on CSR rows (Juan et al., RecSys 2016).

        score_i = w0 + Σ_p w[j_p] x_p + Σ_{p<q} ⟨z_p[field of q], z_q[field of p]⟩        z_p = x_p V[j_p]

    Parameters
    ----------
    indptr, indices, data, w0, w, sparse_grad
        As in `anova`.
    V : (n_features, n_fields · n_factors)
        A feature's factors for field 0, then those for field 1, and so on.
    fields : (n_features,) int32 or int64
        The field of each feature, 0 … n_fields − 1; int32 is read where it lies.
    n_fields : int

    Returns
    -------
    (n_rows,) of the type of V
        As of `anova`.

    Raises
    ------
    ValueError, TypeError
        For arrays that are not CSR rows, parameters that do not belong together, or fields out of range (on the CPU;
        elsewhere torch's own assertion fails).

    Examples
    --------
    >>> indptr, indices, V = torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> field_aware(indptr, indices, None, torch.tensor(0.5), torch.zeros(2), V, torch.tensor([0, 1]), n_fields=2)
    tensor([6.5000])
    """
    member = _Member("ffm", n_fields=n_fields)
    return _score(member, _Tensors(indptr, indices, data, w0, w, V, fields), sparse_grad)


def field_weighted(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor | None,
    w0: Tensor,
    w: Tensor,
    V: Tensor,
    fields: Tensor,
    field_weights: Tensor,
    *,
    sparse_grad: bool = True,
) -> Tensor:
    """Scores of a field-weighted factorization machine on CSR rows (Pan et al., WWW 2018).

        score_i = w0 + Σ_p w[j_p] x_p + Σ_{p<q} r[field of p, field of q] ⟨z_p, z_q⟩        z_p = x_p V[j_p]

    Parameters
    ----------
    indptr, indices, data, w0, w, sparse_grad
        As in `anova`.
    V : (n_features, n_factors)
    fields : (n_features,) int32 or int64
        The field of each feature, 0 … n_fields − 1; int32 is read where it lies.
    field_weights : (n_fields, n_fields), of the type of V
        Its symmetric part is r = (field_weights + field_weights.T) / 2, so its gradient is symmetric.

    Returns
    -------
    (n_rows,) of the type of V
        As of `anova`.

    Raises
    ------
    ValueError, TypeError
        As `field_aware`.

    Examples
    --------
    >>> indptr, indices, V = torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([[3.0], [4.0]])
    >>> r = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    >>> field_weighted(indptr, indices, None, torch.tensor(0.5), torch.zeros(2), V, torch.tensor([0, 1]), r)
    tensor([24.5000])
    """
    member = _Member("fwfm", n_fields=field_weights.shape[-1] if field_weights.dim() else 0)
    return _score(member, _Tensors(indptr, indices, data, w0, w, V, fields, field_weights), sparse_grad)


def _score(member: _Member, t: _Tensors, sparse_grad: bool) -> Tensor:
    t = _checked(member, t)
    if is_transformed():
        if not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(t.indices):
            with torch._C._DisableFuncTorch():  # else even copies of plain tensors come wrapped
                _check(member, t)
        return _composed(member, t)
    if is_recorded(*t):
        return cast(Tensor, torch.ops.sparsefm.family(*member, *t))
    return cast(Tensor, _Family.apply(member, sparse_grad, *t))  # type: ignore[no-untyped-call]


def _checked(member: _Member, t: _Tensors) -> _Tensors:
    """Refuses what does not belong together; data in the type of V."""
    kind, order, _, n_fields = member
    fields, r, V = t.fields, t.field_weights, t.V
    check_parameters(t.w0, t.w, V)
    if kind == "anova":
        if isinstance(order, bool) or not isinstance(order, int) or not 2 <= order <= kernels.HIGHEST_ORDER:
            raise ValueError(f"order must be an integer from 2 to {kernels.HIGHEST_ORDER}, got {order!r}")
        if V.shape[1] % member.blocks:
            raise ValueError(f"V must have (order − 1) · n_factors columns, order is {order}; got {V.shape[1]}")
        return t._replace(data=check_rows(t.indptr, t.indices, t.data, V))
    if isinstance(n_fields, bool) or not isinstance(n_fields, (int, torch.SymInt)) or n_fields < 1:
        raise ValueError(f"n_fields must be a positive integer, got {n_fields!r}")
    if V.shape[1] % member.blocks:
        raise ValueError(f"V must have n_fields · n_factors columns, n_fields is {n_fields}; got {V.shape[1]}")
    if (
        fields is None
        or fields.shape != (V.shape[0],)
        or fields.dtype not in (torch.int32, torch.int64)
        or fields.device != V.device
    ):
        got = fields if fields is None else f"shape {tuple(fields.shape)} of {fields.dtype} on {fields.device}"
        raise ValueError(
            f"fields must be ({V.shape[0]},), a field for each feature, of int32 or int64 beside V on {V.device}; "
            f"got {got}"
        )
    if (r is None) == (kind == "fwfm"):
        raise ValueError(f"field_weights is for 'fwfm', which needs it; the kind is {kind!r}")
    if r is not None and (r.shape != (n_fields, n_fields) or r.dtype != V.dtype or r.device != V.device):
        raise ValueError(
            f"field_weights must be (n_fields, n_fields), of {V.dtype} like V and beside it on {V.device}; got shape "
            f"{tuple(r.shape)} of {r.dtype} on {r.device}"
        )
    return t._replace(data=check_rows(t.indptr, t.indices, t.data, V))


def _check(member: _Member, t: _Tensors) -> None:
    """Refuses rows and fields that would have a pass leave its arrays; of fields those of features that occur: the
    others are many, and are not read."""
    check_bounds(t.indptr, t.indices, t.V.shape[0])
    if t.fields is None or t.fields.device.type != "cpu" or not t.nnz:
        return
    fields = t.fields.index_select(0, t.indices)
    if fields.min() < 0 or fields.max() >= member.n_fields:
        bad = int(((fields < 0) | (fields >= member.n_fields)).nonzero()[0])
        raise ValueError(
            f"fields must be numbers from 0 to {member.n_fields - 1}, but that of column {int(t.indices[bad])} is "
            f"{int(fields[bad])}"
        )


def _composed(member: _Member, t: _Tensors) -> Tensor:
    return _of_entries(member, t, t.data, *_looked_up(t), t.field_weights)


def _looked_up(t: _Tensors) -> tuple[Tensor, Tensor]:
    return t.w.reshape(-1).index_select(0, t.indices), t.V.index_select(0, t.indices)


def _of_entries(
    member: _Member, t: _Tensors, data: Tensor | None, w: Tensor, V: Tensor, field_weights: Tensor | None
) -> Tensor:
    """Scores from the parameters of each entry."""
    if t.fields is None:
        return composed.anova(t.indptr, data, t.w0, w, V, member.order, member.shared)
    fields = t.fields.index_select(0, t.indices)
    if field_weights is None:
        return composed.field_aware(t.indptr, data, t.w0, w, V, fields, member.n_fields)
    return composed.field_weighted(t.indptr, data, t.w0, w, V, fields, field_weights)


# ---- leaves ---------------------------------------------------------------------------------------------------------


def _forward(member: _Member, t: _Tensors) -> Tensor:
    if not has_kernel(t.V):
        return _composed(member, t)
    out = t.V.new_empty(t.indptr.shape[0] - 1)
    _kernel(member, t, out=out)
    return out


def _backward(
    d: Tensor, member: _Member, t: _Tensors, *, needs_weights: bool, again: bool = False
) -> tuple[Any, Any, Any, Any]:
    """Gradients of each entry, (nnz,) for the values, (nnz,) for w and (nnz, width) for V, and of the field weights;
    with `again` such as can be differentiated once more."""
    if has_kernel(t.V) and not again:
        return _backward_kernel(d, member, t, needs_weights)
    return _backward_composed(d, member, t)


def _kernel(
    member: _Member,
    t: _Tensors,
    *,
    out: Tensor | None = None,
    d: Tensor | None = None,
    g_V: Tensor | None = None,
    g_data: Tensor | None = None,
    g_weights: Tensor | None = None,
) -> None:
    """Writes what is given of the scores and, with d, of the gradients; g_weights holds a pair once, at f ≤ g."""
    n_rows, nnz, (n_features, width) = t.indptr.shape[0] - 1, t.nnz, t.V.shape
    is_f64, is_i64 = t.V.dtype == torch.float64, t.indices.dtype == torch.int64
    indptr, indices, V, w = t.indptr.contiguous(), t.indices.contiguous(), side_by_side(t.V), t.w.resolve_neg()
    data = None if t.data is None else plain(t.data)
    fields = None if t.fields is None else t.fields.to(torch.int32).contiguous()
    r = None if t.field_weights is None else plain((t.field_weights + t.field_weights.t()) / 2)
    longest = int(indptr.diff().max()) if n_rows else 0
    at_indptr, at_indices, at_data, at_fields, at_r, at_w, at_V, at_out, at_d, at_g_V, at_g_data = (
        0 if each is None else each.data_ptr() for each in (indptr, indices, data, fields, r, w, V, out, d, g_V, g_data)
    )
    k = width // member.blocks
    kind, bias, w_stride, v_stride = kernels.KINDS[member.kind], t.w0.item(), w.stride(0), row_stride(V)
    pieces: dict[int, Tensor] = {}

    def run(start: int, stop: int) -> None:
        at_g_weights = 0
        if g_weights is not None:
            pieces[start] = torch.zeros_like(g_weights)
            at_g_weights = pieces[start].data_ptr()
        kernels.family_at(
            dispatch.ISA,
            is_f64,
            is_i64,
            start,
            stop,
            longest,
            at_indptr,
            at_indices,
            at_data,
            kind,
            member.order,
            member.shared,
            k,
            width,
            member.n_fields,
            at_fields,
            at_r,
            bias,
            at_w,
            w_stride,
            at_V,
            v_stride,
            n_features,
            at_out,
            0,
            0,
            at_d,
            at_g_V,
            at_g_data,
            at_g_weights,
        )

    met = longest if member.kind == "ffm" else member.order
    dispatch.run_pieces(run, n_rows, nnz * (k * met + 4), torch.get_num_threads())
    if g_weights is not None:
        for start in sorted(pieces):
            g_weights += pieces[start]


def _backward_kernel(
    d: Tensor, member: _Member, t: _Tensors, needs_weights: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    d, n_fields = plain(d), member.n_fields
    g_data, g_V = t.V.new_empty(t.nnz), t.V.new_empty((t.nnz, t.V.shape[1]))
    g_weights = t.V.new_zeros((n_fields, n_fields), dtype=torch.float64) if needs_weights else None
    _kernel(member, t, d=d, g_V=g_V, g_data=g_data, g_weights=g_weights)
    g_w = d.repeat_interleave(t.indptr.diff(), output_size=t.nnz)
    if t.data is not None:
        g_w *= t.data
    if g_weights is not None:
        g_weights = ((g_weights + g_weights.t()) / 2).to(t.V.dtype)
    return g_data, g_w, g_V, g_weights


def _backward_composed(d: Tensor, member: _Member, t: _Tensors) -> tuple[Any, Any, Any, Any]:
    """By torch's own derivative of the composed scores."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        kept = [
            each if each is None or (create_graph and each.requires_grad) else each.detach().requires_grad_()
            for each in (t.data, *_looked_up(t), t.field_weights)
        ]
        out = _of_entries(member, t, *cast(Any, kept))
        given = [each for each in kept if each is not None]
        # a row of one entry has no sets
        found = iter(
            torch.autograd.grad(out, given, d, create_graph=create_graph, allow_unused=True, materialize_grads=True)
        )
    g_data, g_w, g_V, g_weights = (None if each is None else next(found) for each in kept)
    return g_data, g_w, g_V, g_weights


# ---- the eager route ------------------------------------------------------------------------------------------------


class _Family(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, member: _Member, sparse: bool, *tensors: Any) -> Tensor:
        t = _Tensors(*tensors)
        _check(member, t)
        ctx.save_for_backward(*t)
        ctx.member, ctx.sparse, ctx.kinds = member, sparse, _kinds(t)
        return _forward(member, t)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        member, t, needs = ctx.member, _Tensors(*ctx.saved_tensors), _Tensors(*ctx.needs_input_grad[2:])
        if _kinds(t) != ctx.kinds:
            raise RuntimeError(
                "rows or parameters have got another shape or type since the forward pass: run that again"
            )
        _check(member, t)  # again: .data and .numpy() change tensors behind torch's back
        again = torch.is_grad_enabled() or is_transformed(d)  # to be differentiated once more, or a batch of it
        g_data, of_w, of_V, g_weights = _backward(d, member, t, needs_weights=bool(needs.field_weights), again=again)

        def made(rows: Tensor, like: Tensor) -> Tensor:
            if ctx.sparse and not again:
                return row_sparse(t.indices.long()[None], rows, like, ascending=False)
            return scattered(t.indices, rows, like)

        return (
            None,
            None,
            None,
            None,
            g_data if needs.data else None,
            total(d, t.w0) if needs.w0 else None,
            made(of_w, t.w) if needs.w else None,
            made(of_V, t.V) if needs.V else None,
            None,
            g_weights if needs.field_weights else None,
        )


def _kinds(t: _Tensors) -> list[Any]:
    return [None if each is None else (each.shape, each.dtype) for each in t]


# ---- the registered route -------------------------------------------------------------------------------------------

_MEMBER = "str kind, int order, bool shared, SymInt n_fields"
_TENSORS = (
    "Tensor indptr, Tensor indices, Tensor? data, Tensor w0, Tensor w, Tensor V, Tensor? fields, Tensor? field_weights"
)
torch.library.define("sparsefm::family", f"({_MEMBER}, {_TENSORS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
torch.library.define(
    "sparsefm::family_backward",
    f"(Tensor d, {_MEMBER}, {_TENSORS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


def _family_op(*arguments: Any) -> Tensor:
    member, t = _apart(arguments)
    t = _checked(member, t)
    _check(member, t)
    return _forward(member, t)


def _family_fake(*arguments: Any) -> Tensor:
    _, t = _apart(arguments)
    return t.V.new_empty(t.indptr.shape[0] - 1)


def _family_backward_op(d: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Dense gradients of data, w, V and the field weights; of what there is not, an empty one."""
    member, t = _apart(arguments)
    t = _checked(member, t)
    _check(member, t)
    if d.shape != (t.indptr.shape[0] - 1,) or d.dtype != t.V.dtype:
        raise ValueError(f"d must be one {t.V.dtype} a row; got shape {tuple(d.shape)} of {d.dtype}")
    g_data, of_w, of_V, g_weights = _backward(d, member, t, needs_weights=t.field_weights is not None)
    found = (g_data if t.data is not None else None, scattered(t.indices, of_w, t.w), scattered(t.indices, of_V, t.V))
    return tuple(t.V.new_empty(0) if each is None else each for each in (*found, g_weights))


def _family_backward_fake(d: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    _, t = _apart(arguments)
    return tuple(t.V.new_empty(0 if each is None else each.shape) for each in (t.data, t.w, t.V, t.field_weights))


def _apart(arguments: tuple[Any, ...]) -> tuple[_Member, _Tensors]:
    at = len(_Member._fields)
    return _Member(*arguments[:at]), _Tensors(*arguments[at:])


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    member, t = _apart(inputs)
    ctx.member = member
    ctx.save_for_backward(*t)


def _family_op_backward(ctx: Any, d: Tensor) -> Any:
    t = _Tensors(*ctx.saved_tensors)
    g_data, g_w, g_V, g_weights = torch.ops.sparsefm.family_backward(d, *ctx.member, *t)
    return (
        *(None for _ in ctx.member),
        None,
        None,
        None if t.data is None else g_data,
        d.sum().reshape(t.w0.shape),
        g_w,
        g_V,
        None,
        None if t.field_weights is None else g_weights,
    )


def _setup_backward(ctx: Any, inputs: Any, output: Any) -> None:
    d, *rest = inputs
    member, t = _apart(tuple(rest))
    ctx.member = member
    ctx.save_for_backward(d, *t)


def _family_backward_op_backward(ctx: Any, *grads: Any) -> Any:
    """Second derivatives, by differentiating the composed gradient."""
    with torch.enable_grad():
        d, *tensors = (
            each.detach().requires_grad_() if each is not None and each.is_floating_point() else each
            for each in ctx.saved_tensors
        )
        t = _Tensors(*tensors)
        leaves = (t.data, t.w, t.V, t.field_weights)
        there = [each for each in leaves if each is not None]
        first = torch.autograd.grad(_composed(ctx.member, t), there, d, create_graph=True, allow_unused=True)
        wanted = [g for g, each in zip(grads, leaves, strict=True) if each is not None]
        used = [(each, g) for each, g in zip(first, wanted, strict=True) if each is not None]
        outputs, weights = zip(*used, strict=True)
        found = iter(torch.autograd.grad(outputs, [d, *there], weights, allow_unused=True))
    g_d = next(found)
    g_data, g_w, g_V, g_weights = (None if each is None else next(found) for each in leaves)
    return g_d, *(None for _ in ctx.member), None, None, g_data, None, g_w, g_V, None, g_weights


torch.library.impl("sparsefm::family", "CompositeExplicitAutograd", _family_op)
torch.library.impl("sparsefm::family_backward", "CompositeExplicitAutograd", _family_backward_op)
torch.library.register_fake("sparsefm::family", _family_fake)
torch.library.register_fake("sparsefm::family_backward", _family_backward_fake)
torch.library.register_autograd("sparsefm::family", _family_op_backward, setup_context=_setup)
torch.library.register_autograd(
    "sparsefm::family_backward", _family_backward_op_backward, setup_context=_setup_backward
)
