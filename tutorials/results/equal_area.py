"""Does the confidence that the top pixels keep depend on what stands in for the others, and on the ReLU of the map?

    python equal_area.py > equal_area.md

The traffic signs, whose inputs are black where they are 0. After the map's ReLU its zeros are ordered at random; before
it, every pixel has its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import trained_networks
from captum.attr import LayerGradCam
from torch import Generator, Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus, metrics
from captum_sgcampp.evaluation.cases import ImageFolder, image_seed
from captum_sgcampp.functional.gradient_maps import hires_cam_terms
from captum_sgcampp.vision.gradient_maps import gradient_maps

NETWORK, LAYER, PICTURES, SHARE = "gtsrb", "features.8", "samples/signs", 0.25
FILLS = {"zero": "black", "mean": "the image's mean color", "blur": "the image, blurred"}
Explain = Callable[[nn.Module, nn.Module, Tensor, int, int], Tensor]


def two_sided_smooth(model: nn.Module, layer: nn.Module, x: Tensor, target: int, seed: int) -> Tensor:
    method = LayerSmoothGradCamPlusPlus(model, layer)
    generator = Generator().manual_seed(seed)
    maps: Tensor = method.attribute(x, target, nt_samples=8, generator=generator, two_sided=True)
    return maps


METHODS: dict[str, Explain] = {
    "Grad-CAM": lambda model, layer, x, target, seed: LayerGradCam(model, layer).attribute(x, target),
    "Grad-CAM++": lambda model, layer, x, target, seed: LayerGradCamPlusPlus(model, layer).attribute(x, target),
    "two-sided smooth": two_sided_smooth,
    "HiResCAM": lambda model, layer, x, target, seed: gradient_maps(
        model, [layer], x, [target], terms=hires_cam_terms, relu_attributions=False
    )[0][0],
}


def kept(model: nn.Module, x: Tensor, target: int, maps: Tensor, fill: str) -> Tensor:
    """Share of the confidence that the top pixels keep before a fill, of each map."""
    shown = metrics.top_pixels(metrics.image_maps(maps, x.shape[2:]), SHARE)[:, None] > 0
    part = torch.where(shown, x, metrics.baseline_images(x, fill))
    whole, left = (metrics.class_confidence(model, inputs, target) for inputs in (x, part))
    return metrics.confidence_kept(whole, left)


def measured() -> Iterator[dict[tuple[str, str, bool], float]]:
    """For each image what each method keeps with each fill, after its ReLU (True) and before."""
    classifier = trained_networks.load(NETWORK)
    model = classifier.model
    cases = ImageFolder(classifier, trained_networks.assets() / PICTURES, torch.device("cpu"))
    for item in cases.items():
        case = cases.load(item)
        x, target, seed = case.inputs, case.target, image_seed(0, item.name, "noise")
        found = {name: explain(model, model.get_submodule(LAYER), x, target, seed) for name, explain in METHODS.items()}
        yield {
            (name, fill, relu): float(kept(model, x, target, maps.relu() if relu else maps, fill))
            for name, maps in found.items()
            for fill in FILLS
            for relu in (True, False)
        }


def table(rows: list[dict[tuple[str, str, bool], float]]) -> str:
    """Means with intervals in Markdown."""
    heads = [f"{title}, {'after' if relu else 'before'} the ReLU" for title in FILLS.values() for relu in (True, False)]
    lines = [["method", *heads], ["---"] * (len(heads) + 1)]
    for name in METHODS:
        keys = [(name, fill, relu) for fill in FILLS for relu in (True, False)]
        lines.append([name, *(_cell(torch.tensor([row[key] for row in rows])) for key in keys)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(values: Tensor) -> str:
    low, high = metrics.bootstrap_interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    torch.set_num_threads(1)
    rows = list(measured())
    print(f"# Confidence kept by the top {100 * SHARE:g} % of the pixels of {len(rows)} traffic signs\n")
    print(
        "The columns say what stands in for the other pixels, and whether the map is ordered after or before its ReLU."
    )
    print(f"`{LAYER}`, 95 % bootstrap intervals; `python equal_area.py > equal_area.md` made this page.\n")
    print(table(rows))


if __name__ == "__main__":
    main()
