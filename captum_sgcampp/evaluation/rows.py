"""The rows of a run: one per image, layer and method, in the Parquet parts and as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from captum_sgcampp.storage.parts import checked

HEAD = pa.schema(
    [
        ("image", pa.string()),
        ("layer", pa.string()),
        ("method", pa.string()),
        ("target", pa.int64()),
        ("confidence", pa.float64()),
        ("content", pa.string()),  # digests of the image and its mask, as they were read
        ("stamp", pa.string()),  # their sizes and times
        ("error", pa.string()),  # why there are no values
        ("note", pa.string()),  # what was done to the picture before: gray of 16 bits is scaled to 8
    ]
)


@dataclass(frozen=True)
class Record:
    """The measurements of one map, or why there are none. The columns of a part, see `HEAD`."""

    image: str
    layer: str
    method: str
    target: int | None = None
    confidence: float | None = None
    content: str | None = None
    stamp: str | None = None
    error: str | None = None
    note: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """All images at one layer by one method, in the same order as with the others.

    Attributes:
        layer, method: what is measured.
        images: their names.
        targets: None where the image has no values.
        confidence, values: numbers, NaN where there is none. `values` by the name of the column.
    """

    layer: str
    method: str
    images: Sequence[str]
    targets: Sequence[int | None]
    confidence: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]


def write_rows(path: Path, records: Sequence[Record], names: Sequence[str]) -> None:
    """Writes a part.

    Args:
        path: the file.
        records: its rows.
        names: of the values. Where a record has none, or NaN, the cell is null.
    """
    columns = [pa.array([getattr(record, column.name) for record in records], column.type) for column in HEAD]
    columns += [pa.array([_known(record.values.get(name)) for record in records], pa.float64()) for name in names]
    schema = pa.schema([*HEAD, *((name, pa.float64()) for name in names)])
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def read_rows(paths: Sequence[Path]) -> pa.Table:
    """The rows of parts, each compared with its checksum. Parts of earlier versions have fewer columns."""
    return pa.concat_tables([_part(path) for path in paths], promote_options="default").combine_chunks()


def _part(path: Path) -> pa.Table:
    with pq.ParquetFile(checked(path)) as file:
        return file.read(use_threads=False)


def by_method(rows: pa.Table) -> list[Measured]:
    """The rows as arrays, layers and methods in the order of their first rows."""
    keys = rows.select(["layer", "method"]).group_by(["layer", "method"], use_threads=False).aggregate([])
    return [_measured(rows, key["layer"], key["method"]) for key in keys.to_pylist()]


def _measured(rows: pa.Table, layer: str, method: str) -> Measured:
    found = rows.filter(pc.and_(pc.equal(rows["layer"], layer), pc.equal(rows["method"], method)))
    numbers = {name: _numbers(found[name]) for name in rows.column_names if name not in HEAD.names}
    targets, confidence = found["target"].to_pylist(), _numbers(found["confidence"])
    return Measured(layer, method, found["image"].to_pylist(), targets, confidence, numbers)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.array(pc.fill_null(column, math.nan).to_numpy(), np.float64)


def failed(rows: pa.Table) -> dict[str, str]:
    """The images that have an error, each with its first one."""
    return _first(rows, "error")


def noted(rows: pa.Table) -> dict[str, str]:
    """The images that have a note, each with its note."""
    return _first(rows, "note") if "note" in rows.column_names else {}


def _first(rows: pa.Table, column: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows.filter(pc.is_valid(rows[column])).select(["image", column]).to_pylist():
        found.setdefault(row["image"], row[column])
    return found
