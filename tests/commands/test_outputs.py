"""Where results may go is known before the model runs."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from captum_sgcampp.commands.outputs import check_folder, check_map_folder, check_pictures, page_paths


def test_a_few_rows_have_one_file_and_more_have_numbered_ones(tmp_path: Path) -> None:
    out = tmp_path / "a.b.png"
    assert page_paths(out, 12, 12) == [out]
    assert [path.name for path in page_paths(out, 25, 12)] == ["a.b-01.png", "a.b-02.png", "a.b-03.png"]
    assert page_paths(out, 1200, 12)[0].name == "a.b-001.png"


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_an_image_that_is_read_is_never_replaced(tmp_path: Path, link: Any) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"image")
    out = image if link is None else tmp_path / "out.png"
    if link is not None:
        link(image, out)
    with pytest.raises(ValueError, match=r"^--out: expected another file"):
        check_pictures([out], [tmp_path / "absent.png", image], overwrite=True)


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    pages = [tmp_path / "a.png", tmp_path / "b.png"]
    check_pictures(pages, [], overwrite=False)
    (tmp_path / "b.png").symlink_to("nowhere.png")
    with pytest.raises(FileExistsError, match=r"^--out: expected a new file, .*b\.png'; .*--overwrite"):
        check_pictures(pages, [], overwrite=False)
    check_pictures(pages, [], overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"b.png"}


def test_maps_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    check_map_folder(tmp_path / "new" / "folder", overwrite=False)
    (tmp_path / "notes.txt").touch()
    check_map_folder(tmp_path, overwrite=False)
    (tmp_path / "map.npy").touch()
    with pytest.raises(FileExistsError, match=r"^--save-maps: expected a folder without \.npy"):
        check_map_folder(tmp_path, overwrite=False)
    check_map_folder(tmp_path, overwrite=True)


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"^--out: expected a regular file"):
        check_pictures([tmp_path / "full.png"], [], overwrite=True)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_folders_that_cannot_be_written_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(**_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=f"^--out: expected a folder that can be written, .*{os.strerror(code)}"):
        check_pictures([tmp_path / "a.png"], [], overwrite=False)
    with pytest.raises(OSError, match=r"^--save-maps: expected a folder that can be written"):
        check_folder("--save-maps", tmp_path / "new")
