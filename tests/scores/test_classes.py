"""What speaks for a class rather than for others."""

from __future__ import annotations

import pytest
import torch
from _asserts import Mistake, is_named
from networks import Heads, images

from captum_sgcampp.scores import Contrast


def test_contrast_is_the_difference_of_two_scores() -> None:
    model, x = Heads("scores"), images(3)
    scores = model(x)
    assert torch.allclose(Contrast(model, 2)(x), scores - scores[:, 2:3])
    others = torch.tensor([4, 0, -2])
    assert torch.allclose(Contrast(model)(x, others), scores - scores[[0, 1, 2], [4, 0, 3]][:, None])


MISTAKES: list[Mistake] = [
    (lambda: Contrast(Heads("scores"))(images()), "additional_forward_args"),
    (lambda: Contrast(Heads("scores"), 5)(images()), "other"),
    (lambda: Contrast(Heads("scores"), 1.0), "other"),  # type: ignore[arg-type]
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1.0, 2.0])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([1, 2, 3])), "other"),
    (lambda: Contrast(Heads("scores"))(images(), torch.tensor([[1, 2]])), "other"),
    (lambda: Contrast(Heads("pixels"), 1)(images()), "model"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
