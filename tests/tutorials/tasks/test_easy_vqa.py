"""The measurement of the easy-VQA network: what lies on the shape, and maps that are the papers'."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import received_rows, smooth
from reference import reference_map, relative_error
from tasks.assets import VARIABLE, load_network
from tasks.easy_vqa import measure, samples
from torch import Tensor, nn


def test_the_shape_is_what_has_not_the_background_color() -> None:
    picture = np.full((64, 64, 3), (240, 250, 235), np.uint8)
    picture[10:20, 30:50] = (0, 0, 255)
    picture[40, 40] = (200, 210, 200)  # a soft edge is background
    mask = samples.shape_mask(picture)
    assert mask[10:20, 30:50].all() and int(mask.sum()) == 200


class Asked(nn.Module):
    """The network with its question."""

    def __init__(self, network: nn.Module, bag: Tensor) -> None:
        super().__init__()
        self.network, self.bag = network, bag

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, self.bag.expand(len(images), -1))


@pytest.fixture
def networks(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))


@pytest.mark.usefixtures("networks")
def test_shares_are_those_of_each_picture() -> None:
    asked = samples.load_questions()[:2]
    mask = samples.shape_mask(samples.load_picture(asked[0].picture)).float()
    found = defaultdict(lambda: defaultdict(list))
    measure._add_shares(found, "conv1", "all on it", asked, torch.stack([mask, mask])[:, None])
    measure._add_shares(found, "conv1", "everywhere", asked, torch.ones(2, 1, 64, 64))
    assert found["conv1", "all on it", "share"] == {asked[0].picture: [1.0, 1.0]}
    assert found["conv1", "everywhere", "share"][asked[0].picture][0] == pytest.approx(float(mask.mean()))


@pytest.mark.slow
@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("layer", measure.LAYERS)
def test_maps_with_noise_on_the_picture_alone_are_the_papers(layer: str) -> None:
    bound = 1e-8 if layer == "conv1" else 1e-9  # rounding grows near a pole, and conv1 has 32,768 positions
    network = load_network("easy_vqa").double()
    one = samples.load_questions()[0]
    image, bag = (
        samples.inputs([one.picture]).double(),
        network.bow(one.question)[None].double(),
    )
    asked, target = Asked(network, bag), network.answers.index(one.answer)
    module = network.get_submodule(layer)
    found, rows = received_rows(asked, lambda: smooth(asked, module, image, target, nt_samples=2))
    copies = [(row[None],) for row in rows[1:]]
    assert torch.equal(rows[:1], image) and not torch.equal(rows[1], rows[2])
    assert relative_error(found[0], reference_map(asked, module, (image,), copies, target)) <= bound
    two_inputs = smooth(network, module, image, target, nt_samples=2, additional_forward_args=bag)
    assert torch.equal(two_inputs, found)
