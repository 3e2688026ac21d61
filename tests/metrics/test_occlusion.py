"""The occlusion map, against covering one window after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import ConvNet, images

from captum_sgcampp.metrics import occlusion_map


def test_agrees_with_covering_one_window_after_the_other() -> None:
    model, inputs, target = ConvNet(), images(2), torch.tensor([1, 3])
    total, count = torch.zeros(2, 8, 8), torch.zeros(8, 8)
    rows = torch.arange(2)
    for top in (0, 2, 4):
        for left in (0, 2, 4):
            covered = inputs.clone()
            covered[:, :, top : top + 4, left : left + 4] = 0.5
            drop = (model(inputs) - model(covered))[rows, target].detach()
            total[:, top : top + 4, left : left + 4] += drop[:, None, None]
            count[top : top + 4, left : left + 4] += 1
    found = occlusion_map(model, inputs, target, window=4, stride=2, baseline=0.5, batch_size=5)
    assert torch.allclose(found, total / count, atol=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize("keywords", [{"window": 9, "stride": 2}, {"window": 2, "stride": 3}, {"window": 0}])
def test_windows_that_do_not_fit_are_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^window"):
        occlusion_map(ConvNet(), images(), 1, **keywords)
