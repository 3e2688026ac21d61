"""The derivatives of exp, sigmoid and softmax of the score, in closed form."""

from __future__ import annotations

import pytest
import torch
from networks import ConvNet, images
from torch import Tensor

from captum_sgcampp.functional.moments import PowerSums
from captum_sgcampp.functional.score_derivatives import (
    exp_derivatives,
    sigmoid_derivatives,
    softmax_derivatives,
    softmax_margin,
)


def along_one_entry(model: ConvNet, x: Tensor, entry: tuple[int, ...], link: str, target: int) -> list[float]:
    """phi', phi'', phi''' at 0 of phi(t) = Y(A + t e) by repeated automatic differentiation, in float64."""
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach()
    direction = torch.zeros_like(activation)
    direction[entry] = 1
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    hidden = model.pool(activation + t * direction).flatten(1)
    logits = model.fc2(model.relu3(model.fc1(hidden)))[0]
    score = logits[target]
    y = {"exp": score.exp(), "sigmoid": score.sigmoid(), "softmax": logits.softmax(0)[target]}[link]
    found = []
    for _ in range(3):
        (y,) = torch.autograd.grad(y, t, create_graph=True)
        found.append(y.item())
    return found


@pytest.mark.parametrize("link", ["exp", "sigmoid", "softmax"])
def test_closed_forms_are_the_true_derivatives_behind_piecewise_linear_heads(link: str) -> None:
    model, x, target = ConvNet().double(), images(1).double(), 2
    activation = model.relu2(model.conv2(model.relu1(model.conv1(x)))).detach().requires_grad_()
    logits = model.fc2(model.relu3(model.fc1(model.pool(activation).flatten(1))))
    gradients = [torch.autograd.grad(logits[0, j], activation, retain_graph=True)[0] for j in range(5)]
    score = logits[:, target].detach()
    if link == "softmax":
        sums = PowerSums(gradients[target])
        margin = softmax_margin(logits.detach(), torch.tensor([target]))
        for share, g in zip(margin.others.unbind(1), gradients, strict=True):
            sums.add(share, g - gradients[target])
        derivatives = softmax_derivatives(margin, sums)
    else:
        derivatives = {"exp": exp_derivatives, "sigmoid": sigmoid_derivatives}[link](score, gradients[target])
    level, scale = derivatives.log_weight.exp().item(), derivatives.scale.item()
    live = [entry for entry in torch.nonzero(gradients[target]).tolist() if activation[tuple(entry)] > 0][::7]
    assert len(live) > 3
    for entry in map(tuple, live):
        expected = along_one_entry(model, x, entry, link, target)
        found = [level * scale**p * derivatives[1 + p][entry].item() for p in (1, 2, 3)]
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("logit", [-38.0, -5.0, 0.3, 12.0, 38.0])
def test_sigmoid_in_float32_is_right_where_the_textbook_form_is_zero(logit: float) -> None:
    g = torch.tensor([[[0.5, -2.0]]])
    found = sigmoid_derivatives(torch.tensor([logit]), g)
    wide = torch.tensor(logit, dtype=torch.float64)
    s, rest = torch.sigmoid(wide), torch.sigmoid(-wide)
    wanted = (1.0, -torch.tanh(wide / 2), 1 - 6 * s * rest)
    assert found.log_weight.double().exp().item() == pytest.approx((s * rest).item(), rel=3e-6)
    for p, factor in enumerate(wanted, start=1):
        value = found[1 + p].double() * found.scale.double() ** p
        assert torch.allclose(value, factor * g.double() ** p, rtol=3e-6)
