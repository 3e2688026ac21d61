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
from importlib.metadata import distribution, version
from pathlib import Path

import packages
import torch
import torchvision
import transcriptions as formulas
from matplotlib.figure import Figure
from packages import Case, make_case
from PIL import Image
from torch import Tensor
from transcriptions import Observed, Variant, class_map, correlation, distance

from captum_sgcampp import __version__
from captum_sgcampp.bundled import draw_scene, load_shapes_vgg, preprocess
from captum_sgcampp.evaluation.command import classifier_from_factory
from captum_sgcampp.images import read_image

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
        transcription: what it computes, from what the network gave; None for our own.
    """

    name: str
    run: Callable[[Case], Tensor]
    smooth: bool
    transcription: Callable[[Observed], Tensor] | None = None


def _as(variant: Variant) -> Callable[[Observed], Tensor]:
    return lambda observed: class_map(observed, variant)


ENTRIES = (
    Entry("captum_sgcampp", packages.ours, False),
    Entry("torchcam", packages.torchcam, False, _as(formulas.TORCHCAM)),
    Entry("grad-cam", packages.grad_cam, False, _as(formulas.GRAD_CAM)),
    Entry("captum_sgcampp", packages.ours_smooth, True),
    Entry("torchcam", packages.torchcam_smooth, True, _as(formulas.TORCHCAM_SMOOTH)),
    Entry("NoiseTunnel (LayerGradCam)", packages.noise_tunnel_grad_cam, True, formulas.mean_of_grad_cam_maps),
    Entry("NoiseTunnel (LayerGradCamPlusPlus)", packages.noise_tunnel_plus_plus, True, formulas.mean_of_plus_plus_maps),
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
class Reason:
    """Where a package departs from the papers: `expression` stands in `file` of the installed `distribution`."""

    title: str
    distribution: str
    file: str
    expression: str
    text: str


REASONS = (
    Reason(
        "torchcam, Grad-CAM++: alpha is not divided",
        "torchcam",
        "torchcam/methods/gradient.py",
        "alpha[idx][mask].div_(d[mask] + eps)",
        "Indexing with a mask makes a copy, and the division in place changes that copy, which nobody keeps. The "
        "weights are `sum(g^2 relu(g))`.",
    ),
    Reason(
        "torchcam, both methods: a sum of products",
        "torchcam",
        "torchcam/methods/gradient.py",
        "(g3 * act).flatten(2).sum(-1)",
        "In the denominator stands `sum_ab (A_ab g_ab^3)`; the papers have `g_ij^3 sum_ab A_ab`.",
    ),
    Reason(
        "torchcam, both methods: an epsilon",
        "torchcam",
        "torchcam/methods/gradient.py",
        "eps: float = 1e-8",
        "It is added to a denominator that is itself as small as `g^2`.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: the last gradient",
        "torchcam",
        "torchcam/methods/gradient.py",
        "return [a.mul_(torch.relu(grad)).flatten(2).sum(-1) for a, grad in zip(alpha, self.hook_g, strict=True)]",
        "`hook_g` holds the gradient of the last noisy copy when the loop is over; the paper has the mean of all.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: the last activation",
        "torchcam",
        "torchcam/methods/core.py",
        "activations = cast(list[Tensor], self.hook_a)",
        "`hook_a` is overwritten by every noisy copy, so the map is made of the activation of the last one; the clean "
        "one is kept for alpha only.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: copies count equally",
        "torchcam",
        "torchcam/methods/gradient.py",
        "grad_2 = [g2.add_(grad.pow(2)) for g2, grad in zip(grad_2, self.hook_g, strict=True)]",
        "The derivatives of `Y = exp(S)` are `exp(S) g^p`. The factor cancels for one copy; in a mean over copies with "
        "different scores it is a weight.",
    ),
    Reason(
        "grad-cam, Grad-CAM++: an epsilon",
        "grad-cam",
        "pytorch_grad_cam/grad_cam_plusplus.py",
        "eps = 0.000001",
        "It is added to a denominator of the size of `g^2`, which is smaller where gradients are below 1e-3: there the "
        "weights are in proportion to `g^2 relu(g)`.",
    ),
    Reason(
        "Captum, NoiseTunnel: finished maps are averaged",
        "captum",
        "captum/attr/_core/noise_tunnel.py",
        "cast(Tensor, sum_attribution) * 1 / nt_samples",
        "This is SmoothGrad, and right as such. Smooth Grad-CAM++ averages the derivatives inside the formula, and "
        "takes the clean activation.",
    ),
)


@dataclass(frozen=True)
class Network:
    """One section of the page.

    Attributes:
        title: heading.
        file: stem of the picture.
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
        network: title of the section.
        layer: name.
        shape: of the activation, `K x H x W`.
        truths: Grad-CAM++ and Smooth Grad-CAM++ in float64.
        maps: by entry.
        agreements: distance between package and transcription, both in float64, by entry; NaN for our own.
        slow: distance between the truth and its nested transcription, the larger of the two.
        mended: by package, the distances as it is and after each step.
        alone: by package, the distances with one departure only.
        tunnel: distances of `NoiseTunnel` as its departures are mended.
        swamped: share of the positions with `g > 0` where grad-cam's epsilon exceeds `2 g^2`.
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
        [_agreement(entry, wide, observed[entry.smooth]) for entry in ENTRIES],
        max(distance(formulas.transcribed_slowly(o), truth) for o, truth in pairs) if slow else math.nan,
        {name: _mended(variant, steps, *pairs[smooth]) for name, (variant, smooth, steps) in MENDS.items()},
        {name: _alone(variant, steps, *pairs[smooth]) for name, (variant, smooth, steps) in MENDS.items()},
        _tunnel(noisy, truths[1]),
        _swamped(plain),
    )


def _agreement(entry: Entry, wide: Case, observed: Observed) -> float:
    if entry.transcription is None:
        return math.nan
    return distance(entry.run(wide), entry.transcription(observed))


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
    g = plain.gradients[plain.gradients > 0]
    return float((2 * g**2 < formulas.GRAD_CAM.epsilon).double().mean())


def networks(arguments: argparse.Namespace) -> Iterator[Network]:
    """The sections: the bundled network, a random one, and those asked for."""
    noise = {"n": arguments.nt_samples, "noise_level": arguments.noise_level, "seed": arguments.seed}
    scene = Image.fromarray(draw_scene(SCENE_SEED, classes=SCENE_CLASSES).image)
    x = preprocess(scene)
    model = load_shapes_vgg()
    cases = [make_case(model, name, x, SCENE_TARGET, **noise) for name in BUNDLED_LAYERS]
    yield Network("The bundled network on a bundled scene", "bundled", cases, scene)
    model = _random_model(arguments.seed)
    cases = [make_case(model, name, x, int(model(x).argmax()), **noise) for name in RANDOM_LAYERS]
    yield Network(f"{RANDOM_MODEL} with random weights (seed {arguments.seed})", RANDOM_MODEL, cases, scene)
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
    titles = ["Grad-CAM++\n(papers)", *(e.name for e in ENTRIES if not e.smooth)]
    titles += ["Smooth Grad-CAM++\n(papers)", *(e.name for e in ENTRIES if e.smooth)]
    first = int(network.picture is not None)
    columns = len(titles) + first
    figure = Figure(figsize=(1.35 * columns, 1.75 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), columns, squeeze=False)
    for axes, result in zip(grid, results, strict=True):
        if network.picture is not None:
            axes[0].imshow(network.picture)
        for axis, title, (found, far) in zip(axes[first:], titles, _shown(result), strict=True):
            axis.imshow(found / max(float(found.max()), 1e-30), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(title.replace(" (", "\n("), fontsize=6)
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
    return f"{value:.3f}" if abs(value) >= 5e-4 else f"{value:.0e}" if value else "0"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def by_layer(head: Sequence[str], results: Sequence[Result], values: Callable[[Result], Sequence[float]]) -> str:
    """A table with a row for each layer."""
    rows = [[f"{r.network}: `{r.layer}`", *(number(value) for value in values(r))] for r in results]
    return table(["layer", *head], rows)


def quoted(reason: Reason) -> str:
    """The reason with the place of its expression in the installed version."""
    path = Path(str(distribution(reason.distribution).locate_file(reason.file)))
    lines = [count for count, line in enumerate(path.read_text("utf-8").splitlines(), 1) if reason.expression in line]
    where = f"lines {', '.join(map(str, lines))}" if len(lines) > 1 else f"line {lines[0]}" if lines else "not found"
    found = f"{reason.distribution} {version(reason.distribution)}, `{reason.file}`, {where}"
    return f"**{reason.title}** ({found})\n\n```python\n{reason.expression}\n```\n\n{reason.text}\n"


PAGE = """\
# Side by side with torchcam, grad-cam and Captum's NoiseTunnel

How far other packages are from the formulas of Grad-CAM++ and Smooth Grad-CAM++, layer by layer, and why. This page was
written by [`compare.py`](compare.py); anyone can make it again:

```bash
pip install torchcam grad-cam
python tutorials/side_by_side/compare.py --out my-page
```

Versions: {versions}.

## What is compared

- **Truth.** The papers' formulas in float64 ([`transcriptions.py`](transcriptions.py)), from the scores, gradients and
  activations of the network. The script computes them once more with nested loops over single neurons; the two differ
  by {slow} at most.
- **Same inputs, same noise.** All packages get the same {n} noisy copies (`noise_level` {level:g}, seed {seed}); what
  torchcam and `NoiseTunnel` draw their noise from is replaced ([`packages.py`](packages.py)). So only the formula
  differs.
- **Same form.** Maps are compared in the layer's size after the final ReLU, and before a package scales them to
  [0, 1] or to the size of the input.
- **Distance.** L2 norm of the difference of the two maps, each divided by its own L2 norm: 0 is equal, 1.414 is nothing
  in common, 1 an empty map. The packages run in float32, as they are used.
- **Networks.** {networks}
  The score is the logit `S` of one class, and `Y = exp(S)`.

## Distance from the papers

{distances}

## Correlation with the papers' map

{correlations}

## Why

Each expression below stands so in the installed version.

{reasons}
## The reasons, checked

For each package, [`transcriptions.py`](transcriptions.py) holds what it computes. In float64 the transcription and the
package differ by {agreement} at most, at all layers and for all methods. Mending its departures one after the other
leads to the papers' map: each number is the distance that is left.

### torchcam GradCAMpp

{torchcam}

### grad-cam GradCAMPlusPlus

Last column: the share of the positions with a positive gradient where the epsilon exceeds `2 g^2`.

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

Each map is divided by its largest value; blue is 0.

{pictures}
"""


def page(results: Sequence[Result], sections: Sequence[Network], arguments: argparse.Namespace) -> str:
    """The text of README.md."""
    names = [f"{'Smooth Grad-CAM++' if e.smooth else 'Grad-CAM++'}: {e.name}" for e in ENTRIES]
    agreements = [value for result in results for value in result.agreements if not math.isnan(value)]
    pictures = [f"### {section.title}\n\n![Maps of {section.title}]({section.file}.png)" for section in sections]
    return PAGE.format(
        versions=versions(),
        slow=number(max(result.slow for result in results)),
        agreement=number(max(agreements)),
        n=arguments.nt_samples,
        level=arguments.noise_level,
        seed=arguments.seed,
        networks="; ".join(f"{section.title} (class {section.cases[0].target})" for section in sections) + ".",
        distances=by_layer(names, results, lambda result: result.of(distance)),
        correlations=by_layer(names, results, lambda result: result.of(correlation)),
        reasons="\n".join(quoted(reason) for reason in REASONS),
        torchcam=_steps("torchcam GradCAMpp", results),
        grad_cam=by_layer(
            ["as it is", "no epsilon", "epsilon exceeds `2 g^2`"],
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


def _steps(name: str, results: Sequence[Result]) -> str:
    head = ["as it is", *(f"+ {title}" for title, _ in MENDS[name][2])]
    return by_layer(head, results, lambda result: result.mended[name])


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
            found.append(compare(case, network.title))
        draw(network, found).savefig(arguments.out / f"{network.file}.png", dpi=110)
        sections.append(network)
        results += found
    (arguments.out / "README.md").write_text(page(results, sections, arguments), "utf-8")


if __name__ == "__main__":
    main()
