"""The maps of one batch: every method, layer and class, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import LayerGradCam
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


@dataclass(frozen=True)
class Plan:
    """What is explained, and how.

    Attributes:
        classifier: the model.
        layers: names of its modules.
        reshape_transform: for all layers, see `LayerGradCamPlusPlus`.
        targets: the classes.
        options: the rest.
    """

    classifier: Classifier
    layers: tuple[str, ...]
    reshape_transform: ReshapeTransform | None
    targets: Targets
    options: Options

    @property
    def modules(self) -> list[nn.Module]:
        """The layers."""
        return [self.classifier.model.get_submodule(name) for name in self.layers]


@dataclass(frozen=True)
class _Found:
    """What one method gives at one layer: for each target a map `(N, 1, h, w)` and the statistics of the noise."""

    maps: Sequence[Tensor]
    statistics: Sequence[SamplingStatistics | None]


def explained_rows(plan: Plan, inputs: Tensor, own: Sequence[int]) -> list[list[Row]]:
    """For every image the rows of its maps.

    Args:
        plan: what is explained.
        inputs: `(N, C, H, W)`.
        own: the class that each image brings, where the targets ask for it.
    """
    scores: ChosenScores | None = None
    found: dict[tuple[str, str], _Found] = {}
    for method in plan.options.methods:
        choose = partial(_chosen, plan, own, None if scores is None else scores.targets)
        scores = ChosenScores(plan.classifier.model, len(inputs), choose)
        for layer, of_layer in zip(plan.layers, _METHODS[method](plan, scores, inputs), strict=True):
            found[method, layer] = of_layer
    assert scores is not None and scores.logits is not None and scores.targets is not None
    heads = _heads(plan, scores.logits, scores.targets)
    return [_rows(plan, found, number, head, inputs) for number, head in enumerate(heads)]


def _chosen(plan: Plan, own: Sequence[int], known: Tensor | None, logits: Tensor) -> Tensor:
    """The same classes for every method, chosen by the first."""
    return plan.targets.chosen(logits, own) if known is None else known


def _grad_cam(plan: Plan, scores: ChosenScores, inputs: Tensor) -> list[_Found]:
    if plan.reshape_transform is not None:
        raise ValueError("methods: expected grad-cam++ or smooth-grad-cam++ for layers of tokens, found grad-cam")
    scores(inputs)
    assert scores.targets is not None
    columns = range(scores.targets.shape[1])
    found = []
    for layer in plan.modules:
        method = LayerGradCam(scores, layer)
        maps = [method.attribute(inputs, c, relu_attributions=plan.options.relu).detach() for c in columns]
        found.append(_Found(maps, [None for _ in columns]))
    return found


def _grad_cam_plus_plus(plan: Plan, scores: ChosenScores, inputs: Tensor) -> list[_Found]:
    method = LayerGradCamPlusPlus(scores, plan.modules, reshape_transform=plan.reshape_transform)
    results: Any = method.attribute_targets(inputs, _columns(plan), relu_attributions=plan.options.relu)
    return [_Found(maps, [None] * len(maps)) for maps in zip(*results, strict=True)]


def _smooth_grad_cam_plus_plus(plan: Plan, scores: ChosenScores, inputs: Tensor) -> list[_Found]:
    options = plan.options
    method = LayerSmoothGradCamPlusPlus(scores, plan.modules, reshape_transform=plan.reshape_transform)
    results: Any = method.attribute_targets(
        inputs,
        _columns(plan),
        relu_attributions=options.relu,
        nt_samples=options.nt_samples,
        noise_level=float(options.noise_level),
        tolerance=options.tolerance,
        max_nt_samples=options.max_nt_samples,
        generator=Generator().manual_seed(options.seed),
        return_statistics=True,
    )
    of_targets = [zip(*result, strict=True) for result in results]  # of each target the maps and statistics by layer
    return [_Found(*zip(*layer, strict=True)) for layer in zip(*of_targets, strict=True)]


_METHODS = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "smooth-grad-cam++": _smooth_grad_cam_plus_plus,
}


def _columns(plan: Plan) -> list[int]:
    """The outputs of `ChosenScores`."""
    return list(range(plan.targets.count))


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
    plan: Plan, found: Mapping[tuple[str, str], _Found], number: int, heads: Sequence[Row], inputs: Tensor
) -> list[Row]:
    """The rows of one image: for every class all methods at all layers."""
    height, width = inputs.shape[2:]
    common = {"seed": plan.options.seed, "device": device_name(inputs.device)}
    common |= {"input_height": height, "input_width": width}
    rows = []
    for column, head in enumerate(heads):
        for (method, layer), of_layer in found.items():
            noise = _noise(plan.options, of_layer.statistics[column], number)
            rows.append(
                {**head, "layer": layer, "method": method, **common, **noise, **_map(of_layer.maps[column][number, 0])}
            )
    return rows


def _map(values: Tensor) -> Row:
    height, width = values.shape
    return {"height": height, "width": width, "map": values.float().flatten().cpu().numpy()}


def _noise(options: Options, statistics: SamplingStatistics | None, number: int) -> Row:
    if statistics is None:
        return {}
    names = ("nt_samples", "standard_error", "effective_sample_size", "pole_share", "pole_weight_share")
    return {"noise_level": options.noise_level} | {name: getattr(statistics, name)[number].item() for name in names}


def device_name(device: torch.device) -> str:
    """The processor. CUDA's noise differs between kinds of devices."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
