"""Data to learn from: readers (`load_*`, in pieces `iter_*`), downloads (`fetch_*`) and makers (`make_*`)."""

from .frames import iter_frames, load_avazu, load_criteo, load_recbole
from .movielens import DataFileError, MovieLens, fetch_movielens, load_movielens
from .synthetic import GeneratedRatings, make_ratings
from .text import (
    dump_libffm,
    dump_libfm,
    dump_libsvm,
    iter_libfm,
    iter_libsvm,
    load_libffm,
    load_libfm,
    load_libsvm,
)

__all__ = [
    "DataFileError",
    "GeneratedRatings",
    "MovieLens",
    "dump_libffm",
    "dump_libfm",
    "dump_libsvm",
    "fetch_movielens",
    "iter_frames",
    "iter_libfm",
    "iter_libsvm",
    "load_avazu",
    "load_criteo",
    "load_libffm",
    "load_libfm",
    "load_libsvm",
    "load_movielens",
    "load_recbole",
    "make_ratings",
]
