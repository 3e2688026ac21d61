"""What speaks for a class rather than for others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from _asserts import Mistake, is_named
from networks import ConvNet, Heads, images
from torch import Tensor

from captum_sgcampp import LayerSmoothGradCamPlusPlus
from captum_sgcampp.scores import Contrast, LogOdds


def test_contrast_is_the_difference_of_two_scores() -> None:
    model, x = Heads("scores"), images(3)
    scores = model(x)
    assert torch.allclose(Contrast(model, 2)(x), scores - scores[:, 2:3])
    others = torch.tensor([4, 0, -2])
    assert torch.allclose(Contrast(model)(x, others), scores - scores[[0, 1, 2], [4, 0, 3]][:, None])


def log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def log_odds(row: Sequence[float], classes: Sequence[int]) -> float:
    """By the definition, in float64."""
    inside = [value for number, value in enumerate(row) if number in classes]
    return log_sum(inside) - log_sum([value for number, value in enumerate(row) if number not in classes])


def rows_of_size(size: float) -> Tensor:
    """Logits with ties, clear winners and near ties at that size, (6, 7)."""
    rows = size * torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    rows[1] = size
    rows[2, 3], rows[3, 0] = 2 * size, rows[3, 1:].max() + 1e-3
    rows[4, :2] = rows[4].max() + 1
    return rows


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3, 1e4])
def test_log_odds_are_right_to_rounding_in_float32(size: float) -> None:
    rows = rows_of_size(size)
    wanted = torch.tensor([[log_odds(row, [c]) for c in range(7)] for row in rows.tolist()], dtype=torch.float64)
    assert torch.allclose(LogOdds(torch.nn.Identity())(rows).double(), wanted, rtol=1e-6, atol=1e-6)
    together = torch.tensor([log_odds(row, [1, 4, 6]) for row in rows.tolist()], dtype=torch.float64)
    assert torch.allclose(LogOdds(torch.nn.Identity(), [1, 4, -1])(rows).double(), together, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_gradients_of_log_odds_are_those_of_the_definition(size: float) -> None:
    """d/dS_c = 1, d/dS_j = -exp(S_j) / sum_{i != c} exp(S_i)."""
    rows = rows_of_size(size).requires_grad_()
    for c in range(7):
        (found,) = torch.autograd.grad(LogOdds(torch.nn.Identity())(rows)[:, c].sum(), rows)
        others = rows.detach().double()
        others[:, c] = -math.inf
        wanted = -others.softmax(1)
        wanted[:, c] = 1
        assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-6)


def test_log_odds_of_two_classes_are_the_difference_and_of_all_the_logit_of_the_softmax() -> None:
    two = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(LogOdds(torch.nn.Identity())(two), two - two.flip(1), atol=1e-6)
    x = images(3)
    assert torch.allclose(LogOdds(ConvNet())(x), torch.logit(ConvNet()(x).softmax(1)), rtol=1e-5)
    assert torch.allclose(LogOdds(ConvNet(), [2])(x), LogOdds(ConvNet())(x)[:, 2])


def test_log_odds_are_explained_as_the_function_that_they_are() -> None:
    """The same map as from a function that is written down by hand."""
    net = ConvNet().double()

    def by_hand(x: Tensor) -> Tensor:
        z = net(x)
        return z[:, 2] - z[:, [0, 1, 3, 4]].exp().sum(1).log()

    arguments = {"nt_samples": 3, "stdevs": 0.5}
    maps = [
        LayerSmoothGradCamPlusPlus(forward, net.relu1).attribute(
            images().double(), target, generator=torch.Generator().manual_seed(0), **arguments
        )
        for forward, target in [(by_hand, None), (LogOdds(net), 2), (LogOdds(net, [2]), None)]
    ]
    assert maps[0].any() and all(torch.allclose(found, maps[0], rtol=1e-9) for found in maps[1:])


MISTAKES: list[Mistake] = [
    (lambda: Contrast(Heads("scores"))(images()), "additional_forward_args"),
    (lambda: Contrast(Heads("scores"), 5)(images()), "other"),
    (lambda: Contrast(Heads("scores"), 1.0), "other"),  # type: ignore[arg-type]
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1.0, 2.0])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1, 2, 3])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([[1, 2]])), "other"),
    (lambda: Contrast(Heads("pixels"), 1)(images()), "model"),
    (lambda: LogOdds(Heads("pixels"))(images()), "model"),
    (lambda: LogOdds(lambda x: x[:, :1, 0, 0])(images()), "model"),
    (lambda: LogOdds(ConvNet(), 3), "classes"),  # type: ignore[arg-type]
    (lambda: LogOdds(ConvNet(), []), "classes"),
    (lambda: LogOdds(ConvNet(), [1.0]), "classes"),  # type: ignore[list-item]
    (lambda: LogOdds(ConvNet(), "12"), "classes"),  # type: ignore[arg-type]
    (lambda: LogOdds(ConvNet(), [1, 5])(images()), "classes"),
    (lambda: LogOdds(ConvNet(), [1, -4])(images()), "classes"),
    (lambda: LogOdds(ConvNet(), range(5))(images()), "classes"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
