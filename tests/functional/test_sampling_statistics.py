"""The statistics that go with a map: standard error, effective sample size, shares of poles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calls import seeded
from networks import ConvNet, images
from torch import Tensor

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.sampling_statistics import jackknife_standard_error, pole_shares


def test_pole_shares_count_positions_and_weight() -> None:
    alpha = torch.tensor([[[0.4, 0.6, -0.1, 0.5, 7.0]]])
    d1 = torch.tensor([[[1.0, 2.0, 3.0, -1.0, 0.0]]])
    positions, weight = pole_shares(alpha, d1)
    assert positions.item() == pytest.approx(2 / 3)
    assert weight.item() == pytest.approx((1.2 + 0.3) / (0.4 + 1.2 + 0.3))
    only_first = torch.tensor([True, False, False, False, False])
    assert [share.item() for share in pole_shares(alpha, d1, only_first)] == [0, 0]
    assert [share.item() for share in pole_shares(alpha, -d1.abs())] == [0, 0]


@pytest.mark.parametrize("copies, groups", [(6, 6), (25, 10), (7, 3)])
def test_jackknife_of_a_mean_is_its_textbook_standard_error(copies: int, groups: int) -> None:
    """For a mean far from the origin the norm divides by a constant; groups of one give sd / sqrt(n) exactly."""
    generator = seeded()
    repeats = 400
    noise = torch.randn(repeats, copies, 3, generator=generator, dtype=torch.float64)
    noise[..., 0] = 0  # along the mean the norm would take the variation out
    values = torch.tensor([1e4, 0, 0], dtype=torch.float64) + noise
    whole = values.sum(1)
    without = [whole - values[:, g::groups].sum(1) for g in range(groups)]
    found = jackknife_standard_error(whole, without, torch.full((len(whole),), copies)) * 1e4
    if groups == copies:
        textbook = (values.var(1).sum(1) / copies).sqrt()
        assert torch.allclose(found, textbook, rtol=1e-3)
    assert found.square().mean().sqrt().item() == pytest.approx((2 / copies) ** 0.5, rel=0.1)


def test_standard_error_of_one_copy_is_not_a_number() -> None:
    model = ConvNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(), 1, nt_samples=1, return_statistics=True
    )
    assert statistics.standard_error.isnan().all() and statistics.effective_sample_size.tolist() == [1, 1]


def test_standard_error_tells_the_distance_between_independent_maps() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu2)

    def draw(seed: int, n: int) -> tuple[Tensor, float]:
        found, statistics = method.attribute(
            x, 1, nt_samples=n, generator=seeded(seed), return_statistics=True, bound_alpha=True
        )
        return found / found.norm(), statistics.standard_error.item()

    limit, _ = draw(1000, 4000)
    draws = [draw(seed, 16) for seed in range(40)]
    error = np.sqrt(np.mean([(found - limit).norm().item() ** 2 for found, _ in draws]))
    estimate = np.sqrt(np.mean([estimate**2 for _, estimate in draws]))
    assert 0.6 < estimate / error < 1.6


def test_statistics_are_frozen_and_per_example() -> None:
    model = ConvNet()
    _, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
        images(3), 1, nt_samples=6, return_statistics=True
    )
    for value in vars(statistics).values():
        assert value.shape == (3,)
    assert statistics.nt_samples.tolist() == [6, 6, 6]
    assert ((statistics.effective_sample_size >= 1) & (statistics.effective_sample_size <= 6)).all()
    with pytest.raises(AttributeError):
        statistics.nt_samples = 3


def test_statistics_do_not_change_the_map() -> None:
    model = ConvNet().double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    options = {"nt_samples": 7, "target": 1}
    plain = method.attribute(images().double(), generator=seeded(), **options)
    found, _ = method.attribute(images().double(), generator=seeded(), return_statistics=True, **options)
    assert torch.allclose(found, plain, rtol=1e-12)
