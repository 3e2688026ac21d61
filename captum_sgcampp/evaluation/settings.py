"""The settings of an evaluation: the given options, the others by the images and the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from captum_sgcampp.evaluation.measures import Settings
from captum_sgcampp.vision.classifiers import Classifier

SCENE_WINDOW, SCENE_STRIDE = 32, 16  # of the bundled network's input of 128 pixels
WINDOW, STRIDE = 64, 32
# Larger blocks of memory go back to the system after each use, which costs more than larger batches save.
CPU_ROWS, ACCELERATOR_ROWS = 4, 32


def suited_settings(
    classifier: Classifier, example: Tensor, kind: str, chosen: tuple[str, ...], options: Mapping[str, Any]
) -> Settings:
    """The settings: the given options, the others by the images, of which one is an example, and the device."""
    small = min(example.shape[2:]) < 2 * WINDOW or kind == "scenes"
    suited: dict[str, Any] = {
        "groups": chosen,
        "link": "sigmoid" if classifier.independent else "softmax",
        "batch_size": CPU_ROWS if example.device.type == "cpu" else ACCELERATOR_ROWS,
        "window": SCENE_WINDOW if small else WINDOW,
        "stride": SCENE_STRIDE if small else STRIDE,
        "grid_size": "auto",
    }
    suited |= {name: value for name, value in options.items() if value is not None}
    if suited["grid_size"] == "auto":
        suited["grid_size"] = _grid_size(classifier.model, example) if "grid" in chosen else "full"
    return Settings(**suited)


def _grid_size(model: nn.Module, example: Tensor) -> str:
    """Whether the model takes images of twice the side. A fully connected head of fixed size does not."""
    try:
        with torch.no_grad():
            model(example.repeat(1, 1, 2, 2))
    except RuntimeError:
        return "half"
    return "full"


def by_option(settings: Settings) -> dict[str, Any]:
    """The settings by the names of their options."""
    options = {f"--{name.replace('_', '-')}": value for name, value in asdict(settings).items()}
    options["--metrics"] = options.pop("--groups")
    return options
