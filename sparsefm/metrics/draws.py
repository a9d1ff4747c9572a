"""Of draws of a number: whether chains agree, and how much they know."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import Floats

__all__ = ["effective_sample_size", "split_rhat"]


def split_rhat(draws: npt.ArrayLike) -> Any:
    """How far chains of draws disagree: the potential scale reduction of half chains (Gelman et al. 2013, §11.4).

    Near 1 where the chains, and the first and second halves of each, have the same mean; above 1.01 to 1.1, by the
    purpose, they have not been run for long enough.

    Parameters
    ----------
    draws : (n_chains, n_draws, ...)
        At least four draws a chain; one number, or an array of them, a draw.

    Returns
    -------
    float, or array (...)
        NaN where no draw differs from another.

    Examples
    --------
    >>> bool(split_rhat(np.random.default_rng(0).normal(size=(2, 500))) < 1.01)
    True
    """
    halves = _chains(draws)
    half = halves.shape[1] // 2
    halves = np.concatenate([halves[:, :half], halves[:, -half:]])
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((half - 1) / half + between / within)[()]


def effective_sample_size(draws: npt.ArrayLike) -> Any:
    """How many independent draws would know the mean as well as these do (Geyer 1992; Vehtari et al. 2021).

    The number of draws divided by 1 + 2 Σ of their autocorrelations, summed up in pairs until a pair is negative.

    Arguments as of `split_rhat`.

    Returns
    -------
    float, or array (...)
        At most n log10(n) of n draws in all; NaN where no draw differs from another.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(2, 500))
    >>> bool(effective_sample_size(np.repeat(draws, 4, axis=1)) < 1200)  # each four times
    True
    """
    chains = _chains(draws)
    n_chains, n = chains.shape[:2]
    flat = chains.reshape(n_chains, n, -1)
    off = flat - flat.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(off, 2 * n, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n].mean(axis=0) / n
    within = covariance[0] * n / (n - 1)
    between = flat.mean(axis=1).var(axis=0, ddof=1) if n_chains > 1 else 0.0
    total = within * (n - 1) / n + between
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = 1 - (within - covariance * n / (n - 1)) / total
    pairs = correlation[0 : n - n % 2 : 2] + correlation[1:n:2]
    pairs = np.minimum.accumulate(pairs, axis=0)
    pairs[np.cumsum(pairs <= 0, axis=0) > 0] = 0
    size = n_chains * n
    with np.errstate(invalid="ignore", divide="ignore"):
        found = size / np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(size))
    return np.where(total > 0, found, np.nan).reshape(chains.shape[2:])[()]


def _chains(draws: npt.ArrayLike) -> Floats:
    chains = np.asarray(draws, np.float64)
    if chains.ndim < 2 or chains.shape[0] < 1 or chains.shape[1] < 4:
        raise ValueError(f"draws must be (n_chains, n_draws, ...) with at least 4 draws a chain, got {chains.shape}")
    if not np.isfinite(chains).all():
        raise ValueError("draws must be finite")
    return chains
