"""Digests that tell damaged files from whole ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_sgcampp.storage.atomic import written_once

DIGITS = 16  # 64 bits: a damaged file passes once in 1.8e19


def digest(*parts: bytes) -> str:
    """Digest of byte strings and of where one ends and the next begins."""
    if len(parts) == 1:
        return hashlib.sha256(parts[0]).hexdigest()[:DIGITS]
    return digest(b"".join(hashlib.sha256(part).digest() for part in parts))


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, read piece by piece."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()[:DIGITS]


def stamp(path: Path) -> str:
    """Size and time of a file: while they stay, so does its content.

    Raises:
        OSError: there is none.
    """
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}"


def json_digest(fields: Mapping[str, Any]) -> str:
    """Digest of what can be written as JSON, whatever the order of its names."""
    return digest(json.dumps(fields, sort_keys=True).encode())


def write_fields_once(path: Path, fields: Mapping[str, Any]) -> None:
    """Writes names and values as JSON with their digest. A file that is there stays."""
    with written_once(path) as unfinished:
        checked = {**fields, "checksum": json_digest(fields)}
        unfinished.write_text(json.dumps(checked, indent=2) + "\n", encoding="utf-8")


def read_fields(path: Path) -> dict[str, Any]:
    """What `write_fields_once` wrote.

    Raises:
        ValueError: the file is damaged. The message names it.
    """
    try:
        fields = json.loads(path.read_bytes())
        expected = fields.pop("checksum")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: expected the settings of a run, found a damaged file ({error})") from error
    if json_digest(fields) != expected:
        raise ValueError(f"{path}: expected the checksum {expected}, found {json_digest(fields)}: the file is damaged")
    return dict(fields)
