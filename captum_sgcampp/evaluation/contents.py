"""Whether files are still those that were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from captum_sgcampp.evaluation.cases import Cases
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.storage.checksums import file_digest, stamp


def content(files: Sequence[Path]) -> str | None:
    """Digests of the files' bytes. None: one cannot be read."""
    try:
        return " ".join(map(file_digest, files))
    except OSError:
        return None


def stamps(files: Sequence[Path]) -> str | None:
    """Sizes and times of the files. None: one is not there."""
    try:
        return " ".join(map(stamp, files))
    except OSError:
        return None


def check_unchanged(rows: pa.Table, cases: Cases, items: Sequence[Item], part_of: Callable[[int], Path]) -> None:
    """Reads a file only if its size or time is not that of its rows. Files that are gone are not checked.

    Args:
        rows: all of the run.
        cases, items: its images.
        part_of: from the number of an item to the part with its rows.

    Raises:
        ValueError: a file has another content than when it was measured.
    """
    seen = {row["image"]: row for row in rows.select(["image", "content", "stamp"]).to_pylist()}
    for number, item in enumerate(items):
        files, row = cases.files(item), seen[item.name]
        now = stamps(files)
        if now is None or now == row["stamp"] or row["content"] is None:
            continue
        found = content(files)
        if found != row["content"]:
            raise ValueError(
                f"{files[0]}: expected the image (and mask) that was measured, of digest {row['content']}, found "
                f"{found}; delete {part_of(number)} to measure it again, or choose another --out"
            )
