"""The command `explain`: what its arguments stand for."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from captum_sgcampp import LayerGradCamPlusPlus, box_to_neurons
from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.commands import explain_recordings
from captum_sgcampp.commands.outputs import check_map_folder, check_pictures, page_paths
from captum_sgcampp.names import printable
from captum_sgcampp.storage.progress import progress
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, usable_device
from captum_sgcampp.vision.explanations import (
    Results,
    Subject,
    class_count,
    explained,
    subjects_of,
    suited_layers,
    whole_number,
)
from captum_sgcampp.vision.images import ImageError, read_image
from captum_sgcampp.vision.layer_choice import ChosenLayer, fitting_layer, layer_table, named_layer
from captum_sgcampp.vision.methods import METHODS, Noise, is_smooth
from captum_sgcampp.vision.model_factory import chosen_classifier
from captum_sgcampp.vision.pictures import save_picture
from captum_sgcampp.vision.places import Place, box_in_crop
from captum_sgcampp.vision.recordings import IMAGE, kind_of
from captum_sgcampp.vision.saved_maps import MapFolder

# The scene without arguments: two stars, a heart and a ring. The stars are explained.
DEMO_SEED, DEMO_CLASSES, DEMO_TARGET = 7, (3, 3, 6, 5), "star"
ROWS = 12  # of one picture


def run(arguments: argparse.Namespace) -> int:
    """Read, explain, write the pictures and print what was done.

    Returns:
        The exit status: that of an error if some of the images could not be read.
    """
    kinds = {kind_of(path, arguments.kind) for path in arguments.images} or {IMAGE}
    if len(kinds) > 1:
        raise ValueError(f"IMAGE: expected files of one kind, found {', '.join(sorted(kinds))}")
    if kinds != {IMAGE}:
        return explain_recordings.run(arguments, *kinds)
    targets = arguments.target or (["top"] if arguments.images else [DEMO_TARGET])
    pages = [] if arguments.list_layers else _checked_outputs(arguments, targets)
    classifier = chosen_classifier(arguments.model, arguments.weights, arguments.model_factory)
    _tell_which_network(classifier, arguments)
    device = usable_device(arguments.device)
    classifier.model.to(device)
    if arguments.list_layers:
        _, picture = _read(arguments.images[0] if arguments.images else None, arguments)
        print(layer_table(classifier.model, classifier.prepare(picture).to(device)))
        return 0
    unread: list[Path] = []
    noise = Noise(arguments.nt_samples, arguments.noise_level, arguments.seed, show_progress=sys.stderr.isatty())
    rows = _rows(classifier, _pictures(classifier, targets, device, arguments, unread), noise, arguments)
    _save(rows, pages, MapFolder(arguments.save_maps, classifier, noise) if arguments.save_maps else None, arguments)
    if unread:
        raise OSError(f"{len(unread)} of {len(arguments.images)} images could not be read")
    return 0


def _tell_which_network(classifier: Classifier, arguments: argparse.Namespace) -> None:
    """Photographs in the classes of the bundled network make no sense, so nobody should get them unasked."""
    if arguments.images and arguments.model is None and arguments.model_factory is None:
        print(
            f"note: explained with the bundled network, which knows {len(classifier.classes)} shapes "
            f"({', '.join(classifier.classes)}); --model names another one, as resnet50",
            file=sys.stderr,
        )


def _save(
    rows: Iterator[tuple[Subject, Results, Place | None]],
    pages: Sequence[Path],
    folder: MapFolder | None,
    arguments: argparse.Namespace,
) -> None:
    """Write the pictures and, if that is wanted, every map. No more than one picture is kept."""
    note = f"feature maps {', '.join(arguments.feature_maps)}" if arguments.feature_maps else ""
    for page in pages:
        some = list(itertools.islice(rows, ROWS))
        if folder is not None:
            for subject, results, _ in some:
                folder.add(subject, results)
        if some:
            maps = [{key: one.maps for key, one in results.items()} for _, results, _ in some]
            places = [place for _, _, place in some]
            save_picture(page, [subject for subject, _, _ in some], maps, places, cmap=arguments.cmap, note=note)
            print(f"wrote {printable(str(page))}")
    if folder and folder.count:
        print(f"wrote {folder.finish()} maps into {printable(str(folder.folder))}")


def _checked_outputs(arguments: argparse.Namespace, targets: Sequence[str]) -> list[Path]:
    """The files of the picture, once nothing is in the way."""
    images, named = arguments.images, arguments.model_factory or arguments.model
    if not images and named not in (None, BUNDLED):
        raise ValueError(f"IMAGE: expected at least one image file for {named}, found none")
    pages = page_paths(arguments.out, max(1, len(images)) * class_count(targets), ROWS)
    check_pictures(pages, images, arguments.overwrite)
    if arguments.save_maps:
        check_map_folder(arguments.save_maps, arguments.overwrite)
    if images and not any(path.exists() for path in images):
        read_image(images[0])  # the error says what is the matter
    return pages


def _pictures(
    classifier: Classifier,
    targets: Sequence[str],
    device: torch.device,
    arguments: argparse.Namespace,
    unread: list[Path],
) -> Iterator[tuple[list[Subject], Place | None]]:
    """The classes of every picture, one picture at a time. Those that cannot be read are named and left out."""
    with progress(max(1, len(arguments.images)), "image", bar=False) as advance:
        for path in arguments.images or [None]:
            try:
                found = _picture(classifier, path, targets, device, arguments)
            except (OSError, ImageError) as error:
                if path is None or len(arguments.images) == 1:
                    raise
                print(f"captum-sgcampp: error: {printable(str(error))}", file=sys.stderr)
                unread.append(path)
            else:
                yield found
            advance(1)


def _picture(
    classifier: Classifier,
    path: Path | None,
    targets: Sequence[str],
    device: torch.device,
    arguments: argparse.Namespace,
) -> tuple[list[Subject], Place | None]:
    """The classes of one picture and the place that its maps show. Only what the model sees of it is kept."""
    name, picture = _read(path, arguments)
    place = Place(neurons=arguments.neurons) if arguments.neurons else None
    if arguments.box:
        box, is_cut = box_in_crop(arguments.box, picture.size, classifier.show)
        place = Place(box=box)
        if is_cut:
            print(f"{name}: the model sees only a part of --box")
    return subjects_of(classifier, name, picture, targets, device), place


def _read(path: Path | None, arguments: argparse.Namespace) -> tuple[str, Image.Image]:
    """The name and the pixels of an image file, or of the bundled scene."""
    if path is None:
        scene = draw_scene(DEMO_SEED + arguments.seed, classes=DEMO_CLASSES)
        return "bundled scene", Image.fromarray(scene.image)
    return printable(path.name), read_image(path)


def _rows(
    classifier: Classifier,
    pictures: Iterable[tuple[list[Subject], Place | None]],
    noise: Noise,
    arguments: argparse.Namespace,
) -> Iterator[tuple[Subject, Results, Place | None]]:
    """The maps of every class of every picture."""
    layers: list[ChosenLayer] = []
    for subjects, place in pictures:
        layers = layers or _layers(classifier.model, subjects[0], arguments)
        # Where it is given, the box is another one in every picture.
        own = argparse.Namespace(**{**vars(arguments), "box": None if place is None else place.box})
        for subject, results in zip(subjects, _maps(classifier.model, subjects, layers, noise, own), strict=True):
            yield subject, results, place


def _layers(model: nn.Module, subject: Subject, arguments: argparse.Namespace) -> list[ChosenLayer]:
    """The layer that was named, or layers that suit the model, whose reasons are printed."""
    if arguments.layer is not None:
        return [fitting_layer(model, arguments.layer, subject.inputs)]
    layers, reasons = suited_layers(model, subject, smooth=any(map(is_smooth, arguments.method)))
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
    module = named_layer(model, layer.name)
    method = LayerGradCamPlusPlus(model, module, reshape_transform=layer.reshape_transform)
    shape = method.attribute(subject.inputs, subject.target, attr_dim_summation=False).shape  # type: ignore[union-attr]
    selection: dict[str, Any] = {}
    if arguments.feature_maps:
        selection["feature_maps"] = _feature_maps(arguments.feature_maps, method, subject, shape[1])
    if arguments.neurons:
        selection["neurons"] = arguments.neurons
    if arguments.box:
        selection["neurons"] = box_to_neurons(arguments.box, subject.inputs.shape[2:], shape[2:])
    return selection


def _feature_maps(texts: Sequence[str], method: LayerGradCamPlusPlus, subject: Subject, count: int) -> list[int]:
    chosen: list[int] = []
    for text in texts:
        if text.startswith("top:"):
            k = whole_number("--feature-maps", text.removeprefix("top:"), count)
            weights, indices = method.top_feature_maps(subject.inputs, subject.target, k=k)
            found = ", ".join(f"{i} ({w:.3g})" for i, w in zip(indices[0].tolist(), weights[0].tolist(), strict=True))
            print(f"{subject.label}: feature maps with the largest Grad-CAM++ weights: {found}")
            chosen += indices[0].tolist()
        else:
            chosen.append(int(text))
    return chosen
