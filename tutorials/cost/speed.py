"""What Smooth Grad-CAM++ costs against bare inference, and against the other packages that are installed.

All take turns in one process, in every round in the same order after a warm-up. Ratios are taken within a round; quote
their medians. Prints tables in Markdown.

    python speed.py --threads 2 --rounds 5
    python speed.py --network resnet18:layer4 --mode channels_last
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from captum.attr import LayerGradCam, NoiseTunnel
from setting import Setting, compiled_if_asked_for, model_and_images, parsed, parser
from tables import is_installed, machine, markdown
from timing import BARE, bare_inference, interleaved
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

OURS = "Smooth Grad-CAM++"
EAGER_BARE = "bare inference, not compiled"
PLAIN, LAYER_GRAD_CAM, GRAD_CAM = "Grad-CAM++", "captum LayerGradCam", "grad-cam GradCAMPlusPlus"
# What Grad-CAM++, one pass, is compared with; everything else is compared with Smooth Grad-CAM++.
PLAIN_PEERS = (LAYER_GRAD_CAM, GRAD_CAM)


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
    if setting.batch == 1 and setting.mode == "float32" and is_installed("torchcam"):
        runs["torchcam SmoothGradCAMpp"] = lambda: _torchcam(model, layer, images, n, target)
        if is_installed("grad-cam"):
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    names = ("network", "nt-samples", "batch", "size", "targets", "rounds", "threads", "device", "mode")
    arguments, setting = parsed(parser(__doc__, *names), argv)
    timings = []
    for network, layer in arguments.network:
        print(f"measuring {network} {layer}", file=sys.stderr)
        timings.append(measure(network, layer, setting))
    print(report(timings, setting))


if __name__ == "__main__":
    main()
