"""Results on disk: read again as they were written, and what is not theirs is refused by the name of the file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from captum_sgcampp.evaluation.records import Record, Records

SETTINGS = {"--steps": 3}


def a_record(image: str) -> Record:
    return Record(image, "features.3", "grad-cam", 2, 0.5, {"energy": 0.25, "win": math.nan})


def test_names_of_files_with_any_separator_are_read_again(tmp_path: Path) -> None:
    names = ["a.png", "b\u2028c.png", "d\x85e.png", "f\x1cg.png", "h\ni.png", "j\rk.png", "\u00e9.png"]
    written = Records(tmp_path, SETTINGS)
    for name in names:
        written.add(a_record(name))
    read = Records(tmp_path, SETTINGS)
    for name in names:
        found = read[name, "features.3", "grad-cam"]
        assert (found.target, found.confidence, found.values["energy"]) == (2, 0.5, 0.25)
        assert math.isnan(found.values["win"])


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"", b"3", b"[]", b'{"image": "a"}', b"\xff", b'{"values": {"a": []}}']
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_is_no_record_is_an_error_that_names_the_file(tmp_path: Path, garbage: bytes, place: int) -> None:
    written = Records(tmp_path, SETTINGS)
    for name in ("a.png", "b.png"):
        written.add(a_record(name))
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines()
    content = b"".join(line + b"\n" for line in [*lines[:place], garbage, *lines[place:]])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"records\.jsonl: expected a record .* in line {place + 1}, found"):
        Records(tmp_path, SETTINGS)
    assert path.read_bytes() == content


def test_what_is_torn_off_the_last_line_is_left_out(tmp_path: Path) -> None:
    written = Records(tmp_path, SETTINGS)
    for name in ("a.png", "b.png"):
        written.add(a_record(name))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    read = Records(tmp_path, SETTINGS)
    assert [(name, "features.3", "grad-cam") in read for name in ("a.png", "b.png")] == [True, False]


@pytest.mark.parametrize("content", ["", "{", "3"])
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json: expected the settings .*found"):
        Records(tmp_path, SETTINGS)
