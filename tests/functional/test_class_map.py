"""alpha, the weights and the map, from the moments."""

from __future__ import annotations

import torch
from networks import ConvNet, images

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.functional.class_map import alpha_coefficients


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
