"""Image classifiers for the command line: the bundled one, and torchvision's with weights of any origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from captum_sgcampp.bundled import CLASSES, load_shapes_vgg
from captum_sgcampp.bundled.network import preprocess
from captum_sgcampp.bundled.scenes import SIZE
from captum_sgcampp.names import nearest
from captum_sgcampp.vision.images import resizable_rgb, shown_crop
from captum_sgcampp.vision.preprocessing import in_words
from captum_sgcampp.vision.weights_files import fitted_model

BUNDLED = "shapes"


@dataclass(frozen=True)
class Classifier:
    """A model with all that is needed to explain a picture.

    Attributes:
        name: its name on the command line.
        model: in evaluation mode, from inputs to logits.
        classes: names of the classes.
        prepare: from an RGB picture to the model's input, `(1, C, H, W)`; or from a `Recording` (a clip, volume or
            signal) to `(1, C, *space)`.
        show: from an RGB picture, or a `Recording`, to the part of it that the model sees, of the input's size.
        independent: whether the classes exclude each other (softmax) or not (sigmoid).
        notes: its preprocessing, and what was assumed of it, in words.
    """

    name: str
    model: nn.Module
    classes: Sequence[str]
    prepare: Callable[[Any], Tensor]
    show: Callable[[Any], Any]
    independent: bool
    notes: tuple[str, ...] = ()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of every class: `(N, classes)` as the logits."""
        return logits.sigmoid() if self.independent else logits.softmax(1)

    def class_index(self, target: str) -> int:
        """The class that `target` names: a number, or a name as in `classes` (any case where it is clear; one
        of several, as `tabby` of `tabby, tabby cat`)."""
        if re.fullmatch(r"-?[0-9]{1,9}", target):
            if not 0 <= int(target) < len(self.classes):
                raise ValueError(f"target: expected a class from 0 to {len(self.classes) - 1}, found {target}")
            if target in self.classes and self.classes[int(target)] != target:
                raise ValueError(
                    f"target: expected one class, found {target!r}, the name of a class and the number of "
                    f"{self.classes[int(target)]!r}; write 0{target} for the number"
                )
            return int(target)
        exact = [number for number, name in enumerate(self.classes) if name == target]
        matches = exact or [number for number, name in enumerate(self.classes) if name.lower() == target.lower()]
        matches = matches or [n for n, name in enumerate(self.classes) if target.lower() in name.lower().split(", ")]
        if len(matches) > 1:
            raise ValueError(f"target: expected the name of one class, found {target!r} for {matches}; give a number")
        if not matches:
            raise ValueError(f"target: expected a class of {self.name}, found {target!r}{self._near(target)}")
        return matches[0]

    def _near(self, target: str) -> str:
        close = [name for name in self.classes if target.lower() in name.lower()][:5]
        if close:
            return f" (did you mean {', '.join(close)}?)"
        return nearest(target, self.classes) or f" (among {', '.join(self.classes[:5])}, ...)"


def load_classifier(name: str = BUNDLED, weights: Path | None = None) -> Classifier:
    """The classifier `name`: the bundled one, or any classification model of torchvision.

    Args:
        name: `"shapes"`, or a name that `torchvision.models.list_models` knows.
        weights: a state dict for a torchvision model: see `read_state`. None: torchvision's own weights, which it
            downloads.

    Raises:
        ValueError: an unknown name, or weights that do not fit.
        OSError: weights that cannot be read or downloaded.
    """
    if name == BUNDLED:
        if weights is not None:
            raise ValueError("weights: expected none for the bundled model, found a file; name its model with --model")
        return Classifier(name, load_shapes_vgg(), CLASSES, preprocess, _show_scene, independent=True)
    if name not in torchvision_names():
        hint = nearest(name, [BUNDLED, *torchvision_names()])
        raise ValueError(
            f"model: expected {BUNDLED!r} or a classifier of torchvision, found {name!r}{hint}; `captum-sgcampp "
            "explain --list-models` prints all names; a network of your own is given as a module, or by --model-factory"
        )
    return _torchvision_classifier(name, weights)


def torchvision_names() -> list[str]:
    """The classification models of torchvision."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def usable_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: torch cannot use it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        lacks_gpu = name.startswith("cuda") and not torch.cuda.is_available()
        hint = "; torch sees no such GPU: leave it out to compute without one" if lacks_gpu else ""
        raise ValueError(f"device: expected a device that torch can use, found {name!r} ({error}){hint}") from error
    return device


def _show_scene(picture: Image.Image) -> Image.Image:
    return picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def _torchvision_classifier(name: str, weights: Path | None) -> Classifier:
    published = torchvision.models.get_model_weights(name).DEFAULT
    if weights is None:
        try:
            model = torchvision.models.get_model(name, weights=published)
        except OSError as error:
            raise OSError(f"weights: expected a download of {published.url}, found {error}; pass --weights") from error
    else:
        model, published = fitted_model(name, weights)
    count = len(next(reversed(model.state_dict().values())))  # the bias of the last layer
    categories = published.meta["categories"]
    classes = categories if len(categories) == count else [f"class {number}" for number in range(count)]
    preset = published.transforms()
    prepare, show = partial(_preset_input, preset), partial(_preset_crop, preset)
    notes = (f"preprocessing: that of {published}: {in_words(preset)}",)
    return Classifier(name, model.eval(), classes, prepare, show, independent=False, notes=notes)


def _preset_input(preset: Any, picture: Image.Image) -> Tensor:
    """The picture after torchvision's own preprocessing, with its interpolation."""
    inputs: Tensor = preset(resizable_rgb(picture, *preset.resize_size, *preset.crop_size))
    return inputs[None]


def _preset_crop(preset: Any, picture: Image.Image) -> Image.Image:
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    return shown_crop(picture, resize=resize, crop=crop, interpolation=preset.interpolation)
