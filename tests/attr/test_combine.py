"""Maps of several layers in one, and maps multiplied with other attributions."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from calls import guided_backprop
from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam
from networks import ConvNet, images

from captum_sgcampp import fuse_maps, multiply_by_map


@pytest.mark.parametrize("dims, mode", [(1, "linear"), (2, "bilinear"), (3, "trilinear")])
def test_multiply_by_map_upsamples_linearly_unless_told_otherwise(dims: int, mode: str) -> None:
    attributions, maps = torch.randn(2, 3, *(6,) * dims), torch.randn(2, 1, *(3,) * dims)
    size = (6,) * dims
    expected = attributions * LayerAttribution.interpolate(maps, size, mode)
    assert torch.equal(multiply_by_map(attributions, maps), expected)
    nearest = multiply_by_map((attributions, attributions), maps, "nearest")
    assert torch.equal(nearest[1], attributions * LayerAttribution.interpolate(maps, size, "nearest"))


@pytest.mark.parametrize(
    "attributions, maps, mode, names",
    [
        (torch.ones(2, 3, 8), torch.ones(2, 1, 4, 4), None, "attributions"),
        (torch.ones(3, 3, 8, 8), torch.ones(2, 1, 4, 4), None, "attributions"),
        (torch.ones(2, 3), torch.ones(2, 1), None, "attributions"),
        ([torch.ones(2, 3, 8, 8)], torch.ones(2, 1, 4, 4), None, "attributions"),
        (torch.ones(2, 3, 8, 8), torch.ones(2, 3, 4, 4), None, "maps"),
        (torch.ones(2, 3, 8, 8), torch.ones(2, 4, 4, 4), None, "maps"),
        (torch.ones(2, 3, 8, 8), (torch.ones(2, 1, 4, 4),), None, "maps"),
        (torch.ones(2, 3, 8, 8), torch.ones(2, 1, 4, 4), "linear", "interpolate_mode"),
        (torch.ones(2, 3, 8, 8), torch.ones(2, 1, 4, 4), "best", "interpolate_mode"),
    ],
)
def test_multiply_by_map_refuses_what_does_not_fit(attributions: Any, maps: Any, mode: Any, names: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{names}: expected .*found"):
        multiply_by_map(attributions, maps, mode)


def test_the_product_with_grad_cam_is_captums_guided_grad_cam() -> None:
    model, x = ConvNet(), images()
    maps = LayerGradCam(model, model.pool).attribute(x, 1, relu_attributions=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captums = GuidedGradCam(model, model.pool).attribute(x, 1)
    assert torch.equal(multiply_by_map(guided_backprop(model, x, 1), maps, "nearest"), captums)


def test_fused_maps_are_the_mean_of_upsampled_maps_of_norm_one() -> None:
    small, large = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 8, 8)
    up = torch.nn.functional.interpolate(small, (8, 8), mode="bilinear")
    parts = [m / m.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) for m in (up, large)]
    assert torch.allclose(fuse_maps([small, large], (8, 8)), sum(parts) / 2)
    assert torch.allclose(fuse_maps([1000 * small, large], (8, 8)), fuse_maps([small, large], (8, 8)))
    assert not fuse_maps([torch.zeros(1, 1, 4, 4)], (8, 8)).any()
    assert fuse_maps([torch.rand(1, 1, 4), torch.rand(1, 1, 9)], (12,)).shape == (1, 1, 12)
    with pytest.raises(ValueError, match=r"^maps: expected .*found"):
        fuse_maps([], (8, 8))
    with pytest.raises(ValueError, match=r"^maps: expected .*found"):
        fuse_maps([small, torch.rand(3, 1, 8, 8)], (8, 8))
