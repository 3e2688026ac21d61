"""Scenes of scattered shapes and questions about them, with the objects that each question refers to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.drawing import ANGLES, COLOR_NAMES, SHAPES, background, coverage, draw, grained, mask, paint, placed

SIZE = 64
NUMBERS = ("zero", "one", "two", "three", "four")
ANSWERS = (*COLOR_NAMES, *SHAPES, *NUMBERS, "yes", "no")
KINDS = ("color", "shape", "count", "exists", "left", "higher")
PAD = "<pad>"
LENGTH = 7  # words of the longest question

_OBJECTS = (3, 5)  # how many, both ends included
_HALF_RADII = (12, 17)  # twice the radius in pixels, both ends included
_REPEAT_CHANCE = 0.4  # that an object takes color or shape of an earlier one
_ASIDE = 6  # pixels by which one is left of, or higher than, another

WORDS = (
    *(PAD, *COLOR_NAMES, *SHAPES, "what", "color", "shape", "is", "the", "one", "how", "many", "ones", "things"),
    *("there", "a", "which", "left", "higher", "or"),
)
TOKENS = {word: token for token, word in enumerate(WORDS)}


@dataclass(frozen=True)
class Thing:
    """An object and the place of its center in pixels."""

    shape: str
    color: str
    x: int
    y: int


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        kind: one of `KINDS`.
        words: `which is left the star or the ring`.
        answer: one of `ANSWERS`.
        asked: numbers of the objects that decide the answer; empty for `no` and `zero`.
    """

    kind: str
    words: tuple[str, ...]
    answer: str
    asked: tuple[int, ...]

    @property
    def tokens(self) -> list[int]:
        return [TOKENS[word] for word in self.words] + [TOKENS[PAD]] * (LENGTH - len(self.words))

    @property
    def target(self) -> int:
        """Class index of the answer."""
        return ANSWERS.index(self.answer)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture.

    Attributes:
        image: RGB, uint8, `(SIZE, SIZE, 3)`.
        things: its objects.
        masks: pixels of each object, `(objects, SIZE, SIZE)`.
    """

    image: npt.NDArray[np.uint8]
    things: tuple[Thing, ...]
    masks: npt.NDArray[np.bool_]

    def mask(self, asked: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Pixels of some objects together, `(SIZE, SIZE)`."""
        pixels: npt.NDArray[np.bool_] = self.masks[list(asked)].any(0)
        return pixels


def draw_scene(seed: int) -> Scene:
    """One scene, the same for the same seed."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(*_OBJECTS, endpoint=True))
    shapes, colors = _names(rng, SHAPES, count), _names(rng, COLOR_NAMES, count)
    half_radii = [int(half) for half in rng.integers(*_HALF_RADII, count, endpoint=True)]
    centers = None
    while centers is None:
        centers = placed(rng, [half / 2 for half in half_radii], [(0, 0, SIZE, SIZE)] * count)
    canvas = background(rng, SIZE)
    things, masks = [], []
    for shape, color, half_radius, (x, y) in zip(shapes, colors, half_radii, centers, strict=True):
        covered = coverage(shape, half_radius, int(rng.integers(ANGLES)))
        draw(canvas, covered, x, y, paint(rng, color))
        things.append(Thing(shape, color, x, y))
        masks.append(mask(covered, x, y, SIZE))
    return Scene(grained(rng, canvas), tuple(things), np.stack(masks))


def _names(rng: np.random.Generator, names: tuple[str, ...], count: int) -> list[str]:
    chosen: list[str] = []
    for _ in range(count):
        repeat = bool(chosen) and rng.random() < _REPEAT_CHANCE
        chosen.append(chosen[rng.integers(len(chosen))] if repeat else names[rng.integers(len(names))])
    return chosen


def questions(scene: Scene) -> dict[str, list[Question]]:
    """All questions that the scene answers without doubt, by their kind; those answered by `no` and `zero` included."""
    things = scene.things
    return {
        "color": [
            Question("color", ("what", "color", "is", "the", thing.shape), thing.color, (number,))
            for number, thing in _unique(things, "shape")
        ],
        "shape": [
            Question("shape", ("what", "shape", "is", "the", thing.color, "one"), thing.shape, (number,))
            for number, thing in _unique(things, "color")
        ],
        "count": [*_counts(things, "shape", SHAPES), *_counts(things, "color", COLOR_NAMES)],
        "exists": [_exists(things, color, shape) for color in COLOR_NAMES for shape in SHAPES],
        "left": list(_comparisons(things, "left", "x")),
        "higher": list(_comparisons(things, "higher", "y")),
    }


def _unique(things: tuple[Thing, ...], by: str) -> list[tuple[int, Thing]]:
    names = [getattr(thing, by) for thing in things]
    return [(number, thing) for number, thing in enumerate(things) if names.count(names[number]) == 1]


def _counts(things: tuple[Thing, ...], by: str, names: tuple[str, ...]) -> Iterator[Question]:
    for name in names:
        asked = tuple(number for number, thing in enumerate(things) if getattr(thing, by) == name)
        if len(asked) < len(NUMBERS):
            words = ("how", "many", name, "ones" if by == "color" else "things")
            yield Question("count", words, NUMBERS[len(asked)], asked)


def _exists(things: tuple[Thing, ...], color: str, shape: str) -> Question:
    asked = tuple(n for n, thing in enumerate(things) if (thing.color, thing.shape) == (color, shape))
    return Question("exists", ("is", "there", "a", color, shape), "yes" if asked else "no", asked)


def _comparisons(things: tuple[Thing, ...], word: str, axis: str) -> Iterator[Question]:
    known = _unique(things, "shape")
    for first, one in known:
        for second, other in known:
            ahead = getattr(other, axis) - getattr(one, axis)
            if first != second and abs(ahead) >= _ASIDE:
                words = ("which", "is", word, "the", one.shape, "or", other.shape)
                yield Question(word, words, one.shape if ahead > 0 else other.shape, (first, second))


def draw_questions(scene: Scene, seed: int, count: int) -> list[Question]:
    """Some questions about a scene, the same for the same seed: each of a random kind, then of a random answer, so that
    `no` and `zero` are not the rule."""
    rng = np.random.default_rng([seed, 1])
    by_kind = {kind: asked for kind, asked in questions(scene).items() if asked}
    chosen = []
    for _ in range(count):
        of_kind = by_kind[list(by_kind)[rng.integers(len(by_kind))]]
        answers = sorted({question.answer for question in of_kind})
        answer = answers[rng.integers(len(answers))]
        of_answer = [question for question in of_kind if question.answer == answer]
        chosen.append(of_answer[rng.integers(len(of_answer))])
    return chosen
