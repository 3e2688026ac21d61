"""The tables: networks, layers, pictures, methods and measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from table_pictures import BOXED

FACTORY = Path(__file__).resolve().parent / "trained_networks.py"

BASELINES = ("uniform", "random", "center-gaussian", "edges")
OF_THE_PAPERS = ("grad-cam", "grad-cam++", "smooth-grad-cam++")
TWO_SIDED = ("two-sided-grad-cam++", "two-sided-smooth-grad-cam++")
OTHERS = ("grad-cam++-without-relu", "hires-cam", "layer-cam")
LOG_ODDS = (
    "log-odds-grad-cam",
    "log-odds-two-sided-grad-cam++",
    "log-odds-two-sided-smooth-grad-cam++",
    "log-odds-hires-cam",
)
ALL = (*OF_THE_PAPERS, *TWO_SIDED, *OTHERS, *LOG_ODDS, *BASELINES)
WITHOUT_LOG_ODDS = (*OF_THE_PAPERS, *TWO_SIDED, *OTHERS, *BASELINES)
FEW = (*OF_THE_PAPERS, *TWO_SIDED, "hires-cam", "layer-cam", "random", "center-gaussian")

# Where only global pooling and a linear score follow: there smoothing changes no map (but with log-odds), and HiResCAM
# is Grad-CAM.
POOLED = (
    "grad-cam",
    "grad-cam++",
    "two-sided-smooth-grad-cam++",
    "grad-cam++-without-relu",
    "layer-cam",
    "log-odds-grad-cam",
    "log-odds-two-sided-grad-cam++",
    *BASELINES,
)
POOLED_FEW = (
    "grad-cam",
    "grad-cam++",
    "two-sided-smooth-grad-cam++",
    "log-odds-two-sided-grad-cam++",
    "uniform",
    "center-gaussian",
)

QUICK = ("drop", "kept", "sparseness", "grid")
BOXES = ("kept", "localization", "instances")
SLOW = ("occluded", "curves", "occlusion", "randomization")


@dataclass(frozen=True)
class Table:
    """One command.

    Attributes:
        name: its folder.
        network: of `trained_networks.py`; `shapes` is the bundled one.
        layer: of the network.
        pictures: see `table_pictures.py`.
        images: how many there are.
        seconds: measured for one image, in one thread.
        methods, metrics, more: options of `evaluate`.
    """

    name: str
    network: str
    layer: str
    pictures: str
    images: int
    seconds: float
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def minutes(self) -> float:
        """In one process."""
        return self.images * self.seconds / 60

    def command(self, pictures: list[str]) -> list[str]:
        """The command without `python -m` and the reference."""
        model = [] if self.network == "shapes" else ["--model-factory", f"{FACTORY}:load={self.network}"]
        options = ["--layers", self.layer, "--methods", *self.methods, "--metrics", *self.metrics, *self.more]
        return ["captum_sgcampp", "evaluate", *pictures, *model, *options]


def photographs(network: str, place: str, layer: str, seconds: tuple[float, float, float]) -> list[Table]:
    """The three tables of a layer of an ImageNet network: mosaics and drop, boxes, and what takes longer."""
    name = f"{network}-{place}"
    methods, few = (POOLED, POOLED_FEW) if place == "last" else (ALL, FEW)
    more = ("--nt-samples", "4") if place == "last" else ()
    return [
        Table(f"{name}-photos", network, layer, "imagenet", 96, seconds[0], methods, QUICK, more),
        Table(f"{name}-boxes", network, layer, "boxes", BOXED, seconds[1], few, BOXES, more),
        Table(f"{name}-curves", network, layer, "imagenet", 96, seconds[2], few, SLOW, (*more, "--steps", "10")),
    ]


SMALL = ("--window", "8", "--stride", "4", "--steps", "10")
TABLES = [
    *photographs("mobilenet_v2", "last", "features.18", (9.0, 4.0, 20.0)),
    *photographs("mobilenet_v2", "inner", "features.14.conv.0", (9.0, 4.0, 20.0)),
    *photographs("squeezenet1_1", "last", "features.12", (9.0, 4.0, 20.0)),
    *photographs("squeezenet1_1", "inner", "features.9", (9.0, 4.0, 20.0)),
    *photographs("googlenet", "last", "inception_5b", (9.0, 4.0, 20.0)),
    *photographs("googlenet", "inner", "inception_4e", (9.0, 4.0, 20.0)),
    Table("gtsrb-last", "gtsrb", "features.8", "signs", 129, 1.0, ALL, QUICK),
    Table("gtsrb-last-curves", "gtsrb", "features.8", "signs", 129, 1.0, FEW, SLOW, SMALL),
    Table("gtsrb-inner", "gtsrb", "features.3", "signs", 129, 1.0, ALL, QUICK),
    Table(
        "vgg16_brain_mri-last", "vgg16_brain_mri", "features.29", "mri", 48, 60.0, WITHOUT_LOG_ODDS, ("drop", "kept")
    ),
    Table(
        "scenes-last",
        "shapes",
        "features.14",
        "scenes",
        300,
        1.0,
        WITHOUT_LOG_ODDS,
        ("drop", "kept", "localization", "instances", *SLOW),
        ("--scenes", "300", "--steps", "10"),
    ),
    Table(
        "scenes-inner",
        "shapes",
        "features.9",
        "scenes",
        300,
        1.0,
        WITHOUT_LOG_ODDS,
        ("drop", "kept", "localization", "instances"),
        ("--scenes", "300"),
    ),
]
