"""The pictures of the tables, as arguments of `captum-sgcampp evaluate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trained_networks

from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import read_image

# Of the photographs with boxes. The Granny Smith is the one apple of ImageNet.
CLASSES = {"apple": 948, "banana": 954, "orange": 950}
RECOGNIZED = 0.3  # least probability of the class
BOXED = 60  # photographs with boxes, spread evenly over those that are recognized


def arguments(kind: str, network: str, work: Path) -> list[str | Path]:
    """
    Args:
        kind: `scenes`, `imagenet` (named by their class), `boxes` (photographs with boxes), `signs` or `mri`, which
            explain the most probable class.
        network: that recognizes the photographs with boxes.
        work: folder for what is gathered.
    """
    if kind == "scenes":
        return []
    folders = {"imagenet": "imagenet", "boxes": "photos_with_boxes", "signs": "samples/signs", "mri": "samples/mri"}
    folder = trained_networks.assets() / folders[kind]
    if kind == "imagenet":
        return [folder, "--target-from-name"]
    if kind == "boxes":
        return [folder, "--boxes", boxes_file(folder, network, work)]
    return [gathered(folder, work / "mri") if kind == "mri" else folder]


def gathered(folder: Path, out: Path) -> Path:
    """The pictures of all subfolders in one, those of a class named by it."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*/*")):
        target = out / f"{path.parent.name}-{path.name}"
        if not target.exists():
            shutil.copy(path, target)
    return out


def boxes_file(folder: Path, network: str, work: Path) -> Path:
    """The photographs with objects of one class that the network recognizes, with its boxes."""
    out = work / f"boxes-{network}.json"
    if not out.exists():
        work.mkdir(parents=True, exist_ok=True)
        found = list(recognized(folder, trained_networks.load(network)))
        count = min(BOXED, len(found))
        out.write_text(json.dumps(dict(found[k * len(found) // count] for k in range(count)), indent=1))
    return out


def recognized(folder: Path, classifier: Classifier) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of the file `--boxes`."""
    for name, entry in json.loads((folder / "boxes.json").read_text()).items():
        labels = {box[0] for box in entry["boxes"]}
        if len(labels) != 1:
            continue
        target = CLASSES[labels.pop()]
        with torch.no_grad():
            logits = classifier.model(classifier.prepare(read_image(folder / name)))
        if float(logits.softmax(1)[0, target]) > RECOGNIZED:
            yield name, {"target": target, "boxes": [box[1:] for box in entry["boxes"]]}
