"""Classes of one picture or recording: which ones are meant, and their maps by each method at each layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.layer_choice import ChosenLayer, named_layer
from captum_sgcampp.vision.methods import METHODS, Found, Noise, Selection, is_two_sided, maps_by
from captum_sgcampp.vision.words import of_statistics, of_zeros

# Maps (1, 1, h, w) by the method's title and the layer's name.
Maps: TypeAlias = dict[tuple[str, str], Tensor]
# Each class of a call holds its own sums of derivatives, 33 times the layer's size.
MOST_CLASSES = 8


@dataclass(frozen=True)
class Subject:
    """One picture and one class to explain.

    Attributes:
        name: of the picture, or of another file.
        shown: the part of it that the model sees, an image or a `Recording`.
        inputs: `(1, C, *space)`.
        target: class index.
        label: the class and its probability, in words.
    """

    name: str
    shown: Any
    inputs: Tensor
    target: int
    label: str


class Explained(NamedTuple):
    """The map of one method at one layer.

    Attributes:
        maps: `(1, 1, h, w)`, after the papers' ReLU.
        note: on it, in words.
        nt_samples: how many noisy samples it took. None: a method without noise.
        statistics: of these samples, where they are kept.
    """

    maps: Tensor
    note: str
    nt_samples: int | None
    statistics: SamplingStatistics | None = None


# By the method's title and the layer's name.
Results: TypeAlias = dict[tuple[str, str], Explained]


def classified(classifier: Classifier, picture: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """The model's input, `(1, C, *space)`, and the probability of every class, `(classes,)`.

    Raises:
        ValueError: not one score for every class.
        RuntimeError: scores that are not finite.
    """
    inputs = classifier.prepare(picture).to(device)
    with torch.no_grad():
        scores = classifier.model(inputs)
    found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if found != (1, len(classifier.classes)):
        raise ValueError(f"model: expected scores of shape (1, {len(classifier.classes)}), found {found}")
    if not bool(torch.isfinite(scores).all()):
        raise RuntimeError(f"model: expected finite scores, found NaN or infinity from {classifier.name}")
    return inputs, classifier.probabilities(scores)[0]


def subjects_of(
    classifier: Classifier, name: str, source: Any, targets: Sequence[str | int], device: torch.device
) -> list[Subject]:
    """The classes of one picture or recording that `targets` names, see `target_indices`."""
    inputs, probabilities = classified(classifier, source, device)
    return subjects_among(classifier, name, source, targets, inputs, probabilities)


def subjects_among(
    classifier: Classifier,
    name: str,
    source: Any,
    targets: Sequence[str | int],
    inputs: Tensor,
    probabilities: Tensor,
) -> list[Subject]:
    """As `subjects_of`, from what `classified` gave."""
    shown = classifier.show(source)
    return [
        Subject(name, shown, inputs, target, f"{classifier.classes[target]}: {probabilities[target]:.3f}")
        for target in target_indices(classifier, probabilities, targets)
    ]


def class_count(targets: Sequence[str | int]) -> int:
    """How many classes `targets` names at most."""
    return sum(int(str(target)[4:]) if str(target).startswith("top:") else 1 for target in targets)


def target_indices(classifier: Classifier, probabilities: Tensor, targets: Sequence[str | int]) -> list[int]:
    """The classes that `targets` names: indices, numbers or names as text, or the most probable ones (`top`, `top:K`).

    Raises:
        ValueError: no such class.
    """
    indices: list[int] = []
    for target in targets:
        if isinstance(target, int):
            if not 0 <= target < len(probabilities):
                raise ValueError(f"target: expected a class from 0 to {len(probabilities) - 1}, found {target}")
            indices.append(target)
        elif target == "top" or target.startswith("top:"):
            count = whole_number("target", target.removeprefix("top").removeprefix(":") or "1", len(probabilities))
            indices += probabilities.topk(count).indices.tolist()
        else:
            indices.append(classifier.class_index(target))
    return list(dict.fromkeys(indices))


def whole_number(argument: str, text: str, most: int) -> int:
    """The number in the text of an argument."""
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"{argument}: expected a number from 1 to {most}, found {text!r}")
    return int(text)


def explained(
    model: nn.Module,
    layers: Sequence[ChosenLayer],
    method: str,
    subjects: Sequence[Subject],
    noise: Noise,
    selections: Mapping[tuple[int, str], Selection] | None = None,
) -> dict[tuple[int, str], Explained]:
    """The map of one method for every class of one picture at every layer, by the class index and the layer's name.

    What has the same `reshape_transform` and the same selection is explained in one call, over the same noisy samples:
    up to `MOST_CLASSES` classes at all layers.

    Args:
        model: of images.
        layers: what is explained.
        method: one of `METHODS`.
        subjects: classes of one picture.
        noise: of Smooth Grad-CAM++.
        selections: by class index and layer's name. Missing ones: everything.

    Raises:
        RuntimeError: maps that are not finite.
    """
    found: dict[tuple[int, str], Explained] = {}
    for call in _calls(model, layers, method, subjects, noise, selections or {}):
        for (target, name), (maps, statistics) in call.maps(relu=True).items():
            if not bool(torch.isfinite(maps).all()):
                raise RuntimeError(f"model: expected finite maps, found NaN or infinity by {METHODS[method]} at {name}")
            reason = "" if maps.any() else f", {call.reason_of_zeros(target, name)}"
            size = " x ".join(map(str, maps.shape[2:]))
            note = f"{size}{reason}" + ("" if statistics is None else f", {of_statistics(statistics)}")
            count = None if statistics is None else int(statistics.nt_samples)
            found[target, name] = Explained(maps, note, count, statistics)
    return found


@dataclass(frozen=True)
class _Call:
    """What is explained together: the same transform and selection."""

    model: nn.Module
    layers: tuple[ChosenLayer, ...]
    method: str
    inputs: Tensor
    targets: tuple[int, ...]
    noise: Noise
    selection: Selection

    def maps(self, relu: bool) -> dict[tuple[int, str], Found]:
        """What every class gives at every layer, by the class index and the layer's name."""
        modules = [named_layer(self.model, layer.name) for layer in self.layers]
        with warnings.catch_warnings():  # the note says it
            for said in (
                "layer: expected tokens that",
                "layer: expected a map with",
                "nt_samples: expected an effective",
            ):
                warnings.filterwarnings("ignore", message=said)
            rows = maps_by(
                self.method,
                self.model,
                modules,
                self.inputs,
                self.targets,
                self.noise,
                reshape_transform=self.layers[0].reshape_transform,
                relu=relu,
                selection=self.selection,
            )
        return {
            (target, layer.name): one
            for target, row in zip(self.targets, rows, strict=True)
            for layer, one in zip(self.layers, row, strict=True)
        }

    def reason_of_zeros(self, target: int, name: str) -> str:
        """Why a map is zero everywhere, in words."""
        layers = tuple(layer for layer in self.layers if layer.name == name)
        alone = _Call(self.model, layers, self.method, self.inputs, (target,), self.noise, self.selection)
        ((before_relu, _),) = alone.maps(relu=False).values()
        both_signs = self.method in ("grad-cam", "hires-cam") or is_two_sided(self.method)
        return of_zeros(bool(before_relu.any()), both_signs)


def _calls(
    model: nn.Module,
    layers: Sequence[ChosenLayer],
    method: str,
    subjects: Sequence[Subject],
    noise: Noise,
    selections: Mapping[tuple[int, str], Selection],
) -> Iterator[_Call]:
    """As few calls as explain all classes at all layers."""
    together: dict[Any, list[ChosenLayer]] = {}
    chosen: dict[str, Selection] = {}
    for layer in layers:
        targets: dict[str, list[int]] = {}
        for target in dict.fromkeys(subject.target for subject in subjects):
            selection = selections.get((target, layer.name), {})
            targets.setdefault(repr(selection), []).append(target)
            chosen[repr(selection)] = selection
        for key, same in targets.items():
            for start in range(0, len(same), MOST_CLASSES):
                some = tuple(same[start : start + MOST_CLASSES])
                together.setdefault((layer.reshape_transform, key, some), []).append(layer)
    for (_, key, same), group in together.items():
        yield _Call(model, tuple(group), method, subjects[0].inputs, same, noise, chosen[key])
