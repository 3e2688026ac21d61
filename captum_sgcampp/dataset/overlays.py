"""Pictures of a run's maps, laid over what the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib import colormaps
from PIL import Image

from captum_sgcampp.dataset.columns import Row
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.storage.checksums import digest

FOLDER = "__overlays__"  # two underscores, so that readers of a folder of Parquet files leave it out
OPACITY, COLORS = 0.5, "jet"
LONGEST_NAME = 200  # of 255 bytes


def overlay(shown: Image.Image, row: Row) -> Image.Image:
    """The map of a row over the picture, from its smallest value (blue) to its largest (red)."""
    values = np.asarray(row["map"], np.float32).reshape(row["height"], row["width"])
    low, high = float(values.min()), float(values.max())
    scaled = np.zeros_like(values) if high == low else (values - low) / (high - low)
    large = np.asarray(Image.fromarray(scaled).resize(shown.size, Image.Resampling.BILINEAR))
    colors = Image.fromarray((255 * colormaps[COLORS](large)[..., :3]).round().astype(np.uint8))
    return Image.blend(shown.convert("RGB"), colors, OPACITY)


def save_overlays(folder: Path, shown: Image.Image, rows: Sequence[Row]) -> None:
    """Writes a picture of every map of one image into the folder of the run."""
    for row in rows:
        if row.get("map") is None:
            continue
        path = folder / FOLDER / _file_name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            overlay(shown, row).save(unfinished)


def _file_name(row: Row) -> Path:
    """The image's folders and name, then class, method and layer."""
    *folders, name = [part for part in row["image"].split("/") if part]
    details = f"{row['target']}.{row['method']}.{row['layer']}.png"
    return Path(*map(_safe, folders), _safe(f"{name}.{details}"))


def _safe(part: str) -> str:
    """A name that no system reads as something else."""
    quoted = quote(part, safe=" +,;=()[]{}@&!'")
    quoted = quoted.replace(".", "%2E") if set(quoted) == {"."} else quoted
    if len(quoted) <= LONGEST_NAME:
        return quoted
    return f"{quoted[: LONGEST_NAME - 40]}{digest(part.encode())}{quoted[-20:]}"
