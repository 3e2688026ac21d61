"""What speaks against a map is said in a sentence, in the words of the page, and nothing else is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import ConvNet
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import ToTensor

from captum_sgcampp import Explanation, explain
from captum_sgcampp.vision.words import MANY_POLES, advice_on, on_closed_form

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
SMOOTH = "smooth-grad-cam++"


def explained(model: nn.Module, **options: Any) -> Explanation:
    return explain(model, PICTURE, transform=ToTensor(), **{"layer": "relu1", "method": SMOOTH, **options})


class Bent(ConvNet):
    """GELU after the layer."""

    def __init__(self) -> None:
        super().__init__(channels=3)
        self.relu2 = nn.GELU()


def test_a_closed_form_that_is_off_is_told_unless_the_method_needs_none(tmp_path: Path) -> None:
    found = explained(Bent(), method=["grad-cam", "grad-cam++"], layer="relu1")
    assert found.advice == (f"relu1: {on_closed_form()}",)
    assert str(found).splitlines()[-1] == found.advice[0] and "closed_form_error tells" in found.advice[0]
    assert "closed form of Grad-CAM++ is off" in (found.save(tmp_path / "new") / "manifest.json").read_text()
    assert explained(Bent(), method=["grad-cam", "layer-cam"]).advice == ()
    assert explained(Bent(), layer="relu2", method="grad-cam++").advice == ()  # only ReLUs and pooling follow it


def test_many_poles_are_told_and_few_are_not() -> None:
    """Before a ReLU activations have both signs, which make poles."""
    found = explained(ConvNet(channels=3), layer=["conv1", "relu1", "conv2", "relu2"], target=[0, 1, 2])
    drawn = [one for one in found.maps if one.values.any()]
    wanted = {f"{one.layer}: {line}" for one in drawn for line in advice_on(one.statistics, with_relu=True)}
    shares = [one.statistics.pole_weight_share.item() for one in found.maps if one.values.any()]
    assert max(shares) > MANY_POLES > min(shares)
    assert set(found.advice) == wanted and len(found.advice) == len(wanted)
    (poles,) = {line.partition(": ")[2] for line in wanted if "Poles" in line}
    assert poles == (
        "Poles of alpha decide much of the map: choose a layer after a ReLU, or the two-sided method "
        '(method="two-sided-smooth-grad-cam++", in attribute two_sided=True).'
    )


def test_a_layer_after_a_relu_is_advised_only_where_there_is_one() -> None:
    class Without(ConvNet):
        def __init__(self) -> None:
            super().__init__(channels=3)
            self.relu1, self.relu2, self.relu3 = nn.Tanh(), nn.Tanh(), nn.Tanh()

    found = explained(Without(), layer=["conv1", "relu1", "conv2", "relu2"], target=[0, 1, 2])
    (poles,) = {line.partition(": ")[2] for line in found.advice if "Poles" in line}
    assert poles.startswith("Poles of alpha decide much of the map: choose the two-sided method (method=")


def test_a_network_that_allows_no_graph_is_explained_without_this_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaves(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.from_numpy(x.numpy()))

    assert explained(Leaves(channels=3), method="grad-cam++").advice == ()
