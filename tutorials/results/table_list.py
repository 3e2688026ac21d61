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
# is Grad-CAM (SqueezeNet has a ReLU between: there it is Grad-CAM where that is on).
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
INNER = (*OF_THE_PAPERS, *TWO_SIDED, "hires-cam", "layer-cam", "log-odds-hires-cam", *BASELINES)
POOLED_FEW = (
    "grad-cam",
    "grad-cam++",
    "two-sided-smooth-grad-cam++",
    "log-odds-two-sided-grad-cam++",
    "uniform",
    "center-gaussian",
)

NOISE = (*OF_THE_PAPERS, "two-sided-smooth-grad-cam++")

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
        seconds: of one image in one thread, CPU time on an AMD EPYC (the last layers' photographs and boxes of
            MobileNetV2 and SqueezeNet by the others' ratio). A busy machine takes several times as long.
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


def photographs(network: str, layers: tuple[str, str], cost: float) -> list[Table]:
    """The tables of an ImageNet network: mosaics and drop, boxes, and what takes longer.

    Args:
        network: its name.
        layers: the last and an inner one.
        cost: of a forward pass, MobileNetV2's is 1.
    """
    last, inner = layers
    few_samples, curves = ("--nt-samples", "4"), ("--nt-samples", "4", "--steps", "10", "--limit", "48")

    def table(
        kind: str, layer: str, count: int, seconds: float, methods: tuple[str, ...], *rest: tuple[str, ...]
    ) -> Table:
        pictures = "boxes" if kind.endswith("boxes") else "imagenet"
        return Table(f"{network}-{kind}", network, layer, pictures, count, cost * seconds, methods, *rest)

    return [
        table("last-photos", last, 96, 3.5, POOLED, QUICK, few_samples),
        table("last-boxes", last, BOXED, 1.6, POOLED_FEW, BOXES, few_samples),
        table("last-curves", last, 48, 7.5, POOLED_FEW, SLOW, curves),
        table("inner-photos", inner, 96, 5, INNER, QUICK, few_samples),
        table("inner-boxes", inner, BOXED, 2.5, INNER, BOXES, few_samples),
        table("inner-curves", inner, 48, 11, INNER, SLOW, curves),
    ]


SCENES = ("--scenes", "300", "--steps", "10", "--nt-samples", "4")
LEVELS = ("--noise-level", "0.05", "0.15", "0.3")
OBJECTS = ("drop", "kept", "localization", "instances")
TABLES = [
    *photographs("mobilenet_v2", ("features.18", "features.14.conv.0"), 1),
    *photographs("squeezenet1_1", ("features.12", "features.9"), 0.7),
    *photographs("googlenet", ("inception_5b", "inception_4e"), 2.8),
    Table("gtsrb-last", "gtsrb", "features.8", "signs", 129, 0.7, ALL, QUICK),
    Table("gtsrb-curves", "gtsrb", "features.8", "signs", 129, 0.8, FEW, SLOW, ("--window", "8", "--stride", "4")),
    Table("gtsrb-inner", "gtsrb", "features.3", "signs", 129, 0.7, ALL, QUICK),
    Table(
        "vgg16_brain_mri-last",
        "vgg16_brain_mri",
        "features.29",
        "mri",
        48,
        24,
        WITHOUT_LOG_ODDS,
        ("drop", "kept"),
        ("--nt-samples", "4"),
    ),
    Table("scenes-last", "shapes", "features.14", "scenes", 300, 2.9, WITHOUT_LOG_ODDS, (*OBJECTS, *SLOW), SCENES),
    Table("scenes-inner", "shapes", "features.9", "scenes", 300, 0.7, WITHOUT_LOG_ODDS, OBJECTS, SCENES),
    # How much noise, and what averaging finished maps gives.
    Table(
        "scenes-noise",
        "shapes",
        "features.14",
        "scenes",
        300,
        1.3,
        (*NOISE, "noise-tunnel-grad-cam++", "top-feature-map", "random", "center-gaussian"),
        ("drop", "kept", "localization", "sparseness"),
        ("--scenes", "300", "--nt-samples", "4", "32", *LEVELS),
    ),
    Table(
        "squeezenet1_1-noise",
        "squeezenet1_1",
        "features.9",
        "imagenet",
        48,
        5,
        (*NOISE, "noise-tunnel-grad-cam++", "random", "center-gaussian"),
        ("drop", "kept", "occlusion"),
        ("--nt-samples", "4", "16", *LEVELS, "--limit", "48"),
    ),
    Table(
        "googlenet-noise",
        "googlenet",
        "inception_4e",
        "imagenet",
        48,
        8,
        (*NOISE, "center-gaussian"),
        ("kept", "grid"),
        ("--nt-samples", "4", *LEVELS, "--limit", "48"),
    ),
]
