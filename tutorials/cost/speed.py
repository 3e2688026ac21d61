"""What Smooth Grad-CAM++ costs against bare inference, and against the other packages that are installed.

All take turns in one process, in every round in the same order after a warm-up. Ratios are taken within a round; quote
their medians. Bare inference is the better of one batch and batches of three. Model and images have the same memory
format for everybody: contiguous, or with `--mode channels_last` that. Prints tables in Markdown.

    python speed.py --threads 2 --rounds 5
    python speed.py --network resnet18:layer4 --mode channels_last
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from captum.attr import LayerGradCam, NoiseTunnel
from setting import Setting, compiled_if_asked_for, model_and_images, parsed, parser
from tables import is_installed, markdown, summary
from timing import BARE, Runs, bare_runs, interleaved, quicker, ratio, repeated
from torch import Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus

OURS, PLAIN = "Smooth Grad-CAM++", "Grad-CAM++"
EAGER_BARE = "bare inference, not compiled"
NOISE_TUNNEL, TORCHCAM = "captum NoiseTunnel(LayerGradCam)", "torchcam SmoothGradCAMpp"
LAYER_GRAD_CAM, GRAD_CAM = "captum LayerGradCam", "grad-cam GradCAMPlusPlus"
# With what each is compared, where it ran.
BASELINES = {OURS: (BARE, EAGER_BARE, NOISE_TUNNEL, TORCHCAM), PLAIN: (LAYER_GRAD_CAM, GRAD_CAM)}


@dataclass(frozen=True)
class Timing:
    """Seconds of every round of each method in one case."""

    network: str
    layer: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, method: str, to: str) -> float:
        """Median over the rounds of `method`'s time divided by that of `to`."""
        return ratio(self.seconds[method], self.seconds[to])


def measure(network: str, layer: str, setting: Setting) -> Timing:
    """Time all methods in one case; of bare inference the quicker way is kept.

    Args:
        network: name of a torchvision model.
        layer: name of its module.
        setting: what is measured.
    """
    model, images = model_and_images(network, setting)
    seconds = interleaved(methods(model, model.get_submodule(layer), images, setting), setting)
    bare = {name: quicker(seconds, name) for name in (BARE, EAGER_BARE)[: 1 + setting.is_compiled]}
    return Timing(network, layer, {**bare, **seconds})


def methods(model: nn.Module, layer: nn.Module, images: Tensor, setting: Setting) -> Runs:
    """What runs in turn: bare inference of the `n + 1` images, ours, and the other packages that are installed."""
    n, target = setting.nt_samples, 1
    copies = repeated(images, n + 1, setting)
    explained = compiled_if_asked_for(model, setting)
    smooth = LayerSmoothGradCamPlusPlus(explained, layer)
    plain = LayerGradCamPlusPlus(explained, layer)
    targets = list(range(1, setting.targets + 1))
    runs = bare_runs(explained, copies)
    if setting.is_compiled:
        runs |= bare_runs(model, copies, EAGER_BARE)
    runs[OURS] = lambda: smooth.attribute_targets(images, targets, nt_samples=n, stdevs=0.1)
    runs[PLAIN] = lambda: plain.attribute(images, target)
    return runs if setting.is_compiled else runs | _baselines(model, layer, images, setting)


def _baselines(model: nn.Module, layer: nn.Module, images: Tensor, setting: Setting) -> Runs:
    """The other packages, which do not explain compiled models; two of them know neither batches nor bfloat16."""
    n, target = setting.nt_samples, 1
    tunnel = NoiseTunnel(LayerGradCam(model, layer))
    runs: Runs = {
        LAYER_GRAD_CAM: lambda: LayerGradCam(model, layer).attribute(images, target),
        NOISE_TUNNEL: lambda: tunnel.attribute(images, nt_samples=n, stdevs=0.1, target=target),
    }
    if setting.batch > 1 or setting.is_bfloat16:
        return runs
    if is_installed("torchcam"):
        runs[TORCHCAM] = lambda: _torchcam(model, layer, images, n, target)
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
    lines = [summary(setting)]
    for subject, baselines in BASELINES.items():
        lines += ["", *_table(timings, setting, subject, [name for name in baselines if name in timings[0].seconds])]
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
