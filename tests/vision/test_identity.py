"""Whatever changes a map changes the identity; where the model lies and how often it is loaded does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_sgcampp.vision import identity
from captum_sgcampp.vision.classifiers import Classifier, load_classifier
from captum_sgcampp.vision.identity import model_identity
from captum_sgcampp.vision.images import classifier_input
from captum_sgcampp.vision.model_factory import classifier_from_factory

CPU = torch.device("cpu")
MINE = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.register_buffer("shift", torch.zeros(()), persistent=False)
    def forward(self, x):
        return x * self.factor + self.shift

def load(factor="2"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 9, 8), Scaled(float(factor)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in one if one[name] != other[name]]


def test_the_same_model_loaded_again_and_in_any_memory_format_has_the_same_identity(file: Path) -> None:
    first, again = (classifier_from_factory(f"{file}:load") for _ in range(2))
    again.model.to(memory_format=torch.channels_last)
    assert model_identity(first, CPU) == model_identity(again, CPU)
    assert all(len(value) < 60 for value in model_identity(first, CPU).values())


def change_a_bit(model: nn.Module) -> None:
    model[0].weight.data.view(torch.int32)[1, 2, 3, 4] ^= 1


def change_a_buffer(model: nn.Module) -> None:
    model[1].shift += 1e-30


def change_the_dtype(model: nn.Module) -> None:
    model[0].double()


@pytest.mark.parametrize("change", [change_a_bit, change_a_buffer, change_the_dtype])
def test_weights_differ_by_a_bit_a_buffer_or_their_dtype(change: Callable, file: Path) -> None:
    classifier = classifier_from_factory(f"{file}:load")
    before = model_identity(classifier, CPU)
    change(classifier.model)
    prepared = ["preprocessing"] if change is change_the_dtype else []  # pictures get the dtype of the weights
    assert differing(before, model_identity(classifier, CPU)) == ["weights", *prepared]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_entries_of_any_dtype_are_read(dtype: torch.dtype) -> None:
    classifier = load_classifier()
    classifier.model.register_buffer("extra", torch.ones(2, 3).to(dtype))
    before = model_identity(classifier, CPU)["weights"]
    classifier.model.get_buffer("extra").view(-1).view(torch.uint8)[0] ^= 1
    assert model_identity(classifier, CPU)["weights"] != before


@pytest.mark.parametrize(
    "old, new", [("x * self.factor", "x.square() * self.factor"), ("AdaptiveAvgPool2d(1)", "AdaptiveMaxPool2d(1)")]
)
def test_the_same_weights_in_another_architecture_are_told_apart(old: str, new: str, file: Path) -> None:
    before = model_identity(classifier_from_factory(f"{file}:load"), CPU)
    file.write_text(MINE.replace(old, new))
    found = differing(before, model_identity(classifier_from_factory(f"{file}:load"), CPU))
    assert found == ["architecture"]


def test_a_factor_that_repr_does_not_show_is_told_apart(file: Path) -> None:
    one, other = (model_identity(classifier_from_factory(f"{file}:load={factor}"), CPU) for factor in (2, 3))
    assert differing(one, other) == ["architecture"]


def test_a_forward_pass_that_was_replaced_is_told_apart(file: Path) -> None:
    classifier = classifier_from_factory(f"{file}:load")
    before = model_identity(classifier, CPU)
    classifier.model[1].forward = lambda x: -x
    assert differing(before, model_identity(classifier, CPU)) == ["architecture"]


def test_another_normalization_size_or_dtype_is_told_apart(file: Path) -> None:
    classifier = classifier_from_factory(f"{file}:load")
    others: list[Callable] = [
        lambda picture: classifier_input(picture) * (1 + 2**-23),
        lambda picture: classifier_input(picture, resize=257),
        lambda picture: classifier_input(picture).double(),
    ]
    before = model_identity(classifier, CPU)
    for prepare in others:
        assert differing(before, model_identity(replace(classifier, prepare=prepare), CPU)) == ["preprocessing"]


def test_classes_and_their_probabilities_are_told_apart() -> None:
    classifier = load_classifier()
    before = model_identity(classifier, CPU)
    renamed: Classifier = replace(classifier, classes=[*classifier.classes[:-1], "thing"])
    for other in (renamed, replace(classifier, independent=False)):
        assert differing(before, model_identity(other, CPU)) == ["classes"]


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_other_versions_are_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_identity(load_classifier(), CPU)
    monkeypatch.setattr(f"{name}.__version__", "0.0")
    assert differing(before, model_identity(load_classifier(), CPU)) == [name]


def test_another_line_in_the_package_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr("captum_sgcampp.vision.identity._OWN", tmp_path)
    found = []
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / "a.py").write_text(text)
        identity._own_files.cache_clear()
        found.append(identity._own_files())
    identity._own_files.cache_clear()
    assert found[0] != found[1]


def test_what_libraries_add_to_all_modules_does_not_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_from_factory(f"{file}:load")
    before = model_identity(classifier, CPU)
    monkeypatch.setattr(nn.Module, "smart_apply", lambda self: None, raising=False)
    assert model_identity(classifier, CPU) == before
