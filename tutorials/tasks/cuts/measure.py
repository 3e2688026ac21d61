"""Measures which frames, and which half of the picture, tell TransNet V2 that a shot ends. Needs SGCAMPP_ASSETS. In
`tutorials`:

python -m tasks.cuts.measure --out tasks/cuts/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tasks.assets import load_network, needed_folder
from tasks.cuts.scenes import FRAMES, HEIGHT, WIDTH, CutClip, draw_clip, inputs, near
from tasks.measuring import (
    METHODS,
    grad_cam_plus_plus,
    markdown,
    run,
    share,
    smooth_grad_cam_plus_plus,
    upsampled,
    with_interval,
)
from tasks.training import fresh_seeds

NETWORK = "transnetv2"
LAYERS = ("SDDCNN.0", "SDDCNN.1", "SDDCNN.2")  # maps of a clip: FRAMES x 13 x 24, x 6 x 12, x 3 x 6
NT_SAMPLES = 4  # within 0.4 % of the limit, says the standard error
BATCH = 4
SHOWN = slice(30, 60)  # of the real clip: the two cuts that the network finds
CLOSE, WIDE = 1, 4  # frames on either side of the change
TWO_SIDED, UNIFORM = "two-sided Grad-CAM++", "a uniform map"
HEADS = {
    "close": f"within {CLOSE} frame",
    "wide": f"within {WIDE} frames",
    "peak": f"maximum within {CLOSE} frame",
    "place": "on the half that changes",
    "both": f"of these {2 * WIDE} frames, on the half that changes",
}

CUT_METHODS: Mapping[str, Callable[..., list[Tensor]]] = {
    **METHODS,
    "Smooth Grad-CAM++": partial(smooth_grad_cam_plus_plus, nt_samples=NT_SAMPLES),
    TWO_SIDED: partial(grad_cam_plus_plus, two_sided=True),
}
PLAIN = ("Grad-CAM", "Grad-CAM++", TWO_SIDED)
KINDS = {  # methods by layer; noisy samples take long
    "whole": {LAYERS[0]: PLAIN, LAYERS[1]: PLAIN, LAYERS[2]: (*PLAIN, "Smooth Grad-CAM++")},
    "half": dict.fromkeys(LAYERS, PLAIN),
}
Found = dict[tuple[str, str, str], list[float]]  # one number per clip, by layer, method and what is measured


def photographs(folder: Path) -> list[Path]:
    """What the pans go over."""
    return sorted((folder / "imagenet").glob("*.jpg"))


def measure(count: int) -> str:
    """The page."""
    network, paths = load_network(NETWORK), photographs(needed_folder())
    parts = []
    for kind in KINDS:
        clips = [draw_clip(seed, paths, half=kind == "half") for seed in fresh_seeds(count)]
        found: Found = defaultdict(list)
        for start in range(0, count, BATCH):
            _add_batch(found, network, clips[start : start + BATCH], KINDS[kind])
        parts.append(f"## {count} {kind} cuts\n\n{_recognized(network, clips)}\n\n{_table(found, kind)}")
    return "\n\n".join(["# Cuts: when and where", *parts, _sample_clip(network)]) + "\n"


def _add_batch(
    found: Found, network: nn.Module, clips: Sequence[CutClip], methods: Mapping[str, Sequence[str]]
) -> None:
    targets = torch.tensor([clip.cut for clip in clips])
    for layer, names in methods.items():
        for name in names:
            (maps,) = CUT_METHODS[name](network, network.get_submodule(layer), inputs(clips), [targets], None)
            for clip, map_ in zip(clips, upsampled(maps, (FRAMES, HEIGHT, WIDTH)), strict=True):
                _add_shares(found, layer, name, clip, map_)
    for clip in clips:
        _add_shares(found, "", UNIFORM, clip, torch.ones(FRAMES, HEIGHT, WIDTH))


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
    lines = [(layer, name) for layer, names in KINDS[kind].items() for name in names]
    rows = [
        [layer or "-", name, *(with_interval(found[layer, name, what]) for what in columns), _zeros(found, layer, name)]
        for layer, name in [*lines, ("", UNIFORM)]
    ]
    return markdown(["layer", "method", *(HEADS[what] for what in columns), "maps of 0"], rows)


def _zeros(found: Found, layer: str, method: str) -> str:
    """How many maps have no positive value."""
    return str(len(found["", UNIFORM, "close"]) - len(found[layer, method, "close"]))


def _sample_clip(network: nn.Module) -> str:
    """The cuts of a real clip that the network finds, and the share of each map that is close to them."""
    stored = np.load(needed_folder() / "samples" / "clip.npz")
    frames, cuts = stored["frames"][SHOWN], (stored["cuts"] - SHOWN.start).tolist()
    clip, count = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float(), len(frames)
    rows = []
    for layer in LAYERS:
        for name in PLAIN:
            maps = CUT_METHODS[name](network, network.get_submodule(layer), clip, cuts, None)
            shares = [
                _share_of_frames(map_[0, 0], near(cut, CLOSE, count)) for map_, cut in zip(maps, cuts, strict=True)
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
