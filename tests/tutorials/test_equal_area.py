"""What stands in for the pixels that are left out, and the order of a map without its ReLU."""

from __future__ import annotations

import equal_area
import torch
from networks import PooledNet
from torch import Tensor, nn


class Counting(nn.Module):
    """Two classes, the first with the logit of the mean pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)


def test_a_quarter_of_the_pixels_is_kept_and_the_rest_is_filled() -> None:
    x, maps = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    maps[0, 0, :2] = 1
    half = torch.tensor(1.0).sigmoid()
    assert torch.isclose(equal_area.kept(Counting().eval(), x, 0, maps, "mean"), torch.ones(1, dtype=torch.float64))
    found = equal_area.kept(Counting().eval(), x, 0, maps, "zero")
    assert torch.isclose(found, (torch.tensor(0.25).sigmoid() / half).double())


def test_every_method_has_maps_of_both_signs() -> None:
    model = PooledNet().eval()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layer = next(module for module in model.modules() if isinstance(module, nn.ReLU))
    for name, explain in equal_area.METHODS.items():
        maps = torch.cat([explain(model, layer, x, target, 0) for target in range(4)])
        assert maps.dim() == 4 and maps.shape[1] == 1
        assert (maps.min() < 0) == (name != "Grad-CAM++"), name


def test_the_table_has_a_column_per_fill_and_order() -> None:
    keys = [(name, fill, relu) for name in equal_area.METHODS for fill in equal_area.FILLS for relu in (True, False)]
    lines = equal_area.table([dict.fromkeys(keys, 0.5)] * 3).splitlines()
    assert len(lines) == 2 + len(equal_area.METHODS)
    assert lines[2].count("0.500 [0.500, 0.500]") == 6 and "blurred, before the ReLU" in lines[0]
