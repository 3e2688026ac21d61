"""The networks of the tables, for `--model-factory trained_networks.py:load=NAME`.

The environment variable SGCAMPP_ASSETS names the folder with their weights and with the code that builds them: `zoo.py`
and `networks.py`, each with a function `load(name)`.
"""

from __future__ import annotations

import importlib.util
import os
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.images import classifier_input, shown_crop

BUILT_BY = {
    "mobilenet_v2": "zoo",
    "squeezenet1_1": "zoo",
    "googlenet": "networks",
    "gtsrb": "networks",
    "vgg16_brain_mri": "networks",
}
# Side of the input, and what its largest value is, of networks that take the whole picture.
WHOLE_PICTURE = {"gtsrb": (30, 255), "vgg16_brain_mri": (240, 1)}


def assets() -> Path:
    """The folder that SGCAMPP_ASSETS names."""
    folder = os.environ.get("SGCAMPP_ASSETS")
    if folder is None or not Path(folder).is_dir():
        raise FileNotFoundError(f"SGCAMPP_ASSETS: expected a folder of networks and photographs, found {folder!r}")
    return Path(folder)


def load(name: str) -> Classifier:
    """A network with its preprocessing."""
    if name not in BUILT_BY:
        raise ValueError(f"name: expected one of {', '.join(BUILT_BY)}, found {name!r}")
    model = _module(BUILT_BY[name]).load(name).eval()
    prepare, show = classifier_input, shown_crop
    if name in WHOLE_PICTURE:
        side, largest = WHOLE_PICTURE[name]
        prepare, show = partial(_whole_input, side, largest), partial(_whole, side)  # type: ignore[assignment]
    with torch.no_grad():
        count = model(prepare(Image.new("RGB", (64, 64)))).shape[1]
    return Classifier(name, model, [f"class {k}" for k in range(count)], prepare, show, independent=False)


def _module(name: str) -> ModuleType:
    path = assets() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"assets_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _whole(side: int, picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize((side, side))


def _whole_input(side: int, largest: float, picture: Image.Image) -> Tensor:
    pixels: Tensor = pil_to_tensor(_whole(side, picture))
    return pixels[None].float() * (largest / 255)
