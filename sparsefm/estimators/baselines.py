"""What a ranking should beat: the most popular items, and a linear model of items by items."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy import linalg

from ..validation import check_positive, check_weights
from .base import all_or_nothing
from .ids import ByIds

__all__ = ["EASE", "Popularity"]

_MOST_ITEMS = 30_000  # of EASE: its matrix takes 7.2 GB then
_BLOCK = 1024  # columns of the Gram matrix at once


class _Baseline(ByIds):
    """What both share: interactions come in as a matrix (n_users, n_items), lists go out by id."""

    n_threads = None

    def _matrix(self, X: Any) -> sp.csr_array:
        """Weights of pairs, or ones; sets what `ByIds` keeps of ids."""
        self._check_names()
        X, users, items = self._frame_of(X)
        self._check_ids(X)
        codes, ids = [], []
        for column, side in ((self.user, users), (self.item, items)):
            ids.append(pd.Index((X if side is None else side)[column].unique()))
            codes.append(ids[-1].get_indexer(X[column]))
        weight = check_weights(X["weight"].to_numpy(), len(X)) if "weight" in X.columns else None
        ones = np.ones(len(X)) if weight is None else weight
        met = sp.coo_array((ones, tuple(codes)), shape=tuple(map(len, ids))).tocsr()  # adds up what is there twice
        met.eliminate_zeros()
        if weight is None:
            met.data[:] = 1
        some = np.diff(met.indptr) > 0  # who has met nothing is not known
        met = met[some]
        seen = sp.csr_array((np.ones(met.nnz, np.uint8), met.indices, met.indptr), shape=met.shape)
        self._know(ids[0][some].array, ids[1].array, seen)
        return met

    def recommend(self, users: Any, *, k: int = 10, items: Any = None, exclude_seen: bool = True) -> pd.DataFrame:
        """The k items with the highest score for each user, exactly.

        Parameters
        ----------
        users : sequence of user ids
            A user that the fit did not see gets the most popular items.
        k : int
            Length of a list; it is shorter where fewer items are left.
        items : sequence of item ids, or DataFrame, optional
            The items to choose from, for all users, or as (user, item) pairs each user's own. None: all of the fit.
        exclude_seen : bool
            Leaves out what the user met in the fit.

        Returns
        -------
        DataFrame
            User, item, rank (from 1) and score, ids as they were given. Equal scores rank in the order of the fit.
        """
        return self._lists(users, k, items, exclude_seen)


class Popularity(_Baseline):
    """The items that most users met, the same for all users but for what each has met already.

    The score of an item is the number of users who met it; with weights it is their sum.

    Parameters
    ----------
    user, item : str
        Columns of the ids.

    Attributes
    ----------
    user_ids_, item_ids_ : (n_users,), (n_items,) pandas arrays
        Ids as they were given.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import Popularity
    >>> users, films = ["ann", "ann", "bob", "bob", "eve"], ["Up", "Jaws", "Up", "Jaws", "Heat"]
    >>> Popularity().fit(pd.DataFrame({"user_id": users, "item_id": films})).recommend(["eve"])["item_id"].tolist()
    ['Up', 'Jaws']
    """

    def __init__(self, *, user: str = "user_id", item: str = "item_id") -> None:
        self.user = user
        self.item = item

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Counts interactions.

        Parameters
        ----------
        X : DataFrame (n_interactions, ...), or sparse matrix (n_users, n_items)
            One row an interaction, with columns `user` and `item`; a column "weight" weighs them. Of a matrix the
            stored non-zeros are interactions with their weights, and ids are the numbers of rows and columns. A pair
            that occurs more than once counts once, with weights by their sum.
        y : ignored

        Raises
        ------
        ValueError
            For absent columns, ids that are missing, weights that are negative or not finite; a fit that fails leaves
            the estimator as it was.
        """
        met = self._matrix(X)
        self._items = np.asarray(met.sum(axis=0), np.float64), np.zeros((met.shape[1], 0))
        return self

    def _side_of(self, places: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.zeros(len(places)), np.zeros((len(places), 0))

    def _popularity(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        popularity: NDArray[np.float64] = self._items[0][items]
        return popularity


class EASE(_Baseline):
    """Each item as a linear function of all others that a user met (Steck 2019, Embarrassingly Shallow Autoencoders).

    With X (n_users, n_items) what was met, the matrix B minimises ‖X − XB‖² + l2 ‖B‖² among those whose diagonal is
    zero, in closed form: B = I − P diag(1 / diag P) with P = (XᵀX + l2 I)⁻¹. Scores of a user are the user's row of XB.

    It keeps n_items² numbers of 8 bytes, the time of a fit grows with n_items³, and there is nothing to tune but `l2`.
    A user that the fit did not see, or who met nothing, has no row to start from and gets the items that most users
    met, with their number as the score.

    Parameters
    ----------
    l2 : float
        Penalty of the weights; more for fewer users.
    user, item : str
        Columns of the ids.

    Attributes
    ----------
    user_ids_, item_ids_ : (n_users,), (n_items,) pandas arrays
        Ids as they were given.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import EASE
    >>> users, films = ["ann", "ann", "bob", "bob", "cat", "eve"], ["Up", "Heat", "Up", "Heat", "Jaws", "Up"]
    >>> EASE(l2=1).fit(pd.DataFrame({"user_id": users, "item_id": films})).recommend(["eve"])["item_id"].tolist()
    ['Heat', 'Jaws']
    """

    def __init__(self, l2: float = 500.0, *, user: str = "user_id", item: str = "item_id") -> None:
        self.l2 = l2
        self.user = user
        self.item = item

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Solves for the weights between items.

        Parameters
        ----------
        X : DataFrame (n_interactions, ...), or sparse matrix (n_users, n_items)
            One row an interaction, as for `Popularity`. A pair counts as 1, or as the sum of its weights.
        y : ignored

        Raises
        ------
        ValueError
            For a wrong l2, more than 30,000 items, absent columns, ids that are missing, weights that are negative, not
            finite or too large to square; a fit that fails leaves the estimator as it was.
        """
        check_positive(self.l2, "l2")
        self._met = self._matrix(X)
        n_items = self._met.shape[1]
        if n_items > _MOST_ITEMS:
            raise ValueError(
                f"EASE keeps n_items² numbers: {n_items:,} items would take {8 * n_items**2 / 1e9:,.0f} GB. At most "
                f"{_MOST_ITEMS:,} are taken: leave out rare items, or fit an FMRanker"
            )
        columns = self._met.tocsc()
        gram = np.empty((n_items, n_items), order="F")  # inverted in its place
        for start in range(0, n_items, _BLOCK):
            block = slice(start, start + _BLOCK)
            gram[:, block] = (self._met.T @ columns[:, block]).toarray()
        if not np.isfinite(gram.diagonal()).all():
            raise ValueError(f"weights up to {self._met.data.max():g} are too large to square: scale them down")
        gram[np.diag_indices(n_items)] += self.l2
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
        weights = np.ascontiguousarray(inverse.T)  # row i: of what the score of item i is made
        weights /= -weights.diagonal().copy()[:, None]
        np.fill_diagonal(weights, 0)
        self._items = np.zeros(n_items), weights
        return self

    def _side_of(self, places: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.zeros(len(places)), self._met[places].toarray()
