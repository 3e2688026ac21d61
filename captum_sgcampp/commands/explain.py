"""The command `explain`: what its arguments stand for."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from captum_sgcampp.commands import explain_recordings
from captum_sgcampp.commands.outputs import check_map_folder, check_pictures, page_paths
from captum_sgcampp.names import printable
from captum_sgcampp.storage.progress import progress
from captum_sgcampp.vision.any_image import check_exists
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, usable_device
from captum_sgcampp.vision.explain import SCENE_TARGET, about_bundled, bundled_scene
from captum_sgcampp.vision.explained_classes import class_count
from captum_sgcampp.vision.explained_picture import Request, explained_picture
from captum_sgcampp.vision.explanation import Explanation
from captum_sgcampp.vision.images import ImageError, read_image
from captum_sgcampp.vision.layer_choice import layer_table
from captum_sgcampp.vision.methods import Noise
from captum_sgcampp.vision.model_factory import chosen_classifier
from captum_sgcampp.vision.pictures import picture_figure, save_picture
from captum_sgcampp.vision.recordings import IMAGE, kind_of
from captum_sgcampp.vision.saved_maps import MapFolder

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
    targets = arguments.target or (["top"] if arguments.images else [SCENE_TARGET])
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
    found = _explanations(classifier, targets, device, noise, arguments, unread)
    _save(found, pages, MapFolder(arguments.save_maps, classifier, noise) if arguments.save_maps else None, arguments)
    if unread:
        raise OSError(f"{len(unread)} of {len(arguments.images)} images could not be read")
    return 0


def _tell_which_network(classifier: Classifier, arguments: argparse.Namespace) -> None:
    if arguments.images and arguments.model is None and arguments.model_factory is None:
        print(f"note: {about_bundled(classifier, '--model')}", file=sys.stderr)


def _save(
    found: Iterator[Explanation], pages: Sequence[Path], folder: MapFolder | None, arguments: argparse.Namespace
) -> None:
    """Write the pictures and, if that is wanted, every map. No more than one picture is kept."""
    note = f"feature maps {', '.join(arguments.feature_maps)}" if arguments.feature_maps else ""
    rows = ((subject, one.results(subject), one.place) for one in found for subject in one.subjects)
    for page in pages:
        some = list(itertools.islice(rows, ROWS))
        if folder is not None:
            for subject, results, _ in some:
                folder.add(subject, results)
        if some:
            maps = [{key: one.maps for key, one in results.items()} for _, results, _ in some]
            subjects, places = [subject for subject, _, _ in some], [place for _, _, place in some]
            save_picture(page, picture_figure(subjects, maps, places, cmap=arguments.cmap, note=note))
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
        check_exists(images[0])
    return pages


def _explanations(
    classifier: Classifier,
    targets: Sequence[str],
    device: torch.device,
    noise: Noise,
    arguments: argparse.Namespace,
    unread: list[Path],
) -> Iterator[Explanation]:
    """Explain every picture, one at a time. Those that cannot be read are named and left out."""
    request = Request(
        targets=targets,
        methods=arguments.method,
        noise=noise,
        layers=[] if arguments.layer is None else [arguments.layer],
        feature_maps=arguments.feature_maps or (),
        neurons=arguments.neurons,
        box=arguments.box,
    )
    for note in classifier.notes:
        _tell(printable(note))
    advice: set[str] = set()  # that was told
    with progress(max(1, len(arguments.images)), "image", bar=False) as advance:
        for path in arguments.images or [None]:
            try:
                found = explained_picture(classifier, *_read(path, arguments), request, device, _tell)
            except (OSError, ImageError) as error:
                if path is None or len(arguments.images) == 1:
                    raise
                print(f"captum-sgcampp: error: {printable(str(error))}", file=sys.stderr)
                unread.append(path)
            else:
                new = [line for line in found.advice if line not in advice]
                for line in [line for subject in found.subjects for line in found.lines(subject)] + new:
                    _tell(line)
                advice.update(new)
                request = replace(request, layers=found.layers)  # those of the first picture
                yield found
            advance(1)


def _tell(line: str) -> None:
    print(line, flush=True)


def _read(path: Path | None, arguments: argparse.Namespace) -> tuple[str, Image.Image]:
    """The name and the pixels of an image file, or of the bundled scene."""
    if path is None:
        scene = bundled_scene(arguments.seed)
        return scene.name, cast(Image.Image, scene.content)
    return printable(path.name), read_image(path, white=arguments.white)
