"""What leaderboard.py writes: Markdown tables, a CSV and a picture of its lines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from leaderboard_data import LOWER_IS_BETTER, MEASURES

OURS = ("#08306b", "#2171b5", "#4fa8e0", "#17a2a2", "#8c96c6")  # colours, in the order in which systems come
PEERS = ("#d62728", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")


@dataclass(frozen=True)
class Line:
    """One system on one task."""

    kind: str
    data: str
    split: str
    n_train: int
    n_test: int
    system: str
    ours: bool
    settings: str = ""
    quality: tuple[float, ...] = (math.nan, math.nan)  # the measures of the kind
    seconds: float = math.nan  # of the chosen fit
    search: float = math.nan  # of all fits of the search; 0: nothing was searched
    error: str = ""
    floor: str = ""

    def done(self, settings: str, quality: tuple[float, ...], seconds: float, search: float) -> Line:
        return replace(self, settings=settings, quality=quality, seconds=seconds, search=search)

    def failed(self, error: str) -> Line:
        return replace(self, error=error)

    def said(self) -> str:
        """For the terminal."""
        if self.error:
            return f"  {self.system}: {self.error}"
        measures = ", ".join(
            f"{name} {value:.4f}" for name, value in zip(MEASURES[self.kind], self.quality, strict=True)
        )
        return (
            f"  {self.system}: {measures}; {seconds(self.seconds)} s, search {searched(self.search)}; {self.settings}"
        )


def seconds(value: float) -> str:
    """Three digits or so; nothing for what was not measured."""
    if math.isnan(value):
        return ""
    return f"{value:.{max(0, 2 - max(-1, math.floor(math.log10(value))))}f}" if value > 0 else "0"


def searched(value: float) -> str:
    return seconds(value) if value else "none"


def grouped(lines: Iterable[Line]) -> dict[tuple[str, str], list[Line]]:
    """Lines by kind and data set, in the order of their first; kinds as in MEASURES."""
    found: dict[tuple[str, str], list[Line]] = {}
    for kind in MEASURES:
        for line in lines:
            if line.kind == kind:
                found.setdefault((kind, line.data), []).append(line)
    return found


def ratios(lines: list[Line]) -> list[float]:
    """Seconds of each line over those of the first line of sparsefm; NaN where either is missing."""
    base = next((line.seconds for line in lines if line.ours), math.nan)
    return [line.seconds / base for line in lines]


def best(lines: list[Line]) -> list[float]:
    """The best value of each measure, NaN if there is none. The first is lower or higher as its kind has it."""
    kind, found = lines[0].kind, []
    for place, name in enumerate(MEASURES[kind]):
        values = [line.quality[place] for line in lines if not math.isnan(line.quality[place])]
        lower = kind in LOWER_IS_BETTER and name != "AUC"
        found.append((min if lower else max)(values) if values else math.nan)
    return found


def as_markdown(lines: list[Line]) -> str:
    """A table a kind. The best values of a data set are bold; ties are all."""
    text: list[str] = []
    groups = grouped(lines)
    for kind, names in MEASURES.items():
        own = [group for (of, _), group in groups.items() if of == kind]
        if not own:
            continue
        head = ["data set", "rows: train", "test", "system", "settings", *names, "fit / ours", "fit, s", "search, s"]
        text += [f"## {kind.capitalize()}", "", _row(head), "|" + "|".join(_aligned(name) for name in head) + "|"]
        for group in own:
            top = [f"{value:.4f}" for value in best(group)]
            for line, ratio in zip(group, ratios(group), strict=True):
                first = f"{line.data}, {line.split}" + (f"; {line.floor}" if line.floor else "")
                cells = [first, f"{line.n_train:,}", f"{line.n_test:,}", line.system]
                if line.error:
                    text.append(_row([*cells, f"*{line.error.replace('|', '/')}*", *[""] * 5]))
                    continue
                shown = [f"{value:.4f}" for value in line.quality]
                shown = [f"**{value}**" if value == t else value for value, t in zip(shown, top, strict=True)]
                times = [f"{ratio:.3g}", seconds(line.seconds), searched(line.search)]
                text.append(_row([*cells, line.settings, *shown, *times]))
        text.append("")
    return "\n".join(text)


def _aligned(name: str) -> str:
    return "---" if name in ("data set", "system", "settings") else "--:"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_csv(lines: list[Line]) -> str:
    """The same lines, every number in full."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(
        [
            *("kind", "data", "split", "n_train", "n_test", "system", "ours", "settings", "measure", "value"),
            *("second_measure", "second_value", "ratio_to_ours", "seconds_fit", "seconds_search", "error", "floor"),
        ]
    )
    for (kind, _), group in grouped(lines).items():
        for line, ratio in zip(group, ratios(group), strict=True):
            told = asdict(line)
            measures = [cell for pair in zip(MEASURES[kind], line.quality, strict=True) for cell in pair]
            cells = [
                told[name] for name in ("kind", "data", "split", "n_train", "n_test", "system", "ours", "settings")
            ]
            cells += [*measures, ratio, line.seconds, line.search, line.error, line.floor]
            table.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells])
    return file.getvalue()


# ---- the picture


def colours(lines: list[Line]) -> dict[str, str]:
    """Blues for sparsefm, warmer ones for peers, in the order in which they come."""
    names = {line.system: line.ours for line in lines}
    ours, peers = ([name for name, own in names.items() if own == which] for which in (True, False))
    return {name: OURS[i % len(OURS)] for i, name in enumerate(ours)} | {
        name: PEERS[i % len(PEERS)] for i, name in enumerate(peers)
    }


def limit_of(values: list[float], lower: bool) -> float:
    """Where a panel ends, so that one bad value does not press all others together: three times as far from the best
    as the middle one is."""
    ordered = sorted(values, reverse=not lower)
    return ordered[0] + 3 * (ordered[len(ordered) // 2] - ordered[0])


def draw(path: Path, lines: list[Line]) -> None:
    """Quality against seconds, a row of panels a kind: filled at the fit's own seconds, hollow with the search's."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    groups = {key: [line for line in group if not line.error] for key, group in grouped(lines).items()}
    kinds = [kind for kind in MEASURES if any(of == kind for of, _ in groups)]
    width = max(sum(of == kind for of, _ in groups) for kind in kinds)
    figure = Figure(figsize=(2.9 * width + 2.6, 3.1 * len(kinds)), layout="constrained")
    for row, kind in zip(figure.subfigures(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        own = {name: group for (of, name), group in groups.items() if of == kind}
        axes = row.subplots(1, width, squeeze=False)[0]
        palette = colours([line for line in lines if line.kind == kind])
        for ax, (name, group) in zip(axes, own.items(), strict=False):
            lower = kind in LOWER_IS_BETTER
            limit = limit_of([line.quality[0] for line in group], lower) if group else math.nan
            for line in group:
                value, total = line.quality[0], line.seconds + line.search
                colour, marker = palette[line.system], "o" if line.ours else "s"
                if limit != value and (value > limit) == lower:
                    value, marker = limit, "^" if lower else "v"
                if line.search:
                    ax.plot([line.seconds, total], [value, value], color=colour, linewidth=0.9, alpha=0.6, zorder=1)
                    ax.plot([total], [value], marker, color=colour, markerfacecolor="white", markersize=5, zorder=2)
                ax.plot([line.seconds], [value], marker, color=colour, markersize=7, zorder=3)
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(LogLocator(numticks=5))
            ax.set_title(name, loc="left", fontsize="medium")
            ax.grid(color="#e3e3e3", linewidth=0.7)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize="small")
            ax.set_xlabel("seconds", fontsize="small")
        direction = "lower is better" if kind in LOWER_IS_BETTER else "higher is better"
        axes[0].set_ylabel(f"{MEASURES[kind][0]}\n({direction})", fontsize="small")
        for ax in axes[len(own) :]:
            ax.set_visible(False)
        shown = {line.system: "o" if line.ours else "s" for group in own.values() for line in group}
        handles = [
            Line2D([], [], color=palette[system], marker=marker, linestyle="none", label=system)
            for system, marker in shown.items()
        ]
        row.legend(handles=handles, loc="outside right center", frameon=False, fontsize="small")
    figure.suptitle(
        "Quality against seconds on one thread. Hollow: with the search for settings, which is part of sparsefm's fit. "
        "Triangles: outside the panel.",
        fontsize="medium",
    )
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leaderboard"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
