"""Models in training mode are refused where that changes the scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _asserts import left_as_it_was, refused
from calls import METHODS
from networks import ConvNet, images
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus


class Training(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.net, self.module = ConvNet(), module
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.module(x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.Dropout(0.1),
        nn.Dropout2d(0.5),
        nn.RReLU(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_training_mode_is_refused_before_anything_changes(method: Any, module: nn.Module) -> None:
    model = Training(module)
    refused(method, RuntimeError, "forward_func", model=model, layer=model.net.relu1)
    refused(method, RuntimeError, "forward_func", model=model, forward=lambda x: model(x), layer=model.net.relu1)


def test_training_mode_without_such_modules_and_evaluation_mode_with_them_work() -> None:
    harmless = Training(nn.Sequential(nn.Dropout(0.0), nn.InstanceNorm2d(2)))
    with left_as_it_was(harmless):
        LayerGradCamPlusPlus(harmless, harmless.net.relu1).attribute(images(), 1)
    usual = Training(nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))).eval()
    with left_as_it_was(usual):
        LayerSmoothGradCamPlusPlus(usual, usual.net.relu1).attribute(
            images(), 1, nt_samples=2, generator=torch.Generator()
        )
