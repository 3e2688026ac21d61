"""The results of a run: rows by number, maps as tensors."""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from captum_sgcampp.names import printable
from captum_sgcampp.storage.parts import checked
from captum_sgcampp.storage.run_folder import existing_run
from captum_sgcampp.wide_gray import different_limits

NAMED = 3  # images without maps, in messages
Size = Literal["input"] | Sequence[int] | None


class MapFiles(Dataset[dict[str, Any]]):
    r"""
    The rows of a run, finished or not. Each part is compared with its checksum when it is first read.

    Args:

        folder (path): What `captum-sgcampp attribute --out` was given.

    Raises:
        FileNotFoundError: no run there.
        ValueError: a damaged file; the message names it.

    Examples::

        >>> from captum_sgcampp import dataset
        >>> Image.fromarray(bundled.draw_scene(7).image).save("scene.png")
        >>> _ = dataset.attribute_dataset(["scene.png"], "maps", targets=("star", "ring"), nt_samples=2)
        >>> files = dataset.open("maps")
        >>> len(files), files[1]["target_name"], files[1]["map"].shape
        (2, 'ring', torch.Size([1, 16, 16]))
        >>> files.maps(size="input").shape
        torch.Size([2, 1, 128, 128])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        run = existing_run(Path(folder))
        self._folder = folder
        self.settings = run.settings
        self._parts = [path for _, path in sorted(run.parts.finished().items())]
        self._ends = list(accumulate(map(_row_count, self._parts)))
        self.finished = len(self._parts) == run.parts.count

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"MapFiles({os.fspath(self._folder)!r}: {len(self)} rows, {self.error_count()} of them errors)"

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row: every column by name, and the map `(1, h, w)`, or None where there is an error."""
        if isinstance(row, str):
            raise TypeError(
                f"row: expected a number, found {row!r}; that of an image is "
                f"files.table(['image'])['image'].to_pylist().index({row!r})"
            )
        if not -len(self) <= row < len(self):
            raise IndexError(f"row: expected one of {len(self)}, found {row}")
        row %= len(self)
        part = bisect.bisect_right(self._ends, row)
        first = self._ends[part - 1] if part else 0
        found = _read(self._parts[part]).slice(row - first, 1)
        fields: dict[str, Any] = found.drop_columns("map").to_pylist()[0]
        return fields | {"map": _map(found["map"][0], fields)}

    def maps(self, rows: Iterable[int] | None = None, size: Size = None) -> Tensor:
        """The maps of some rows: `(rows, 1, h, w)`.

        Args:
            rows: their numbers. None: all without errors.
            size: height and width to which the maps are resized bilinearly; `"input"` for those of the model's input.
                None: as they are.

        Raises:
            ValueError: a row without a map, maps of different sizes, or another word than `"input"`.
        """
        if isinstance(size, str) and size != "input":
            raise ValueError(f"size: expected height and width, 'input' or None, found {size!r}")
        found = [_sized(self[row], row, size) for row in (self._without_errors() if rows is None else rows)]
        sizes = sorted({tuple(one.shape[1:]) for one in found})
        if len(sizes) > 1:
            raise ValueError(f"rows: expected maps of one size, or a size for all, found {sizes}")
        return torch.stack(found) if found else torch.empty(0, 1, 0, 0)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as an Arrow table, whose `to_pandas` gives a data frame. `columns`: some of them. None: all."""
        if not self._parts:
            raise ValueError("folder: expected at least one finished part, found none")
        wanted = None if columns is None else list(columns)
        return pa.concat_tables([pq.read_table(checked(path), columns=wanted) for path in self._parts])

    def errors(self) -> pa.Table:
        """The images without maps, and why."""
        rows = self.table(["image", "path", "error"])
        return rows.filter(pc.is_valid(rows["error"]))

    def error_count(self) -> int:
        """How many rows hold an error, from the footers of the parts alone."""
        return sum(map(error_count, self._parts))

    def note_count(self) -> int:
        """How many rows have a note on their picture, as on gray of 16 bits, from the footers alone."""
        return sum(_known_count(path, "note") for path in self._parts)

    def different_scalings(self) -> str:
        """How gray of more than 8 bits was scaled, with the counts of rows; empty where it was all in one way."""
        with_notes = [path for path in self._parts if _known_count(path, "note")]
        notes = [pq.read_table(checked(path), columns=["note"])["note"].drop_null() for path in with_notes]
        return different_limits(Counter(note for column in notes for note in column.to_pylist()))

    def first_errors(self, most: int = NAMED) -> str:
        """The first images without maps, each with the reason, and where all are listed; empty where there are none."""
        if not self.error_count():
            return ""
        found = self.errors().to_pylist()
        named = [f"{printable(row['image'])} ({row['error']})" for row in found[:most]]
        more = f" and {len(found) - most} more" if len(found) > most else ""
        return f"{'; '.join(named)}{more}; all: captum_sgcampp.dataset.open({os.fspath(self._folder)!r}).errors()"

    def _without_errors(self) -> list[int]:
        return [row for row, known in enumerate(self.table(["error"])["error"].is_null().to_pylist()) if known]


def error_count(path: Path) -> int:
    """How many rows of a part hold an error, from its footer."""
    return _known_count(path, "error")


def _known_count(path: Path, name: str) -> int:
    """How many rows of a part have a value in this column, from its footer. Runs of earlier versions have fewer."""
    footer = pq.read_metadata(path)
    if name not in footer.schema.names:
        return 0
    column = footer.schema.names.index(name)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    return sum(group.num_rows - group.column(column).statistics.null_count for group in groups)


def _row_count(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        checked(path)  # names the damage
        raise ValueError(f"{path}: expected a Parquet file, found {error}") from error


def _read(path: Path) -> pa.Table:
    return _read_version(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_version(path: Path, changed: int) -> pa.Table:
    """A part. Rows are often read one after the other."""
    return pq.read_table(checked(path))


def _map(values: Any, fields: dict[str, Any]) -> Tensor | None:
    if not values.is_valid:
        return None
    flat = np.array(values.values.to_numpy(zero_copy_only=False))
    return torch.from_numpy(flat).view(1, fields["height"], fields["width"])


def _sized(fields: dict[str, Any], row: int, size: Size) -> Tensor:
    values: Tensor | None = fields["map"]
    if values is None:
        raise ValueError(f"rows: expected rows with maps, found row {row} with the error {fields['error']!r}")
    if size is None:
        return values
    sides = (fields["input_height"], fields["input_width"]) if isinstance(size, str) else tuple(size)
    return interpolate(values[None], sides, mode="bilinear", align_corners=False)[0]
