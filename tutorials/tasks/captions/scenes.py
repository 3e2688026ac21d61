"""Scenes of two groups of shapes and the sentences that describe them, with the objects that each word refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.drawing import ANGLES, COLOR_NAMES, SHAPES, background, coverage, draw, grained, mask, paint, placed

SIZE = 80
COUNTS = ("a", "two")
SIZES = {"small": (12, 15), "large": (21, 25)}  # twice the radius in pixels, both ends included
RELATIONS = {"above": ("above",), "left": ("left", "of")}
BEGIN, END = "<begin>", "<end>"


def plural(shape: str) -> str:
    """stars, crosses."""
    return shape + ("es" if shape.endswith("s") else "s")


WORDS = (
    *(BEGIN, END, *COUNTS, *SIZES, *COLOR_NAMES, *SHAPES, *(plural(shape) for shape in SHAPES)),
    *("above", "left", "of"),
)
TOKENS = {word: token for token, word in enumerate(WORDS)}
LENGTH = 12  # the begin, at most ten words, an end
_ASIDE = 8  # pixels by which groups differ more in the direction of the relation than across it


@dataclass(frozen=True)
class Group:
    """Alike objects: `two small red stars`."""

    count: int
    size: str
    color: str
    shape: str

    @property
    def words(self) -> tuple[str, ...]:
        return COUNTS[self.count - 1], self.size, self.color, self.shape if self.count == 1 else plural(self.shape)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and its sentence.

    Attributes:
        image: RGB, uint8, `(SIZE, SIZE, 3)`.
        groups: the one that the sentence names first, and the other.
        relation: `above` or `left`.
        masks: pixels of each object, `(objects, SIZE, SIZE)`.
        owners: of each object, 0 for the first group and 1 for the second.
    """

    image: npt.NDArray[np.uint8]
    groups: tuple[Group, Group]
    relation: str
    masks: npt.NDArray[np.bool_]
    owners: tuple[int, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence: `two small red stars above a large blue ring`."""
        first, second = self.groups
        return *first.words, *RELATIONS[self.relation], *second.words

    @property
    def word_groups(self) -> tuple[tuple[int, ...], ...]:
        """The groups that each word refers to: one, or both for the words of the relation."""
        relation = RELATIONS[self.relation]
        return *((0,),) * 4, *((0, 1),) * len(relation), *((1,),) * 4

    @property
    def tokens(self) -> list[int]:
        """The sentence after its begin, ends up to `LENGTH`."""
        words = [BEGIN, *self.words]
        return [TOKENS[word] for word in words + [END] * (LENGTH - len(words))]

    def group_mask(self, group: int) -> npt.NDArray[np.bool_]:
        """Pixels of all objects of a group, `(SIZE, SIZE)`."""
        pixels: npt.NDArray[np.bool_] = self.masks[np.array(self.owners) == group].any(0)
        return pixels


def sentence(tokens: Sequence[int]) -> str:
    """Tokens after the begin in words, up to the first end."""
    words = [WORDS[token] for token in tokens]
    return " ".join(words[: words.index(END)] if END in words else words)


def draw_scene(seed: int) -> Scene:
    """One scene, the same for the same seed."""
    rng = np.random.default_rng(seed)
    groups = _groups(rng)
    relation = ("above", "left")[rng.integers(2)]
    objects = [(group, owner) for owner, group in enumerate(groups) for _ in range(group.count)]
    owners = tuple(owner for _, owner in objects)
    half_radii = [int(rng.integers(*SIZES[group.size], endpoint=True)) for group, _ in objects]
    centers = None
    while centers is None:
        centers = _centers(rng, relation, owners, half_radii)
    canvas = background(rng, SIZE)
    masks = []
    for (group, _), half_radius, (x, y) in zip(objects, half_radii, centers, strict=True):
        covered = coverage(group.shape, half_radius, int(rng.integers(ANGLES)))
        draw(canvas, covered, x, y, paint(rng, group.color))
        masks.append(mask(covered, x, y, SIZE))
    return Scene(grained(rng, canvas), groups, relation, np.stack(masks), owners)


def _groups(rng: np.random.Generator) -> tuple[Group, Group]:
    """Two groups that differ in color or shape, so that it can be told where one ends."""
    while True:
        first, second = _group(rng), _group(rng)
        if (first.color, first.shape) != (second.color, second.shape):
            return first, second


def _group(rng: np.random.Generator) -> Group:
    return Group(
        int(rng.integers(1, len(COUNTS), endpoint=True)),
        list(SIZES)[rng.integers(len(SIZES))],
        COLOR_NAMES[rng.integers(len(COLOR_NAMES))],
        SHAPES[rng.integers(len(SHAPES))],
    )


def _centers(
    rng: np.random.Generator, relation: str, owners: Sequence[int], half_radii: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Places on both sides of a cut; None where there is no room, or where the relation would be in doubt."""
    cut = rng.uniform(0.38, 0.62) * SIZE
    sides = (
        ((0, 0, SIZE, cut), (0, cut, SIZE, SIZE)) if relation == "above" else ((0, 0, cut, SIZE), (cut, 0, SIZE, SIZE))
    )
    centers = placed(rng, [half / 2 for half in half_radii], [sides[owner] for owner in owners])
    if centers is None:
        return None
    of_second = np.array(owners) == 1
    across, down = np.abs(np.array(centers)[of_second].mean(0) - np.array(centers)[~of_second].mean(0))
    return centers if (down - across if relation == "above" else across - down) >= _ASIDE else None
