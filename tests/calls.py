"""Ways in which several test files call the methods."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from captum.attr import GuidedBackprop
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

METHODS = [LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus]


def received_rows(model: nn.Module, explain: Any) -> tuple[Any, Tensor]:
    """What `explain()` returns, and the rows that the model was given meanwhile, in order."""
    rows: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    try:
        return explain(), torch.cat(rows)
    finally:
        handle.remove()


def smooth(model: Any, layer: Any, x: Any, target: Any = 1, **options: Any) -> Any:
    """Smooth Grad-CAM++ with the same noise each time."""
    options = {"nt_samples": 3, "generator": seeded(), **options}
    return LayerSmoothGradCamPlusPlus(model, layer).attribute(x, target, **options)


def guided_backprop(model: nn.Module, *arguments: Any) -> Any:
    """Captum's, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GuidedBackprop(model).attribute(*arguments)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator that gives the same each time."""
    return torch.Generator().manual_seed(seed)
