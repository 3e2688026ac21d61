"""The measures by name, in groups that are computed together, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass

from captum_sgcampp.evaluation.cases import MASKS, MOSAICS, PAIRS

THRESHOLDS = (0, 0.25, 0.5)  # of the map scaled to [0, 1]
KEPT = (50, 25, 10)  # percent of the pixels


@dataclass(frozen=True)
class Metric:
    """A number per image.

    Attributes:
        name: its column.
        title: its name in the table.
        better: 1 where higher is better, -1 where lower is, 0 for a description.
    """

    name: str
    title: str
    better: int = 0


@dataclass(frozen=True)
class Group:
    """Metrics that are computed together and chosen by one name.

    Attributes:
        needs: what the images must have, in words. Empty: nothing.
        metrics: the results.
    """

    needs: str
    metrics: tuple[Metric, ...]

    @property
    def values(self) -> list[str]:
        """Names of the numbers of an image. The win percentage compares the confidences `explained` of two methods."""
        names = [metric.name for metric in self.metrics]
        return ["explained", *(name for name in names if name != "win")] if "win" in names else names


def groups(randomization_steps: int) -> dict[str, Group]:
    """All groups by the name that `--metrics` takes."""
    stages = range(1, randomization_steps + 1)
    return {
        "drop": Group(
            "",
            (
                Metric("average_drop", "average drop (%)", -1),
                Metric("increase", "increase in confidence (%)", 1),
                Metric("win", "win against the reference (%)", 1),
            ),
        ),
        "kept": Group("", tuple(Metric(f"kept_{k}", f"confidence kept, top {k} %", 1) for k in KEPT)),
        "occluded": Group("", (Metric("relative_area", "relative confidence, area", 1),)),
        "curves": Group("", (Metric("deletion", "deletion area", -1), Metric("insertion", "insertion area", 1))),
        "occlusion": Group("", (Metric("occlusion", "rank correlation with occlusion", 1),)),
        "sparseness": Group("", (Metric("sparseness", "sparseness (Gini index)"),)),
        "randomization": Group(
            "", tuple(Metric(f"randomization_{k}", f"similarity after randomization {k}", -1) for k in stages)
        ),
        "localization": Group(MASKS, _localization_metrics()),
        "instances": Group(PAIRS, _instance_metrics()),
        "grid": Group(
            MOSAICS,
            (
                Metric("grid", "grid pointing game", 1),
                Metric("grid_two", "grid, two instances: energy in both", 1),
                Metric("grid_balance", "grid, two instances: balance", 1),
            ),
        ),
    }


def _localization_metrics() -> tuple[Metric, ...]:
    return (
        Metric("energy", "energy in the object", 1),
        Metric("pointing", "pointing game", 1),
        *(Metric(f"loc_{t}", f"Loc at {t} (boxes)", 1) for t in THRESHOLDS),
        *(Metric(f"iou_{t}", f"IoU at {t} (masks)", 1) for t in THRESHOLDS),
    )


def _instance_metrics() -> tuple[Metric, ...]:
    return (
        Metric("instance_balance", "balance of the instances", 1),
        Metric("instance_recall", "recall of the instances at half the maximum", 1),
    )
