"""Data to learn from: readers (`load_*`), downloads (`fetch_*`) and makers (`make_*`)."""

from .movielens import DataFileError, MovieLens, fetch_movielens, load_movielens
from .synthetic import GeneratedRatings, make_ratings

__all__ = [
    "DataFileError",
    "GeneratedRatings",
    "MovieLens",
    "fetch_movielens",
    "load_movielens",
    "make_ratings",
]
