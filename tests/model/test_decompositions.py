"""Attention and layer normalization, which autograd gets wrong in the third order, from elementary operations."""

from __future__ import annotations

from _asserts import alike, left_as_it_was
from networks import Tokens, images
from reference import stencil_map

from captum_sgcampp import LayerGradCamPlusPlus

TARGET = 3


def test_attention_and_layer_normalisation_are_right() -> None:
    model, x = Tokens(), images(1, size=5).double()
    with left_as_it_was(model):
        found = LayerGradCamPlusPlus(model, model.layer).attribute(x, TARGET, derivatives="exact")
    assert alike(found[0], stencil_map(model.head, model.layer, x, TARGET, "exp", step=0.01))
