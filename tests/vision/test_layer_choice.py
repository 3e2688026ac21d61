"""Which layer is explained by default, and whether the noise acts there."""

from __future__ import annotations

import pytest
import torch
import torchvision
from networks import ConvNet, PooledNet, images

from captum_sgcampp.vision.layer_choice import deepest_layer, inner_layer, noise_acts


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, deepest, inner",
    [
        ("resnet18", "layer4", "layer3"),
        ("resnet50", "layer4", "layer3"),
        ("vgg11", "features.19", "features.14"),
        ("squeezenet1_1", "features", "features.7"),
        ("mobilenet_v2", "features", "features.14.conv.0"),
        ("densenet121", "features", "features.transition3.relu"),
        ("convnext_tiny", "features", None),
    ],
)
def test_deepest_layer_of_torchvisions_networks_and_an_inner_one(name: str, deepest: str, inner: str | None) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.rand(1, 3, 224, 224)
    assert deepest_layer(model, example) == deepest
    assert inner_layer(model, example, deepest) == inner
    assert not any(module._forward_hooks for module in model.modules())


def test_noise_acts_before_a_fully_connected_head_only() -> None:
    model, pooled = ConvNet(), PooledNet()
    assert noise_acts(model, model.relu2, images(1), 1)
    assert not noise_acts(pooled, pooled.features[4], images(1, channels=3), 1)
    assert noise_acts(pooled, pooled.features[1], images(1, channels=3), 1)


def test_a_model_without_maps_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 3))
    with pytest.raises(ValueError, match=r"^layer: expected .*found"):
        deepest_layer(model, torch.rand(1, 3, 3, 3))
