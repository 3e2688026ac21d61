"""The command `attribute`: what its arguments stand for."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from captum_sgcampp import dataset
from captum_sgcampp.commands.outputs import check_folder
from captum_sgcampp.dataset.overlays import FOLDER as OVERLAYS
from captum_sgcampp.names import printable
from captum_sgcampp.storage.progress import progress_of_parts

# Options that `attribute_dataset` takes as they are.
SAME = (
    "image_column",
    "images_per_part",
    "workers",
    "threads",
    "overlays",
    "retry_errors",
    "engine",
    "address",
    "model",
    "model_factory",
    "device",
    "channels_last",
    "nt_samples",
    "noise_level",
    "seed",
    "batch_size",
    "white",
)


def run(arguments: argparse.Namespace) -> int:
    """Explain what is missing.

    Returns:
        The exit status.
    """
    check_folder("--out", arguments.out)
    with progress_of_parts() as tell, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SOURCE: expected (images that can|gray of)")  # the sum says it
        dataset.attribute_dataset(
            arguments.sources,
            arguments.out,
            progress=tell,
            weights=None if arguments.weights is None else str(arguments.weights),
            layers=tuple(arguments.layers),
            targets=tuple(arguments.targets),
            methods=tuple(arguments.methods),
            **{name: getattr(arguments, name) for name in SAME},
        )
    _sum_up(arguments.out)
    return 0


def _sum_up(folder: Path) -> None:
    files = dataset.open(folder)
    errors, name = files.first_errors(), printable(str(folder))
    if errors and files.error_count() == len(files):
        raise RuntimeError(f"SOURCE: expected images that can be explained, found none: {errors}")
    print(f"{len(files)} rows in {name}, {files.error_count()} of them errors{f': {errors}' if errors else ''}")
    if files.settings["overlays"]:
        print(f"pictures of the maps in {printable(str(folder / OVERLAYS))}")
    if count := files.note_count():
        print(f"rows of gray of more than 8 bits, which was scaled as their column note tells: {count}{_told(files)}")


def _told(files: dataset.MapFiles) -> str:
    """The different scalings, if there are several, and how to get one."""
    scalings = files.different_scalings()
    return f" ({scalings}: give --white)" if scalings else ""
