"""What the method costs: against bare inference, and against the peers that are installed.

All contestants run in turn in one process, in every round in the same order after a warm-up, and the ratios are taken
within a round; quote the medians. Nothing here is a test.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torchvision
from captum.attr import LayerGradCam, NoiseTunnel
from torch import Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus

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
EAGER_BARE = "bare inference, not compiled"
PLAIN, LAYER_GRAD_CAM, GRAD_CAM = "Grad-CAM++", "captum LayerGradCam", "grad-cam GradCAMPlusPlus"
# What Grad-CAM++, one pass, is compared with; everything else is compared with Smooth Grad-CAM++.
PLAIN_PEERS = (LAYER_GRAD_CAM, GRAD_CAM)
MODES = ("float32", "channels_last", "bfloat16", "compiled", "compiled_bfloat16")
# Bare inference runs in batches of at most this many images: more are slower on a CPU, and need not fit elsewhere.
CPU_BATCH, ACCELERATOR_BATCH = 16, 128


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        nt_samples: noisy copies.
        batch: images explained at once.
        size: height and width of the images.
        rounds: rounds after the warm-up.
        device: torch device.
        mode: `"float32"`, `"channels_last"`, `"bfloat16"` (autocast and channels_last), `"compiled"`
            (`torch.compile`, float32), or `"compiled_bfloat16"` (all three).
        targets: targets explained in one call.
    """

    nt_samples: int = 8
    batch: int = 1
    size: int = 224
    rounds: int = 3
    device: str = "cpu"
    mode: str = "float32"
    targets: int = 1

    @property
    def is_bfloat16(self) -> bool:
        """Whether autocast to bfloat16 is on."""
        return self.mode.endswith("bfloat16")

    @property
    def is_channels_last(self) -> bool:
        """Whether model and images have that memory format."""
        return self.mode == "channels_last" or self.is_bfloat16

    @property
    def is_compiled(self) -> bool:
        """Whether the model is compiled."""
        return self.mode.startswith("compiled")


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
    model, images = model_and_images(network, setting)
    runs = contestants(model, model.get_submodule(layer), images, setting)
    return Timing(network, layer, interleaved(runs, setting))


def model_and_images(network: str, setting: Setting) -> tuple[nn.Module, Tensor]:
    """The network with random weights, and random images, in the setting's mode."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(network, weights=None).eval().to(setting.device)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    if setting.is_channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    return model, images


def compiled_if_asked_for(model: nn.Module, setting: Setting) -> nn.Module:
    """The model, compiled in the modes for that."""
    return cast(nn.Module, torch.compile(model)) if setting.is_compiled else model


def interleaved(runs: dict[str, Callable[[], object]], setting: Setting) -> dict[str, list[float]]:
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


def contestants(
    model: nn.Module, layer: nn.Module, images: Tensor, setting: Setting
) -> dict[str, Callable[[], object]]:
    """What runs in turn: bare inference of the `n + 1` images in one batch, ours, and the peers that are installed."""
    n, target = setting.nt_samples, 1
    copies = images.repeat_interleave(n + 1, 0)
    explained = compiled_if_asked_for(model, setting)
    smooth = LayerSmoothGradCamPlusPlus(explained, layer)
    plain = LayerGradCamPlusPlus(explained, layer)
    tunnel = NoiseTunnel(LayerGradCam(model, layer))
    targets = list(range(1, setting.targets + 1))
    runs: dict[str, Callable[[], object]] = {BARE: lambda: bare_inference(explained, copies)}
    if setting.is_compiled:
        runs[EAGER_BARE] = lambda: bare_inference(model, copies)
    runs[OURS] = lambda: smooth.attribute_targets(images, targets, nt_samples=n, stdevs=0.1)
    runs[PLAIN] = lambda: plain.attribute(images, target)
    if setting.is_compiled:
        return runs  # the peers do not explain compiled models
    runs[LAYER_GRAD_CAM] = lambda: LayerGradCam(model, layer).attribute(images, target)
    runs["captum NoiseTunnel(LayerGradCam)"] = lambda: tunnel.attribute(images, nt_samples=n, stdevs=0.1, target=target)
    if setting.batch == 1 and setting.mode == "float32" and _is_installed("torchcam"):
        runs["torchcam SmoothGradCAMpp"] = lambda: _torchcam(model, layer, images, n, target)
        if _is_installed("grad-cam"):
            runs[GRAD_CAM] = lambda: _grad_cam(model, layer, images, target)
    return runs


def _grad_cam(model: nn.Module, layer: nn.Module, images: Tensor, target: int) -> Any:
    from pytorch_grad_cam import GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAMPlusPlus(model=model, target_layers=[layer]) as method:
        return method(input_tensor=images, targets=[ClassifierOutputTarget(target)] * len(images))


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
    if setting.is_bfloat16:
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
    """The figures as two tables in Markdown, with machine and versions."""
    names = list(timings[0].seconds)
    peers = [name for name in names if name not in (OURS, BARE, PLAIN, *PLAIN_PEERS)]
    lines = [machine(setting), "", *_table(timings, setting, OURS, [BARE, *peers])]
    plain_peers = [name for name in PLAIN_PEERS if name in names]
    lines += ["", *_table(timings, setting, PLAIN, plain_peers)]
    return "\n".join(lines)


def _table(timings: list[Timing], setting: Setting, subject: str, others: list[str]) -> list[str]:
    heads = ["network", "layer", f"{subject}: seconds", "images/s", *(f"/ {name}" for name in others)]
    rows = []
    for t in timings:
        seconds = statistics.median(t.seconds[subject])
        ratios = [f"{t.ratio(subject, name):.2f}" for name in others]
        rows.append([t.network, t.layer, f"{seconds:.3f}", f"{setting.batch / seconds:.1f}", *ratios])
    means = [statistics.geometric_mean(t.ratio(subject, name) for t in timings) for name in others]
    rows.append(["geometric mean", "", "", "", *(f"{mean:.2f}" for mean in means)])
    return markdown(heads, rows)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    return ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *rows)]


def machine(setting: Setting) -> str:
    """Machine, versions and setting in a sentence."""
    device = torch.cuda.get_device_name() if torch.device(setting.device).type == "cuda" else _processor()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _installed())
    return (
        f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}. "
        f"{setting.nt_samples} copies, batch {setting.batch}, {setting.size} x {setting.size}, {setting.mode}, "
        f"{setting.targets} target(s), medians of {setting.rounds} rounds."
    )


def _installed() -> list[str]:
    return [n for n in ("torch", "torchvision", "captum", "torchcam", "grad-cam") if _is_installed(n)]


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
