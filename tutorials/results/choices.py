"""The tables of the advice: which method to take for which question, network and layer, by one rule.

The rule: Grad-CAM, unless methods are significantly better on the same images. Of those, the simplest whose mean is in
the interval of the best. So the advice follows from the tables, whatever they say.
"""

from __future__ import annotations

import figures
from figures import Row
from page_tables import BASELINES, GRAD_CAM, METHODS, METRICS, PLUS, SMOOTH, having, head, markdown
from table_list import Table

ROOT = "results/"  # the way from the advice to this folder

# What the advice answers, and the measure that does.
QUESTIONS = {
    "grid": "Where is the class, among others? Share of the map in the right photograph of four",
    "energy": "Which object is it? Share of the map in its boxes or mask",
    "loc_0.5": "How far does it reach? Loc at half the maximum, boxes",
    "iou_0.5": "The same, overlap with the exact mask",
    "instance_recall": "Are all objects of the class found? Recall at half the maximum",
    "kept_25": "Which quarter of the pixels keeps the decision? Share of the confidence",
    "deletion": "Which pixels take the score away first? Area under deletion, lower is better",
    "insertion": "Which pixels bring it back first? Area under insertion",
    "occlusion": "What lowers the score when it is covered? Rank correlation with occlusion",
}
# One gradient before formulas with higher derivatives, one pass before many.
SIMPLEST = (
    "hires-cam",
    "layer-cam",
    "log-odds-grad-cam",
    "log-odds-hires-cam",
    "grad-cam++",
    "two-sided-grad-cam++",
    "log-odds-two-sided-grad-cam++",
    "smooth-grad-cam++",
    "two-sided-smooth-grad-cam++",
    "log-odds-two-sided-smooth-grad-cam++",
)
NOT_TELLING = {("instance_recall", "uniform"), ("instance_recall", "random")}  # maps without any place find all


def choices() -> list[str]:
    """For each question, network and layer: the method to take, its figure, and those of the best known ones."""
    shown = (GRAD_CAM, PLUS, SMOOTH)
    heads = ["question", "network, layer", "take", "its figure", *(METHODS[method] for method in shown)]
    heads.append("best map without the network")
    rows = []
    for metric, question in QUESTIONS.items():
        for number, table in enumerate(having(metric)):
            method, rival = taken(table, metric), without_network(table, metric)
            figure = _plain(table, method, metric)
            title = f"none, or {METHODS[method]}" if is_beaten(table, method, metric) else f"**{METHODS[method]}**"
            others = [_plain(table, other, metric) for other in shown]
            best = f"{METHODS[rival]} {_plain(table, rival, metric)}" if rival else ""
            rows.append(["the same" if number else question, head(table, ROOT), title, figure, *others, best])
    return markdown(heads, rows)


def _plain(table: Table, method: str, metric: str) -> str:
    found = figures.row(table.name, method, metric)
    return "" if found is None else figures.value(found, metric, interval=False)


def taken(table: Table, metric: str) -> str:
    """Grad-CAM, or, of the methods that are significantly better on the same images, the simplest whose mean is in the
    interval of the best."""
    sign = METRICS[metric].better
    better = [method for method in SIMPLEST if _is_better(table, method, metric)] or [GRAD_CAM]
    best = max(better, key=lambda method: sign * _mean(table, method, metric))
    low, high = (float(_found(table, best, metric)[name]) for name in ("low", "high"))
    return next(method for method in better if low <= _mean(table, method, metric) <= high)


def is_beaten(table: Table, method: str, metric: str) -> bool:
    """Whether a map that does not look at the network is as good: in the method's interval, or beyond it."""
    rival, sign = without_network(table, metric), METRICS[metric].better
    if rival is None:
        return False
    worst = float(_found(table, method, metric)["low" if sign > 0 else "high"])
    return sign * _mean(table, rival, metric) >= sign * worst


def _is_better(table: Table, method: str, metric: str) -> bool:
    """Significantly better than Grad-CAM."""
    found = figures.row(table.name, method, metric)
    return found is not None and figures.mark(found) == {1: " ^", -1: " v"}[METRICS[metric].better]


def without_network(table: Table, metric: str) -> str | None:
    """The best map that does not look at the network."""
    sign = METRICS[metric].better
    known = [m for m in BASELINES if figures.row(table.name, m, metric) and (metric, m) not in NOT_TELLING]
    return max(known, key=lambda method: sign * _mean(table, method, metric)) if known else None


def _found(table: Table, method: str, metric: str) -> Row:
    found = figures.row(table.name, method, metric)
    assert found is not None
    return found


def _mean(table: Table, method: str, metric: str) -> float:
    return float(_found(table, method, metric)["mean"])


def two_sided() -> list[str]:
    """Where the advice takes two-sided weights."""
    settings = [(metric, table) for metric in QUESTIONS for table in having(metric) if _has_two_sided(table, metric)]
    chosen = [(metric, table, taken(table, metric)) for metric, table in settings]
    lines = [
        f"- {METRICS[metric].title}: {head(table, ROOT)}, {METHODS[method]} {_plain(table, method, metric)}."
        for metric, table, method in chosen
        if "two-sided" in method and not is_beaten(table, method, metric)
    ]
    text = f"Two-sided weights were measured in {len(settings)} of these lines, and are to be taken in {len(lines)}"
    return [f"{text}:", "", *lines] if lines else [f"{text}."]


def _has_two_sided(table: Table, metric: str) -> bool:
    return any(figures.row(table.name, method, metric) for method in METHODS if "two-sided" in method)


BLOCKS = {"choices": choices, "two-sided": two_sided}
