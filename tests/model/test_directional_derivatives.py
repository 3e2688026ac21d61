"""Second and third derivatives along entries are those of finite differences, operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from calls import seeded
from networks import tokens
from reference import stencil_derivatives
from torch import Tensor, nn

from captum_sgcampp.model.decompositions import elementary_operations
from captum_sgcampp.model.directional_derivatives import along_entries

WIDE = {"dtype": torch.float64}

mha = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()

lstm, gru = nn.LSTM(4, 3, batch_first=True).double(), nn.GRU(4, 3, batch_first=True).double()

normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3).double())

batch_norm = nn.BatchNorm2d(4, momentum=None).double()
batch_norm(torch.randn(9, 4, 3, 3, **WIDE))
batch_norm.eval()

running = nn.InstanceNorm2d(4, affine=True, track_running_stats=True).double().eval()

HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: F.relu(z) ** 3,
    "leaky_relu": lambda z: F.leaky_relu(z) ** 3,
    "prelu": lambda z: F.prelu(z, torch.full((4,), 0.2, **WIDE)) ** 3,
    "hardswish": F.hardswish,
    "hardsigmoid": lambda z: F.hardsigmoid(z).cos(),
    "mish": F.mish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "elu": F.elu,
    "celu": F.celu,
    "softplus": F.softplus,
    "softmax": lambda z: z.softmax(1),
    "local response norm": lambda z: F.local_response_norm(z, 3, alpha=1.0),
    "layer norm": lambda z: F.layer_norm(z.movedim(1, -1), (4,), torch.arange(4, **WIDE), torch.ones(4, **WIDE)),
    "layer norm of all": lambda z: torch.layer_norm(z, z.shape[1:]),
    "rms norm": lambda z: F.rms_norm(z, z.shape[1:]),
    "group norm": lambda z: F.group_norm(z, 2, torch.arange(4, **WIDE)),
    "instance norm": lambda z: F.instance_norm(z, weight=torch.arange(4, **WIDE)),
    "instance norm with running statistics": lambda z: running(z) ** 3,
    "batch norm": lambda z: batch_norm(z) ** 3,
    "average pooling": lambda z: F.avg_pool2d(z**3, 2),
    "adaptive average pooling": lambda z: F.adaptive_avg_pool2d(z**3, (2, 3)),
    "max pooling": lambda z: F.max_pool2d(z, 2) ** 3,
    "bilinear": lambda z: F.interpolate(z, scale_factor=2, mode="bilinear") ** 3,
    "index": lambda z: z[:, [0, 2, 2]] ** 3,
    "weight norm": lambda z: normed(z) ** 3,
    "einsum": lambda z: torch.einsum("bchw,bdhw->bcd", z, z),
    "cumsum": lambda z: z.cumsum(1) ** 3,
    "norm": lambda z: z.norm(dim=1),
    "normalize": lambda z: F.normalize(z, dim=1),
    "in place": lambda z: F.silu(z.clone().mul_(z), inplace=True),
    "lstm": lambda z: lstm(tokens(z))[0],
    "gru": lambda z: gru(tokens(z))[0],
    "attention": lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True),
    "multi-head attention": lambda z: mha(*[tokens(z)] * 3, need_weights=False)[0],
    "multi-head attention with weights": lambda z: mha(*[tokens(z)] * 3)[0],
}


@pytest.mark.parametrize("name", HEADS)
def test_derivatives_of_operations_are_those_of_finite_differences(name: str) -> None:
    generator = seeded(1)
    a = torch.randn(4, 6, 6, generator=generator, **WIDE)
    a = a.clamp(-2.3, 2.3) + 0.3 * a.sign()  # away from the kinks at 0 and 3
    entries = torch.randperm(a.numel(), generator=generator)[:5]

    def s(z: Tensor) -> Tensor:
        values = HEADS[name](z).flatten(1)
        return values @ torch.linspace(-1, 2, values.shape[1], **WIDE).cos()

    rows = a.repeat(3, 1, 1, 1).requires_grad_()
    with elementary_operations():
        (first,) = torch.autograd.grad(s(rows.clone()).sum(), rows, create_graph=True)
        second, third = along_entries(first, rows, entries, torch.tensor(2.0, **WIDE))
    for entry in entries.tolist():
        place = (entry // 36, entry // 6 % 6, entry % 6)
        found = [float(first.detach()[0][place]), float(second[place]) / 4, float(third[place]) / 8]
        close = [stencil_derivatives(s, a, place, step) for step in (0.05, 0.02, 0.01)]
        size = max(map(abs, found))
        for p in range(3):
            assert min(abs(one[p] - found[p]) for one in close) <= 1e-4 * abs(found[p]) + 1e-5 * size + 1e-7
