"""Parts are whole, and every changed bit is noticed by the name of the file."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from captum_sgcampp.storage.checksums import digest, read_fields, write_fields_once
from captum_sgcampp.storage.parts import Parts, checked


def written(folder: Path, contents: list[bytes]) -> Parts:
    parts = Parts(folder, len(contents))
    for number, content in enumerate(contents):
        parts.write(number, lambda path, content=content: path.write_bytes(content))
    return parts


def test_finished_parts_are_found_by_number(tmp_path: Path) -> None:
    parts = written(tmp_path, [b"a", b"b", b"c"])
    (tmp_path / "notes.txt").write_text("not a part")
    next(tmp_path.glob("part-000001.*")).unlink()
    assert sorted(parts.finished()) == [0, 2] and parts.missing() == [1]
    assert checked(parts.finished()[2]).read_bytes() == b"c"


def test_equal_bytes_have_equal_names(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, [b"a", b"b"])
    assert [p.name for p in sorted((tmp_path / "one").iterdir())] == [
        p.name for p in sorted((tmp_path / "two").iterdir())
    ]


@pytest.mark.parametrize("seed", range(100))
def test_a_flipped_bit_of_a_part_is_noticed_by_name(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    path = written(tmp_path, [chance.randbytes(1000)]).finished()[0]
    content = bytearray(path.read_bytes())
    place = chance.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name}.*damaged"):
        checked(path)


@pytest.mark.parametrize("seed", range(100))
def test_a_flipped_bit_of_the_settings_is_noticed_by_name(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write_fields_once(path, {"settings": {"seed": 3, "model": "small"}, "items": "x.parquet", "parts": 2})
    expected = read_fields(path)
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    place = chance.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    try:
        found = read_fields(path)
    except ValueError as error:
        assert "settings.json" in str(error)
    else:  # a space between two words became another one
        assert found == expected


def test_shortened_settings_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write_fields_once(path, {"settings": {}, "parts": 2})
    for length in (0, 1, 20):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=r"settings\.json.*damaged"):
            read_fields(path)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    parts = written(tmp_path, [b"a"])

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Parts(tmp_path, 2).write(1, full)
    assert Parts(tmp_path, 2).finished() == parts.finished()
    assert [path.name for path in tmp_path.iterdir()] == [parts.finished()[0].name]


def test_of_two_files_of_one_part_the_first_stays(tmp_path: Path) -> None:
    parts = written(tmp_path, [b"a"])
    parts.write(0, lambda path: path.write_bytes(b"b"))
    assert [checked(path).read_bytes() for path in tmp_path.iterdir()] == [b"a"]
    (tmp_path / "part-000000.ffffffffffffffff.parquet").write_bytes(b"b")  # of a runner that was not seen
    parts.remove_surplus()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a"]


def test_digests_know_where_a_part_ends() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
