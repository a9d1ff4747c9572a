"""From a data frame to a sparse matrix: `FrameEncoder` and its column encoders.

Each entry of a `FrameEncoder` becomes one *field*, a block of columns of the encoded matrix:

    OneHot       [<unknown>] [<missing>] level level ...       one 1 in a row
    MultiHot     [<unknown>] [<missing>] level level ...       1/√n for each of the cell's n levels
    Numeric      value [<missing>]
    Binned       [<missing>] bin bin ...                       one 1
    Hashed       [<missing>] 2**n_bits columns                 one 1
    Date         the parts of a moment, years last             1/√n for each of its n parts
    Cross        like OneHot, of pairs of levels
    History      level level ...                               1/√n for each of the n other items of the row's user
    TargetStats, Counts                                        bins, or a number, of each statistic

Levels take one road. A column is first *read* into its few distinct cells and, for each row, the number of its
cell (`Cells`); the vocabulary is asked about distinct levels only; the rows then pick up their entries by number.
No Python runs per row, unless the cells are lists or an object column mixes types. The special columns stand
first in a field, so that a vocabulary can grow behind them.

An encoder is two classes. The one the user writes, say `OneHot(min_count=2)`, is a specification: frozen,
comparable, checked at fit (`_check`). The other is its `Column` (`field.py`): what was counted, and the columns
this amounts to. A new encoder brings such a pair in a file of its own, its line at `_ENCODERS` and its name in
`__all__`.

Each file imports from those above it only:

    field        `Column`, the block it encodes to, blocks side by side; checks of options and of state
    vocabulary   levels <-> numbers: what a cell stands for, `Vocabulary`
    tables       frames of all kinds as columns of pandas
    levels       `OneHot`, `MultiHot`
    numeric      `Numeric`
    parts        `Binned`, `Hashed`, `Date`
    cross        `Cross`, and the numbering of pairs
    history      `History`
    target       `TargetStats`, `Counts`
    frame        `FrameEncoder`, and `_ENCODERS`, which pairs specifications with columns
"""

from .cross import Cross
from .frame import FrameEncoder
from .history import History
from .levels import MultiHot, OneHot
from .numeric import Numeric
from .parts import Binned, Date, Hashed
from .target import Counts, TargetStats
from .vocabulary import Vocabulary

__all__ = [
    "Binned",
    "Counts",
    "Cross",
    "Date",
    "FrameEncoder",
    "Hashed",
    "History",
    "MultiHot",
    "Numeric",
    "OneHot",
    "TargetStats",
    "Vocabulary",
]
