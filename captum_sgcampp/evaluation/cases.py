"""What is explained: the images of a folder, or scenes whose objects are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from captum_sgcampp.bundled import Scene, draw_scene
from captum_sgcampp.metrics import sample_mosaics
from captum_sgcampp.storage.printable import printable
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import read_image

# The first scene of an evaluation with seed 0. All seeds of training scenes are smaller.
FIRST_EVALUATION_SEED = 3_000_000_000
SEEDS_PER_RUN = 1_000_000  # distance of the scenes of two evaluation seeds, and the most scenes of one
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """One image and the class to explain.

    Attributes:
        name: file name, or number of the scene.
        inputs: `(1, C, H, W)`.
        target: class index.
        regions: pixels of the class's objects, `(1, H, W)`, where they are known.
        boxes: the same for their boxes.
        instances: pixels of each object, `(I, H, W)`.
    """

    name: str
    inputs: Tensor
    target: int
    regions: Tensor | None = None
    boxes: Tensor | None = None
    instances: Tensor | None = None


@dataclass(frozen=True)
class Cases:
    """All that is explained. Images are read when needed.

    Attributes:
        names: one per image.
        targets: class of each.
        load: from a number to its case.
        partners: for each image three others of other classes for a mosaic, or None.
        kind: their name in the table.
        files: of the images, if they come from files.
        masks: files of their masks, if there are any.
    """

    names: Sequence[str]
    targets: Sequence[int]
    load: Callable[[int], Case]
    partners: Sequence[tuple[int, int, int] | None]
    kind: str
    files: Sequence[Path] = ()
    masks: Sequence[Path] = ()

    def digest(self) -> str:
        """Digest of the names, the targets and the contents of the files."""
        text = "\n".join(f"{name}\t{target}" for name, target in zip(self.names, self.targets, strict=True))
        return _short_digest(text.encode(), *map(Path.read_bytes, self.files))

    def mask_digest(self) -> str | None:
        """Digest of the mask files."""
        return _short_digest(*map(Path.read_bytes, self.masks)) if self.masks else None


def _short_digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def image_seed(seed: int, *parts: str) -> int:
    """Seed of all that is random for one image, from its name: its place in the folder does not matter."""
    text = "\0".join([str(seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def folder_cases(
    classifier: Classifier,
    folder: Path,
    *,
    target_from_name: bool,
    masks: Path | None,
    seed: int,
    device: torch.device,
    limit: int | None = None,
) -> Cases:
    """The images of a folder in the order of their names.

    Args:
        classifier: prepares and classifies them.
        folder: of the images.
        target_from_name: whether a file's stem is its class index. Otherwise the most probable class is explained.
        masks: folder of masks as PNG by the same stem, not black where the object is.
        seed: of the choice of mosaics.
        device: of the inputs.
        limit: only the first so many images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"FOLDER: expected a folder of images, found none at {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise FileNotFoundError(f"FOLDER: expected images ({', '.join(SUFFIXES)}) in {folder}, found none")
    mask_paths = [] if masks is None else [_mask_path(masks, path) for path in paths]
    targets = [_target(classifier, path, target_from_name, device) for path in paths]

    names = [printable(path.name) for path in paths]

    def load(index: int) -> Case:
        inputs = classifier.prepare(read_image(paths[index])).to(device)
        if not mask_paths:
            return Case(names[index], inputs, targets[index])
        region = _mask(classifier, mask_paths[index]).to(device)
        return Case(names[index], inputs, targets[index], region[None], _box(region)[None])

    partners = sample_mosaics(targets, Generator().manual_seed(seed))
    return Cases(names, targets, load, partners, f"{len(paths)} images", paths, mask_paths)


def _mask_path(masks: Path, image: Path) -> Path:
    path = masks / f"{image.stem}.png"
    if not path.is_file():
        raise FileNotFoundError(f"--masks: expected a mask of {image.name} at {path}, found none")
    return path


def _target(classifier: Classifier, path: Path, from_name: bool, device: torch.device) -> int:
    if from_name:
        if not path.stem.isdigit():
            raise ValueError(f"--target-from-name: expected a class number as file name, found {path.name!r}")
        return classifier.class_index(path.stem)
    with torch.no_grad():
        return int(classifier.model(classifier.prepare(read_image(path)).to(device)).argmax())


def _mask(classifier: Classifier, path: Path) -> Tensor:
    shown = np.asarray(classifier.show(read_image(path)).convert("L"))
    region = torch.from_numpy(shown > 127)
    if not region.any():
        raise ValueError(f"--masks: expected some pixels of the object in the classifier's crop of {path}, found none")
    return region


def _box(region: Tensor) -> Tensor:
    """The smallest box around a region `(H, W)`, as a region."""
    rows, columns = region.any(1).nonzero().flatten(), region.any(0).nonzero().flatten()
    box = torch.zeros_like(region)
    box[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
    return box


def scene_cases(classifier: Classifier, count: int, seed: int, device: torch.device) -> Cases:
    """Fresh scenes of the bundled generator, with exact masks. Each explains the class with the most objects (the first
    drawn of them), whatever the network predicts.

    Args:
        classifier: the bundled one.
        count: number of scenes.
        seed: of the scenes, none of which was trained on.
        device: of the inputs.
    """
    seeds = evaluation_seeds(seed, count)
    targets = [_most_frequent(draw_scene(number)) for number in seeds]

    def load(index: int) -> Case:
        scene = draw_scene(seeds[index])
        instances = torch.from_numpy(scene.masks[[c == targets[index] for c in scene.classes]]).to(device)
        boxes = torch.stack([_box(instance) for instance in instances]).any(0)
        inputs = classifier.prepare(Image.fromarray(scene.image)).to(device)
        name = f"scene {seeds[index]}"
        return Case(name, inputs, targets[index], instances.any(0)[None], boxes[None], instances)

    return Cases([f"scene {number}" for number in seeds], targets, load, [None] * count, f"{count} scenes")


def evaluation_seeds(seed: int, count: int) -> range:
    """Seeds of the scenes of one evaluation, none of which any training draws.

    Args:
        seed: of the evaluation, 0 or larger.
        count: number of scenes, at most a million.
    """
    if seed < 0 or not 1 <= count <= SEEDS_PER_RUN:
        raise ValueError(f"seed, scenes: expected at least 0 and 1 to {SEEDS_PER_RUN}, found {seed} and {count}")
    first = FIRST_EVALUATION_SEED + seed * SEEDS_PER_RUN
    return range(first, first + count)


def _most_frequent(scene: Scene) -> int:
    return max(scene.classes, key=scene.classes.count)
