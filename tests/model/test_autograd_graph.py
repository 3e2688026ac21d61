"""What is read off the graph of the network after the layer: piecewise linear, or global average pooling first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import SmallNet, images
from reference import relative_error
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.model.autograd_graph import Graph
from captum_sgcampp.model.directional_derivatives import along_entries

TARGET = 3
WIDE = {"dtype": torch.float64}


class Pooled(SmallNet):
    """Behind the layer, a mean over all positions comes first."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.SiLU())
        self.pool, self.out = pool, nn.Linear(3, 5).double()

    def head(self, a: Tensor) -> Tensor:
        return 5 * self.out(self.act(self.pool(a).flatten(1)))


MEANS = [lambda a: a.mean((2, 3)), lambda a: a.mean((-1, -2), keepdim=True), nn.AdaptiveAvgPool2d(1)]
NO_MEANS = [
    lambda a: a.mean((1, 3))[:, :3],
    lambda a: a.mean(3)[:, :, 0],
    lambda a: a.mean((2, 3)) + 0.1 * a[:, :, 0, 0],
    lambda a: 0.1 * a[:, :, 0, 0] + a.mean((2, 3)),
    lambda a: a.square().mean((2, 3)),
]


@pytest.mark.parametrize("pool", MEANS + NO_MEANS, ids=range(len(MEANS + NO_MEANS)))
def test_one_entry_stands_for_a_feature_map_only_in_front_of_global_average_pooling(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = Pooled(pool), images(1, size=6).double()
    pooled: list[bool] = []
    rule = Graph.is_pooled
    monkeypatch.setattr(Graph, "is_pooled", lambda self, dims: pooled.append(rule(self, dims)) or pooled[-1])
    method = LayerGradCamPlusPlus(model, model.layer)
    found = method.attribute(x, TARGET, derivatives="exact", neurons=(slice(0, 3), slice(1, 4)))
    monkeypatch.setattr(Graph, "is_pooled", lambda self, dims: False)
    slowly = method.attribute(x, TARGET, derivatives="exact", neurons=(slice(0, 3), slice(1, 4)))
    assert pooled and set(pooled) == {pool in MEANS}
    assert relative_error(found, slowly) < 1e-9


batch_norm = nn.BatchNorm2d(4, momentum=None).double()
batch_norm(torch.randn(9, 4, 3, 3, **WIDE))
batch_norm.eval()

LINEAR = [
    lambda z: F.max_pool2d(F.relu(z * 2 + 1), 2),
    lambda z: torch.cat([F.hardtanh(z), z[:, :1] / 3], 1),
    lambda z: batch_norm(F.leaky_relu(z, inplace=False)),
    lambda z: F.interpolate(F.pad(z, (1, 1)), scale_factor=2, mode="bilinear") @ torch.ones(16, 3, **WIDE),
]
NOT_LINEAR = [
    lambda z: z * z,
    lambda z: z / (1 + z.abs()),
    lambda z: 1 / z,
    lambda z: z @ z,
    lambda z: F.conv2d(z, z[:, :, :2, :2]),
    lambda z: F.hardswish(z),
    lambda z: F.relu(z).square(),
    lambda z: F.batch_norm(z, None, None, training=True),
    lambda z: F.prelu(z[:, :1], z[0, 0, 0, :1]),
    lambda z: torch.addmm(z[0, 0], z[0, 0], z[0, 1])[None],
]


@pytest.mark.parametrize("head", LINEAR + NOT_LINEAR, ids=range(len(LINEAR + NOT_LINEAR)))
def test_piecewise_linear_heads_are_told_from_others(head: Callable[[Tensor], Tensor]) -> None:
    z = torch.randn(1, 4, 6, 6, **WIDE).requires_grad_()
    score = head(z).flatten(1).sum(1)
    assert Graph(score, z).is_piecewise_linear() == (head in LINEAR)
    if head in LINEAR:  # and indeed
        (first,) = torch.autograd.grad(score, z, create_graph=True)
        second, third = along_entries(first, z, torch.arange(20), torch.tensor(1.0, **WIDE))
        assert not second.any() and not third.any()
