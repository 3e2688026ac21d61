"""The command `attribute`: what its arguments stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from captum_sgcampp import dataset
from captum_sgcampp.commands.outputs import check_folder
from captum_sgcampp.storage.printable import printable
from captum_sgcampp.storage.progress import progress


def run(arguments: argparse.Namespace) -> int:
    """Explain what is missing.

    Returns:
        The exit status.
    """
    check_folder("--out", arguments.out)
    with ExitStack() as shown:
        dataset.attribute_dataset(
            arguments.sources,
            arguments.out,
            image_column=arguments.image_column,
            images_per_part=arguments.images_per_part,
            workers=arguments.workers,
            threads=arguments.threads,
            overlays=arguments.overlays,
            retry_errors=arguments.retry_errors,
            engine=arguments.engine,
            address=arguments.address,
            progress=_Progress(shown),
            model=arguments.model,
            weights=None if arguments.weights is None else str(arguments.weights),
            model_factory=arguments.model_factory,
            device=arguments.device,
            channels_last=arguments.channels_last,
            layers=tuple(arguments.layers),
            targets=tuple(arguments.targets),
            methods=tuple(arguments.methods),
            nt_samples=arguments.nt_samples,
            noise_level=arguments.noise_level,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
        )
    _tell(arguments.out)
    return 0


def _tell(folder: Path) -> None:
    files = dataset.open(folder)
    errors = files.error_count()
    print(f"{len(files)} rows in {printable(str(folder))}, {errors} of them errors")
    if errors == len(files):
        raise RuntimeError(f"expected images that can be explained, found none ({files.errors()['error'][0]})")


class _Progress:
    """Tells how many parts are finished. Their number is known once the images are listed."""

    def __init__(self, shown: ExitStack) -> None:
        self._shown, self._done = shown, 0
        self._advance: Callable[[int], None] | None = None

    def __call__(self, finished: int, parts: int) -> None:
        if self._advance is None:
            self._advance = self._shown.enter_context(progress(parts, "part", done=finished))
        else:
            self._advance(finished - self._done)
        self._done = finished
