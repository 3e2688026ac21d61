"""Intervals and paired tests from the per-image values alone, without assumptions on their distribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from captum_sgcampp.checks import check_count

EXACT_UP_TO = 13  # differences: 2^13 sign patterns are tried one by one
_VALUES_AT_ONCE = 4_000_000


def bootstrap_interval(
    values: Tensor, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    r"""
    Percentile bootstrap interval of the mean.

    Args:

        values (Tensor): `(n,)`, one value per image.
        level (float, optional): Coverage.
                    Default: 0.95
        resamples (int, optional): Number of resamples.
                    Default: 4000
        seed (int, optional): Seed of the resamples.
                    Default: 0

    Returns:
        *tuple[float, float]*: Lower and upper bound; NaN without values.

    Examples::

        >>> low, high = bootstrap_interval(torch.arange(100.0))
        >>> low < 49.5 < high
        True
    """
    n = _count(values)
    check_count("resamples", resamples)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, found {level}")
    if n == 0:
        return float("nan"), float("nan")
    generator = Generator().manual_seed(seed)
    wide = values.detach().double().cpu()
    parts = _parts(resamples, n)
    means = torch.cat([wide[torch.randint(n, (part, n), generator=generator)].mean(1) for part in parts])
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def sign_flip_test(differences: Tensor, *, flips: int = 20_000, seed: int = 0) -> float:
    r"""
    Two-sided permutation test that paired differences are symmetric around 0: the share of random signs whose mean is
    at least as far from 0. Up to 13 differences, all sign patterns are tried.

    Args:

        differences (Tensor): `(n,)`, method less reference on the same images.
        flips (int, optional): Random sign patterns.
                    Default: 20,000
        seed (int, optional): Seed of the signs.
                    Default: 0

    Returns:
        *float*: The p-value; NaN without values.

    Examples::

        >>> sign_flip_test(torch.tensor([1.0, 2.0, 3.0]))
        0.25
    """
    n = _count(differences)
    check_count("flips", flips)
    if n == 0:
        return float("nan")
    wide = differences.detach().double().cpu()
    found = abs(float(wide.sum()))
    least = found - 1e-9 * float(wide.abs().sum())  # sums in another order differ by rounding
    if n <= EXACT_UP_TO:
        signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=n)), dtype=torch.float64)
        return float(((signs @ wide).abs() >= least).double().mean())
    generator, reached = Generator().manual_seed(seed), 0
    for part in _parts(flips, n):
        signs = 2 * torch.randint(2, (part, n), generator=generator).double() - 1
        reached += int(((signs @ wide).abs() >= least).sum())
    return (reached + 1) / (flips + 1)  # the observed signs are one pattern, too


def holm(p_values: Sequence[float]) -> list[float]:
    r"""
    P-values adjusted for their number by Holm's method; NaN stays NaN and does not count.

    Args:

        p_values (sequence of float): As they come from the tests.

    Returns:
        *list[float]*: Adjusted, in the same order.

    Examples::

        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p == p)
    adjusted, largest = [float("nan")] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


def _count(values: Tensor) -> int:
    if values.dim() != 1 or not bool(torch.isfinite(values).all()):
        raise ValueError(f"values: expected finite values of shape (n,), found shape {tuple(values.shape)} or NaN")
    return len(values)


def _parts(total: int, n: int) -> list[int]:
    """Sizes of parts of `total` rows of `n` values that take little memory."""
    size = max(1, _VALUES_AT_ONCE // n)
    return [min(size, total - start) for start in range(0, total, size)]
