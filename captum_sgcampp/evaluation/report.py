"""The summary as a table in Markdown and as a figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from matplotlib.figure import Figure

from captum_sgcampp._version import __version__
from captum_sgcampp.evaluation.groups import Group, Metric
from captum_sgcampp.evaluation.measures import Bench, Settings
from captum_sgcampp.evaluation.summary import Row
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.wide_gray import counted_limits, different_limits

SIGNIFICANT = 0.05
BETTER = {1: "higher is better", -1: "lower is better", 0: "a description"}
FAILURES_SHOWN = 20
PANEL_WIDTH, LINE_HEIGHT, PANEL_COLUMNS = 3.2, 0.22, 4


def table(
    rows: Sequence[Row],
    chosen: Mapping[str, Group],
    reference: str,
    head: Sequence[str],
    left_out: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The results in Markdown: one table per layer and group, and what was left out.

    Args:

        rows: the summary.
        chosen: the measured groups by name.
        reference: the method that the others are compared with.
        head: lines on what was measured.
        left_out: why groups were not measured, by name.
        notes: lines that explain single metrics.
    """
    lines = ["# Evaluation", "", *head, ""]
    lines += [
        f"Cells: mean [95 % bootstrap interval] over the images; (n) where a metric has no value on some. Marks: "
        f"significantly higher (^) or lower (v) than {reference} on the same images (sign-flip test, p < {SIGNIFICANT} "
        f"after Holm's adjustment for all tests of this report).",
        "",
    ]
    lines += [line for name, reason in left_out.items() for line in (f"Left out: {name} ({reason}).", "")]
    lines += [line for note in notes for line in (note, "")]
    most = max((row.n for row in rows), default=0)
    for layer in dict.fromkeys(row.layer for row in rows):
        lines += [f"## {layer}", ""]
        for name, group in chosen.items():
            found = [row for row in rows if row.layer == layer and row.metric in {m.name for m in group.metrics}]
            lines += [f"### {name}", "", *_group_table(found, group.metrics, most), ""] if found else []
    return "\n".join(lines).rstrip() + "\n"


def head(classifier: Classifier, images: str, settings: Settings) -> list[str]:
    """What was measured, in one line. `images` says how many of what."""
    s = settings
    of_groups = {
        "occluded": f"relative confidence in {s.steps} steps",
        "curves": f"curves: {s.steps} steps, deletion to {s.deletion_baseline}, insertion from {s.insertion_baseline}",
        "occlusion": f"occlusion of {s.window} x {s.window} pixels, stride {s.stride}",
        "localization": f"pointing game with a tolerance of {s.tolerance:g} pixels",
        "grid": f"mosaics of {s.grid_size} size",
    }
    parts = [f"{classifier.name} on {images}", f"confidence by {s.link}", f"seed {s.seed}"]
    parts += [text for name, text in of_groups.items() if name in s.groups]
    return [f"{'; '.join(parts)}; captum_sgcampp {__version__}."]


def notes(bench: Bench) -> list[str]:
    """Explanations of single metrics."""
    lines = [
        "Average drop, increase and win: the normalized image times the map scaled to [0, 1], as torchcam does it; "
        "what the map leaves out becomes the mean color, or black where inputs are not centered. A uniform map shows "
        "the whole image.",
    ]
    if {"kept", "occluded"} & set(bench.settings.groups):
        lines.append(
            "Confidence kept, min(Y, O) / Y, and relative confidence, O / Y (figure 10 of the Grad-CAM++ paper): the "
            "top pixels of the map as they are, all others 0 in the model's input. Equal values come in random order, "
            "so a uniform map shows scattered pixels."
        )
    if "randomization" in bench.settings.groups:
        names = "; ".join(
            f"{number}: from the top down to {name}" for number, (name, _) in enumerate(bench.randomized, 1)
        )
        lines.append(f"Similarity after randomization: rank correlation with a re-initialized model's map ({names}).")
    return lines


def failures(failed: Mapping[str, str]) -> list[str]:
    """The images that have no values, or not all, each with the reason."""
    lines = [f"Not measured: {image} ({error})." for image, error in islice(failed.items(), FAILURES_SHOWN)]
    more = len(failed) - len(lines)
    return [*lines, f"Not measured: {more} more; the column `error` of the parts has all."] if more else lines


def scaled(noted: Mapping[str, str]) -> list[str]:
    """How the images that are gray of more than 8 bits were brought to 8. `noted` has the words of each."""
    if not noted:
        return []
    scalings = Counter(noted.values())
    line = f"Images of gray of more than 8 bits, scaled to 8: {counted_limits(scalings)}"
    hint = "; give --white for one" if different_limits(scalings) else ""
    return [f"{line}{hint}; the column `note` of the parts tells each."]


def _group_table(rows: Sequence[Row], metrics: Sequence[Metric], most: int) -> list[str]:
    shown = [metric for metric in metrics if any(row.metric == metric.name for row in rows)]
    by_place = {(row.method, row.metric): row for row in rows}
    heads = ["method", *(f"{metric.title}<br>{BETTER[metric.better]}" for metric in shown)]
    lines = [heads, ["---"] * len(heads)]
    for method in dict.fromkeys(row.method for row in rows):
        lines.append([method, *(_cell(by_place.get((method, metric.name)), metric, most) for metric in shown)])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(row: Row | None, metric: Metric, most: int) -> str:
    if row is None:
        return ""
    number = ".1f" if metric.title.endswith("(%)") else ".3f"
    count = "" if row.n == most else f" ({row.n})"
    return f"{row.mean:{number}} [{row.low:{number}}, {row.high:{number}}]{_mark(row)}{count}"


def _mark(row: Row) -> str:
    if math.isnan(row.p_holm) or row.p_holm >= SIGNIFICANT:
        return ""
    return " ^" if row.difference > 0 else " v"


def figure(rows: Sequence[Row], metrics: Sequence[Metric]) -> Figure:
    """One panel per metric: means with intervals, a line per method, a color per layer."""
    shown = [metric for metric in metrics if any(row.metric == metric.name for row in rows)]
    methods = list(dict.fromkeys(row.method for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows))
    columns = min(PANEL_COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    height = 0.9 + LINE_HEIGHT * len(methods) * (1 + 0.4 * (len(layers) - 1))
    drawn = Figure(figsize=(PANEL_WIDTH * columns + 1.6, height * lines + 0.4), layout="constrained")
    panels = drawn.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, metric in zip(panels.flat, shown, strict=False):
        for number, layer in enumerate(layers):
            shift = 0.6 * (number - (len(layers) - 1) / 2) / len(layers)
            found = [row for row in rows if row.metric == metric.name and row.layer == layer]
            _draw_means(panel, found, [methods.index(row.method) + shift for row in found], f"C{number}", layer)
        arrow = {1: " (higher is better)", -1: " (lower is better)", 0: ""}[metric.better]
        panel.set_title(metric.title + arrow, fontsize=8)
        panel.grid(axis="x", alpha=0.3)
        panel.tick_params(labelsize=7)
    panels[0][0].set_yticks(range(len(methods)), methods)
    panels[0][0].set_ylim(len(methods) - 0.5, -0.5)
    for panel in panels.flat[len(shown) :]:
        panel.set_axis_off()
    drawn.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(layers), fontsize=8)
    return drawn


def _draw_means(panel, rows: Sequence[Row], places: Sequence[float], color: str, layer: str) -> None:  # type: ignore[no-untyped-def]
    means = [row.mean for row in rows]
    bounds = [[row.mean - row.low for row in rows], [row.high - row.mean for row in rows]]
    panel.errorbar(means, places, xerr=bounds, fmt="o", markersize=3.5, capsize=2, color=color, label=layer)
