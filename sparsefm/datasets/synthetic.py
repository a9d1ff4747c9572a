"""Ratings made up from factors that are known, in the frames of a real data set.

Every user and item has a vector; part of it follows from age, gender and occupation, or from genres and
year, the rest is its own. So side features help, and help most for a user or an item not seen before. With
z = mean + b_user + b_item + <p_user, q_item> a rating is z plus normal noise, rounded to whole stars and cut
to 1 ... 5. Rounding and cutting move the mean, but its value is exact: a rating r is the number of half-star
bounds below it plus one, so E[r] = 1 + sum over t in {1.5, 2.5, 3.5, 4.5} of P(z + noise > t). No model can
have a smaller expected squared error than this mean, which is what makes the noise floor known.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from .movielens import _GENRES_100K, MovieLens

__all__ = ["GeneratedRatings", "make_ratings"]

_Floats = npt.NDArray[np.float64]

# Spread in stars of the parts of a rating, chosen to resemble MovieLens 100K: mean 3.55 and deviation
# 1.08 (there 3.53 and 1.13). With random_state=1 biases alone reach an RMSE of 0.95 on fold 1, the floor is
# 0.82.
_MEAN, _USER_STD, _ITEM_STD, _INTERACTION_STD = 3.6, 0.40, 0.45, 0.50
# the share of a vector's variance that its attributes carry
_ATTRIBUTE_SHARE = 0.5
# in MovieLens 100K nobody has fewer ratings, so that the folds "ua" and "ub" find ten and ten
_MIN_PER_USER = 20
# 20 September 1997 to 23 April 1998, when MovieLens 100K was collected
_START, _END = 874_724_710, 893_286_638

_GENRES = _GENRES_100K[1:]  # all but "unknown"
_OCCUPATIONS = (  # noqa: SIM905
    "administrator artist doctor educator engineer entertainment executive healthcare homemaker lawyer "
    "librarian marketing none other programmer retired salesman scientist student technician writer"
).split()
_ADJECTIVES = (  # noqa: SIM905
    "Amber Borrowed Broken Crimson Distant Electric Empty Endless Forgotten Frozen Gentle Golden Hidden "
    "Hollow Idle Last Little Lonely Lost Lucky Midnight Northern Paper Patient Quiet Restless Sacred "
    "Scarlet Second Secret Seventh Silent Silver Sleeping Stolen Sudden Velvet Wandering Wild Winter"
).split()
_NOUNS = (  # noqa: SIM905
    "Alibi Arcade Balcony Bridge Cartographer Carnival Circus Clockmaker Comet Confession Detective Door "
    "Empire Ferry Garden Gambler Harbour Heiress Horizon Island Kingdom Lantern Letter Lighthouse "
    "Locomotive Mirror Mountain Orchard Orchestra Passenger Pilot Postman Promise River Rumour Sailor "
    "Season Stranger Tide Tower Train Valley Violin Voyage Waltz"
).split()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GeneratedRatings(MovieLens):
    """A `MovieLens` whose truth is known; what `make_ratings` returns.

    Attributes
    ----------
    expected : array (n_ratings,)
        The mean of each rating given its user and item: the best possible prediction, aligned with
        `ratings`, so that ``expected[test.index]`` belongs to the frame `test` of a split.
    std : array (n_ratings,)
        The standard deviation of each rating around its mean, in stars.
    noise_floor : float
        The RMSE of `expected` on these ratings, in stars. Its expectation is ``sqrt(mean(std**2))``.
    """

    expected: _Floats
    std: _Floats
    noise_floor: float


def make_ratings(
    n_users: int = 943,
    n_items: int = 1682,
    n_ratings: int = 100_000,
    *,
    n_factors: int = 8,
    noise_std: float = 0.85,
    random_state: int | np.random.Generator | None = None,
) -> GeneratedRatings:
    """Make up ratings of invented films, with a known noise floor, as a stand-in for MovieLens 100K.

    Popularity of items and activity of users are skewed, no user rates an item twice, and every user has at
    least 20 ratings if there are enough to go round. Rows are in random order. A user's timestamps lie close
    together, as those of people who rate films in one evening.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        Sizes; the defaults are those of MovieLens 100K, and `MovieLens.fold` works on 100,000 ratings. Users
        and items are numbered from 1. Time grows with n_users * n_items, memory does not.
    n_factors : int
        Length of the planted vectors.
    noise_std : float
        Standard deviation of the noise in stars, before ratings are rounded to 1 ... 5.
    random_state : int, Generator or None
        The same number gives the same data.

    Returns
    -------
    GeneratedRatings
        The frames of `MovieLens` (users with age, gender, occupation and zip_code; items with title, year
        and genres), with `expected`, `std` and `noise_floor`.

    Raises
    ------
    ValueError
        If a size is not positive, noise_std is negative, or the ratings are fewer than the users or more
        than the pairs of user and item.

    Examples
    --------
    >>> from sparsefm.datasets import make_ratings
    >>> ml = make_ratings(50, 80, 1500, random_state=0)
    >>> ml.ratings["rating"].between(1, 5).all()
    np.True_
    >>> round(ml.noise_floor, 1)
    0.8
    """
    if min(n_users, n_items, n_factors) < 1:
        raise ValueError(f"n_users, n_items and n_factors must be at least 1, got {n_users}, {n_items} and {n_factors}")
    if not n_users <= n_ratings <= n_users * n_items:
        raise ValueError(
            f"n_ratings must be between n_users ({n_users:,}) and n_users * n_items ({n_users * n_items:,}), "
            f"got {n_ratings:,}"
        )
    if not noise_std >= 0:
        raise ValueError(f"noise_std must not be negative, got {noise_std}")
    rng = np.random.default_rng(random_state)

    users, user_traits = _make_users(n_users, rng)
    items, item_traits = _make_items(n_items, rng)
    user, item = _choose_pairs(n_users, n_items, n_ratings, rng)

    p, q = _vectors(user_traits, n_factors, rng), _vectors(item_traits, n_factors, rng)
    user_bias, item_bias = _vectors(user_traits, 1, rng)[:, 0], _vectors(item_traits, 1, rng)[:, 0]
    score = (
        _MEAN
        + _USER_STD * user_bias[user]
        + _ITEM_STD * item_bias[item]
        + _INTERACTION_STD / np.sqrt(n_factors) * np.einsum("ij,ij->i", p[user], q[item])
    )
    rating = np.clip(np.rint(score + noise_std * rng.standard_normal(n_ratings)), 1, 5)
    expected, std = _moments(score, noise_std)

    arrival = rng.uniform(_START, _END, n_users)
    # 40 seconds between two ratings on average; the order within a user is random as the rows are
    timestamp = (arrival[user] + 40 * rng.exponential(np.bincount(user)[user])).astype(np.int64)
    ratings = pd.DataFrame(
        {
            "user_id": users["user_id"].to_numpy()[user],
            "item_id": items["item_id"].to_numpy()[item],
            "rating": rating,
            "timestamp": timestamp,
        }
    )
    return GeneratedRatings(
        name="generated",
        ratings=ratings,
        users=users,
        items=items,
        expected=expected,
        std=std,
        noise_floor=float(np.sqrt(np.mean((rating - expected) ** 2))),
    )


def _moments(score: _Floats, noise_std: float) -> tuple[_Floats, _Floats]:
    """Mean and standard deviation of clip(rint(score + noise), 1, 5)."""
    mean, square = np.ones_like(score), np.ones_like(score)
    for low in (1, 2, 3, 4):
        if noise_std > 0:
            above = ndtr((score - (low + 0.5)) / noise_std)
        else:
            above = (np.rint(score) > low).astype(np.float64)
        mean += above
        # r**2 grows by (low + 1)**2 - low**2 where r passes from low to low + 1
        square += (2 * low + 1) * above
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _vectors(traits: _Floats, n_factors: int, rng: np.random.Generator) -> _Floats:
    """Vectors (n, n_factors) of unit variance, of which the traits (n, n_traits) explain a known share."""
    explained = traits @ rng.standard_normal((traits.shape[1], n_factors))
    # two users may have the same traits, and a single one has no spread at all
    spread = explained.std(axis=0)
    explained = (explained - explained.mean(axis=0)) / np.where(spread > 0, spread, 1)
    own = rng.standard_normal(explained.shape)
    vectors: _Floats = np.sqrt(_ATTRIBUTE_SHARE) * explained + np.sqrt(1 - _ATTRIBUTE_SHARE) * own
    return vectors


def _make_users(n_users: int, rng: np.random.Generator) -> tuple[pd.DataFrame, _Floats]:
    age = np.clip(rng.gamma(8.0, 4.25, n_users), 7, 75).astype(np.int64)
    female = rng.random(n_users) < 0.3
    job = rng.choice(len(_OCCUPATIONS), n_users, p=_zipf(len(_OCCUPATIONS), 0.7))
    zip_code = rng.integers(0, 100_000, n_users)
    users = pd.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1, dtype=np.int64),
            "age": pd.array(age, dtype="Int64"),
            "gender": np.where(female, "F", "M").tolist(),
            "occupation": [_OCCUPATIONS[j] for j in job],
            "zip_code": [f"{z:05d}" for z in zip_code],
        }
    )
    # the zip code is given to look at and says nothing
    return users, np.column_stack([np.eye(len(_OCCUPATIONS))[job], female, (age - 34) / 12])


def _make_items(n_items: int, rng: np.random.Generator) -> tuple[pd.DataFrame, _Floats]:
    year = (1998 - np.minimum(rng.exponential(9.0, n_items), 75)).astype(np.int64)
    # one to three genres: the best of random keys, weighted to make some genres common
    keys = rng.gumbel(size=(n_items, len(_GENRES))) + np.log(rng.permutation(_zipf(len(_GENRES), 0.9)))
    rank = (-keys).argsort(axis=1).argsort(axis=1)
    has = rank < rng.choice([1, 2, 3], n_items, p=[0.45, 0.35, 0.2])[:, None]

    # every pair of words once, in random order, before any title comes back as a sequel
    n_titles = len(_ADJECTIVES) * len(_NOUNS)
    order = rng.permutation(n_titles)
    titles = []
    for i in range(n_items):
        part, at = divmod(i, n_titles)
        adjective, noun = divmod(int(order[at]), len(_NOUNS))
        titles.append(f"{_ADJECTIVES[adjective]} {_NOUNS[noun]}, The" + (f" {part + 1}" if part else ""))
    items = pd.DataFrame(
        {
            "item_id": np.arange(1, n_items + 1, dtype=np.int64),
            "title": titles,
            "year": pd.array(year, dtype="Int64"),
            "genres": ["|".join(itertools.compress(_GENRES, row)) for row in has],
        }
    )
    return items, np.column_stack([has / np.sqrt(has.sum(axis=1, keepdims=True)), (year - 1989) / 10])


def _choose_pairs(
    n_users: int, n_items: int, n_ratings: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Distinct (user, item) pairs in random order, both (n_ratings,)."""
    activity = rng.lognormal(0.0, 0.9, n_users)
    counts = np.full(n_users, min(_MIN_PER_USER, n_ratings // n_users, n_items))
    while (left := n_ratings - int(counts.sum())) > 0:
        share = np.where(counts < n_items, activity, 0)
        counts = np.minimum(counts + rng.multinomial(left, share / share.sum()), n_items)

    # The k largest of log weight + Gumbel noise are a weighted sample of k without replacement (Efraimidis
    # and Spirakis 2006, Weighted random sampling with a reservoir).
    log_popularity = np.log(rng.permutation(_zipf(n_items, 2.0, shift=0.1 * n_items)))
    item = np.concatenate(
        [np.argsort(-(log_popularity + rng.gumbel(size=n_items)))[:count] for count in counts.tolist()]
    )
    user = np.repeat(np.arange(n_users), counts)
    order = rng.permutation(n_ratings)
    return user[order], item[order]


def _zipf(n: int, exponent: float, shift: float = 0.0) -> _Floats:
    weights = (np.arange(1, n + 1) + shift) ** -exponent
    return np.asarray(weights / weights.sum(), dtype=np.float64)
