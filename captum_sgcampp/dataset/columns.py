"""The columns of a run's results, and their form in Arrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# A row is one map: of one image, class, method and layer. A row with an error has no map.
TYPES: Mapping[str, pa.DataType] = {
    "image": pa.string(),  # its name in the source
    "path": pa.string(),
    "target": pa.int64(),
    "target_name": pa.string(),
    "score": pa.float32(),  # logit of the clean image
    "probability": pa.float32(),
    "layer": pa.string(),
    "method": pa.string(),
    "nt_samples": pa.int64(),  # noisy samples used; null for methods without noise, as the next two and the statistics
    "noise_level": pa.float32(),
    "seed": pa.int64(),
    "device": pa.string(),
    "height": pa.int32(),  # of the map
    "width": pa.int32(),
    "input_height": pa.int32(),  # of what the model sees, in pixels
    "input_width": pa.int32(),
    "standard_error": pa.float32(),
    "effective_sample_size": pa.float32(),
    "pole_share": pa.float32(),
    "pole_weight_share": pa.float32(),
    "note": pa.string(),  # what was done to the picture before: gray of 16 bits is scaled to 8
    "error": pa.string(),
    "map": pa.list_(pa.float32()),  # height x width, row by row; of fixed size where all maps have one
}

Row = dict[str, Any]


def arrays(rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """The rows as one array per column. Numbers that are unknown are NaN or -1, the maps are arrays of float32."""
    return {name: _array(kind, [row.get(name) for row in rows]) for name, kind in TYPES.items()}


def _array(kind: pa.DataType, values: list[Any]) -> NDArray[Any]:
    if pa.types.is_floating(kind):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    if pa.types.is_integer(kind):
        return np.array([-1 if value is None else value for value in values], dtype=kind.to_pandas_dtype())
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def schema(map_size: int | None, metadata: Mapping[str, Any]) -> pa.Schema:
    """The columns of a file.

    Args:
        map_size: entries of every map. None: they differ.
        metadata: settings, versions and the model's digest, kept as JSON.
    """
    kinds = {**TYPES, "map": pa.list_(pa.float32(), -1 if map_size is None else map_size)}
    return pa.schema(list(kinds.items()), {"captum_sgcampp": json.dumps(metadata, sort_keys=True)})


def table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """The rows as an Arrow table of these columns."""
    return pa.Table.from_arrays(
        [_column([row.get(name) for row in rows], columns.field(name).type) for name in TYPES], schema=columns
    )


def joined(batch: pa.Table, of_images: Sequence[Sequence[Row]]) -> pa.Table:
    """The rows of every image as a table, beside those columns of the batch whose names a run does not use."""
    found = table([row for rows in of_images for row in rows], schema(None, {}).remove_metadata())
    images = np.repeat(np.arange(len(of_images)), [len(rows) for rows in of_images])
    for field in batch.schema:
        if field.name not in TYPES:
            found = found.append_column(field, batch[field.name].take(pa.array(images)))
    return found


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind):
        return pa.array(values, kind)
    none = np.empty(0, np.float32)
    entries = [none if value is None else value for value in values]
    absent = pa.array([value is None for value in values], pa.bool_())
    if pa.types.is_list(kind):
        offsets = np.cumsum([0, *map(len, entries)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([none, *entries])), mask=absent)
    entries = [np.zeros(kind.list_size, np.float32) if value is None else value for value in values]
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([none, *entries])), type=kind, mask=absent)
