"""Gradients with respect to the layer: every use counts, several targets are taken together."""

from __future__ import annotations

import pytest
import torch
from _asserts import close
from calls import smooth
from networks import ConvNet, images, tail
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_every_use_of_the_layers_input_counts(frozen: bool, first: bool) -> None:
    """A residual block uses its input twice: explaining the input of one branch explains the tensor, as in Captum."""
    net = ConvNet()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        one, two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(x: Tensor) -> Tensor:
        h = net.relu1(net.conv1(x))
        parts = [one(h), two(h)] if first else [two(h), one(h)]
        return tail(net, torch.relu(parts[0] + parts[1]))

    for module in (net, one, two):
        module.requires_grad_(not frozen)
    wanted = smooth(forward, net.relu1, images())
    assert close(smooth(forward, one, images(), attribute_to_layer_input=True), wanted)


def test_backward_hooks_of_the_user_on_the_layer_get_gradients(expected: Tensor) -> None:
    model = ConvNet()
    model.relu1.register_full_backward_hook(lambda module, grad_in, grad_out: (grad_in[0].clamp(-9, 9),))
    assert close(smooth(model, model.relu1, images()), expected)


def test_backward_hooks_of_the_model_see_gradients_of_one_target_at_a_time() -> None:
    net, seen = ConvNet().eval(), []
    net.fc1.register_full_backward_hook(lambda module, into, out: seen.append(tuple(out[0].shape)))
    LayerGradCamPlusPlus(net, net.relu1).attribute_targets(images(2), [0, 1, 2])
    assert seen == [(2, 16)] * 3
