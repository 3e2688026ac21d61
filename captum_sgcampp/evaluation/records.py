"""Results on disk: one line of JSON per image, layer and method, written at once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, str, str]  # image, layer, method with its settings


@dataclass(frozen=True)
class Record:
    """The measurements of one map."""

    image: str
    layer: str
    method: str
    target: int
    confidence: float
    values: Mapping[str, float]

    @property
    def key(self) -> Key:
        return self.image, self.layer, self.method


class Records:
    """The records in a folder, including those that are there already.

    Args:
        folder: made where it does not exist.
        settings: all that changes the numbers except image, layer and method, by the name of the option.

    Raises:
        ValueError: the folder holds records of other settings (the message names the first that differs) or other
            files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "records.jsonl"
        _check_settings(folder / "settings.json", settings)
        self._records = {record.key: record for record in self._read()}

    def __contains__(self, key: Key) -> bool:
        return key in self._records

    def __getitem__(self, key: Key) -> Record:
        return self._records[key]

    def add(self, record: Record) -> None:
        """Write a record and keep it."""
        fields = {**vars(record), "values": {k: _number(v) for k, v in record.values.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        self._records[record.key] = record

    def _read(self) -> list[Record]:
        """The complete lines. The rest of a killed run's last line is removed."""
        if not self._path.exists():
            return []
        data = self._path.read_bytes()
        complete = data[: data.rfind(b"\n") + 1]
        if len(complete) < len(data):
            self._path.write_bytes(complete)
        # File names may hold characters that str.splitlines splits at. JSON leaves them as they are.
        lines = complete.split(b"\n")[:-1]
        return [self._record(number, line) for number, line in enumerate(lines, 1)]

    def _record(self, number: int, line: bytes) -> Record:
        try:
            fields = json.loads(line)
            values = {name: math.nan if value is None else float(value) for name, value in fields.pop("values").items()}
            return Record(**fields, values=values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self._path}: expected a record of this command in line {number}, found {line[:60]!r}; delete the "
                "line to measure it again, or choose another --out"
            ) from error


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    found = json.loads(json.dumps(settings))
    if not path.exists():
        whole = path.with_suffix(".tmp")  # never half a file, whenever the run is stopped
        whole.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        whole.replace(path)
        return
    expected = _settings_in(path)
    for name in dict.fromkeys([*expected, *found]):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{name}: expected {expected.get(name)!r}, as in {path}, found {found.get(name)!r}; choose another "
                "--out for other settings"
            )


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected the settings as JSON, found {error}; choose another --out") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected the settings by name, found {settings!r}; choose another --out")
    return settings
