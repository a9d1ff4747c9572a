"""What all pictures share: a figure that pyplot does not know, colours, and a plain frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap

__all__ = ["BLUE", "FAINT", "GREY", "LINES", "PALE", "RED", "finish", "new_axes", "shades", "shortened"]

GREY, RED, BLUE, FAINT, PALE = "#7f8fa6", "#c0392b", "#2e7fb8", "#d9d9d9", "#cfe0ee"
LINES = (BLUE, RED, "#d9a441", "#5b8c5a")  # of several alike
_LONGEST = 28  # characters of a name beside a bar


def new_axes(height: float) -> Axes:
    """Seven inches wide, so many high."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots are drawn by matplotlib: pip install sparsefm[plot]") from error
    # not pyplot's figure, which would choose a backend and be kept alive
    ax: Axes = Figure(figsize=(7, height), layout="constrained").subplots()
    return ax


def shades(lightest: str) -> LinearSegmentedColormap:
    """From the colour given for nothing to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", [lightest, BLUE])


def finish(ax: Axes, title: str | None, grid: str | None = "both") -> Axes:
    """The same manners for all: faint lines behind, no frame at the top and right, the title at the left."""
    if grid is not None:
        ax.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if title is not None:
        ax.set_title(title, loc="left")
    return ax


def shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
