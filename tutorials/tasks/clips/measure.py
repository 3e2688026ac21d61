"""Measures maps of actions against what acts, and when, and by the confidence that they keep. In `tutorials`:

python -m tasks.clips.measure --out tasks/clips/results.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from captum_sgcampp.metrics import (
    average_drop,
    class_confidence,
    explanation_inputs,
    increase_in_confidence,
    unit_range,
    win,
)
from tasks.clips.network import LAYER, ActionNet, inputs, load_action_net
from tasks.clips.scenes import FRAMES, SIZE, Clip, draw_clip
from tasks.clips.train import accuracy
from tasks.measuring import BATCH, METHODS, markdown, run, share, upsampled, with_interval
from tasks.training import fresh_seeds

UNIFORM, HALF = "a uniform map", "half of the clip's contrast"
PAPER = {"Grad-CAM": ("95.26", "0.84", "5.91"), "Grad-CAM++": ("59.79", "6.68", "94.09")}  # table 6

Found = dict[tuple[str, str], list[float]]  # one number per clip, by the method and what is measured


def measure(count: int) -> str:
    """The page."""
    network = load_action_net()
    found: Found = defaultdict(list)
    seeds = fresh_seeds(count)
    for start in range(0, count, BATCH):
        clips = [draw_clip(seed) for seed in seeds[start : start + BATCH]]
        targets = torch.tensor([clip.action for clip in clips])
        maps = {
            name: upsampled(explain(network, network.get_submodule(LAYER), inputs(clips), [targets], None)[0], _size())
            for name, explain in METHODS.items()
        }
        maps[UNIFORM] = torch.ones(len(clips), *_size())
        for name, of_method in maps.items():
            for clip, map_ in zip(clips, of_method, strict=True):
                _add_shares(found, name, clip, map_)
        _add_confidences(found, network, clips, maps)
    right = 100 * accuracy(network, seeds)
    return f"# Clips: {count} fresh clips, {right:.1f} % of the actions right\n\n{_tables(found)}\n"


def _size() -> tuple[int, int, int]:
    return FRAMES, SIZE, SIZE


def _add_shares(found: Found, method: str, clip: Clip, map_: Tensor) -> None:
    """Where one map `(FRAMES, H, W)` lies."""
    masks, acting = torch.from_numpy(clip.masks), torch.from_numpy(clip.acting)
    objects, everything = masks.any(0), torch.ones_like(masks[0])
    in_time = everything & acting[:, None, None]
    values = {
        "mover": share(map_, masks[0], objects),
        "frames": share(map_, in_time, everything),
        "both": share(map_, masks[0] & in_time, everything),
    }
    for what, value in values.items():
        if value is not None:
            found[method, what].append(value)
    peak = int(map_.flatten().argmax())
    if method != UNIFORM:
        found[method, "peak on mover"].append(float(masks[0].flatten()[peak]))
        found[method, "peak in time"].append(float(in_time.flatten()[peak]))


def _add_confidences(found: Found, network: ActionNet, clips: Sequence[Clip], maps: dict[str, Tensor]) -> None:
    """Table 6: the confidence that is left of clips multiplied by their maps."""
    images, targets = inputs(clips), torch.tensor([clip.action for clip in clips])
    whole = class_confidence(network, images, targets)
    weights = {name: unit_range(maps[name].flatten(1, 2)) for name in METHODS}
    weights[HALF] = torch.full_like(weights["Grad-CAM"], 0.5)
    kept = {
        name: class_confidence(network, explanation_inputs(images.flatten(2, 3), map_).view_as(images), targets)
        for name, map_ in weights.items()
    }
    for name, confidence in kept.items():
        found[name, "drop"] += average_drop(whole, confidence).tolist()
        found[name, "increase"] += increase_in_confidence(whole, confidence).tolist()
        found[name, "area"] += weights[name].mean((1, 2)).tolist()
        if name != "Grad-CAM":
            found[name, "win"] += win(confidence, kept["Grad-CAM"]).tolist()


def _tables(found: Found) -> str:
    places = ["mover", "frames", "both", "peak on mover", "peak in time"]
    heads = ["method", "on the mover, of objects", "in the right frames", "on the mover in the right frames"]
    rows = [[name, *(with_interval(found[name, what]) for what in places)] for name in [*METHODS, UNIFORM]]
    first = markdown([*heads, "maximum on the mover", "maximum in the right frames"], rows)
    rows = []
    for name in [*METHODS, HALF]:
        measured = [with_interval(found[name, what], 1) for what in ("drop", "increase", "win")]
        rows.append([name, *measured, with_interval(found[name, "area"]), ", ".join(PAPER.get(name, ("-",)))])
    heads = ["method", "average drop %", "increase %", "win % against Grad-CAM", "mean of the map"]
    second = markdown([*heads, "paper's drop, increase, win"], rows)
    return (
        f"Where the map lies, as shares:\n\n{first}\n\nTable 6 of the Grad-CAM++ paper (C3D, Sports-1M), and here:"
        f"\n\n{second}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    run(measure, 300, __doc__, argv)


if __name__ == "__main__":
    main()
