"""Measures maps of a brain scan: how much lies in the region that is explained, and on its tissue. Needs
SGCAMPP_ASSETS. In `tutorials`:

python -m tasks.volumes.measure --out tasks/volumes/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.assets import load_network
from tasks.measuring import (
    grad_cam,
    grad_cam_plus_plus,
    markdown,
    run,
    share,
    smooth_grad_cam_plus_plus,
    with_interval,
)
from tasks.volumes.regions import LAYERS, NETWORK, TISSUES, ManyRegionScores, Region, regions_of, scan

NT_SAMPLES = 4
GRAD_CAM, PLUS_PLUS, TWO_SIDED = "Grad-CAM", "Grad-CAM++", "two-sided Grad-CAM++"
OF_SUM, SMOOTH = "Grad-CAM++ of the sum", "Smooth Grad-CAM++"
UNIFORM, LOGIT = "a uniform map", "the tissue's own logit, where above 0"
# What follows layer 15 is linear, so that Smooth Grad-CAM++ is Grad-CAM++ there.
METHODS_OF = {
    "13": (GRAD_CAM, PLUS_PLUS, OF_SUM, TWO_SIDED, SMOOTH),
    "15": (GRAD_CAM, PLUS_PLUS, OF_SUM, TWO_SIDED),
}
HEADS = {
    "region": "in the region",
    "tissue": "on its tissue",
    "brain": "on both tissues",
    "peak": "maximum on its tissue",
}
DIGITS = {"region": 3}  # after the point; a region is small

Found = dict[tuple[str, str, str], list[float]]  # one number per region, by layer, method and what is measured


def measure(count: int) -> str:
    """The page."""
    network, volume = load_network(NETWORK), scan()
    with torch.no_grad():
        logits = network(volume)
    regions = regions_of(logits)[:count]
    found: Found = defaultdict(list)
    predicted = logits.argmax(1)[0]
    for layer in LAYERS:
        for name in METHODS_OF[layer]:
            for region, map_ in zip(regions, explained(network, layer, name, volume, regions), strict=True):
                _add_shares(found, layer, name, region, map_[0, 0].clamp_min(0), predicted)
    for region in regions:
        _add_shares(found, "", UNIFORM, region, torch.ones(logits.shape[2:]), predicted)
        _add_shares(found, "", LOGIT, region, logits[0, region.tissue].clamp_min(0), predicted)
    kinds = ", ".join(f"{sum(r.tissue == tissue for r in regions)} of {name}" for tissue, name in TISSUES.items())
    return f"# Volumes: {len(regions)} regions of one scan ({kinds})\n\n{_table(found)}\n"


def explained(network: nn.Module, layer: str, method: str, volume: Tensor, regions: Sequence[Region]) -> list[Tensor]:
    """The maps of all regions."""
    if method == GRAD_CAM:
        return _grad_cam(network, layer, volume, regions)
    scores = ManyRegionScores(network, regions, "sum" if method == OF_SUM else "mean")
    place, targets = network.get_submodule(layer), range(len(regions))
    if method == SMOOTH:
        return smooth_grad_cam_plus_plus(scores, place, volume, targets, None, NT_SAMPLES)
    return grad_cam_plus_plus(scores, place, volume, targets, None, two_sided=method == TWO_SIDED)


def _grad_cam(network: nn.Module, layer: str, volume: Tensor, regions: Sequence[Region]) -> list[Tensor]:
    """Captum's runs the network once for each target; what comes before the layer need not run again."""
    modules = list(network)  # type: ignore[call-overload]
    number = int(layer)
    before, after = nn.Sequential(*modules[:number]), nn.Sequential(*modules[number:])
    with torch.no_grad():
        features = before(volume)
    scores = ManyRegionScores(after, regions)
    return grad_cam(scores, after[0], features, range(len(regions)), None)


def _add_shares(found: Found, layer: str, method: str, region: Region, map_: Tensor, predicted: Tensor) -> None:
    """Where one map `(D, H, W)` lies. One that is 0 everywhere has no place."""
    everything, tissue = torch.ones_like(predicted, dtype=torch.bool), predicted == region.tissue
    values = {
        "region": share(map_, region.voxels, everything),
        "tissue": share(map_, tissue, everything),
        "brain": share(map_, predicted > 0, everything),
    }
    if method != UNIFORM and float(map_.max()) > 0:
        values["peak"] = float(tissue.flatten()[int(map_.flatten().argmax())])
    for what, value in values.items():
        if value is not None:
            found[layer, method, what].append(value)


def _table(found: Found) -> str:
    rows = []
    for layer, name in dict.fromkeys((layer, name) for layer, name, _ in found):
        measured = [with_interval(found[layer, name, what], DIGITS.get(what, 2)) for what in HEADS]
        rows.append([layer or "-", name, *measured])
    return markdown(["layer", "method", *HEADS.values()], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 27, __doc__, argv, NT_SAMPLES)


if __name__ == "__main__":
    main()
