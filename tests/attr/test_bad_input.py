"""Bad input gives an error that names the argument, and leaves the model and the process as they were."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from _asserts import left_as_it_was, refused
from calls import METHODS, seeded
from networks import ConvNet, PooledNet, TwoInputs, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax

NAN, INF = float("nan"), float("inf")

INPUTS: list[tuple[Any, Any]] = [
    ([images()], TypeError),
    (images().numpy(), TypeError),
    (None, TypeError),
    ("image.png", TypeError),
    ((), ValueError),
    ((images(), None), TypeError),
    (torch.tensor(1.0), ValueError),
    (images()[:0], ValueError),
    (torch.zeros(2, 2, 0, 8), ValueError),
    ((torch.zeros(2, 0), torch.zeros(2, 0)), ValueError),
    ((images(2), images(3)), ValueError),
    (torch.full((1, 2, 8, 8), NAN), ValueError),
    (torch.full((1, 2, 8, 8), INF), ValueError),
    (torch.full((1, 2, 8, 8), -INF), ValueError),
    (images().to_sparse(), TypeError),
    (images().to("meta"), TypeError),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("inputs, error", INPUTS, ids=range(len(INPUTS)))
def test_inputs(method: Any, inputs: Any, error: Any) -> None:
    model = ConvNet()
    with left_as_it_was(model), pytest.raises(error, match=r"^inputs: expected .*found"):
        method(model, model.relu1).attribute(inputs, 1)


TARGETS: list[tuple[Any, Any]] = [
    (None, ValueError),
    (5, ValueError),
    (-6, ValueError),
    (1.0, TypeError),
    (True, TypeError),
    ("cat", TypeError),
    ([1], ValueError),
    ([1, 2, 3], ValueError),
    ([1, 9], ValueError),
    ([1, 1.5], TypeError),
    ([1, (1,)], TypeError),
    ([(1, 2), (1, 2)], ValueError),
    ((1, 2), ValueError),
    ((), ValueError),
    (torch.tensor([1, 2, 3]), ValueError),
    (torch.tensor([[1, 2]]), ValueError),
    (torch.tensor([1.0, 2.0]), TypeError),
    (torch.tensor([True, False]), TypeError),
    (torch.tensor(7), ValueError),
    (np.array([1.0, 2.0]), TypeError),
    (np.array([True, False]), TypeError),
    (np.array([1, 2, 3]), ValueError),
    (np.array(["cat", "dog"]), TypeError),
    ({1: 2}, TypeError),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target, error", TARGETS, ids=range(len(TARGETS)))
def test_target(method: Any, target: Any, error: Any) -> None:
    refused(method, error, "target", target=target)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [[1, 3], torch.tensor([1, 3])])
def test_several_classes_of_one_image_are_sent_to_attribute_targets(method: Any, target: Any) -> None:
    model = ConvNet()
    with pytest.raises(ValueError, match=r"^target: expected one .*; attribute_targets explains several classes"):
        method(model, model.relu1).attribute(images(1), target)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", [lambda: ConvNet(channels=3), PooledNet, lambda: BatchNormed(), lambda: Whole()])
def test_an_image_without_a_batch_dimension_is_named(method: Any, network: Any) -> None:
    model = network()
    layer, image = next(module for module in model.modules() if isinstance(module, nn.Conv2d)), torch.rand(3, 8, 8)
    with left_as_it_was(model), pytest.raises(ValueError) as error:
        method(model, layer).attribute(image, 1)
    expected = "inputs: expected a batch of images (N, C, H, W), found (3, 8, 8); inputs[None] is a batch of one"
    assert str(error.value) == expected and error.value.__cause__ is not None


class BatchNormed(nn.Sequential):
    """Refuses what has not four dimensions."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.eval()


class Whole(nn.Module):
    """Runs without a batch dimension, and gives one row for the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((-2, -1)))


def test_errors_of_other_inputs_are_left_as_they_are() -> None:
    """A batch of three images of the wrong size, and three signals."""
    model = ConvNet(channels=3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        LayerGradCamPlusPlus(model, model.conv1).attribute(torch.rand(3, 3, 4, 4), 1)
    signals = ConvNet(dims=1, channels=3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        LayerGradCamPlusPlus(signals, signals.conv1).attribute(torch.rand(3, 3, 4), 1)


SAMPLING: list[tuple[str, dict[str, Any], Any]] = [
    ("nt_samples", {"nt_samples": 0}, ValueError),
    ("nt_samples", {"nt_samples": -3}, ValueError),
    ("nt_samples", {"nt_samples": 2.0}, TypeError),
    ("nt_samples", {"nt_samples": True}, TypeError),
    ("nt_samples", {"nt_samples": None}, TypeError),
    ("nt_samples", {"nt_samples": "many"}, ValueError),
    ("tolerance", {"nt_samples": "auto", "tolerance": 0}, ValueError),
    ("tolerance", {"nt_samples": "auto", "tolerance": NAN}, ValueError),
    ("tolerance", {"nt_samples": "auto", "tolerance": "small"}, TypeError),
    ("max_nt_samples", {"nt_samples": "auto", "max_nt_samples": 3}, ValueError),
    ("max_nt_samples", {"nt_samples": "auto", "max_nt_samples": 8.0}, TypeError),
    ("nt_samples_batch_size", {"nt_samples_batch_size": 0}, ValueError),
    ("nt_samples_batch_size", {"nt_samples_batch_size": -1}, ValueError),
    ("nt_samples_batch_size", {"nt_samples_batch_size": 1.5}, TypeError),
    ("stdevs", {"stdevs": -0.1}, ValueError),
    ("stdevs", {"stdevs": NAN}, ValueError),
    ("stdevs", {"stdevs": INF}, ValueError),
    ("stdevs", {"stdevs": "0.1"}, TypeError),
    ("stdevs", {"stdevs": True}, TypeError),
    ("stdevs", {"stdevs": (0.1, 0.1)}, ValueError),
    ("stdevs", {"stdevs": ()}, ValueError),
    ("stdevs", {"stdevs": [0.1]}, TypeError),
    ("stdevs", {"stdevs": torch.tensor(0.1)}, TypeError),
    ("noise_level", {"noise_level": -0.1}, ValueError),
    ("noise_level", {"noise_level": NAN}, ValueError),
    ("noise_level", {"noise_level": None}, TypeError),
    ("noise_level", {"noise_level": (0.1, 0.2)}, ValueError),
    ("generator", {"generator": 0}, TypeError),
    ("generator", {"generator": np.random.default_rng(0)}, TypeError),
    ("show_progress", {"show_progress": 1}, TypeError),
    ("return_statistics", {"return_statistics": "yes"}, TypeError),
]


@pytest.mark.parametrize("name, arguments, error", SAMPLING, ids=range(len(SAMPLING)))
def test_sampling_arguments(name: str, arguments: dict[str, Any], error: Any) -> None:
    refused(LayerSmoothGradCamPlusPlus, error, name, **arguments)


def test_sampling_arguments_belong_to_the_smooth_method_only() -> None:
    model = ConvNet()
    with pytest.raises(TypeError, match="nt_samples"):
        LayerGradCamPlusPlus(model, model.relu1).attribute(images(), 1, nt_samples=3)  # type: ignore[call-arg]


FORMULA: list[tuple[str, dict[str, Any], Any]] = [
    ("score", {"score": "logit"}, ValueError),
    ("score", {"score": None}, TypeError),
    ("score", {"score": torch.exp}, ValueError),
    ("score", {"score": nn.Module}, TypeError),
    ("score", {"score": Softmax(classes=(1, 7))}, ValueError),
    ("score", {"score": Softmax(classes=(1,))}, ValueError),
    ("score", {"score": Softmax(classes=())}, ValueError),
    ("derivatives", {"derivatives": "numeric"}, ValueError),
    ("derivatives", {"derivatives": None}, ValueError),
    ("bound_alpha", {"bound_alpha": 0.5}, TypeError),
    ("two_sided", {"two_sided": 1}, TypeError),
    ("relu_attributions", {"relu_attributions": "no"}, TypeError),
    ("attr_dim_summation", {"attr_dim_summation": None}, TypeError),
    ("attribute_to_layer_input", {"attribute_to_layer_input": 1}, TypeError),
    ("grad_kwargs", {"grad_kwargs": "create_graph"}, TypeError),
    ("grad_kwargs", {"grad_kwargs": {"grad_outputs": torch.ones(2)}}, ValueError),
    ("grad_kwargs", {"grad_kwargs": {"is_grads_batched": True}}, NotImplementedError),
    ("grad_kwargs", {"grad_kwargs": {"create_graph": True}, "derivatives": "exact"}, ValueError),
    (r"grad_kwargs\['allow_unused'\]", {"grad_kwargs": {"allow_unused": 1}}, TypeError),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name, arguments, error", FORMULA, ids=range(len(FORMULA)))
def test_formula_arguments(method: Any, name: str, arguments: dict[str, Any], error: Any) -> None:
    refused(method, error, name, **arguments)


def mask(*shape: int, dtype: torch.dtype = torch.bool) -> Tensor:
    return torch.ones(shape, dtype=dtype)


# relu1 of ConvNet on images(): (2, 4, 8, 8)
SELECTION: list[tuple[str, Any, Any]] = [
    ("feature_maps", 4, ValueError),
    ("feature_maps", -5, ValueError),
    ("feature_maps", 1.0, TypeError),
    ("feature_maps", True, TypeError),
    ("feature_maps", "all", TypeError),
    ("feature_maps", [], ValueError),
    ("feature_maps", [0, 4], ValueError),
    ("feature_maps", [0, 1.5], TypeError),
    ("feature_maps", [True, False, True, False], TypeError),
    ("feature_maps", slice(3, 3), ValueError),
    ("feature_maps", slice(0, 9), ValueError),
    ("feature_maps", slice(None, None, 0), ValueError),
    ("feature_maps", slice(0.5, 2), TypeError),
    ("feature_maps", mask(3), ValueError),
    ("feature_maps", mask(3, 4), ValueError),
    ("feature_maps", mask(2, 4, 1), ValueError),
    ("feature_maps", ~mask(4), ValueError),
    ("feature_maps", mask(4, dtype=torch.float32), TypeError),
    ("feature_maps", torch.tensor([0, 7]), ValueError),
    ("feature_maps", torch.tensor([[0, 1]]), ValueError),
    ("feature_maps", torch.tensor([[0, 1], [0, 4]]), ValueError),
    ("feature_maps", torch.tensor([[0.0], [1.0]]), TypeError),
    ("feature_maps", {0, 1}, TypeError),
    ("feature_maps", mask(4, dtype=torch.uint8), TypeError),
    ("neurons", 3, TypeError),
    ("neurons", "centre", TypeError),
    ("neurons", np.s_[2:5], ValueError),
    ("neurons", np.s_[2:5, 3:7, 0:1], ValueError),
    ("neurons", np.s_[2:5, 3:99], ValueError),
    ("neurons", np.s_[2:5, 3:3], ValueError),
    ("neurons", np.s_[2:5, 9], ValueError),
    ("neurons", np.s_[2:5, None], TypeError),
    ("neurons", np.s_[..., 2:5], TypeError),
    ("neurons", np.s_[0.5:2, 0:1], TypeError),
    ("neurons", [], ValueError),
    ("neurons", [(1, 2, 3)], ValueError),
    ("neurons", [(1, 8)], ValueError),
    ("neurons", [(1, 2.0)], TypeError),
    ("neurons", [1, 2], ValueError),
    ("neurons", mask(7, 8), ValueError),
    ("neurons", mask(8, 8, dtype=torch.uint8), TypeError),
    ("neurons", mask(8, 8, dtype=torch.float32), TypeError),
    ("neurons", torch.tensor([[1, 2]]), TypeError),
    ("neurons", ~mask(8, 8), ValueError),
    ("neurons", mask(2, 8, 8), ValueError),  # (N, H, W) does not broadcast to (N, K, H, W)
    ("neurons", mask(3, 8, 8), ValueError),
    ("neurons", mask(2, 4, 8, 8, 1), ValueError),
    ("neurons", mask(3, 4, 8, 8), ValueError),
    ("neurons", np.ones((8, 8)), TypeError),
]


@pytest.mark.parametrize("name, value, error", SELECTION, ids=range(len(SELECTION)))
def test_selection(name: str, value: Any, error: Any) -> None:
    refused(LayerGradCamPlusPlus, error, name, **{name: value})


def test_a_mask_that_could_be_read_two_ways_is_refused() -> None:
    refused(LayerSmoothGradCamPlusPlus, ValueError, "neurons", inputs=images(4), neurons=mask(4, 8, 8))
    model = ConvNet()
    ours = LayerGradCamPlusPlus(model, model.relu1)
    refused(LayerGradCamPlusPlus, ValueError, "neurons", inputs=images(4), neurons=mask(4, 1, 8))
    for one_reading in (mask(4, 8, 8)[None], mask(4, 8, 8)[:, None]):
        assert torch.equal(ours.attribute(images(4), 1, neurons=one_reading), ours.attribute(images(4), 1))


def test_disjoint_selections_and_neurons_of_a_linear_layer_are_refused() -> None:
    other_map = torch.zeros(2, 4, 8, 8, dtype=torch.bool)
    other_map[:, 2] = True
    refused(LayerGradCamPlusPlus, ValueError, "feature_maps and neurons", feature_maps=1, neurons=other_map)
    model = ConvNet()
    refused(LayerGradCamPlusPlus, ValueError, "neurons", model=model, layer=model.fc1, neurons=np.s_[0:1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change, error",
    [
        (lambda y: {"logits": y}, TypeError),
        (lambda y: (y, y), TypeError),
        (lambda y: [y], TypeError),
        (lambda y: None, TypeError),
        (lambda y: y.tolist(), TypeError),
        (lambda y: y.argmax(1), TypeError),
        (lambda y: y.detach(), RuntimeError),
        (lambda y: y.sum(), ValueError),
        (lambda y: y[:1], ValueError),
        (lambda y: y * NAN, RuntimeError),
        (lambda y: y / 0.0, RuntimeError),
    ],
    ids=range(11),
)
def test_outputs_that_are_no_scores(method: Any, change: Any, error: Any) -> None:
    model = ConvNet()
    refused(method, error, "forward_func", model=model, forward=lambda x: change(model(x)))


@pytest.mark.parametrize("method", METHODS)
def test_constructor(method: Any) -> None:
    model = ConvNet()
    with pytest.raises(TypeError, match=r"^forward_func: expected .*found"):
        method("model", model.relu1)
    for layer in ("relu1", None, model.relu1.forward):
        with pytest.raises(TypeError, match=r"^layer: expected .*found"):
            method(model, layer)
    with pytest.raises(TypeError, match=r"found str; model\.get_submodule\('relu1'\)"):
        method(model, "relu1")


class Failing(nn.Module):
    """Raises at its n-th call."""

    def __init__(self, error: BaseException, call: int) -> None:
        super().__init__()
        self.error, self.call, self.calls = error, call, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.call:
            raise self.error
        return x


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_an_exception_inside_the_model_passes_and_leaves_everything_as_it_was(error: BaseException, place: str) -> None:
    failing = Failing(error, call=2)
    net = ConvNet()
    model = nn.Sequential(*([failing, net] if place == "before" else [net, failing])).eval()
    generator = seeded(4)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        for chosen in (generator, None):
            failing.calls = 0
            with context(), left_as_it_was(model, generator), pytest.raises(type(error)):
                LayerSmoothGradCamPlusPlus(model, net.relu1).attribute(
                    images(), 1, nt_samples=4, nt_samples_batch_size=2, generator=chosen
                )
    # the process's lock is free again
    thread = threading.Thread(target=lambda: LayerGradCamPlusPlus(net, net.relu1).attribute(images(), 1))
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_additional_arguments_of_the_wrong_number_are_the_models_own_error() -> None:
    model = TwoInputs()
    a, b = images(2, 1, size=6), images(2, 1, size=6)
    with left_as_it_was(model), pytest.raises(TypeError, match="positional arguments"):
        LayerGradCamPlusPlus(model, model.both).attribute((a, b), 1, (1.0, "x", "y"))


@pytest.mark.parametrize("k, error", [(0, ValueError), (5, ValueError), (1.0, TypeError)])
def test_top_feature_maps(k: Any, error: Any) -> None:
    model = ConvNet()
    with left_as_it_was(model), pytest.raises(error, match=r"^k: expected .*found"):
        LayerGradCamPlusPlus(model, model.relu1).top_feature_maps(images(), 1, k=k)


@pytest.mark.parametrize(
    "classes, error",
    [((-1, 2), ValueError), (("cat",), TypeError), (3, TypeError), ("12", TypeError), ([1.5], TypeError)],
)
def test_classes_of_softmax(classes: Any, error: Any) -> None:
    with pytest.raises(error, match=r"^score.classes: expected .*found"):
        Softmax(classes)


def test_unknown_arguments_of_top_feature_maps_are_named() -> None:
    model = ConvNet()
    with pytest.raises(TypeError, match=r"^nt_samples: expected .*found"):
        LayerGradCamPlusPlus(model, model.relu1).top_feature_maps(images(), 1, nt_samples=3)


def test_a_score_that_is_not_finite_is_found_in_the_first_pass() -> None:
    model = ConvNet()
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(1))
    with pytest.raises(RuntimeError, match="finite"):
        LayerSmoothGradCamPlusPlus(lambda x: model(x) * NAN, model.relu1).attribute(
            images(), 1, nt_samples=20, nt_samples_batch_size=2
        )
    assert len(passes) == 1


def test_an_error_leaves_no_cycle_that_holds_tensors() -> None:
    model = ConvNet()
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
        for _ in range(5):
            with pytest.raises(RuntimeError):
                LayerGradCamPlusPlus(lambda x: model(x) + model(x), model.relu1).attribute(images(), 1)
        assert sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()) <= before + 3
    finally:
        gc.enable()
