"""The command `explain` for clips, volumes and signals, with a model of the user's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from captum_sgcampp.commands.outputs import check_map_folder, check_pictures, page_paths
from captum_sgcampp.names import printable
from captum_sgcampp.vision.classifiers import Classifier, usable_device
from captum_sgcampp.vision.explained_classes import Results, Subject, class_count, explained, subjects_of
from captum_sgcampp.vision.images import ImageError
from captum_sgcampp.vision.layer_choice import ChosenLayer, named_layer
from captum_sgcampp.vision.methods import METHODS, Noise
from captum_sgcampp.vision.model_factory import classifier_from_factory
from captum_sgcampp.vision.recording_pictures import gif_of, save_recording_picture
from captum_sgcampp.vision.recordings import CLIP, Recording, read_recording
from captum_sgcampp.vision.saved_maps import MapFolder


class Row(NamedTuple):
    """One class of one file, and its maps."""

    subject: Subject
    results: Results


def run(arguments: argparse.Namespace, kind: str) -> int:
    """Read, explain, write a picture for every class and method, and print what was done.

    Returns:
        The exit status: that of an error if some of the files could not be read.
    """
    _check_arguments(arguments, kind)
    targets = arguments.target or ["top"]
    pages = _checked_outputs(arguments, targets, kind)
    classifier = classifier_from_factory(arguments.model_factory)
    named_layer(classifier.model, arguments.layer)
    noise = Noise(arguments.nt_samples, arguments.noise_level, arguments.seed, show_progress=sys.stderr.isatty())
    folder = MapFolder(arguments.save_maps, classifier, noise) if arguments.save_maps else None
    unread: list[Path] = []
    remaining = iter(pages)
    for row in _rows(classifier, arguments, targets, kind, noise, unread):
        if folder is not None:
            folder.add(row.subject, row.results)
        for (method, layer), one in row.results.items():
            title = f"{row.subject.name}, {row.subject.label}\n{method}, {layer}"
            page = next(remaining)
            for path in save_recording_picture(page, row.subject.shown, one.maps, title, arguments.cmap):
                print(f"wrote {printable(str(path))}")
    if folder and folder.count:
        print(f"wrote {folder.finish()} maps into {printable(str(folder.folder))}")
    if unread:
        raise OSError(f"{len(unread)} of {len(arguments.images)} files could not be read")
    return 0


def _check_arguments(arguments: argparse.Namespace, kind: str) -> None:
    """What images have and others lack is refused; what others need is asked for."""
    for option, value in (("--model-factory", arguments.model_factory), ("--layer", arguments.layer)):
        if value is None:
            raise ValueError(f"{option}: expected one for a {kind}, found none")
    unknown = {
        name: getattr(arguments, name) for name in ("model", "weights", "white", "box", "neurons", "feature_maps")
    }
    unknown["list_layers"] = arguments.list_layers or None
    for name, value in unknown.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')}: expected it with images alone, found it with a {kind}")


def _checked_outputs(arguments: argparse.Namespace, targets: Sequence[str], kind: str) -> list[Path]:
    """The files of the pictures, once nothing is in the way."""
    maps = len(arguments.images) * class_count(targets) * len(arguments.method)
    pages = page_paths(arguments.out, maps, 1)
    beside = [gif_of(page) for page in pages] if kind == CLIP else []
    check_pictures([*pages, *beside], arguments.images, arguments.overwrite)
    if arguments.save_maps:
        check_map_folder(arguments.save_maps, arguments.overwrite)
    return pages


def _rows(
    classifier: Classifier,
    arguments: argparse.Namespace,
    targets: Sequence[str],
    kind: str,
    noise: Noise,
    unread: list[Path],
) -> Iterator[Row]:
    """Every class of every file. Those that cannot be read are named and left out."""
    device = usable_device(arguments.device)
    classifier.model.to(device)
    for path in arguments.images:
        try:
            recording = read_recording(path, kind)
        except (OSError, ImageError) as error:
            if len(arguments.images) == 1:
                raise
            print(f"captum-sgcampp: error: {printable(str(error))}", file=sys.stderr)
            unread.append(path)
        else:
            yield from _rows_of(classifier, arguments, targets, path, recording, noise, device)


def _rows_of(
    classifier: Classifier,
    arguments: argparse.Namespace,
    targets: Sequence[str],
    path: Path,
    recording: Recording,
    noise: Noise,
    device: torch.device,
) -> Iterator[Row]:
    of_classes = subjects_of(classifier, printable(path.name), recording, targets, device)
    layer = ChosenLayer(arguments.layer)
    found = {
        METHODS[method]: explained(classifier.model, [layer], method, of_classes, noise) for method in arguments.method
    }
    for subject in of_classes:
        print(f"{subject.name}: {subject.label}")
        results: Results = {}
        for method, maps in found.items():
            results[method, layer.name] = one = maps[subject.target, layer.name]
            print(f"  {method}, {layer.name}: {one.note}")
        yield Row(subject, results)
