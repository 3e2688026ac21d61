"""The command line: `captum-sgcampp explain`, `evaluate` and `benchmark`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, __version__, box_to_neurons
from captum_sgcampp.benchmark import (
    AXES,
    CASES,
    MODES,
    Setting,
    grow,
    growth_figure,
    growth_report,
    measure,
    memory_report,
    report,
    threads,
)
from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.checks import check_count
from captum_sgcampp.evaluation import add_command as add_evaluate
from captum_sgcampp.functional.selection import selection_mask
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier, torchvision_names, usable_device
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.layer_choice import deepest_layer, inner_layer, named_layer, noise_acts
from captum_sgcampp.visualization import compare_maps

METHODS = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "smooth-grad-cam++": "Smooth Grad-CAM++",
}
# The scene without arguments: two stars, a heart and a ring; the stars are explained.
DEMO_SEED, DEMO_CLASSES, DEMO_TARGET = 7, (3, 3, 6, 5), "star"
USAGE_ERROR, FILE_ERROR, FAILURE = 2, 3, 1

EXPLAIN = """\
Explain what an image classifier sees: the image, Grad-CAM, Grad-CAM++ and Smooth Grad-CAM++ side by side.

Without arguments it explains a scene of the bundled generator with the bundled network (eight classes of shapes).
With --model it explains your images with a classification network of torchvision.
"""

EPILOG = """\
exit status: 0 done; 1 the model failed; 2 an argument does not fit; 3 a file cannot be read or written.

examples:
  captum-sgcampp explain
  captum-sgcampp explain cat.jpg dog.png --model squeezenet1_1 --weights squeezenet.safetensors --target top:2
  captum-sgcampp explain --target star --feature-maps top:3 --out star.png
  captum-sgcampp explain cat.jpg --model resnet50 --layer layer3 --box 60,40,160,140
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, TypeError) as error:
        return _complain(error, FILE_ERROR if type(error).__name__ == "ImageError" else USAGE_ERROR)
    except OSError as error:
        return _complain(error, FILE_ERROR)
    except RuntimeError as error:
        return _complain(error, FAILURE)
    return 0


def _complain(error: Exception, status: int) -> int:
    print(f"captum-sgcampp: error: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="captum-sgcampp", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    explained = commands.add_parser(
        "explain",
        help="explain images",
        description=EXPLAIN,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_arguments(explained)
    _add_method_arguments(explained)
    _add_output_arguments(explained)
    explained.set_defaults(run=explain)
    add_evaluate(commands)
    _add_benchmark(commands)
    return parser


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure the cost",
        description="Time Smooth Grad-CAM++ against bare inference and the installed peers (captum, torchcam, "
        "grad-cam), in turn in one process; prints medians of ratios as a table in Markdown. Weights are random.",
    )
    parser.add_argument("--network", nargs="+", metavar="NAME:LAYER", help="as resnet18:layer4 (default: eight)")
    parser.add_argument("--nt-samples", type=int, default=8, metavar="N", help="noisy copies (default: 8)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument("--size", type=int, default=224, metavar="N", help="height and width (default: 224)")
    parser.add_argument("--targets", type=int, default=1, metavar="N", help="targets in one call (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds after the warm-up (default: 3)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: torch's)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--mode", choices=MODES, default="float32", help="bfloat16: autocast and channels_last")
    parser.add_argument(
        "--growth",
        type=Path,
        metavar="FILE",
        help="instead: how the cost of one network grows with copies, images, targets and layers (NAME:LAYER,LAYER,..."
        "), as tables and as a plot into this file",
    )
    parser.add_argument("--memory", action="store_true", help="instead: extra peak memory in fresh processes")
    parser.set_defaults(run=benchmark)


def benchmark(arguments: argparse.Namespace) -> None:
    """The command `benchmark`: measures and prints."""
    names = ("nt_samples", "batch", "size", "rounds", "device", "mode", "targets")
    for name in ("nt_samples", "batch", "size", "rounds", "targets"):
        check_count(f"--{name.replace('_', '-')}", getattr(arguments, name))
    usable_device(arguments.device)
    setting = Setting(**{name: getattr(arguments, name) for name in names})
    cases = [_case(text) for text in arguments.network] if arguments.network else list(CASES)
    with threads(arguments.threads):
        if arguments.memory:
            print(memory_report(cases, setting, torch.get_num_threads()))
            return
        if arguments.growth:
            _growth(*cases[0], setting, arguments.growth)
            return
        timings = []
        for network, layer in cases:
            print(f"measuring {network} {layer}", file=sys.stderr)
            timings.append(measure(network, layer, setting))
        print(report(timings, setting))


def _growth(network: str, layers: str, setting: Setting, path: Path) -> None:
    names = layers.split(",")
    points = {}
    for axis in AXES:
        print(f"measuring {network} {axis}", file=sys.stderr)
        points[axis] = grow(network, names, axis, setting)
    growth_figure(points, f"{network} {names[0]}, {setting.nt_samples} copies unless shown").savefig(path, dpi=120)
    print(growth_report(network, names, points, setting))


def _case(text: str) -> tuple[str, str]:
    network, colon, layer = text.partition(":")
    if not colon or network not in torchvision_names():
        raise ValueError(f"--network: expected torchvision's name and a layer, as resnet18:layer4, found {text!r}")
    return network, layer


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files (default: a bundled scene)")
    parser.add_argument(
        "--model", default=BUNDLED, metavar="NAME", help=f"{BUNDLED} (bundled, default) or a torchvision model"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict, .safetensors or .pt (default: torchvision's own, downloaded)",
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="module to explain, as layer4 or features.9 (default: the deepest one)"
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="CLASS",
        help="class numbers or names, or top or top:K for the most probable (default: top)",
    )
    parser.add_argument("--device", default="cpu", help="torch device, as cuda (default: cpu)")


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS), help="methods (default: all)")
    parser.add_argument("--nt-samples", type=int, default=25, metavar="N", help="noisy copies (default: 25)")
    parser.add_argument(
        "--noise-level", type=float, default=0.15, metavar="F", help="sigma as a share of the range (default: 0.15)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise and scene (default: 0)")
    parser.add_argument(
        "--feature-maps", nargs="+", metavar="K", help="only these feature maps: numbers, or top:K by weight"
    )
    parser.add_argument("--neurons", metavar="R0:R1,C0:C1", help="only these rows and columns of the layer")
    parser.add_argument("--box", metavar="X0,Y0,X1,Y1", help="only this box, in pixels of the picture that is shown")


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("explanation.png"), metavar="FILE", help="picture (default: explanation.png)"
    )
    parser.add_argument(
        "--save-maps", type=Path, metavar="FOLDER", help="also write every map as a .npy file into this folder"
    )


@dataclass(frozen=True)
class _Subject:
    """One picture and one class to explain."""

    name: str
    shown: Image.Image
    inputs: Tensor
    target: int
    label: str


def explain(arguments: argparse.Namespace) -> None:
    """The command `explain`: reads, explains, writes the picture and says what it did."""
    pictures = _pictures(arguments)
    _check_outputs(arguments)
    classifier = load_classifier(arguments.model, arguments.weights)
    device = usable_device(arguments.device)
    classifier.model.to(device)
    targets = arguments.target or (["top"] if arguments.images else [DEMO_TARGET])
    subjects = [s for name, picture in pictures for s in _subjects(classifier, name, picture, targets, device)]
    layers = _layers(classifier, subjects[0], arguments)
    rows = [_maps(classifier, subject, layers, arguments) for subject in subjects]
    figure = compare_maps([s.shown for s in subjects], rows, [f"{s.name}\n{s.label}" for s in subjects])
    with warnings.catch_warnings():  # letters that matplotlib's font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(arguments.out, dpi=150, bbox_inches="tight")
    print(f"wrote {arguments.out}")
    if arguments.save_maps:
        _save_maps(arguments.save_maps, subjects, rows)


def _pictures(arguments: argparse.Namespace) -> list[tuple[str, Image.Image]]:
    if arguments.images:
        return [(path.name, read_image(path)) for path in arguments.images]
    if arguments.model != BUNDLED:
        raise ValueError(f"IMAGE: expected at least one image file for {arguments.model}, found none")
    return [("bundled scene", Image.fromarray(draw_scene(DEMO_SEED + arguments.seed, classes=DEMO_CLASSES).image))]


def _check_outputs(arguments: argparse.Namespace) -> None:
    if not arguments.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out: expected an existing folder, found none at {arguments.out.parent}")
    known = {".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp", ".tif", ".tiff"}
    if arguments.out.suffix.lower() not in known:
        raise ValueError(f"--out: expected a file name that ends in one of {sorted(known)}, found {arguments.out.name}")


def _subjects(
    classifier: Classifier, name: str, picture: Image.Image, targets: Sequence[str], device: torch.device
) -> Iterator[_Subject]:
    inputs = classifier.prepare(picture).to(device)
    with torch.no_grad():
        probabilities = classifier.probabilities(classifier.model(inputs))[0]
    for target in _target_indices(classifier, probabilities, targets):
        label = f"{classifier.classes[target]}: {probabilities[target]:.3f}"
        yield _Subject(name, classifier.show(picture), inputs, target, label)


def _target_indices(classifier: Classifier, probabilities: Tensor, targets: Sequence[str]) -> list[int]:
    indices: list[int] = []
    for target in targets:
        if target == "top" or target.startswith("top:"):
            count = _whole_number("--target", target.removeprefix("top").removeprefix(":") or "1", len(probabilities))
            indices += probabilities.topk(count).indices.tolist()
        else:
            indices.append(classifier.class_index(target))
    return list(dict.fromkeys(indices))


def _whole_number(option: str, text: str, most: int) -> int:
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"{option}: expected a number from 1 to {most}, found {text!r}")
    return int(text)


def _layers(classifier: Classifier, subject: _Subject, arguments: argparse.Namespace) -> list[str]:
    """The layer to explain and, where the noise changes nothing but scale there, an inner one beside it."""
    model = classifier.model
    if arguments.layer is not None:
        named_layer(model, arguments.layer)
        return [arguments.layer]
    deepest = deepest_layer(model, subject.inputs)
    print(f"layer: {deepest} (the deepest with maps larger than 1 x 1; --layer chooses another)")
    if "smooth-grad-cam++" not in arguments.method:
        return [deepest]
    if noise_acts(model, named_layer(model, deepest), subject.inputs, subject.target):
        return [deepest]
    inner = inner_layer(model, subject.inputs, deepest)
    beside = "" if inner is None else f"; {inner} is shown beside it"
    print(
        f"layer: at {deepest} noise changes nothing but the scale of the map, so Smooth Grad-CAM++ equals Grad-CAM++ "
        f"there (as in front of global average pooling and a linear score){beside}"
    )
    return [deepest] if inner is None else [deepest, inner]


def _maps(
    classifier: Classifier, subject: _Subject, layers: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Tensor]:
    """The maps of one subject by the title that stands above them."""
    print(f"{subject.name}: {subject.label}")
    maps: dict[str, Tensor] = {}
    for name in layers:
        layer = named_layer(classifier.model, name)
        selection = _selection(classifier.model, layer, subject, arguments)
        for method in arguments.method:
            values, note = _map(classifier.model, layer, method, subject, arguments, selection)
            maps[f"{METHODS[method]}\n{name}"] = values
            print(f"  {METHODS[method]}, {name}: {note}")
    return maps


def _map(
    model: nn.Module,
    layer: nn.Module,
    method: str,
    subject: _Subject,
    arguments: argparse.Namespace,
    selection: dict[str, Any],
) -> tuple[Tensor, str]:
    """The map of one method, and what is to be said of it."""
    if method == "grad-cam":
        # Captum's class has no selection: select its unsummed maps.
        maps = LayerGradCam(model, layer).attribute(subject.inputs, subject.target, attr_dim_summation=False)
        maps = _selected(maps.detach(), selection).sum(1, keepdim=True).relu()
        return maps, _size(maps)
    if method == "grad-cam++":
        plain = LayerGradCamPlusPlus(model, layer)
        maps = plain.attribute(subject.inputs, subject.target, relu_attributions=True, **selection)
        return maps, _size(maps)
    smooth, statistics = LayerSmoothGradCamPlusPlus(model, layer).attribute(
        subject.inputs,
        subject.target,
        relu_attributions=True,
        nt_samples=arguments.nt_samples,
        noise_level=arguments.noise_level,
        generator=torch.Generator().manual_seed(arguments.seed),
        show_progress=sys.stderr.isatty(),
        return_statistics=True,
        **selection,
    )
    note = (
        f"{_size(smooth)}, {arguments.nt_samples} copies, standard error "
        f"{100 * statistics.standard_error.item():.1f} % of the map, "
        f"{100 * statistics.pole_weight_share.item():.1f} % of the weight from poles of alpha"
    )
    return smooth, note


def _size(maps: Tensor) -> str:
    height, width = maps.shape[2:]
    return f"{height} x {width}{'' if maps.any() else ', all zero'}"


def _selected(maps: Tensor, selection: dict[str, Any]) -> Tensor:
    mask = selection_mask(selection.get("feature_maps"), selection.get("neurons"), maps)
    return maps if mask is None else maps * mask


def _selection(model: nn.Module, layer: nn.Module, subject: _Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords `feature_maps` and `neurons` of `attribute`."""
    if not (arguments.feature_maps or arguments.neurons or arguments.box):
        return {}
    if arguments.neurons and arguments.box:
        raise ValueError("--neurons: expected --neurons or --box, found both")
    method = LayerGradCamPlusPlus(model, layer)
    shape = method.attribute(subject.inputs, subject.target, attr_dim_summation=False).shape  # type: ignore[union-attr]
    selection: dict[str, Any] = {}
    if arguments.feature_maps:
        selection["feature_maps"] = _feature_maps(arguments.feature_maps, method, subject, shape[1])
    if arguments.neurons:
        selection["neurons"] = _slices(arguments.neurons)
    if arguments.box:
        box = _numbers("--box", arguments.box, 4)
        selection["neurons"] = box_to_neurons(box, subject.inputs.shape[2:], shape[2:])
    return selection


def _feature_maps(texts: Sequence[str], method: LayerGradCamPlusPlus, subject: _Subject, count: int) -> list[int]:
    chosen: list[int] = []
    for text in texts:
        if text.startswith("top:"):
            k = _whole_number("--feature-maps", text.removeprefix("top:"), count)
            weights, indices = method.top_feature_maps(subject.inputs, subject.target, k=k)
            found = ", ".join(f"{i} ({w:.3g})" for i, w in zip(indices[0].tolist(), weights[0].tolist(), strict=True))
            print(f"  feature maps with the largest Grad-CAM++ weights: {found}")
            chosen += indices[0].tolist()
        elif text.isdigit():
            chosen.append(int(text))
        else:
            raise ValueError(f"--feature-maps: expected numbers or top:K, found {text!r}")
    return chosen


def _slices(text: str) -> tuple[slice, ...]:
    try:
        return tuple(slice(*(int(bound) if bound else None for bound in part.split(":"))) for part in text.split(","))
    except (ValueError, TypeError):
        raise ValueError(f"--neurons: expected slices as 2:5,3:7, found {text!r}") from None


def _numbers(option: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"{option}: expected {count} numbers as 10,20,90,80, found {text!r}")
    return numbers


def _save_maps(folder: Path, subjects: Sequence[_Subject], rows: Sequence[dict[str, Tensor]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (subject, row) in enumerate(zip(subjects, rows, strict=True)):
        for title, values in row.items():
            method, layer = title.split("\n")
            stem = f"{number:02d}_{Path(subject.name).stem}_{subject.target}_{method}_{layer}".replace(" ", "-")
            np.save(folder / f"{stem}.npy", values[0, 0].cpu().numpy())
    print(f"wrote {sum(map(len, rows))} maps into {folder}")
