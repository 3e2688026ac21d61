"""The list of a run's images: where each one lies, in the order in which they are explained."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("path", pa.string()),
        ("kind", pa.string()),
        ("file", pa.binary()),  # file names need not be UTF-8
        ("first", pa.int64()),
        ("second", pa.int64()),
        ("target", pa.string()),
        ("stamp", pa.string()),
    ]
)


class Item(NamedTuple):
    """One image.

    Attributes:
        name: unique in the run.
        path: its file, for people.
        kind: how it is read: a key of `sources.READERS`.
        file: what the reader opens.
        first, second: the place in that file, as the reader counts.
        target: the class that it brings, as a number or a name.
        stamp: size and time of the file when it was listed.
    """

    name: str
    path: str
    kind: str
    file: bytes
    first: int = 0
    second: int = 0
    target: str | None = None
    stamp: str = ""


def write_items(path: Path, items: Iterable[Item], items_per_part: int) -> int:
    """Writes the list, the items of each part in a row group of its own. Returns the number of parts."""
    remaining, seen, parts = iter(items), set[str](), 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while group := list(islice(remaining, items_per_part)):
            for item in group:
                if item.name in seen:
                    raise ValueError(f"SOURCE: expected images of different names, found {item.name!r} twice")
                seen.add(item.name)
            writer.write_table(pa.Table.from_pylist([item._asdict() for item in group], SCHEMA))
            parts += 1
    if not parts:
        raise ValueError("SOURCE: expected at least one image, found none")
    return parts


def items_of_part(path: Path, part: int) -> list[Item]:
    """The items of one part."""
    with pq.ParquetFile(path) as file:
        return [Item(**fields) for fields in file.read_row_group(part).to_pylist()]
