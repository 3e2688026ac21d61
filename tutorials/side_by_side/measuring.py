"""What is measured of one example at one layer: how far each package is from the papers, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import packages
import transcriptions as formulas
from packages import Case
from torch import Tensor
from transcriptions import Observed, Variant, class_map, correlation, distance


@dataclass(frozen=True)
class Entry:
    """One method in the tables.

    Attributes:
        name: of the column.
        run: gives its map.
        smooth: whether the truth is Smooth Grad-CAM++ or Grad-CAM++.
        transcription: what it computes, from what the network gave.
    """

    name: str
    run: Callable[[Case], Tensor]
    smooth: bool
    transcription: Callable[[Observed], Tensor]


def _as(variant: Variant) -> Callable[[Observed], Tensor]:
    return lambda observed: class_map(observed, variant)


ENTRIES = (
    Entry("captum_sgcampp LayerGradCamPlusPlus", packages.ours, False, class_map),
    Entry("torchcam GradCAMpp", packages.torchcam, False, _as(formulas.TORCHCAM)),
    Entry("grad-cam GradCAMPlusPlus", packages.grad_cam, False, _as(formulas.GRAD_CAM)),
    Entry("captum_sgcampp LayerSmoothGradCamPlusPlus", packages.ours_smooth, True, class_map),
    Entry("torchcam SmoothGradCAMpp", packages.torchcam_smooth, True, _as(formulas.TORCHCAM_SMOOTH)),
    Entry("captum NoiseTunnel(LayerGradCam)", packages.noise_tunnel_grad_cam, True, formulas.mean_of_grad_cam_maps),
    Entry(
        "captum NoiseTunnel(LayerGradCamPlusPlus)",
        packages.noise_tunnel_plus_plus,
        True,
        formulas.mean_of_plus_plus_maps,
    ),
)

# How the errors are mended, one after the other: (what is mended, its name in `Variant`).
DIVISION = ("the division takes place", "undivided")
SUM = ("`sum(A) D3`", "sum_of_products")
EPSILON = ("no epsilon", "epsilon")
MENDS: dict[str, tuple[Variant, bool, list[tuple[str, str]]]] = {
    "torchcam GradCAMpp": (formulas.TORCHCAM, False, [DIVISION, SUM, EPSILON]),
    "grad-cam GradCAMPlusPlus": (formulas.GRAD_CAM, False, [EPSILON]),
    "torchcam SmoothGradCAMpp": (
        formulas.TORCHCAM_SMOOTH,
        True,
        [
            ("mean gradient", "last_gradient"),
            ("clean `A` in the map", "last_activation"),
            ("copies weighted by `exp(S)`", "equal_copies"),
            SUM,
            EPSILON,
        ],
    ),
}


@dataclass(frozen=True)
class Result:
    """What is measured of one example at one layer.

    Attributes:
        shape: of the activation, `K x H x W`.
        signed: whether the activation has negative entries.
        smoothing: distance between the papers' two maps: what the smoothing changes.
        truths: Grad-CAM++ and Smooth Grad-CAM++ in float64.
        maps: by entry.
        agreements: distance between package and transcription, both in float64, by entry; empty where not asked for.
        slow: distance between the truth and its nested transcription, the larger of the two; NaN where not asked for.
        mended: by package, the distances as it is and after each step.
        alone: by package, the distances with one departure only.
        tunnel: distances of `NoiseTunnel` as its departures are mended.
        swamped: share of the positions with `g > 0` where grad-cam's epsilon exceeds the denominator.
    """

    shape: str
    signed: bool
    smoothing: float
    truths: tuple[Tensor, Tensor]
    maps: list[Tensor]
    agreements: list[float]
    slow: float
    mended: dict[str, list[float]]
    alone: dict[str, list[float]]
    tunnel: list[float]
    swamped: float

    def of(self, measure: Callable[[Tensor, Tensor], float]) -> list[float]:
        """A measure of every entry against its truth."""
        return [measure(found, self.truths[entry.smooth]) for entry, found in zip(ENTRIES, self.maps, strict=True)]

    def numbers(self) -> dict[str, Any]:
        """All but the maps, for a file."""
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("truths", "maps")}
        return {**kept, "distances": self.of(distance), "correlations": self.of(correlation)}


def compare(case: Case, checked: bool = True, slow: bool = False) -> Result:
    """Run everything at one layer.

    Args:
        case: network, layer, example and noise.
        checked: also compare each package with its transcription, in float64.
        slow: also compare the truth with nested loops.
    """
    wide = case.in_float64()
    runs = (wide.clean, wide.copies)
    plain, noisy = (formulas.observe(wide.model, wide.layer, wide.clean, rows, case.target) for rows in runs)
    observed = (plain, noisy)
    truths = (class_map(plain), class_map(noisy))
    pairs = list(zip(observed, truths, strict=True))
    return Result(
        " x ".join(map(str, plain.clean.shape)),
        bool((plain.clean < 0).any()),
        distance(*truths),
        truths,
        [entry.run(case) for entry in ENTRIES],
        [distance(e.run(wide), e.transcription(observed[e.smooth])) for e in ENTRIES] if checked else [],
        max(distance(formulas.transcribed_slowly(o), truth) for o, truth in pairs) if slow else math.nan,
        {name: _mended(variant, steps, *pairs[smooth]) for name, (variant, smooth, steps) in MENDS.items()},
        {name: _alone(variant, steps, *pairs[smooth]) for name, (variant, smooth, steps) in MENDS.items()},
        _tunnel(noisy, truths[1]),
        _swamped(plain),
    )


def _mended(variant: Variant, steps: Sequence[tuple[str, str]], observed: Observed, truth: Tensor) -> list[float]:
    """As it is, then with each step and all before it."""
    names = [name for _, name in steps]
    variants = [variant.mended(names[:count]) for count in range(len(names) + 1)]
    return [distance(class_map(observed, v), truth) for v in variants]


def _alone(variant: Variant, steps: Sequence[tuple[str, str]], observed: Observed, truth: Tensor) -> list[float]:
    """With only one departure."""
    variants = [replace(formulas.PAPER, **{name: getattr(variant, name)}) for _, name in steps]
    return [distance(class_map(observed, v), truth) for v in variants]


def _tunnel(noisy: Observed, truth: Tensor) -> list[float]:
    steps = (
        formulas.mean_of_grad_cam_maps(noisy),
        formulas.mean_of_plus_plus_maps(noisy),
        formulas.mean_of_plus_plus_maps(noisy, clean_activation=True),
        class_map(noisy, Variant(equal_copies=True)),
        class_map(noisy),
    )
    return [distance(found, truth) for found in steps]


def _swamped(plain: Observed) -> float:
    g = plain.gradients[0]
    denominator = 2 * g**2 + g**3 * plain.clean.sum((1, 2), keepdim=True)
    return float((denominator.abs() < formulas.GRAD_CAM.epsilon)[g > 0].double().mean())
