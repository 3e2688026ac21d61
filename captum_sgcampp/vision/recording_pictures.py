"""Pictures of maps of clips, volumes and signals, and maps of volumes as NIfTI files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.recordings import CLIP, SIGNAL, VOLUME, Array, Recording
from captum_sgcampp.visualization import save_clip, show_clip, show_signal, show_volume

GIF_RATES = (2.0, 50.0)  # frames per second of a GIF that browsers can play
USUAL_RATE = 10.0
DIMENSIONS = {CLIP: 3, VOLUME: 3, SIGNAL: 1}  # of a map in space and time


def save_recording_picture(path: Path, recording: Recording, maps: Tensor, title: str, cmap: str) -> list[Path]:
    """A clip as a strip of frames, and as a GIF beside it; a volume as three slices; a signal as a line.

    Args:
        path: the file of the picture. One that is there is replaced.
        recording: what the model sees.
        maps: `(1, 1, *space)`, with as many dimensions as the kind has, and perhaps more of size 1.
        title: shown as it is.
        cmap: color map of matplotlib.

    Returns:
        The files that were written.
    """
    maps = maps.flatten(1 + DIMENSIONS[recording.kind])  # further dimensions have size 1, as in audio networks
    with written_whole(path) as unfinished:
        _figure(recording, maps, title, cmap).savefig(unfinished, dpi=150, bbox_inches="tight")
    if recording.kind != CLIP:
        return [path]
    fps = min(max(recording.rate or USUAL_RATE, GIF_RATES[0]), GIF_RATES[1])
    zoom = max(1, 240 // recording.values.shape[2])
    save_clip(gif_of(path), recording.values, maps, fps=fps, zoom=zoom, cmap=cmap)
    return [path, gif_of(path)]


def gif_of(path: Path) -> Path:
    """The GIF beside a picture of a clip."""
    return path.with_suffix(".gif")


def _figure(recording: Recording, maps: Tensor, title: str, cmap: str) -> Figure:
    if recording.kind == CLIP:
        return show_clip(recording.values, maps, title=title, cmap=cmap)
    if recording.kind == VOLUME:
        return show_volume(recording.values, maps, title=title, affine=recording.affine, cmap=cmap)
    times: dict[str, Any] = {}
    if recording.rate:
        times = {"times": np.arange(recording.values.shape[1]) / recording.rate, "time_name": "seconds"}
    return show_signal(recording.values, maps, title=title, cmap=cmap, **times)


def save_nifti(path: Path, values: Array, recording: Recording) -> None:
    """A map `(d, h, w)` of a volume as a NIfTI file that lies where the volume does.

    Args:
        path: the file, `.nii.gz`. One that is there is replaced.
        values: the map.
        recording: the volume, with its affine.
    """
    import nibabel

    image = nibabel.Nifti1Image(values.astype(np.float32), map_affine(values.shape, recording))  # type: ignore
    with written_whole(path) as unfinished:
        unfinished.write_bytes(gzip.compress(image.to_bytes(), mtime=0))  # the same bytes whenever it is written


def map_affine(shape: tuple[int, ...], recording: Recording) -> Array:
    """From the positions of a map to millimeters: its cells divide the volume evenly, as the upsampling does."""
    assert recording.affine is not None
    scale = np.array(recording.values.shape) / np.array(shape)
    to_voxels = np.diag([*scale, 1.0])
    to_voxels[:3, 3] = (scale - 1) / 2  # from the middle of the first cell
    found: Array = recording.affine @ to_voxels
    return found
