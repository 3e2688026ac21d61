"""Where results go: checks before the model runs, so that no work is lost and no file that is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp", ".tif", ".tiff")


def check_pictures(paths: Sequence[Path], inputs: Iterable[Path], overwrite: bool) -> None:
    """The files of `--out` can be written and are new, or may be replaced.

    Args:
        paths: the files, in one folder.
        inputs: files that are read, which are never replaced.
        overwrite: whether files that are there may be replaced.

    Raises:
        ValueError: no kind of picture, or a file that is read.
        OSError: a file that is there, or that cannot be written.
    """
    inputs = list(inputs)
    if paths[0].suffix.lower() not in PICTURES:
        raise ValueError(f"--out: expected a file name that ends in one of {list(PICTURES)}, found {paths[0].name!r}")
    folder = Path(os.path.realpath(paths[0])).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"--out: expected an existing folder, found none at {os.fspath(paths[0].parent)!r}")
    for path in paths:
        _check_file(path, inputs, overwrite)
    _check_writable("--out", folder)


def _check_file(path: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    name = repr(os.fspath(path))
    if not _exists("--out", path):
        return
    if any(image.exists() and path.exists() and path.samefile(image) for image in inputs):
        raise ValueError(f"--out: expected another file than those that are read, found {name}")
    if path.exists() and not path.is_file():
        raise OSError(f"--out: expected a regular file, found a folder or a device at {name}")
    if not overwrite:
        raise FileExistsError(f"--out: expected a new file, found {name}; choose another, or add --overwrite")


def check_map_folder(folder: Path, overwrite: bool) -> None:
    """The folder of `--save-maps` can be written and holds no maps, or they may be replaced.

    Raises:
        OSError: otherwise.
    """
    check_folder("--save-maps", folder)
    if not overwrite and folder.is_dir() and any(path.suffix == ".npy" for path in folder.iterdir()):
        raise FileExistsError(
            f"--save-maps: expected a folder without .npy files, found some in {os.fspath(folder)!r}; choose another, "
            "or add --overwrite"
        )


def check_folder(option: str, folder: Path) -> None:
    """The folder can be written, or made.

    Raises:
        OSError: otherwise.
    """
    place = folder
    while not _exists(option, place):
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{option}: expected a folder, found a file at {os.fspath(place)}")
    _check_writable(option, place)


def _exists(option: str, path: Path) -> bool:
    """Whether there is something of that name, if only a link that leads nowhere."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        name = os.fspath(path)
        raise OSError(f"{option}: expected a path that can be written, found {name!r} ({error.strerror})") from error
    return True


def _check_writable(option: str, folder: Path) -> None:
    """Files can be made there. Rights alone do not tell: the disk may be read-only, or full."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        name = os.fspath(folder)
        raise OSError(f"{option}: expected a folder that can be written, found {name!r} ({error.strerror})") from error


def page_paths(out: Path, rows: int, per_page: int) -> list[Path]:
    """The files of a picture of so many rows: the one that was named, or numbered ones beside it."""
    pages = -(-rows // per_page)
    if pages == 1:
        return [out]
    digits = max(2, len(str(pages)))
    return [out.with_name(f"{out.stem}-{number:0{digits}d}{out.suffix}") for number in range(1, pages + 1)]
