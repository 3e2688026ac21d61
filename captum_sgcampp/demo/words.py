"""What the statistics say, in sentences, and the advice that follows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_sgcampp.demo.explaining import Explanation
from captum_sgcampp.demo.kept_samples import TOLERANCE
from captum_sgcampp.demo.maps import ShownMap
from captum_sgcampp.demo.methods import SHOWN, is_guided, takes_noise
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.functional.tensors import of_norm_one
from captum_sgcampp.vision.words import advice_on, has_relu, of_statistics, on_closed_form


def sentences(found: Explanation) -> list[str]:
    """What the maps are worth, class by class, and then the advice."""
    told = [
        line for target, row in zip(found.targets, found.rows, strict=True) for line in _of_class(found, target, row)
    ]
    return [*told, *dict.fromkeys(_advice(found))]


def _of_class(found: Explanation, target: int, row: tuple[ShownMap, ...]) -> Iterator[str]:
    name = found.network.classifier.classes[target]
    for one in row:
        title = f"{SHOWN[one.method]}, {name}"
        if one.reason_of_zeros:
            yield f"{title}: the map shows nothing, its values are {one.reason_of_zeros}."
        if one.statistics is not None and not is_guided(one.method):
            yield f"{title}: {of_statistics(one.statistics)}."


def _advice(found: Explanation) -> Iterator[str]:
    with_relu = has_relu(found.network.classifier.model)
    for row in found.rows:
        for one in row:
            if one.statistics is not None and not one.reason_of_zeros:
                yield from _on_statistics(one.statistics, found.settings.auto, with_relu)
        if _noise_changes_nothing(row):
            yield (
                "Here the noise changes only the scale: Smooth Grad-CAM++ equals Grad-CAM++, as before global average "
                "pooling. An inner layer shows a difference."
            )
    if not found.closed_form_is_exact and set(found.settings.methods) != {"grad-cam"}:
        yield on_closed_form(found.network.exact_layers)
    if found.layer.both_signs:
        instead = " A layer after a ReLU has none." if with_relu else ""
        yield f"This layer has activations of both signs, which make poles.{instead}"


def _on_statistics(statistics: SamplingStatistics, auto: bool, with_relu: bool) -> Iterator[str]:
    count = int(statistics.nt_samples)
    if count > 1 and statistics.standard_error.item() > TOLERANCE:
        yield f"The map is not settled yet: raise n{'' if auto else ', or let the page choose it'}."
    yield from advice_on(statistics, with_relu)


def _noise_changes_nothing(row: tuple[ShownMap, ...]) -> bool:
    maps = {one.method: one.maps for one in row if not one.reason_of_zeros}
    both = [maps.get("grad-cam++"), maps.get("smooth-grad-cam++")]
    return all(isinstance(one, Tensor) for one in both) and bool(
        torch.sub(*map(of_norm_one, both)).norm() < 1e-4  # type: ignore[arg-type]
    )


def of_samples(found: Explanation) -> str:
    """How many noisy samples there are."""
    if not any(map(takes_noise, found.settings.methods)):
        return "No method with noise is chosen."
    counts = sorted({kept.count for kept in found.kept})
    return f"{' and '.join(map(str, counts))} noisy samples."
