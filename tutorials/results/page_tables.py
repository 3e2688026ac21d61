"""The tables of the pages, from the finished tables of `tables/` and the numbers of the papers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import figures
from figures import Row
from table_list import TABLES, Table

from captum_sgcampp.evaluation.groups import groups

NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "squeezenet1_1": "SqueezeNet",
    "googlenet": "GoogLeNet",
    "gtsrb": "traffic signs",
    "vgg16_brain_mri": "VGG-16, brains",
    "shapes": "scenes",
}
METHODS = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "smooth-grad-cam++": "Smooth Grad-CAM++",
    "two-sided-grad-cam++": "two-sided",
    "two-sided-smooth-grad-cam++": "two-sided smooth",
    "grad-cam++-without-relu": "Grad-CAM++ without ReLU (eqs 29, 30)",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "log-odds-grad-cam": "log-odds: Grad-CAM",
    "log-odds-two-sided-grad-cam++": "log-odds: two-sided",
    "log-odds-two-sided-smooth-grad-cam++": "log-odds: two-sided smooth",
    "log-odds-hires-cam": "log-odds: HiResCAM",
    "uniform": "*uniform*",
    "random": "*random*",
    "center-gaussian": "*Gaussian in the middle*",
    "edges": "*edges*",
}
BASELINES = ("uniform", "random", "center-gaussian", "edges")
PICTURES = {
    "imagenet": "photographs of ImageNet, one per class",
    "boxes": "photographs with boxes",
    "signs": "traffic signs",
    "mri": "slices of brains",
    "scenes": "fresh scenes, exact masks",
}
WITH_PHOTOGRAPHS = ("imagenet", "boxes")
OF_IMAGENET = ("mobilenet_v2", "squeezenet1_1", "googlenet")
GRAD_CAM, PLUS, SMOOTH = "grad-cam", "grad-cam++", "two-sided-smooth-grad-cam++"

# What `{measure: NAME}` shows, and the pictures that it is taken from: confidence kept is in several tables of a layer.
MEASURES = {
    "average_drop": ("imagenet", "signs", "mri", "scenes"),
    "increase": ("imagenet", "signs", "mri", "scenes"),
    "win": ("imagenet", "signs", "mri", "scenes"),
    "kept_50": ("imagenet", "boxes", "signs", "mri", "scenes"),
    "kept_25": ("imagenet", "boxes", "signs", "mri", "scenes"),
    "kept_10": ("imagenet", "boxes", "signs", "mri", "scenes"),
    "relative_area": ("imagenet", "signs", "scenes"),
    "deletion": ("imagenet", "signs", "scenes"),
    "insertion": ("imagenet", "signs", "scenes"),
    "occlusion": ("imagenet", "signs", "scenes"),
    "randomization_1": ("imagenet", "signs", "scenes"),
    "grid": ("imagenet", "signs"),
    "grid_two": ("imagenet", "signs"),
    "grid_balance": ("imagenet", "signs"),
    "sparseness": ("imagenet", "signs"),
    "energy": ("boxes", "scenes"),
    "pointing": ("boxes", "scenes"),
    "loc_0": ("boxes", "scenes"),
    "loc_0.25": ("boxes", "scenes"),
    "loc_0.5": ("boxes", "scenes"),
    "iou_0.5": ("scenes",),
    "instance_recall": ("boxes", "scenes"),
    "instance_balance": ("boxes", "scenes"),
}

METRICS = {metric.name: metric for group in groups(3).values() for metric in group.metrics}

# Paper, network and pictures, then Grad-CAM++ and Grad-CAM: average drop, increase, win.
PAPER_DROPS = (
    ("table 1", "VGG-16, ImageNet", (36.84, 17.05, 70.72), (46.56, 13.42, 29.28)),
    ("table 2", "VGG-16, VOC 2007", (19.53, 18.96, 61.47), (28.54, 21.43, 39.44)),
    ("table 8", "AlexNet, ImageNet", (62.75, 8.24, 86.56), (82.86, 3.16, 13.44)),
    ("table 9", "AlexNet, VOC 2007", (29.16, 19.76, 72.79), (45.82, 14.38, 27.21)),
    ("table 10", "ResNet-50, ImageNet", (28.90, 22.16, 60.51), (30.36, 22.11, 39.49)),
    ("table 11", "ResNet-50, VOC 2007", (16.19, 19.52, 58.61), (20.86, 21.99, 41.39)),
    ("table 6", "C3D, clips of Sports-1M", (59.79, 6.68, 94.09), (95.26, 0.84, 5.91)),
)
PAPER_WITHOUT_RELU = (32.43, 19.12, 26.09)  # table 7: VGG-16, VOC 2007, the win against Grad-CAM
PAPER_LOC = ((0.34, 0.38, 0.28), (0.33, 0.28, 0.16))  # table 3: VGG-16, VOC 2012, at 0, 0.25, 0.5
PAPER_AREA = (0.105, 0.096)  # figure 10: VGG-16


def markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def having(metric: str) -> list[Table]:
    """The finished tables with a measure, the first of each network and layer."""
    found: dict[tuple[str, str], Table] = {}
    for table in TABLES:
        place = table.network, table.layer
        wanted = table.pictures in MEASURES[metric] and figures.is_finished(table.name)
        if wanted and place not in found and figures.row(table.name, PLUS, metric):
            found[place] = table
    order = [(table.network, table.layer) for table in TABLES]
    return [found[place] for place in dict.fromkeys(order) if place in found]


def measure(metric: str) -> list[str]:
    """Methods in rows, networks and layers in columns: one table for the photographs, one for the others."""
    kinds = [[t for t in having(metric) if (t.pictures in WITH_PHOTOGRAPHS) == photo] for photo in (True, False)]
    tables = [_measure_table(metric, kind) for kind in kinds if kind]
    return ["\n\n".join("\n".join(lines) for lines in tables)] if tables else ["Not run yet."]


def _measure_table(metric: str, tables: list[Table]) -> list[str]:
    rows = [[title, *(_cell(table, method, metric) for table in tables)] for method, title in METHODS.items()]
    return markdown(["method", *map(head, tables)], [cells for cells in rows if any(cells[1:])])


def head(table: Table, root: str = "") -> str:
    """Network and layer, with a link from a page whose way to this folder is `root`."""
    return f"[{NETWORKS[table.network]}]({root}tables/{table.name}/table.md) `{table.layer}`"


def _cell(table: Table, method: str, metric: str) -> str:
    found = figures.row(table.name, method, metric)
    return "" if found is None else figures.value(found, metric) + figures.mark(found)


def runs() -> list[str]:
    """The finished tables, and the names of the others."""
    rows, missing = [], []
    for table in TABLES:
        if not figures.is_finished(table.name):
            missing.append(f"`{table.name}`")
            continue
        count = max(int(found["n"]) for found in figures.summary(table.name).values())
        place = f"{NETWORKS[table.network]}, `{table.layer}`"
        row = [f"[{table.name}](tables/{table.name}/table.md)", place, f"{count} {PICTURES[table.pictures]}"]
        rows.append([*row, ", ".join(table.metrics)])
    lines = markdown(["table", "network and layer", "pictures", "measures"], rows)
    return [*lines, "", f"Not run yet: {', '.join(missing)}."] if missing else lines


def drops() -> list[str]:
    """Average drop, increase and win of the papers, then ours."""
    heads = ["", "network, pictures", "Grad-CAM++: drop %", "increase %", "win % against Grad-CAM"]
    heads += ["Grad-CAM: drop %", "increase %", "uniform: drop %", "random: drop %"]
    rows = [[source, what, *(f"{x:.2f}" for x in (*plus, *cam[:2])), "", ""] for source, what, plus, cam in PAPER_DROPS]
    for table in having("average_drop"):
        wanted = [(PLUS, m) for m in figures.PERCENT] + [(GRAD_CAM, m) for m in figures.PERCENT[:2]]
        wanted += [("uniform", "average_drop"), ("random", "average_drop")]
        rows.append(["here", head(table), *(_cell(table, *one) for one in wanted)])
    return markdown(heads, rows)


def localization() -> list[str]:
    """Loc of the paper's table 3, then ours."""
    metrics = ("loc_0", "loc_0.25", "loc_0.5")
    heads = ["", "network, pictures", "method", "Loc at 0", "at 0.25", "at 0.5"]
    rows = [
        ["table 3", "VGG-16, VOC 2012", title, *(f"{x:.2f}" for x in values)]
        for title, values in zip(("Grad-CAM++", "Grad-CAM"), PAPER_LOC, strict=True)
    ]
    for table in having("loc_0.5"):
        for method in (PLUS, GRAD_CAM, SMOOTH, "uniform", "center-gaussian"):
            cells = [_cell(table, method, metric) for metric in metrics]
            if any(cells):
                rows.append(["here", head(table), METHODS[method], *cells])
    return markdown(heads, rows)


def without_relu() -> list[str]:
    """Table 7 of the paper, then ours."""
    heads = ["", "network, pictures", "without the ReLU: drop %", "increase %", "win % against Grad-CAM"]
    heads += ["Grad-CAM++: drop %", "Grad-CAM: drop %"]
    rows = [["table 7", "VGG-16, VOC 2007", *(f"{x:.2f}" for x in PAPER_WITHOUT_RELU), "19.53", "28.54"]]
    method = "grad-cam++-without-relu"
    for table in having("average_drop"):
        if figures.row(table.name, method, "average_drop"):
            cells = [_cell(table, method, metric) for metric in figures.PERCENT]
            cells += [_cell(table, other, "average_drop") for other in (PLUS, GRAD_CAM)]
            rows.append(["here", head(table), *cells])
    return markdown(heads, rows)


def areas() -> list[str]:
    """Figure 10 of the paper, then ours."""
    methods = (PLUS, GRAD_CAM, SMOOTH, "uniform", "center-gaussian")
    rows = [["figure 10", "VGG-16", *(f"{x:.3f}" for x in PAPER_AREA), "", "", ""]]
    for table in having("relative_area"):
        rows.append(["here", head(table), *(_cell(table, method, "relative_area") for method in methods)])
    return markdown(["", "network, pictures", *(METHODS[method] for method in methods)], rows)


# What is wanted of a method at the last layer: the measure, its tables, the reference, and how far below it may be.
WANTS = (
    ("share in mosaics", "last-photos", "grid", GRAD_CAM, 0.01),
    ("Loc at 0.5", "last-boxes", "loc_0.5", PLUS, 0.0),
    ("recall of several occurrences", "last-boxes", "instance_recall", PLUS, 0.0),
    ("confidence kept, 25 % of the area", "last-photos", "kept_25", GRAD_CAM, 0.0),
    ("confidence kept, 25 % of the area", "last-photos", "kept_25", PLUS, 0.0),
    ("the same on photographs with boxes", "last-boxes", "kept_25", GRAD_CAM, 0.0),
    ("the same on photographs with boxes", "last-boxes", "kept_25", PLUS, 0.0),
)


def wants(method: str = SMOOTH) -> list[str]:
    """Differences of a method from Grad-CAM or Grad-CAM++, and where all wishes hold."""
    rows = []
    for title, kind, metric, reference, margin in WANTS:
        cells = [_verdict(f"{network}-{kind}", method, metric, reference, margin) for network in OF_IMAGENET]
        rows.append([f"{title}, less {METHODS[reference]}'s", *cells])
    heads = [NETWORKS[network] for network in OF_IMAGENET]
    all_hold = [name for name, *cells in zip(heads, *(row[1:] for row in rows), strict=True) if _hold(cells)]
    return [*markdown(["difference", *heads], rows), "", f"All rows hold at: {', '.join(all_hold) or 'none'}."]


def _hold(verdicts: list[str]) -> bool:
    return all(cell.endswith(": holds") for cell in verdicts)


def _verdict(table: str, method: str, metric: str, reference: str, margin: float) -> str:
    if not figures.is_finished(table):
        return "not run"
    found = figures.row(table, method, metric, reference)
    return "not tested" if found is None else f"{figures.difference(found, metric)}: {verdict(found, margin)}"


def verdict(found: Row, margin: float) -> str:
    """Whether a method is not below the reference.

    Args:
        found: the row of the paired test.
        margin: how far below it may be with its whole interval. 0: only the mean difference counts, as the interval of
            equal methods always reaches below 0.
    """
    low, mean, high = (float(found[name]) for name in ("difference_low", "difference", "difference_high"))
    if (low > -margin) if margin else (mean >= 0):
        return "holds"
    return "**missed**" if high < 0 else "**missed**, within the interval"


BLOCKS: dict[str, Callable[[], list[str]]] = {
    "runs": runs,
    "drops": drops,
    "localization": localization,
    "without-relu": without_relu,
    "areas": areas,
    "wants": wants,
    "wants log-odds": partial(wants, "log-odds-two-sided-grad-cam++"),
} | {f"measure {metric}": partial(measure, metric) for metric in MEASURES}
