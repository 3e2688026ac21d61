"""Measures whether maps follow the question. In `tutorials`:

python -m tasks.questions.measure --out tasks/questions/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.measuring import BATCH, METHODS, markdown, run, share, upsampled, with_interval
from tasks.questions.network import BEFORE, LAYER, Answerer, inputs, load_answerer, tokens
from tasks.questions.scenes import KINDS, SIZE, Question, Scene, draw_scene, questions
from tasks.questions.train import right_answers
from tasks.training import fresh_seeds

UNIFORM = "a uniform map"
PLACES = {BEFORE: "before the question", LAYER: "after the question"}
_BATCH = 4 * BATCH  # questions in one call

Found = dict[tuple[str, str, str], list[float]]  # one number per image, by layer, method and what is measured


def measure(count: int) -> str:
    """The page."""
    network = load_answerer()
    asked = [(scene, question) for scene in map(draw_scene, fresh_seeds(count)) for question in chosen(scene)]
    found: Found = defaultdict(list)
    for layer in PLACES:
        for method, explain in METHODS.items():
            _add(found, layer, method, asked, _maps(network, layer, explain, asked))
        _add(found, layer, UNIFORM, asked, [torch.ones(SIZE, SIZE)] * len(asked))
    right = right_answers(network, fresh_seeds(count))
    accuracies = ", ".join(f"{100 * np.mean(right[kind]):.1f} % ({kind})" for kind in KINDS)
    return f"# Questions: {count} fresh scenes\n\nRight answers: {accuracies}.\n\n{_tables(found)}\n"


def follows(network: Answerer, layer: str, method: str, scenes: Sequence[Scene]) -> float:
    """How often the maps of a method follow the question: the mean over the scenes, 1/2 by chance."""
    found: Found = defaultdict(list)
    asked = [(scene, question) for scene in scenes for question in chosen(scene)]
    _add(found, layer, method, asked, _maps(network, layer, METHODS[method], asked))
    return float(np.mean(found[layer, method, "follows"]))


def chosen(scene: Scene) -> list[Question]:
    """Questions whose answer some objects decide and others do not: of each kind up to two, about other objects."""
    result = []
    for of_kind in questions(scene).values():
        kept: dict[tuple[int, ...], Question] = {}
        for question in of_kind:
            if 0 < len(question.asked) < len(scene.things):
                kept.setdefault(tuple(sorted(question.asked)), question)
        result += list(kept.values())[:2]
    return result


def _maps(network: Answerer, layer: str, explain: object, asked: Sequence[tuple[Scene, Question]]) -> list[Tensor]:
    """The map of the right answer to each question, `(SIZE, SIZE)`."""
    maps: list[Tensor] = []
    for start in range(0, len(asked), _BATCH):
        scenes, about = zip(*asked[start : start + _BATCH], strict=True)
        targets = torch.tensor([question.target for question in about])
        arguments = (inputs(scenes), [targets], tokens(about))
        found = explain(network, network.get_submodule(layer), *arguments)  # type: ignore[operator]
        maps += upsampled(found[0], (SIZE, SIZE))
    return maps


def _add(
    found: Found, layer: str, method: str, asked: Sequence[tuple[Scene, Question]], maps: Sequence[Tensor]
) -> None:
    """What the maps of all questions tell, image by image."""
    by_scene: dict[int, list[tuple[Scene, Question, Tensor]]] = defaultdict(list)
    for (scene, question), map_ in zip(asked, maps, strict=True):
        by_scene[id(scene)].append((scene, question, map_))
    for rows in by_scene.values():
        shares: dict[str, list[float | None]] = defaultdict(list)
        for scene, question, map_ in rows:
            shares[question.kind].append(_share(scene, question, map_))
            shares["all"].append(shares[question.kind][-1])
            everything = torch.ones(SIZE, SIZE, dtype=torch.bool)
            shares["whole"].append(share(map_, torch.from_numpy(scene.mask(question.asked)), everything))
        shares["follows"] = _follows(rows)
        for what, values in shares.items():
            known = [value for value in values if value is not None]
            if known:
                found[layer, method, what].append(float(np.mean(known)))


def _share(scene: Scene, question: Question, map_: Tensor) -> float | None:
    """On the objects that are asked about, of what lies on objects."""
    return share(map_, torch.from_numpy(scene.mask(question.asked)), torch.from_numpy(scene.masks.any(0)))


def _follows(rows: Sequence[tuple[Scene, Question, Tensor]]) -> list[float | None]:
    """For two questions of a kind about one image: whether what the first asks about has more of the first's map than
    of the second's. 1/2 for a map that does not follow."""
    result: list[float | None] = []
    for scene, question, map_ in rows:
        for _, other, other_map in rows:
            if other is not question and other.kind == question.kind:
                own, under_other = _share(scene, question, map_), _share(scene, question, other_map)
                if own is not None and under_other is not None:
                    result.append(0.5 + 0.5 * float(np.sign(own - under_other)))
    return result


def _tables(found: Found) -> str:
    parts = []
    for layer, place in PLACES.items():
        columns = [*KINDS, "all"]
        rows = [[m, *(with_interval(found[layer, m, c]) for c in columns)] for m in [*METHODS, UNIFORM]]
        parts.append(
            f"Layer {place} (`{layer}`). Share of the map on the objects that are asked about, of what lies on "
            f"objects, by the kind of the question:\n\n{markdown(['method', *columns], rows)}"
        )
        rows = [[m, *(with_interval(found[layer, m, c]) for c in ("follows", "whole"))] for m in [*METHODS, UNIFORM]]
        heads = ["method", "follows the question", "share of the whole map on what is asked about"]
        parts.append(
            "Two questions of a kind about one image: how often the objects of a question have more of its map than of "
            f"the other's (1/2 by chance).\n\n{markdown(heads, rows)}"
        )
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 300, __doc__, argv)


if __name__ == "__main__":
    main()
