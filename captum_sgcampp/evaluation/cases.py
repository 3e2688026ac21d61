"""What is explained: the images of a folder, or scenes whose objects are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from captum_sgcampp.bundled import Scene, draw_scene
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.evaluation.regions import Boxed, box_regions, enclosing_box, mask_region, read_boxes
from captum_sgcampp.names import printable
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import SUFFIXES, ImageError, read_image
from captum_sgcampp.wide_gray import check_white, scaling_of

# The first scene of an evaluation with seed 0. All seeds of training scenes are smaller.
FIRST_EVALUATION_SEED = 3_000_000_000
SEEDS_PER_RUN = 1_000_000  # distance of the scenes of two evaluation seeds, and the most scenes of one

# What groups of metrics need.
MASKS = "masks or boxes of the objects"
PAIRS = "images with several objects of the class, and the mask or box of each"
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
        instances: pixels of each object, or of its box, `(I, H, W)`.
        note: how the picture was scaled where it was gray of more than 8 bits, in words.
    """

    name: str
    inputs: Tensor
    target: int
    regions: Tensor | None = None
    boxes: Tensor | None = None
    instances: Tensor | None = None
    note: str = ""


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
        boxes_file: see `read_boxes`. Only the images that it names are explained.
        limit: only the first so many images.
        white: of gray images of more than 8 bits, as in `read_image`. Masks have none.
    """

    classifier: Classifier
    folder: Path
    device: torch.device
    target_from_name: bool = False
    masks: Path | None = None
    limit: int | None = None
    boxes_file: Path | None = None
    white: float | None = None
    kind: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        check_white(self.white)
        self.check()

    def check(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"FOLDER: expected a folder of images, found none at {self.folder}")

    @property
    def has(self) -> frozenset[str]:
        masks = {MASKS} if self.masks or self.boxes_file else set()
        return frozenset({MOSAICS} | masks | ({PAIRS} if self.boxes_file else set()))

    def settings(self) -> Mapping[str, Any]:
        return {
            "FOLDER": os.path.abspath(self.folder),
            "--limit": self.limit,
            "--masks": None if self.masks is None else os.path.abspath(self.masks),
            "--boxes": None if self.boxes_file is None else os.path.abspath(self.boxes_file),
            "--target-from-name": self.target_from_name,
            "--white": self.white,
        }

    def items(self) -> Sequence[Item]:
        paths = sorted(path for path in self.folder.iterdir() if _is_image(path))
        if self.boxes_file is not None:
            paths = self._boxed_only(paths)
        if not paths:
            raise FileNotFoundError(f"FOLDER: expected images ({', '.join(SUFFIXES)}) in {self.folder}, found none")
        items = [
            Item(printable(path.name), os.fsencode(path.name), self._known_target(path.name))
            for path in paths[: self.limit]
        ]
        for item in items:
            self._check_mask(item)
        return items

    def files(self, item: Item) -> Sequence[Path]:
        image = self._image(item)
        masks = [] if self.masks is None else [self.masks / f"{image.stem}.png"]
        return [image, *masks, *([] if self.boxes_file is None else [self.boxes_file])]

    def inputs(self, item: Item) -> Tensor:
        return self._prepared(item, self._picture(item))

    def _prepared(self, item: Item, picture: Image.Image) -> Tensor:
        inputs = self.classifier.prepare(picture).to(self.device)
        if not bool(torch.isfinite(inputs).all()):
            path = self._image(item)
            raise ImageError(f"{str(path)!r}: expected finite values in the model's input, found NaN or infinity")
        return inputs

    def load(self, item: Item) -> Case:
        picture = self._picture(item)
        inputs = self._prepared(item, picture)
        target = most_probable(self.classifier, inputs) if item.target is None else item.target
        regions = instances = boxes = None
        if self.masks is not None:
            path = self.files(item)[1]
            regions = mask_region(self.classifier, read_image(path), str(path)).to(self.device)[None]
            boxes = enclosing_box(regions[0])[None]
        if self.boxes_file is not None:
            of_image = self._boxed[os.fsdecode(item.file)].boxes
            instances = box_regions(self.classifier, picture, of_image).to(self.device)
            boxes = instances.any(0)[None]
        return Case(item.name, inputs, target, regions, boxes, instances, scaling_of(picture))

    @cached_property
    def _boxed(self) -> dict[str, Boxed]:
        return {} if self.boxes_file is None else read_boxes(self.boxes_file)

    def _boxed_only(self, paths: Sequence[Path]) -> list[Path]:
        found = [path for path in paths if path.name in self._boxed]
        missing = sorted(set(self._boxed) - {path.name for path in found})
        if missing:
            raise FileNotFoundError(
                f"--boxes: expected images of {self.folder}, found {missing[0]!r}, which is not there"
            )
        return found

    def _picture(self, item: Item) -> Image.Image:
        return read_image(self._image(item), white=self.white)

    def _image(self, item: Item) -> Path:
        return self.folder / os.fsdecode(item.file)

    def _known_target(self, name: str) -> int | None:
        if name in self._boxed and (target := self._boxed[name].target) is not None:
            return self.classifier.class_index(str(target))
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
        boxes = torch.stack([enclosing_box(instance) for instance in instances]).any(0)
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
