"""Guided Grad-CAM++ stands where Captum's Guided Grad-CAM stands, and is the product that it says it is."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from _asserts import left_as_it_was
from calls import guided_backprop, seeded
from captum.attr import GuidedGradCam, NoiseTunnel
from networks import ConvNet, TwoInputs, images
from torch import Tensor, nn

from captum_sgcampp import (
    GuidedGradCamPlusPlus,
    GuidedSmoothGradCamPlusPlus,
    LayerGradCamPlusPlus,
    LayerSmoothGradCamPlusPlus,
    multiply_by_map,
)

METHODS = [GuidedGradCamPlusPlus, GuidedSmoothGradCamPlusPlus]

MAPS = {GuidedGradCamPlusPlus: LayerGradCamPlusPlus, GuidedSmoothGradCamPlusPlus: LayerSmoothGradCamPlusPlus}


def same_noise(method: Any) -> dict[str, Any]:
    """Arguments that make the noise the same in two calls."""
    if method is GuidedGradCamPlusPlus:
        return {}
    return {"nt_samples": 4, "noise_level": 0.3, "generator": seeded(3)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims, mode", [(1, "linear"), (2, "bilinear"), (2, "nearest"), (3, "trilinear")])
@pytest.mark.parametrize("inplace", [False, True])
def test_it_is_the_product_of_guided_backprop_and_the_upsampled_map(
    method: Any, dims: int, mode: str, inplace: bool
) -> None:
    model, x = ConvNet(dims, inplace), images(2, dims=dims)
    options: dict[str, Any] = {"feature_maps": [0, 1, 3], "bound_alpha": True, "attribute_to_layer_input": True}
    with left_as_it_was(model), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = method(model, model.pool).attribute(x, [1, 3], interpolate_mode=mode, **options, **same_noise(method))
    maps = MAPS[method](model, model.pool).attribute(x, [1, 3], relu_attributions=True, **options, **same_noise(method))
    upsampled = nn.functional.interpolate(maps, (8,) * dims, mode=mode)
    expected = guided_backprop(model, x, [1, 3]) * upsampled
    assert found.shape == x.shape and found.is_contiguous() and not found.requires_grad and found.any()
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)
    assert not x.requires_grad and x.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_in_front_of_a_pooling_gives_a_map_of_lower_resolution_upsampled(method: Any) -> None:
    model, x = ConvNet(), images(1)
    found = method(model, model.pool).attribute(x, 1, **same_noise(method))
    maps = MAPS[method](model, model.pool).attribute(x, 1, relu_attributions=True, **same_noise(method))
    assert maps.shape == (1, 1, 4, 4)
    by_hand = guided_backprop(model, x, 1) * maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(found, by_hand)


# The calls of Captum's own tests of GuidedGradCam (tests/attr/test_guided_grad_cam.py): layer, inputs, arguments, and
# which inputs get an empty tensor.
ROW = torch.arange(16.0).view(1, 1, 4, 4)

CALLS: list[tuple[str, Any, dict[str, Any], list[bool]]] = [
    ("relu1", ROW, {}, [False]),
    ("conv1", (ROW, torch.ones(1, 1, 4, 4)), {}, [False, False]),
    ("relu1", (ROW, torch.ones(1, 1, 4, 4)), {"attribute_to_layer_input": True}, [False, False]),
    ("conv1", (ROW, torch.ones(1)), {}, [False, True]),
    ("conv1", (ROW, torch.ones(1)), {"interpolate_mode": "triilinear"}, [True, True]),
]


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:Couldn't appropriately")
@pytest.mark.filterwarnings("ignore:inputs. the map cannot be upsampled")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer, inputs, arguments, empty", CALLS)
def test_calls_of_captums_own_tests_work_unchanged(
    layer: str, inputs: Any, arguments: dict[str, Any], empty: list[bool], inplace: bool, method: Any
) -> None:
    models = pytest.importorskip("captum.testing.helpers.basic_models", reason="captum 0.8 ships no test models")
    model = models.BasicModel_ConvNet_One_Conv(inplace=inplace)
    captums = GuidedGradCam(model, model.get_submodule(layer)).attribute(inputs, target=0, **arguments)
    if method is GuidedSmoothGradCamPlusPlus:  # an input of shape (1,) takes one row at a time
        arguments = {**arguments, "nt_samples": 3, "nt_samples_batch_size": 1}
    ours = method(model, model.get_submodule(layer)).attribute(inputs, target=0, **arguments)
    assert type(ours) is type(captums)
    tuples = [value if isinstance(value, tuple) else (value,) for value in (ours, captums)]
    for found, expected, is_empty in zip(*tuples, empty, strict=True):
        assert found.shape == expected.shape and (found.numel() == 0) == is_empty
        assert is_empty or torch.equal(found != 0, expected != 0)


def test_an_input_that_the_map_cannot_be_upsampled_to_is_named_in_a_warning() -> None:
    models = pytest.importorskip("captum.testing.helpers.basic_models", reason="captum 0.8 ships no test models")
    model = models.BasicModel_ConvNet_One_Conv()
    with pytest.warns(UserWarning, match=r"^inputs: the map cannot be upsampled .*found shape \(1,\)"):
        GuidedGradCamPlusPlus(model, model.conv1).attribute((ROW, torch.ones(1)), 0)


@pytest.mark.parametrize("method", METHODS)
def test_positional_part_of_the_signature_is_guided_grad_cams(method: Any) -> None:
    for name in ("__init__", "attribute"):
        captums = list(inspect.signature(getattr(GuidedGradCam, name)).parameters.values())
        ours = list(inspect.signature(getattr(method, name)).parameters.values())
        positional = [p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in captums]


@pytest.mark.parametrize("method", METHODS)
def test_the_keyword_arguments_are_those_of_the_map(method: Any) -> None:
    model, of_the_map = ConvNet(), inspect.signature(MAPS[method].attribute).parameters
    defaults = {p: v.default for p, v in of_the_map.items() if v.kind is v.KEYWORD_ONLY}
    defaults |= {"nt_samples": 3} if "nt_samples" in defaults else {}
    method(model, model.relu1).attribute(images(), 1, **defaults)
    for name in ("relu_attributions", "attr_dim_summation", "grad_kwargs", "nt_sample"):
        with pytest.raises(TypeError, match=f"^{name}: expected an argument among .*feature_maps"):
            method(model, model.relu1).attribute(images(), 1, **{name: True})


def test_several_inputs_and_an_argument_per_example() -> None:
    model = TwoInputs()
    a, b = images(3, 1, size=6), images(3, 1, size=6, seed=2)
    gain = torch.tensor([1.0, -2.0, 3.0])

    class LeftOnly(nn.Module):
        """A layer of one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.left = model, nn.Identity()

        def forward(self, a: Tensor, b: Tensor, gain: Tensor) -> Tensor:
            return self.model(self.left(a), b, gain)

    whole = LeftOnly().eval()
    found = GuidedSmoothGradCamPlusPlus(whole, whole.left).attribute(
        (a, b), 1, gain, "bilinear", nt_samples=3, generator=seeded(), return_statistics=True
    )
    (left, right), statistics = found
    maps = LayerSmoothGradCamPlusPlus(whole, whole.left).attribute(
        (a, b), 1, gain, relu_attributions=True, nt_samples=3, generator=seeded()
    )
    expected = multiply_by_map(guided_backprop(whole, (a, b), 1, gain), maps)
    assert left.any() and torch.allclose(left, expected[0]) and torch.allclose(right, expected[1])
    assert statistics.nt_samples.tolist() == [3, 3, 3]
    with left_as_it_was(model), pytest.raises(ValueError, match=r"^layer: expected a layer of one tensor, found 2"):
        GuidedGradCamPlusPlus(model, model.both).attribute((a, b), 1)


def test_noise_tunnel_averages_the_products() -> None:
    model, x = ConvNet(), images()
    method = GuidedGradCamPlusPlus(model, model.relu2)
    still = NoiseTunnel(method).attribute(x, nt_samples=3, stdevs=0.0, target=1)
    assert torch.allclose(still, method.attribute(x, 1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [[-1, -2], torch.tensor([-1, -2]), [-1, 3], [4, -2]], ids=str)
def test_targets_may_count_from_the_last_class(method: Any, target: Any) -> None:
    model, x = ConvNet(), images()
    found = method(model, model.relu1).attribute(x, target, **same_noise(method))
    assert found.any() and torch.equal(found, method(model, model.relu1).attribute(x, [4, 3], **same_noise(method)))


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_refused_and_leaves_everything_as_it_was(method: Any) -> None:
    model, x = ConvNet(), images()
    with pytest.raises(TypeError, match=r"^model: expected .*found function"):
        method(lambda x: model(x), model.relu1)
    with pytest.raises(TypeError, match=r"^layer: expected .*found str; model\.get_submodule\('relu1'\)"):
        method(model, "relu1")
    with pytest.raises(TypeError, match=r"^layer: expected .*found list"):
        method(model, [model.relu1])

    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, unused: Tensor | None = None) -> Tensor:
            return self.model(x.float())

    rounded = Rounded()
    with left_as_it_was(rounded):
        with pytest.raises(TypeError, match=r"^inputs: expected floating-point .*found torch.int64"):
            method(rounded, model.relu1).attribute(x.long(), 1, **({"stdevs": 0.0} if same_noise(method) else {}))
        with pytest.raises(RuntimeError, match=r"^inputs: expected .*found"):
            method(rounded, model.relu1).attribute((x, x), 1)
        with pytest.raises(ValueError, match=r"^target: expected .*found"):
            method(rounded, model.relu1).attribute(x, 9)


def test_errors_of_guided_backpropagation_leave_no_hook() -> None:
    class SecondTimeFails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.calls = ConvNet(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 2:
                raise OSError("gone")
            return self.model(x)

    model = SecondTimeFails()
    with left_as_it_was(model), pytest.raises(OSError, match="gone"):
        GuidedGradCamPlusPlus(model, model.model.relu1).attribute(images(), 1)
