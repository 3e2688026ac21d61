"""How similar embeddings are."""

from __future__ import annotations

import pytest
import torch
from _asserts import Mistake, is_named
from networks import Heads, images

from captum_sgcampp.scores import Similarity


def test_similarity_is_the_cosine_or_the_dot_product() -> None:
    model, x = Heads("scores"), images(2)
    embedding, reference = model(x), torch.randn(2, 5)
    dot = (embedding * reference).sum(1)
    assert torch.allclose(Similarity(model, measure="dot")(x, reference), dot)
    assert torch.allclose(Similarity(model)(x, reference), dot / embedding.norm(dim=1) / reference.norm(dim=1))
    assert torch.allclose(Similarity(model, reference[0], "dot")(x), embedding @ reference[0])


MISTAKES: list[Mistake] = [
    (lambda: Similarity(Heads("scores"), measure="angle"), "measure"),  # type: ignore[arg-type]
    (lambda: Similarity(Heads("scores"), torch.ones(2, 5))(images()), "reference"),
    (lambda: Similarity(Heads("scores"))(images(), torch.ones(5)), "reference"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
