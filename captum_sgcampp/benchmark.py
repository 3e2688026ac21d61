"""What the method costs: against bare inference, and against the peers that are installed.

All contestants run in turn in one process, in every round in the same order after a warm-up, and the ratios are taken
within a round; quote the medians. Nothing here is a test.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from captum.attr import LayerGradCam, NoiseTunnel
from torch import Tensor, nn

from captum_sgcampp.attribution import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

# Network and layer; the weights are random, because they do not change the cost.
CASES = (
    ("resnet18", "layer4"),
    ("resnet50", "layer4"),
    ("resnet50", "layer3"),
    ("vgg16", "features.29"),
    ("mobilenet_v2", "features.18"),
    ("densenet121", "features"),
    ("efficientnet_b0", "features"),
    ("convnext_tiny", "features"),
)
OURS, BARE = "Smooth Grad-CAM++", "bare inference"
MODES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        nt_samples: noisy copies.
        batch: images explained at once.
        size: height and width of the images.
        rounds: rounds after the warm-up.
        device: torch device.
        mode: `"float32"`, or `"bfloat16"` (autocast and channels_last).
        targets: targets explained in one call.
    """

    nt_samples: int = 8
    batch: int = 1
    size: int = 224
    rounds: int = 3
    device: str = "cpu"
    mode: str = "float32"
    targets: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds of every round of each contestant in one case."""

    network: str
    layer: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, contestant: str, to: str) -> float:
        """Median over the rounds of `contestant`'s time divided by that of `to`."""
        pairs = zip(self.seconds[contestant], self.seconds[to], strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(network: str, layer: str, setting: Setting) -> Timing:
    """Time the contestants in one case.

    Args:
        network: name of a torchvision model.
        layer: name of its module.
        setting: what is measured.
    """
    torch.manual_seed(0)
    model = torchvision.models.get_model(network, weights=None).eval().to(setting.device)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    if setting.mode == "bfloat16":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    runs = contestants(model, model.get_submodule(layer), images, setting)
    timing = Timing(network, layer, {name: [] for name in runs})
    for number in range(setting.rounds + 1):
        for name, run in runs.items():
            seconds = _time(run, setting)
            if number:  # the first round warms up
                timing.seconds[name].append(seconds)
    return timing


def contestants(
    model: nn.Module, layer: nn.Module, images: Tensor, setting: Setting
) -> dict[str, Callable[[], object]]:
    """What runs in turn: bare inference of the `n + 1` images in one batch, ours, and the peers that are installed."""
    n, target = setting.nt_samples, 1
    copies = images.repeat_interleave(n + 1, 0)
    smooth = LayerSmoothGradCamPlusPlus(model, layer)
    plain = LayerGradCamPlusPlus(model, layer)
    tunnel = NoiseTunnel(LayerGradCam(model, layer))
    targets = list(range(1, setting.targets + 1))

    def bare() -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(copies)
        return result

    runs: dict[str, Callable[[], object]] = {
        BARE: bare,
        OURS: lambda: smooth.attribute_targets(images, targets, nt_samples=n, stdevs=0.1),
        "Grad-CAM++": lambda: plain.attribute(images, target),
        "captum NoiseTunnel(LayerGradCam)": lambda: tunnel.attribute(images, nt_samples=n, stdevs=0.1, target=target),
    }
    if setting.batch == 1 and setting.mode == "float32" and importlib.util.find_spec("torchcam"):
        runs["torchcam SmoothGradCAMpp"] = lambda: _torchcam(model, layer, images, n, target)
    return runs


def _torchcam(model: nn.Module, layer: nn.Module, images: Tensor, n: int, target: int) -> Any:
    from torchcam.methods import SmoothGradCAMpp

    with SmoothGradCAMpp(model, target_layer=layer, num_samples=n, std=0.1) as extractor:
        return extractor(target, model(images))


def _time(run: Callable[[], object], setting: Setting) -> float:
    with _mode(setting):
        _wait(setting.device)
        start = time.perf_counter()
        run()
        _wait(setting.device)
        return time.perf_counter() - start


def _mode(setting: Setting) -> AbstractContextManager[Any]:
    if setting.mode == "bfloat16":
        return torch.autocast(torch.device(setting.device).type, torch.bfloat16)
    return nullcontext()


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(timings: list[Timing], setting: Setting) -> str:
    """The figures as a table in Markdown, with machine and versions."""
    names = [name for name in timings[0].seconds if name not in (OURS, BARE)]
    heads = [
        "network",
        "layer",
        "seconds",
        "/ bare inference",
        *(f"/ {name}" for name in names if name != "Grad-CAM++"),
    ]
    peers = [name for name in names if name != "Grad-CAM++"]
    rows = [
        [t.network, t.layer, f"{statistics.median(t.seconds[OURS]):.3f}", f"{t.ratio(OURS, BARE):.2f}"]
        + [f"{t.ratio(OURS, name):.2f}" for name in peers]
        for t in timings
    ]
    means = [f"{statistics.geometric_mean(t.ratio(OURS, name) for t in timings):.2f}" for name in (BARE, *peers)]
    rows.append(["geometric mean", "", "", *means])
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join([_machine(setting), "", *("| " + " | ".join(line) + " |" for line in lines)])


def _machine(setting: Setting) -> str:
    device = torch.cuda.get_device_name() if torch.device(setting.device).type == "cuda" else _processor()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _installed())
    return (
        f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}. "
        f"{setting.nt_samples} copies, batch {setting.batch}, {setting.size} x {setting.size}, {setting.mode}, "
        f"{setting.targets} target(s), medians of {setting.rounds} rounds."
    )


def _installed() -> list[str]:
    return [n for n in ("torch", "torchvision", "captum", "torchcam") if importlib.util.find_spec(n)]


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
