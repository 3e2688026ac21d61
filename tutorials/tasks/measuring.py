"""What the three measurements share: the methods, means with intervals, and tables in Markdown."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.metrics import bootstrap_interval
from captum_sgcampp.storage.atomic import written_whole

NT_SAMPLES = 16
NOISE_LEVEL = 0.15
BATCH = 20  # images in one call


def grad_cam(forward: Any, layer: nn.Module, inputs: Tensor, targets: Sequence[Any], arguments: Any) -> list[Tensor]:
    """Captum's, once for each target."""
    method = LayerGradCam(forward, layer)
    return [method.attribute(inputs, t, arguments, relu_attributions=True).detach() for t in targets]


def grad_cam_plus_plus(
    forward: Any,
    layer: nn.Module,
    inputs: Tensor,
    targets: Sequence[Any],
    arguments: Any,
    two_sided: bool = False,
) -> list[Tensor]:
    """All targets in one pass."""
    return LayerGradCamPlusPlus(forward, layer).attribute_targets(
        inputs, targets, additional_forward_args=arguments, relu_attributions=True, two_sided=two_sided
    )


def smooth_grad_cam_plus_plus(
    forward: Any,
    layer: nn.Module,
    inputs: Tensor,
    targets: Sequence[Any],
    arguments: Any,
    nt_samples: int = NT_SAMPLES,
    noise_level: float = NOISE_LEVEL,
    two_sided: bool = False,
) -> list[Tensor]:
    """All targets over the same noisy samples; the noise is on the image alone."""
    return LayerSmoothGradCamPlusPlus(forward, layer).attribute_targets(
        inputs,
        targets,
        additional_forward_args=arguments,
        relu_attributions=True,
        nt_samples=nt_samples,
        noise_level=noise_level,
        two_sided=two_sided,
        generator=torch.Generator().manual_seed(0),
    )


METHODS: Mapping[str, Callable[..., list[Tensor]]] = {
    "Grad-CAM": grad_cam,
    "Grad-CAM++": grad_cam_plus_plus,
    "Smooth Grad-CAM++": smooth_grad_cam_plus_plus,
}


def upsampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `(N, 1, *space)` in the size of the input, `(N, *size)`."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return LayerAttribution.interpolate(maps, tuple(size), mode)[:, 0].clamp_min(0)


def share(map_: Tensor, inside: Tensor, among: Tensor) -> float | None:
    """The part of a map's sum over `among` that lies on `inside`; None where there is nothing to share."""
    total = float(map_[among].sum())
    return float(map_[inside].sum()) / total if total > 0 else None


def with_interval(values: Sequence[float], digits: int = 2) -> str:
    """The mean, and its 95 % bootstrap interval over the images."""
    if not values:
        return "-"
    tensor = torch.tensor(values, dtype=torch.float64)
    low, high = bootstrap_interval(tensor)
    return f"{float(tensor.mean()):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *rows))


def run(
    measure: Callable[[int], str],
    count: int,
    description: str | None,
    argv: Sequence[str] | None,
    nt_samples: int = NT_SAMPLES,
) -> None:
    """The command line of a measurement: a page in Markdown, printed and perhaps written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help="fresh examples (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file to write")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    start = time.monotonic()
    page = measure(chosen.count)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "captum"))
    page += (
        f"\n{nt_samples} noisy samples, noise level {NOISE_LEVEL}. Python {platform.python_version()}, {versions}, "
        "one thread. In brackets: 95 % bootstrap intervals over the examples.\n"
    )
    print(page)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if chosen.out:
        with written_whole(chosen.out) as unfinished:
            unfinished.write_text(page)
