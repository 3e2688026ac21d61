"""How the cost grows with the noisy samples, the batch, the targets and the layers of one call.

Prints tables in Markdown and draws a plot.

    python growth.py --threads 2 --network mobilenet_v2:features.18,features.14,features.7 --out growth.png
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from setting import Setting, compiled_if_asked_for, model_and_images, parsed, parser
from tables import markdown, summary
from timing import Runs, bare_runs, interleaved, quicker, ratio, repeated
from torch import Tensor, nn

from captum_sgcampp import LayerSmoothGradCamPlusPlus

# What grows, and its values.
AXES: dict[str, tuple[int, ...]] = {
    "noisy samples": (1, 2, 4, 8, 16, 32, 64),
    "images": (1, 2, 4, 8),
    "targets": (1, 2, 5, 10, 20),
    "layers": (1, 2, 3),
}
INCHES = 3.2


class Point(NamedTuple):
    """Median seconds of one call.

    Attributes:
        value: of what grows.
        seconds: of Smooth Grad-CAM++.
        bare: of bare inference of the same images, the better of one batch and batches of three.
        ratio: median over the rounds of the seconds divided by those at the first value.
    """

    value: int
    seconds: float
    bare: float
    ratio: float


def grow(network: str, layers: list[str], axis: str, setting: Setting) -> list[Point]:
    """Time calls along one axis, all its values in turn in every round.

    Args:
        network: name of a torchvision model.
        layers: names of its modules, the deepest first. The axis "layers" starts with the last, which has the longest
            graph behind it; the others take the first alone.
        axis: one of `AXES`.
        setting: what else is measured.
    """
    values = [value for value in AXES[axis] if axis != "layers" or value <= len(layers)]
    most = replace(setting, batch=max(values)) if axis == "images" else setting
    model, images = model_and_images(network, most)
    modules = [model.get_submodule(name) for name in layers]
    model = compiled_if_asked_for(model, setting)
    runs: Runs = {}
    for value in values:
        runs[f"ours {value}"] = _call(model, modules, images, axis, value, setting)
        runs |= bare_runs(model, _inferred(images, axis, value, setting), f"bare {value}")
    seconds = interleaved(runs, setting)
    return [_point(value, values[0], seconds) for value in values]


def _point(value: int, first: int, seconds: dict[str, list[float]]) -> Point:
    ours, bare = seconds[f"ours {value}"], quicker(seconds, f"bare {value}")
    return Point(value, statistics.median(ours), statistics.median(bare), ratio(ours, seconds[f"ours {first}"]))


def _call(
    model: nn.Module, modules: list[nn.Module], images: Tensor, axis: str, value: int, setting: Setting
) -> Callable[[], object]:
    method = LayerSmoothGradCamPlusPlus(model, modules[::-1][:value] if axis == "layers" else modules[0])
    inputs = images[:value] if axis == "images" else images
    targets = list(range(value)) if axis == "targets" else [1]
    options: dict[str, Any] = {"nt_samples": value if axis == "noisy samples" else setting.nt_samples, "stdevs": 0.1}
    return lambda: method.attribute_targets(inputs, targets, **options)


def _inferred(images: Tensor, axis: str, value: int, setting: Setting) -> Tensor:
    """As many images as the call gives to the model."""
    inputs = images[:value] if axis == "images" else images
    return repeated(inputs, (value if axis == "noisy samples" else setting.nt_samples) + 1, setting)


def growth_report(network: str, layers: list[str], points: dict[str, list[Point]], setting: Setting) -> str:
    """The figures as tables in Markdown, with machine and versions."""
    lines = [summary(setting), "", f"{network}, {', '.join(layers)}."]
    for axis, found in points.items():
        heads = [axis, "seconds", f"/ with {found[0].value}", "/ bare inference"]
        rows = [[str(p.value), f"{p.seconds:.3f}", f"{p.ratio:.2f}", f"{p.seconds / p.bare:.2f}"] for p in found]
        lines += ["", *markdown(heads, rows)]
    return "\n".join(lines)


def growth_figure(points: dict[str, list[Point]], title: str) -> Figure:
    """Seconds against each axis, beside bare inference of the same images."""
    figure = Figure(figsize=(INCHES * len(points), INCHES), layout="constrained")
    for axes, (axis, found) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        values = [p.value for p in found]
        axes.plot(values, [p.seconds for p in found], "o-", label="Smooth Grad-CAM++")
        axes.plot(values, [p.bare for p in found], "s--", label="bare inference")
        axes.set_xlabel(axis)
        axes.set_ylabel("seconds")
        axes.set_ylim(0, 1.15 * max(max(p.seconds, p.bare) for p in found))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw and print."""
    made = parser(__doc__, "network", "nt-samples", "batch", "size", "rounds", "threads", "device", "mode")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="plot")
    arguments, setting = parsed(made, argv)
    network, text = arguments.network[0]
    layers = text.split(",")
    points = {}
    for axis in AXES:
        print(f"measuring {network} {axis}", file=sys.stderr)
        points[axis] = grow(network, layers, axis, setting)
    growth_figure(points, f"{network} {layers[0]}, {setting.nt_samples} noisy samples unless shown").savefig(
        arguments.out, dpi=120
    )
    print(growth_report(network, layers, points, setting))


if __name__ == "__main__":
    main()
