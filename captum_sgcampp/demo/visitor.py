"""What the server keeps of one visitor, in memory only: the picture, and what the network said of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_sgcampp.demo.kept_samples import KeptSamples
from captum_sgcampp.demo.networks import Network
from captum_sgcampp.demo.scenes import example_scene
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.vision.explained_classes import classified
from captum_sgcampp.vision.images import read_image

MAX_PIXELS = 16_000_000  # of an upload, checked before any is decoded
MOST_BYTES = 64 * 2**20  # of kept sums; the newest stay
NO_PICTURE = "image: expected a picture, found none; upload one or choose an example"


@dataclass(frozen=True)
class Seen:
    """What a network sees of the picture.

    Attributes:
        shown: the part of it that the network sees.
        inputs: `(1, C, H, W)`.
        probabilities: `(classes,)`.
    """

    shown: Image.Image
    inputs: Tensor
    probabilities: Tensor

    def order(self) -> list[int]:
        """The classes, the most probable first."""
        found: list[int] = self.probabilities.argsort(descending=True, stable=True).tolist()
        return found


class Visitor:
    """One open page.

    Attributes:
        lock: held while the sums grow or are read.
        turn: raised by whatever makes a running explanation useless.
        name: of the picture's file; empty for an example.
        scene: number of the example; None for the visitor's own picture.
        address: of the page, as the visitor's browser has it.
    """

    def __init__(self) -> None:
        self.lock, self.turn = threading.RLock(), 0
        self.name: str = ""
        self.scene: int | None = None
        self.address, self._cancelled = "", -1
        self._picture: Image.Image | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._seen: dict[str, Seen] = {}
        self._kept: OrderedDict[Any, KeptSamples] = OrderedDict()

    def __deepcopy__(self, memo: object) -> Visitor:
        return Visitor()  # Gradio copies the first value of a state for every visitor

    @property
    def picture(self) -> Image.Image | None:
        """What is explained."""
        return self._picture

    def new_folder(self) -> Path:
        """An empty folder for downloads. The one before goes, with all that is in it."""
        with self.lock:
            self._remove_folder()
            root = os.environ.get("GRADIO_TEMP_DIR")  # from where Gradio serves files as they are
            self._folder = tempfile.TemporaryDirectory(dir=root, prefix="files-")
            return Path(self._folder.name)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the visitor ended the last explanation, and started none since."""
        return self.turn == self._cancelled

    def cancel(self) -> None:
        """End the running explanation."""
        self.turn += 1
        self._cancelled = self.turn

    def show_scene(self, number: int) -> None:
        """Take an example."""
        picture = example_scene(number)
        self._take(picture, "", number)

    def show_file(self, path: Path) -> None:
        """Take an image file.

        Raises:
            ImageError, OSError: one that is not read. Sizes are checked before pixels are decoded.
        """
        self._take(read_image(path, max_pixels=MAX_PIXELS), path.name, None)

    def forget(self) -> None:
        """Keep nothing."""
        with self.lock:
            self.turn += 1
            self._picture, self.name, self.scene = None, "", None
            self._seen.clear()
            self._kept.clear()
            self._remove_folder()

    def _take(self, picture: Image.Image, name: str, scene: int | None) -> None:
        self.forget()
        with self.lock:
            self._picture, self.name, self.scene = picture, name, scene

    def seen_by(self, network: Network) -> Seen:
        """What the network sees of the picture. It runs once.

        Raises:
            ValueError: no picture yet.
        """
        with self.lock:
            if self._picture is None:
                raise ValueError(NO_PICTURE)
            if network.name not in self._seen:
                shown = network.classifier.show(self._picture)
                with exclusive_access():
                    inputs, probabilities = classified(network.classifier, self._picture, torch.device("cpu"))
                self._seen[network.name] = Seen(shown, inputs, probabilities)
            return self._seen[network.name]

    def kept(self, network: Network, target: int, settings: Settings) -> KeptSamples:
        """What the network said of a class so far; its clean gradients if it said nothing yet."""
        layer = network.layer(settings.layer)
        key = (network.name, layer.layer.name, target, settings.noise_level, settings.seed)
        with self.lock:
            if key in self._kept and not settings.auto and self._kept[key].count > settings.nt_samples:
                del self._kept[key]  # sums do not shrink
            if key not in self._kept:
                seen = self.seen_by(network)
                self._kept[key] = KeptSamples(network, layer, seen.inputs, target, settings.noise_level, settings.seed)
            self._kept.move_to_end(key)
            self._forget_the_oldest()
            return self._kept[key]

    def _forget_the_oldest(self) -> None:
        """All but the two of a comparison may go."""
        while len(self._kept) > 2 and sum(kept.bytes() for kept in self._kept.values()) > MOST_BYTES:
            self._kept.popitem(last=False)
