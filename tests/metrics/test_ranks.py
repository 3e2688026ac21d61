"""Rank correlation, against scipy where it is installed, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from captum_sgcampp.metrics import average_ranks, spearman


def test_agrees_with_scipy_with_and_without_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    for a in (torch.randn(3, 4, 25, generator=generator), torch.randint(4, (3, 100), generator=generator).float()):
        b = torch.randint(6, a.shape, generator=generator).float()
        found = spearman(a, b)
        for example in range(3):
            x, y = a[example].flatten().numpy(), b[example].flatten().numpy()
            assert found[example].item() == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
            assert average_ranks(a.flatten(1))[example].tolist() == stats.rankdata(x).tolist()


def test_order_alone_counts() -> None:
    a = torch.randn(2, 50)
    assert torch.allclose(spearman(a, a.exp() * 7 - 3), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(spearman(a, -a), -torch.ones(2, dtype=torch.float64))


def test_a_map_of_one_value_has_no_correlation() -> None:
    found = spearman(torch.tensor([[1.0, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [1.0, 2.0]])).tolist()
    assert math.isnan(found[0]) and found[1] == pytest.approx(1)


def test_a_map_that_holds_a_nan_has_no_correlation_and_the_others_keep_theirs() -> None:
    a = torch.tensor([[1.0, math.nan, 3.0], [1.0, 2.0, 3.0]])
    for found in (spearman(a, torch.rand(2, 3).cumsum(1)), spearman(torch.rand(2, 3).cumsum(1), a)):
        assert math.isnan(found[0]) and found[1].item() == pytest.approx(1)
    assert average_ranks(a).isnan().all(1).tolist() == [True, False]


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a, b: expected"):
        spearman(torch.rand(2, 3), torch.rand(2, 4))
