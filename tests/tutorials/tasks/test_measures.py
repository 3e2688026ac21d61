"""The measurements count what they say, by hand on small maps, and their pages hold a row for each method."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from tasks import measuring
from tasks.captions import measure as captions
from tasks.captions import scenes as caption_scenes
from tasks.clips import measure as clips
from tasks.clips import scenes as clip_scenes
from tasks.questions import measure as questions
from tasks.questions import scenes as question_scenes

PAGES = {"captions": captions.measure, "questions": questions.measure, "clips": clips.measure}


def test_share_by_hand() -> None:
    map_ = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    left, top = torch.tensor([[True, False], [True, False]]), torch.tensor([[True, True], [False, False]])
    everything = torch.ones_like(left)
    assert measuring.share(map_, left, everything) == 3 / 8
    assert measuring.share(map_, left & top, top) == 3 / 4
    assert measuring.share(0 * map_, left, everything) is None


def test_an_object_is_met_above_half_of_the_maximum_only() -> None:
    map_ = torch.tensor([[4.0, 2.0], [2.1, 0.0]])
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 0, 1] = masks[2, 1] = True
    assert captions._reached(map_, masks) == pytest.approx(2 / 3)  # the second is at the half exactly
    assert captions._covered(map_, masks.any(0)) == 2 / 4


def test_a_map_on_the_words_own_objects_has_a_share_of_one() -> None:
    scene = caption_scenes.draw_scene(0)
    objects = [torch.from_numpy(scene.group_mask(group)).float() for group in (0, 1)]
    words = torch.stack([objects[groups[0]] for groups in (*scene.word_groups, (0,))][:10])
    found: captions.Found = defaultdict(list)
    captions._add(found, "true", scene, words, objects[0] + objects[1])
    captions._add(found, "swapped", scene, 1 - words, objects[0])
    assert all(found["true", f"{kind} words"] in ([1.0], []) for kind in captions.KINDS)
    assert all(found["swapped", f"{kind} words"] in ([0.0], []) for kind in captions.KINDS)
    assert found["true", "objects of a sentence"] == [1.0] and found["swapped", "objects of a sentence"][0] < 1


def test_maps_that_follow_the_question_are_told_from_those_that_do_not() -> None:
    scene = next(
        s for s in map(question_scenes.draw_scene, range(99)) if len(question_scenes.questions(s)["color"]) > 1
    )
    first, second = question_scenes.questions(scene)["color"][:2]
    of_first, of_second = (torch.from_numpy(scene.mask(q.asked)).float() for q in (first, second))
    assert questions._follows([(scene, first, of_first), (scene, second, of_second)]) == [1, 1]
    assert questions._follows([(scene, first, of_second), (scene, second, of_first)]) == [0, 0]
    assert questions._follows([(scene, first, of_first), (scene, second, of_first)]) == [0.5, 0.5]


def test_questions_that_are_measured_ask_about_some_objects_and_not_all() -> None:
    for scene in map(question_scenes.draw_scene, range(30)):
        for question in questions.chosen(scene):
            assert 0 < len(question.asked) < len(scene.things)


def test_a_map_of_the_mover_in_its_frames_has_a_share_of_one() -> None:
    clip = clip_scenes.draw_clip(0)
    acting = torch.from_numpy(clip.acting)[:, None, None]
    found: clips.Found = defaultdict(list)
    clips._add_shares(found, "true", clip, (torch.from_numpy(clip.masks[0]) & acting).float())
    shares = ("mover", "frames", "both", "peak on mover", "peak in time")
    assert [found["true", what] for what in shares] == [[1.0]] * 5
    late = dataclasses.replace(clip, start=15, stop=16)
    early = acting & (torch.arange(16) < 15)[:, None, None]
    clips._add_shares(found, "late", late, (torch.from_numpy(clip.masks[0]) & early).float())
    assert found["late", "frames"] == [0.0] and found["late", "mover"] == [1.0]


@pytest.mark.slow
@pytest.mark.parametrize("task", PAGES)
def test_pages_have_a_row_for_each_method(task: str) -> None:
    measure: Callable[[int], str] = PAGES[task]
    page = measure(6)
    tables = page.count("\n| --- |")
    for method in measuring.METHODS:
        assert page.count(f"\n| {method} |") >= tables >= 2
