"""From a data frame to a sparse matrix: `FrameEncoder` and its column encoders.

Each input column becomes one *field*, a block of columns of the encoded matrix:

    OneHot     [<unknown>] [<missing>] level level level ...   one 1 in a row
    MultiHot   [<unknown>] [<missing>] level level level ...   1/√n for each of the cell's n levels
    Numeric    value [<missing>]

Both kinds of levels take the same road. A column is first *read* into its few distinct cells and, for each
row, the number of its cell (`Cells`); the vocabulary is asked about distinct levels only; the rows then pick
up their entries by number. No Python runs per row, unless the cells are lists or an object column mixes
types. The special columns stand first in a field, so that a vocabulary can grow behind them.

A column encoder is two classes. The one the user writes, say `OneHot(min_count=2)`, is a specification:
frozen, comparable, checked at fit (`_check`). The fitted column is made by `fit(name, encoder, frame, y)`,
which also returns the block of the training rows (where an encoder that looks at other rows leaves out a
row's own), and has `size`, `labels`, `encode`, `decode`, `to_state` and `from_state`. A new encoder brings
such a pair in a file of its own, its lines at `_ENCODERS` and its name in `__all__`.

Each file imports from those above it only:

    field        the block a column encodes to, blocks side by side; checks of options and of state
    vocabulary   levels <-> numbers: what a cell stands for, `Vocabulary`
    levels       `OneHot`, `MultiHot` and their fitted column
    numeric      `Numeric` and its fitted column (beside `levels`; neither knows the other)
    frame        `FrameEncoder`, and `_ENCODERS`, which pairs specifications with fitted columns
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
