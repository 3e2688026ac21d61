"""Where the images of a run come from: folders, lists, Parquet, WebDataset and Hugging Face data sets on disk.

Every source lists its images once, in an order that does not change. Each is read from its place without the others.
"""

from __future__ import annotations

import csv
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from captum_sgcampp.dataset.items import Item
from captum_sgcampp.storage.checksums import stamp
from captum_sgcampp.storage.run_folder import OWN
from captum_sgcampp.vision.failures import LastingError
from captum_sgcampp.vision.images import SUFFIXES, decode_image, read_image

LISTS = (".txt", ".csv")
STATE = "state.json"  # of a data set of Hugging Face


def listed(sources: Sequence[str], image_column: str, target: str) -> Iterator[Item]:
    """The images of all sources, one source after the other. Files whose names begin with a dot are left out.

    Args:
        sources: folders (read with all that lies in them), image files, lists, `.parquet` and `.tar` files.
        image_column: of Parquet files and data sets.
        target: where images bring their class: `column:NAME`, `folder` (its name), `stem` (a file's name without the
            suffix). Something else: they bring none.

    Raises:
        OSError, ValueError: a source is not there, or is none of these.
    """
    for text in sources:
        path = Path(text)
        prefix = "" if len(sources) == 1 else f"{_text(text)}/"
        if not path.exists():
            raise FileNotFoundError(f"SOURCE: expected a folder or a file, found none at {_text(text)}")
        if path.is_dir():
            yield from _of_folder(path, prefix, image_column, target)
        elif path.suffix.lower() in LISTS:
            yield from _named(path, _of_list(path, prefix, target))
        else:
            yield from _of_file(path, _text(text), image_column, target)


def read_item(item: Item, image_column: str, white: float | None = None) -> Image.Image:
    """The picture of an item, in RGB. `white` is as in `read_image`.

    Raises:
        OSError, ValueError: it cannot be read, or its file is not the one that was listed.
    """
    if item.stamp != _stamp(item.file):
        text = f"SOURCE: expected {item.path} as it was when the run began, found a changed file"
        # Places in a changed table or archive hold other images, so no further one can be read.
        raise ValueError(text) if item.kind == "file" else LastingError(text)
    return READERS[item.kind](item, image_column, white)


def _of_folder(folder: Path, prefix: str, image_column: str, target: str) -> Iterator[Item]:
    if _is_saved_dataset(folder):
        yield from _of_saved_dataset(folder, prefix or f"{folder.name}/", image_column, target)
        return
    for path in _files(folder):
        yield from _of_file(path, prefix + _text(os.path.relpath(path, folder)), image_column, target, strict=False)


def _files(folder: Path) -> Iterator[Path]:
    """All files below, in the order of their names. A data set of Hugging Face counts as one: its folder."""
    if _is_saved_dataset(folder):
        yield folder
        return
    if (folder / OWN).exists():  # results of this package
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):  # also the resource forks of macOS
            continue
        if entry.is_dir(follow_symlinks=False) or (entry.is_dir() and not _is_above(entry.path)):
            yield from _files(Path(entry.path))
        elif entry.is_file() or not os.path.exists(entry.path):  # a link that leads nowhere is told, not lost
            yield Path(entry.path)


def _is_saved_dataset(folder: Path) -> bool:
    return (folder / STATE).is_file() and (folder / "dataset_info.json").is_file()


def _is_above(link: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    return Path(link).resolve() in Path(link).absolute().parents


def _of_file(path: Path, name: str, image_column: str, target: str, strict: bool = True) -> Iterator[Item]:
    """The images of one file of any kind. Others are left out, or refused (`strict`)."""
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _of_saved_dataset(path, f"{name}/", image_column, target)
    elif suffix == ".tar":
        yield from _named(path, _of_tar(path, f"{name}/", target))
    elif suffix == ".parquet":
        yield from _named(path, _of_parquet(path, f"{name}/", image_column, target))
    elif suffix in SUFFIXES or strict:
        if _column_of(target) is not None:
            raise ValueError(
                f"targets: expected sources with columns for {target!r}, found the image file {_text(path)}"
            )
        file = os.fsencode(path.absolute())
        yield Item(name, _text(path), "file", file, target=_from_path(path, target), stamp=_stamp(file))


def _named(path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """The items of a list, a table or an archive. Errors on damage name it."""
    try:
        yield from items
    except (tarfile.TarError, csv.Error, pa.ArrowException, EOFError) as error:
        raise ValueError(f"SOURCE: expected a whole file at {_text(path)}, found a damaged one ({error})") from error


def _of_list(path: Path, prefix: str, target: str) -> Iterator[Item]:
    """A file with a path in each line, or a table with a column `path`. Paths are relative to the list's folder."""
    column = _column_of(target)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if path.suffix.lower() == ".txt":
            rows: Any = ({"path": line.rstrip("\r\n")} for line in file if line.strip())
        else:
            rows = csv.DictReader(file)
            for needed in ["path", *([column] if column else [])]:
                _check_column(path, needed, rows.fieldnames or [])
        for row in rows:
            if not row["path"]:
                raise ValueError(f"SOURCE: expected a path in every row of {_text(path)}, found none in {row}")
            image = path.parent / row["path"]
            own = _maybe_text(row.get(column)) if column else _from_path(image, target)
            name = os.fsencode(image.absolute())
            yield Item(prefix + _text(row["path"]), _text(image), "file", name, target=own, stamp=_stamp(name))


def _of_tar(path: Path, prefix: str, target: str) -> Iterator[Item]:
    """A shard of WebDataset: files of one stem belong together. `column:cls` is the text of the file `.cls`."""
    images: list[tuple[str, tarfile.TarInfo]] = []
    texts: dict[str, str] = {}
    column = _column_of(target)
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not member.isreg() or name.startswith("."):
                continue
            if f".{suffix.lower()}".endswith(SUFFIXES):
                images.append((f"{folder}/{stem}", member))
            elif suffix == column:
                content = archive.extractfile(member)
                texts[f"{folder}/{stem}"] = content.read(1000).decode(errors="replace").strip() if content else ""
        _check_end(path, archive)
    of_file = _stamp(os.fsencode(path))
    for key, member in images:
        own = texts.get(key) if column else _from_path(Path(member.name), target)
        name, file = _text(member.name), os.fsencode(path.absolute())
        yield Item(prefix + name, f"{_text(path)}/{name}", "tar", file, member.offset, target=own, stamp=of_file)


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    """Reading ends at zeros, or at a damaged head, behind which images would be lost without a word."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise ValueError(f"SOURCE: expected a whole .tar file, found damage in {_text(path)} at byte {archive.offset}")


def _of_parquet(path: Path, prefix: str, image_column: str, target: str) -> Iterator[Item]:
    column, file = _column_of(target), os.fsencode(path.absolute())
    row, of_file = 0, _stamp(file)
    with pq.ParquetFile(path) as table:
        for needed in [image_column, *([column] if column else [])]:
            _check_column(path, needed, table.schema_arrow.names)
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            own = table.read_row_group(group, [column])[column].to_pylist() if column else [None] * count
            for place in range(count):
                yield Item(
                    f"{prefix}{row}", _text(path), "parquet", file, group, place, _maybe_text(own[place]), of_file
                )
                row += 1


def _of_saved_dataset(folder: Path, prefix: str, image_column: str, target: str) -> Iterator[Item]:
    column, file = _column_of(target), os.fsencode(folder.absolute())
    of_file = _stamp(file)
    rows = _saved_dataset(file, of_file)
    for needed in [image_column, *([column] if column else [])]:
        _check_column(folder, needed, rows.column_names)
    own = rows.select_columns([column]) if column else None
    for row in range(len(rows)):
        text = None if own is None else _maybe_text(own[row][column])
        yield Item(f"{prefix}{row}", _text(folder), "dataset", file, row, target=text, stamp=of_file)


def _read_file(item: Item, image_column: str, white: float | None) -> Image.Image:
    return read_image(os.fsdecode(item.file), white=white)


def _read_tar(item: Item, image_column: str, white: float | None) -> Image.Image:
    with open(item.file, "rb") as file:
        file.seek(item.first)
        with tarfile.open(fileobj=file, mode="r:") as archive:  # also members with holes
            member = archive.next()
            content = None if member is None else archive.extractfile(member)
            if content is None:
                raise ValueError(f"{item.name!r}: expected an image in the archive, found none")
            return decode_image(io.BytesIO(content.read()), repr(item.name), white=white)


def _read_parquet(item: Item, image_column: str, white: float | None) -> Image.Image:
    values = _row_group(item.file, item.first, image_column, item.stamp)
    return _picture(values[item.second].as_py(), item, Path(os.fsdecode(item.file)).parent, white)


def _read_saved_dataset(item: Item, image_column: str, white: float | None) -> Image.Image:
    value = _saved_dataset(item.file, item.stamp)[item.first][image_column]
    return _picture(value, item, Path(os.fsdecode(item.file)), white)


READERS: Mapping[str, Callable[[Item, str, float | None], Image.Image]] = {
    "file": _read_file,
    "tar": _read_tar,
    "parquet": _read_parquet,
    "dataset": _read_saved_dataset,
}


@lru_cache(maxsize=2)
def _row_group(file: bytes, group: int, column: str, of_file: str) -> pa.ChunkedArray:
    """A column's piece. Rows of one piece are read one after the other."""
    with pq.ParquetFile(os.fsdecode(file)) as table:
        return table.read_row_group(group, [column])[column]


@lru_cache(maxsize=4)
def _saved_dataset(folder: bytes, of_file: str) -> Any:
    """A data set of Hugging Face, its images as bytes or paths."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"SOURCE: {os.fsdecode(folder)} is a Hugging Face data set; pip install '.[huggingface]' in a checkout"
        ) from error
    rows = datasets.load_from_disk(os.fsdecode(folder))
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _picture(value: Any, item: Item, folder: Path, white: float | None) -> Image.Image:
    """From what a table holds: the bytes of a file, its path, or both by name."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return decode_image(io.BytesIO(value), repr(item.name), white=white)
    if isinstance(value, str):
        return read_image(folder / value, white=white)
    raise ValueError(f"{item.name!r}: expected the bytes or the path of an image file, found {type(value).__name__}")


def _stamp(file: bytes) -> str:
    """Of the file, or of the one that says what a data set holds. Empty: there is none."""
    path = Path(os.fsdecode(file))
    try:
        return stamp(path / STATE if path.is_dir() else path)
    except OSError:
        return ""


def _from_path(path: Path, target: str) -> str | None:
    own = {"folder": path.parent.name, "stem": path.stem}.get(target)
    return None if own is None else _text(own)


def _column_of(target: str) -> str | None:
    kind, _, column = target.partition(":")
    return column if kind == "column" else None


def _check_column(path: Path, column: str, found: Sequence[str]) -> None:
    if column not in found:
        raise ValueError(f"SOURCE: expected a column {column!r} in {_text(path)}, found {', '.join(found)}")


def _maybe_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():  # pandas makes floats of whole numbers beside unknown ones
        value = int(value)
    return None if value is None or value != value else _text(str(value))


def _text(path: str | os.PathLike[str]) -> str:
    """A file name as UTF-8, other bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
