"""The measures of a map, and the work that all methods share on an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import avg_pool2d

from captum_sgcampp import metrics as m
from captum_sgcampp.evaluation.cases import Case, image_seed
from captum_sgcampp.evaluation.groups import KEPT, THRESHOLDS
from captum_sgcampp.evaluation.methods import Method

# Confidences are equal up to this factor. A batch of another size alone moves them by some 1e-6 in float32.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that changes the numbers of an image, a layer and a method.

    Attributes:
        groups: names of the groups.
        seed: of noise, mosaics and randomized parameters.
        link: `"softmax"` or `"sigmoid"`.
        steps: of the curves.
        deletion_baseline, insertion_baseline: see `metrics.baseline_images`.
        window, stride: of the occlusion.
        tolerance: of the pointing game, in pixels.
        grid_size: `"full"` (a mosaic has twice the image's side) or `"half"` (the image's own).
        randomization_steps: number of models with ever more layers re-initialized.
        batch_size: rows of one forward pass.
    """

    groups: tuple[str, ...]
    seed: int = 0
    link: str
    steps: int = 16
    deletion_baseline: str = "zero"
    insertion_baseline: str = "blur"
    window: int
    stride: int
    tolerance: float = 0.0
    grid_size: str
    randomization_steps: int = 3
    batch_size: int


class Bench:
    """The model with its randomized copies, and the settings."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.model = model
        self.settings = settings

    @cached_property
    def randomized(self) -> list[tuple[str, nn.Module]]:
        s = self.settings
        return list(m.randomized_models(self.model, steps=s.randomization_steps, seed=s.seed))

    def confidence(self, inputs: Tensor, target: int) -> Tensor:
        s = self.settings
        return m.class_confidence(self.model, inputs, target, link=s.link, batch_size=s.batch_size)


class Shared:
    """What all layers and methods share on one image, computed when first needed.

    Args:
        bench: the model.
        case: the image.
        partners: reads the three others of its mosaic. None: it has none.
    """

    def __init__(self, bench: Bench, case: Case, partners: Callable[[], list[Tensor]] | None) -> None:
        self.bench = bench
        self.case = case
        self.partners = partners
        self.size = tuple(case.inputs.shape[2:])

    def seed(self, purpose: str) -> int:
        return image_seed(self.bench.settings.seed, self.case.name, purpose)

    @cached_property
    def confidence(self) -> Tensor:
        return self.bench.confidence(self.case.inputs, self.case.target)

    @cached_property
    def occlusion(self) -> Tensor:
        s, case = self.bench.settings, self.case
        return m.occlusion_map(
            self.bench.model,
            case.inputs,
            case.target,
            window=s.window,
            stride=s.stride,
            batch_size=s.batch_size,
        )

    @cached_property
    def mosaics(self) -> tuple[Tensor, Tensor, list[int]]:
        """A mosaic with three others, one with two others and the mirrored image, and the cells of the image and of its
        mirror image."""
        assert self.partners is not None
        image = self.case.inputs
        others = self.partners()
        places = torch.randperm(4, generator=Generator().manual_seed(self.seed("mosaic"))).tolist()
        one = self._mosaic([image, *others], places)
        two = self._mosaic([image, image.flip(-1), *others[:2]], places)
        return one, two, places[:2]

    def _mosaic(self, tiles: Sequence[Tensor], places: Sequence[int]) -> Tensor:
        ordered = [tile for _, tile in sorted(zip(places, tiles, strict=True), key=lambda pair: pair[0])]
        mosaic = m.mosaics(torch.stack(ordered, 1))
        return mosaic if self.bench.settings.grid_size == "full" else avg_pool2d(mosaic, 2)


@dataclass(frozen=True)
class Trial:
    """One map: an image, a layer and a method."""

    shared: Shared
    layer: str
    method: Method

    def explain(self, model: nn.Module, inputs: Tensor, purpose: str) -> Tensor:
        layer = model.get_submodule(self.layer)
        return self.method.explain(model, layer, inputs, self.shared.case.target, self.shared.seed(purpose)).detach()


def measure(trial: Trial) -> dict[str, float]:
    """All chosen metrics of one trial by name, NaN where one has no value. `explained` is the confidence on the
    explanation map, from which `win` is computed."""
    attributions = trial.explain(trial.shared.bench.model, trial.shared.case.inputs, "noise")
    maps = m.image_maps(attributions, trial.shared.size)
    found: dict[str, float] = {}
    for group in trial.shared.bench.settings.groups:
        found |= _MEASURES[group](trial, attributions, maps)
    return found


def _scaled(maps: Tensor) -> Tensor:
    """Scaled to [0, 1]. A uniform map is 1 everywhere: it shows the whole image. One without positive values is 0."""
    low, high = maps.flatten(1).aminmax(dim=1)
    uniform = (low == high) & (low > 0)
    return torch.where(uniform[:, None, None], 1, m.unit_range(maps))


def _drop(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    shared, case = trial.shared, trial.shared.case
    explained = shared.bench.confidence(m.explanation_inputs(case.inputs, _scaled(maps)), case.target)
    if torch.isclose(explained, shared.confidence, rtol=ROUNDING, atol=0):
        explained = shared.confidence
    return {
        "explained": float(explained),
        "average_drop": float(m.average_drop(shared.confidence, explained)),
        "increase": float(m.increase_in_confidence(shared.confidence, explained)),
    }


def _kept(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    shared, case = trial.shared, trial.shared.case
    found = {}
    for percent in KEPT:
        shown = m.explanation_inputs(case.inputs, m.top_pixels(maps, percent / 100))
        kept = m.confidence_kept(shared.confidence, shared.bench.confidence(shown, case.target))
        found[f"kept_{percent}"] = float(kept)
    return found


def _occluded(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    case, s = trial.shared.case, trial.shared.bench.settings
    curve = m.insertion_curve(
        trial.shared.bench.model,
        case.inputs,
        maps,
        case.target,
        steps=s.steps,
        baseline="zero",
        link=s.link,
        batch_size=s.batch_size,
    )
    return {"relative_area": float(m.relative_confidence_area(trial.shared.confidence, curve))}


def _curves(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    bench, case = trial.shared.bench, trial.shared.case
    s = bench.settings
    areas = {}
    for name, curve, baseline in (
        ("deletion", m.deletion_curve, s.deletion_baseline),
        ("insertion", m.insertion_curve, s.insertion_baseline),
    ):
        values = curve(
            bench.model,
            case.inputs,
            maps,
            case.target,
            steps=s.steps,
            baseline=baseline,
            link=s.link,
            batch_size=s.batch_size,
        )
        areas[name] = float(m.area_under_curve(values))
    return areas


def _occlusion(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    return {"occlusion": float(m.spearman(maps, trial.shared.occlusion))}


def _sparseness(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    return {"sparseness": float(m.sparseness(maps))}


def _randomization(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    others = (trial.explain(model, trial.shared.case.inputs, "noise") for _, model in trial.shared.bench.randomized)
    return {f"randomization_{k}": float(m.spearman(attributions, other)) for k, other in enumerate(others, 1)}


def _localization(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    case, scaled = trial.shared.case, _scaled(maps)
    assert case.boxes is not None
    inside = case.boxes if case.regions is None else case.regions
    found = {
        "energy": float(m.energy_inside(maps, inside)),
        "pointing": float(m.pointing_game(maps, inside, tolerance=trial.shared.bench.settings.tolerance)),
    }
    for threshold in THRESHOLDS:
        found[f"loc_{threshold}"] = float(m.localization_score(scaled, case.boxes, threshold))
        if case.regions is not None:
            found[f"iou_{threshold}"] = float(m.localization_score(scaled, case.regions, threshold))
    return found


def _instances(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    instances = trial.shared.case.instances
    assert instances is not None
    if len(instances) < 2:
        return {}
    return {
        "instance_balance": float(m.instance_balance(maps, instances)),
        "instance_recall": float(m.instance_recall(maps, instances)),
    }


def _grid(trial: Trial, attributions: Tensor, maps: Tensor) -> dict[str, float]:
    if trial.shared.partners is None:
        return dict.fromkeys(("grid", "grid_two", "grid_balance"), float("nan"))
    one, two, (own, mirrored) = trial.shared.mosaics
    cells = m.cell_masks(one.shape[2:]).to(one.device)
    model, size = trial.shared.bench.model, tuple(one.shape[2:])
    on_one, on_two = (m.image_maps(trial.explain(model, x, "mosaic"), size) for x in (one, two))
    return {
        "grid": float(m.instance_shares(on_one, cells)[0, own]),
        "grid_two": float(m.instance_shares(on_two, cells)[0, [own, mirrored]].sum()),
        "grid_balance": float(m.instance_balance(on_two, cells[[own, mirrored]])),
    }


_MEASURES: dict[str, Callable[[Trial, Tensor, Tensor], dict[str, float]]] = {
    "drop": _drop,
    "kept": _kept,
    "occluded": _occluded,
    "curves": _curves,
    "occlusion": _occlusion,
    "sparseness": _sparseness,
    "randomization": _randomization,
    "localization": _localization,
    "instances": _instances,
    "grid": _grid,
}
