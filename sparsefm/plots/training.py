"""How training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..metrics import split_rhat
from ..model import Posterior
from .canvas import GREY, LINES, RED, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curve", "posterior_trace"]


def learning_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    ax: Axes | None = None,
    metric: Literal["loss", "rmse"] = "loss",
    title: str | None = None,
) -> Axes:
    """Loss after each epoch, on the training rows and on those watched, whose best epoch is marked.

    The training loss of an epoch is the mean over rows that were scored just before their own update, so it
    can lie above the loss on watched rows in the first epochs.

    Parameters
    ----------
    history : sequence of (n_epochs,) records
        `history_` of a fitted estimator: each has "epoch" and "loss", and "eval_loss" if it was fitted with
        an eval_set or early stopping. Of a classifier with several classes pass the records of one class.
    ax : matplotlib Axes, optional
        Where to draw. Without it a new figure is made, which pyplot does not know: save it by
        ``ax.figure.savefig(path)``.
    metric : {"loss", "rmse"}
        "rmse" is √(2 · loss), for squared loss in the unit of the target; predictions are not clipped.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If the history is empty, not one record an epoch, or lacks losses; or metric is another word.

    Examples
    --------
    >>> from sparsefm.plots import learning_curve
    >>> history = [{"epoch": 1, "loss": 0.5, "eval_loss": 0.6}, {"epoch": 2, "loss": 0.4, "eval_loss": 0.5}]
    >>> ax = learning_curve(history, metric="rmse")
    >>> ax.get_ylabel()
    'RMSE'
    """
    if metric not in ("loss", "rmse"):
        raise ValueError(f"metric must be 'loss' or 'rmse', got {metric!r}")
    epochs, training = _series(history, "epoch"), _series(history, "loss")
    watched = _series(history, "eval_loss") if any("eval_loss" in record for record in history) else None
    if (np.diff(epochs) <= 0).any():
        raise ValueError(
            "the epochs of history must rise; of a classifier with several classes pass the records of one "
            "class: [record for record in model.history_ if record['class'] == label]"
        )
    if metric == "rmse":
        training = np.sqrt(2 * training)
        watched = None if watched is None else np.sqrt(2 * watched)
    ax = new_axes(4.2) if ax is None else ax
    from matplotlib.ticker import MaxNLocator

    ax.plot(epochs, training, color=GREY, marker=".", label="training")
    if watched is not None:
        ax.plot(epochs, watched, color=RED, marker=".", label="held out")
        best = int(np.argmin(watched))
        where = (float(epochs[best]), float(watched[best]))
        label = f"best: {where[1]:.4g} in epoch {where[0]:.0f}"
        ax.plot(*where, "o", color=RED, markersize=11, fillstyle="none", label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("RMSE" if metric == "rmse" else "mean loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    return finish(ax, title, grid="y")


def posterior_trace(posterior: Posterior, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """A few numbers of each draw that was kept, a line a chain, with their split R-hat (`metrics.split_rhat`).

    The numbers are the standard deviation of the noise, w0, the first and the last cut between ordered levels, and the
    root mean squares of weights and of factors, which do not change where the factors turn; those that never change
    are left out. Each has a band of its own, as high as its draws go apart; beside it stand their mean and standard
    deviation. Chains that agree lie on each other and wander about one level; R-hat is then near 1.

    Parameters
    ----------
    posterior : Posterior
        `posterior_` of an estimator fitted with solver="mcmc"; of several classes one of them.
    ax : matplotlib Axes, optional
        Where to draw. Without it a new figure is made, which pyplot does not know: save it by
        ``ax.figure.savefig(path)``.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If posterior is none, as after a solver that does not draw, or its draws do not differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.plots import posterior_trace
    >>> from sparsefm.solvers import MCMC
    >>> X, y = np.eye(4)[[0, 1, 2, 3] * 5], [1.0, 2.0, 3.0, 4.0] * 5
    >>> model = FMRegressor(2, solver=MCMC(n_samples=20, n_chains=2), random_state=0).fit(X, y)
    >>> ax = posterior_trace(model.posterior_)
    >>> [label.get_text().split("\\n")[0] for label in ax.get_yticklabels()]
    ['noise', 'w0', 'weights', 'factors']
    """
    if not isinstance(posterior, Posterior):
        raise ValueError(
            "posterior must be posterior_ of an estimator fitted with solver='mcmc', of several classes one of them; "
            f"got {type(posterior).__name__}"
        )
    numbers = {name: draws for name, draws in _numbers(posterior).items() if np.ptp(draws) > 0}
    if not numbers:
        raise ValueError(f"the draws of posterior do not differ, there are {len(posterior)}: keep more of them")
    ax = new_axes(1.4 + 0.8 * len(numbers)) if ax is None else ax

    chains = [posterior.chain == chain for chain in np.unique(posterior.chain)]
    shortest = min(int(own.sum()) for own in chains)
    labels, agreement = [], []
    for band, (name, draws) in enumerate(numbers.items()):
        labels.append(f"{name}\n{draws.mean():.4g} ± {draws.std():.2g}".replace("-", "−"))
        if shortest >= 4:
            agreement.append(f"{name} {split_rhat([draws[own][:shortest] for own in chains]):.3f}")
        heights = (draws - draws.min()) / np.ptp(draws) - 0.5
        for number, own in enumerate(chains):
            label = f"chain {number + 1}" if band == 0 else None
            colour = LINES[number % len(LINES)]
            ax.plot(np.arange(1, own.sum() + 1), band - 0.84 * heights[own], color=colour, linewidth=0.9, label=label)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -1.3)  # downwards, with room for the legend
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("draw that was kept")
    ax.legend(
        title="split R-hat: " + ", ".join(agreement) if agreement else None,
        frameon=False,
        loc="upper left",
        ncols=4,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
    )
    return finish(ax, title, grid="x")


def _numbers(posterior: Posterior) -> dict[str, NDArray[np.float64]]:
    """(n_draws,) each: numbers that do not change where the factors turn."""
    numbers = {"noise": posterior.deviation, "w0": posterior.w0}
    if posterior.cuts is not None:
        last = posterior.cuts.shape[1]
        numbers |= {"cut 1": posterior.cuts[:, 0], f"cut {last}": posterior.cuts[:, -1]}
    for name, arrays in (("weights", posterior.w), ("factors", posterior.V)):
        if arrays.size:
            lengths = [float(np.linalg.norm(draw)) for draw in arrays]  # one at a time: all may be large
            numbers[name] = np.array(lengths) / np.sqrt(arrays[0].size)
    return numbers


def _series(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n_epochs,) values of one key, which every record must have."""
    if len(history) == 0:
        raise ValueError("history is empty: pass history_ of a fitted estimator")
    without = [number for number, record in enumerate(history) if key not in record]
    if without:
        raise ValueError(
            f"record {without[0]} of history has no {key!r}, only {', '.join(map(str, history[without[0]]))}"
        )
    return np.array([record[key] for record in history], dtype=np.float64)
