"""The maps of a whole data set: a run that several processes share, and that goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch

from captum_sgcampp.checks import check_count, check_several
from captum_sgcampp.dataset.attributor import Attributor, Prepared
from captum_sgcampp.dataset.columns import Row, schema, table
from captum_sgcampp.dataset.items import Item, items_of_part, write_items
from captum_sgcampp.dataset.overlays import save_overlays
from captum_sgcampp.dataset.reader import error_count
from captum_sgcampp.dataset.sources import listed, read_item
from captum_sgcampp.dataset.targets import is_of_each_image
from captum_sgcampp.storage.run_folder import RunFolder, check_items, existing_run, open_run
from captum_sgcampp.storage.work import finish_parts
from captum_sgcampp.storage.workers import work_in_processes

READERS, AHEAD = 2, 32  # threads that read images, and images that wait for the model at most
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
        overlays (bool, optional): Whether to write a picture of every map into the folder `__overlays__`.
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
        *RunFolder*, finished. `captum_sgcampp.dataset.open(folder)` reads the maps.

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
        "threads": threads or _threads_of(folder) or max(1, torch.get_num_threads() // (workers or 1)),
        "overlays": overlays,
    }
    if engine == "ray":
        from captum_sgcampp.dataset import ray_engine

        with ray_engine.connected(address):
            run = _opened(folder, texts, settings | ray_engine.settings_of(arguments), retry_errors)
            if run.parts.missing():
                ray_engine.work_on_cluster(run, arguments, workers, _report(run, progress))
        return run
    attributor = Attributor(**arguments)
    run = _opened(folder, texts, settings | attributor.settings(), retry_errors)
    if not run.parts.missing():
        return run
    if workers in (None, 1):
        work_on(run, attributor, _report(run, progress))
    else:
        work_in_processes(partial(work, os.fspath(folder), arguments), workers, run.parts, _report(run, progress))
    return run


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


def _threads_of(folder: Path) -> int | None:
    try:
        return int(existing_run(folder).settings["threads"])
    except (FileNotFoundError, NotADirectoryError, KeyError):  # or a run of another command
        return None


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
    with _threads(run.settings["threads"]), ThreadPoolExecutor(READERS) as executor:
        finish_parts(run.parts, run.claims(), partial(write_part, run, attributor, executor), progress)


def write_part(run: RunFolder, attributor: Attributor, executor: Executor, number: int, path: Path) -> None:
    """Explains the images of one part and writes their rows to `path`."""
    map_size, overlays = run.settings["map_size"], run.settings["overlays"]
    prepare = partial(_prepare, attributor, run.settings["image_column"], overlays)
    prepared = in_advance(executor, prepare, items_of_part(run.items, number))
    rows: list[Row] = []
    for image, of_image in attributor.explain(prepared):
        rows += [_of_size(row, map_size) for row in of_image]
        if overlays and image.shown is not None:
            save_overlays(run.folder, image.shown, of_image)
    found = table(rows, schema(map_size, run.settings))
    pq.write_table(found, path, compression="zstd", write_page_checksum=True)


def in_advance(executor: Executor, function: Callable[[Item], Prepared], items: Iterable[Item]) -> Iterator[Prepared]:
    """The results of a function, computed beside their use, a few before they are needed."""
    remaining = iter(items)
    waiting: list[Future[Prepared]] = [executor.submit(function, item) for item in islice(remaining, AHEAD)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [executor.submit(function, item) for item in islice(remaining, 1)]


def _prepare(attributor: Attributor, image_column: str, show: bool, item: Item) -> Prepared:
    return attributor.prepare(item.name, partial(read_item, item, image_column), item.target, item.path, show)


def _of_size(row: Row, map_size: int | None) -> Row:
    """The row, or an error where its map does not fit into the column."""
    if map_size is None or row.get("map") is None or len(row["map"]) == map_size:
        return row
    found = f"ValueError: map: expected {map_size} values as of the first image, found {row['height']} x {row['width']}"
    return {name: row[name] for name in ("image", "path", "target", "layer", "method")} | {"error": found}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """In the block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
