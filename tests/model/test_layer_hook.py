"""What the layer returns, is given, and shares with the rest of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from _asserts import close, left_as_it_was, refused
from calls import METHODS, smooth
from networks import ConvNet, Wrapper, images, tail
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu1"])
def test_in_place_relu_behind_or_at_the_layer_does_not_change_the_map(layer: str) -> None:
    plain, inplace = ConvNet(), ConvNet(inplace=True)
    wanted = smooth(plain, plain.get_submodule(layer), images())
    assert close(smooth(inplace, inplace.get_submodule(layer), images()), wanted)


def test_layer_input_changed_in_place_by_a_residual_sum_is_taken_as_it_was() -> None:
    class Residual(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.net, self.inplace = ConvNet(), inplace
            with torch.random.fork_rng():
                torch.manual_seed(3)
                self.branch = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.net.relu1(self.net.conv1(x))
            y = self.branch(x)
            if self.inplace:
                x += y
            else:
                x = x + y
            return tail(self.net, x)

    maps = [
        LayerGradCamPlusPlus(m, m.branch).attribute(images(), 1, attribute_to_layer_input=True)
        for m in (Residual(False), Residual(True))
    ]
    assert torch.equal(*maps)


def test_user_hooks_run_and_stay() -> None:
    model = ConvNet()
    model.relu1.register_forward_hook(lambda module, args, output: output * 2)
    with_hook = smooth(model, model.relu1, images())
    doubled = Wrapper(lambda net, x: tail(net, net.relu1(net.conv1(x)) * 2))
    gate = nn.Identity()
    explicit = Wrapper(lambda net, x: tail(net, gate(net.relu1(net.conv1(x)) * 2)))
    assert torch.equal(with_hook, smooth(explicit, gate, images()))
    assert len(model.relu1._forward_hooks) == 1 and not doubled.net.relu1._forward_hooks


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@pytest.mark.parametrize("form", [tuple, list, Pair])
def test_layers_that_return_several_tensors(form: Any) -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> Any:
            halves = (x[:, :2], x[:, 2:])
            return form(*halves) if form is Pair else form(halves)

    split = Split()

    def run(net: ConvNet, x: Tensor) -> Tensor:
        halves = split(net.relu1(net.conv1(x)))
        assert type(halves) is form
        return tail(net, torch.cat(list(halves), 1))

    model = Wrapper(run)
    maps = smooth(model, split, images(), attr_dim_summation=False)
    whole = smooth(model, model.net.relu1, images(), attr_dim_summation=False)
    assert isinstance(maps, tuple) and close(torch.cat(maps, 1), whole)


def keep_in_hook(model: nn.Module, layer: nn.Module) -> dict[str, Tensor]:
    features: dict[str, Tensor] = {}
    layer.register_forward_hook(lambda module, args, output: features.__setitem__("kept", output))
    return features


@pytest.mark.parametrize("inplace", [False, True])
def test_what_a_hook_of_the_model_kept_of_the_layer_is_part_of_the_graph(inplace: bool) -> None:
    """Models that collect features with hooks of their own use the layer's output by another way too."""
    net = ConvNet()
    features = keep_in_hook(net, net.relu1)
    aux = nn.Linear(4 * 64, 5)

    def with_hook(x: Tensor) -> Tensor:
        return tail(net, net.relu1(net.conv1(x))) + aux(features["kept"].flatten(1))

    def plainly(x: Tensor) -> Tensor:
        y = gate(net.relu1(net.conv1(x)))
        return tail(net, y) + aux(y.flatten(1))

    gate = nn.Identity()
    assert close(smooth(with_hook, net.relu1, images()), smooth(plainly, gate, images()))
    assert not features["kept"].requires_grad


class Odd(nn.Module):
    """ConvNet with an odd module behind its first ReLU."""

    def __init__(self, odd: nn.Module, back: Callable[[Any], Tensor] = lambda value: value) -> None:
        super().__init__()
        self.net, self.odd, self.back = ConvNet(), odd, back

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = self.back(self.odd(net.relu1(net.conv1(x))))
        return net.fc2(net.relu3(net.fc1(net.pool(net.relu2(net.conv2(x))).flatten(1))))


class Returns(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


LAYERS: list[tuple[Any, Callable[[Any], Tensor], Any]] = [
    (Returns(lambda x: {"x": x}), lambda d: d["x"], TypeError),
    (Returns(lambda x: (x, None)), lambda t: t[0], TypeError),
    (Returns(lambda x: (x, (x, x))), lambda t: t[0], TypeError),
    (Returns(lambda x: [x, "name"]), lambda t: t[0], TypeError),
    (Returns(lambda x: (x, x.long())), lambda t: t[0], TypeError),
    (Returns(lambda x: x.long()), lambda x: x.float(), TypeError),
    (Returns(lambda x: x > 0), lambda x: x.float(), TypeError),
    (Returns(lambda x: torch.complex(x, x)), lambda x: x.real, TypeError),
    (Returns(lambda x: x.detach()), lambda x: x.detach(), RuntimeError),
    (Returns(lambda x: x), lambda x: torch.ones_like(x), RuntimeError),
    (Returns(lambda x: x.flatten()), lambda x: x.reshape(-1, 4, 8, 8), ValueError),
    (Returns(lambda x: x.flatten(0, 1)), lambda x: x.reshape(-1, 4, 8, 8), ValueError),
    (Returns(lambda x: x.sum(0, keepdim=True)), lambda x: x.expand(2, -1, -1, -1), ValueError),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("odd, back, error", LAYERS, ids=range(len(LAYERS)))
def test_layers_that_cannot_be_explained(method: Any, odd: nn.Module, back: Any, error: Any) -> None:
    model = Odd(odd, back)
    # two examples in one pass, so that rows are 2 for both methods
    arguments = {"stdevs": 0.0} if method is LayerSmoothGradCamPlusPlus else {}
    name = "(layer|forward_func)" if error is RuntimeError else "layer"
    refused(method, error, name, model=model, layer=odd, **arguments)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("method", METHODS)
def test_quantised_layers(method: Any) -> None:
    def quantise(x: Tensor) -> Tensor:
        return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)

    model = Odd(Returns(quantise), lambda q: q.dequantize())
    refused(method, TypeError, "layer", model=model, layer=model.odd)


@pytest.mark.parametrize("method", METHODS)
def test_layers_never_reached_and_reached_twice(method: Any) -> None:
    model = ConvNet()
    stranger = nn.ReLU()
    refused(method, RuntimeError, "layer", model=model, layer=stranger)
    refused(method, RuntimeError, "layer", model=model, forward=lambda x: model(x) + model(x))
    assert not stranger._forward_hooks


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_layers_are_refused_as_such() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3)).eval()
    scripted = torch.jit.script(model)
    with left_as_it_was(model), pytest.raises(TypeError, match=r"^layer: expected .*found a TorchScript module"):
        LayerGradCamPlusPlus(scripted, list(scripted.children())[1]).attribute(images(), 0)
