"""With create_graph the maps are differentiable: their derivatives agree with finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from _asserts import left_as_it_was
from calls import seeded
from networks import ConvNet, TwoInputs, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax

GRAPH: Any = {"grad_kwargs": {"create_graph": True}}


def explained(model: nn.Module, layer: nn.Module | list[nn.Module], inputs: Any, options: dict[str, Any]) -> Tensor:
    """All maps in one row, with the same noise each time."""
    options = dict(options)
    if options.pop("smooth", False):
        options |= {"generator": seeded()}
        maps = LayerSmoothGradCamPlusPlus(model, layer).attribute(inputs, **options)
    else:
        maps = LayerGradCamPlusPlus(model, layer).attribute(inputs, **options)
    return torch.cat([part.flatten() for part in (maps if isinstance(maps, list | tuple) else [maps])])


def agrees_with_finite_differences(function: Callable[..., Tensor], tensors: list[Tensor], options: Any) -> None:
    """The derivative of a random sum of the maps with respect to three entries of every tensor."""
    found = function(options | GRAPH)
    assert torch.allclose(found.detach(), function(options), rtol=1e-9, atol=1e-12)
    weights = torch.linspace(-1, 2, len(found), dtype=torch.float64).cos()
    gradients = torch.autograd.grad(weights @ found, tensors)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        largest = gradient.abs().flatten().topk(min(3, gradient.numel())).indices.tolist()
        assert gradient.any()
        for place in largest:
            with torch.no_grad():
                values = []
                for step in (1e-7, -1e-7):
                    tensor.view(-1)[place] += step
                    values.append(float(weights @ function(options)))
                    tensor.view(-1)[place] -= step
            assert gradient.flatten()[place].item() == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("score", ["exp", "sigmoid", "softmax", Softmax((1, 2))], ids=str)
def test_derivatives_of_the_map_are_those_of_finite_differences(score: Any, smooth: bool) -> None:
    model, x = ConvNet().double(), images(2).double().requires_grad_()
    options: dict[str, Any] = {"target": [1, 3], "score": score}
    if smooth:  # several passes, and sums in groups
        options |= {"smooth": True, "nt_samples": 3, "nt_samples_batch_size": 2, "noise_level": 0.1}
    tensors = [model.conv1.weight, model.fc1.weight, x]
    if score != "exp":  # there, the bias is a constant factor of all copies
        tensors.append(model.fc2.bias)
    agrees_with_finite_differences(lambda options: explained(model, model.relu1, x, options), tensors, options)


@pytest.mark.parametrize("options", [{"attribute_to_layer_input": True}, {"bound_alpha": True, "neurons": [(2, 3)]}])
def test_the_other_options_are_differentiable_too(options: dict[str, Any]) -> None:
    model, x = ConvNet(inplace=True).double(), images(1).double()
    tensors = [model.conv1.weight, model.fc1.weight]
    agrees_with_finite_differences(
        lambda options: explained(model, model.conv2, x, options), tensors, options | {"target": 1}
    )


def test_several_inputs_and_tensors() -> None:
    model = TwoInputs().double()
    inputs = tuple(part.double() for part in images(2, channels=2, size=6).unsqueeze(2).unbind(1))
    gain = torch.tensor([1.0, 2.5], dtype=torch.float64, requires_grad=True)
    options = {"target": 1, "additional_forward_args": gain}
    tensors = [model.both.conv.weight, model.out.weight, gain]
    agrees_with_finite_differences(lambda options: explained(model, model.both, inputs, options), tensors, options)


def test_frozen_front_leaves_derivatives_of_the_head() -> None:
    model, x = ConvNet(inplace=True).double(), images(1).double()
    model.conv1.requires_grad_(False)
    agrees_with_finite_differences(
        lambda options: explained(model, model.conv1, x, options), [model.conv2.weight, model.fc1.weight], {"target": 1}
    )


def test_the_model_and_the_grad_mode_stay_as_they_were() -> None:
    model, x = ConvNet(), images()
    with left_as_it_was(model), torch.no_grad():
        maps, statistics = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(
            x, 1, nt_samples=4, return_statistics=True, generator=seeded(), **GRAPH
        )
    assert maps.requires_grad and not any(value.requires_grad for value in vars(statistics).values())
    assert not LayerGradCamPlusPlus(model, model.relu1).attribute(x, 1).requires_grad


def test_combinations_that_are_not_differentiable_are_refused_by_name() -> None:
    model, x = ConvNet(), images()
    with pytest.raises(ValueError, match=r"^grad_kwargs: expected .*auto.*found"):
        LayerSmoothGradCamPlusPlus(model, model.relu1).attribute(x, 1, nt_samples="auto", **GRAPH)
    with pytest.raises(ValueError, match=r"^grad_kwargs: expected .*DataParallel.*found"):
        LayerGradCamPlusPlus(nn.DataParallel(model), model.relu1).attribute(x, 1, **GRAPH)
