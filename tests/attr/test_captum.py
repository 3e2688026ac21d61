"""The classes stand where Captum's `LayerGradCam` stands, and Captum's other parts accept their results."""

from __future__ import annotations

import inspect
from typing import Any

import matplotlib
import pytest
import torch
from calls import METHODS
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from networks import ConvNet, PooledNet, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

matplotlib.use("Agg")


def conv_input() -> Tensor:
    return torch.arange(16).view(1, 1, 4, 4).float()


def leaf_with_a_negative_value() -> Tensor:
    x = conv_input()
    x[0, 0, 1, 1] = -4.0
    return x.requires_grad_()


# The calls of Captum's own tests of LayerGradCam (tests/attr/layer/test_layer_grad_cam.py).
NAMES = [
    "non_conv", "multi_input_non_conv", "conv", "split_channels", "no_grad_parameters", "conv_relu", "layer_input",
    "layer_input_relu", "multi_input_conv", "unused_layer",
]  # fmt: skip


def calls() -> dict[str, tuple[nn.Module, Any, dict[str, Any]]]:
    models = pytest.importorskip("captum.testing.helpers.basic_models", reason="captum 0.8 ships no test models")
    multi, conv = models.BasicModel_MultiLayer(), models.BasicModel_ConvNet_One_Conv()
    two = models.BasicModel_MultiLayer(multi_input_module=True)
    frozen = models.BasicModel_ConvNet_One_Conv()
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    return {
        "non_conv": (multi, multi.linear0, {"inputs": torch.tensor([[0.0, 100.0, 0.0]], requires_grad=True)}),
        "multi_input_non_conv": (two, two.multi_relu, {"inputs": torch.tensor([[0.0, 6.0, 0.0]], requires_grad=True)}),
        "conv": (conv, conv.conv1, {"inputs": conv_input()}),
        "split_channels": (conv, conv.conv1, {"inputs": conv_input(), "attr_dim_summation": False}),
        "no_grad_parameters": (frozen, frozen.conv1, {"inputs": conv_input()}),
        "conv_relu": (conv, conv.relu1, {"inputs": conv_input()}),
        "layer_input": (
            conv,
            conv.conv1,
            {"inputs": leaf_with_a_negative_value(), "attribute_to_layer_input": True},
        ),
        "layer_input_relu": (
            conv,
            conv.conv1,
            {"inputs": leaf_with_a_negative_value(), "attribute_to_layer_input": True, "relu_attributions": True},
        ),
        "multi_input_conv": (conv, conv.conv1, {"inputs": (conv_input(), torch.ones(1, 1, 4, 4))}),
        "unused_layer": (
            two,
            two.relu,
            {"inputs": torch.tensor([[0.0, 6.0, 0.0]]), "grad_kwargs": {"materialize_grads": True}},
        ),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_calls_of_captums_own_tests_work_unchanged(name: str, method: Any) -> None:
    assert list(calls()) == NAMES
    model, layer, arguments = calls()[name]
    captums = LayerGradCam(model, layer).attribute(target=0, additional_forward_args=None, **arguments)
    model, layer, arguments = calls()[name]
    instance = method(model, layer)
    assert instance.multiplies_by_inputs == LayerGradCam(model, layer).multiplies_by_inputs
    ours = instance.attribute(target=0, additional_forward_args=None, **arguments)
    assert type(ours) is type(captums)
    for found, expected in zip(
        ours if isinstance(ours, tuple) else (ours,), captums if isinstance(captums, tuple) else (captums,), strict=True
    ):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert not found.requires_grad and found.is_contiguous()
        if arguments.get("relu_attributions"):
            assert (found >= 0).all()
        if name == "unused_layer":
            assert not found.any()


def test_positional_part_of_the_signature_is_layer_grad_cams() -> None:
    captums = list(inspect.signature(LayerGradCam.attribute).parameters.values())
    for method in METHODS:
        ours = list(inspect.signature(method.attribute).parameters.values())
        positional = [p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in captums]
        constructor = inspect.signature(method.__init__).parameters.values()
        positional = [p.name for p in constructor if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == list(inspect.signature(LayerGradCam.__init__).parameters)


def test_noise_tunnel_around_grad_cam_plus_plus_averages_finished_maps() -> None:
    model, x = ConvNet(), images()
    tunnel = NoiseTunnel(LayerGradCamPlusPlus(model, model.relu1))
    still = tunnel.attribute(x, nt_samples=3, stdevs=0.0, target=1)
    assert torch.allclose(still, LayerGradCamPlusPlus(model, model.relu1).attribute(x, 1), rtol=1e-5)
    noisy = tunnel.attribute(x, nt_samples=4, nt_samples_batch_size=3, stdevs=0.5, target=[1, 2])
    assert noisy.shape == still.shape and not torch.allclose(noisy, still, rtol=0.01)


def test_interpolate_and_visualize_accept_the_map() -> None:
    model, x = PooledNet(), images(1, channels=3)
    attributions = LayerSmoothGradCamPlusPlus(model, model.features).attribute(x, 0, nt_samples=2)
    upsampled = LayerAttribution.interpolate(attributions, (8, 8), "bilinear")
    figure, _ = viz.visualize_image_attr(
        upsampled[0].permute(1, 2, 0).numpy(),
        x[0].permute(1, 2, 0).sigmoid().numpy(),
        method="blended_heat_map",
        sign="positive",
        use_pyplot=False,
    )
    assert figure.axes


@pytest.mark.parametrize("method", METHODS)
def test_infidelity_and_sensitivity_accept_the_map(method: Any) -> None:
    model, x = PooledNet(), images(2, channels=3)
    instance = method(model, model.features)

    def explain(inputs: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        # sensitivity_max needs a function that returns a tuple wherever its inputs are one.
        maps = instance.attribute(inputs, **kwargs)
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        return (LayerAttribution.interpolate(maps, tuple(inputs.shape[2:])).expand_as(inputs).contiguous(),)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.01 * torch.randn_like(inputs)
        return noise, inputs - noise

    value = infidelity(model, perturb, x, explain(x, target=1)[0], target=1, n_perturb_samples=3)
    assert value.shape == (2,) and torch.isfinite(value).all()
    change = sensitivity_max(explain, x, target=1, n_perturb_samples=3)
    assert change.shape == (2,) and torch.isfinite(change).all()
