"""What is probably a mistake is said once per call, where the caller stands; what is none is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from networks import ConvNet, PooledNet, images
from torch import nn

from captum_sgcampp import (
    GuidedGradCamPlusPlus,
    GuidedSmoothGradCamPlusPlus,
    LayerGradCamPlusPlus,
    LayerSmoothGradCamPlusPlus,
)

ZERO = "layer: expected a map with values, found an example whose map is 0 everywhere, because "


def said(call: Callable[[], Any]) -> list[str]:
    """The warnings of a call, without Captum's and torch's own. Each must point to this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    ours = [one for one in caught if ": expected" in str(one.message)]
    assert all(one.filename == __file__ and one.category is UserWarning for one in ours)
    return [str(one.message) for one in ours]


def only(call: Callable[[], Any], beginning: str) -> None:
    (message,) = said(call)
    assert message.startswith(beginning), message


def against_the_class() -> PooledNet:
    """Nothing at the layer raises a score."""
    model = PooledNet()
    with torch.no_grad():
        model.fc.weight.abs_().neg_()
    return model


def test_usual_calls_are_silent() -> None:
    model, x = ConvNet(), images()
    for method in (LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus):
        assert not said(lambda method=method: method(model, [model.relu1, model.relu2]).attribute(x, 1))


def test_a_map_of_zeros_comes_with_its_cause() -> None:
    model, x = against_the_class(), images(channels=3)
    method = LayerGradCamPlusPlus(model, model.features[4])
    only(lambda: method.attribute(x, 1), f"{ZERO}no gradient is positive")
    assert not said(lambda: method.attribute(x, 1, two_sided=True))
    only(lambda: method.attribute(x, 1, two_sided=True, relu_attributions=True), f"{ZERO}relu_attributions=True left")


def test_one_map_of_zeros_in_a_batch_is_enough() -> None:
    model, x = PooledNet(), images(channels=3)
    with torch.no_grad():
        model.fc.weight[0].abs_().neg_()
        model.fc.weight[1].abs_()
    method = LayerGradCamPlusPlus(model, model.features[4])
    assert not said(lambda: method.attribute(x, [1, 1]))
    only(lambda: method.attribute(x, [1, 0]), "layer: expected a map with values")


def test_a_layer_without_influence_is_named_as_such() -> None:
    model, x = PooledNet(), images(channels=3)
    with torch.no_grad():
        model.fc.weight.zero_()
    only(lambda: LayerGradCamPlusPlus(model, model.features[4]).attribute(x, 1), f"{ZERO}the gradient is 0")


def test_zeros_that_were_asked_for_are_no_surprise() -> None:
    model, x = against_the_class(), images(channels=3)
    method = LayerGradCamPlusPlus(model, model.features[4])
    assert not said(lambda: method.attribute(x, 1, feature_maps=0))
    assert not said(lambda: method.attribute(x, 1, neurons=[(0, 0)]))
    assert not said(lambda: method.attribute(x, 1, grad_kwargs={"allow_unused": True}))


@pytest.mark.parametrize("samples", [2, 25, "auto"])
def test_noise_that_changes_nothing_is_named(samples: Any) -> None:
    model, x = PooledNet(), images(channels=3)
    smooth = LayerSmoothGradCamPlusPlus(model, model.features[4])
    only(lambda: smooth.attribute(x, 1, nt_samples=samples), "layer: expected gradients that change with the noise")
    assert not said(lambda: smooth.attribute(x, 1, nt_samples=samples, stdevs=0))
    inner = LayerSmoothGradCamPlusPlus(model, model.features[1])
    assert not said(lambda: inner.attribute(x, 1, nt_samples=samples))


def test_a_sample_with_all_the_weight_is_not_taken_for_equal_gradients() -> None:
    model, x = ConvNet(), images()
    with torch.no_grad():
        model.fc2.weight.mul_(1e4)
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1)
    _, statistics = smooth.attribute(x, 1, return_statistics=True)
    assert (statistics.effective_sample_size < 1.001).all()
    assert not said(lambda: smooth.attribute(x, 1))


@pytest.mark.parametrize("method", [LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus])
def test_probabilities_are_named(method: Any) -> None:
    model, x = ConvNet(), images()
    ended = nn.Sequential(model, nn.Softmax(1)).eval()
    only(lambda: method(ended, model.relu1).attribute(x, 1), "forward_func: expected logits, found rows of numbers")
    only(lambda: method(ended.bfloat16(), model.relu1).attribute(x.bfloat16(), 1), "forward_func: expected logits")


def test_scores_that_are_no_softmax_are_not_taken_for_one() -> None:
    model, x = ConvNet(), images()
    for last in (nn.Sigmoid(), nn.ReLU(), nn.LogSoftmax(1)):
        ended = nn.Sequential(model, last).eval()
        found = said(lambda ended=ended: LayerGradCamPlusPlus(ended, model.relu1).attribute(x, 1))
        assert not any(message.startswith("forward_func") for message in found)


def test_a_noise_tunnel_around_smoothing_is_named() -> None:
    model, x = ConvNet(), images()
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1)
    guided = GuidedSmoothGradCamPlusPlus(model, model.relu1)
    for method in (smooth, guided):
        with pytest.warns(UserWarning, match="^nt_samples: expected Smooth Grad-CAM.. without NoiseTunnel"):
            NoiseTunnel(method).attribute(x, nt_samples=2, target=1)
    for plain in (LayerGradCamPlusPlus, GuidedGradCamPlusPlus):
        assert not said(lambda plain=plain: NoiseTunnel(plain(model, model.relu1)).attribute(x, nt_samples=2, target=1))


def test_auto_that_ends_with_one_sample_in_command_says_so() -> None:
    model, x = ConvNet(), images()
    with torch.no_grad():
        model.fc2.weight.mul_(1e4)
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1)
    only(
        lambda: smooth.attribute(x, 1, nt_samples="auto"), "nt_samples: expected an effective sample size of at least 2"
    )
    assert not said(lambda: smooth.attribute(x, 1, nt_samples=8))


def test_warnings_can_be_silenced_and_made_errors() -> None:
    model, x = PooledNet(), images(channels=3)
    smooth = LayerSmoothGradCamPlusPlus(model, model.features[4])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="layer: ")
        smooth.attribute(x, 1)
    assert not caught
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"^layer: expected gradients that change"):
            smooth.attribute(x, 1)
