"""One `Attributor` in the pipelines of other libraries gives the same rows."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from captum_sgcampp.bundled import draw_scene
from captum_sgcampp.dataset import Attributor
from captum_sgcampp.dataset.columns import TYPES, schema

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [draw_scene(number).image for number in range(len(NAMES))]


@pytest.fixture(scope="module")
def attributor() -> Attributor:
    return Attributor(methods=("grad-cam++", "grad-cam"), batch_size=2)


@pytest.fixture(scope="module")
def expected(attributor: Attributor, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    return attributor({"image": pictures, "id": NAMES})


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def assert_same_maps(found: list, expected: dict[str, np.ndarray]) -> None:
    assert len(found) == len(expected["map"]) == 2 * len(NAMES)
    assert all(np.array_equal(np.asarray(a, np.float32), b) for a, b in zip(found, expected["map"], strict=True))


def test_a_table_gives_a_table_with_its_other_columns(
    attributor: Attributor, pictures: list[np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    files = [png(picture) for picture in pictures]
    batch = pa.table({"path": NAMES, "image": files, "label": [7, 8, 9], "shape": [[1, 2], None, [3]]})
    found = attributor(batch)
    assert found.column_names == [*TYPES, "label", "shape"]
    assert found.schema.field("map").type == pa.list_(pa.float32())
    assert_same_maps(found["map"].to_pylist(), expected)
    assert found["label"].to_pylist() == [7, 7, 8, 8, 9, 9] and found["shape"].to_pylist()[1:4] == [[1, 2], None, None]
    assert found["image"].to_pylist() == found["path"].to_pylist() == ["a", "a", "b", "b", "c", "c"]
    assert found["nt_samples"].null_count == 6  # where a dictionary has -1


def test_tables_of_one_pipeline_have_one_schema(attributor: Attributor, pictures: list[np.ndarray]) -> None:
    batches = [{"image": [png(pictures[0])]}, {"image": [b"damaged"]}, {"image": pa.array([], pa.binary())}]
    found = [attributor(pa.table(batch)) for batch in batches]
    assert [len(one) for one in found] == [2, 1, 0]
    assert found[0].schema.equals(found[1].schema) and found[0].schema.equals(found[2].schema)
    assert found[1]["map"].to_pylist() == [None] and "expected an image" in found[1]["error"][0].as_py()


def test_a_map_of_hugging_face(
    attributor: Attributor, pictures: list[np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    images = [Image.fromarray(picture) for picture in pictures]
    source = datasets.Dataset.from_dict(
        {"id": NAMES, "image": images}, datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    )
    features = datasets.Features.from_arrow_schema(schema(None, {}))
    rows = source.map(attributor, batched=True, batch_size=2, remove_columns=source.column_names, features=features)
    assert rows["image"][:] == ["a", "a", "b", "b", "c", "c"]
    assert_same_maps(rows["map"][:], expected)


def test_a_loader_of_torch(attributor: Attributor, pictures: list[np.ndarray], expected: dict[str, np.ndarray]) -> None:
    items = [{"id": name, "image": picture} for name, picture in zip(NAMES, pictures, strict=True)]
    batches = DataLoader(items, batch_size=2, collate_fn=lambda of: {key: [one[key] for one in of] for key in of[0]})
    found = [one for batch in batches for one in attributor(batch)["map"]]
    assert_same_maps(found, expected)
