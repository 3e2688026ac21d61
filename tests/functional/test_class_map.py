"""alpha, the weights and the map, from the moments."""

from __future__ import annotations

import itertools

import torch
from networks import ConvNet, images

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.functional.class_map import MapOptions, alpha_coefficients, class_map
from captum_sgcampp.functional.moments import MeanDerivatives


def test_alpha_of_one_sample_is_one_over_two_plus_g_sum_a() -> None:
    g, a = torch.tensor([[[0.5, 0.0, -1.0]]]), torch.tensor([[[1.0, 2.0, 3.0]]])
    alpha = alpha_coefficients(g**2, g**3, a)
    assert torch.allclose(alpha, torch.tensor([[[1 / (2 + 0.5 * 6), 0.0, 1 / (2 - 6)]]]))


def test_alpha_is_zero_where_its_denominator_is_exactly_zero() -> None:
    assert alpha_coefficients(torch.ones(1, 1, 1), -torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0)).item() == 0


def test_bound_alpha_takes_the_poles_out() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerGradCamPlusPlus(model, model.conv1)
    free, bounded = (method.attribute(x, 1, score="softmax", bound_alpha=bound) for bound in (False, True))
    assert not torch.allclose(free, bounded)


def test_two_sided_alpha_is_one_over_two_plus_the_magnitude_of_g_sum_a() -> None:
    """Also for feature maps with a negative sum, and for `D_2` of either sign; 0 where `D_2` is 0."""
    g, a = torch.tensor([[[0.5, 0.0, -1.0]]]), torch.tensor([[[1.0, 2.0, 3.0]]])
    expected = torch.tensor([[[1 / (2 + 0.5 * 6), 0.0, 1 / (2 + 6)]]])
    for sign_of_y in (1, -1):
        for sign_of_a in (1, -1):
            alpha = alpha_coefficients(sign_of_y * g**2, sign_of_y * g**3, sign_of_a * a, two_sided=True)
            assert torch.allclose(alpha, expected)
    assert not alpha_coefficients(torch.zeros_like(g), g**3, a, two_sided=True).any()


def test_two_sided_alpha_is_the_papers_where_that_lies_between_0_and_a_half_and_never_leaves_it() -> None:
    generator = torch.Generator().manual_seed(0)
    d2, d3, a = torch.randn(3, 50, 4, 9, generator=generator, dtype=torch.float64).unbind(0)
    papers, two_sided = alpha_coefficients(d2, d3, a), alpha_coefficients(d2, d3, a, two_sided=True)
    inside = (papers >= 0) & (papers <= 0.5)
    assert 0.2 < inside.double().mean() < 0.8
    assert torch.allclose(two_sided[inside], papers[inside], rtol=1e-12)
    assert ((two_sided > 0) & (two_sided <= 0.5)).all()


def test_two_sided_maps_take_magnitudes_of_the_derivatives_and_both_signs_of_the_first() -> None:
    """Every sign of `D_2`, `D_3` and `sum A`, by hand: alpha = 6 / (12 + 3 * 4)."""
    for signs in itertools.product((1.0, -1.0), repeat=4):
        d1, d2, d3, a = (
            sign * torch.full((1, 1, 1), size) for sign, size in zip(signs, (2.0, 6.0, 3.0, 4.0), strict=True)
        )
        moments = MeanDerivatives(d1, d2, d3, scale=torch.ones(1), level=torch.ones(1))
        found = class_map(a, moments, options=MapOptions(two_sided=True))
        assert torch.allclose(found.weights, 0.25 * d1) and torch.allclose(found.maps, 0.25 * d1 * a)
