"""The list of a run's images, written once by its first runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

Entry = TypeVar("Entry")
SCHEMA = pa.schema([("name", pa.string()), ("file", pa.binary()), ("target", pa.int64())])


class Item(NamedTuple):
    """One image.

    Attributes:
        name: unique in the run.
        file: its name on the disk, which need not be UTF-8; the seed of a scene.
        target: class index. None: known when it is read.
    """

    name: str
    file: bytes
    target: int | None = None


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Writes the list as Parquet."""
    pq.write_table(pa.Table.from_pylist([item._asdict() for item in items], SCHEMA), path)


def read_items(path: Path) -> list[Item]:
    """What `write_items` wrote."""
    return [Item(**fields) for fields in pq.read_table(path).to_pylist()]


def of_part(items: Sequence[Entry], number: int, size: int) -> Sequence[Entry]:
    """Those of one part. Each part has `size`, the last one the rest."""
    return items[number * size : (number + 1) * size]


def part_count(items: Sequence[object], size: int) -> int:
    """How many parts of that size there are."""
    return -(-len(items) // size)
