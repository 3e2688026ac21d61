"""A run's results: numbered files, each with the digest of its bytes in its name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.storage.checksums import DIGITS, file_digest

_NAME = re.compile(rf"part-(\d+)\.([0-9a-f]{{{DIGITS}}})\.parquet")


@dataclass(frozen=True)
class Parts:
    """The parts of a run.

    A part appears under its name only when it is whole and on the disk. The digest in the name tells a damaged part
    without a second file, which could be newer or older than the part.

    Attributes:
        folder: where the files are.
        count: how many there are when the run is finished.
    """

    folder: Path
    count: int

    def finished(self) -> dict[int, Path]:
        """The parts that are there, by number. One listing, whatever their size."""
        found: dict[int, Path] = {}
        for number, name in self._listed():
            found.setdefault(number, self.folder / name)
        return found

    def _listed(self) -> list[tuple[int, str]]:
        matches = map(_NAME.fullmatch, sorted(os.listdir(self.folder)))
        return [(int(match[1]), match[0]) for match in matches if match and int(match[1]) < self.count]

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there."""
        finished = self.finished()
        return [number for number in range(self.count) if number not in finished]

    def write(self, number: int, save: Callable[[Path], object]) -> None:
        """Writes a part. One that is there already stays.

        Args:
            number: of the part.
            save: writes the content to the path that it gets.

        Raises:
            OSError: it cannot be written. What was there before stays.
        """
        path = self.folder / f"part-{number:06d}.parquet"

        def named(content: Path) -> str | None:
            return None if number in self.finished() else f"{path.stem}.{file_digest(content)}.parquet"

        with written_whole(path, named) as unfinished:
            save(unfinished)

    def remove_surplus(self) -> None:
        """Leaves one file of each part. Two runners make the same part where one was silent so long that the other took
        it for dead, and their bytes may differ. All runners keep the one that `finished` gives."""
        seen = set()
        for number, name in self._listed():  # one listing: two runners never remove both files
            if number in seen:
                (self.folder / name).unlink(missing_ok=True)
            seen.add(number)


def checked(path: Path) -> Path:
    """The path of a part whose bytes are those that were written.

    Raises:
        ValueError: they are not. The message names the file.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a part of a run, found another file name")
    found = file_digest(path)
    if found != match[2]:
        raise ValueError(
            f"{path}: expected the checksum {match[2]}, found {found}: the file is damaged; delete it and run the same "
            "command again to make it anew"
        )
    return path
