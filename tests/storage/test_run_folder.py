"""A run's folder is begun once, goes on with the same settings, and refuses others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from captum_sgcampp.storage.run_folder import check_items, existing_run, open_run, setting_of

SETTINGS = {"seed": 3, "layers": ("a", "b"), "model": "small"}


def two_parts(path: Path) -> int:
    path.write_bytes(b"items")
    return 2


def test_a_run_is_begun_once_and_opened_again(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        run = open_run(tmp_path / "out", SETTINGS, lambda path: (calls.append(1), two_parts(path))[1])
        assert run.parts.count == 2 and check_items(run).read_bytes() == b"items"
    assert len(calls) == 1 and existing_run(tmp_path / "out").settings["layers"] == ["a", "b"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS, two_parts)
    with pytest.raises(ValueError, match=r"seed: expected 3, as in .*, found 4"):
        open_run(tmp_path, {**SETTINGS, "seed": 4}, two_parts)
    with pytest.raises(ValueError, match="device: expected None"):
        open_run(tmp_path, {**SETTINGS, "device": "cpu"}, two_parts)


def test_a_folder_of_other_files_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"--out.*thesis\.tex"):
        open_run(tmp_path, SETTINGS, two_parts)
    with pytest.raises(NotADirectoryError, match="--out"):
        open_run(tmp_path / "thesis.tex", SETTINGS, two_parts)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_error_while_listing_leaves_a_folder_that_can_be_begun(tmp_path: Path) -> None:
    def fails(path: Path) -> int:
        path.write_bytes(b"half")
        raise ValueError("SOURCE: expected images")

    with pytest.raises(ValueError, match="SOURCE"):
        open_run(tmp_path, SETTINGS, fails)
    assert open_run(tmp_path, SETTINGS, two_parts).parts.count == 2


def test_runners_that_begin_at_once_agree_on_one_list(tmp_path: Path) -> None:
    barrier, runs = threading.Barrier(6), []

    def begin(number: int) -> None:
        def items(path: Path) -> int:
            barrier.wait()  # all have found an empty folder
            path.write_text(f"items of {number}")
            return number + 1

        runs.append(open_run(tmp_path, SETTINGS, items))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.items for run in runs}) == len({run.parts.count for run in runs}) == 1
    assert check_items(runs[0]).read_text() == f"items of {runs[0].parts.count - 1}"


def test_damaged_items_are_noticed_by_name(tmp_path: Path) -> None:
    run = open_run(tmp_path, SETTINGS, two_parts)
    run.items.write_bytes(b"itemz")
    with pytest.raises(ValueError, match=run.items.name):
        check_items(run)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a run"):
        existing_run(tmp_path)


def test_a_setting_is_read_where_there_is_a_run(tmp_path: Path) -> None:
    open_run(tmp_path / "out", SETTINGS, two_parts)
    assert setting_of(tmp_path / "out", "seed") == 3 and setting_of(tmp_path / "out", "threads") is None
    assert setting_of(tmp_path / "new", "seed") is None
    (tmp_path / "file").touch()
    assert setting_of(tmp_path / "file", "seed") is None
