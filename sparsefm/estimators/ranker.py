"""Rankings from what was met: plays, purchases, clicks, or ratings that were high enough."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import persistence
from .._kernels.dispatch import n_threads_or_default
from ..encoders import Counts, FrameEncoder, OneHot, TargetStats
from ..encoders.frame import choose
from ..explain import explanation
from ..model import FMParams
from ..recommend import top_k
from ..solvers import RANKERS, Interrupted, RankingProblem, make_solver
from ..validation import check_csr, check_positive, check_weights
from .base import _is_true, all_or_nothing
from .files import ranker_state
from .heldout import HeldOut, metric_at
from .ids import ByIds, places_of
from .rows import spans_of
from .sides import as_frame, fields_of, recommended, sides_of, unit
from .watch import Progress

__all__ = ["FMRanker"]


class FMRanker(ByIds):
    """Factorization machine that orders items for users and occasions, learned from interactions alone.

    A row is an interaction: who (the user, with what is said of him and of the occasion) met what (the item, with what
    is said of it). The score of a pair is b_c + b_i + ⟨p_c, q_i⟩, where p and q are sums of the factors of what is said
    of either side, so that new items and users with known attributes have scores too; items are ordered by it.

    Parameters
    ----------
    n_factors : int
    solver : str, or a solver object such as WARP(max_iter=20)
        "warp", "bpr", "sampled_softmax", "cosine_contrastive", "implicit_als".
    l2_linear, l2_factors : float
        Penalties ½ l2 · ‖·‖² of weights and factors: at each visit, or by frequency as `ImplicitALS` says.
    init_std : float
        Standard deviation of the factors at the start.
    encoder : FrameEncoder, optional
        Encodes frames of interactions. Each of its fields must read columns of the item alone, or of others alone. None
        makes one: ids one-hot, other columns by their dtype.
    item_columns : sequence of str, optional
        The input columns that are said of the item, `item` among them; all others are the context. None: `item`, and
        with items= the columns of that frame.
    user, item : str
        Columns of the ids.
    early_stopping : bool
        Ends after `patience` epochs that did not better `eval_metric` on `eval_set`, and keeps the best.
    patience : int
    eval_metric : str
        Of lists for `eval_set`: "ndcg", "precision", "recall", "mrr", "map" or "hit_rate", with "@" and their length.
    callbacks : list of callable(estimator, record), optional
        Called after each epoch; True stops.
    n_threads, random_state, verbose
        As for FMRegressor.

    Attributes
    ----------
    params_ : FMParams
    encoder_ : FrameEncoder
    user_ids_, item_ids_ : (n_users,), (n_items,) pandas arrays
        Ids as they were given; those of users only where each has one context row.
    history_ : list of dict
        "epoch", "loss", "seconds", and with an eval_set "eval_metric".
    item_fields_ : list of str
        Fields of the encoder that are said of the item.
    weight_unit_ : float
        Mean weight of the fit's interactions, which trained with weight 1.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import FMRanker
    >>> users, films = ["ann", "ann", "bob", "bob", "eve"], ["Up", "Jaws", "Up", "Heat", "Up"]
    >>> met = pd.DataFrame({"user_id": users, "item_id": films})
    >>> model = FMRanker(4, solver="implicit_als", random_state=0).fit(met)
    >>> model.recommend(["eve"], k=2)["item_id"].tolist()
    ['Jaws', 'Heat']
    """

    params_: FMParams
    encoder_: FrameEncoder
    history_: list[dict[str, Any]]

    def __init__(
        self,
        n_factors: int = 32,
        *,
        solver: Any = "warp",
        l2_linear: float = 0.01,
        l2_factors: float = 0.01,
        init_std: float = 0.05,
        encoder: FrameEncoder | None = None,
        item_columns: Sequence[str] | None = None,
        user: str = "user_id",
        item: str = "item_id",
        early_stopping: bool = False,
        patience: int = 5,
        eval_metric: str = "ndcg@10",
        callbacks: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.solver = solver
        self.l2_linear = l2_linear
        self.l2_factors = l2_factors
        self.init_std = init_std
        self.encoder = encoder
        self.item_columns = item_columns
        self.user = user
        self.item = item
        self.early_stopping = early_stopping
        self.patience = patience
        self.eval_metric = eval_metric
        self.callbacks = callbacks
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    # ---- the way in ----

    @all_or_nothing
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        users: Any = None,
        items: Any = None,
        sample_weight: Any = None,
        eval_set: Any = None,
    ) -> Self:
        """Fits to interactions.

        Parameters
        ----------
        X : DataFrame (n_interactions, ...), or sparse matrix (n_users, n_items)
            One row an interaction, with columns `user` and `item` and whatever the encoder reads; a column "weight"
            that no field reads weighs them. Of a matrix the stored non-zeros are interactions with their weights, and
            ids are the numbers of rows and columns. Pairs that occur more than once are one, their weights added up.
        y : ignored
        users, items : DataFrame, optional
            What is said of users and items, one row an id, joined to the interactions by id. Items of this frame that
            nobody met can be recommended too.
        sample_weight : (n_interactions,), optional
        eval_set : DataFrame, optional
            Interactions held out, with the columns of X. Lists for their users and contexts are judged after each
            epoch; what users met in X is not shown, items that the fit does not know are never found.

        Raises
        ------
        ValueError
            For wrong parameters, absent columns, ids that are missing or repeated, weights that are negative or not
            finite; a fit that fails leaves the estimator as it was.
        """
        self._check_parameters()
        X, users, items = self._frame_of(X, users, items)
        weight = check_weights(sample_weight, len(X))
        frame = self._joined(X, users, items)
        self.encoder_ = self._encoder(frame, users, items).fit(frame)
        weight = self._times_weight(X, weight)
        rows, columns = self._sides(frame, users, items)
        problem, watch = self._problem(frame, rows, columns, weight, eval_set, users, items)
        interrupted: Interrupted | None = None
        try:
            self.params_ = make_solver(self.solver, RANKERS).solve(problem)
        except Interrupted as interruption:
            interrupted = interruption
        if interrupted is not None:
            assert isinstance(interrupted.params, FMParams)
            self.params_ = interrupted.params
        if watch is not None and watch.best is not None:
            self.params_ = watch.best
        users, items = (side[column] for side, column in zip(columns, (self.user, self.item), strict=True))
        self._index(users.array if users.is_unique else None, items.array)
        if interrupted is not None:
            raise interrupted
        return self

    def _check_parameters(self) -> None:
        check_positive(self.n_factors, "n_factors", integer=True)
        for name in ("l2_linear", "l2_factors", "init_std"):
            check_positive(getattr(self, name), name, zero=True)
        n_threads_or_default(self.n_threads)
        check_positive(self.patience, "patience", integer=True)
        metric_at(self.eval_metric)
        make_solver(self.solver, RANKERS)
        if self.encoder is not None and not isinstance(self.encoder, FrameEncoder):
            raise TypeError(f"encoder must be a FrameEncoder, got {type(self.encoder).__name__}")
        if isinstance(self.item_columns, str):
            raise TypeError(f"item_columns must be a collection of column names, got the text {self.item_columns!r}")
        self._check_names()
        if self.callbacks is not None and not (
            isinstance(self.callbacks, (list, tuple)) and all(map(callable, self.callbacks))
        ):
            raise TypeError(f"callbacks must be a list of functions, got {self.callbacks!r}")

    def _joined(self, X: pd.DataFrame, users: Any, items: Any) -> pd.DataFrame:
        """The interactions with what is said of their users and items."""
        self._check_ids(X)
        for side, column, name in ((users, self.user, "users"), (items, self.item, "items")):
            if side is None:
                continue
            if not isinstance(side, pd.DataFrame) or column not in side.columns:
                raise ValueError(f"{name} must be a pandas DataFrame with a column {column!r}")
            if side[column].isna().any():
                raise ValueError(f"{name} has {int(side[column].isna().sum())} rows without a {column}; drop them")
            if side[column].duplicated().any():
                raise ValueError(f"{name} has {column} {side[column][side[column].duplicated()].iloc[0]!r} twice")
            both = sorted(set(side.columns) & set(X.columns) - {column})
            if both:
                raise ValueError(f"columns {both} are in X and in {name}: drop them from one of the two")
            X = X.merge(side, on=column, how="left")
        return X

    def _encoder(self, frame: pd.DataFrame, users: Any, items: Any) -> FrameEncoder:
        if self.encoder is not None:
            found: FrameEncoder = clone(self.encoder)
            return found
        columns: dict[str, Any] = {self.user: OneHot(), self.item: OneHot()}
        for side in (users, items):
            if side is not None:
                columns |= choose({name: frame[name] for name in side.columns if name not in columns})
        return FrameEncoder(columns)

    def _times_weight(self, X: pd.DataFrame, weight: Any) -> Any:
        read = {source for column in self.encoder_.columns_.values() for source in column.sources}
        if "weight" not in X.columns or "weight" in read:
            return weight
        own = check_weights(X["weight"].to_numpy(), len(X))
        assert own is not None
        with np.errstate(over="ignore"):
            return own if weight is None else check_weights(own * weight, len(X))

    def _sides(self, frame: pd.DataFrame, users: Any, items: Any) -> tuple[list[Any], list[Any]]:
        """Of contexts and items the number of each interaction's, and their rows."""
        given = self.item_columns
        if given is None:
            given = [self.item] if items is None else list(items.columns)
        absent = [name for name in given if name not in frame.columns]
        if absent:
            raise ValueError(f"item_columns names {absent}, which are not among the columns {list(frame.columns)}")
        of_item = set(given) | {self.item}
        for name, column in self.encoder_.columns_.items():
            if isinstance(column.encoder, (TargetStats, Counts)):
                raise ValueError(f"field {name!r} looks at other rows, which a ranking has none of: leave it out")
            sources = set(column.essential)
            if not sources <= of_item and sources & of_item:
                raise ValueError(
                    f"field {name!r} reads {sorted(sources)}, of the item and of others together, so a score does not "
                    "split into their parts: name all of the item's columns in item_columns, or leave the field out"
                )
        self.item_fields_ = fields_of(self.encoder_, of_item)
        read = [source for column in self.encoder_.columns_.values() for source in column.essential]
        numbers, sides = [], []
        for own, id_column, side in ((False, self.user, users), (True, self.item, items)):
            names = [name for name in dict.fromkeys([id_column, *read]) if (name in of_item) == own]
            said = side is not None and set(names) <= set(side.columns)  # all there is to say
            whole = pd.concat([frame[names], side[names]], ignore_index=True) if said else frame[names]
            number, example = _distinct(whole, [id_column] if own or said else names)
            numbers.append(number[: len(frame)])
            sides.append(whole.iloc[example])
        self.X_sides_ = tuple(
            self.encoder_.transform(side, columns=fields_of(self.encoder_, set(side.columns))) for side in sides
        )
        return numbers, sides

    def _problem(
        self, frame: Any, numbers: list[Any], sides: list[Any], weight: Any, eval_set: Any, users: Any, items: Any
    ) -> tuple[RankingProblem, HeldOut | None]:
        met = self._met(numbers[0], numbers[1], weight, (len(sides[0]), len(sides[1])))
        self.weight_unit_ = float(met.data[0] if (met.data == met.data[0]).all() else met.data.mean())
        self.seen_ = sp.csr_array((np.ones(met.nnz, np.uint8), met.indices, met.indptr), shape=met.shape)
        watch = self._watch(eval_set, users, items, sides)
        self.history_ = []
        progress = Progress(type(self).__name__, {}, make_solver(self.solver, RANKERS).max_iter, self.verbose)

        def report(record: dict[str, Any], current: Callable[[], FMParams]) -> bool:
            stops = [watch is not None and watch.epoch(record, current)]
            self.history_.append(record)
            progress.epoch(record)
            stops += [_is_true(callback(self, record)) for callback in self.callbacks or ()]  # every one is called
            return any(stops)

        columns = [np.unique(side.indices) for side in self.X_sides_]
        return self._interactions(met, self.X_sides_, columns, report), watch

    def _met(self, context: Any, item: Any, weight: Any, shape: tuple[int, int]) -> Any:
        """Interactions as a matrix, those that are there twice added up."""
        ones = np.ones(len(item)) if weight is None else weight
        met = sp.coo_array((ones, (context, item)), shape=shape).tocsr()
        met.sort_indices()
        met.eliminate_zeros()
        if met.nnz == 0:
            raise ValueError("all weights are zero: there is nothing to fit")
        return met

    def _interactions(self, met: Any, sides: Any, columns: Any, report: Any) -> RankingProblem:
        """columns: of each side those that are solved for."""
        contexts, items = (check_csr(X) for X in sides)
        with np.errstate(over="ignore"):
            weight = (met.data / self.weight_unit_).astype(items.dtype)
        if not np.isfinite(weight).all():
            raise ValueError(f"weights up to {met.data.max():g} are too large beside a mean of {self.weight_unit_:g}")
        return RankingProblem(
            contexts=contexts,
            items=items,
            spans=(spans_of(columns[0]) or ((0, 0),), spans_of(columns[1]) or ((0, 0),)),
            context=np.repeat(np.arange(met.shape[0], dtype=np.int32), np.diff(met.indptr)),
            item=met.indices.astype(np.int32),
            weight=None if (weight == 1).all() else weight,
            n_factors=self.n_factors,
            l2_linear=self.l2_linear,
            l2_factors=self.l2_factors,
            init_std=self.init_std,
            seed=self._seed(),
            n_threads=self.n_threads,
            report=report,
        )

    def _watch(self, eval_set: Any, users: Any, items: Any, sides: list[Any]) -> HeldOut | None:
        if eval_set is None:
            if self.early_stopping:
                raise ValueError("early_stopping needs eval_set=, interactions that are held out")
            return None
        if not isinstance(eval_set, pd.DataFrame) or len(eval_set) == 0:
            raise ValueError("eval_set must be a DataFrame of at least one interaction")
        frame = self._joined(eval_set, users, items)
        contexts, of_items = sides
        absent = [name for name in contexts.columns if name not in frame.columns]
        if absent:
            raise ValueError(f"eval_set lacks the columns {absent} of X")
        by_id = contexts[self.user].is_unique
        number, example = _distinct(frame, [self.user] if by_id else list(contexts.columns))
        requests = frame.iloc[example]
        place = places_of(of_items[self.item].array, frame[self.item], self.item)
        unknown = len(of_items) + np.arange(len(frame))
        relevant: list[set[int]] = [set() for _ in example]
        for of, item in zip(number.tolist(), np.where(place >= 0, place, unknown).tolist(), strict=True):
            relevant[of].add(item)
        seen = None
        if by_id:
            rows = places_of(contexts[self.user].array, requests[self.user], self.user)
            seen = sp.vstack([self.seen_, sp.csr_array((1, len(of_items)), dtype=np.uint8)], format="csr")[rows]
            found = seen.tocoo().coords
            for of, item in zip(found[0].tolist(), found[1].tolist(), strict=True):
                relevant[of].discard(item)
        fields = [name for name in self.encoder_.columns_ if name not in self.item_fields_]
        X = self.encoder_.transform(requests, columns=fields)
        patience = self.patience if self.early_stopping else None
        return HeldOut(self.eval_metric, patience, (X, self.X_sides_[1]), relevant, seen, self._cosine, self.n_threads)

    @property
    def _cosine(self) -> bool:
        """Whether scores are cosines."""
        return getattr(make_solver(self.solver, RANKERS), "cosine", False)

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _index(self, users: Any, items: Any) -> None:
        """What answers by id are made of."""
        self._know(users, items, self.seen_)
        self._users, self._items = sides_of(self.params_, *self.X_sides_, cosine=self._cosine, n_threads=self.n_threads)

    # ---- who came later ----

    def fold_in(self, X: pd.DataFrame, *, users: Any = None, sample_weight: Any = None) -> Self:
        """A model that knows these users too, from their interactions; nothing else moves, and this one stays as it is.

        What is theirs alone (as a rule the column of the id, and levels that nobody had before) is solved for by the
        solver of the fit, in as many passes, all else given.

        Parameters
        ----------
        X : DataFrame (n_interactions, ...)
            As for `fit`, with items that the fit knows. They are all that counts of their users, also of those that the
            fit knows, who are solved for anew.
        users : DataFrame, optional
            What is said of these users, where the fit was told of others. Of whom nothing is said, only X counts.
        sample_weight : (n_interactions,), optional
            In the unit of those of the fit.

        Raises
        ------
        ValueError
            For items that are not known, and what `fit` raises.

        Examples
        --------
        >>> import pandas as pd
        >>> from sparsefm import FMRanker
        >>> users, films = ["ann", "ann", "bob", "bob", "eve"], ["Up", "Jaws", "Up", "Heat", "Up"]
        >>> met = pd.DataFrame({"user_id": users, "item_id": films})
        >>> model = FMRanker(4, solver="implicit_als", random_state=0).fit(met)
        >>> model = model.fold_in(pd.DataFrame({"user_id": ["zoe", "zoe"], "item_id": ["Jaws", "Up"]}))
        >>> model.recommend(["zoe"])["item_id"].tolist()
        ['Heat']
        """
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame) or len(X) == 0:
            raise ValueError("X must be a DataFrame of at least one interaction")
        weight = self._times_weight(X, check_weights(sample_weight, len(X)))
        frame = self._joined(X, users, None)
        of_items = pd.DataFrame({self.item: self.item_ids_})
        item = self._of_items(frame[self.item].drop_duplicates().array)[pd.factorize(frame[self.item])[0]]
        fields = [name for name in self.encoder_.columns_ if name not in self.item_fields_]
        read = [source for name in fields for source in self.encoder_.columns_[name].essential]
        names = [name for name in dict.fromkeys([self.user, *read]) if name in frame.columns]
        fields = [name for name in fields if set(self.encoder_.columns_[name].essential) <= set(names)]
        by_id = self.user_ids_ is not None
        number, example = _distinct(frame, [self.user] if by_id else names)
        contexts = frame.iloc[example]
        grown = copy.copy(self)
        grown.encoder_ = copy.deepcopy(self.encoder_)
        grown.encoder_.partial_fit(contexts, columns=fields)
        width = grown.encoder_.n_features_out_
        rows = grown.encoder_.transform(contexts, columns=fields)
        present, items = (_widened(side, width) for side in self.X_sides_)
        place = np.full(len(contexts), -1)
        if by_id:
            place = places_of(self.user_ids_, contexts[self.user], self.user)
        stays = np.setdiff1d(np.arange(present.shape[0]), place)
        theirs = np.setdiff1d(rows.indices, present[stays].indices)
        grown.params_ = self.params_.grow(width)
        met = self._met(number, item, weight, (len(contexts), len(of_items)))
        if len(theirs):
            problem = self._interactions(met, (rows, items), (theirs, theirs[:0]), lambda record, current: False)
            grown.params_ = make_solver(self.solver, RANKERS).solve(replace(problem, start=grown.params_))
        grown.X_sides_ = _replaced(present, place, rows), items
        seen = sp.csr_array((np.ones(met.nnz, np.uint8), met.indices, met.indptr), shape=met.shape)
        grown.seen_ = _replaced(self.seen_, place, seen)
        ids = None
        if by_id:
            ids = _joined_ids(pd.Series(self.user_ids_), contexts[self.user][place < 0], self.user)
        grown._index(ids, self.item_ids_)
        return grown

    # ---- the way out ----

    def recommend(
        self,
        contexts: Any,
        candidates: Any = None,
        *,
        k: int = 10,
        items: Any = None,
        exclude_seen: bool = True,
        exclude: Any = None,
        user: str | None = None,
        item: str | None = None,
    ) -> pd.DataFrame:
        """The k items with the highest score for each request, exactly and in bounded memory.

        Parameters
        ----------
        contexts : sequence of user ids, or DataFrame
            Ids of users, or with `candidates` one row a request: the user and context columns. An id that the fit did
            not see gets the items that most users met, their number being the score; a row of which nothing is known
            the candidates in the order of their own scores.
        candidates : DataFrame, optional
            One row an item: the item columns, each id once.
        k : int
            Length of a list; it is shorter where fewer items are left.
        items : sequence of item ids, or DataFrame, optional
            By user ids only: the items to choose from, for all users, or as (user, item) pairs each user's own. None:
            all of the fit.
        exclude_seen : bool
            By user ids only: leaves out what the user met in the fit.
        exclude : DataFrame, optional
            With `candidates`: (user, item) pairs not to show.

        Returns
        -------
        DataFrame
            User, item, rank (from 1) and score, ids as they were given. The score leaves out the user's own part.
        """
        check_is_fitted(self)
        user, item = user or self.user, item or self.item
        if candidates is not None:
            if items is not None:
                raise ValueError("items= goes with user ids; with frames the candidates are the items to choose from")
            return recommended(
                self.params_,
                self.encoder_,
                contexts,
                candidates,
                user,
                item,
                k,
                exclude,
                cosine=self._cosine,
                n_threads=self.n_threads,
            )
        if exclude is not None:
            raise ValueError("exclude= goes with candidates=; by user ids exclude_seen= leaves out what was met")
        return self._lists(contexts, k, items, exclude_seen)

    def explain(self, X: pd.DataFrame, *, by: str | None = None) -> pd.DataFrame:
        """What the scores of pairs are made of, by which `recommend` orders the items of a context.

        Parameters
        ----------
        X : DataFrame (n_pairs, ...)
            One row a pair of a context and an item: all columns that the encoder reads, or the two ids alone where the
            fit knows both, such as what `recommend` returned.
        by : "field" or "column", optional
            As for FMRegressor; None is "field".

        Returns
        -------
        DataFrame
            As for FMRegressor, without an intercept and what the context adds by itself, which orders nothing. The
            values of a row add up to its score. Where scores are cosines, they are the pairs of the two sides, divided
            by the lengths of both vectors.

        Raises
        ------
        ValueError
            For an unknown by, ids that the fit does not know, and more than ten million lines.
        """
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame) or not {self.user, self.item} <= set(X.columns):
            raise ValueError(f"X must be a DataFrame with at least the columns {self.user!r} and {self.item!r}")
        read = {source for column in self.encoder_.columns_.values() for source in column.essential}
        if read <= set(X.columns):
            rows = self.encoder_.transform(X)
        else:
            places = self._of_users(X[self.user])
            if (places < 0).any():
                raise ValueError(f"user {X[self.user][places < 0].iloc[0]!r} was not in the fit, and X lacks {read}")
            items = self._of_items(X[self.item].drop_duplicates().array)[pd.factorize(X[self.item])[0]]
            rows = self.X_sides_[0][places] + self.X_sides_[1][items]
        table = explanation(self.params_, rows, by=by or "field", fields=self.encoder_.fields_, encoder=self.encoder_)
        of_item = np.isin(np.array(self.encoder_.field_names_)[self.encoder_.fields_], self.item_fields_)
        names = self.item_fields_ if by != "column" else self.encoder_.get_feature_names_out()[of_item]
        first, second = table["first"].isin(names), table["second"].isin(names)
        if not self._cosine:
            return table[first | second].reset_index(drop=True)
        table = table[(first != second) & (table["part"] == "pair")].reset_index(drop=True)
        lengths = [np.linalg.norm(rows[:, side] @ self.params_.V[side], axis=1) for side in (~of_item, of_item)]
        both = lengths[0] * lengths[1]
        table["value"] /= np.where(both > 0, both, 1)[table["row"]]
        return table

    def _side_of(self, places: NDArray[Any]) -> tuple[Any, Any]:
        vectors = self._users[1][places]
        return np.zeros(len(vectors), vectors.dtype), vectors

    def user_vectors(self) -> pd.DataFrame:
        """(n_users, n_factors + 1) by id; inner products with `item_vectors` are the scores of lists."""
        check_is_fitted(self)
        self._of_users([])
        vectors = np.column_stack([self._users[1], np.ones(len(self._users[1]), self._users[1].dtype)])
        return pd.DataFrame(vectors, index=pd.Index(self.user_ids_, name=self.user))

    def item_vectors(self) -> pd.DataFrame:
        """(n_items, n_factors + 1) by id, the item's own score last: for any index of nearest inner products."""
        check_is_fitted(self)
        bias, vectors = self._items
        return pd.DataFrame(np.column_stack([vectors, bias]), index=pd.Index(self.item_ids_, name=self.item))

    def similar_items(self, items: Any, k: int = 10) -> pd.DataFrame:
        """The k items whose factors point the same way: columns `item`, "similar", rank and score, the cosine."""
        check_is_fitted(self)
        return _similar(self._items[1], self._of_items(items), self.item_ids_, items, k, self.item)

    def similar_users(self, users: Any, k: int = 10) -> pd.DataFrame:
        """The k users whose factors point the same way; all of them must be users of the fit."""
        check_is_fitted(self)
        places = self._of_users(users)
        if (places < 0).any():
            raise ValueError(f"user {np.asarray(users, object)[places < 0][0]!r} was not in the fit")
        return _similar(self._users[1], places, self.user_ids_, users, k, self.user)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fitted model, its encoder included, to one file that `sparsefm.load` reads.

        The file is complete or absent, also if the process dies. Callbacks are not kept, a random_state only if it is
        an integer.
        """
        check_is_fitted(self)
        persistence.write(path, *ranker_state(self))


def _distinct(frame: pd.DataFrame, key: list[str]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Of each row the number of its values of the key, and a row for each number."""
    number = frame.groupby(key, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, example = np.unique(number, return_index=True)
    return number.astype(np.int32), example


def _joined_ids(known: pd.Series[Any], fresh: pd.Series[Any], column: str) -> Any:
    """The ids, of the type that they had."""
    if isinstance(known.dtype, pd.CategoricalDtype):
        known = known.astype(known.cat.categories.dtype)
    if fresh.dtype != known.dtype:
        try:
            same = fresh.astype(known.dtype)
            if not (same.astype(fresh.dtype) == fresh).all():
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"ids of {column} are {known.dtype} in the fit, {fresh.dtype} here") from None
        fresh = same
    return pd.concat([known, fresh], ignore_index=True).array


def _widened(matrix: Any, width: int) -> Any:
    return sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], width))


def _replaced(matrix: Any, place: NDArray[Any], rows: Any) -> Any:
    """The matrix with these rows at their places, those without one behind it."""
    order = np.arange(matrix.shape[0])
    order[place[place >= 0]] = matrix.shape[0] + np.flatnonzero(place >= 0)
    order = np.concatenate([order, matrix.shape[0] + np.flatnonzero(place < 0)])
    return sp.vstack([matrix, rows], format="csr")[order]


def _similar(vectors: Any, places: Any, ids: Any, asked: Any, k: int, column: str) -> pd.DataFrame:
    check_positive(k, "k", integer=True)
    vectors = unit(vectors)
    none, shape = np.zeros(len(vectors), vectors.dtype), (len(places), len(vectors))
    own = sp.csr_array((np.ones(len(places), np.uint8), places, np.arange(len(places) + 1)), shape)
    k = max(1, min(k, len(vectors) - 1))
    found, scores = top_k((none[places], vectors[places]), (none, vectors), k, exclude=own)
    return as_frame(found, scores, pd.Series(asked), pd.Series(ids), column, "similar")
