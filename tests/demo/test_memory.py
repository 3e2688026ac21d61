"""What answers leave behind: nothing but the sums that a visitor may use again."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("gradio", reason="the page needs the extra 'demo'")

from served import visitors

from captum_sgcampp.demo.answers import Answers
from captum_sgcampp.demo.changes import OUTPUTS, SETTINGS
from captum_sgcampp.demo.flat_memory import MOST_UNREAD
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


@pytest.mark.slow
def test_a_session_keeps_no_component_of_an_answer(page: Any) -> None:
    session = visitors().Session(page.local_url)
    session.opens()
    state = page.state_holder.session_data[session.name]
    counts = []
    for _ in range(3):
        session.answer("opacity", "release", visitors().data_of(visitors().FIRST))
        session.answer("run", "click", visitors().data_of(visitors().FIRST))
        counts.append((len(state.blocks_config.blocks), len(state.config_values)))
    assert counts[1:] == counts[:-1]
    session.leaves()


@pytest.mark.slow
def test_who_reads_no_answers_may_not_ask_for_more(page: Any) -> None:
    session, other = (visitors().Session(page.local_url) for _ in range(2))
    with pytest.raises(visitors().Busy, match="not read"):
        for _ in range(MOST_UNREAD):
            session.asks("page", "load", [])
            while len(page._queue):
                time.sleep(0.01)
    assert "<figure>" in other.opens()["maps"]
    for one in (session, other):
        one.leaves()


@pytest.mark.slow
def test_no_message_waits_for_a_visitor_who_left(page: Any) -> None:
    session = visitors().Session(page.local_url)
    session.asks("page", "load", [])
    session.leaves()
    end = time.monotonic() + 60
    while page._queue.pending_messages_per_session or session.name in page._queue.pending_event_ids_session:
        assert time.monotonic() < end
        time.sleep(0.1)


ARENAS = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from captum_sgcampp.demo.flat_memory import share_one_arena

libc, together = ctypes.CDLL(None), Barrier(6)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1:]:
    share_one_arena()

def takes_memory(_):
    together.wait()
    return libc.malloc(1000)

with ThreadPoolExecutor(6) as pool:
    list(pool.map(takes_memory, range(6)))
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_threads_share_the_memory_that_any_of_them_has_freed() -> None:
    counts = []
    for arguments in ([], ["shared"]):
        found = subprocess.run([sys.executable, "-c", ARENAS, *arguments], capture_output=True, text=True, check=True)
        counts.append(found.stdout.count("<heap nr="))
    assert counts[1] < counts[0]


FREED = """
import ctypes
from captum_sgcampp.demo.flat_memory import return_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

blocks = [libc.malloc(100_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last keeps the others from going back
    libc.free(block)
before = resident()
return_freed_memory()
print(before - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_goes_back_below_a_block_in_use() -> None:
    found = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 80_000  # KiB, of 97,656


@pytest.mark.slow
def test_freed_memory_goes_back_when_a_page_is_closed(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gone_back = threading.Event()
    monkeypatch.setattr("captum_sgcampp.demo.flat_memory.return_freed_memory", gone_back.set)
    session = visitors().Session(page.local_url)
    session.opens()
    assert not gone_back.is_set()
    session.leaves()
    assert gone_back.wait(60)
