"""Several targets and several layers in one pass; chunks that memory has room for."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from _asserts import close
from calls import seeded
from networks import ConvNet, PooledNet, TwoInputs, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


@pytest.mark.parametrize("score", ["exp", "sigmoid", "softmax"])
def test_several_targets_are_each_explained_over_the_same_copies(score: str) -> None:
    model, x = ConvNet().double(), images().double()
    targets: list[Any] = [0, [1, 2], torch.tensor([3, 4]), (2,)]
    smooth = LayerSmoothGradCamPlusPlus(model, model.relu1)
    together = smooth.attribute_targets(x, targets, nt_samples=5, generator=seeded(), score=score)
    for found, target in zip(together, targets, strict=True):
        assert close(found, smooth.attribute(x, target, nt_samples=5, generator=seeded(), score=score), 1e-9)
    plain = LayerGradCamPlusPlus(model, model.relu1)
    for found, target in zip(plain.attribute_targets(x, targets), targets, strict=True):
        assert torch.equal(found, plain.attribute(x, target))


def test_several_targets_take_one_pass_of_the_model() -> None:
    model = ConvNet()
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    results = LayerSmoothGradCamPlusPlus(model, model.relu1).attribute_targets(
        images(), [0, 1, 2], nt_samples=3, return_statistics=True
    )
    assert passes == [8]
    assert [tuple(maps.shape) for maps, _ in results] == [(2, 1, 8, 8)] * 3


@pytest.mark.parametrize("targets", [[], 3, torch.tensor([1, 2]), "cat"])
def test_targets_that_are_no_list_are_refused(targets: Any) -> None:
    model = ConvNet()
    with pytest.raises(TypeError, match=r"^targets: expected .*found"):
        LayerGradCamPlusPlus(model, model.relu1).attribute_targets(images(), targets)


NAMES = ["relu1", "conv2", "relu2", "fc1"]


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ["pool"]])
def test_several_layers_are_each_explained_in_one_pass(names: list[str]) -> None:
    model, x = ConvNet().double(), images().double()
    layers = [model.get_submodule(name) for name in names]
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    maps, statistics = LayerSmoothGradCamPlusPlus(model, layers).attribute(
        x, 1, nt_samples=3, generator=seeded(), return_statistics=True
    )
    assert passes == [8] and isinstance(maps, list) and len(statistics) == len(layers)
    plain = LayerGradCamPlusPlus(model, layers).attribute(x, 1)
    for found, one, layer in zip(maps, plain, layers, strict=True):
        alone = LayerSmoothGradCamPlusPlus(model, layer).attribute(x, 1, nt_samples=3, generator=seeded())
        assert close(found, alone, 1e-9)
        assert close(one, LayerGradCamPlusPlus(model, layer).attribute(x, 1), 1e-9)


def test_nested_layers_and_layers_of_several_tensors() -> None:
    net = PooledNet().double()
    x = images(channels=3).double()
    inner, outer = LayerGradCamPlusPlus(net, [net.features[4], net.features]).attribute(x, 1)
    assert close(inner, LayerGradCamPlusPlus(net, net.features[4]).attribute(x, 1), 1e-9) and close(outer, inner, 1e-9)
    model = TwoInputs()
    pair = (images(2, 1, size=6), images(2, 1, size=6, seed=2))
    both, fc = LayerGradCamPlusPlus(model, [model.both, model.fc]).attribute(pair, 1)
    assert isinstance(both, tuple) and len(both) == 2 and fc.shape == (2, 1)


def test_several_layers_and_targets_together() -> None:
    model, x = ConvNet().double(), images().double()
    method = LayerGradCamPlusPlus(model, [model.relu1, model.relu2])
    for target, layers in enumerate(method.attribute_targets(x, [0, 1])):
        for found, layer in zip(layers, (model.relu1, model.relu2), strict=True):
            assert close(found, LayerGradCamPlusPlus(model, layer).attribute(x, target), 1e-9)


@pytest.mark.parametrize("layers, error", [([], ValueError), (["relu1"], TypeError)])
def test_lists_that_hold_no_layers_are_refused(layers: Any, error: Any) -> None:
    with pytest.raises(error, match=r"^layer: expected .*found"):
        LayerGradCamPlusPlus(ConvNet(), layers)
    same = nn.ReLU()
    with pytest.raises(ValueError, match=r"^layer: expected .*found"):
        LayerGradCamPlusPlus(ConvNet(), [same, same])


class Small(nn.Module):
    """A model on a device whose memory takes `most` rows, in the forward pass or in the backward one."""

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.net, self.most = ConvNet(), most
        if where == "backward":
            self.net.conv2.register_full_backward_hook(lambda module, grad_in, grad_out: self.check(len(grad_out[0])))
        else:
            self.net.conv2.register_forward_pre_hook(lambda module, args: self.check(len(args[0])))

    def check(self, rows: int) -> None:
        if rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("copies", [9, "auto"])
def test_where_memory_runs_out_the_chunk_is_halved_with_a_warning(where: str, copies: Any) -> None:
    model, x = Small(5, where), images(2)
    method = LayerSmoothGradCamPlusPlus(model, model.net.relu1)
    options: Any = {"nt_samples": copies, "tolerance": 0.1}
    with pytest.warns(UserWarning, match="nt_samples_batch_size: out of memory"):
        found = method.attribute(x, 1, generator=seeded(), **options)
    model.most = 1000
    assert close(found, method.attribute(x, 1, generator=seeded(), **options), 1e-5)


def test_a_chunk_that_was_asked_for_and_a_batch_that_do_not_fit_are_named() -> None:
    model, x = Small(5, "forward"), images(2)
    method = LayerSmoothGradCamPlusPlus(model, model.net.relu1)
    with pytest.raises(RuntimeError, match=r"^nt_samples_batch_size: expected .*found 4"):
        method.attribute(x, 1, nt_samples=9, nt_samples_batch_size=4)
    model.most = 1
    for call in (method, LayerGradCamPlusPlus(model, model.net.relu1)):
        with pytest.raises(RuntimeError, match=r"^inputs: expected .*found 2 examples"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call.attribute(x, 1)


def test_several_targets_run_the_model_once_and_equal_single_ones() -> None:
    net, x, calls = ConvNet().double(), images(2).double(), []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    together = LayerGradCamPlusPlus(net, net.relu1).attribute_targets(x, [0, [1, 2], 4])
    assert calls == [2]
    for found, target in zip(together, [0, [1, 2], 4], strict=True):
        assert torch.equal(found, LayerGradCamPlusPlus(net, net.relu1).attribute(x, target))
