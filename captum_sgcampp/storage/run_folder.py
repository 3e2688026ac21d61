"""The folder of a run: what all runners on it have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.storage.checksums import file_digest, read_fields, write_fields_once
from captum_sgcampp.storage.claims import Claims
from captum_sgcampp.storage.parts import Parts

OWN = ".run"  # what readers of a folder of Parquet files leave out: for Hugging Face an underscore is not enough


@dataclass(frozen=True)
class RunFolder:
    """An opened run.

    Attributes:
        folder: of the parts.
        settings: all that changes the results, as the first runner wrote it.
        items: the file that lists what is worked on.
        parts: the results.
    """

    folder: Path
    settings: Mapping[str, Any]
    items: Path
    parts: Parts

    def claims(self) -> Claims:
        """For a runner on this folder."""
        return Claims(self.folder / OWN / "claims")

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compares settings with those of the run.

        Raises:
            ValueError: one differs. The message names it.
        """
        _check_same(_settings_path(self.folder), self.settings, json.loads(json.dumps(settings)))


def open_run(folder: Path, settings: Mapping[str, Any], list_items: Callable[[Path], int]) -> RunFolder:
    """The run in a folder, begun if there is none.

    Args:
        folder: made where it does not exist.
        settings: all that changes the results, by the name of the option. Values are compared as JSON.
        list_items: writes the file of items, and returns how many parts they make. Called at the first start only.

    Raises:
        ValueError: the folder holds other files, a run of other settings (the message names the first that differs),
            or damaged files.
        OSError: it cannot be written.
    """
    if not _settings_path(folder).exists():
        _begin(folder, settings, list_items)
    run = existing_run(folder)
    run.check(settings)
    return run


def existing_run(folder: Path) -> RunFolder:
    """The run in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its settings are damaged.
    """
    path = _settings_path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"folder: expected a run with its settings in {path}, found none")
    fields = read_fields(path)
    return RunFolder(folder, fields["settings"], folder / OWN / fields["items"], Parts(folder, fields["parts"]))


def setting_of(folder: Path, name: str) -> Any:
    """A setting of the run in a folder. None: there is no run, or it has no such setting.

    Raises:
        ValueError: its settings are damaged.
    """
    try:
        return existing_run(folder).settings.get(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_items(run: RunFolder) -> Path:
    """The list of items, whole.

    Raises:
        ValueError: it is damaged. The message names it.
    """
    found = file_digest(run.items) if run.items.is_file() else "no file"
    if found != run.items.stem:
        raise ValueError(f"{run.items}: expected the checksum {run.items.stem}, found {found}; choose another --out")
    return run.items


def _begin(folder: Path, settings: Mapping[str, Any], list_items: Callable[[Path], int]) -> None:
    """Writes the items, then the settings: where these are, the rest is. Several runners may begin at once. Each writes
    its own items, and the settings of the first one say whose count."""
    _check_free(folder)
    (folder / OWN).mkdir(parents=True, exist_ok=True)
    names, counts = [], []

    def named(content: Path) -> str:
        names.append(f"{file_digest(content)}.parquet")
        return names[0]

    with written_whole(folder / OWN / "items.parquet", named) as unfinished:
        counts.append(list_items(unfinished))
    write_fields_once(_settings_path(folder), {"settings": dict(settings), "items": names[0], "parts": counts[0]})


def _settings_path(folder: Path) -> Path:
    return folder / OWN / "settings.json"


def _check_free(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(f"--out: expected a folder, found a file at {folder}")
    foreign = sorted(path.name for path in folder.iterdir() if path.name != OWN)
    if foreign and not _settings_path(folder).exists():  # else another runner has begun meanwhile
        raise ValueError(
            f"--out: expected a new or empty folder, or one of this command, found {foreign[0]!r} in {folder}"
        )


def _check_same(path: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for name in dict.fromkeys([*expected, *found]):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{name}: expected {expected.get(name)!r}, as in {path}, found {found.get(name)!r}; "
                f"{_to_go_on(name, expected.get(name))}choose another --out for other settings"
            )


def _to_go_on(name: str, expected: Any) -> str:
    """The option that an earlier call had. Other settings than flags are named with their value anyway."""
    option = f"--{name.removeprefix('--').replace('_', '-')}"
    if not isinstance(expected, bool):
        return ""
    return f"{'give' if expected else 'leave out'} {option} to go on, or "
