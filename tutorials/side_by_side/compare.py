"""How far torchcam, grad-cam and Captum's NoiseTunnel are from the papers' formulas, on the same inputs and noise.

Writes README.md and pictures beside this file. Needs: pip install torchcam grad-cam

    python compare.py
    python compare.py --model-factory my_models.py:load=mobilenet_v2 --layers features.18 --image dog.jpg
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import packages
import torch
import torchvision
import transcriptions as formulas
from matplotlib.figure import Figure
from packages import Case, make_case
from PIL import Image
from reasons import REASONS, quoted
from torch import Tensor
from transcriptions import Observed, Variant, class_map, correlation, distance

from captum_sgcampp import __version__
from captum_sgcampp.bundled import draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.model_factory import classifier_from_factory

HERE = Path(__file__).resolve().parent
SCENE_SEED, SCENE_CLASSES, SCENE_TARGET = 7, (3, 3, 6, 5), 3  # two stars, a heart and a ring; the stars are explained
BUNDLED_LAYERS = ("features.14", "features.11", "features.9")
RANDOM_MODEL, RANDOM_LAYERS = "resnet18", ("layer4", "layer3")
DISTRIBUTIONS = ("torchcam", "grad-cam", "captum", "torch", "torchvision")
EMPTY = "-"


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
class Network:
    """One section of the page.

    Attributes:
        title: heading.
        file: short name, and stem of the picture.
        cases: one per layer.
        picture: what is explained, where it may be shown.
    """

    title: str
    file: str
    cases: list[Case]
    picture: Image.Image | None


@dataclass(frozen=True)
class Result:
    """What is measured at one layer.

    Attributes:
        network: its short name.
        layer: name.
        shape: of the activation, `K x H x W`.
        truths: Grad-CAM++ and Smooth Grad-CAM++ in float64.
        maps: by entry.
        agreements: distance between package and transcription, both in float64, by entry.
        slow: distance between the truth and its nested transcription, the larger of the two.
        mended: by package, the distances as it is and after each step.
        alone: by package, the distances with one departure only.
        tunnel: distances of `NoiseTunnel` as its departures are mended.
        swamped: share of the positions with `g > 0` where grad-cam's epsilon exceeds the denominator.
    """

    network: str
    layer: str
    shape: str
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


def compare(case: Case, network: str = "", slow: bool = True) -> Result:
    """Run everything at one layer."""
    wide = case.in_float64()
    runs = (wide.clean, wide.copies)
    plain, noisy = (formulas.observe(wide.model, wide.layer, wide.clean, rows, case.target) for rows in runs)
    observed = (plain, noisy)
    truths = (class_map(plain), class_map(noisy))
    pairs = list(zip(observed, truths, strict=True))
    return Result(
        network,
        case.layer_name,
        " x ".join(map(str, plain.clean.shape)),
        truths,
        [entry.run(case) for entry in ENTRIES],
        [distance(e.run(wide), e.transcription(observed[e.smooth])) for e in ENTRIES],
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


def networks(arguments: argparse.Namespace) -> Iterator[Network]:
    """The sections: the bundled network, a random one, and those asked for."""
    noise = {"n": arguments.nt_samples, "noise_level": arguments.noise_level, "seed": arguments.seed}
    scene = Image.fromarray(draw_scene(SCENE_SEED, classes=SCENE_CLASSES).image)
    x = preprocess(scene)
    model = load_shapes_vgg()
    cases = [make_case(model, name, x, SCENE_TARGET, **noise) for name in BUNDLED_LAYERS]
    yield Network("the bundled network on a bundled scene", "bundled", cases, scene)
    model = _random_model(arguments.seed)
    cases = [make_case(model, name, x, int(model(x).argmax()), **noise) for name in RANDOM_LAYERS]
    yield Network(f"{RANDOM_MODEL} with random weights on the same scene", RANDOM_MODEL, cases, scene)
    for text, layers in zip(arguments.model_factory, arguments.layers, strict=True):
        classifier = classifier_from_factory(text)
        x = classifier.prepare(read_image(arguments.image))
        target = int(classifier.model(x).argmax())
        cases = [make_case(classifier.model, name, x, target, **noise) for name in layers]
        # The photograph is not shown: it need not be ours to publish.
        yield Network(f"{classifier.name}{arguments.description} on a photograph", classifier.name, cases, None)


def _random_model(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: torch.nn.Module = torchvision.models.get_model(RANDOM_MODEL, weights=None)
    return model.eval()


def draw(network: Network, results: Sequence[Result]) -> Figure:
    """All maps of one network: a row for each layer, each map divided by its largest value."""
    titles = ["papers Grad-CAM++", *(e.name for e in ENTRIES if not e.smooth)]
    titles += ["papers Smooth Grad-CAM++", *(e.name for e in ENTRIES if e.smooth)]
    first = int(network.picture is not None)
    columns = len(titles) + first
    figure = Figure(figsize=(1.35 * columns, 2 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), columns, squeeze=False)
    for axes, result in zip(grid, results, strict=True):
        if network.picture is not None:
            axes[0].imshow(network.picture)
        for axis, title, (found, far) in zip(axes[first:], titles, _shown(result), strict=True):
            axis.imshow(found / max(float(found.max()), 1e-30), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(title.replace(" ", "\n", 1).replace("(", "\n("), fontsize=5.5)
            axis.set_xlabel(far, fontsize=7)
        axes[0].set_ylabel(result.layer, fontsize=7)
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


def number(value: float) -> str:
    """Three digits behind the point, fewer where it is tiny."""
    if math.isnan(value):
        return EMPTY
    return f"{value:.3f}" if abs(value) >= 5e-4 else f"{value:.0e}" if abs(value) > 1e-15 else "0"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def by_layer(head: Sequence[str], results: Sequence[Result], values: Callable[[Result], Sequence[float]]) -> str:
    """A table with a row for each layer."""
    rows = [[r.network, f"`{r.layer}`", *map(number, values(r))] for r in results]
    return table(["network", "layer", *head], rows)


PAGE = """\
# Side by side with torchcam, grad-cam and Captum's NoiseTunnel

How far other packages are from the formulas of Grad-CAM++ and Smooth Grad-CAM++, layer by layer, and why. This page was
written by [`compare.py`](compare.py); anyone can make it again:

```bash
pip install torchcam grad-cam
python tutorials/side_by_side/compare.py --out my-page
```

Networks and a photograph of your own are added by `--model-factory`, `--layers` and `--image` (`--help`).

Versions: {versions}.

## What is compared

- **Truth.** The papers' formulas in float64 ([`transcriptions.py`](transcriptions.py)), from the scores, gradients and
  activations of the network. The script computes them once more with nested loops over single neurons; the two differ
  by {slow} at most. The numerator of alpha is the second derivative, as in Grad-CAM++ eq 19 (and in torchcam).
- **Same inputs, same noise.** All packages get the {n} noisy copies that captum_sgcampp draws (`noise_level`
  {level:g}, seed {seed}); what torchcam and `NoiseTunnel` draw their noise from is replaced
  ([`packages.py`](packages.py)). So only the formula differs.
- **Same form.** Maps are compared in the layer's size after the final ReLU, and before a package scales them to
  [0, 1] or to the size of the input.
- **Distance.** L2 norm of the difference of the two maps, each divided by its own L2 norm: 0 is equal, 1.414 is nothing
  in common, 1 an empty map. The packages run in float32, as they are used.
- **Networks.** {networks}
  The score is the logit `S` of one class, and `Y = exp(S)`.

## Distance from the papers

Distance, and in brackets the correlation with the papers' map over the positions. A small distance means the papers'
formula; it does not mean a better explanation.

### Grad-CAM++

{plain}

### Smooth Grad-CAM++

{smooth}

Where only global average pooling and a linear score follow (the deepest layers of ResNet, SqueezeNet and MobileNetV2),
the gradients of all copies are equal up to a factor, and the smoothing can change nothing; what the others do there
comes from noisy activations and from their denominators. The bundled `features.11` stands in front of its ReLU: with
activations of both signs the denominator of alpha nearly vanishes at some positions, the papers' own map says little,
and rounding in float32 is enlarged. After averaging that also happens at single positions behind a ReLU (`features.9`);
in float64 this package agrees with the truth at every layer.

## Why

Each expression below stands so in the installed version.

{reasons}
## The reasons, checked

For each package, [`transcriptions.py`](transcriptions.py) holds what it computes. In float64 the transcription and the
package differ by {agreement} at most, at all layers and for all methods. Mending its departures one after the other
leads to the papers' map. Each number is the distance that is left; it may grow on the way, since errors hide each
other. The column `float32` is the package as above. Where it differs from `as it is` (float64), the package's own
denominator nearly vanishes.

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

Each map is divided by its largest value; dark violet is 0.

{pictures}
"""


def page(results: Sequence[Result], sections: Sequence[Network], arguments: argparse.Namespace) -> str:
    """The text of README.md."""
    agreements = [value for result in results for value in result.agreements]
    pictures = [f"### {section.title}\n\n![Maps of {section.title}]({section.file}.png)" for section in sections]
    return PAGE.format(
        versions=versions(),
        slow=number(max(result.slow for result in results)),
        agreement=number(max(agreements)),
        n=arguments.nt_samples,
        level=arguments.noise_level,
        seed=arguments.seed,
        networks="; ".join(
            f"`{section.file}`: {section.title}, class {section.cases[0].target}" for section in sections
        )
        + ".",
        plain=_distances(False, results),
        smooth=_distances(True, results),
        reasons="\n".join(quoted(reason) for reason in REASONS),
        torchcam=_steps("torchcam GradCAMpp", results),
        grad_cam=by_layer(
            ["as it is", "no epsilon", "epsilon exceeds the denominator"],
            results,
            lambda result: [*result.mended["grad-cam GradCAMPlusPlus"], result.swamped],
        ),
        torchcam_smooth=_steps("torchcam SmoothGradCAMpp", results),
        alone=by_layer(
            ["last gradient", "last activation", "equal copies", "sum of products", "epsilon"],
            results,
            lambda result: result.alone["torchcam SmoothGradCAMpp"],
        ),
        tunnel=by_layer(
            ["as it is", "+ Grad-CAM++", "+ clean `A`", "+ mean derivatives", "+ `exp(S)`"],
            results,
            lambda result: result.tunnel,
        ),
        pictures="\n\n".join(pictures),
    )


def _distances(smooth: bool, results: Sequence[Result]) -> str:
    """Distance and correlation of the methods of one kind."""
    chosen = [count for count, entry in enumerate(ENTRIES) if entry.smooth == smooth]
    rows = []
    for result in results:
        pairs = list(zip(result.of(distance), result.of(correlation), strict=True))
        cells = [f"{number(pairs[count][0])} ({pairs[count][1]:.3f})" for count in chosen]
        rows.append([result.network, f"`{result.layer}`", result.shape, *cells])
    return table(["network", "layer", "K x H x W", *(ENTRIES[count].name for count in chosen)], rows)


def _steps(name: str, results: Sequence[Result]) -> str:
    """The package itself in float32, then its transcription as it is and mended."""
    place = [entry.name for entry in ENTRIES].index(name)
    head = ["float32", "as it is", *(f"+ {title}" for title, _ in MENDS[name][2])]
    return by_layer(head, results, lambda result: [result.of(distance)[place], *result.mended[name]])


def versions() -> str:
    """Of everything that took part."""
    named = [f"{name} {version(name)}" for name in DISTRIBUTIONS]
    return ", ".join([f"captum_sgcampp {__version__}", *named, f"Python {platform.python_version()}"])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model-factory", action="append", default=[], metavar="WHERE:FUNCTION[=ARGUMENT]", help="a further network")
    add("--layers", action="append", nargs="+", default=[], metavar="NAME", help="its layers, once per network")
    add(
        "--image",
        type=Path,
        metavar="FILE",
        help="photograph for these networks; their most probable class is explained",
    )
    add("--description", default="", metavar="TEXT", help="what the page says of these networks, as 'ImageNet weights'")
    add("--nt-samples", type=int, default=8, metavar="N", help="noisy copies (default: 8)")
    add("--noise-level", type=float, default=0.15, metavar="F", help="sigma / range of the input (default: 0.15)")
    add("--seed", type=int, default=0, metavar="S", help="of the noise and the random weights (default: 0)")
    add("--out", type=Path, default=HERE, metavar="FOLDER", help="where the page goes (default: beside the script)")
    arguments = parser.parse_args(argv)
    if len(arguments.model_factory) != len(arguments.layers):
        parser.error("--layers: expected once for every --model-factory")
    if arguments.model_factory and arguments.image is None:
        parser.error("--image: expected a photograph for --model-factory")
    arguments.description = f" with {arguments.description}" if arguments.description else ""
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw and write."""
    arguments = _arguments(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sections, results = [], []
    for network in networks(arguments):
        found = []
        for case in network.cases:
            print(f"{network.title}: {case.layer_name}", file=sys.stderr)
            found.append(compare(case, network.file))
        draw(network, found).savefig(arguments.out / f"{network.file}.png", dpi=90)
        sections.append(network)
        results += found
    (arguments.out / "README.md").write_text(page(results, sections, arguments), "utf-8")


if __name__ == "__main__":
    main()
