"""The network that reads words: the places of letters, the measures by hand, and maps that are the papers'."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from calls import received_rows, smooth
from reference import reference_map, relative_error
from tasks.assets import VARIABLE, load_network
from tasks.words import drawing, measure
from torch import Tensor, nn


@pytest.mark.parametrize("font", drawing.FONTS)
def test_each_of_three_equal_letters_has_a_third_of_the_ink_in_its_columns(font: str) -> None:
    word = drawing.draw_word("lll", font)
    ink = (1 - word.image[0]) / 2
    parts = [float(ink[word.mask(letter)].sum() / ink.sum()) for letter in range(3)]
    assert parts == pytest.approx([1 / 3] * 3, abs=0.02) and sum(parts) == pytest.approx(1, abs=0.01)


def test_letters_share_no_column() -> None:
    word = drawing.draw_word("orange")
    assert torch.stack([word.mask(letter) for letter in range(6)]).sum(0).max() == 1
    assert [end for _, end in word.columns[:-1]] == [first for first, _ in word.columns[1:]]


def test_a_letter_is_read_where_its_first_time_step_is() -> None:
    assert measure._read([0, 5, 5, 0, 5, 7, 7, 0]) == [(1, 5), (4, 5), (5, 7)]
    assert measure._read([3, 3, 0]) == [(0, 3)]


def test_shares_and_maxima_by_hand() -> None:
    word = drawing.Word("ab", torch.zeros(1, 32, 128), ((4, 50), (64, 96)))
    map_ = torch.zeros(32, 128)
    map_[3, 10], map_[5, 70], map_[9, 100] = 3, 4, 1
    found: measure.Found = defaultdict(list)
    measure._add(found, "layer", "same", word, torch.stack([map_, map_])[:, None])
    assert found["layer", "same", "share"] == [pytest.approx((3 / 8 + 4 / 8) / 2)]
    assert found["layer", "same", "peak"] == [0.5] and found["layer", "same", "maps of 0"] == [0.0]
    measure._add(found, "layer", "one", word, torch.stack([map_, 0 * map_])[:, None])
    assert found["layer", "one", "share"] == [3 / 8] and found["layer", "one", "maps of 0"] == [0.5]


class AtStep(nn.Module):
    """The logits of one time step, `(N, characters)`."""

    def __init__(self, network: nn.Module, step: int) -> None:
        super().__init__()
        self.network, self.step = network, step

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, self.step]


@pytest.fixture
def networks(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(assets))


@pytest.mark.usefixtures("networks")
def test_a_window_at_the_time_step_is_where_the_letter_is_read() -> None:
    network, word = load_network("crnn_words"), drawing.draw_word("garden")
    assert measure.reading(network, word) == "garden"
    targets = measure.letter_targets(network, word)
    windows = measure._time_steps(network, word)
    assert windows.flatten(1).argmax(1).tolist() == [step for step, _ in targets]
    assert float(windows.sum()) == len(targets)


@pytest.mark.slow
@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("layer", measure.LAYERS)
def test_maps_of_letters_are_the_papers(layer: str) -> None:
    network, word = load_network("crnn_words").double(), drawing.draw_word("garden")
    image = word.image[None].double()
    step, letter = measure._read(network(image)[0].argmax(1).tolist())[2]
    at_step, module = AtStep(network, step), network.get_submodule(layer)
    found, rows = received_rows(at_step, lambda: smooth(at_step, module, image, letter, nt_samples=2))
    copies = [(row[None],) for row in rows[1:]]
    assert torch.equal(rows[:1], image) and not torch.equal(rows[1], rows[2])
    assert relative_error(found[0], reference_map(at_step, module, (image,), copies, letter)) <= 1e-9
    assert torch.equal(smooth(network, module, image, (step, letter), nt_samples=2), found)
