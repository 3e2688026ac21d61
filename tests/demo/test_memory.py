"""What answers leave behind: nothing but the sums that a visitor may use again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from captum_sgcampp.demo.answers import Answers
from captum_sgcampp.demo.changes import OUTPUTS, SETTINGS
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.runs import Runs
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor

PARTS = {name: name for name in OUTPUTS}


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


def values_of(**changed: object) -> list[object]:
    settings = Settings(network="shapes", target=3, nt_samples=2)
    return [changed.get(name, getattr(settings, name)) for name in SETTINGS]


def answers_of(networks: Networks, visitor: Visitor, number: int) -> Iterator[object]:
    """A run with other noise, one with more samples, and clicks."""
    runs, answers = Runs(networks, PARTS), Answers(networks, PARTS)
    yield from runs.run(visitor, *values_of(seed=0, nt_samples=2))  # fewer than before: sums are made anew
    yield from runs.run(visitor, *values_of(seed=0, nt_samples=3))
    yield answers.map_picked(visitor, gr.EventData(None, {"number": number}), *values_of(nt_samples=3))
    yield answers.cells_picked(visitor, gr.EventData(None, {"box": [1, 3, 0, 2]}), *values_of(nt_samples=3))
    yield answers.redrawn(visitor, *values_of(nt_samples=3, opacity=0.2))


def living_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@pytest.mark.slow
def test_no_tensor_stays_of_an_answer(networks: Networks) -> None:
    visitor = Visitor()
    visitor.show_scene(0)
    counts = []
    for number in range(3):
        assert all(answers_of(networks, visitor, number))
        counts.append(living_tensors())
    assert counts[1:] == counts[:-1]


@pytest.mark.slow
def test_nothing_stays_of_a_visitor_who_left(networks: Networks) -> None:
    before = 0
    for number in range(2):
        visitor = Visitor()
        visitor.show_scene(number)
        assert all(answers_of(networks, visitor, number))
        assert visitor._kept
        kept = weakref.ref(next(iter(visitor._kept.values())))
        visitor.forget()
        assert kept() is None
        before = before or living_tensors()
    assert living_tensors() == before


def test_a_click_sends_only_what_changes(networks: Networks) -> None:
    visitor = Visitor()
    visitor.show_scene(0)
    answers = Answers(networks, PARTS)
    of_map = answers.map_picked(visitor, gr.EventData(None, {"number": 3}), *values_of())
    of_cell = answers.cells_picked(visitor, gr.EventData(None, {"box": [1, 3, 0, 2]}), *values_of())
    assert "tiles" in of_map and "grid" not in of_map
    assert "grid" in of_cell and "tiles" not in of_cell
