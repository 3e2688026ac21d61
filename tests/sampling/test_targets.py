"""Every format of targets, and scores with more dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from _asserts import close
from calls import smooth
from networks import ConvNet, images

from captum_sgcampp import LayerGradCamPlusPlus


@pytest.mark.parametrize(
    "target",
    [
        2,
        torch.tensor(2),
        torch.tensor([2]),
        [2, 2],
        torch.tensor([2, 2]),
        (2,),
        [(2,), (2,)],
        -3,
        [-3, -3],
        np.array([2, 2]),
        np.array(2),
        np.array([2, -3], np.int32),
        np.uint8([2, 2]),
    ],
)
def test_every_target_format_of_captum(target: Any) -> None:
    model = ConvNet()
    wanted = LayerGradCamPlusPlus(lambda x: model(x)[:, 2], model.relu2).attribute(images())
    assert torch.equal(LayerGradCamPlusPlus(model, model.relu2).attribute(images(), target), wanted)
    noisy = smooth(lambda x: model(x)[:, 2:3], model.relu2, images(), None)
    assert torch.equal(smooth(model, model.relu2, images(), target), noisy)


@pytest.mark.parametrize("score", ["exp", "softmax"])
@pytest.mark.parametrize("target", [(2, 1), [(2, 1), (2, 1)]])
def test_outputs_of_more_dimensions(target: Any, score: str) -> None:
    model = ConvNet()
    found = smooth(lambda x: torch.stack([y := model(x), 3 * y], 2), model.relu2, images(), target, score=score)
    wanted = smooth(lambda x: 3 * model(x), model.relu2, images(), 2, score=score)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("score", ["exp", "softmax", "sigmoid"])
def test_each_example_has_its_own_target(score: str) -> None:
    model, x = ConvNet().double(), images().double()
    both = smooth(model, model.relu2, x, [0, 3], score=score)
    alone = [smooth(model, model.relu2, x[i : i + 1], t, score=score) for i, t in enumerate([0, 3])]
    assert close(both, torch.cat(alone), 1e-9)
