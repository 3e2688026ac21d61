"""The measures give on CUDA what they give on the CPU."""

from __future__ import annotations

import pytest
import torch
from networks import ConvNet, images

from captum_sgcampp import metrics as m

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def measures(device: str) -> list[torch.Tensor]:
    model, x = ConvNet().to(device), images(2).to(device)
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    region = m.boxes_to_regions([[(1, 1, 5, 6)]] * 2, (8, 8))
    return [
        m.class_confidence(model, m.explanation_inputs(x, maps), 1),
        m.deletion_curve(model, x, maps, 1, steps=4),
        m.insertion_curve(model, x, maps, 1, steps=4, baseline="mean"),
        m.occlusion_map(model, x, 1, window=4, stride=2),
        m.spearman(maps, maps.square()),
        m.energy_inside(maps, region),
        m.pointing_game(maps, region, tolerance=1),
        m.localization_score(maps, region, 0.5),
        m.instance_shares(maps, m.cell_masks((8, 8))),
        m.instance_balance(maps, m.cell_masks((8, 8))),
        m.sparseness(maps),
        *m.parameter_randomization(lambda net: net(x), model, order="independent", steps=1).values(),
    ]


def test_cuda_agrees_with_the_cpu() -> None:
    for found, expected in zip(measures("cuda")[:-1], measures("cpu")[:-1], strict=True):
        assert found.device.type == "cuda"
        assert torch.allclose(found.cpu(), expected, atol=1e-3)
