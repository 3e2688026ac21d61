"""The bundled network is plain, small, loads without a network connection and knows where things are."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from captum_sgcampp.bundled import CLASSES, Scene, ShapesVGG, draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.bundled.network import WEIGHTS


@pytest.fixture(scope="module")
def network() -> ShapesVGG:
    return load_shapes_vgg()


def network_input(scene: Scene) -> Tensor:
    return preprocess(Image.fromarray(scene.image))


def test_weights_are_part_of_the_package_and_small() -> None:
    weights = resources.files("captum_sgcampp.bundled").joinpath(WEIGHTS).read_bytes()
    assert 100_000 < len(weights) < 2_000_000


def test_is_plain_and_ready(network: ShapesVGG) -> None:
    plain = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Dropout, nn.Linear)
    layers = [*network.features, *network.classifier]
    assert all(isinstance(layer, plain) for layer in layers)
    assert not any(layer.inplace for layer in layers if isinstance(layer, nn.ReLU))
    assert len({id(layer) for layer in layers}) == len(layers)
    assert not any(module.training for module in network.modules())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_documented_layers(network: ShapesVGG) -> None:
    assert isinstance(network.features[13], nn.Conv2d) and isinstance(network.features[14], nn.ReLU)
    images = torch.zeros(2, 3, 128, 128)
    assert network.features[:15](images).shape == (2, network.channels, 16, 16)
    assert network.features(images).shape == (2, network.channels, 4, 4)
    assert network(images).shape == (2, len(CLASSES))


def test_loads_the_same_network_every_time(network: ShapesVGG) -> None:
    scene = network_input(draw_scene(0))
    assert torch.equal(network(scene), load_shapes_vgg()(scene))


@pytest.mark.parametrize("mode, size", [("RGB", 128), ("RGBA", 128), ("L", 200), ("P", 40)])
def test_preprocess_takes_every_picture(mode: str, size: int) -> None:
    batch = preprocess(Image.new("RGB", (size, size), "white").convert(mode))
    assert batch.shape == (1, 3, 128, 128) and batch.dtype == torch.float32
    assert torch.equal(batch, torch.full_like(batch, 2.0))


def test_preprocess_keeps_pixels_and_their_order() -> None:
    scene = draw_scene(3)
    pixels = ((preprocess(Image.fromarray(scene.image))[0] * 0.25 + 0.5) * 255).round()
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), scene.image)


def test_names_the_shapes_of_a_scene(network: ShapesVGG) -> None:
    for index in range(len(CLASSES)):
        scene = draw_scene(100 + index, classes=[index, index, (index + 3) % len(CLASSES)])
        likely = network(network_input(scene))[0].sigmoid() > 0.5
        assert likely.tolist() == scene.labels.astype(bool).tolist()


def test_gradient_depends_on_the_position_and_on_the_noise(network: ShapesVGG) -> None:
    # Behind global average pooling it would not, and Smooth Grad-CAM++ would equal Grad-CAM++.
    clean = network_input(draw_scene(5, classes=[3, 0]))
    gradients = []
    for noise in (0.0, 0.6):
        maps = network.features[:15](clean + noise * torch.randn_like(clean)).detach().requires_grad_()
        logit = network.classifier(network.features[15](maps))[0, 3]
        (gradient,) = torch.autograd.grad(logit, maps)
        assert (gradient.amax((2, 3)) > gradient.amin((2, 3))).float().mean() > 0.9
        gradients.append(gradient / gradient.norm())
    assert (gradients[0] - gradients[1]).norm() > 0.02


def both_light_up(network: ShapesVGG, scene: Scene) -> bool:
    """Whether both of the first two objects hold a peak of at least half of the map's highest value."""
    heat = LayerGradCam(network, network.features[14]).attribute(
        network_input(scene), scene.classes[0], relu_attributions=True
    )
    peaks = (heat == max_pool2d(heat, 3, 1, 1)) & (heat >= 0.5 * heat.max())
    near = max_pool2d(torch.from_numpy(scene.masks[:2]).float(), 11, 1, 5)
    # The pixel in the middle of every one of the map's 16 x 16 cells.
    return bool((peaks[0] & (near[:, 4::8, 4::8] > 0)).any((1, 2)).all())


def test_explanations_show_both_objects_of_a_class(network: ShapesVGG) -> None:
    scenes = [draw_scene(seed, classes=[seed % 8, seed % 8, (seed + 1 + seed // 8) % 8]) for seed in range(40)]
    shares = np.mean([both_light_up(network, scene) for scene in scenes])
    assert shares >= 0.85
