"""Seconds of runs that take turns, and the bare inference that they are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from setting import Setting
from torch import Tensor, nn

Runs: TypeAlias = dict[str, Callable[[], object]]

BARE = "bare inference"
# Bare inference runs in batches of at most this many images: more are slower on a CPU, and need not fit elsewhere.
CPU_BATCH, ACCELERATOR_BATCH = 16, 128


def interleaved(runs: Mapping[str, Callable[[], object]], setting: Setting) -> dict[str, list[float]]:
    """Seconds of every run in every round; the runs take turns, and the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(setting.rounds + 1):
        for name, run in runs.items():
            found = _time(run, setting)
            if number:
                seconds[name].append(found)
    return seconds


def bare_inference(model: nn.Module, images: Tensor) -> None:
    """The model's scores in inference mode, in one batch if that is not too large."""
    most = CPU_BATCH if images.device.type == "cpu" else ACCELERATOR_BATCH
    with torch.inference_mode():
        for part in images.split(most):
            model(part)


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
