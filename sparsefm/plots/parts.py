"""What scores are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..validation import check_positive
from .canvas import BLUE, FAINT, GREY, RED, finish, new_axes, shades, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["explanation", "field_importance", "pair_importance"]

_SMALLEST = 4.5  # points of letters that can be read
_MANY = 12  # names that stand side by side, from which on upright


def explanation(
    parts: pd.DataFrame,
    *,
    row: int | None = None,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """From the intercept to the score of one row: a bar for each part, the largest first, the small ones in one.

    Parameters
    ----------
    parts : DataFrame
        What `explain` of a fitted estimator gives.
    row : int, optional
        Which row of it; needed where it has several.
    top : int
        So many parts have a bar of their own.
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
        If parts is not such a table, or has other rows than the one named, or several and none is named; or top is
        not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.plots import explanation
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> model = FMRegressor(random_state=0).fit(X, [1, 2, 2, 5] * 25)
    >>> ax = explanation(model.explain(X), row=3)
    >>> ax.get_xlabel()
    'score'
    """
    _check_columns(parts, "parts", "explain", ("row", "part", "first", "second", "value"))
    check_positive(top, "top", integer=True)
    rows = parts["row"].unique()
    if row is None and len(rows) != 1:
        raise ValueError(f"parts has {len(rows)} rows and one is drawn: name it by row=")
    if row is not None and row not in rows:
        raise ValueError(f"parts has no row {row!r}, only {rows[:5].tolist()}{' ...' * (len(rows) > 5)}")
    own = parts[parts["row"] == (rows[0] if row is None else row)]
    start = float(own.loc[own["part"] == "intercept", "value"].sum())
    own = own[own["part"] != "intercept"].sort_values("value", key=abs, ascending=False, kind="stable")
    labels, values = _labels(own[:top]), own["value"].to_numpy(np.float64)
    if len(values) > top:
        labels.append(f"{len(values) - top} more")
        values = np.append(values[:top], values[top:].sum())
    reached = start + np.concatenate([[0.0], np.cumsum(values)])  # before each bar, and at last the score
    last = len(values) + 1
    ax = new_axes(1.2 + 0.32 * (last + 1)) if ax is None else ax

    colors = [RED if value < 0 else BLUE for value in values]
    ax.barh(np.arange(1, last), values, left=reached[:-1], height=0.62, color=colors)
    ax.plot([start, reached[-1]], [0, last], "o", color="black", markersize=5)
    for place, x in enumerate(reached):  # from the end of each to the beginning of the next
        ax.plot([x, x], [place, place + 1], color=GREY, linewidth=0.8, zorder=0)
    for place, value in enumerate(values, 1):
        _note(ax, f"{value:+.3g}", reached[place - 1 : place + 1].max(), place)
    _note(ax, f"{start:.4g}", start, 0)
    _note(ax, f"{reached[-1]:.4g}", reached[-1], last)
    ax.use_sticky_edges = False  # no bar begins at the edge
    ax.set_xlabel("score")
    _finish_bars(ax, ["intercept", *labels, "score"], title)
    return ax


def field_importance(frame: pd.DataFrame, *, top: int = 20, ax: Axes | None = None, title: str | None = None) -> Axes:
    """How much each field, and each pair of fields, makes scores differ: a bar each, the largest first.

    Parameters
    ----------
    frame : DataFrame
        What `field_importance` of a fitted estimator gives.
    top : int
        How many are drawn.
    ax : matplotlib Axes, optional
        Where to draw, as for `explanation`.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If frame is empty or not such a table, or top is not a positive integer.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.plots import field_importance
    >>> frame = pd.DataFrame({"first": ["user", "user"], "second": ["", "item"], "importance": [0.4, 0.1]})
    >>> [label.get_text() for label in field_importance(frame).get_yticklabels()]
    ['user', 'user × item']
    """
    _check_columns(frame, "frame", "field_importance", ("first", "second", "importance"))
    check_positive(top, "top", integer=True)
    shown = frame.sort_values("importance", ascending=False, kind="stable")[:top]
    ax = new_axes(1.2 + 0.32 * len(shown)) if ax is None else ax

    values = shown["importance"].to_numpy(np.float64)
    ax.barh(np.arange(len(values)), values, height=0.62, color=[BLUE if pair else GREY for pair in shown["second"]])
    for place, value in enumerate(values):
        _note(ax, f"{value:.3g}", value, place)
    ax.set_xlabel("standard deviation of its part of the score")
    _finish_bars(ax, _labels(shown), title)
    return ax


def pair_importance(frame: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """How much each pair of fields makes scores differ, as a square; on its diagonal what a field adds by itself.

    Each pair is shown once, below the diagonal, which falls. Up to 22 fields the numbers stand in the cells.

    Parameters
    ----------
    frame : DataFrame
        What `field_importance` of a fitted estimator gives. A field met with itself (two of its columns in a row)
        counts on the diagonal too.
    ax : matplotlib Axes, optional
        Where to draw, as for `explanation`.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If frame is empty, not such a table, or has sets of three fields and more.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.plots import pair_importance
    >>> frame = pd.DataFrame({"first": ["user", "user"], "second": ["", "item"], "importance": [0.4, 0.1]})
    >>> [label.get_text() for label in pair_importance(frame).get_yticklabels()]
    ['user', 'item']
    """
    _check_columns(frame, "frame", "field_importance", ("first", "second", "importance"))
    if "third" in frame.columns:
        raise ValueError("frame has sets of three fields, which no square shows: field_importance draws them as bars")
    first, second = frame["first"], frame["second"].where(frame["second"] != "", frame["first"])
    own = frame[second == first].groupby("first")["importance"].sum().sort_values(ascending=False)
    names = list(dict.fromkeys([*own.index, *first, *second]))
    square = np.full((len(names), len(names)), np.nan)
    for one, other, value in zip(first, second, frame["importance"], strict=True):
        place = max(names.index(one), names.index(other)), min(names.index(one), names.index(other))
        square[place] = value + np.nan_to_num(square[place])
    ax = new_axes(min(max(3.6, 1.6 + 0.5 * len(names)), 7.0)) if ax is None else ax

    most = float(np.nanmax(square))
    image = ax.imshow(square, cmap=shades("#f4f7fa"), vmin=0, aspect="auto")
    size = min(9.0, 100 / len(names))  # so that five characters fit into a cell
    for row, column in np.argwhere(np.isfinite(square)) if size >= _SMALLEST else ():
        value = square[row, column]
        colour = "white" if value > 0.75 * most else "black"
        ax.text(column, row, _to_the_same_place(value, most), ha="center", va="center", color=colour, fontsize=size)
    labels = [shortened(name) for name in names]
    letters = min(10.0, 350 / len(names))
    lying: dict[str, Any] = {"rotation": 30} if len(names) <= _MANY else {"rotation": 90, "va": "center"}
    ax.set_xticks(range(len(names)), labels, fontsize=letters, ha="right", rotation_mode="anchor", **lying)
    ax.set_yticks(range(len(names)), labels, fontsize=letters)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure: Any = ax.figure
    figure.colorbar(image, ax=ax, label="standard deviation\nof its part of the score").outline.set_visible(False)
    return finish(ax, title, grid=None)


def _check_columns(frame: Any, name: str, source: str, columns: Sequence[str]) -> None:
    expected = f"{name} must be what {source} of a fitted estimator gives, with columns {', '.join(columns)}"
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{expected}; got {type(frame).__name__}")
    if not set(columns) <= set(frame.columns):
        raise ValueError(f"{expected}; got {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise ValueError(f"{name} has no line: there is nothing to draw")


def _labels(frame: pd.DataFrame) -> list[str]:
    """Names of sets, of however many."""
    members = frame.drop(columns=["row", "part", "value", "importance"], errors="ignore")  # first, second, third …
    return [" × ".join(shortened(name) for name in names if name) for names in members.to_numpy()]


def _to_the_same_place(value: float, most: float) -> str:
    """A number of a table whose largest has three digits that count."""
    places = 2 - math.floor(math.log10(most)) if most > 0 else 0
    return f"{value:.{max(places, 0)}f}" if places < 6 and most < 1e6 else f"{value:.1e}"


def _note(ax: Axes, text: str, x: float, y: float) -> None:
    ax.annotate(
        text.replace("-", "−"), (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize="small"
    )


def _finish_bars(ax: Axes, labels: Sequence[str], title: str | None) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)  # downwards
    ax.margins(x=0.12)  # room for the numbers beside the bars
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if title is not None:
        ax.set_title(title, loc="left")
