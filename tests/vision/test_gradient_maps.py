"""Grad-CAM in one pass: Captum's maps where Captum has them, plain autograd where it has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from _asserts import close
from captum.attr import LayerGradCam
from networks import ConvNet, PooledNet, images
from torch import Tensor, nn

from captum_sgcampp.attr.reshape_transforms import TokenGrid
from captum_sgcampp.vision.gradient_maps import gradient_maps


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_maps_of_all_targets_and_layers_are_captums(relu: bool, inplace: bool) -> None:
    model, inputs, targets = ConvNet(inplace=inplace), images(2), [0, 3, 4]
    layers = [model.conv1, model.relu2]
    found = gradient_maps(model, layers, inputs, targets, relu_attributions=relu)
    for target, row in zip(targets, found, strict=True):
        for layer, maps in zip(layers, row, strict=True):
            assert close(maps, LayerGradCam(model, layer).attribute(inputs, target, relu_attributions=relu), 1e-6)


def test_a_selection_takes_part_of_captums_terms() -> None:
    model, inputs = ConvNet(), images(1)
    ((found,),) = gradient_maps(
        model, [model.relu2], inputs, [1], selection={"feature_maps": [1, 4], "neurons": np.s_[2:5, 0:3]}
    )
    terms = LayerGradCam(model, model.relu2).attribute(inputs, 1, attr_dim_summation=False)
    expected = torch.zeros_like(found)
    expected[:, :, 2:5, 0:3] = terms[:, [1, 4], 2:5, 0:3].sum(1, keepdim=True)
    assert close(found, expected, 1e-6)


def test_maps_of_tokens_are_those_of_plain_autograd() -> None:
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(vit.heads.head.weight)
    layer, inputs = vit.encoder.layers[-1].ln_1, torch.rand(2, 3, 32, 32)
    ((found,),) = gradient_maps(vit, [layer], inputs, [7], reshape_transform=TokenGrid())
    kept: list[Tensor] = []
    layer.register_forward_hook(lambda module, args, output: kept.append(output))
    (g,) = torch.autograd.grad(vit(inputs)[:, 7].sum(), kept)
    a, g = (tokens[:, 1:].detach().mT.reshape(2, 16, 4, 4) for tokens in (kept[0], g))
    assert close(found, (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True), 1e-5)


def test_one_forward_pass_gives_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = PooledNet(), []
    model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    gradient_maps(model, [model.features[1], model.features[4]], images(1, channels=3), [0, 1, 2, 3])
    assert passes == [1]
