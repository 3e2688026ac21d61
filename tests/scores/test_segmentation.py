"""Scores of segmentation networks over a region."""

from __future__ import annotations

import pytest
import torch
from _asserts import Mistake, is_named
from networks import Heads, images

from captum_sgcampp.scores import RegionScores, predicted_region


def test_region_scores_are_means_or_sums_over_the_pixels_of_the_region() -> None:
    model, x = Heads("pixels"), images(2)
    region = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]]).bool()
    scores = model(x)
    wanted = torch.stack([scores[0][:, region[0]].sum(1), scores[1][:, region[1]].sum(1)])
    assert torch.allclose(RegionScores(model, reduction="sum")(x, region), wanted)
    assert torch.allclose(RegionScores(model)(x, region), wanted / torch.tensor([[3.0], [1.0]]))
    assert torch.allclose(RegionScores(model, region[0])(x)[1], scores[1][:, region[0]].mean(1))
    assert predicted_region(scores, [1, 2]).tolist() == [
        (scores[0].argmax(0) == 1).tolist(),
        (scores[1].argmax(0) == 2).tolist(),
    ]


MISTAKES: list[Mistake] = [
    (lambda: RegionScores(Heads("pixels"), reduction="max"), "reduction"),  # type: ignore[arg-type]
    (lambda: RegionScores(Heads("pixels"), [1, 2]), "region"),  # type: ignore[arg-type]
    (lambda: RegionScores(Heads("pixels"), torch.ones(2, 3))(images()), "region"),
    (lambda: RegionScores(Heads("pixels"), torch.ones(3, 3).bool())(images()), "region"),
    (lambda: RegionScores(Heads("pixels"))(images(), torch.ones(2, 3).bool()), "region"),
    (lambda: RegionScores(Heads("pixels"))(images(), torch.zeros(2, 2, 3).bool()), "region"),
    (lambda: RegionScores(Heads("scores"), torch.ones(2, 3).bool())(images()), "model"),
    (lambda: predicted_region(torch.ones(2, 5), 1), "target"),
    (lambda: predicted_region(torch.ones(2, 5, 3, 3), [1, 2, 3]), "target"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
