"""Pictures of a run's maps, as `explain` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from captum_sgcampp.dataset.columns import Row
from captum_sgcampp.storage.checksums import digest
from captum_sgcampp.vision.methods import METHODS
from captum_sgcampp.vision.pictures import save_picture, shortened
from captum_sgcampp.visualization import compare_maps, draw_color_bar

FOLDER = "__overlays__"  # two underscores, so that readers of a folder of Parquet files leave it out
LONGEST_NAME = 200  # of 255 bytes


def overlay(shown: Image.Image, row: Row) -> Figure:
    """What the model sees and the map of a row, as `explain` draws them: colors from 0 to the largest value, with the
    class, its probability and a color bar."""
    values = np.asarray(row["map"], np.float32).reshape(row["height"], row["width"])
    title = f"{METHODS[row['method']]}\n{shortened(row['layer'])}"
    names = f"{shortened(row['image'])}\n{shortened(row['target_name'])}: {row['probability']:.3f}"
    figure = compare_maps(shown, {title: torch.from_numpy(values)}, names)
    draw_color_bar(figure)
    return figure


def save_overlays(folder: Path, shown: Image.Image, rows: Sequence[Row]) -> None:
    """Writes a picture of every map of one image into the folder of the run."""
    for row in rows:
        if row.get("map") is None:
            continue
        path = folder / FOLDER / _file_name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(path, overlay(shown, row))


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
