"""Log-probabilities of words and captions."""

from __future__ import annotations

import pytest
import torch
from _asserts import Mistake, is_named
from networks import Heads, images
from torch import Tensor

from captum_sgcampp.scores import CaptionLogProbability, WordLogProbabilities


def test_words_are_scored_with_the_words_in_front_of_them_given() -> None:
    model, x = Heads("words"), images(2)
    tokens = torch.tensor([[0, 3, 1, 4], [0, 2, 4, 4]])
    words = WordLogProbabilities(model)(x, tokens)
    for example in range(2):
        for place in range(3):
            seen = tokens[example : example + 1, : place + 1]
            probabilities = model(x[example : example + 1], seen)[0, -1].softmax(0)
            assert torch.isclose(words[example, place], probabilities[tokens[example, place + 1]].log())
    assert torch.allclose(CaptionLogProbability(model)(x, tokens), words.sum(1))
    unpadded = CaptionLogProbability(model, padding=4)(x, tokens)
    assert torch.allclose(unpadded, torch.stack([words[0, :2].sum(), words[1, 0]]))


def test_padding_need_be_no_token_of_the_vocabulary() -> None:
    def captioner(x: Tensor, tokens: Tensor) -> Tensor:  # what follows the padding does not count
        return Heads("words")(x, tokens.clamp_min(0))

    x, inside = images(2), torch.tensor([[0, 3, 4, 4], [0, 2, 1, 4]])
    outside = torch.tensor([[0, 3, -100, -100], [0, 2, 1, -100]])
    found = CaptionLogProbability(captioner, padding=-100)(x, outside)
    assert torch.allclose(found, CaptionLogProbability(Heads("words"), padding=4)(x, inside))


MISTAKES: list[Mistake] = [
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.ones(2, 1).long()), "tokens"),
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.ones(2, 3)), "tokens"),
    (lambda: WordLogProbabilities(Heads("words"))(images(), torch.tensor([[0, 1], [0, 5]])), "tokens"),
    (lambda: CaptionLogProbability(Heads("words"))(images(), torch.tensor([[0, 1], [0, -100]])), "tokens"),
    (lambda: CaptionLogProbability(Heads("words"), 4)(images(), torch.ones(2, 3)), "tokens"),
    (lambda: WordLogProbabilities(lambda x, tokens: x)(images(), torch.ones(2, 3).long()), "model|tokens"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_named(number: int) -> None:
    is_named(MISTAKES[number])
