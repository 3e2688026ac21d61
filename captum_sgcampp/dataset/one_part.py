"""One part of a run: its images are read beside the model, explained, and their rows written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import torch

from captum_sgcampp.dataset.attributor import Attributor, Prepared
from captum_sgcampp.dataset.columns import Row, schema, table
from captum_sgcampp.dataset.items import Item, items_of_part
from captum_sgcampp.dataset.overlays import save_overlays
from captum_sgcampp.dataset.sources import read_item
from captum_sgcampp.storage.run_folder import RunFolder

READERS, AHEAD = 2, 32  # threads that read images, and images that wait for the model at most


def readers() -> ThreadPoolExecutor:
    """
    Threads that read images beside the model. Each computes alone: other threads of its own, which OpenMP keeps busy
    while they wait, would take the model's cores (a quarter of the images per second on two cores).
    """
    return ThreadPoolExecutor(READERS, initializer=torch.set_num_threads, initargs=(1,))


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
    return attributor.prepare(
        item.name, partial(read_item, item, image_column, attributor.options.white), item.target, item.path, show
    )


def _of_size(row: Row, map_size: int | None) -> Row:
    """The row, or an error where its map does not fit into the column."""
    if map_size is None or row.get("map") is None or len(row["map"]) == map_size:
        return row
    found = f"ValueError: map: expected {map_size} values as of the first image, found {row['height']} x {row['width']}"
    return {name: row[name] for name in ("image", "path", "target", "layer", "method")} | {"error": found}
