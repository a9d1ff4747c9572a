"""Ways to divide a frame into training and test rows.

Every function takes a DataFrame and returns two, ``(train, test)``. Together they hold each row exactly once,
each in the order and with the index of the original. Neither is ever empty.

A split answers a question. `random`: how well are missing cells of a known table filled? `by_time`: how well
is tomorrow predicted from yesterday? `leave_last_out`: how well is each user's next choice? `cold_users` and
`cold_items`: how well does the model do for those it has never seen, by their attributes alone?
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["by_time", "cold_items", "cold_users", "leave_last_out", "random"]


def by_time(
    df: pd.DataFrame, *, test_size: float | int = 0.2, time: str = "timestamp"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The latest rows are the test set.

    Of rows with the same time those further down in the frame count as later, so a cut may fall between them.

    Parameters
    ----------
    df : DataFrame (n_rows, ...)
        Rows in any order.
    test_size : float or int
        A share of the rows between 0 and 1 (rounded to whole rows), or a number of rows.
    time : str
        Column of numbers or dates, without missing values.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    KeyError
        If there is no column `time`.
    TypeError
        If `time` holds text, or `df` is no pandas DataFrame.
    ValueError
        If a time is missing, or either part would be empty.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"user_id": [1, 2, 1, 2], "timestamp": [40, 10, 20, 30]})
    >>> train, test = by_time(df, test_size=0.5)
    >>> test["timestamp"].tolist()
    [40, 30]
    """
    n_test = _size(test_size, len(df), "rows")
    in_test = np.zeros(len(df), dtype=bool)
    in_test[_time_order(df, time)[len(df) - n_test :]] = True
    return df[~in_test], df[in_test]


def leave_last_out(
    df: pd.DataFrame, *, n: int = 1, user: str = "user_id", time: str = "timestamp"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each user's last `n` rows are the test set.

    A user with `n` rows or fewer stays in the training set whole. Of a user's rows with the same time those
    further down in the frame count as later.

    Parameters
    ----------
    df : DataFrame (n_rows, ...)
        Rows in any order.
    n : int
        Test rows a user.
    user, time : str
        Columns without missing values; `time` holds numbers or dates.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    KeyError
        If there is no column `user` or `time`.
    TypeError
        If `time` holds text, or `df` is no pandas DataFrame.
    ValueError
        If a user or time is missing, `n` is less than 1, or no user has more than `n` rows.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"user_id": [1, 2, 1, 1], "timestamp": [40, 10, 20, 30]})
    >>> train, test = leave_last_out(df)
    >>> test.index.tolist()
    [0]
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a whole number of rows, at least 1, got {n!r}")
    order = _time_order(df, time)
    codes, levels = _levels(df, user)
    counts = np.bincount(codes, minlength=levels)
    from_end = pd.Series(codes[order]).groupby(codes[order]).cumcount(ascending=False).to_numpy()
    in_test = np.zeros(len(df), dtype=bool)
    in_test[order] = (from_end < n) & (counts[codes[order]] > n)
    if not in_test.any():
        raise ValueError(f"no {user} has more than n={n} rows, so there is nothing to test on")
    return df[~in_test], df[in_test]


def random(
    df: pd.DataFrame,
    *,
    test_size: float | int = 0.2,
    random_state: int | np.random.Generator | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows drawn at random, all equally likely, are the test set.

    Parameters
    ----------
    df : DataFrame (n_rows, ...)
    test_size : float or int
        A share of the rows between 0 and 1 (rounded to whole rows), or a number of rows.
    random_state : int, Generator or None
        The same number gives the same split.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    TypeError
        If `df` is no pandas DataFrame.
    ValueError
        If either part would be empty.

    Examples
    --------
    >>> import pandas as pd
    >>> train, test = random(pd.DataFrame({"rating": range(10)}), test_size=3, random_state=0)
    >>> len(train), len(test)
    (7, 3)
    """
    in_test = _draw(len(df), _size(test_size, len(df), "rows"), random_state)
    return _checked(df)[~in_test], df[in_test]


def cold_users(
    df: pd.DataFrame,
    *,
    test_size: float | int = 0.2,
    user: str = "user_id",
    random_state: int | np.random.Generator | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows of some users, drawn at random, are the test set: training never sees these users.

    Parameters
    ----------
    df : DataFrame (n_rows, ...)
    test_size : float or int
        A share of the *users* between 0 and 1 (rounded to whole users), or a number of users.
    user : str
        Column without missing values.
    random_state : int, Generator or None
        The same number gives the same split.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    KeyError
        If there is no column `user`.
    TypeError
        If `df` is no pandas DataFrame.
    ValueError
        If a user is missing, or either part would be empty.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"user_id": ["a", "b", "a", "b", "a"]})
    >>> train, test = cold_users(df, test_size=1, random_state=0)
    >>> set(train["user_id"]) & set(test["user_id"])
    set()
    """
    return _cold(df, test_size, user, random_state)


def cold_items(
    df: pd.DataFrame,
    *,
    test_size: float | int = 0.2,
    item: str = "item_id",
    random_state: int | np.random.Generator | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows of some items, drawn at random, are the test set: training never sees these items.

    Parameters
    ----------
    df : DataFrame (n_rows, ...)
    test_size : float or int
        A share of the *items* between 0 and 1 (rounded to whole items), or a number of items.
    item : str
        Column without missing values.
    random_state : int, Generator or None
        The same number gives the same split.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    KeyError
        If there is no column `item`.
    TypeError
        If `df` is no pandas DataFrame.
    ValueError
        If an item is missing, or either part would be empty.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"item_id": [7, 8, 7, 9]})
    >>> train, test = cold_items(df, test_size=2, random_state=0)
    >>> train["item_id"].nunique(), test["item_id"].nunique()
    (1, 2)
    """
    return _cold(df, test_size, item, random_state)


def _cold(
    df: pd.DataFrame, test_size: float | int, column: str, random_state: int | np.random.Generator | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    codes, n_levels = _levels(df, column)
    in_test = _draw(n_levels, _size(test_size, n_levels, f"distinct values of {column}"), random_state)[codes]
    return df[~in_test], df[in_test]


def _checked(df: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(df, pd.DataFrame):
        raise TypeError(f"splits divide a pandas DataFrame, got {type(df).__name__}")
    return df


def _column(df: pd.DataFrame, column: str) -> pd.Series[Any]:
    if column not in _checked(df).columns:
        raise KeyError(f"no column {column!r}; the columns are {', '.join(map(str, df.columns))}")
    values: pd.Series[Any] = df[column]
    if (n_missing := int(values.isna().sum())) > 0:
        raise ValueError(f"{n_missing} of {len(df)} values of {column!r} are missing; drop these rows first")
    return values


def _time_order(df: pd.DataFrame, time: str) -> npt.NDArray[np.intp]:
    """Positions of the rows from first to last, rows of the same time in the order of the frame."""
    values = _column(df, time)
    if pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype):
        raise TypeError(f"{time!r} holds {values.dtype}, not numbers or dates; convert it with pandas.to_datetime")
    ordered = values.reset_index(drop=True).sort_values(kind="stable")
    return ordered.index.to_numpy(dtype=np.intp)


def _levels(df: pd.DataFrame, column: str) -> tuple[npt.NDArray[np.intp], int]:
    codes, levels = pd.factorize(_column(df, column))
    return codes.astype(np.intp), len(levels)


def _size(test_size: float | int, n: int, what: str) -> int:
    if isinstance(test_size, bool) or not isinstance(test_size, Real):
        raise ValueError(f"test_size must be a share in (0, 1) or a number of {what}, got {test_size!r}")
    if isinstance(test_size, Integral):
        n_test = int(test_size)
    elif 0 < test_size < 1:
        n_test = round(float(test_size) * n)
    else:
        raise ValueError(f"test_size as a share must lie between 0 and 1, got {test_size}")
    if not 0 < n_test < n:
        raise ValueError(f"test_size={test_size} of {n} {what} leaves one part empty")
    return n_test


def _draw(n: int, n_test: int, random_state: int | np.random.Generator | None) -> npt.NDArray[np.bool_]:
    drawn = np.zeros(n, dtype=bool)
    drawn[np.random.default_rng(random_state).choice(n, n_test, replace=False)] = True
    return drawn
