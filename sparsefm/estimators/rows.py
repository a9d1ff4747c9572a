"""What comes in as rows: frames, matrices, and what an encoder made of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from ..encoders.frame import EntityBlock
from ..encoders.tables import columns_of
from ..validation import Block, Relations, Rows, check_csr


def all_numbers(X: Any) -> bool:
    return all(pd.api.types.is_numeric_dtype(column.dtype) for column in columns_of(X)[1])


def related(rows: Any, blocks: Sequence[EntityBlock]) -> Rows | Relations:
    """What the encoder made, checked."""
    own = check_csr(rows)
    if not blocks:
        return own
    return Relations(own, tuple(Block(b.of.astype(np.int32), check_csr(b.X), spans_of(b.columns)) for b in blocks))


def spans_of(columns: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """The stretches that ascending columns make up."""
    cuts = np.flatnonzero(np.diff(columns) > 1) + 1
    return tuple((int(part[0]), int(part[-1]) + 1) for part in np.split(columns, cuts) if len(part))


def checked_sparse(X: Any) -> Rows | None:
    """The rows of a sparse container, before scikit-learn looks at it: its conversions trust the indices. None for
    anything else, and for an empty one, about which scikit-learn has the better words."""
    return check_csr(X) if sp.issparse(X) and X.ndim == 2 and min(X.shape) > 0 else None
