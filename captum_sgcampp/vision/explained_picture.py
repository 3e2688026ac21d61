"""From a classifier and one picture to its explanation: the classes, the layers, the selection, the maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.functional.selection import box_to_neurons
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explained_classes import (
    Subject,
    classified,
    explained,
    subjects_among,
    whole_number,
)
from captum_sgcampp.vision.explanation import ExplainedMap, Explanation, TopClass
from captum_sgcampp.vision.layer_choice import ChosenLayer, fitting_layer, named_layer
from captum_sgcampp.vision.methods import Noise, Selection, is_smooth
from captum_sgcampp.vision.places import Place, box_in_crop
from captum_sgcampp.vision.suited_layers import suited_layers
from captum_sgcampp.vision.trust import advice
from captum_sgcampp.wide_gray import scaling_of

MOST_NAMED = 5  # of the most probable classes


@dataclass(frozen=True)
class Request:
    """What is wanted of every picture.

    Attributes:
        targets: classes, see `target_indices`.
        methods: among `METHODS`.
        noise: of the smooth ones.
        layers: names, or layers that an earlier picture got. Empty: those that suit.
        feature_maps: the only ones that count: numbers, or `top:K` by weight. Empty: all.
        neurons: the only ones that count, rows and columns. None: all.
        box: the same, `(x0, y0, x1, y1)` in pixels of the picture.
    """

    targets: Sequence[str | int]
    methods: Sequence[str]
    noise: Noise
    layers: Sequence[str | ChosenLayer] = ()
    feature_maps: Sequence[str | int] = ()
    neurons: tuple[slice, ...] | None = None
    box: Sequence[float] | None = None

    def restriction(self) -> dict[str, Any]:
        """What the maps are restricted to, as a manifest tells it."""
        neurons = None if self.neurons is None else [f"{side.start or 0}:{side.stop or ''}" for side in self.neurons]
        found = {"feature_maps": list(self.feature_maps), "neurons": neurons, "box": self.box and list(self.box)}
        return {name: value for name, value in found.items() if value}


def explained_picture(
    classifier: Classifier,
    name: str,
    picture: Any,
    request: Request,
    device: torch.device,
    tell: Callable[[str], object] = str,
) -> Explanation:
    """Explain one picture.

    Args:
        classifier: its model is on the device.
        name: of the picture.
        picture: in RGB, or what else the classifier's `prepare` takes.
        request: what is wanted.
        device: for the input.
        tell: gets why the layers were chosen, and the notes, before the maps are made. The default does nothing.

    Raises:
        ValueError: a class, a layer or a selection that there is not.
        RuntimeError: scores or maps that are not finite.
    """
    inputs, probabilities = classified(classifier, picture, device)
    subjects = subjects_among(classifier, name, picture, request.targets, inputs, probabilities)
    place, notes = _place(classifier, name, picture, request)
    notes += [f"{name}: {scaling}" for scaling in [scaling_of(picture)] if scaling]
    layers, reasons = _layers(classifier.model, subjects[0], request)
    placed = request if place is None else replace(request, box=place.box)
    selections, told = _selections(classifier.model, layers, subjects, placed)
    for line in (*(f"layer: {reason}" for reason in reasons), *notes, *told):
        tell(line)
    maps = _maps(classifier, layers, subjects, request, selections)
    return Explanation(
        classifier=classifier,
        subjects=tuple(subjects),
        maps=maps,
        top=_top(classifier, probabilities),
        layers=tuple(layers),
        reasons=tuple(reasons),
        notes=(*notes, *told),
        noise=request.noise,
        place=place,
        restriction=request.restriction(),
        advice=tuple(advice(classifier.model, inputs, maps)),
    )


def _maps(
    classifier: Classifier,
    layers: Sequence[ChosenLayer],
    subjects: Sequence[Subject],
    request: Request,
    selections: Mapping[tuple[int, str], Selection],
) -> tuple[ExplainedMap, ...]:
    """By class, layer and method."""
    found = {
        method: explained(classifier.model, layers, method, subjects, request.noise, selections)
        for method in request.methods
    }
    return tuple(
        ExplainedMap(target, classifier.classes[target], method, layer.name, *found[method][target, layer.name])
        for target in (subject.target for subject in subjects)
        for layer in layers
        for method in request.methods
    )


def _top(classifier: Classifier, probabilities: Tensor) -> tuple[TopClass, ...]:
    values, indices = probabilities.topk(min(MOST_NAMED, len(probabilities)))
    pairs = zip(indices.tolist(), values.tolist(), strict=True)
    return tuple(TopClass(index, classifier.classes[index], value) for index, value in pairs)


def _place(classifier: Classifier, name: str, picture: Any, request: Request) -> tuple[Place | None, list[str]]:
    """Where the maps are restricted to, in pixels of what the model sees."""
    if request.box is None:
        return (Place(neurons=request.neurons) if request.neurons else None), []
    if not isinstance(picture, Image.Image):  # the input itself: the model sees all of it
        return Place(box=tuple(request.box)), []
    box, is_cut = box_in_crop(request.box, picture.size, classifier.show)
    return Place(box=box), [f"{name}: the model sees only a part of the box"] if is_cut else []


def _layers(model: nn.Module, subject: Subject, request: Request) -> tuple[list[ChosenLayer], list[str]]:
    """The layers that were named, or those that suit, and why."""
    if not request.layers:
        return suited_layers(model, subject, smooth=any(map(is_smooth, request.methods)))
    given = [fitting_layer(model, one, subject.inputs) if isinstance(one, str) else one for one in request.layers]
    return given, []


def _selections(
    model: nn.Module, layers: Sequence[ChosenLayer], subjects: Sequence[Subject], request: Request
) -> tuple[dict[tuple[int, str], Selection], list[str]]:
    """The keywords `feature_maps` and `neurons` of `attribute`, by class index and layer, and what is told of them."""
    if not (request.feature_maps or request.neurons or request.box):
        return {}, []
    found: dict[tuple[int, str], Selection] = {}
    notes: list[str] = []
    for subject in subjects:
        for layer in layers:
            found[subject.target, layer.name] = _selection(model, layer, subject, request, notes)
    return found, notes


def _selection(
    model: nn.Module, layer: ChosenLayer, subject: Subject, request: Request, notes: list[str]
) -> dict[str, Any]:
    module = named_layer(model, layer.name)
    method = LayerGradCamPlusPlus(model, module, reshape_transform=layer.reshape_transform)
    shape = method.attribute(subject.inputs, subject.target, attr_dim_summation=False).shape  # type: ignore[union-attr]
    selection: dict[str, Any] = {}
    if request.feature_maps:
        selection["feature_maps"] = _feature_maps(request.feature_maps, method, subject, shape[1], notes)
    if request.neurons:
        selection["neurons"] = request.neurons
    if request.box:
        selection["neurons"] = box_to_neurons(request.box, subject.inputs.shape[2:], shape[2:])
    return selection


def _feature_maps(
    wanted: Sequence[str | int], method: LayerGradCamPlusPlus, subject: Subject, count: int, notes: list[str]
) -> list[int]:
    chosen: list[int] = []
    for one in wanted:
        text = str(one)
        if text.startswith("top:"):
            k = whole_number("feature_maps", text.removeprefix("top:"), count)
            weights, indices = method.top_feature_maps(subject.inputs, subject.target, k=k)
            found = ", ".join(f"{i} ({w:.3g})" for i, w in zip(indices[0].tolist(), weights[0].tolist(), strict=True))
            notes.append(f"{subject.label}: feature maps with the largest Grad-CAM++ weights: {found}")
            chosen += indices[0].tolist()
        else:
            chosen.append(int(text))
    return chosen
