"""Seconds of runs that take turns, and the bare inference that they are compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
from setting import Setting
from torch import Tensor, nn

Runs: TypeAlias = dict[str, Callable[[], object]]

# Bare inference runs in two ways, and the quicker one counts. One batch is at most so many images: more are slower on a
# CPU, and need not fit elsewhere. Fewer can be quicker there.
CPU_BATCH, ACCELERATOR_BATCH, FEW = 16, 128, 3
ONE_BATCH, THREES = "one batch", "batches of 3"
BARE = "bare inference"


def interleaved(runs: Mapping[str, Callable[[], object]], setting: Setting) -> dict[str, list[float]]:
    """Seconds of every run in every round; the runs take turns, and the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(setting.rounds + 1):
        for name, run in runs.items():
            found = _time(run, setting)
            if number:
                seconds[name].append(found)
    return seconds


def bare_runs(model: nn.Module, images: Tensor, name: str = BARE) -> Runs:
    """Bare inference of the images in both ways."""
    most = CPU_BATCH if images.device.type == "cpu" else ACCELERATOR_BATCH
    ways = {ONE_BATCH: most, THREES: FEW}
    return {f"{name}, {way}": partial(_bare_inference, model, images, rows) for way, rows in ways.items()}


def _bare_inference(model: nn.Module, images: Tensor, rows: int) -> None:
    with torch.inference_mode():
        for part in images.split(rows):
            model(part)


def quicker(seconds: Mapping[str, Sequence[float]], name: str = BARE) -> list[float]:
    """The seconds of bare inference in the way with the smaller median."""
    ways = (list(seconds[f"{name}, {way}"]) for way in (ONE_BATCH, THREES))
    return min(ways, key=statistics.median)


def ratio(seconds: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds of one divided by the other."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))


def repeated(images: Tensor, times: int, setting: Setting) -> Tensor:
    """Every image so many times, in the setting's memory format, which `repeat_interleave` loses."""
    return images.repeat_interleave(times, 0).contiguous(memory_format=setting.memory_format)


def _time(run: Callable[[], object], setting: Setting) -> float:
    with mode(setting):
        _wait(setting.device)
        start = time.perf_counter()
        run()
        _wait(setting.device)
        return time.perf_counter() - start


def mode(setting: Setting) -> AbstractContextManager[Any]:
    """Autocast in the modes for that."""
    if setting.is_bfloat16:
        return torch.autocast(torch.device(setting.device).type, torch.bfloat16)
    return nullcontext()


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
