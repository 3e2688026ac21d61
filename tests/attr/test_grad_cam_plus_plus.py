"""What holds of the maps of both methods whatever the model is."""

from __future__ import annotations

import gc

import pytest
import torch
from _asserts import close
from calls import smooth
from networks import ConvNet, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


def test_top_feature_maps_are_those_whose_weights_make_the_map() -> None:
    model, x = ConvNet().double(), images(1).double()
    method = LayerGradCamPlusPlus(model, model.relu2)
    weights, indices = method.top_feature_maps(x, 1, k=6)
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach()
    rebuilt = (weights[0, :, None, None] * activation[0, indices[0]]).sum(0)
    assert torch.allclose(rebuilt, method.attribute(x, 1)[0, 0])
    assert (weights.diff() <= 0).all()


def test_top_feature_maps_of_a_batch_are_taken_as_a_selection() -> None:
    model, x = ConvNet(), images(3)
    method = LayerGradCamPlusPlus(model, model.relu1)
    indices = method.top_feature_maps(x, [0, 1, 2], k=2).indices
    found = method.attribute(x, [0, 1, 2], feature_maps=indices)
    for number in range(3):
        alone = method.attribute(x[number : number + 1], number, feature_maps=indices[number].tolist())
        assert torch.allclose(found[number], alone[0], rtol=1e-5)


def test_a_tuple_of_layers_is_explained_as_a_list() -> None:
    model, x = ConvNet(), images()
    layers = model.relu1, model.relu2
    found = LayerGradCamPlusPlus(model, layers).attribute(x, 1)
    assert isinstance(found, list)
    assert all(map(torch.equal, found, LayerGradCamPlusPlus(model, list(layers)).attribute(x, 1)))


def test_permuting_the_batch_permutes_the_maps() -> None:
    model, x = ConvNet().double(), images(4).double()
    order = torch.tensor([2, 0, 3, 1])
    assert close(smooth(model, model.relu1, x[order]), smooth(model, model.relu1, x)[order], 1e-9)


def test_adding_a_constant_to_the_logits_changes_nothing() -> None:
    model, x = ConvNet().double(), images().double()
    moved = smooth(lambda y: model(y) + 900.0, model.relu1, x)
    assert close(moved, smooth(model, model.relu1, x), 1e-9)


def test_results_are_detached_and_inputs_untouched() -> None:
    model, x = ConvNet(), images().requires_grad_()
    version = x._version
    found = smooth(model, model.relu1, x)
    assert not found.requires_grad and found.grad_fn is None and x.grad is None and x._version == version


@pytest.mark.slow
def test_a_thousand_calls_do_not_grow_memory() -> None:
    model, x = ConvNet(), images(1)
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    for _ in range(100):
        method.attribute(x, 1, nt_samples=2)
    gc.collect()
    count, memory = tensors(), resident()
    gc.disable()
    try:
        for _ in range(1000):
            method.attribute(x, 1, nt_samples=2)
        leaked = tensors() - count
    finally:
        gc.enable()
    assert leaked <= 10
    assert resident() - memory < 8 * 2**20


def test_no_state_is_left_on_the_method() -> None:
    model = ConvNet()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    before = dict(vars(method))
    method.attribute(images(), 1, nt_samples=2)
    method.top_feature_maps(images(), 1, k=2, nt_samples=2)
    assert vars(method) == before


def test_grad_cam_plus_plus_of_a_known_case_by_hand() -> None:
    """One feature map of two positions behind which S = 3 a + 0 b: g = (3, 0), alpha = 1 / (2 + 3 * sum A)."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2, 1))
    model[2].weight.data = torch.tensor([[3.0, 0.0]])
    x = torch.tensor([[[1.0, 4.0]]])
    found = LayerGradCamPlusPlus(model, model[0]).attribute(x, target=0)
    w = 3 / (2 + 3 * 5)
    assert torch.allclose(found, torch.tensor([[[w * 1.0, w * 4.0]]]))
