"""Intervals and tests: they hold what they promise."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator

from captum_sgcampp.metrics import bootstrap_interval, holm, sign_flip_test


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    samples = torch.randn(200, 40, generator=Generator().manual_seed(0))
    covered = sum(low < 0 < high for low, high in (bootstrap_interval(x, resamples=500) for x in samples))
    assert 0.90 * 200 <= covered <= 0.98 * 200


@pytest.mark.parametrize("images, least, most", [(29, 0.7, 0.85), (60, 0.9, 0.98)])
def test_the_interval_of_shares_near_1_covers_less_on_few_images(images: int, least: float, most: float) -> None:
    """Half of the objects are missed on one image of 20: the page of results warns of such intervals."""
    missed = torch.rand(300, images, generator=Generator().manual_seed(5)) < 0.05
    samples = (1 - missed / 2).double()
    covered = sum(low <= 0.975 <= high for low, high in (bootstrap_interval(x, resamples=300) for x in samples))
    assert least <= covered / 300 <= most


def test_the_interval_is_near_the_normal_one_for_many_values() -> None:
    x = torch.randn(2000, generator=Generator().manual_seed(1))
    low, high = bootstrap_interval(x)
    half = 1.96 * float(x.std()) / math.sqrt(2000)
    assert low == pytest.approx(float(x.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(x.mean()) + half, abs=0.1 * half)
    assert bootstrap_interval(x) == (low, high)


def test_few_differences_are_tested_exactly() -> None:
    d = [0.3, -0.1, 0.7, 0.2, 0.9, -0.4]
    patterns = list(itertools.product((1, -1), repeat=6))
    reached = sum(abs(sum(s * x for s, x in zip(p, d, strict=True))) >= abs(sum(d)) - 1e-12 for p in patterns)
    assert sign_flip_test(torch.tensor(d, dtype=torch.float64)) == pytest.approx(reached / 64)


def test_without_a_difference_p_is_uniform_and_with_one_it_is_small() -> None:
    generator = Generator().manual_seed(2)
    p = torch.tensor([sign_flip_test(torch.randn(30, generator=generator), flips=500) for _ in range(200)])
    assert 0.02 <= (p < 0.05).float().mean() <= 0.09 and 0.4 < p.mean() < 0.6
    assert sign_flip_test(torch.randn(30, generator=generator) + 1.5) < 0.001
    assert sign_flip_test(torch.zeros(40)) == 1
    assert sign_flip_test(torch.ones(40)) == pytest.approx(1 / 20_001)


def shares(generator: Generator, images: int) -> torch.Tensor:
    """A share of a map per image: skewed, and 0 on some images."""
    values = torch.rand(images, generator=generator, dtype=torch.float64) ** 3
    return values * (torch.rand(images, generator=generator) > 0.1)


def hits(generator: Generator, images: int) -> torch.Tensor:
    """0 or 1 per image, so that most differences are ties."""
    return (torch.rand(images, generator=generator) > 0.3).double()


@pytest.mark.parametrize("noise", [shares, hits])
@pytest.mark.parametrize("images", [20, 96])
def test_methods_that_are_the_same_up_to_noise_are_told_apart_in_at_most_7_percent(noise: Any, images: int) -> None:
    """200 data sets: the methods differ by chance alone."""
    generator = Generator().manual_seed(3)
    p = [sign_flip_test(noise(generator, images) - noise(generator, images), flips=1000) for _ in range(200)]
    assert 0 < sum(value < 0.05 for value in p) <= 0.07 * 200


def test_after_holm_a_table_of_equal_methods_rarely_marks_anything() -> None:
    generator, marked = Generator().manual_seed(4), 0
    for _ in range(100):
        p = [sign_flip_test(torch.randn(30, generator=generator), flips=1000) for _ in range(10)]
        marked += min(holm(p)) < 0.05
    assert marked <= 10  # 5 expected; without the correction 40


def test_holm_by_hand_leaves_unknown_values_out() -> None:
    found = holm([0.01, math.nan, 0.04, 0.03, 0.9])
    assert [found[i] for i in (0, 2, 3, 4)] == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert math.isnan(found[1])


def test_no_values_give_no_number_and_nan_is_refused() -> None:
    assert math.isnan(bootstrap_interval(torch.tensor([]))[0]) and math.isnan(sign_flip_test(torch.tensor([])))
    with pytest.raises(ValueError, match=r"^values: expected finite"):
        bootstrap_interval(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match=r"^level: expected"):
        bootstrap_interval(torch.tensor([1.0]), level=1.5)
