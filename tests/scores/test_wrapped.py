"""What belongs to an example goes with it, and the model stays visible through a wrapper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _asserts import left_as_it_was
from networks import ConvNet, Heads, images
from torch import Tensor

from captum_sgcampp import GuidedGradCamPlusPlus, LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.scores import CaptionLogProbability, Contrast, RegionScores, Similarity, WordLogProbabilities


@pytest.mark.parametrize(
    "make, extra, target",
    [
        (lambda: Contrast(Heads("scores")), torch.tensor([4, 0]), 1),
        (lambda: Similarity(Heads("scores")), torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), None),
        (lambda: RegionScores(Heads("pixels")), torch.tensor([[[1, 0, 1]] * 2, [[0, 1, 0]] * 2]).bool(), 1),
        (lambda: WordLogProbabilities(Heads("words")), torch.tensor([[0, 3, 1], [0, 2, 4]]), 1),
        (lambda: CaptionLogProbability(Heads("words"), 4), torch.tensor([[0, 3, 1], [0, 2, 4]]), None),
    ],
    ids=["contrast", "similarity", "region", "words", "caption"],
)
def test_what_belongs_to_an_example_goes_with_it_into_the_noisy_copies(make: Any, extra: Tensor, target: Any) -> None:
    wrapper, x = make().eval(), images(2)
    layer = next(m for m in wrapper.modules() if isinstance(m, ConvNet)).relu1

    def explain(x: Tensor, extra: Tensor) -> Tensor:
        arguments: dict[str, Any] = {"nt_samples": 3, "nt_samples_batch_size": 2, "stdevs": 0.3}
        seed = torch.Generator().manual_seed(0)
        return LayerSmoothGradCamPlusPlus(wrapper, layer).attribute(x, target, extra, generator=seed, **arguments)

    with left_as_it_was(wrapper):
        together = explain(x, extra)
        alone = torch.cat([explain(x[i : i + 1], extra[i : i + 1]) for i in range(2)])
        swapped = explain(x, extra.flip(0))
    assert together.any() and torch.allclose(together, alone, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(together, swapped, rtol=0.01)


def test_guided_methods_find_the_models_relus_in_a_wrapper() -> None:
    model, x = ConvNet(), images()
    found = GuidedGradCamPlusPlus(Contrast(model, 2), model.relu2).attribute(x, 1)
    maps = LayerGradCamPlusPlus(Contrast(model, 2), model.relu2).attribute(x, 1, relu_attributions=True)
    x = x.clone().requires_grad_()
    scores = model(x)
    (plain,) = torch.autograd.grad((scores[:, 1] - scores[:, 2]).sum(), x)
    assert found.any() and not torch.allclose(found, plain * maps, rtol=0.01)
