"""Rows taken apart for coordinate-wise solvers: which columns never meet in a row, and which are said of an entity.

A *run* is a stretch of columns of which no row has more than one: a one-hot field, or a part of a multi-hot one. Its
columns do not meet, so that they can be solved for side by side.

A *side* is a run whose column a row's entries in other runs follow from: the user, with his age and occupation, or the
film with its genres. Each level of it, with what is said of it, is an entity. The rows of an entity act on its columns
through one small matrix, however many columns these are (Rendle 2013, Scaling Factorization Machines to Relational
Data), so that functional dependencies need not be declared: they are found.

What belongs to no side are the *rest*: entries that are the row's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .._kernels import gibbs
from ..validation import Block, Relations, Rows

__all__ = ["Design", "Run", "Side"]

SEGMENT = 4096  # rows, or entries of a column, that are summed in one go
MOST_SIDES = 4  # a row looks the others up for each: beyond, one sum a row is cheaper
_WORTH_SHARING = 1 << 21  # multiply-adds of a run
_SAMPLE = 4096  # rows on which a dependency is tried first
_MEMORY = 1 << 28  # bytes that the matrices of a side's entities may take


@dataclass(frozen=True)
class Run:
    """Entries of columns start … stop, sorted by column and cut into segments; `rows` may be entities."""

    start: int
    stop: int
    rows: NDArray[np.int32]  # (n_entries,)
    data: NDArray[Any] | None  # (n_entries,), None: all one
    starts: NDArray[np.int32]  # (n_segments + 1,) of entries
    of: NDArray[np.int32]  # (n_segments,) column less start
    segments: NDArray[np.int32]  # (n_columns + 1,) first segment of each column
    in_turn: bool = False  # the columns may meet: one after another


@dataclass(frozen=True)
class Side:
    """Entities, their rows, and the columns that are said of them."""

    entities: list[NDArray[np.int32]]  # of each side, the entity of each row in this side's order
    order: NDArray[np.int32] | None  # (n_rows,) the rows sorted by entity; None: they are
    starts: NDArray[np.int32]  # (n_segments + 1,) rows in that order
    segments: NDArray[np.int32]  # (n_entities + 1,) first segment of each entity
    columns: Rows  # (n_entities, n_features)
    runs: list[Run]  # of `columns`, in the order they are solved for
    values: NDArray[Any] | None  # where each entity has the one column runs[0].start + entity: its value, None: one
    alone: bool  # that is so
    single: bool  # each entity has one column that is solved for, its own, with value one

    @property
    def n_entities(self) -> int:
        return len(self.segments) - 1


@dataclass(frozen=True)
class Design:
    """Rows in the order of the first side's entities."""

    order: NDArray[Any]  # (n_rows,) of the rows as they came
    sides: list[Side]
    rest: Rows | None  # entries of no side
    rest_runs: list[Run]
    n_rows: int
    n_features: int
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls,
        rows: Rows | Relations,
        n_factors: int,
        *,
        sides: bool = True,
        spans: Iterable[tuple[int, int]] | None = None,
    ) -> Design:
        """sides=False finds none, but for the blocks that are given: the same model, one row at a time. spans: of the
        rows' own columns those that are solved for; None: all that are not of a block."""
        blocks = () if isinstance(rows, Rows) else rows.blocks
        own = rows if isinstance(rows, Rows) else rows.rows
        n_rows, n_features = own.n_rows, own.n_features
        if max(n_rows, own.nnz, n_features) >= 1 << 31:
            raise ValueError(
                f"X has {n_rows} rows, {n_features} columns and {own.nnz} non-zeros; ALS and MCMC take less than 2^31 "
                "of each: use a first-order solver"
            )
        if len(blocks) >= gibbs.most_partners:
            raise ValueError(f"X has {len(blocks)} blocks, at most {gibbs.most_partners - 1} are allowed: join some")
        matrix = own.matrix()
        by_column = matrix.tocsc()
        taken = sorted(span for block in blocks for span in block.spans)
        ends = [0, *(stop for _, stop in taken)], [*(start for start, _ in taken), n_features]
        bounds = _runs(own, zip(*ends, strict=True) if spans is None else spans)
        some = np.unique(np.linspace(0, n_rows - 1, _SAMPLE).astype(np.int64))
        most = max(0, MOST_SIDES - len(blocks)) if sides else 0
        found = _dependencies(matrix[some].tocsc(), by_column, bounds, n_factors, most)
        codes = [block.index for block in blocks]
        said = [_of_block(block) for block in blocks]
        for group in found:
            runs = [bounds[r] for r in group]
            codes.append(_codes(by_column, *runs[0]))
            said.append((_entities(matrix, codes[-1], runs), runs, len(runs) == 1))
        order = np.argsort(codes[0], kind="stable") if codes else np.arange(n_rows)
        entities = [of[order] for of in codes]
        built = [_side(entities, number, *what, n_factors) for number, what in enumerate(said)]
        del by_column
        led = {r for group in found for r in group}
        left = [bound for r, bound in enumerate(bounds) if r not in led]
        rest, rest_runs = None, []
        if left:
            own_entries = _only(matrix, left, n_features)[order]
            rest = _rows_of(own_entries) if own_entries.nnz else None
            rest_runs = _stretches(own_entries.tocsc(), left, n_factors)
        return cls(order, built, rest, rest_runs, n_rows, n_features, own.dtype)


def _of_block(block: Block) -> tuple[Any, list[tuple[int, int]], bool]:
    """Its matrix, its runs, and whether all that it says is which of its rows this is."""
    matrix, bounds, (start, stop) = block.rows.matrix(), _runs(block.rows, block.spans), block.spans[0]
    alone = len(block.spans) == 1 and matrix.nnz == block.rows.n_rows == stop - start
    return matrix, bounds, alone and np.array_equal(matrix.indices, np.arange(start, stop))


def _runs(rows: Rows, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest stretches of columns in each span, from the left, no two of which meet in a row."""
    meets = np.full(rows.n_features, -1, np.int64)  # the nearest column to the left that it meets
    if rows.nnz:
        before = np.empty_like(rows.indices)  # of each entry the column of the one to its left
        before[1:] = rows.indices[:-1]
        before[rows.indptr[:-1][np.diff(rows.indptr) > 0]] = -1
        by_column = sp.csr_array((before, rows.indices, rows.indptr), shape=(rows.n_rows, rows.n_features)).tocsc()
        occur = np.flatnonzero(np.diff(by_column.indptr))
        meets[occur] = np.maximum.reduceat(by_column.data, by_column.indptr[occur])
    found: list[tuple[int, int]] = []
    for start, stop in spans:
        cuts = [start]
        for column in (np.flatnonzero(meets[start:stop] >= 0) + start).tolist():
            if meets[column] >= cuts[-1]:
                cuts.append(column)
        if start < stop:
            found += zip(cuts, [*cuts[1:], stop], strict=True)
    return found


def _codes(by_column: Any, start: int, stop: int) -> NDArray[np.int32]:
    """Of each row the column of the run that it has, less start; behind the last one where it has none."""
    indptr = by_column.indptr[start : stop + 1]
    columns = np.repeat(np.arange(stop - start, dtype=np.int32), np.diff(indptr))
    codes = np.full(by_column.shape[0], stop - start, np.int32)
    codes[by_column.indices[indptr[0] : indptr[-1]]] = columns
    return codes


def _values(by_column: Any, start: int, stop: int) -> NDArray[Any] | None:
    """Of each row the value it has in the run, None if all are one."""
    entries = slice(by_column.indptr[start], by_column.indptr[stop])
    values = by_column.data[entries]
    if (values == 1).all():
        return None
    of_rows = np.zeros(by_column.shape[0], values.dtype)
    of_rows[by_column.indices[entries]] = values
    return of_rows


def _follows(of: NDArray[Any] | None, codes: NDArray[Any], n: int) -> bool:
    """Whether the code, of n, decides the value."""
    if of is None:
        return True
    one = np.zeros(n, of.dtype)
    one[codes] = of
    return np.array_equal(one[codes], of)


def _dependencies(
    some: Any, by_column: Any, bounds: list[tuple[int, int]], n_factors: int, most: int
) -> list[list[int]]:
    """At most so many groups of runs, each led by one whose column decides the entries of the others, which is tried on
    some of the rows first."""
    if most == 0:
        return []
    occur = np.diff(by_column.indptr)
    n_levels = np.array([np.count_nonzero(occur[start:stop]) for start, stop in bounds])
    n_entries = np.array([by_column.indptr[stop] - by_column.indptr[start] for start, stop in bounds])
    free = list(np.argsort(-n_levels, kind="stable"))
    free = [int(r) for r in free if n_entries[r] > 0]
    groups: list[list[int]] = []
    while free:
        lead = free.pop(0)
        start, stop = bounds[lead]
        n, codes = stop - start + 1, [_codes(matrix, start, stop) for matrix in (some, by_column)]
        if n_levels[lead] < 2 or not _follows(_values(by_column, start, stop), codes[1], n):
            continue
        group = [lead]
        if n * gibbs.size_of_gram(n_factors) * by_column.dtype.itemsize <= _MEMORY:
            group += [
                other
                for other in free
                if all(
                    _follows(what(matrix, *bounds[other]), of, n)
                    for matrix, of in zip((some, by_column), codes, strict=True)
                    for what in (_codes, _values)
                )
            ]
        free = [r for r in free if r not in group]
        groups.append([lead, *sorted(group[1:])])
    groups.sort(key=lambda group: (-int(n_entries[group].sum()), group[0]))
    return sorted(groups[:most], key=lambda group: (-int(n_levels[group[0]]), group[0]))


def _entities(matrix: Any, codes: NDArray[Any], bounds: list[tuple[int, int]]) -> Any:
    """Of each entity, a column of the first run or none of them, the entries that its rows have in the runs."""
    start, stop = bounds[0]
    n_entities = stop - start + bool((codes == stop - start).any())
    example = np.full(n_entities, -1)
    example[codes] = np.arange(len(codes))
    seen = np.flatnonzero(example >= 0)
    said = _only(matrix[example[seen]], bounds, matrix.shape[1])
    lengths = np.zeros(n_entities + 1, np.int64)
    lengths[seen + 1] = np.diff(said.indptr)
    return sp.csr_array((said.data, said.indices, np.cumsum(lengths)), shape=(n_entities, matrix.shape[1]))


def _side(
    codes: list[NDArray[np.int32]],
    number: int,
    entities: Any,
    bounds: list[tuple[int, int]],
    alone: bool,
    n_factors: int,
) -> Side:
    own = codes[number]
    by_entity = np.argsort(own, kind="stable").astype(np.int32) if number else None
    starts, _, segments = _segments(np.bincount(own, minlength=entities.shape[0]))
    values = None
    if alone and not (entities.data == 1).all():
        values = np.ones(entities.shape[0], entities.dtype)
        values[np.diff(entities.indptr) > 0] = entities.data
    by_column = entities.tocsc()
    free = np.zeros(entities.shape[1], bool)
    for start, stop in bounds:
        free[start:stop] = True
    single = entities.shape[0] == entities.nnz == np.count_nonzero(np.diff(by_column.indptr) == 1)
    single = single and (np.diff(entities.indptr) == 1).all() and (entities.data == 1).all()
    return Side(
        entities=codes if by_entity is None else [of[by_entity] for of in codes],
        order=by_entity,
        starts=starts,
        segments=segments,
        columns=_rows_of(entities),
        runs=_stretches(by_column, bounds, n_factors),
        values=values,
        alone=alone,
        single=bool(single and free[entities.indices].all()),
    )


def _stretches(by_column: Any, bounds: list[tuple[int, int]], n_factors: int) -> list[Run]:
    """The runs; neighbours too short to be shared among threads become one, whose columns are solved for in turn."""
    joined: list[tuple[int, int, bool]] = []
    for start, stop in bounds:
        n_entries = int(by_column.indptr[stop] - by_column.indptr[start])
        short = n_entries <= SEGMENT and (n_entries + stop - start) * (n_factors + 2) ** 2 < _WORTH_SHARING
        if short and joined and joined[-1][1] == start and joined[-1][2]:
            joined[-1] = (joined[-1][0], stop, True)
        else:
            joined.append((start, stop, short))
    return [_run(by_column, *some) for some in joined]


def _run(by_column: Any, start: int, stop: int, in_turn: bool) -> Run:
    indptr = by_column.indptr[start : stop + 1]
    entries = slice(indptr[0], indptr[-1])
    data = by_column.data[entries]
    starts, of, segments = _segments(np.diff(indptr))
    rows = by_column.indices[entries].astype(np.int32)
    given = None if (data == 1).all() else np.ascontiguousarray(data)
    return Run(start, stop, rows, given, starts, of, segments, in_turn)


def _segments(counts: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Cuts stretches of such lengths, one after another, into pieces of at most SEGMENT. Returns where the pieces
    begin, which stretch each is of, and the first piece of each stretch; an empty stretch has one empty piece."""
    pieces = np.maximum(1, -(-counts // SEGMENT))
    segments = np.concatenate([[0], np.cumsum(pieces)])
    of = np.repeat(np.arange(len(counts)), pieces)
    within = np.arange(len(of)) - segments[of]
    begins = np.concatenate([[0], np.cumsum(counts)])
    starts = np.append(begins[of] + within * SEGMENT, begins[-1])
    return starts.astype(np.int32), of.astype(np.int32), segments.astype(np.int32)


def _only(matrix: Any, bounds: list[tuple[int, int]], n_features: int) -> Any:
    """The rows with the entries of those columns alone."""
    keep = np.zeros(n_features, bool)
    for start, stop in bounds:
        keep[start:stop] = True
    chosen = keep[matrix.indices]
    indptr = np.concatenate([[0], np.cumsum(chosen)])[matrix.indptr]
    return sp.csr_array((matrix.data[chosen], matrix.indices[chosen], indptr), shape=matrix.shape)


def _rows_of(matrix: Any) -> Rows:
    """A CSR matrix of ours, without another check."""
    data = None if (matrix.data == 1).all() else matrix.data
    indptr, indices = (np.ascontiguousarray(part, np.int32) for part in (matrix.indptr, matrix.indices))
    return Rows(indptr, indices, data, matrix.shape[1], -1, matrix.dtype)
