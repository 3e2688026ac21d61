"""Every method by its name is the class that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from networks import ConvNet, images
from reference import observe

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.vision.methods import METHODS, OF_GRADIENT, Noise, is_smooth, is_two_sided, maps_by

NOISE = Noise(5, 0.2, 7)


def expected(method: str, model: Any, layer: Any, inputs: torch.Tensor, target: int, relu: bool) -> torch.Tensor:
    if method == "grad-cam":
        return LayerGradCam(model, layer).attribute(inputs, target, relu_attributions=relu).detach()
    if method in OF_GRADIENT:
        a, g = zip(*(observe(model, layer, (row[None],), target)[:2] for row in inputs), strict=True)
        maps = OF_GRADIENT[method](torch.stack(a), torch.stack(g)).sum(1, keepdim=True)
        return maps.relu() if relu else maps
    options: dict[str, Any] = {"relu_attributions": relu, "two_sided": "two-sided" in method}
    if "smooth" not in method:
        return LayerGradCamPlusPlus(model, layer).attribute(inputs, target, **options)
    options |= {"nt_samples": 5, "noise_level": 0.2, "generator": torch.Generator().manual_seed(7)}
    return LayerSmoothGradCamPlusPlus(model, layer).attribute(inputs, target, **options)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_gives_the_maps_of_its_class(method: str, relu: bool) -> None:
    model, inputs = ConvNet().eval(), images(2)
    layers = [model.relu1, model.relu2]
    rows = maps_by(method, model, layers, inputs, (1, 3), NOISE, relu=relu)
    for target, row in zip((1, 3), rows, strict=True):
        for layer, found in zip(layers, row, strict=True):
            torch.testing.assert_close(
                found.maps, expected(method, model, layer, inputs, target, relu), rtol=1e-5, atol=1e-7
            )
            assert (found.statistics is not None) == is_smooth(method)


def test_names_tell_the_kind() -> None:
    assert [name for name in METHODS if is_smooth(name)] == ["smooth-grad-cam++", "two-sided-smooth-grad-cam++"]
    assert [name for name in METHODS if is_two_sided(name)] == ["two-sided-grad-cam++", "two-sided-smooth-grad-cam++"]
