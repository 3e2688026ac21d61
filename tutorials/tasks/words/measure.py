"""Measures from which columns a real network reads each letter; SGCAMPP_ASSETS holds the network. In `tutorials`:

python -m tasks.words.measure --out tasks/words/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus
from tasks.assets import load_network
from tasks.measuring import METHODS, markdown, run, share, upsampled, with_interval
from tasks.words.drawing import FONTS, HEIGHT, WIDTH, WORDS, Word, draw_word

LAYERS = {"cnn.10": "8 x 32", "cnn.14": "4 x 33", "cnn.18": "1 x 33"}
UNIFORM, TIME_STEP = "a uniform map", "the letter's time step"
_EXACT = 5  # words for the error of the closed form


def gradient_times_activation(
    forward: Any, layer: nn.Module, inputs: Tensor, targets: Sequence[Any], arguments: Any
) -> list[Tensor]:
    """Captum's, with a weight of its own for every position, summed over the feature maps (HiResCAM)."""
    method = LayerGradientXActivation(forward, layer)
    return [method.attribute(inputs, t, arguments).detach().sum(1, keepdim=True) for t in targets]


EXPLAIN = {**METHODS, "gradient x activation": gradient_times_activation}

Found = dict[tuple[str, str, str], list[float]]  # one number per word, by layer, method and what is measured


def measure(count: int) -> str:
    """The page."""
    network = load_network("crnn_words")
    words = [draw_word(text, FONTS[number % len(FONTS)]) for number, text in enumerate(WORDS[:count])]
    read = [word for word in words if reading(network, word) == word.text]
    found: Found = defaultdict(list)
    for word in read:
        for layer in LAYERS:
            for method, explain in EXPLAIN.items():
                targets = letter_targets(network, word)
                maps = explain(network, network.get_submodule(layer), word.image[None], targets, None)
                _add(found, layer, method, word, torch.cat(maps))
            _add(found, layer, UNIFORM, word, torch.ones(len(word.text), 1, 2, 2))
            _add(found, layer, TIME_STEP, word, _time_steps(network, word))
    title = f"# Words: {len(read)} of {len(words)} printed words read right"
    return f"{title}\n\n{_tables(found)}\n\n{_closed_form(network, read[:_EXACT])}\n"


@torch.no_grad()
def steps(network: nn.Module, word: Word) -> list[int]:
    """The most probable character of each time step; 0 is none."""
    found: list[int] = network(word.image[None])[0].argmax(1).tolist()
    return found


def reading(network: Any, word: Word) -> str:
    """What the network reads: repetitions and gaps fall out (CTC)."""
    return "".join(network.chars[character - 1] for _, character in _read(steps(network, word)))


def _read(characters: Sequence[int]) -> list[tuple[int, int]]:
    """Of each character that is read, its first time step and its number."""
    pairs = zip([0, *characters], characters, strict=False)
    return [(step, now) for step, (before, now) in enumerate(pairs) if now and now != before]


def letter_targets(network: nn.Module, word: Word) -> list[tuple[int, int]]:
    """Time step and character of each letter of a word that is read right: the logits to explain."""
    return _read(steps(network, word))


def _time_steps(network: nn.Module, word: Word) -> Tensor:
    """What a map would be that knows the time step alone, `(letters, 1, 1, steps)`."""
    characters = steps(network, word)
    maps = torch.zeros(len(word.text), 1, 1, len(characters))
    for number, (step, _) in enumerate(_read(characters)):
        maps[number, 0, 0, step] = 1
    return maps


def _add(found: Found, layer: str, method: str, word: Word, maps: Tensor) -> None:
    """What the maps of all letters of a word tell: means over its letters."""
    everything, shares, peaks = torch.ones(HEIGHT, WIDTH, dtype=torch.bool), [], []
    for number, map_ in enumerate(upsampled(maps, (HEIGHT, WIDTH))):
        mask = word.mask(number)
        value = share(map_, mask, everything)
        if value is not None:
            shares.append(value)
            peaks.append(float(mask.flatten()[int(map_.flatten().argmax())]))
    found[layer, method, "maps of 0"].append(1 - len(shares) / len(maps))
    if shares:
        found[layer, method, "share"].append(sum(shares) / len(shares))
        found[layer, method, "peak"].append(sum(peaks) / len(peaks))


def _closed_form(network: nn.Module, words: Sequence[Word]) -> str:
    """How far the closed form is from the exact derivatives through the LSTM."""
    errors = []
    for word in words:
        method = LayerGradCamPlusPlus(network, network.get_submodule("cnn.18"))
        target = letter_targets(network, word)[0]
        generator = torch.Generator().manual_seed(0)
        found = method.closed_form_error(word.image[None], target, entries=16, generator=generator)
        errors.append([float(found.d2.median()), float(found.d3.median()), float(found.terms.median())])
    second, third, terms = torch.tensor(errors).median(0).values.tolist()
    return (
        "An LSTM that reads in both directions follows the layer, so the closed form is not exact. Its median relative "
        f"error at first letters: {second:.2f} (second derivative), {third:.2f} (third), {terms:.2f} (terms of the "
        "weights)."
    )


def _tables(found: Found) -> str:
    parts = []
    for what, text in {
        "share": "Share of a letter's map in the letter's columns",
        "peak": "Letters whose map has its maximum in their columns",
        "maps of 0": "Maps that are 0 everywhere",
    }.items():
        names = [*EXPLAIN] if what == "maps of 0" else [*EXPLAIN, TIME_STEP, UNIFORM]
        names = [name for name in names if (what, name) != ("peak", UNIFORM)]
        rows = [[name, *(with_interval(found[layer, name, what]) for layer in LAYERS)] for name in names]
        heads = ["method", *(f"`{layer}` ({size})" for layer, size in LAYERS.items())]
        parts.append(f"{text}:\n\n{markdown(heads, rows)}")
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, len(WORDS), __doc__, argv)


if __name__ == "__main__":
    main()
