"""Items, or users, as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..validation import check_positive
from .canvas import BLUE, GREY, new_axes, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["item_map"]


def item_map(
    vectors: npt.ArrayLike,
    titles: Sequence[object],
    *,
    top: int = 60,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Vectors on their first two principal axes, with a title wherever it meets no other.

    What lies in one direction pleases the same people. The axes themselves mean nothing that the model knows of.

    Parameters
    ----------
    vectors : array-like (n_items, d)
        Such as `FMRanker.item_vectors`, or the item's side of `model.represent`.
    titles : sequence (n_items,)
        Give what matters most first: titles are written in this order, where there is room.
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
    V = V - V.mean(axis=0)
    x, y = np.linalg.svd(V, full_matrices=False)[2][:2] @ V.T
    ax = new_axes(5.6) if ax is None else ax
    ax.plot(x, y, ".", color=GREY, markersize=3, alpha=0.6)
    ax.set(xticks=[], yticks=[], xlabel="first axis", ylabel="second axis")
    ax.margins(0.12)
    ax.spines[["top", "right"]].set_visible(False)
    places = np.column_stack([x, y])
    spots = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    letter, line = 0.016, 0.04  # what one takes up, in shares of the map
    taken: list[tuple[float, float, float]] = []
    for i in range(len(V)):
        if len(taken) == top:
            break
        text = shortened(str(titles[i]))
        left, right, height = spots[i, 0], spots[i, 0] + letter * len(text), spots[i, 1]
        if all(right < a or left > b or abs(height - h) > line for a, b, h in taken):
            taken.append((left, right, height))
            ax.plot(x[i], y[i], ".", color=BLUE, markersize=5)
            ax.annotate(text, (x[i], y[i]), (3, 2), textcoords="offset points", fontsize="small")
    if title is not None:
        ax.set_title(title, loc="left")
    return ax
