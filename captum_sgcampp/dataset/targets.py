"""Which classes of an image are explained: from words as `top:3`, class names or a column of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_sgcampp.vision.classifiers import Classifier

TOP = "top"
OF_EACH_IMAGE = ("column", "folder", "stem")


@dataclass(frozen=True)
class Targets:
    """The classes to explain, the same number for every image.

    Attributes:
        classifier: knows the classes.
        words: class names or numbers; or one of `top`, `top:3` (the most probable), `column:NAME`, `folder` and `stem`
            (each image brings its own, as `sources` reads it).
    """

    classifier: Classifier
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("targets: expected at least one class, or top, found none")
        special = [word for word in self.words if self._is_top(word) or is_of_each_image(word)]
        if special and len(self.words) > 1:
            raise ValueError(f"targets: expected class names, or {special[0]!r} alone, found {list(self.words)}")
        if not special:
            self._named()
        elif self._is_top(special[0]):
            self._top_count()

    def chosen(self, logits: Tensor, own: Sequence[int]) -> Tensor:
        """The classes for clean logits `(N, classes)`: `(N, k)`. `own` are those that the images bring."""
        if self._is_top(self.words[0]):
            return logits.topk(self._top_count(), 1).indices
        if is_of_each_image(self.words[0]):
            return torch.tensor(own, device=logits.device)[:, None]
        return torch.tensor(self._named(), device=logits.device).expand(len(logits), -1)

    @property
    def count(self) -> int:
        """Classes of every image, k."""
        if self._is_top(self.words[0]):
            return self._top_count()
        return 1 if is_of_each_image(self.words[0]) else len(self._named())

    @property
    def of_each_image(self) -> str:
        """Where the images bring their classes, as `column:NAME`. Empty: they do not."""
        return self.words[0] if is_of_each_image(self.words[0]) else ""

    def own(self, text: object) -> int:
        """The class that an image brings: a number, or a name.

        Raises:
            ValueError: none, or an unknown one.
        """
        if not is_of_each_image(self.words[0]):
            return 0
        if text is None:
            raise ValueError(f"target: expected a class of its own, as {self.words[0]} says, found none")
        return self.classifier.class_index(str(text))

    def _named(self) -> list[int]:
        return list(dict.fromkeys(map(self.classifier.class_index, self.words)))

    def _is_top(self, word: str) -> bool:
        return word == TOP or word.startswith(f"{TOP}:")

    def _top_count(self) -> int:
        text, classes = self.words[0].removeprefix(TOP).removeprefix(":") or "1", len(self.classifier.classes)
        if not text.isdigit() or not 1 <= int(text) <= classes:
            raise ValueError(f"targets: expected top:K with K from 1 to {classes}, found {self.words[0]!r}")
        return int(text)


def is_of_each_image(word: str) -> bool:
    """Whether a word says that every image brings its own class."""
    return word in OF_EACH_IMAGE or word.startswith(f"{OF_EACH_IMAGE[0]}:")
