"""The maps of one batch: every method, layer and class, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from captum_sgcampp.dataset.clean_scores import ChosenScores
from captum_sgcampp.dataset.columns import Row
from captum_sgcampp.dataset.options import Options
from captum_sgcampp.dataset.targets import Targets
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.identity import device_name
from captum_sgcampp.vision.layer_choice import ChosenLayer
from captum_sgcampp.vision.methods import Found, maps_by


@dataclass(frozen=True)
class Plan:
    """What is explained, and how.

    Attributes:
        classifier: the model.
        layers: of it.
        targets: the classes.
        options: the rest.
    """

    classifier: Classifier
    layers: tuple[ChosenLayer, ...]
    targets: Targets
    options: Options


def explained_rows(plan: Plan, inputs: Tensor, own: Sequence[int]) -> list[list[Row]]:
    """For every image the rows of its maps.

    Args:
        plan: what is explained.
        inputs: `(N, C, H, W)`.
        own: the class that each image brings, where the targets ask for it.
    """
    scores: ChosenScores | None = None
    found: dict[tuple[str, str], list[Found]] = {}  # for every class, by method and layer
    for method in plan.options.methods:
        for layers in _of_equal_transform(plan.layers):
            choose = partial(_chosen, plan, own, None if scores is None else scores.targets)
            scores = ChosenScores(plan.classifier.model, choose)
            rows = maps_by(
                method,
                scores,
                [scores.model.get_submodule(layer.name) for layer in layers],
                inputs,
                range(plan.targets.count),
                plan.options.noise,
                reshape_transform=layers[0].reshape_transform,
                relu=plan.options.relu,
            )
            for layer, of_layer in zip(layers, zip(*rows, strict=True), strict=True):
                found[method, layer.name] = list(of_layer)
    assert scores is not None and scores.logits is not None and scores.targets is not None
    heads = _heads(plan, scores.logits, scores.targets)
    return [_rows(plan, found, number, head, inputs) for number, head in enumerate(heads)]


def _of_equal_transform(layers: Sequence[ChosenLayer]) -> list[tuple[ChosenLayer, ...]]:
    groups: dict[ReshapeTransform | None, list[ChosenLayer]] = {}
    for layer in layers:
        groups.setdefault(layer.reshape_transform, []).append(layer)
    return [tuple(group) for group in groups.values()]


def _chosen(plan: Plan, own: Sequence[int], known: Tensor | None, logits: Tensor) -> Tensor:
    """The same classes for every method, chosen by the first."""
    return plan.targets.chosen(logits, own) if known is None else known


def _heads(plan: Plan, logits: Tensor, targets: Tensor) -> list[list[Row]]:
    """For every image and class: which it is, and how sure the model is."""
    classes, probabilities = plan.classifier.classes, plan.classifier.probabilities(logits.float())
    return [
        [
            {
                "target": target,
                "target_name": str(classes[target]),
                "score": float(logits[number, target]),
                "probability": float(probabilities[number, target]),
            }
            for target in of_image
        ]
        for number, of_image in enumerate(targets.tolist())
    ]


def _rows(
    plan: Plan,
    found: Mapping[tuple[str, str], Sequence[Found]],
    number: int,
    heads: Sequence[Row],
    inputs: Tensor,
) -> list[Row]:
    """The rows of one image: for every class all layers by all methods."""
    height, width = inputs.shape[2:]
    common = {"seed": plan.options.seed, "device": device_name(inputs.device)}
    common |= {"input_height": height, "input_width": width}
    rows = []
    for column, head in enumerate(heads):
        for (method, layer), of_classes in found.items():
            maps, statistics = of_classes[column]
            noise, values = _noise(plan.options, statistics, number), _map(maps[number, 0])
            rows.append({**head, "layer": layer, "method": method, **common, **noise, **values})
    return rows


def _map(values: Tensor) -> Row:
    height, width = values.shape
    return {"height": height, "width": width, "map": values.float().flatten().cpu().numpy()}


def _noise(options: Options, statistics: SamplingStatistics | None, number: int) -> Row:
    if statistics is None:
        return {}
    names = ("nt_samples", "standard_error", "effective_sample_size", "pole_share", "pole_weight_share")
    return {"noise_level": options.noise_level} | {name: getattr(statistics, name)[number].item() for name in names}
