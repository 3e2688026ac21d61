"""Measures which frames, and which half of the picture, tell TransNet V2 that a shot ends. Needs SGCAMPP_ASSETS. In
`tutorials`:

python -m tasks.cuts.measure --out tasks/cuts/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from captum_sgcampp.functional.class_map import MapOptions, class_map
from captum_sgcampp.functional.moments import MeanDerivatives
from tasks.assets import load_network, needed_folder
from tasks.cuts.scenes import FRAMES, HEIGHT, WIDTH, CutClip, draw_clip, inputs, near
from tasks.measuring import markdown, run, share, smooth_grad_cam_plus_plus, upsampled, with_interval
from tasks.training import fresh_seeds

NETWORK = "transnetv2"
LAYERS = ("SDDCNN.0", "SDDCNN.1", "SDDCNN.2")  # maps of a clip: FRAMES x 13 x 24, x 6 x 12, x 3 x 6
NT_SAMPLES = 4  # within 0.4 % of the limit, says the standard error
SHOWN = slice(30, 60)  # of the real clip: the two cuts that the network finds
CLOSE, WIDE = 1, 4  # frames on either side of the change
GRAD_CAM, PLUS_PLUS, TWO_SIDED, UNIFORM = "Grad-CAM", "Grad-CAM++", "two-sided Grad-CAM++", "a uniform map"
HEADS = {
    "close": f"within {CLOSE} frame",
    "wide": f"within {WIDE} frames",
    "peak": f"maximum within {CLOSE} frame",
    "place": "on the half that changes",
    "both": f"of these {2 * WIDE} frames, on the half that changes",
}

SMOOTH, SMOOTH_CLIPS = "Smooth Grad-CAM++", 3  # noisy samples take long: of the first whole cuts, at the last layer

Found = dict[tuple[str, str, str], list[float]]  # one number per clip, by layer, method and what is measured


def photographs(folder: Path) -> list[Path]:
    """What the pans go over."""
    return sorted((folder / "imagenet").glob("*.jpg"))


def measure(count: int) -> str:
    """The page."""
    network, paths = load_network(NETWORK), photographs(needed_folder())
    parts = []
    for kind in ("whole", "half"):
        clips = [draw_clip(seed, paths, half=kind == "half") for seed in fresh_seeds(count)]
        found: Found = defaultdict(list)
        for number, clip in enumerate(clips):
            add_clip(found, network, clip, with_noise=kind == "whole" and number < SMOOTH_CLIPS)
        parts.append(f"## {count} {kind} cuts\n\n{_recognized(network, clips)}\n\n{_table(found, kind)}")
    return "\n\n".join(["# Cuts: when and where", *parts, _sample_clip(network)]) + "\n"


def add_clip(found: Found, network: nn.Module, clip: CutClip, with_noise: bool = False) -> None:
    """Where the maps of one clip lie."""
    maps = maps_of_one_pass(network, inputs([clip]), clip.cut)
    if with_noise:
        place = network.get_submodule(LAYERS[-1])
        (smooth,) = smooth_grad_cam_plus_plus(network, place, inputs([clip]), [clip.cut], None, NT_SAMPLES)
        maps[LAYERS[-1], SMOOTH] = smooth
    size = (FRAMES, HEIGHT, WIDTH)
    for (layer, name), map_ in maps.items():
        _add_shares(found, layer, name, clip, upsampled(map_, size)[0])
    _add_shares(found, "", UNIFORM, clip, torch.ones(size))


def maps_of_one_pass(network: nn.Module, clips: Tensor, target: int) -> dict[tuple[str, str], Tensor]:
    """Captum's Grad-CAM, Grad-CAM++ and its two-sided form at all layers, from one pass instead of nine."""
    kept: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
        for name in LAYERS
    ]
    with torch.enable_grad():
        score = network(clips)[:, target].sum()
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, list(kept.values()))
    return {
        (layer, name): map_
        for (layer, activation), gradient in zip(kept.items(), gradients, strict=True)
        for name, map_ in _maps(activation.detach(), gradient).items()
    }


def _maps(a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """From activations and gradients `(N, K, T, h, w)` to maps `(N, 1, T, h, w)`."""
    scale = g.flatten(1).abs().amax(1)
    unit = g / scale[:, None, None, None, None]
    powers = MeanDerivatives(unit, unit**2, unit**3, scale, torch.ones_like(scale))
    return {
        GRAD_CAM: (g.mean((2, 3, 4), keepdim=True) * a).sum(1, keepdim=True).relu(),
        PLUS_PLUS: class_map(a, powers, options=MapOptions(relu=True)).maps,
        TWO_SIDED: class_map(a, powers, options=MapOptions(relu=True, two_sided=True)).maps,
    }


def _add_shares(found: Found, layer: str, method: str, clip: CutClip, map_: Tensor) -> None:
    """When and where one map `(FRAMES, HEIGHT, WIDTH)` lies. One that is 0 everywhere has no place."""
    everything = torch.ones_like(map_, dtype=torch.bool)
    close, wide = (everything & torch.from_numpy(near(clip.cut, reach))[:, None, None] for reach in (CLOSE, WIDE))
    changed = everything & torch.from_numpy(np.ascontiguousarray(clip.changed))
    values = {
        "close": share(map_, close, everything),
        "wide": share(map_, wide, everything),
        "place": share(map_, changed, everything),
        "both": share(map_, changed & wide, wide),
    }
    if method != UNIFORM and float(map_.max()) > 0:
        values["peak"] = float(close.flatten()[int(map_.flatten().argmax())])
    for what, value in values.items():
        if value is not None:
            found[layer, method, what].append(value)


def _recognized(network: nn.Module, clips: Sequence[CutClip]) -> str:
    """What the network says of these clips."""
    with torch.no_grad():
        logits = torch.cat([network(inputs([clip])) for clip in clips])
    cuts = torch.tensor([clip.cut for clip in clips])
    highest = float((logits.argmax(1) == cuts).float().mean())
    positive = float((logits.gather(1, cuts[:, None]) > 0).float().mean())
    return (
        f"The logit is the highest at the true frame in {100 * highest:.0f} % of the clips, and above 0 there in "
        f"{100 * positive:.0f} %."
    )


def _table(found: Found, kind: str) -> str:
    columns = ("close", "wide", "peak") if kind == "whole" else ("close", "place", "both")
    rows = [
        [
            layer or "-",
            name,
            str(len(found[layer, name, "close"])),
            *(with_interval(found[layer, name, w]) for w in columns),
        ]
        for layer, name in sorted({(layer, name) for layer, name, _ in found}, key=_order)
    ]
    return markdown(["layer", "method", "clips", *(HEADS[what] for what in columns)], rows)


def _order(row: tuple[str, str]) -> tuple[int, int]:
    """By layer and method, the uniform map last."""
    names = (GRAD_CAM, PLUS_PLUS, SMOOTH, TWO_SIDED, UNIFORM)
    return (*LAYERS, "").index(row[0]), names.index(row[1])


def _sample_clip(network: nn.Module) -> str:
    """The cuts of a real clip that the network finds, and the share of each map that is close to them."""
    stored = np.load(needed_folder() / "samples" / "clip.npz")
    frames, cuts = stored["frames"][SHOWN], (stored["cuts"] - SHOWN.start).tolist()
    clip, count = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float(), len(frames)
    by_cut = [maps_of_one_pass(network, clip, cut) for cut in cuts]
    rows = []
    for layer, name in by_cut[0]:
        shares = [
            _share_of_frames(maps[layer, name][0, 0], near(cut, CLOSE, count))
            for maps, cut in zip(by_cut, cuts, strict=True)
        ]
        rows.append([layer, name, *shares])
    uniform = f"{2 * CLOSE / count:.2f}"
    rows.append(["-", UNIFORM, uniform, uniform])
    heads = ["layer", "method", *(f"frame {cut + SHOWN.start}: {HEADS['close']}" for cut in cuts)]
    return f"## {count} frames of a real clip\n\n{markdown(heads, rows)}"


def _share_of_frames(map_: Tensor, frames: np.ndarray) -> str:
    """The share of a map `(T, h, w)`, at least 0, that lies in some frames."""
    by_frame = map_.sum((1, 2))
    value = share(by_frame, torch.from_numpy(frames), torch.ones_like(by_frame, dtype=torch.bool))
    return "map of 0" if value is None else f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 16, __doc__, argv, NT_SAMPLES)


if __name__ == "__main__":
    main()
