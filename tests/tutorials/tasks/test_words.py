"""Printed words, their letters' columns, and the maps of a real network that reads them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from calls import received_rows, smooth
from reference import reference_map, relative_error
from tasks.assets import VARIABLE, load_network
from tasks.captions.network import captions, inputs, likeliest, load_captioner
from tasks.captions.scenes import draw_scene
from tasks.words import drawing, measure
from torch import Tensor, nn


@pytest.mark.parametrize("font", drawing.FONTS)
def test_each_letter_is_in_its_columns(font: str) -> None:
    """Alone at its place, a letter has the same ink."""
    word = drawing.draw_word("hat", font)
    ink = (1 - word.image[0]) / 2
    for letter in range(3):
        inside = ink[word.mask(letter)].sum()
        assert inside > 20 and ink[:, :3].sum() < 1e-3
    assert sum(word.mask(letter).int() for letter in range(3)).max() == 1
    assert ink[sum(word.mask(letter).int() for letter in range(3)) == 1].sum() > 0.99 * ink.sum()


def test_repetitions_and_gaps_are_read_as_ctc_does() -> None:
    assert measure._read([0, 7, 7, 0, 7, 9, 9]) == [(1, 7), (4, 7), (5, 9)]


def test_a_map_of_the_letters_columns_has_a_share_of_one() -> None:
    word, found = drawing.draw_word("on"), defaultdict(list)
    exact = torch.stack([word.mask(0), word.mask(1)])[:, None].float()
    measure._add(found, "layer", "exact", word, exact)
    measure._add(found, "layer", "exchanged", word, exact.flip(0))
    measure._add(found, "layer", "nothing", word, 0 * exact)
    assert found["layer", "exact", "share"] == found["layer", "exact", "peak"] == [1.0]
    assert found["layer", "exchanged", "share"] == found["layer", "exchanged", "peak"] == [0.0]
    assert found["layer", "nothing", "maps of 0"] == [1.0] and not found["layer", "nothing", "share"]


class Letter(nn.Module):
    """The logit of a character at a time step, `(N, 1)`."""

    def __init__(self, network: nn.Module, step: int, character: int) -> None:
        super().__init__()
        self.network, self.step, self.character = network, step, character

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, self.step, self.character, None]


@pytest.mark.slow
@pytest.mark.parametrize("layer", measure.LAYERS)
def test_maps_of_letters_are_the_papers(layer: str, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))
    network = load_network("crnn_words").double()
    image = drawing.draw_word("hat").image[None].double()
    module, letter = network.get_submodule(layer), Letter(network, 5, 18)
    found, rows = received_rows(letter, lambda: smooth(letter, module, image, 0, nt_samples=2))
    samples = [(row[None],) for row in rows[1:]]
    assert torch.equal(rows[:1], image) and not torch.equal(rows[1], rows[2])
    assert relative_error(found[0], reference_map(letter, module, (image,), samples, 0)) <= 1e-9
    assert torch.equal(smooth(network, module, image, (5, 18), nt_samples=2), found)


def test_the_likeliest_sentences_are_sentences_in_order_of_their_probability() -> None:
    network = load_captioner()
    image = inputs([draw_scene(5)])
    sentences, scores = likeliest(network, image, 5)
    assert len(sentences.unique(dim=0)) == 5 and torch.equal(scores, scores.sort(descending=True).values)
    logits = network(image.expand(5, -1, -1, -1), sentences)[:, :-1].log_softmax(2)
    steps = logits.gather(2, sentences[:, 1:, None])[..., 0]
    ended = sentences[:, :-1] == sentences[0, -1]  # what follows the first end is certain
    torch.testing.assert_close((steps * ~ended).sum(1), scores, rtol=1e-4, atol=1e-4)
    assert scores[0] >= (steps[:1] * ~ended[:1]).sum() - 1e-4 and torch.equal(sentences[:1], captions(network, image))
