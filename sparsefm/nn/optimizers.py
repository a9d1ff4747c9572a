"""Optimisers for row-sparse gradients: a step costs what the batch touched, and takes the kernels' own row updates."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, overload

import torch
import torch.distributed
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from .._kernels import dispatch, rowsteps
from ..ops.kernels import has_kernel, is_recorded, plain, row_stride, side_by_side
from ..validation import check_positive

__all__ = ["AdaGrad", "LazyAdam"]

Group = dict[str, Any]
State = dict[str, Tensor]

_WORK_PER_NUMBER = 16  # multiply-adds that take as long as the step of one number
_LEAST_EPS = 1e-30  # its root and that root's reciprocal are ordinary numbers in float32


class _Hook:
    """Has an optimiser step one parameter in the backward pass.

    The parameter owns it, as an attribute, and torch's list of hooks only refers to it: that list is closed to Python's
    collector, and would keep whatever refers back to the parameter, tables and state, for ever. A parameter has one at
    most: an optimiser before the newest would take the gradients away from that.
    """

    _name = "_sparsefm_hook"

    def __init__(self, optimizer: _RowOptimizer, number: int, p: Tensor) -> None:
        self.optimizer, self.number, this = optimizer, number, weakref.ref(self)

        def step(p: Tensor) -> None:
            hook = this()
            if hook is not None:
                hook.optimizer._step_in_backward(hook.number, p)

        self.handle = p.register_post_accumulate_grad_hook(step)
        setattr(p, self._name, self)

    @classmethod
    def remove(cls, p: Tensor) -> None:
        hook = vars(p).pop(cls._name, None)
        if hook is not None:
            hook.handle.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a pickled parameter has no optimiser; a pickled optimiser hangs up hooks of its own


class _RowOptimizer(Optimizer):
    """Looks at gradients and state, and takes each step with a kernel or with torch's operations."""

    _options: tuple[str, ...]  # of a group
    _complete = False  # whether all groups of the constructor have been accepted

    def __init__(self, params: ParamsT, defaults: Group, in_backward: bool) -> None:
        if not isinstance(in_backward, bool):
            raise TypeError(f"{type(self).__name__}(in_backward) must be True or False, got {in_backward!r}")
        self.in_backward = in_backward
        super().__init__(params, defaults)
        self._take_over()

    # What an optimiser says of itself: shape and start of its state, the kernel's number, state and betas for a group,
    # and one step in torch's operations, in place.

    def _state_layout(self, p: Tensor, group: Group) -> dict[str, tuple[tuple[int, ...], float]]:
        raise NotImplementedError

    def _kernel(self, group: Group) -> tuple[int, tuple[str, ...], tuple[float, float]]:
        raise NotImplementedError

    def _update(self, theta: Tensor, grad: Tensor, state: State, group: Group) -> None:
        raise NotImplementedError

    # ---- parameters and options ----

    def add_param_group(self, param_group: Group) -> None:
        """Adds parameters, with options of their own where the dictionary has some."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
            for p in self.param_groups[-1]["params"]:
                self._check_parameter(p)
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise
        if self._complete:
            self._take_over(len(self.param_groups) - 1)

    def _check_group(self, group: Group) -> None:
        name, missing = type(self).__name__, [option for option in self._options if option not in group]
        if missing:
            raise ValueError(f"a group of {name} lacks {', '.join(missing)}: it was saved by another optimiser")
        for option in ("lr", "eps", "weight_decay"):  # schedules may lead the learning rate to zero
            check_positive(group[option], f"{name}({option})", zero=True)
        if group["eps"] < _LEAST_EPS:
            raise ValueError(f"{name}(eps) must be at least {_LEAST_EPS}, got {group['eps']!r}")

    def _check_parameter(self, p: Tensor) -> None:
        name = type(self).__name__
        if p.dtype not in (torch.float32, torch.float64) or p.layout != torch.strided:
            raise TypeError(
                f"{name} steps dense parameters of float32 and float64, got {p.dtype} of {p.layout}: shorter types "
                "would lose most steps, so keep parameters in float32 and use autocast"
            )
        if self.in_backward and not p.requires_grad:
            raise ValueError(
                f"{name}(in_backward=True) got a parameter of shape {tuple(p.shape)} that requires no gradient: leave "
                "it out, and add it with add_param_group when it is to be trained"
            )

    def _take_over(self, first: int = 0) -> None:
        """Removes the hooks that parameters of the groups from `first` on have, and hangs up this optimiser's."""
        self._complete = True
        for number in range(first, len(self.param_groups)):
            for p in self.param_groups[number]["params"]:
                _Hook.remove(p)
                if self.in_backward:
                    _Hook(self, number, p)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"in_backward": self.in_backward}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "in_backward" in state:  # this is a copy; load_state_dict comes here too, with state and groups alone
            self._take_over()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes options and state of an optimiser of the same class; in_backward stays as it is."""
        for group in state_dict["param_groups"]:
            self._check_group(group)
        super().load_state_dict(state_dict)

    # ---- steps ----

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients; with in_backward=True they are gone already, and nothing happens."""
        if not self.in_backward:
            super().zero_grad(set_to_none)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Steps every parameter that has a gradient; with in_backward=True nothing is left to do but call the closure.

        Parameters
        ----------
        closure : callable() -> loss, optional
            Called first, to compute loss and gradients.

        Returns
        -------
        What the closure returns, or None.

        Raises
        ------
        ValueError, TypeError
            For options, gradients or loaded state that do not fit, before any parameter changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.in_backward:
            ready = []
            for group in self.param_groups:
                self._check_group(group)
                for p in group["params"]:
                    if p.grad is not None:
                        ready.append((p, self._gradient_of(p), self._state_of(p, group), group))
            for each in ready:
                self._step(*each)
        return loss

    @torch.no_grad()
    def _step_in_backward(self, number: int, p: Tensor) -> None:
        if (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        ):
            raise RuntimeError(
                f"{type(self).__name__}(in_backward=True) would step before the processes have exchanged their "
                "gradients, and their parameters would drift apart: pass in_backward=False"
            )
        group = self.param_groups[number]
        self._check_group(group)
        self._step(p, self._gradient_of(p), self._state_of(p, group), group)
        p.grad = None

    def _gradient_of(self, p: Tensor) -> Tensor:
        """The gradient, where row-sparse with each row once and in ascending order."""
        grad = p.grad
        assert grad is not None
        if grad.shape != p.shape or grad.dtype != p.dtype or grad.device != p.device:
            raise ValueError(
                f"a gradient has shape {tuple(grad.shape)} of {grad.dtype} on {grad.device}, its parameter "
                f"{tuple(p.shape)} of {p.dtype} on {p.device}: the parameter was changed after the backward pass"
            )
        if grad.layout == torch.strided:
            return grad
        if grad.layout != torch.sparse_coo or grad.sparse_dim() != 1:
            raise ValueError(
                f"{type(self).__name__} takes dense gradients, and sparse COO ones whose first axis alone is sparse; "
                f"got {grad.layout} of shape {tuple(grad.shape)}: call p.grad = p.grad.to_dense() before"
            )
        grad = grad.coalesce()
        rows = grad.indices()[0].contiguous()
        if rows.device.type == "cpu" and not rowsteps.ascending_at(rows.data_ptr(), len(rows), len(p)):
            raise ValueError(
                f"a gradient names rows outside 0 … {len(p) - 1}, or says that it is coalesced and is not: build it "
                "with torch.sparse_coo_tensor(..., check_invariants=True)"
            )
        return grad

    def _state_of(self, p: Tensor, group: Group) -> State:
        """The parameter's state, made when it is first asked for."""
        state: State = self.state[p]
        layout = self._state_layout(p, group)
        if not state:
            for name, (shape, start) in layout.items():  # zeros take no memory before they are touched
                state[name] = p.new_full(shape, start) if start else p.new_zeros(shape)
        for name, (shape, _) in layout.items():
            if name not in state or state[name].shape != shape or state[name].dtype != p.dtype:
                got = f"shape {tuple(state[name].shape)} of {state[name].dtype}" if name in state else "nothing"
                raise ValueError(
                    f"the state {name!r} of a parameter of shape {tuple(p.shape)} must have shape {tuple(shape)} of "
                    f"{p.dtype}, got {got}: it was saved for other parameters or by another optimiser"
                )
        return state

    def _step(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        if p.numel() == 0:
            return
        if grad.layout == torch.strided:
            self._update(p, _with_l2(grad, p, group), state, group)
            return
        features, rows, table = grad.indices()[0], grad.values(), p.detach()
        table = table[:, None] if table.dim() == 1 else table
        if (
            has_kernel(table)
            and table.dim() == 2
            and not is_recorded(p)
            and side_by_side(table) is table
            and row_stride(table) >= table.shape[1]  # rows that overlap are torch's to refuse
            and all(each.is_contiguous() for each in state.values())
        ):
            if rows.numel():
                self._step_rows(table, features.contiguous(), plain(rows), state, group)
                torch.autograd.graph.increment_version(p)  # a graph that still holds the old values fails, as it must
            return
        theta, picked = p[features], {name: each[features] for name, each in state.items()}
        self._update(theta, _with_l2(rows, theta, group), picked, group)
        p.index_copy_(0, features, theta)
        for name, each in state.items():
            each.index_copy_(0, features, picked[name])

    def _step_rows(self, table: Tensor, features: Tensor, rows: Tensor, state: State, group: Group) -> None:
        optimiser, names, betas = self._kernel(group)
        is_f64, n, (_, k), stride = table.dtype == torch.float64, len(features), table.shape, row_stride(table)
        at_features, at_rows, at_table = features.data_ptr(), rows.data_ptr(), table.data_ptr()
        first, second, powers = [state[name].data_ptr() for name in names] + [0] * (3 - len(names))
        rate, eps, weight_decay = group["lr"], group["eps"], group["weight_decay"]

        def run(start: int, stop: int) -> None:
            rowsteps.step_at(
                dispatch.ISA,
                is_f64,
                start,
                stop,
                at_features,
                n,
                at_rows,
                at_table,
                stride,
                k,
                first,
                second,
                powers,
                optimiser,
                rate,
                eps,
                *betas,
                weight_decay,
            )

        dispatch.run_pieces(run, n, n * (k + 4) * _WORK_PER_NUMBER, torch.get_num_threads())


class AdaGrad(_RowOptimizer):
    """Adaptive gradient steps (Duchi, Hazan & Singer, JMLR 2011).

        G += g²        θ −= lr · g / √(eps + G)

    Row-sparse gradients, as `FactorizationMachine` and `nn.Embedding(sparse=True)` give them, change only the rows they
    name; on the CPU by a kernel, with the same bits at any number of threads. Dense gradients, and those on other
    devices, take the same steps in torch's operations.

    Parameters
    ----------
    params : iterable of parameters or of groups, as in every torch optimiser
        float32 or float64. A group may have values of its own for all options but in_backward.
    lr : float
        Length of a step.
    rowwise : bool
        One G for each row of a parameter with two or more axes, of the mean of its squared gradients: the state of a
        table of k columns takes 1/k of the memory.
    eps : float
        Under the root, unlike in torch.optim.Adagrad; at least 1e-30.
    initial_accumulator_value : float
        G at the start.
    weight_decay : float
        L2: weight_decay · θ is added to the gradients of the rows that a step touches, and to no others.
    in_backward : bool
        Each parameter is stepped inside `backward()`, as soon as its gradient is complete, and the gradient is freed at
        once: no two parameters' gradients need be held together. `step()` and `zero_grad()` then do nothing, so loops
        that call them stay as they are. There is one step for each backward pass, whatever comes between: no adding up
        of gradients over batches, no clipping, no scaled loss, and no second pass through a graph that was kept. More
        than one process is refused, whose gradients would be exchanged only later. It ends when another optimiser of
        this module takes the parameters.

    Raises
    ------
    ValueError, TypeError
        For options out of range, and parameters of another type.

    Examples
    --------
    >>> embedding = torch.nn.Embedding(1000, 8, sparse=True)
    >>> optimizer = AdaGrad(embedding.parameters(), lr=0.1)
    >>> embedding(torch.tensor([3, 7])).sum().backward()
    >>> optimizer.step()
    """

    _options = ("lr", "rowwise", "eps", "initial_accumulator_value", "weight_decay")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.05,
        *,
        rowwise: bool = False,
        eps: float = 1e-10,
        initial_accumulator_value: float = 0.0,
        weight_decay: float = 0.0,
        in_backward: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rowwise": rowwise,
            "eps": eps,
            "initial_accumulator_value": initial_accumulator_value,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, in_backward)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_positive(group["initial_accumulator_value"], "AdaGrad(initial_accumulator_value)", zero=True)
        if not isinstance(group["rowwise"], bool):
            raise TypeError(f"AdaGrad(rowwise) must be True or False, got {group['rowwise']!r}")

    def _state_layout(self, p: Tensor, group: Group) -> dict[str, tuple[tuple[int, ...], float]]:
        return {"sum": (p.shape[:1] if group["rowwise"] else p.shape, group["initial_accumulator_value"])}

    def _kernel(self, group: Group) -> tuple[int, tuple[str, ...], tuple[float, float]]:
        return rowsteps.OPTIMISERS["rowwise" if group["rowwise"] else "adagrad"], ("sum",), (0.0, 0.0)

    def _update(self, theta: Tensor, grad: Tensor, state: State, group: Group) -> None:
        G, squares = state["sum"], grad.square()
        G += squares.flatten(1).mean(1) if G.dim() < theta.dim() else squares
        theta -= group["lr"] * grad * _along_rows((group["eps"] + G).rsqrt(), theta)


class LazyAdam(_RowOptimizer):
    """Adam (Kingma & Ba, ICLR 2015) in which each row has its own age: the number of steps that touched it.

        m += (1 − β1) (g − m)        m̂ = m / (1 − β1^age)
        s += (1 − β2) (g² − s)       ŝ = s / (1 − β2^age)        θ −= lr · m̂ / √(eps + ŝ)

    Means of a row stand still while it does not occur, and are corrected by its own age, so that the first steps of a
    rare row are as long as those of a frequent one. torch.optim.SparseAdam corrects all rows by the number of batches.
    For gradients that are always dense this is Adam.

    Parameters
    ----------
    params, weight_decay, in_backward
        As in `AdaGrad`.
    lr : float
        Length of a step.
    betas : (float, float)
        Decay of the means of gradients and of their squares, at each step of a row; at least 0, less than 1.
    eps : float
        Under the root, unlike in torch.optim.Adam, whose eps is this one's root; at least 1e-30.

    Raises
    ------
    ValueError, TypeError
        As in `AdaGrad`.

    Examples
    --------
    >>> embedding = torch.nn.Embedding(1000, 8, sparse=True)
    >>> optimizer = LazyAdam(embedding.parameters(), in_backward=True)
    >>> embedding(torch.tensor([3, 7])).sum().backward()  # takes the step
    """

    _options = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        in_backward: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, in_backward)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"LazyAdam(betas) must be two numbers, got {betas!r}")
        for beta in betas:
            check_positive(beta, "LazyAdam(betas)", zero=True)
            if not beta < 1:
                raise ValueError(f"LazyAdam(betas) must be less than 1, got {betas!r}")

    def _state_layout(self, p: Tensor, group: Group) -> dict[str, tuple[tuple[int, ...], float]]:
        n_rows = len(p) if p.dim() else 1
        return {"exp_avg": (p.shape, 0.0), "exp_avg_sq": (p.shape, 0.0), "powers": ((n_rows, 2), 1.0)}  # β1^age, β2^age

    def _kernel(self, group: Group) -> tuple[int, tuple[str, ...], tuple[float, float]]:
        beta1, beta2 = group["betas"]
        return rowsteps.OPTIMISERS["adam"], ("exp_avg", "exp_avg_sq", "powers"), (beta1, beta2)

    def _update(self, theta: Tensor, grad: Tensor, state: State, group: Group) -> None:
        # The betas as theta's type keeps them: 1 − β and 1 − β^age must come from one number to cancel at age 1.
        beta1, beta2 = torch.tensor(group["betas"], dtype=theta.dtype).tolist()
        m, s, powers = state["exp_avg"], state["exp_avg_sq"], state["powers"]
        powers[:, 0] *= beta1
        powers[:, 1] *= beta2
        first, second = (_along_rows(1 - each, theta) for each in powers.unbind(1))
        m += (1 - beta1) * (grad - m)
        s += (1 - beta2) * (grad.square() - s)
        theta -= group["lr"] * (m / first) * (group["eps"] + s / second).rsqrt()


def _with_l2(grad: Tensor, theta: Tensor, group: Group) -> Tensor:
    return grad.add(theta, alpha=group["weight_decay"]) if group["weight_decay"] else grad


def _along_rows(values: Tensor, theta: Tensor) -> Tensor:
    """One value a row, or one an element, in a shape that multiplies theta."""
    return values.reshape(values.shape[: theta.dim()] + (1,) * (theta.dim() - values.dim()))
