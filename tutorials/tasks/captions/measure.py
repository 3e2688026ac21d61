"""Measures maps of words and sentences against the objects that they refer to. In `tutorials`:

python -m tasks.captions.measure --out tasks/captions/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_sgcampp import LayerGradCamPlusPlus
from captum_sgcampp.scores import CaptionLogProbability, WordLogProbabilities
from tasks.captions.network import LAYER, Captioner, inputs, load_captioner
from tasks.captions.scenes import END, SIZE, TOKENS, Scene, draw_scene
from tasks.captions.train import accuracy
from tasks.measuring import BATCH, METHODS, markdown, run, share, upsampled, with_interval
from tasks.training import fresh_seeds

KINDS = ("count", "size", "color", "shape")
UNIFORM = "a uniform map"
_EXACT = 20  # scenes for the error of the closed form
HALF = 0.5  # of a map's maximum, from which a pixel counts as highlighted

Found = dict[tuple[str, str], list[float]]  # one number per image, by the method and what is measured


def measure(count: int) -> str:
    """The page."""
    network = load_captioner()
    found: Found = defaultdict(list)
    seeds = fresh_seeds(count)
    for start in range(0, count, BATCH):
        scenes = [draw_scene(seed) for seed in seeds[start : start + BATCH]]
        tokens = torch.tensor([scene.tokens for scene in scenes])
        for method, explain in METHODS.items():
            words, sentences = _maps(network, explain, inputs(scenes), tokens)
            for number, scene in enumerate(scenes):
                _add(found, method, scene, words[:, number], sentences[number])
        for scene in scenes:
            _add(found, UNIFORM, scene, torch.ones(10, SIZE, SIZE), torch.ones(SIZE, SIZE))
    right = 100 * accuracy(network, seeds)
    return (
        f"# Captions: {count} fresh scenes, {right:.1f} % of the sentences right\n\n{_tables(found)}\n\n"
        f"{_closed_form(network, seeds[:_EXACT])}\n"
    )


def _closed_form(network: Captioner, seeds: Sequence[int]) -> str:
    """How far the closed form is from the exact derivatives through the LSTM, at the first group's shape word."""
    scenes = [draw_scene(seed) for seed in seeds]
    method = LayerGradCamPlusPlus(WordLogProbabilities(network), network.get_submodule(LAYER))
    error = method.closed_form_error(
        inputs(scenes),
        KINDS.index("shape"),
        entries=16,
        generator=torch.Generator().manual_seed(0),
        additional_forward_args=torch.tensor([scene.tokens for scene in scenes]),
    )
    return (
        "The closed form is not exact here, since an LSTM follows the layer. Its median relative error at a "
        f"shape word: {float(error.d2.median()):.2f} (second derivative), {float(error.d3.median()):.2f} (third), "
        f"{float(error.terms.median()):.2f} (terms of the weights)."
    )


def _maps(network: Captioner, explain: Any, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the ten words, `(10, N, H, W)`, and of the whole sentence, `(N, H, W)`."""
    layer = network.get_submodule(LAYER)
    words = explain(WordLogProbabilities(network), layer, images, list(range(10)), tokens)
    whole = CaptionLogProbability(network, padding=TOKENS[END])
    sentence = explain(whole, layer, images, [None], tokens)[0]
    return torch.stack([upsampled(maps, (SIZE, SIZE)) for maps in words]), upsampled(sentence, (SIZE, SIZE))


def _add(found: Found, method: str, scene: Scene, words: Tensor, sentence: Tensor) -> None:
    """What the maps of one scene's words, `(10, H, W)`, and of its sentence, `(H, W)`, tell."""
    on_group = [torch.from_numpy(scene.group_mask(group)) for group in (0, 1)]
    masks = torch.from_numpy(scene.masks)
    everything, objects = torch.ones_like(masks[0]), masks.any(0)
    at_word = list(enumerate(scene.word_groups))
    content = [(place, groups[0]) for place, groups in at_word if len(groups) == 1]
    shares: dict[str, list[float | None]] = defaultdict(list)
    for number, (place, group) in enumerate(content):
        kind = KINDS[number % 4]
        if _differ(scene, kind):
            shares[f"{kind} words"].append(share(words[place], on_group[group], objects))
        if kind == "shape":
            shares["on its objects, of all"].append(share(words[place], on_group[group], everything))
            own = masks[np.array(scene.owners) == group]
            if len(own) > 1:
                shares["objects of a word"].append(_reached(words[place], own))
    shares["sentence on objects"].append(share(sentence, objects, everything))
    shares["objects of a sentence"].append(_reached(sentence, masks))
    shares["pixels of a sentence"].append(_covered(sentence, objects))
    for what, values in shares.items():
        known = [value for value in values if value is not None]
        if known:
            found[method, what].append(float(np.mean(known)))
    found[method, "maps of nothing"].append(float(np.mean([float(words[p].max()) == 0 for p, _ in content])))


def _differ(scene: Scene, kind: str) -> bool:
    """Whether a kind of word tells the groups apart."""
    first, second = (getattr(group, kind) for group in scene.groups)
    return bool(first != second)


def _reached(map_: Tensor, masks: Tensor) -> float:
    """Share of the objects `(objects, H, W)` that the highlighted part of the map meets."""
    return float((masks & (map_ > HALF * map_.max())).flatten(1).any(1).float().mean())


def _covered(map_: Tensor, pixels: Tensor) -> float:
    """Share of the pixels that are highlighted."""
    return float((map_ > HALF * map_.max())[pixels].float().mean())


def _tables(found: Found) -> str:
    methods = [*METHODS, UNIFORM]

    def table(columns: Sequence[str], heads: Sequence[str]) -> str:
        rows = [[name, *(with_interval(found[name, what]) for what in columns)] for name in methods]
        return markdown(["method", *heads], rows)

    kinds = [f"{kind} words" for kind in KINDS]
    completeness = ["objects of a word", "objects of a sentence", "pixels of a sentence"]
    energy = ["on its objects, of all", "sentence on objects", "maps of nothing"]
    return "\n\n".join(
        [
            "Share of a word's map on its own objects, of what lies on objects; words that are true of one group only:",
            table(kinds, kinds),
            f"Completeness: what exceeds {HALF} of the map's maximum. Words that name two objects, sentences:",
            table(completeness, ["objects met, by word", "objects met, by sentence", "pixels of objects, by sentence"]),
            "Share of the whole map, background included, and of words whose map is 0 everywhere:",
            table(energy, ["shape words on their objects", "sentences on objects", "maps of 0"]),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 300, __doc__, argv)


if __name__ == "__main__":
    main()
