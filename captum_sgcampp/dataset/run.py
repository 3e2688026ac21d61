"""The maps of a whole data set: a run that several processes share, and that goes on where it was stopped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from captum_sgcampp.checks import check_count, check_several
from captum_sgcampp.dataset.attributor import Attributor
from captum_sgcampp.dataset.items import write_items
from captum_sgcampp.dataset.one_part import readers, write_part
from captum_sgcampp.dataset.reader import MapFiles, error_count
from captum_sgcampp.dataset.sources import listed
from captum_sgcampp.dataset.targets import is_of_each_image
from captum_sgcampp.model.threads import computing_threads, share_of_threads
from captum_sgcampp.storage.run_folder import RunFolder, check_items, existing_run, open_run, setting_of
from captum_sgcampp.storage.work import finish_parts
from captum_sgcampp.storage.workers import work_in_processes

ENGINES = ("plain", "ray")


def attribute_dataset(
    sources: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    image_column: str = "image",
    images_per_part: int = 256,
    workers: int | None = None,
    threads: int | None = None,
    overlays: bool = False,
    retry_errors: bool = False,
    engine: Literal["plain", "ray"] = "plain",
    address: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    **arguments: Any,
) -> RunFolder:
    r"""
    Explains the images of whole data sets, or goes on with a run that was stopped.

    Args:

        sources (sequence of paths): Folders (with all images, `.tar` and `.parquet` files below), image files, lists
                    (`.txt` with a path in each line, `.csv` with a column `path`), Parquet files, shards of WebDataset,
                    Hugging Face data sets saved to disk. Images that are added later are not part of the run.
        folder (path): Of the results: new, empty, or that of the run to go on with.
        image_column (str, optional): Of Parquet files and data sets: the bytes or paths of image files.
                    Default: `"image"`
        images_per_part (int, optional): Images in one file of results, which a killed process loses at most.
                    Default: 256
        workers (int, optional): Processes, each with a model of its own.
                    Default: None, one; with Ray as many as the cluster has GPUs, or CPUs for their threads
        threads (int, optional): Of torch in each process. The last bits of the maps depend on it.
                    Default: None, that of the run; for a new one torch's own, shared by the workers
        overlays (bool, optional): Whether to write a picture of every map into the folder `__overlays__`, as
                    `explain` draws it. Each takes about 0.2 s.
                    Default: False
        retry_errors (bool, optional): Whether parts with errors are made again, as after a network that was down.
                    Default: False
        engine (str, optional): Who distributes the work: `"plain"`, or `"ray"` for Ray Data, with `folder` and
                    `sources` on file systems that all nodes share. A run can go on with either, with the same bytes,
                    and nodes of another kind than the first may differ in the last bits.
                    Default: `"plain"`
        address (str, optional): Of the Ray cluster, as `"auto"`, unless this process is connected to one.
                    Default: None, a new one on this machine
        progress (Callable, optional): Called with the numbers of finished parts and of all parts.
        **arguments (Any): Of `Attributor`, as JSON can hold them: model, layers, targets, methods, nt_samples, ...

    Returns:
        *RunFolder*, finished. `captum_sgcampp.dataset.open(folder)` reads the maps. Images that cannot be read or
        explained are rows with errors, of which a warning names the first. Another warning tells where gray pictures
        of more than 8 bits got different whites.

    Raises:
        TypeError, ValueError: the arguments make no sense, the folder holds something else, or its run has other
            settings.
        OSError: a source or the model cannot be read, or the results cannot be written. Finished parts stay.
        ImportError: the engine is Ray, which is not installed.
        RuntimeError: processes or nodes ended, or a part failed on a node of Ray. Finished parts stay.
    """
    check_several("sources", sources)
    _check(engine, images_per_part=images_per_part, workers=workers, threads=threads)
    folder, texts = Path(folder), [os.fspath(source) for source in sources]
    settings = {
        "sources": [os.path.abspath(text) for text in texts],
        "image_column": image_column,
        "images_per_part": images_per_part,
        "threads": threads or setting_of(folder, "threads") or share_of_threads(workers or 1),
        "overlays": overlays,
    }
    if engine == "ray":
        from captum_sgcampp.dataset import ray_engine

        with ray_engine.connected(address):
            run = _opened(folder, texts, settings | ray_engine.settings_of(arguments), retry_errors)
            if run.parts.missing():
                ray_engine.work_on_cluster(run, arguments, workers, _report(run, progress))
    else:
        attributor = Attributor(**arguments)
        run = _opened(folder, texts, settings | attributor.settings(), retry_errors)
        if run.parts.missing():
            report = _report(run, progress)
            if workers is None or workers == 1:
                work_on(run, attributor, report)
            else:
                work_in_processes(partial(work, os.fspath(folder), arguments), workers, run.parts, report)
    _warn(folder)
    return run


def _warn(folder: Path) -> None:
    files = MapFiles(folder)
    if errors := files.first_errors():
        warnings.warn(
            f"SOURCE: expected images that can be explained, found {files.error_count()} of {len(files)} rows with "
            f"errors: {errors}",
            stacklevel=3,
        )
    if scalings := files.different_scalings():
        warnings.warn(
            f"SOURCE: expected gray of more than 8 bits with one white, found rows of several: {scalings}; give "
            "`white`",
            stacklevel=3,
        )


def _check(engine: str, **counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None:
            check_count(name, value)
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, found {engine!r}")


def _opened(folder: Path, sources: Sequence[str], settings: dict[str, Any], retry_errors: bool) -> RunFolder:
    """The run, its images listed if it is new, and without its parts with errors if these are tried again."""
    target = next(filter(is_of_each_image, settings["targets"]), "")
    items = partial(listed, sources, settings["image_column"], target)
    run = open_run(folder, settings, lambda path: write_items(path, items(), settings["images_per_part"]))
    for path in run.parts.finished().values() if retry_errors else ():
        if error_count(path):
            path.unlink()
    lost = [source for source in settings["sources"] if not os.path.exists(source)]
    if lost and run.parts.missing():  # else all that is missing would become rows with errors
        raise FileNotFoundError(f"SOURCE: expected {lost[0]}, as at the start of the run, found none")
    return run


def _report(run: RunFolder, progress: Callable[[int, int], object] | None) -> Callable[[int], object] | None:
    return None if progress is None else lambda finished: progress(finished, run.parts.count)


def work(folder: str, arguments: dict[str, Any]) -> None:
    """Makes missing parts of the run in a folder, in a process of its own. `arguments` are those of `Attributor`."""
    run, attributor = existing_run(Path(folder)), Attributor(**arguments)
    run.check({**run.settings, **attributor.settings()})
    work_on(run, attributor)


def work_on(run: RunFolder, attributor: Attributor, progress: Callable[[int], object] | None = None) -> None:
    """Makes the parts of a run until all are there, beside any other process that does the same.

    Args:
        run: opened.
        attributor: with the run's arguments.
        progress: called with the number of finished parts.

    Raises:
        OSError: a part cannot be written. The finished ones stay.
    """
    check_items(run)
    with computing_threads(run.settings["threads"]), readers() as executor:
        finish_parts(run.parts, run.claims(), partial(write_part, run, attributor, executor), progress)
