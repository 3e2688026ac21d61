"""Rows on the disk: read again as they were written; a damaged part is named."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from captum_sgcampp.evaluation.rows import Record, by_method, failed, noted, read_rows, write_rows
from captum_sgcampp.storage.parts import Parts

NAMES = ("energy", "grid")


def a_record(image: str, method: str = "grad-cam") -> Record:
    return Record(image, "features.3", method, 2, 0.5, "aa", "1:2", values={"energy": 0.1, "grid": math.nan})


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    parts = Parts(tmp_path, 2)
    names = ["a.png", "b\u2028c.png", "d\x85e.png", "f\x1cg.png", "h\ni.png", "j\rk.png", "\u00e9.png", ""]
    rows = [a_record(name, method) for name in names for method in ("b", "a")]
    parts.write(0, lambda path: write_rows(path, rows[:8], NAMES))
    parts.write(1, lambda path: write_rows(path, rows[8:], NAMES))
    return [path for _, path in sorted(parts.finished().items())]


def test_rows_are_read_again_whatever_the_names(paths: list[Path]) -> None:
    found = by_method(read_rows(paths))
    assert [one.method for one in found] == ["b", "a"] and found[0].layer == "features.3"
    assert "".join(found[1].images) == "a.pngb\u2028c.pngd\x85e.pngf\x1cg.pngh\ni.pngj\rk.png\u00e9.png"
    assert found[1].values["energy"].tolist() == [0.1] * 8 and found[1].targets == [2] * 8
    assert all(map(math.isnan, found[1].values["grid"]))


def test_an_unknown_number_is_null(paths: list[Path]) -> None:
    assert pq.read_table(paths[0])["grid"].null_count == 8


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_is_an_error_that_names_the_part(paths: list[Path], place: int) -> None:
    content = bytearray(paths[1].read_bytes())
    content[place] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(ValueError, match=rf"{paths[1].name}: expected the checksum"):
        read_rows(paths)


def test_each_failed_image_is_listed_once(tmp_path: Path) -> None:
    errors = [Record("a", "x", "m", error="one"), Record("a", "y", "m", error="two"), a_record("b")]
    path = tmp_path / "part.parquet"
    write_rows(path, errors, NAMES)
    rows = pq.read_table(path)
    assert failed(rows) == {"a": "one"} and by_method(rows)[0].targets == [None]


def test_a_run_of_an_earlier_version_goes_on(paths: list[Path], tmp_path: Path) -> None:
    """Its parts have no notes."""
    parts = Parts(tmp_path / "earlier", 2)
    parts.folder.mkdir()
    old = pq.read_table(paths[0]).drop_columns("note")
    parts.write(0, lambda path: pq.write_table(old, path))
    assert noted(read_rows([parts.finished()[0]])) == {}
    parts.write(1, lambda path: write_rows(path, [replace(a_record("ray", "b"), note="scaled")], NAMES))
    rows = read_rows([path for _, path in sorted(parts.finished().items())])
    assert noted(rows) == {"ray": "scaled"} and len(by_method(rows)[0].images) == 5
