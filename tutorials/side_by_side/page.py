"""The page: tables of medians and ranges, and the maps of one picture for each network."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from measuring import ENTRIES, MENDS, Result
from PIL import Image
from reasons import REASONS, quoted
from samples import Network
from torch import Tensor
from transcriptions import distance

from captum_sgcampp import __version__

DISTRIBUTIONS = ("torchcam", "grad-cam", "captum", "torch", "torchvision")
EMPTY = "-"

Row = dict[str, Any]  # numbers of one picture, layer and seed; see `measuring.Result.numbers`
PLACE = {entry.name: place for place, entry in enumerate(ENTRIES)}


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        copies, noise_level: of the noise.
        seeds: for each picture.
        checked: pictures of each layer on which transcriptions and packages were compared.
    """

    copies: int
    noise_level: float
    seeds: int
    checked: int


@dataclass(frozen=True)
class Layer:
    """All rows of one layer: those of Grad-CAM++ are the same for every seed."""

    network: str
    name: str
    rows: list[Row]

    def values(self, pick: Callable[[Row], float], smooth: bool = True) -> list[float]:
        """One number per picture, and per seed where the noise has a part in it."""
        return [pick(row) for row in self.rows if smooth or row["repeat"] == 0]

    def measured(self, measure: str, name: str) -> list[float]:
        """Distances or correlations of the method of this name."""
        place = PLACE[name]
        return self.values(lambda row: row[measure][place], ENTRIES[place].smooth)

    @property
    def kind(self) -> str:
        """What the formula meets there."""
        signs = "both signs" if any(row["signed"] for row in self.rows) else "not negative"
        unmoved = max(row["smoothing"] for row in self.rows) < 1e-6
        return f"{signs}, smoothing changes nothing" if unmoved else signs


def by_layers(rows: Iterable[Row]) -> list[Layer]:
    """The rows, sorted; networks and layers in the order in which they come."""
    rows = list(rows)
    keys = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    ordered = sorted(rows, key=lambda row: keys.index((row["network"], row["layer"])))
    groups = groupby(ordered, key=lambda row: (row["network"], row["layer"]))
    return [Layer(network, name, list(found)) for (network, name), found in groups]


def number(value: float) -> str:
    """Three digits behind the point, fewer where it is tiny."""
    if math.isnan(value):
        return EMPTY
    return f"{value:.3f}" if abs(value) >= 5e-4 else f"{value:.0e}" if abs(value) > 1e-15 else "0"


def spread(values: Sequence[float]) -> str:
    """Median, smallest and largest."""
    low, middle, high = (number(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def by_layer(head: Sequence[str], layers: Sequence[Layer], cells: Callable[[Layer], Iterable[str]]) -> str:
    """A table with a row for each layer."""
    return table(["network", "layer", *head], [[x.network, f"`{x.name}`", *cells(x)] for x in layers])


PAGE = """\
# Side by side with torchcam, grad-cam and Captum's NoiseTunnel

How far other packages are from the formulas of Grad-CAM++ and Smooth Grad-CAM++, layer by layer, and why. This page was
written by [`compare.py`](compare.py); anyone can make it again:

```bash
pip install torchcam grad-cam
python tutorials/side_by_side/compare.py --out my-page
```

`--trained` adds the trained networks of the folder that `SGCAMPP_ASSETS` names. Networks and photographs of your own
are added by `--model-factory`, `--layers` and `--images` (`--help`). A stopped run goes on with the same command.

Versions: {versions}.

## What is compared

- **Truth.** The papers' formulas in float64 ([`transcriptions.py`](transcriptions.py)), from the scores, gradients and
  activations of the network. At each layer the script computes them once more with nested loops over single neurons, on
  one picture. The two differ by {slow} at most. The numerator of alpha is the second derivative, as in Grad-CAM++
  eq 19 (and in torchcam).
- **Same inputs, same noise.** All packages get the {n} noisy copies that captum_sgcampp draws (`noise_level`
  {level:g}). What torchcam and `NoiseTunnel` draw their noise from is replaced ([`packages.py`](packages.py)). So only
  the formula differs.
- **Same form.** Maps are compared in the layer's size after the final ReLU, and before a package scales them to
  [0, 1] or to the size of the input.
- **Distance.** L2 norm of the difference of the two maps, each divided by its own L2 norm: 0 is equal, 1.414 is nothing
  in common, 1 an empty map. The packages run in float32, as they are used.
- **Networks and pictures.** {networks}. The score is the logit `S` of the most probable class, and `Y = exp(S)`.
- **Numbers.** Median, and in brackets the smallest and the largest value: over the pictures for Grad-CAM++, over
  pictures and {seeds} seeds of the noise for the smooth methods. Each picture has noise of its own.

### The layers

*What the smoothing changes* is the distance between the papers' two maps.

{layers}

Where only global average pooling and a linear score follow, the gradients of all copies are equal up to a factor. There
the smoothing can change nothing, and what others change comes from noisy activations and from their denominators. Where
activations have both signs (before a ReLU, linear bottlenecks), the denominator of alpha nearly vanishes at some
positions: poles. There the papers' own map says little, and rounding in float32 is enlarged (this package's largest
distance: {largest}). After averaging, that also happens at single positions after a ReLU.

## Distance from the papers

A small distance means the papers' formula. It does not mean a better explanation.

### Grad-CAM++

{plain}

### Smooth Grad-CAM++

{smooth}

### Correlation

With the papers' map over the positions, median only.

{correlations}

### How much the seed matters

The distance of one picture, largest minus smallest over its {seeds} seeds, median over the pictures. For this package
it is rounding, which poles enlarge.

{seeded}

## Why

Each expression below stands so in the installed version.

{reasons}
## The reasons, checked

For each package, [`transcriptions.py`](transcriptions.py) holds what it computes. In float64 the transcription and the
package differ by {agreement} at most: all methods, all layers, {checked} pictures each. Mending its departures one
after the other leads to the papers' map. Each number is the distance that is left, as a median. It may grow on the way,
since errors hide each other. After the last step the largest of all {count} distances is {mended}. The column `float32`
is the package as above. Where it differs from `as it is` (float64), the package's own denominator nearly vanishes.

### torchcam GradCAMpp

{torchcam}

### grad-cam GradCAMPlusPlus

Last column: the share of the positions with a positive gradient where the epsilon exceeds the papers' denominator
`2 g^2 + g^3 sum(A)`.

{grad_cam}

### torchcam SmoothGradCAMpp

{torchcam_smooth}

The same departures, each alone in an otherwise correct formula:

{alone}

### Captum NoiseTunnel(LayerGradCam)

From left to right: as it is; Grad-CAM++ in each copy; with the clean activation in each map; the derivatives averaged
inside the formula; the copies weighted by `exp(S)`, which is the papers' map.

{tunnel}

## The maps

One picture for each network. Each map is divided by its largest value; dark violet is 0. Photographs are not shown,
only their maps.

{pictures}
"""


def page(rows: Sequence[Row], sections: Sequence[Network], settings: Settings) -> str:
    """The text of README.md."""
    layers = by_layers(rows)
    pictures = [f"### {section.name}\n\n![Maps of {section.name}]({section.name}.png)" for section in sections]
    lasts = [steps[-1] for row in rows for steps in [*row["mended"].values(), row["tunnel"]]]
    return PAGE.format(
        versions=versions(),
        slow=number(max(row["slow"] for row in rows if not math.isnan(row["slow"]))),
        agreement=number(max(value for row in rows for value in row["agreements"])),
        checked=settings.checked,
        mended=number(max(lasts)),
        count=f"{len(lasts):,}",
        n=settings.copies,
        level=settings.noise_level,
        seeds=settings.seeds,
        largest=_largest(layers),
        networks="; ".join(f"`{section.name}`: {section.title}" for section in sections),
        layers=by_layer(
            ["K x H x W", "activations", "what the smoothing changes"],
            layers,
            lambda x: [x.rows[0]["shape"], x.kind, spread(x.values(lambda row: row["smoothing"]))],
        ),
        plain=_distances(False, layers),
        smooth=_distances(True, layers),
        correlations=by_layer([entry.name for entry in ENTRIES], layers, _correlations),
        seeded=by_layer([entry.name for entry in ENTRIES if entry.smooth], layers, _seeded),
        reasons="\n".join(quoted(reason) for reason in REASONS),
        torchcam=_steps("torchcam GradCAMpp", layers),
        grad_cam=by_layer(
            ["float32", "as it is", "no epsilon", "epsilon exceeds the denominator"],
            layers,
            lambda x: [*_mended("grad-cam GradCAMPlusPlus", x), _median(x.values(lambda row: row["swamped"], False))],
        ),
        torchcam_smooth=_steps("torchcam SmoothGradCAMpp", layers),
        alone=by_layer(
            ["last gradient", "last activation", "equal copies", "sum of products", "epsilon"],
            layers,
            lambda x: _medians(x, lambda row: row["alone"]["torchcam SmoothGradCAMpp"]),
        ),
        tunnel=by_layer(
            ["as it is", "+ Grad-CAM++", "+ clean `A`", "+ mean derivatives", "+ `exp(S)`"],
            layers,
            lambda x: _medians(x, lambda row: row["tunnel"]),
        ),
        pictures="\n\n".join(pictures),
    )


def _largest(layers: Sequence[Layer]) -> str:
    """Of this package, and where."""
    names = [entry.name for entry in ENTRIES if entry.name.startswith("captum_sgcampp")]
    far, layer = max(
        ((max(x.measured("distances", name)), x) for x in layers for name in names), key=lambda pair: pair[0]
    )
    return f"{number(far)}, of {layer.network} at `{layer.name}`"


def _median(values: Iterable[float]) -> str:
    return number(median(values))


def _medians(layer: Layer, pick: Callable[[Row], list[float]], smooth: bool = True) -> list[str]:
    """The median of each of several numbers."""
    columns = zip(*(pick(row) for row in layer.rows if smooth or row["repeat"] == 0), strict=True)
    return [_median(column) for column in columns]


def _distances(smooth: bool, layers: Sequence[Layer]) -> str:
    """Distances of the methods of one kind."""
    names = [entry.name for entry in ENTRIES if entry.smooth == smooth]
    return by_layer(names, layers, lambda x: [spread(x.measured("distances", name)) for name in names])


def _correlations(layer: Layer) -> list[str]:
    return [f"{median(layer.measured('correlations', entry.name)):.3f}" for entry in ENTRIES]


def _seeded(layer: Layer) -> list[str]:
    """Range over the seeds of a picture, median over the pictures."""
    pictures = [list(found) for _, found in groupby(layer.rows, key=lambda row: row["picture"])]
    cells = []
    for place in (place for place, entry in enumerate(ENTRIES) if entry.smooth):
        distances = [[row["distances"][place] for row in picture] for picture in pictures]
        cells.append(_median([max(values) - min(values) for values in distances]))
    return cells


def _steps(name: str, layers: Sequence[Layer]) -> str:
    """The package itself in float32, then its transcription as it is and mended."""
    head = ["float32", "as it is", *(f"+ {title}" for title, _ in MENDS[name][2])]
    return by_layer(head, layers, lambda x: _mended(name, x))


def _mended(name: str, layer: Layer) -> list[str]:
    smooth = MENDS[name][1]
    return _medians(layer, lambda row: [row["distances"][PLACE[name]], *row["mended"][name]], smooth)


def versions() -> str:
    """Of everything that took part."""
    named = [f"{name} {version(name)}" for name in DISTRIBUTIONS]
    return ", ".join([f"captum_sgcampp {__version__}", *named, f"Python {platform.python_version()}"])


def draw(network: Network, results: Sequence[Result]) -> Figure:
    """All maps of one picture: a row for each layer, each map divided by its largest value."""
    titles = ["papers Grad-CAM++", *(e.name for e in ENTRIES if not e.smooth)]
    titles += ["papers Smooth Grad-CAM++", *(e.name for e in ENTRIES if e.smooth)]
    drawn = isinstance(network.shown, Image.Image)
    columns = len(titles) + drawn
    figure = Figure(figsize=(1.35 * columns, 2 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), columns, squeeze=False)
    for axes, layer, result in zip(grid, network.layers, results, strict=True):
        if drawn:
            axes[0].imshow(network.shown)
        for axis, title, (found, far) in zip(axes[drawn:], titles, _shown(result), strict=True):
            axis.imshow(found / max(float(found.max()), 1e-30), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(title.replace(" ", "\n", 1).replace("(", "\n("), fontsize=5.5)
            axis.set_xlabel(far, fontsize=7)
        axes[0].set_ylabel(layer, fontsize=7)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
    return figure


def _shown(result: Result) -> list[tuple[Tensor, str]]:
    """The maps in the order of the picture, with what stands below them."""
    far = [f"distance {number(value)}" for value in result.of(distance)]
    pairs = list(zip(ENTRIES, result.maps, far, strict=True))
    shown: list[tuple[Tensor, str]] = []
    for smooth in (False, True):
        shown.append((result.truths[smooth], ""))
        shown += [(found, text) for entry, found, text in pairs if entry.smooth == smooth]
    return shown
