"""Items, or users, as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..validation import check_positive
from .canvas import BLUE, GREY, finish, new_axes, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

__all__ = ["item_map"]

_GAP, _DOT = 4, 3  # points from a dot to its name, and that the dot takes up itself


def item_map(
    vectors: npt.ArrayLike,
    titles: Sequence[object],
    *,
    top: int = 60,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Vectors on their first two principal axes, with a title wherever it meets no other.

    What lies in one direction from the middle pleases the same people. The axes themselves mean nothing that the model
    knows of; both have one scale, and the share of the variance that each holds beside its name.

    Parameters
    ----------
    vectors : array-like (n_items, d)
        Such as `FMRanker.item_vectors` without its last column, the item's own score, or `represent` of the items.
    titles : sequence (n_items,)
        Give what matters most first: titles are tried in this order, right of their dots or else left of them, and
        written where there is room.
    top : int
        The most titles that are written.
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
        If there are fewer than two vectors or numbers in each, values are missing or infinite, titles are not as many,
        or top is not a positive integer.

    Examples
    --------
    >>> from sparsefm.plots import item_map
    >>> ax = item_map([[0, 1], [1, 0], [5, 5]], ["Alien", "Amelie", "Up"])
    >>> sorted(text.get_text() for text in ax.texts)
    ['Alien', 'Amelie', 'Up']
    """
    check_positive(top, "top", integer=True)
    V = np.asarray(vectors, np.float64)
    if V.ndim != 2 or min(V.shape) < 2 or not np.isfinite(V).all():
        raise ValueError(f"vectors must be two and more rows of two and more finite numbers, got shape {V.shape}")
    if len(titles) != len(V):
        raise ValueError(f"titles must be one for each of the {len(V)} vectors, got {len(titles)}")
    names = [shortened(str(name)) for name in titles]
    V = V - V.mean(axis=0)
    _, lengths, axes = np.linalg.svd(V, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]  # of two signs always one
    places, shares = V @ axes.T, lengths**2 / max(np.sum(lengths**2), 1e-300)
    ax = new_axes(5.6) if ax is None else ax
    ax.plot(*places.T, ".", color=GREY, markersize=3, alpha=0.5)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.06)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(f"first axis, {100 * shares[0]:.0f} % of the variance")
    ax.set_ylabel(f"second axis, {100 * shares[1]:.0f} % of the variance")
    finish(ax, title, grid=None)
    _write(ax, places, names, top)
    return ax


def _write(ax: Axes, places: npt.NDArray[np.float64], names: Sequence[str], top: int) -> None:
    """Up to `top` names beside their dots, none of which meets another name or its dot, or leaves the frame."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox, IdentityTransform

    figure: Any = ax.figure
    figure.figure.draw_without_rendering()  # only now is known where the axes lie on the page
    point, frame = figure.dpi / 72, ax.get_window_extent()
    on_page = ax.transData.transform(places)
    halo = [withStroke(linewidth=2, foreground="white")]  # above the dots behind
    probe = ax.text(0, 0, "a", fontsize="small", transform=IdentityTransform(), parse_math=False)
    least = np.array([_DOT * point, probe.get_window_extent().height / 2])  # that any name takes up around its dot
    taken: list[Bbox] = []
    written: list[int] = []
    covered = np.zeros(len(places), bool)
    for i, (x, y) in enumerate(on_page):
        if covered[i]:
            continue  # before the name is measured, which takes longest
        probe.set_text(names[i])
        size = probe.get_window_extent()
        for side, align in ((1, "left"), (-1, "right")):
            ends = sorted([x - side * _DOT * point, x + side * (_GAP * point + size.width)])
            box = Bbox.from_extents(ends[0], y - size.height / 2, ends[1], y + size.height / 2)
            if _within(frame, box) and not box.count_overlaps(taken):
                taken.append(box)
                covered |= ((box.min < on_page + least) & (on_page - least < box.max)).all(axis=1)
                written.append(i)
                ax.annotate(
                    names[i],
                    places[i],
                    (side * _GAP, 0),
                    textcoords="offset points",
                    ha=align,
                    va="center",
                    fontsize="small",
                    parse_math=False,
                    path_effects=halo,
                )
                break
        if len(written) == top:
            break
    probe.remove()
    ax.plot(*places[written].T, ".", color=BLUE, markersize=5)


def _within(frame: Bbox, box: Bbox) -> bool:
    return bool(np.all(frame.min <= box.min) and np.all(box.max <= frame.max))
