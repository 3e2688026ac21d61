"""The maps of one batch: every method, layer and class, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Generator, Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
from captum_sgcampp.dataset.clean_scores import ChosenScores
from captum_sgcampp.dataset.columns import Row
from captum_sgcampp.dataset.options import Options
from captum_sgcampp.dataset.targets import Targets
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.grad_cam import grad_cam
from captum_sgcampp.vision.identity import device_name
from captum_sgcampp.vision.layer_choice import ChosenLayer


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


@dataclass(frozen=True)
class _Call:
    """What one explanation gets: layers that share a `reshape_transform`, and the model whose outputs are the chosen
    classes."""

    options: Options
    scores: ChosenScores
    layers: tuple[ChosenLayer, ...]
    inputs: Tensor
    outputs: range

    @property
    def modules(self) -> list[nn.Module]:
        return [self.scores.model.get_submodule(layer.name) for layer in self.layers]

    @property
    def reshape_transform(self) -> ReshapeTransform | None:
        return self.layers[0].reshape_transform


class _Found(NamedTuple):
    """What one method gives at one layer for one class: maps `(N, 1, h, w)`, and the statistics of the noise."""

    maps: Tensor
    statistics: SamplingStatistics | None = None


def explained_rows(plan: Plan, inputs: Tensor, own: Sequence[int]) -> list[list[Row]]:
    """For every image the rows of its maps.

    Args:
        plan: what is explained.
        inputs: `(N, C, H, W)`.
        own: the class that each image brings, where the targets ask for it.
    """
    scores: ChosenScores | None = None
    found: dict[tuple[str, str], list[_Found]] = {}  # for every class, by method and layer
    for method in plan.options.methods:
        for layers in _of_equal_transform(plan.layers):
            choose = partial(_chosen, plan, own, None if scores is None else scores.targets)
            scores = ChosenScores(plan.classifier.model, len(inputs), choose)
            call = _Call(plan.options, scores, layers, inputs, range(plan.targets.count))
            for layer, of_layer in zip(layers, zip(*_METHODS[method](call), strict=True), strict=True):
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


def _grad_cam(call: _Call) -> list[list[_Found]]:
    """For every class and every layer."""
    maps = grad_cam(
        call.scores,
        call.modules,
        call.inputs,
        call.outputs,
        reshape_transform=call.reshape_transform,
        relu_attributions=call.options.relu,
    )
    return [[_Found(one) for one in of_class] for of_class in maps]


def _grad_cam_plus_plus(call: _Call, two_sided: bool = False) -> list[list[_Found]]:
    method = LayerGradCamPlusPlus(call.scores, call.modules, reshape_transform=call.reshape_transform)
    maps: Any = method.attribute_targets(
        call.inputs, call.outputs, relu_attributions=call.options.relu, two_sided=two_sided
    )
    return [[_Found(one) for one in of_class] for of_class in maps]


def _smooth_grad_cam_plus_plus(call: _Call, two_sided: bool = False) -> list[list[_Found]]:
    options = call.options
    method = LayerSmoothGradCamPlusPlus(call.scores, call.modules, reshape_transform=call.reshape_transform)
    results: Any = method.attribute_targets(
        call.inputs,
        call.outputs,
        relu_attributions=options.relu,
        nt_samples=options.nt_samples,
        noise_level=float(options.noise_level),
        tolerance=options.tolerance,
        max_nt_samples=options.max_nt_samples,
        generator=Generator().manual_seed(options.seed),
        return_statistics=True,
        two_sided=two_sided,
    )
    return [list(map(_Found, *of_class)) for of_class in results]


_METHODS: dict[str, Callable[[_Call], list[list[_Found]]]] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "two-sided-grad-cam++": partial(_grad_cam_plus_plus, two_sided=True),
    "smooth-grad-cam++": _smooth_grad_cam_plus_plus,
    "two-sided-smooth-grad-cam++": partial(_smooth_grad_cam_plus_plus, two_sided=True),
}


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
    found: Mapping[tuple[str, str], Sequence[_Found]],
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
