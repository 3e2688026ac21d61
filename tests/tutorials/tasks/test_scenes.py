"""Sentences, answers and actions are true of the pixels, judged without what the generators know of the objects."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from tasks.captions import scenes as captions
from tasks.clips import scenes as clips
from tasks.drawing import COLORS
from tasks.questions import scenes as questions

SEEDS = range(40)


def nearest_color(pixels: npt.NDArray[np.uint8]) -> str:
    """The name of the mean of pixels `(n, 3)`."""
    distances = {name: np.linalg.norm(pixels.mean(0) - np.array(rgb)) for name, rgb in COLORS.items()}
    return min(distances, key=lambda name: float(distances[name]))


def center(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """x and y of the middle of the box around a mask."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2


def radius(mask: npt.NDArray[np.bool_]) -> float:
    """Distance of the farthest pixel from the middle of all."""
    places = np.argwhere(mask)
    return float(np.linalg.norm(places - places.mean(0), axis=1).max())


def test_the_same_seed_draws_the_same() -> None:
    for draw, pixels in (
        (captions.draw_scene, "image"),
        (questions.draw_scene, "image"),
        (clips.draw_clip, "frames"),
    ):
        first, again, other = draw(3), draw(3), draw(4)
        assert np.array_equal(getattr(first, pixels), getattr(again, pixels))
        assert np.array_equal(first.masks, again.masks)
        assert not np.array_equal(getattr(first, pixels), getattr(other, pixels))


@pytest.mark.parametrize("draw", [captions.draw_scene, questions.draw_scene, clips.draw_clip])
def test_objects_never_overlap(draw: object) -> None:
    for seed in SEEDS:
        assert (draw(seed).masks.sum(0) <= 1).all()  # type: ignore[operator]


def test_each_word_is_true_of_the_objects_that_it_refers_to() -> None:
    for scene in map(captions.draw_scene, SEEDS):
        own = [scene.masks[np.array(scene.owners) == group] for group in (0, 1)]
        assert len(scene.words) == len(scene.word_groups)
        for word, groups in zip(scene.words, scene.word_groups, strict=True):
            masks = own[groups[0]]
            if word in captions.COUNTS:
                assert len(masks) == captions.COUNTS.index(word) + 1
            elif word in captions.SIZES:
                assert all((radius(mask) < 8.5) == (word == "small") for mask in masks)
            elif word in COLORS:
                assert all(nearest_color(scene.image[mask]) == word for mask in masks)
        assert np.array_equal(scene.group_mask(1), own[1].any(0))


def test_the_first_group_is_above_or_left_of_the_second() -> None:
    for scene in map(captions.draw_scene, SEEDS):
        first, second = (
            np.array([center(mask) for mask, owner in zip(scene.masks, scene.owners, strict=True) if owner == group])
            for group in (0, 1)
        )
        ahead = second.mean(0) - first.mean(0)
        axis = 1 if scene.relation == "above" else 0
        assert (first[:, axis].max() < second[:, axis].min()) and ahead[axis] > abs(ahead[1 - axis])


def test_sentences_survive_their_tokens() -> None:
    scene = captions.draw_scene(0)
    assert captions.sentence(scene.tokens[1:]) == " ".join(scene.words)
    assert all(len(captions.draw_scene(seed).tokens) == captions.LENGTH for seed in SEEDS)


def answer_of_pixels(scene: questions.Scene, question: questions.Question) -> str:
    """The answer from masks, mean colors and the names of the shapes."""
    colors = [nearest_color(scene.image[mask]) for mask in scene.masks]
    shapes = [thing.shape for thing in scene.things]
    centers = [center(mask) for mask in scene.masks]
    words = question.words

    def only(names: Iterable[str], name: str) -> int:
        (number,) = (number for number, found in enumerate(names) if found == name)
        return number

    if question.kind == "color":
        return colors[only(shapes, words[-1])]
    if question.kind == "shape":
        return shapes[only(colors, words[-2])]
    if question.kind == "count":
        return questions.NUMBERS[[*colors, *shapes].count(words[2])]
    if question.kind == "exists":
        return "yes" if words[-2:] in list(zip(colors, shapes, strict=True)) else "no"
    axis = 0 if question.kind == "left" else 1
    return min((words[4], words[6]), key=lambda shape: float(centers[only(shapes, shape)][axis]))


def test_all_answers_are_true_of_the_pixels() -> None:
    kinds = set()
    for scene in map(questions.draw_scene, SEEDS):
        for of_kind in questions.questions(scene).values():
            for question in of_kind:
                assert answer_of_pixels(scene, question) == question.answer, question
                assert len(question.tokens) == questions.LENGTH
                kinds.add(question.kind)
    assert kinds == set(questions.KINDS)


def test_questions_of_a_seed_are_those_of_the_scene_and_of_many_answers() -> None:
    answers: list[str] = []
    for seed in range(150):
        scene = questions.draw_scene(seed)
        drawn = questions.draw_questions(scene, seed, 6)
        assert drawn == questions.draw_questions(scene, seed, 6)
        assert all(question in questions.questions(scene)[question.kind] for question in drawn)
        answers += [question.answer for question in drawn]
    assert set(answers) >= {*questions.ANSWERS} - {"four"} and max(map(answers.count, answers)) < len(answers) / 5


def still(clip: clips.Clip, number: int) -> npt.NDArray[np.bool_]:
    """Whether the mask of an object is that of the frame before, frame by frame from the second."""
    masks = clip.masks[number]
    return (masks[1:] == masks[:-1]).all((1, 2))


def test_actions_are_those_of_the_masks_and_happen_in_their_frames() -> None:
    seen = set()
    for clip in map(clips.draw_clip, range(120)):
        name = clips.ACTIONS[clip.action]
        seen.add(name)
        first, last = clip.masks[0][0], clip.masks[0][-1]
        dx, dy = center(last) - center(first)
        growth = last.sum() / first.sum()
        assert still(clip, 0)[~clip.acting[1:]].all()  # nothing happens in the other frames
        assert (not still(clip, 0)[clip.acting[1:]].all()) == (name != "hides")
        assert (dx < -5) == (name == "moves left") and (dx > 5) == (name == "moves right")
        assert (dy < -5) == (name == "moves up") and (dy > 5) == (name == "moves down")
        assert (growth > 1.4) == (name == "grows") and (growth < 0.7) == (name == "shrinks")
        rise = max(center(first)[1] - center(mask)[1] for mask in clip.masks[0])
        assert (rise >= 5) == (name in ("moves up", "bounces"))
    assert seen == set(clips.ACTIONS)


def test_what_hides_is_seen_in_the_other_frames_only() -> None:
    for clip in map(clips.draw_clip, range(60)):
        if clips.ACTIONS[clip.action] == "hides":
            pixels = clip.frames[:, clip.masks[0][0]].astype(float).mean(1)
            outside = np.linalg.norm(pixels[~clip.acting] - pixels[0], axis=1)
            inside = np.linalg.norm(pixels[clip.acting] - pixels[0], axis=1)
            assert outside.max() < 5 < 25 < inside.min()
