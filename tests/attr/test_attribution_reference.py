"""The classes agree with the papers, transcribed as nested loops in float64 (tests/reference.py)."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from calls import received_rows, seeded
from networks import ConvNet, images
from reference import PaperMap, reference_map, relative_error
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, Softmax

LINKS = ("exp", "softmax", "sigmoid")
TARGET = 3
COPIES = 5


def allowed(bound: float, link: str) -> float:
    """The bound on the relative error; for `sigmoid` and `softmax`, which have poles, the model's own rounding errors
    (about 8e-6 in float32, 1e-14 in float64) grow by the inverse of the distance to the nearest pole."""
    if link == "exp":
        return bound
    if link == "softmax" and bound == 1e-4:
        bound = 1e-3
    return max(bound, (8e-6 if bound > 1e-6 else 1e-14) / PaperMap.pole_distance)


class Scaled(nn.Module):
    """A model with its logits multiplied."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.model(x)


def smooth_and_reference(
    model: nn.Module,
    layer_name: str,
    x: Tensor,
    target: int,
    reference_options: Any = None,
    copies: int = COPIES,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """The map of one example and the papers' for the copies that the model received (in float64)."""
    reference_options = dict(reference_options or {})
    method = LayerSmoothGradCamPlusPlus(model, model.get_submodule(layer_name))
    found, rows = received_rows(
        model, lambda: method.attribute(x, target, nt_samples=copies, nt_samples_batch_size=3, **options)
    )
    assert len(rows) == copies + 1 and torch.equal(rows[:1], x)
    wide = copy.deepcopy(model).double()
    expected = reference_map(
        wide,
        wide.get_submodule(layer_name),
        (x.double(),),
        [(row[None].double(),) for row in rows[1:]],
        target,
        to_input=options.get("attribute_to_layer_input", False),
        **reference_options,
    )
    return found[0], expected


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2"])
def test_plain_map_is_the_papers(dims: int, link: str, layer: str, dtype: torch.dtype, bound: float) -> None:
    model = ConvNet(dims).to(dtype)
    x = images(2, dims=dims).to(dtype)
    found = LayerGradCamPlusPlus(model, model.get_submodule(layer)).attribute(x, TARGET, score=link)
    wide = copy.deepcopy(model).double()
    for number in range(2):
        one = (x[number : number + 1].double(),)
        expected = reference_map(wide, wide.get_submodule(layer), one, [one], TARGET, link, classes=range(5))
        assert relative_error(found[number], expected) <= allowed(bound, link)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("layer", ["relu1", "relu2", "fc1"])
def test_smooth_map_is_the_papers(dims: int, link: str, layer: str, dtype: torch.dtype, bound: float) -> None:
    model = ConvNet(dims).to(dtype)
    x = images(1, dims=dims).to(dtype)
    options: Any = {"link": link, "classes": range(5)}
    found, expected = smooth_and_reference(model, layer, x, TARGET, options, score=link)
    assert relative_error(found, expected) <= allowed(bound, link)


def test_smooth_map_of_every_example_of_a_batch_is_the_papers() -> None:
    model, x = ConvNet().double(), images(3).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    found, rows = received_rows(model, lambda: method.attribute(x, [0, 4, 2], nt_samples=3, nt_samples_batch_size=4))
    by_example = rows.unflatten(0, (3, 4))
    for number, target in enumerate([0, 4, 2]):
        clean, *copies = ((row[None],) for row in by_example[number])
        assert relative_error(found[number], reference_map(model, model.relu1, clean, copies, target)) <= 1e-9


@pytest.mark.parametrize("link", LINKS)
def test_selection_of_feature_maps_and_neurons_is_the_papers(link: str) -> None:
    model, x = ConvNet().double(), images(1).double()
    options: Any = {
        "link": link,
        "classes": range(5),
        "maps": lambda k: k in (0, 3),
        "neurons": lambda place: 2 <= place[0] < 5 and 3 <= place[1] < 7,
    }
    found, expected = smooth_and_reference(
        model, "relu1", x, TARGET, options, score=link, feature_maps=[0, 3], neurons=np.s_[2:5, 3:7]
    )
    assert expected.norm() > 0
    assert relative_error(found, expected) <= 1e-9


def test_bound_alpha_unsummed_maps_and_layer_input_are_the_papers() -> None:
    model, x = ConvNet().double(), images(1).double()
    options: Any = {"bound_alpha": True, "summed": False}
    found, expected = smooth_and_reference(
        model, "conv2", x, TARGET, options, bound_alpha=True, attr_dim_summation=False, attribute_to_layer_input=True
    )
    assert relative_error(found, expected) <= 1e-9


@pytest.mark.parametrize("link", ["exp", "sigmoid"])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_logits_times_400_are_finite_and_as_right(link: str, dtype: torch.dtype, bound: float) -> None:
    model = Scaled(ConvNet(), 400.0).to(dtype)
    # Copies away from poles of alpha, where the float32 rounding of such logits, 1e-4 of a copy's weight, would grow.
    generator = seeded(1)
    options: Any = {"score": link, "noise_level": 0.02, "generator": generator}
    found, expected = smooth_and_reference(model, "model.relu1", images(1).to(dtype), TARGET, {"link": link}, **options)
    assert torch.isfinite(found).all() and found.norm() > 0
    assert relative_error(found, expected) <= bound


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_gradients_times_1e_minus_15_are_finite_and_as_right(link: str, dtype: torch.dtype, bound: float) -> None:
    model = Scaled(ConvNet(), 1e-15).to(dtype)
    options: Any = {"link": link, "classes": range(5)}
    found, expected = smooth_and_reference(model, "model.relu1", images(1).to(dtype), TARGET, options, score=link)
    assert torch.isfinite(found).all() and found.norm() > 0
    assert relative_error(found, expected) <= bound


def test_softmax_in_float32_is_right_where_the_class_has_probability_0_999() -> None:
    model = Scaled(ConvNet(), 1.0)
    x = images(1)
    logits = model(x)[0]
    others = torch.cat([logits[:TARGET], logits[TARGET + 1 :]])
    with torch.no_grad():  # raise the class's own logit until its probability is 0.999
        model.model.fc2.bias[TARGET] += others.logsumexp(0) - logits[TARGET] + np.log(999)
    assert abs(model(x).softmax(1)[0, TARGET].item() - 0.999) < 1e-5
    options: Any = {"link": "softmax", "classes": range(5)}
    found, expected = smooth_and_reference(model, "model.relu2", x, TARGET, options, score="softmax", noise_level=0.02)
    assert relative_error(found, expected) <= 1e-3
    assert relative_error(*_plain_and_reference(model, x)) <= 1e-3
    assert PaperMap.pole_distance > 0.01


def _plain_and_reference(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    layer = model.get_submodule("model.relu2")
    found = LayerSmoothGradCamPlusPlus(model, layer).attribute(x, TARGET, stdevs=0.0, score="softmax")
    wide = copy.deepcopy(model).double()
    one = (x.double(),)
    return found[0], reference_map(
        wide, wide.get_submodule("model.relu2"), one, [one], TARGET, "softmax", classes=range(5)
    )


def test_softmax_over_named_classes_is_the_softmax_over_them_and_the_target() -> None:
    model, x = ConvNet().double(), images(1).double()
    options: Any = {"link": "softmax", "classes": (1, 2, TARGET)}
    found, expected = smooth_and_reference(model, "relu2", x, TARGET, options, score=Softmax(classes=[1, 2]))
    assert relative_error(found, expected) <= 1e-9


REAL = [
    ("squeezenet1_1", "features.9", 203),
    ("squeezenet1_1", "features.12", 409),
    ("mobilenet_v2", "features.14.conv.0", 292),
    ("mobilenet_v2", "features.18", 295),
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("link, selected", [("exp", False), ("exp", True), ("sigmoid", True), ("softmax", True)])
@pytest.mark.parametrize("name, layer, photo", REAL)
def test_real_networks_and_photographs(
    zoo: ModuleType, name: str, layer: str, photo: int, link: str, selected: bool, dtype: torch.dtype, bound: float
) -> None:
    model = zoo.load(name).to(dtype)
    x = zoo.image(zoo.HERE / "imagenet" / f"{photo:04d}.jpg").to(dtype)
    rivals = (photo, 281, 207)
    options: dict[str, Any] = {"score": Softmax(rivals) if link == "softmax" else link}
    in_reference: dict[str, Any] = {"link": link, "classes": rivals}
    if selected:
        options |= {"feature_maps": slice(0, 40), "neurons": np.s_[1:5, 2:7]}
        in_reference["maps"] = lambda k: k < 40
        in_reference["neurons"] = lambda place: 1 <= place[0] < 5 and 2 <= place[1] < 7
    found, expected = smooth_and_reference(model, layer, x, photo, in_reference, copies=3, **options)
    assert expected.norm() > 0
    assert relative_error(found, expected) <= allowed(bound, link)


@pytest.mark.parametrize("name, layer, photo", [REAL[1], REAL[3]])
def test_noise_changes_only_the_scale_in_front_of_global_average_pooling(
    zoo: ModuleType, name: str, layer: str, photo: int
) -> None:
    model = zoo.load(name)
    x = zoo.image(zoo.HERE / "imagenet" / f"{photo:04d}.jpg")
    plain = LayerGradCamPlusPlus(model, model.get_submodule(layer)).attribute(x, photo)
    for noise_level in (0.05, 0.5):
        smooth = LayerSmoothGradCamPlusPlus(model, model.get_submodule(layer)).attribute(
            x, photo, nt_samples=4, noise_level=noise_level
        )
        assert torch.allclose(smooth / smooth.norm(), plain / plain.norm(), atol=2e-6)
    inner = LayerSmoothGradCamPlusPlus(model, model.features[9]).attribute(x, photo, nt_samples=4)
    plain = LayerGradCamPlusPlus(model, model.features[9]).attribute(x, photo)
    assert (inner / inner.norm() - plain / plain.norm()).norm() > 0.01  # an inner layer does change
