"""The error of the closed form is that of finite differences, and 0 where the network after the layer is linear."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from calls import seeded
from networks import ConvNet, SmallNet, TokensToFeatures, images
from reference import relative_error, stencil_derivatives
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

TARGET = 3
WIDE = {"dtype": torch.float64}


def relative_score(model: SmallNet, score: Tensor, a: Tensor) -> Tensor:
    """exp(S) divided by its value at the clean example."""
    return (model.head(a)[:, TARGET] - score).exp()


def test_error_of_the_closed_form_is_that_of_all_entries() -> None:
    """Against the true derivatives by finite differences, at all entries with a positive first derivative."""
    model, x = SmallNet(nn.SiLU()), images(2, size=6).double()
    method = LayerGradCamPlusPlus(model, model.layer)
    found = method.closed_form_error(x, TARGET, entries=1000)
    for number in range(2):
        a = model.layer(x[number : number + 1]).detach()[0].requires_grad_()
        (g,) = torch.autograd.grad(model.head(a[None])[0, TARGET], a)
        score = model.head(a[None]).detach()[0, TARGET]
        places = [tuple(place) for place in (g > 0).nonzero().tolist()]
        relative = partial(relative_score, model, score)
        true = torch.tensor([stencil_derivatives(relative, a.detach(), place, 0.05) for place in places], **WIDE)
        closed = torch.stack([g[place] ** torch.arange(1, 4) for place in places]).detach()
        total = torch.stack([a[place[0]].sum() for place in places]).detach()
        terms = [d[:, 1] / (2 * d[:, 1] + d[:, 2] * total) * d[:, 0] for d in (true, closed)]
        for p, error in enumerate((found.d1, found.d2, found.d3)):
            assert error[number].item() == pytest.approx(relative_error(closed[:, p], true[:, p]), rel=1e-4, abs=1e-9)
        assert found.terms[number].item() == pytest.approx(relative_error(terms[1], terms[0]), rel=1e-4)
        assert found.entries[number] == len(places)


@pytest.mark.parametrize("score", ["exp", "softmax"])
def test_error_of_the_closed_form_is_0_behind_piecewise_linear_heads(score: str, no_shortcuts: None) -> None:
    model, x = ConvNet().double(), images(2).double()
    method = LayerSmoothGradCamPlusPlus(model, model.relu1)
    found = method.closed_form_error(x, [1, 3], entries=10, score=score, generator=seeded())
    assert found.entries.tolist() == [10, 10]
    assert all((error < 1e-9).all() for error in found[:-1])


@pytest.mark.parametrize(
    "arguments, names, error",
    [
        ({"entries": 0}, "entries", ValueError),
        ({"score": "identity"}, "score", ValueError),
        ({"generator": 3}, "generator", TypeError),
    ],
)
def test_arguments_of_the_error_of_the_closed_form(arguments: dict[str, Any], names: str, error: Any) -> None:
    model = ConvNet()
    with pytest.raises(error, match=f"^{names}: expected .*found"):
        LayerGradCamPlusPlus(model, model.relu1).closed_form_error(images(), 1, **arguments)


class NoThirdDerivative(ConvNet):
    """A head with a function of its own, which the exact pass refuses."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * gradient

    def forward(self, x: Tensor) -> Tensor:
        return self.Square.apply(super().forward(x))


def test_closed_form_error_knows_the_rearranged_tokens_and_rewinds_the_generator_after_errors() -> None:
    torch.manual_seed(0)
    net, x = TokensToFeatures().double().eval(), torch.randn(2, 4, 5).double()
    tokens = LayerGradCamPlusPlus(net, net.tokens, reshape_transform=lambda tensor: tensor.transpose(1, 2))
    first = LayerGradCamPlusPlus(net, net.features_first)
    torch.testing.assert_close(tokens.closed_form_error(x, 1, 99).terms, first.closed_form_error(x, 1, 99).terms)
    failing, generator = NoThirdDerivative().double(), seeded(5)
    state = generator.get_state()
    with pytest.raises(RuntimeError, match="derivatives"):
        LayerGradCamPlusPlus(failing, failing.relu1).closed_form_error(images(2).double(), 1, 4, generator)
    assert torch.equal(generator.get_state(), state)
