"""What is explained: the images of a folder, or scenes whose objects are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_sgcampp.bundled import Scene, draw_scene
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.names import printable
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import SUFFIXES, ImageError, read_image

# The first scene of an evaluation with seed 0. All seeds of training scenes are smaller.
FIRST_EVALUATION_SEED = 3_000_000_000
SEEDS_PER_RUN = 1_000_000  # distance of the scenes of two evaluation seeds, and the most scenes of one

# What groups of metrics need.
MASKS = "masks of the objects"
PAIRS = "images with several objects of the class, and their masks"
MOSAICS = "images of at least four classes, one class in each"


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


class Cases(Protocol):
    """All that is explained. Images are read when needed.

    Attributes:
        kind: their name in the table.
        has: what groups of metrics need, as far as these images have it. Whether they have four classes is seen later.
        device: of the inputs.
    """

    @property
    def kind(self) -> str: ...

    @property
    def has(self) -> frozenset[str]: ...

    @property
    def device(self) -> torch.device: ...

    def check(self) -> None:
        """Raises an OSError where none of the images can be reached."""

    def settings(self) -> Mapping[str, Any]:
        """What decides which images and classes these are, by the name of the option."""

    def items(self) -> Sequence[Item]:
        """The list, in the order of the work. Called at the first start of a run only."""

    def files(self, item: Item) -> Sequence[Path]:
        """The files that an item is read from."""

    def inputs(self, item: Item) -> Tensor:
        """The model's input for an item, `(1, C, H, W)`."""

    def load(self, item: Item) -> Case:
        """All of an item. Without a target in the list it is classified."""


def image_seed(seed: int, *parts: str) -> int:
    """Seed of all that is random for one image, from its name: its place in the folder does not matter."""
    text = "\0".join([str(seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def most_probable(classifier: Classifier, inputs: Tensor) -> int:
    """The class with the largest logit of one input."""
    with torch.no_grad():
        return int(classifier.model(inputs).argmax())


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder in the order of their names. Names that begin with a dot are left out.

    Args:
        classifier: prepares and classifies them.
        folder: of the images.
        device: of the inputs.
        target_from_name: whether a file's stem is its class index. Otherwise the most probable class is explained.
        masks: folder of masks as PNG by the same stem, not black where the object is.
        limit: only the first so many images.
    """

    classifier: Classifier
    folder: Path
    device: torch.device
    target_from_name: bool = False
    masks: Path | None = None
    limit: int | None = None
    kind: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"FOLDER: expected a folder of images, found none at {self.folder}")

    @property
    def has(self) -> frozenset[str]:
        return frozenset({MOSAICS} if self.masks is None else {MOSAICS, MASKS})

    def settings(self) -> Mapping[str, Any]:
        return {
            "FOLDER": os.path.abspath(self.folder),
            "--limit": self.limit,
            "--masks": None if self.masks is None else os.path.abspath(self.masks),
            "--target-from-name": self.target_from_name,
        }

    def items(self) -> Sequence[Item]:
        paths = sorted(path for path in self.folder.iterdir() if _is_image(path))[: self.limit]
        if not paths:
            raise FileNotFoundError(f"FOLDER: expected images ({', '.join(SUFFIXES)}) in {self.folder}, found none")
        items = [Item(printable(path.name), os.fsencode(path.name), self._target_in(path.name)) for path in paths]
        for item in items:
            self._check_mask(item)
        return items

    def files(self, item: Item) -> Sequence[Path]:
        image = self._image(item)
        return [image] if self.masks is None else [image, self.masks / f"{image.stem}.png"]

    def inputs(self, item: Item) -> Tensor:
        path = self._image(item)
        inputs = self.classifier.prepare(read_image(path)).to(self.device)
        if not bool(torch.isfinite(inputs).all()):
            raise ImageError(f"{str(path)!r}: expected finite values in the model's input, found NaN or infinity")
        return inputs

    def load(self, item: Item) -> Case:
        inputs = self.inputs(item)
        target = most_probable(self.classifier, inputs) if item.target is None else item.target
        if self.masks is None:
            return Case(item.name, inputs, target)
        region = _mask(self.classifier, self.files(item)[1]).to(self.device)
        return Case(item.name, inputs, target, region[None], _box(region)[None])

    def _image(self, item: Item) -> Path:
        return self.folder / os.fsdecode(item.file)

    def _target_in(self, name: str) -> int | None:
        if not self.target_from_name:
            return None
        if not Path(name).stem.isdigit():
            raise ValueError(f"--target-from-name: expected a class number as file name, found {name!r}")
        return self.classifier.class_index(Path(name).stem)

    def _check_mask(self, item: Item) -> None:
        for path in self.files(item)[1:]:
            if not path.is_file():
                raise FileNotFoundError(f"--masks: expected a mask of {item.name} at {path}, found none")


def _is_image(path: Path) -> bool:
    """Also macOS's resource forks begin with a dot."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


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


@dataclass(frozen=True)
class Scenes:
    """Fresh scenes of the bundled generator, with exact masks. Each explains the class with the most objects (the first
    drawn of them), whatever the network predicts.

    Args:
        classifier: the bundled one.
        count: number of scenes.
        seed: of the scenes, none of which was trained on.
        device: of the inputs.
    """

    classifier: Classifier
    count: int
    seed: int
    device: torch.device
    kind: ClassVar[str] = "scenes"
    has: ClassVar[frozenset[str]] = frozenset({MASKS, PAIRS})

    def __post_init__(self) -> None:
        evaluation_seeds(self.seed, self.count)

    def check(self) -> None:
        """Nothing that could be gone."""

    def settings(self) -> Mapping[str, Any]:
        return {"FOLDER": None, "--scenes": self.count, "--seed": self.seed}

    def items(self) -> Sequence[Item]:
        return [Item(f"scene {number}", str(number).encode()) for number in evaluation_seeds(self.seed, self.count)]

    def files(self, item: Item) -> Sequence[Path]:
        return []

    def inputs(self, item: Item) -> Tensor:
        return self._prepared(draw_scene(int(item.file)))

    def load(self, item: Item) -> Case:
        scene = draw_scene(int(item.file))
        target = _most_frequent(scene)
        instances = torch.from_numpy(scene.masks[[c == target for c in scene.classes]]).to(self.device)
        boxes = torch.stack([_box(instance) for instance in instances]).any(0)
        return Case(item.name, self._prepared(scene), target, instances.any(0)[None], boxes[None], instances)

    def _prepared(self, scene: Scene) -> Tensor:
        return self.classifier.prepare(Image.fromarray(scene.image)).to(self.device)


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
