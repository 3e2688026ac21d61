"""Measures maps of a real network for visual question answering, which SGCAMPP_ASSETS holds. In `tutorials`:

python -m tasks.easy_vqa.measure --out tasks/easy_vqa/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from tasks.assets import load_network
from tasks.easy_vqa.samples import SIZE, Asked, inputs, load_picture, load_questions, shape_mask
from tasks.measuring import NOISE_LEVEL, NT_SAMPLES, grad_cam, markdown, run, share, upsampled, with_interval

LAYERS = ("conv1", "conv2", "conv3")
UNIFORM = "a uniform map"
_BATCH = 64  # questions in one call

Found = dict[tuple[str, str, str], dict[int, list[float]]]  # by layer, method, what is measured, and picture


def plus_plus(
    network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, bags: Tensor, **options: Any
) -> Any:
    """Grad-CAM++ with more options."""
    method = LayerGradCamPlusPlus(network, layer)
    return method.attribute(images, targets, bags, relu_attributions=True, **options)


def smooth(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, bags: Tensor, **options: Any) -> Any:
    """Smooth Grad-CAM++ with more options; the noise is on the picture alone."""
    options |= {"nt_samples": NT_SAMPLES, "noise_level": NOISE_LEVEL, "generator": Generator().manual_seed(0)}
    method = LayerSmoothGradCamPlusPlus(network, layer)
    return method.attribute(images, targets, bags, relu_attributions=True, **options)


def captums(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, bags: Tensor) -> Tensor:
    """Captum's Grad-CAM."""
    return grad_cam(network, layer, images, [targets], bags)[0]


METHODS: Mapping[str, Any] = {
    "Grad-CAM": captums,
    "Grad-CAM++": plus_plus,
    "Grad-CAM++, bound_alpha": partial(plus_plus, bound_alpha=True),
    "Smooth Grad-CAM++": smooth,
    "Smooth Grad-CAM++, bound_alpha": partial(smooth, bound_alpha=True),
    "two-sided Grad-CAM++": partial(plus_plus, two_sided=True),
    "two-sided Smooth Grad-CAM++": partial(smooth, two_sided=True),
}


def measure(count: int) -> str:
    """The page."""
    network = load_network("easy_vqa")
    asked = load_questions()[:count]
    found: Found = defaultdict(lambda: defaultdict(list))
    right = []
    for start in range(0, len(asked), _BATCH):
        right += _add(found, network, asked[start : start + _BATCH])
    title = f"# easy-VQA: {len(asked)} questions about {len({one.picture for one in asked})} pictures"
    return f"{title}, {100 * np.mean(right):.1f} % answered right\n\n{_tables(found)}\n"


def _add(found: Found, network: nn.Module, asked: Sequence[Asked]) -> list[bool]:
    """What the maps of the right answers tell, and which answers are right."""
    images, answers = inputs([one.picture for one in asked]), list(network.answers)
    bags = torch.stack([network.bow(one.question) for one in asked])
    targets = torch.tensor([answers.index(one.answer) for one in asked])
    for layer in LAYERS:
        module = network.get_submodule(layer)
        for method, explain in METHODS.items():
            _add_shares(found, layer, method, asked, explain(network, module, images, targets, bags))
        _add_shares(found, layer, UNIFORM, asked, torch.ones(len(asked), 1, 2, 2))
        _, statistics = smooth(network, module, images, targets, bags, return_statistics=True)
        for what in ("pole_share", "pole_weight_share"):
            for one, value in zip(asked, getattr(statistics, what).tolist(), strict=True):
                found[layer, "statistics", what][one.picture].append(value)
    with torch.no_grad():
        return (network(images, bags).argmax(1) == targets).tolist()


def _add_shares(found: Found, layer: str, method: str, asked: Sequence[Asked], maps: Tensor) -> None:
    for one, map_ in zip(asked, upsampled(maps, (SIZE, SIZE)), strict=True):
        inside = shape_mask(load_picture(one.picture))
        value = share(map_, inside, torch.ones_like(inside))
        if value is not None:
            found[layer, method, "share"][one.picture].append(value)


def _tables(found: Found) -> str:
    """Means of the pictures' means."""

    def cell(layer: str, method: str, what: str, digits: int = 2) -> str:
        return with_interval([float(np.mean(values)) for values in found[layer, method, what].values()], digits)

    shares = [[m, *(cell(layer, m, "share") for layer in LAYERS)] for m in [*METHODS, UNIFORM]]
    poles = [
        [text, *(cell(layer, "statistics", what) for layer in LAYERS)]
        for what, text in {"pole_share": "of the positions", "pole_weight_share": "of the weights"}.items()
    ]
    return (
        f"Share of the map of the right answer that lies on the shape:\n\n{markdown(['method', *LAYERS], shares)}\n\n"
        "What the statistics of Smooth Grad-CAM++ say: alpha is outside [0, 1/2], where the derivation puts it, at a "
        f"share\n\n{markdown(['share', *LAYERS], poles)}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 770, __doc__, argv)


if __name__ == "__main__":
    main()
