"""Mosaics need the classes of other images before the first one is measured: a pass over all images, kept in parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Generator

from captum_sgcampp.evaluation.cases import Cases, most_probable
from captum_sgcampp.evaluation.items import Item, of_part, part_count
from captum_sgcampp.evaluation.measuring import Partners
from captum_sgcampp.metrics import sample_mosaics
from captum_sgcampp.storage.claims import Claims
from captum_sgcampp.storage.parts import Parts, checked
from captum_sgcampp.storage.work import finish_parts
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.failures import is_lasting

IMAGES_PER_PART = 64


def with_targets(folder: Path, classifier: Classifier, cases: Cases, items: Sequence[Item]) -> list[Item]:
    """The items with the class of every image that can be read.

    Args:
        folder: of the parts, which several runners share.
        classifier: finds the most probable class where the list has none.
        cases, items: all images.
    """
    folder.mkdir(exist_ok=True)
    parts = Parts(folder, part_count(items, IMAGES_PER_PART))
    finish_parts(parts, Claims(folder / "claims"), partial(_write, classifier, cases, items))
    paths = [path for _, path in sorted(parts.finished().items())]
    targets = [target for path in paths for target in pq.read_table(checked(path))["target"].to_pylist()]
    return [item._replace(target=target) for item, target in zip(items, targets, strict=True)]


def _write(classifier: Classifier, cases: Cases, items: Sequence[Item], number: int, path: Path) -> None:
    targets = [_target(classifier, cases, item) for item in of_part(items, number, IMAGES_PER_PART)]
    pq.write_table(pa.table({"target": pa.array(targets, pa.int64())}), path)


def _target(classifier: Classifier, cases: Cases, item: Item) -> int | None:
    """None: the image cannot be read. Its rows will say why."""
    try:
        inputs = cases.inputs(item)
        return most_probable(classifier, inputs) if item.target is None else item.target
    except Exception as error:
        cases.check()
        if is_lasting(error):
            raise
        return None


def partners(items: Sequence[Item], seed: int) -> list[Partners]:
    """For each image three others of other classes, or None. Images without a class are in no mosaic."""
    known = [(index, item.target) for index, item in enumerate(items) if item.target is not None]
    found: list[Partners] = [None] * len(items)
    chosen = sample_mosaics([target for _, target in known], Generator().manual_seed(seed))
    for (index, _), three in zip(known, chosen, strict=True):
        if three is not None:
            first, second, third = (known[other][0] for other in three)
            found[index] = first, second, third
    return found
