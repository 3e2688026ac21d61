"""Classes of one picture: shared passes, honest notes, and no maps of NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from _asserts import close
from networks import ConvNet, PooledNet, images
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.attr.reshape_transforms import TokenGrid
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explained_classes import (
    MOST_CLASSES,
    Subject,
    classified,
    explained,
)
from captum_sgcampp.vision.layer_choice import ChosenLayer
from captum_sgcampp.vision.methods import METHODS, Noise
from captum_sgcampp.vision.suited_layers import suited_layers

PICTURE = Image.new("RGB", (8, 8))
NOISE = Noise(6, 0.2, seed=3)
LAYERS = [ChosenLayer("relu1"), ChosenLayer("relu2")]


def subjects(*targets: int, inputs: Tensor | None = None) -> list[Subject]:
    inputs = images(1) if inputs is None else inputs
    return [Subject("x.png", PICTURE, inputs, target, str(target)) for target in targets]


class WithTwoFamilies(nn.Module):
    """Convolutional maps, and then tokens of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 8, 2, 2), nn.ReLU())
        self.tokens = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(6 * 16, 9), nn.ReLU(), nn.Linear(9, 5))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(self.conv(x).flatten(2).mT).flatten(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nt_samples", [6, "auto"])
def test_all_classes_and_layers_share_the_passes_of_one(method: str, nt_samples: Any) -> None:
    model, passes = ConvNet(), []
    model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    noise = replace(NOISE, nt_samples=nt_samples)
    together = explained(model, LAYERS, method, subjects(0, 1, 3), noise)
    rows = sum(passes)
    assert len(together) == 6 and all(one.maps.any() for one in together.values())
    samples = {one.nt_samples for one in together.values()}
    assert samples == {None} if "smooth" not in method else len(samples) == 1
    assert rows == 1 + (next(iter(samples)) or 0)


@pytest.mark.parametrize("method", METHODS)
def test_together_gives_the_maps_of_single_calls(method: str) -> None:
    model = ConvNet()
    together = explained(model, LAYERS, method, subjects(0, 2, 4), NOISE)
    for (target, name), one in together.items():
        layer = ChosenLayer(name)
        ((key, alone),) = explained(model, [layer], method, subjects(target), NOISE).items()
        assert key == (target, name) and one.note == alone.note
        torch.testing.assert_close(one.maps, alone.maps, rtol=1e-6, atol=1e-6 * float(alone.maps.max()))


def test_two_sided_methods_are_those_of_the_classes() -> None:
    model, options = ConvNet(), {"relu_attributions": True, "two_sided": True}
    noise = {"nt_samples": 6, "noise_level": 0.2, "generator": torch.Generator().manual_seed(3)}
    plain = LayerGradCamPlusPlus(model, model.relu1).attribute(images(1), 1, **options)
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(images(1), 1, **options, **noise)
    for method, expected in (("grad-cam++", plain), ("smooth-grad-cam++", smooth)):
        ((_, one),) = explained(model, LAYERS[:1], f"two-sided-{method}", subjects(1), NOISE).items()
        assert isinstance(expected, Tensor) and close(one.maps, expected, 1e-6)


def test_many_classes_are_explained_in_several_calls() -> None:
    """So that memory does not grow with their number. The samples are the same."""
    model, passes, count = ConvNet(), [], 2 * MOST_CLASSES + 1
    model.fc2 = nn.Linear(16, count)
    model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    found = explained(model, LAYERS[:1], "smooth-grad-cam++", subjects(*range(count)), NOISE)
    assert len(found) == count and sum(passes) >= 3 * 7
    ((key, alone),) = explained(model, LAYERS[:1], "smooth-grad-cam++", subjects(count - 2), NOISE).items()
    torch.testing.assert_close(found[key].maps, alone.maps, rtol=1e-6, atol=1e-6 * float(alone.maps.max()))


def test_layers_of_two_families_get_their_own_transforms() -> None:
    torch.manual_seed(0)
    model, grid = WithTwoFamilies(), TokenGrid((4, 4), 0)
    layers = [ChosenLayer("conv"), ChosenLayer("tokens", grid)]
    found = explained(model, layers, "grad-cam++", subjects(1, 3), NOISE)
    for target in (1, 3):
        for name, transform in (("conv", None), ("tokens", grid)):
            method = LayerGradCamPlusPlus(model, model.get_submodule(name), reshape_transform=transform)
            expected = method.attribute(images(1), target, relu_attributions=True)
            assert isinstance(expected, Tensor) and close(found[target, name].maps, expected, 1e-6)


def test_every_class_and_layer_has_its_own_selection() -> None:
    model = ConvNet()
    selections = {
        (0, "relu1"): {"feature_maps": [1]},
        (2, "relu1"): {"feature_maps": [0, 2]},
        (2, "relu2"): {"neurons": np.s_[0:4, 2:8]},
    }
    found = explained(model, LAYERS, "smooth-grad-cam++", subjects(0, 2), NOISE, selections)
    for (target, name), one in found.items():
        expected = LayerSmoothGradCamPlusPlus(model, model.get_submodule(name)).attribute(
            images(1),
            target,
            relu_attributions=True,
            nt_samples=6,
            noise_level=0.2,
            generator=torch.Generator().manual_seed(3),
            **selections.get((target, name), {}),
        )
        assert isinstance(expected, Tensor) and close(one.maps, expected, 1e-6)


def test_the_note_tells_how_many_samples_there_were() -> None:
    model = ConvNet()
    ((_, one),) = explained(
        model, LAYERS[:1], "smooth-grad-cam++", subjects(0), replace(NOISE, nt_samples="auto")
    ).items()
    assert one.nt_samples is not None and f", {one.nt_samples} samples, standard error " in one.note
    ((_, one),) = explained(model, LAYERS[:1], "smooth-grad-cam++", subjects(0), replace(NOISE, nt_samples=1)).items()
    assert ", 1 sample, standard error unknown, " in one.note and "mostly" not in one.note


def test_the_note_tells_when_one_sample_decides() -> None:
    """Scores that differ by hundreds: `exp` leaves the largest."""
    model = ConvNet()
    with torch.no_grad():
        model.fc2.weight *= 1000
    call = explained(model, LAYERS[:1], "smooth-grad-cam++", subjects(0), replace(NOISE, noise_level=2.0))
    ((_, one),) = call.items()
    assert "6 samples, mostly one sample, standard error" in one.note and "effective sample size 1.0" in one.note
    call = explained(ConvNet(), LAYERS[:1], "smooth-grad-cam++", subjects(0), replace(NOISE, nt_samples=2))
    ((_, one),) = call.items()
    assert "2 samples, standard error" in one.note


class Signed(nn.Module):
    """Activations of at most 0 whose mean is the score of class 0. Class 1 does not depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.negative = nn.LogSigmoid()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        mean = self.negative(self.conv(x)).mean((1, 2, 3))
        return torch.stack([mean, x.mean((1, 2, 3)) + 0 * mean], 1)


@pytest.mark.parametrize("method", METHODS)
def test_maps_without_a_positive_value_tell_why(method: str) -> None:
    found = explained(Signed(), [ChosenLayer("negative")], method, subjects(0, 1), NOISE)
    negative, zero = found[0, "negative"], found[1, "negative"]
    assert not negative.maps.any() and not zero.maps.any()
    assert negative.note.startswith("8 x 8, all negative (the ReLU leaves nothing)")
    both_signs = method in ("grad-cam", "hires-cam") or method.startswith("two-sided")
    assert zero.note.startswith(f"8 x 8, all zero (no {'' if both_signs else 'positive '}gradient)")


@pytest.mark.filterwarnings("error")
def test_tokens_that_do_not_count_are_all_zero() -> None:
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(vit.heads.head.weight)
    layer = ChosenLayer("encoder.ln", TokenGrid())
    inputs = torch.rand(1, 3, 32, 32)
    ((_, one),) = explained(vit, [layer], "grad-cam", subjects(3, inputs=inputs), NOISE).items()
    assert one.note == "4 x 4, all zero (no gradient)"


class Broken(nn.Module):
    """NaN where it is told: in the gradient only, or in the scores."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.conv, self.where = nn.Conv2d(2, 3, 1), where
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x)
        pooled = a.mean((2, 3))
        if self.where == "scores":
            return pooled * torch.nan
        return pooled + torch.sqrt(0 * a.square().sum((2, 3)))  # 0, with the gradient 0 * infinity


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["gradient", "scores"])
def test_maps_of_nan_are_an_error(method: str, where: str) -> None:
    with pytest.raises(RuntimeError, match=r"^(model|forward_func): expected finite .*found NaN"):
        explained(Broken(where), [ChosenLayer("conv")], method, subjects(0), NOISE)


def classifier(model: nn.Module, count: int) -> Classifier:
    names = [str(number) for number in range(count)]
    return Classifier("own", model, names, lambda picture: images(1), lambda picture: picture, independent=False)


def test_scores_must_be_finite_and_one_for_each_class() -> None:
    cpu = torch.device("cpu")
    assert classified(classifier(ConvNet(), 5), PICTURE, cpu)[1].shape == (5,)
    with pytest.raises(RuntimeError, match=r"^model: expected finite scores, found NaN or infinity from own$"):
        classified(classifier(Broken("scores"), 3), PICTURE, cpu)
    with pytest.raises(ValueError, match=r"^model: expected scores of shape \(1, 4\), found \(1, 5\)$"):
        classified(classifier(ConvNet(), 4), PICTURE, cpu)


def test_the_layers_that_suit_bring_their_transforms() -> None:
    layers, reasons = suited_layers(PooledNet(), subjects(1, inputs=images(1, channels=3))[0], smooth=True)
    assert layers == [ChosenLayer("features"), ChosenLayer("features.1")] and len(reasons) == 2
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(vit.heads.head.weight)
    layers, reasons = suited_layers(vit, subjects(1, inputs=torch.rand(1, 3, 32, 32))[0], smooth=True)
    assert layers == [ChosenLayer("encoder.layers.encoder_layer_1.ln_1", TokenGrid((4, 4), 1))] and len(reasons) == 1
