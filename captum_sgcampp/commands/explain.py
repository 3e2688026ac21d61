"""The command `explain`: its arguments, and what they select."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, box_to_neurons
from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, usable_device
from captum_sgcampp.vision.explanations import (
    DEFAULT_METHODS,
    METHODS,
    Noise,
    Results,
    Subject,
    classified,
    explained,
    save_picture,
    suited_layers,
)
from captum_sgcampp.vision.images import read_image
from captum_sgcampp.vision.layer_choice import ChosenLayer, fitting_layer, layer_table, named_layer
from captum_sgcampp.vision.model_factory import chosen_classifier
from captum_sgcampp.vision.saved_maps import save_maps

# The scene without arguments: two stars, a heart and a ring. The stars are explained.
DEMO_SEED, DEMO_CLASSES, DEMO_TARGET = 7, (3, 3, 6, 5), "star"

DESCRIPTION = """\
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


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "explain",
        help="explain images",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_arguments(parser)
    _add_method_arguments(parser)
    _add_output_arguments(parser)
    parser.set_defaults(run=run)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files (default: a bundled scene)")
    parser.add_argument("--model", metavar="NAME", help=f"{BUNDLED} (bundled, default) or a torchvision model")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict, .safetensors or .pt (default: torchvision's own, downloaded)",
    )
    parser.add_argument(
        "--model-factory",
        metavar="WHERE:FUNCTION[=ARGUMENT]",
        help="module or .py file, which is executed, and a function that gives a model of inputs (N, 3, 224, 224), "
        "normalized as ImageNet, or a Classifier",
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="module to explain, as layer4 or features.9 (default: the deepest one)"
    )
    parser.add_argument(
        "--list-layers", action="store_true", help="print the layers that can be explained, and do nothing else"
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="CLASS",
        help="class numbers or names, or top or top:K for the most probable (default: top)",
    )
    parser.add_argument("--device", default="cpu", help="torch device, as cuda (default: cpu)")


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=list(DEFAULT_METHODS),
        help=f"methods (default: {' '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--nt-samples", type=int_or_auto, default=25, metavar="N", help="noisy samples, or auto (default: 25)"
    )
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


def int_or_auto(text: str) -> int | Literal["auto"]:
    """The option `--nt-samples`. argparse names this function in its message."""
    return "auto" if text == "auto" else int(text)


def run(arguments: argparse.Namespace) -> None:
    """Read, explain, write the picture and print what was done."""
    pictures = _pictures(arguments)
    _check_outputs(arguments)
    classifier = chosen_classifier(arguments.model, arguments.weights, arguments.model_factory)
    _tell_which_network(classifier, arguments)
    device = usable_device(arguments.device)
    classifier.model.to(device)
    if arguments.list_layers:
        print(layer_table(classifier.model, classifier.prepare(pictures[0][1]).to(device)))
        return
    targets = arguments.target or (["top"] if arguments.images else [DEMO_TARGET])
    grouped = [list(_subjects(classifier, name, picture, targets, device)) for name, picture in pictures]
    layers = _layers(classifier.model, grouped[0][0], arguments)
    noise = Noise(arguments.nt_samples, arguments.noise_level, arguments.seed, show_progress=sys.stderr.isatty())
    rows = [row for group in grouped for row in _maps(classifier.model, group, layers, noise, arguments)]
    subjects = [subject for group in grouped for subject in group]
    save_picture(arguments.out, subjects, [{key: one.maps for key, one in row.items()} for row in rows])
    print(f"wrote {arguments.out}")
    if arguments.save_maps:
        save_maps(arguments.save_maps, classifier, noise, subjects, rows)
        print(f"wrote {sum(map(len, rows))} maps into {arguments.save_maps}")


def _tell_which_network(classifier: Classifier, arguments: argparse.Namespace) -> None:
    """Photographs in the classes of the bundled network make no sense, so nobody should get them unasked."""
    if arguments.images and arguments.model is None and arguments.model_factory is None:
        print(
            f"note: explained with the bundled network, which knows {len(classifier.classes)} shapes "
            f"({', '.join(classifier.classes)}); --model names another one, as resnet50",
            file=sys.stderr,
        )


def _pictures(arguments: argparse.Namespace) -> list[tuple[str, Image.Image]]:
    if arguments.images:
        return [(path.name, read_image(path)) for path in arguments.images]
    named = arguments.model_factory or arguments.model
    if named not in (None, BUNDLED) and not arguments.list_layers:
        raise ValueError(f"IMAGE: expected at least one image file for {named}, found none")
    return [("bundled scene", Image.fromarray(draw_scene(DEMO_SEED + arguments.seed, classes=DEMO_CLASSES).image))]


def _check_outputs(arguments: argparse.Namespace) -> None:
    if not arguments.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out: expected an existing folder, found none at {arguments.out.parent}")
    known = {".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp", ".tif", ".tiff"}
    if arguments.out.suffix.lower() not in known:
        raise ValueError(f"--out: expected a file name that ends in one of {sorted(known)}, found {arguments.out.name}")


def _subjects(
    classifier: Classifier, name: str, picture: Image.Image, targets: Sequence[str], device: torch.device
) -> Iterator[Subject]:
    inputs, probabilities = classified(classifier, picture, device)
    for target in _target_indices(classifier, probabilities, targets):
        label = f"{classifier.classes[target]}: {probabilities[target]:.3f}"
        yield Subject(name, classifier.show(picture), inputs, target, label)


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


def _layers(model: nn.Module, subject: Subject, arguments: argparse.Namespace) -> list[ChosenLayer]:
    """The layer that was named, or layers that suit the model, whose reasons are printed."""
    if arguments.layer is not None:
        return [fitting_layer(model, arguments.layer, subject.inputs)]
    layers, reasons = suited_layers(model, subject, smooth=any("smooth" in method for method in arguments.method))
    for reason in reasons:
        print(f"layer: {reason}")
    return layers


def _maps(
    model: nn.Module,
    subjects: Sequence[Subject],
    layers: Sequence[ChosenLayer],
    noise: Noise,
    arguments: argparse.Namespace,
) -> list[Results]:
    """The maps of every class of one picture at every layer by every method."""
    selections = {(s.target, layer.name): _selection(model, layer, s, arguments) for s in subjects for layer in layers}
    found = {method: explained(model, layers, method, subjects, noise, selections) for method in arguments.method}
    rows: list[Results] = []
    for subject in subjects:
        print(f"{subject.name}: {subject.label}")
        rows.append({})
        for layer in layers:
            for method, maps in found.items():
                rows[-1][METHODS[method], layer.name] = one = maps[subject.target, layer.name]
                print(f"  {METHODS[method]}, {layer.name}: {one.note}")
    return rows


def _selection(model: nn.Module, layer: ChosenLayer, subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords `feature_maps` and `neurons` of `attribute`."""
    if not (arguments.feature_maps or arguments.neurons or arguments.box):
        return {}
    if arguments.neurons and arguments.box:
        raise ValueError("--neurons: expected --neurons or --box, found both")
    module = named_layer(model, layer.name)
    method = LayerGradCamPlusPlus(model, module, reshape_transform=layer.reshape_transform)
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


def _feature_maps(texts: Sequence[str], method: LayerGradCamPlusPlus, subject: Subject, count: int) -> list[int]:
    chosen: list[int] = []
    for text in texts:
        if text.startswith("top:"):
            k = _whole_number("--feature-maps", text.removeprefix("top:"), count)
            weights, indices = method.top_feature_maps(subject.inputs, subject.target, k=k)
            found = ", ".join(f"{i} ({w:.3g})" for i, w in zip(indices[0].tolist(), weights[0].tolist(), strict=True))
            print(f"{subject.label}: feature maps with the largest Grad-CAM++ weights: {found}")
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
