"""Image classifiers for the command line: the bundled one, and torchvision's with weights of any origin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from captum_sgcampp.bundled import CLASSES, load_shapes_vgg
from captum_sgcampp.bundled.network import preprocess
from captum_sgcampp.bundled.scenes import SIZE
from captum_sgcampp.vision.images import resizable_rgb, shown_crop

BUNDLED = "shapes"


@dataclass(frozen=True)
class Classifier:
    """A model with all that is needed to explain a picture with it.

    Attributes:
        name: how the command line calls it.
        model: in evaluation mode; gives logits.
        classes: their names.
        prepare: from an RGB picture to the model's input, `(1, C, H, W)`.
        show: from an RGB picture to the part of it that the model sees, of the input's size.
        independent: whether the classes exclude each other (softmax) or not (sigmoid).
    """

    name: str
    model: nn.Module
    classes: Sequence[str]
    prepare: Callable[[Image.Image], Tensor]
    show: Callable[[Image.Image], Image.Image]
    independent: bool

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of every class: `(N, classes)` as the logits."""
        return logits.sigmoid() if self.independent else logits.softmax(1)

    def class_index(self, target: str) -> int:
        """The class that `target` names: a number, or a name as in `classes` (any case)."""
        if target.lstrip("-").isdigit():
            if not 0 <= int(target) < len(self.classes):
                raise ValueError(f"target: expected a class from 0 to {len(self.classes) - 1}, found {target}")
            return int(target)
        matches = [number for number, name in enumerate(self.classes) if name.lower() == target.lower()]
        if not matches:
            close = [name for name in self.classes if target.lower() in name.lower()][:5]
            hint = f" (did you mean {', '.join(close)}?)" if close else f" (among {', '.join(self.classes[:5])}, ...)"
            raise ValueError(f"target: expected a class of {self.name}, found {target!r}{hint}")
        return matches[0]


def load_classifier(name: str = BUNDLED, weights: Path | None = None) -> Classifier:
    """The classifier `name`: the bundled one, or any classification model of torchvision.

    Args:
        name: `"shapes"`, or a name that `torchvision.models.list_models` knows.
        weights: a state dict for a torchvision model, as `.safetensors`, or as `.pt` or `.pth` read with
            `weights_only=True`. None: torchvision's own pretrained weights, which it downloads.

    Raises:
        ValueError: an unknown name, or weights that do not fit.
        OSError: weights that cannot be read or downloaded.
    """
    if name == BUNDLED:
        if weights is not None:
            raise ValueError("weights: expected none for the bundled model, found a file; name its model with --model")
        return Classifier(name, load_shapes_vgg(), CLASSES, preprocess, _show_scene, independent=True)
    if name not in torchvision_names():
        names = ", ".join(torchvision_names())
        raise ValueError(f"model: expected {BUNDLED!r} or one of torchvision's ({names}), found {name!r}")
    return _torchvision_classifier(name, weights)


def torchvision_names() -> list[str]:
    """The classification models of torchvision."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def usable_device(name: str) -> torch.device:
    """The device of the option `--device`.

    Raises:
        ValueError: torch cannot use it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: expected a device that torch can use, found {name!r} ({error})") from error
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
        model = _model_for(name, read_state(weights), weights)
    count = len(next(reversed(model.state_dict().values())))  # the bias of the last layer
    categories = published.meta["categories"]
    classes = categories if len(categories) == count else [f"class {number}" for number in range(count)]
    preset = published.transforms()
    prepare, show = partial(_preset_input, preset), partial(_preset_crop, preset)
    return Classifier(name, model.eval(), classes, prepare, show, independent=False)


def _preset_input(preset: Any, picture: Image.Image) -> Tensor:
    """What torchvision's own preprocessing makes of the picture, whatever its interpolation."""
    inputs: Tensor = preset(resizable_rgb(picture, *preset.resize_size, *preset.crop_size))
    return inputs[None]


def _preset_crop(preset: Any, picture: Image.Image) -> Image.Image:
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    return shown_crop(picture, resize=resize, crop=crop, interpolation=preset.interpolation)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, in float32. A `.pt` file is read with `weights_only=True`."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: expected a file, found none at {path}")
    try:
        read: Any = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        raise ValueError(f"weights: expected a state dict in {path}, found {str(error).splitlines()[0]}") from error
    state = read.get("state_dict", read) if isinstance(read, dict) else read
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: expected a state dict of tensors in {path}, found {type(state).__name__}")
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _read_pickle(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _model_for(name: str, state: dict[str, Tensor], path: Path) -> nn.Module:
    with torch.device("meta"):
        last = next(reversed(torchvision.models.get_model(name, weights=None).state_dict()))
    if last not in state:
        raise ValueError(f"weights: expected weights of {name} in {path}, found none for {last}")
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=len(state[last]))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"weights: expected weights of {name} in {path}, found {first[:200]}") from error
    return model
