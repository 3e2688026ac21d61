"""Every source gives the same pictures, in an order that does not change, and each from its place."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captum_sgcampp.dataset.items import Item, items_of_part, write_items
from captum_sgcampp.dataset.sources import listed, read_item
from captum_sgcampp.vision.failures import LastingError


def read(items: list[Item], column: str = "image") -> list[np.ndarray]:
    return [np.asarray(read_item(item, column)) for item in items]


def assert_the_pictures(items: list[Item], pictures: list[Image.Image], column: str = "image") -> None:
    """In any order of reading."""
    assert len(items) == len(pictures) == len({item.name for item in items})
    for item, picture in reversed(list(zip(items, pictures, strict=True))):
        np.testing.assert_array_equal(np.asarray(read_item(item, column)), np.asarray(picture))


def encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


def by_class(pictures: list[Image.Image]) -> list[Image.Image]:
    return [picture for letter in range(3) for picture in pictures[letter::3]]


def test_a_folder_is_read_with_its_subfolders_in_order(folder: Path, pictures: list[Image.Image]) -> None:
    items = list(listed([str(folder)], "image", "folder"))
    assert items[0].name == "a/00.png" and items[-1].name == "c/11.png"
    assert [item.target for item in items] == [letter for letter in "abc" for _ in range(4)]
    assert_the_pictures(items, by_class(pictures))


def test_every_source_takes_a_white(tmp_path: Path) -> None:
    """Also where a picture is in an archive or a table."""
    datasets = pytest.importorskip("datasets")
    ray = Image.fromarray(np.array([[0, 924, 4095]], np.uint16))
    ray.save(tmp_path / "0.png")
    with tarfile.open(tmp_path / "rays.tar", "w") as archive:
        archive.add(tmp_path / "0.png", "0.png")
    table = pa.table({"image": [encoded(ray)]})
    pq.write_table(table, tmp_path / "rays.parquet")
    pq.write_table(pa.table({"image": ["0.png"]}), tmp_path / "paths.parquet")
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    for name in ("0.png", "rays.tar", "rays.parquet", "paths.parquet", "saved"):
        (item,) = listed([str(tmp_path / name)], "image", "")
        assert np.asarray(read_item(item, "image", white=1848))[0, :, 0].tolist() == [0, 128, 255], name


def test_what_is_no_image_is_left_out(folder: Path) -> None:
    expected = [item.name for item in listed([str(folder)], "image", "")]
    (folder / "x.jpg").mkdir()
    (folder / ".hidden").mkdir()
    for name in ("._00.png", "notes.md", ".hidden/a.png", "a/._01.png", "Thumbs.db"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe.jpg")
    assert [item.name for item in listed([str(folder)], "image", "")] == expected


@pytest.mark.skipif(os.name == "nt", reason="file names are UTF-16 there")
def test_file_names_need_not_be_text(folder: Path, pictures: list[Image.Image], tmp_path: Path) -> None:
    odd = [b"caf\xe9.png", b"line\nbreak.png", b"\x1b[31mred.png", "日本.png".encode()]
    for name in odd:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(encoded(pictures[0]))
    items = [item for item in listed([str(folder)], "image", "") if "/" not in item.name]
    write_items(tmp_path / "items.parquet", items, 2)
    stored = [item for part in range(2) for item in items_of_part(tmp_path / "items.parquet", part)]
    assert stored == items and len(items) == 4
    assert_the_pictures(stored, [pictures[0]] * 4)


def test_lists_name_files_beside_them(folder: Path, pictures: list[Image.Image]) -> None:
    (folder / "list.txt").write_text("a/00.png\r\n\nb/01.png\n")
    assert_the_pictures(list(listed([str(folder / "list.txt")], "image", "")), pictures[:2])
    (folder / "list.csv").write_text("label,path\nc,a/00.png\na,b/01.png\n")
    items = list(listed([str(folder / "list.csv")], "image", "column:label"))
    assert_the_pictures(items, pictures[:2])
    assert [item.target for item in items] == ["c", "a"]


def test_files_are_named_by_themselves(folder: Path, pictures: list[Image.Image]) -> None:
    items = list(listed([str(folder / "a/00.png"), str(folder / "b/01.png")], "image", "stem"))
    assert_the_pictures(items, pictures[:2])
    assert [item.target for item in items] == ["00", "01"]


@pytest.mark.parametrize("form", ["bytes", "huggingface", "path"])
def test_parquet_holds_bytes_or_paths(form: str, folder: Path, pictures: list[Image.Image]) -> None:
    paths = [f"{'abc'[number % 3]}/{number:02d}.png" for number in range(12)]
    values: list[object] = {
        "bytes": [encoded(picture) for picture in pictures],
        "huggingface": [{"bytes": encoded(picture), "path": "x"} for picture in pictures],
        "path": paths,
    }[form]
    table = pa.table({"picture": values, "label": list(range(12))})
    pq.write_table(table, folder / "data.parquet", row_group_size=5)
    items = list(listed([str(folder / "data.parquet")], "picture", "column:label"))
    assert_the_pictures(items, pictures, "picture")
    assert [item.target for item in items] == [str(number) for number in range(12)]


@pytest.mark.parametrize("source", ["shard.tar", "."])
def test_shards_of_webdataset_bring_their_classes(source: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for number, picture in enumerate(pictures):
            contents = {"png": encoded(picture), "cls": f"{number % 5}\n".encode(), "json": b"{}"}
            for suffix, content in contents.items():
                member = tarfile.TarInfo(f"set/{number:05d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    items = list(listed([str(tmp_path / source)], "image", "column:cls"))
    assert_the_pictures(items, pictures)
    assert [item.target for item in items] == [str(number % 5) for number in range(12)]


def test_shards_written_by_webdataset_are_read(tmp_path: Path, pictures: list[Image.Image]) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "shard.tar")) as writer:
        for number, picture in enumerate(pictures):
            writer.write({"__key__": f"{number:05d}", "png": encoded(picture), "cls": number % 5})
    items = list(listed([str(tmp_path / "shard.tar")], "image", "column:cls"))
    assert_the_pictures(items, pictures)
    assert [item.target for item in items] == [str(number % 5) for number in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("below", [False, True])
def test_data_sets_of_hugging_face_are_read(below: bool, tmp_path: Path, pictures: list[Image.Image]) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"image": pictures, "label": list(range(12))}).cast_column(
        "image", datasets.Image()
    )
    rows.save_to_disk(str(tmp_path / "all" / "train"))
    source = tmp_path / "all" if below else tmp_path / "all" / "train"
    items = list(listed([str(source)], "image", "column:label"))
    assert_the_pictures(items, pictures)
    assert [item.target for item in items] == [str(number) for number in range(12)]


def test_several_sources_keep_their_names_apart(folder: Path) -> None:
    items = list(listed([str(folder / "a"), str(folder / "b"), str(folder / "c/02.png")], "image", ""))
    assert len({item.name for item in items}) == len(items) == 9


def test_equal_names_are_refused(folder: Path, tmp_path: Path) -> None:
    twice = list(listed([str(folder), str(folder)], "image", ""))
    with pytest.raises(ValueError, match="twice"):
        write_items(tmp_path / "items.parquet", twice, 5)


@pytest.mark.parametrize(
    "source, column, target, message",
    [
        ("nowhere", "image", "", "SOURCE: .*nowhere"),
        ("data.parquet", "picture", "", "'picture'.*image, label"),
        ("data.parquet", "image", "column:kind", "'kind'"),
        ("list.csv", "image", "", "'path'"),
        ("short.csv", "image", "", "path in every row.*short.csv"),
    ],
)
def test_bad_sources_are_refused_by_name(source: str, column: str, target: str, message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b""], "label": [1]}), tmp_path / "data.parquet")
    (tmp_path / "list.csv").write_text("file\na.png\n")
    (tmp_path / "short.csv").write_text("label,path\n1\n")
    with pytest.raises((ValueError, OSError), match=message):
        list(listed([str(tmp_path / source)], column, target))


def test_parts_hold_their_items_and_none_are_refused(folder: Path, tmp_path: Path) -> None:
    items = list(listed([str(folder)], "image", "folder"))
    assert write_items(tmp_path / "items.parquet", items, 5) == 3
    assert [len(items_of_part(tmp_path / "items.parquet", part)) for part in range(3)] == [5, 5, 2]
    with pytest.raises(ValueError, match="found none"):
        write_items(tmp_path / "none.parquet", [], 5)


def test_changed_files_are_noticed(folder: Path, pictures: list[Image.Image], tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [encoded(picture) for picture in pictures[:3]]}), tmp_path / "data.parquet")
    items = list(listed([str(tmp_path / "data.parquet")], "image", ""))
    pq.write_table(pa.table({"image": [encoded(picture) for picture in pictures[3:5]]}), tmp_path / "data.parquet")
    with pytest.raises(LastingError, match=r"data\.parquet as it was when the run began"):
        read_item(items[0], "image")
    assert_the_pictures(list(listed([str(tmp_path / "data.parquet")], "image", "")), pictures[3:5])
    item = next(listed([str(folder)], "image", ""))
    Path(os.fsdecode(item.file)).write_bytes(encoded(pictures[5]) + b" ")
    with pytest.raises(ValueError, match=r"00\.png as it was"):
        read_item(item, "image")


def test_results_and_folders_that_lead_to_themselves_are_no_sources(folder: Path) -> None:
    expected = [item.name for item in listed([str(folder)], "image", "")]
    (folder / "maps" / ".run").mkdir(parents=True)
    (folder / "maps" / "part.png").write_bytes(b"")
    (folder / "a" / "loop").symlink_to(folder)
    assert [item.name for item in listed([str(folder)], "image", "")] == expected


def test_labels_of_pandas_with_unknown_ones_stay_whole_numbers(tmp_path: Path, pictures: list[Image.Image]) -> None:
    images = [encoded(picture) for picture in pictures[:3]]
    pq.write_table(pa.table({"image": images, "label": [3.0, float("nan"), None]}), tmp_path / "data.parquet")
    items = listed([str(tmp_path / "data.parquet")], "image", "column:label")
    assert [item.target for item in items] == ["3", None, None]


def write_shard(path: Path, pictures: list[Image.Image], names: list[str]) -> list[int]:
    """Returns where the members begin."""
    with tarfile.open(path, "w") as archive:
        for name, picture in zip(names, pictures, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(picture))
            archive.addfile(member, io.BytesIO(encoded(picture)))
    with tarfile.open(path) as archive:
        return [member.offset for member in archive]


NAMES = ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("damage", ["a head in the middle", "cut in a head", "cut in an image", "no shard"])
def test_a_damaged_shard_loses_no_image_without_a_word(
    damage: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    path = tmp_path / "shard.tar"
    _, second, _ = write_shard(path, pictures[:3], NAMES)
    content = path.read_bytes()
    path.write_bytes(
        {
            "a head in the middle": content[:second] + b"?" + content[second + 1 :],
            "cut in a head": content[: second + 100],
            "cut in an image": content[: second + 600],
            "no shard": b"?" * 2000,
        }[damage]
    )
    with pytest.raises(ValueError, match=r"SOURCE: (?=.*shard\.tar).*damage"):
        list(listed([str(path)], "image", ""))


def test_a_shard_that_was_written_anew_gives_no_image_of_another_name(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    write_shard(tmp_path / "shard.tar", pictures[:3], NAMES)
    items = list(listed([str(tmp_path / "shard.tar")], "image", ""))
    write_shard(tmp_path / "shard.tar", pictures[:3][::-1], NAMES[::-1])
    with pytest.raises(LastingError, match=r"shard\.tar/0\.png as it was when the run began"):
        read_item(items[0], "image")


def test_a_parquet_file_that_was_written_anew_is_read_anew(tmp_path: Path, pictures: list[Image.Image]) -> None:
    path = tmp_path / "data.parquet"
    for picture in pictures[:2]:
        pq.write_table(pa.table({"image": [encoded(picture)]}), path)
        assert_the_pictures(list(listed([str(path)], "image", "")), [picture])


def test_a_data_set_that_was_saved_anew_is_read_anew(tmp_path: Path, pictures: list[Image.Image]) -> None:
    datasets = pytest.importorskip("datasets")
    for picture in pictures[:2]:
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.Dataset.from_dict({"image": [encoded(picture)]}).save_to_disk(str(tmp_path / "saved"))
        assert_the_pictures(list(listed([str(tmp_path / "saved")], "image", "")), [picture])


@pytest.mark.parametrize("name, text", [("list.txt", "a/00.png\n"), ("list.csv", "path,label\na/00.png,c\n")])
def test_lists_may_begin_with_the_mark_of_excel(
    name: str, text: str, folder: Path, pictures: list[Image.Image]
) -> None:
    (folder / name).write_text(text, encoding="utf-8-sig")
    assert_the_pictures(list(listed([str(folder / name)], "image", "")), pictures[:1])


@pytest.mark.skipif(os.name == "nt", reason="file names are UTF-16 there")
def test_classes_that_are_no_text_are_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "a").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    (folder / "list.csv").write_bytes(b"path,label\nb/01.png,caf\xe9\n")
    for source, target in ((folder, "folder"), (folder / "list.csv", "column:label")):
        items = list(listed([str(source)], "image", target))
        write_items(tmp_path / "items.parquet", items, 100)
        assert "caf\\xe9" in [item.target for item in items_of_part(tmp_path / "items.parquet", 0)]


def test_a_link_that_leads_nowhere_is_not_lost(folder: Path) -> None:
    (folder / "lost.png").symlink_to("nowhere.png")
    lost = list(listed([str(folder)], "image", ""))[-1]
    assert lost.name == "lost.png"
    with pytest.raises(FileNotFoundError):
        read_item(lost, "image")


@pytest.mark.parametrize("name", ["data.parquet", "shard.tar"])
def test_a_damaged_file_in_a_folder_is_named(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"SOURCE: .*{name}"):
        list(listed([str(folder)], "image", ""))
