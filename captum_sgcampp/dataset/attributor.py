"""From batches of images to rows of maps: a class without any engine, for Ray, Hugging Face, a loader or a loop."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_sgcampp.checks import check_several
from captum_sgcampp.dataset.columns import Row, arrays, joined
from captum_sgcampp.dataset.explain import Plan, explained_rows
from captum_sgcampp.dataset.options import Options
from captum_sgcampp.dataset.targets import Targets
from captum_sgcampp.vision.classifiers import Classifier, usable_device
from captum_sgcampp.vision.failures import is_lasting, is_of_memory, reason
from captum_sgcampp.vision.identity import example_picture, model_identity
from captum_sgcampp.vision.images import as_rgb, decode_image, read_image
from captum_sgcampp.vision.layer_choice import chosen_layer, fitting_layer
from captum_sgcampp.vision.model_factory import chosen_classifier
from captum_sgcampp.wide_gray import scaling_of


@dataclass
class Prepared:
    """An image ready for the model, or why it is not.

    Attributes:
        name, path: of the image, for its rows.
        inputs: `(1, C, H, W)`, or None.
        target: the class that it brings.
        shown: what the model sees, where it is asked for.
        note: what was done to the picture before, in words.
        error: why there are no inputs.
    """

    name: str
    path: str | None = None
    inputs: Tensor | None = None
    target: int = 0
    shown: Image.Image | None = None
    note: str | None = None
    error: str | None = None


class Attributor:
    r"""
    Explains batches of images: loads a model once, then turns dictionaries of columns into dictionaries of columns. It
    holds no state between calls, so `ray.data.Dataset.map_batches`, `datasets.Dataset.map(batched=True)`, a
    `torch.utils.data.DataLoader` and a plain loop can use it alike.

    An image that cannot be read or explained gives one row whose column `error` says why. The others are not disturbed.
    The maps of an image are the same bits whatever else is in the batch, on one machine with one number of threads, as
    long as `batch_size` is 1.

    Args:

        model (str or Classifier, optional): `"shapes"` (bundled), the name of a torchvision model, or a `Classifier`.
                    Default: None, `"shapes"` unless a factory is given
        weights (path, optional): State dict of the torchvision model. Default: None, torchvision's own
        model_factory (str, optional): `WHERE:FUNCTION[=ARGUMENT]` in place of `model`: a Python file or module, which
                    is executed, and a function of it that gives a module or a `Classifier`.
                    Default: None
        layers (sequence of str): Names of modules, among them those of transformers, whose tokens are brought to maps.
                    Default: (), the deepest layer with maps
        targets (sequence of str): Class names or numbers; or one of `"top"`, `"top:3"` (the most probable ones),
                    `"column:target"` (each image brings its own, in the column `target` of the batch).
                    Default: `("top",)`
        device (str): Default: `"cpu"`
        channels_last (bool): Whether model and images get torch's memory format `channels_last`, which is often
                    faster. The last bits of the maps depend on it.
                    Default: False
        **options (Any): Fields of `dataset.Options`: `methods`, `nt_samples`, `noise_level`, `seed`, `batch_size`, ...

    Raises:
        TypeError, ValueError, OSError: the arguments make no sense, or the model cannot be loaded.

    Examples::

        >>> attributor = Attributor(methods=("grad-cam++",), targets=("star",))
        >>> rows = attributor({"image": [bundled.draw_scene(7).image, np.zeros((8, 8, 3), np.uint8), b""]})
        >>> rows["map"][0].shape, rows["target_name"][0]
        ((256,), 'star')
        >>> rows["error"][2]
        "ImageError: '2': expected an image file, found an empty file"

    In a pipeline of Ray Data of your own (`attribute_dataset(..., engine="ray")` needs none of this)::

        import ray
        from ray.data.checkpoint import CheckpointConfig

        ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
            id_column="path", checkpoint_path="/shared/checkpoint", delete_checkpoint_on_success=False
        )
        images = ray.data.read_images(
            "/shared/photos", mode="RGB", include_paths=True, override_num_blocks=100, num_cpus=0.25
        )
        images.map_batches(
            Attributor,
            fn_constructor_kwargs={"model": "resnet50", "methods": ("grad-cam++",)},
            batch_size=8,
            batch_format="pyarrow",  # else the maps become tensors of Ray's own, which other readers do not know
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.25,
        ).write_parquet("/shared/maps", ray_remote_args={"num_cpus": 0.25})

    A second start filters the images in an actor that books one more CPU. Where all steps book whole CPUs, two CPUs are
    too few, and it waits for ever. Without `override_num_blocks` there can be one block, and nothing is on the disk
    before the end. Ray reports its use unless the environment variable `RAY_USAGE_STATS_ENABLED` is 0. With Hugging
    Face and with torch::

        features = datasets.Features.from_arrow_schema(captum_sgcampp.dataset.columns.schema(None, {}))
        rows = dataset.map(  # without features the names, in the column image, would be read as pictures
            attributor, batched=True, batch_size=8, remove_columns=dataset.column_names, features=features
        )
        for batch in torch.utils.data.DataLoader(dataset, batch_size=8, collate_fn=...):  # a dictionary of lists
            rows = attributor(batch)
    """

    def __init__(
        self,
        model: str | Classifier | None = None,
        *,
        weights: str | os.PathLike[str] | None = None,
        model_factory: str | None = None,
        layers: Sequence[str] = (),
        targets: Sequence[str] = ("top",),
        device: str = "cpu",
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        check_several("layers", layers)
        check_several("targets", targets)
        self.options = Options(**options)
        self.device = usable_device(device)
        self.classifier = _classifier(model, weights, model_factory)
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.classifier.model.to(self.device, memory_format=self._memory_format)  # type: ignore[call-overload]
        example = self._example(96, 64)
        self._usual_shape = example.shape
        network = self.classifier.model
        chosen = [fitting_layer(network, name, example) for name in layers] or [chosen_layer(network, example)]
        self.plan = Plan(self.classifier, tuple(chosen), Targets(self.classifier, tuple(targets)), self.options)

    def __call__(self, batch: Mapping[str, Sequence[Any]] | pa.Table) -> dict[str, NDArray[Any]] | pa.Table:
        """The rows of all images of a batch.

        Args:
            batch: columns. `image`: pictures of Pillow, bytes of image files, paths, dictionaries with `bytes` or
                `path`, arrays of uint8 `(H, W, 3)` or `(H, W)`, gray ones also of uint16, or inputs of the model,
                float tensors `(C, H, W)`. Gray of 16 bits is scaled to 8, and the column `note` tells how.
                `id` (optional): their names, by default `path` or numbers. `path` (optional): for the rows. The column
                of the classes, where `targets` names one. Other columns of a dictionary are left alone.

        Returns:
            One array per column of `dataset.columns.TYPES`. Maps are arrays of float32, `height` times `width` entries.
            For an Arrow table a table of these columns, maps as lists, with the other columns of the batch beside them.
        """
        if isinstance(batch, pa.Table):
            columns = {name: batch[name].to_pylist() for name in batch.column_names}
            return joined(batch, list(self._of_images(columns)))
        return arrays([row for rows in self._of_images(batch) for row in rows])

    def _of_images(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[list[Row]]:
        images = batch["image"]
        paths, targets = batch.get("path", [None] * len(images)), self._own_targets(batch, len(images))
        names = batch.get("id", batch.get("path", range(len(images))))
        columns = zip(map(str, names), images, targets, paths, strict=True)
        yield from (rows for _, rows in self.explain(self.prepare(*one) for one in columns))

    def prepare(
        self, name: str, image: Any, target: object = None, path: str | None = None, show: bool = False
    ) -> Prepared:
        """An image as the model takes it. May run beside the model, in any thread.

        Args:
            name: for its rows and messages.
            image, target: as in `__call__`; or a function without arguments that gives the image.
            path: for its rows.
            show: whether to keep what the model sees.
        """
        prepared = Prepared(name, path)
        try:
            prepared.target = self.plan.targets.own(target)
            found = picture(image() if callable(image) else image, name, self.options.white)
            prepared.note = scaling_of(found) or None
            prepared.inputs = self._inputs(found)
            prepared.shown = self.classifier.show(found) if show and isinstance(found, Image.Image) else None
        except Exception as error:  # whatever files, decoders and the user's code raise: the run goes on
            if is_lasting(error):
                raise
            prepared.error = reason(error)
        return prepared

    def explain(self, prepared: Iterable[Prepared]) -> Iterator[tuple[Prepared, list[Row]]]:
        """Every image with its rows, in the order of the images."""
        remaining = iter(prepared)
        while images := list(islice(remaining, self.options.images_at_once)):
            found: dict[int, list[Row]] = {}
            for group in _of_equal_shape(images):
                found |= zip(group, self._explained([images[number] for number in group]), strict=True)
            for number, image in enumerate(images):
                head = {"image": image.name, "path": image.path, "note": image.note}
                yield image, [head | row for row in found.get(number, [{"error": image.error}])]

    def _own_targets(self, batch: Mapping[str, Sequence[Any]], count: int) -> Sequence[Any]:
        kind, _, column = self.plan.targets.of_each_image.partition(":")
        if not kind:
            return [None] * count
        if column not in batch:
            raise ValueError(f"targets: expected a column {column!r} in the batch, found {', '.join(batch)}")
        return batch[column]

    def settings(self) -> dict[str, Any]:
        """All that changes the maps of an image, as JSON can hold it."""
        return {
            "model": self.classifier.name,
            "layers": [layer.name for layer in self.plan.layers],
            "targets": list(self.plan.targets.words),
            "channels_last": self._memory_format is torch.channels_last,
            **asdict(self.options),
            "map_size": self.map_size(),
            "notes": list(self.classifier.notes),
            **model_identity(self.classifier, self.device),
        }

    def map_size(self) -> int | None:
        """Entries of every map. None: layers or images differ."""
        wide, high = self._example(96, 64), self._example(64, 96)
        plan = replace(self.plan, options=Options(methods=("grad-cam++",), batch_size=1))
        sizes = {row["height"] * row["width"] for row in explained_rows(plan, wide, [0])[0]}
        return sizes.pop() if wide.shape == high.shape and len(sizes) == 1 else None

    def _example(self, width: int, height: int) -> Tensor:
        return self._inputs(example_picture().resize((width, height))).to(self.device)

    def _inputs(self, image: Image.Image | Tensor) -> Tensor:
        return image[None] if isinstance(image, Tensor) else self.classifier.prepare(image)

    def _explained(self, images: Sequence[Prepared]) -> list[list[Row]]:
        """The rows of images of equal shape. One that fails does so alone."""
        try:
            return self._padded(images)
        except Exception as error:
            usual = images[0].inputs is not None and images[0].inputs.shape == self._usual_shape
            _raise_if_lasting(error, usual, self.options.images_at_once)
            if len(images) == 1:
                return [[{"error": reason(error)}]]
        return [rows for image in images for rows in self._explained([image])]

    def _padded(self, images: Sequence[Prepared]) -> list[list[Row]]:
        """The rows, computed with as many images as always: the last one is repeated."""
        padding = [images[-1]] * (self.options.images_at_once - len(images))
        padded = [*images, *padding]
        rows = torch.cat([image.inputs for image in padded if image.inputs is not None])
        inputs = rows.to(self.device, memory_format=self._memory_format)
        return explained_rows(self.plan, inputs, [image.target for image in padded])[: len(images)]


def picture(image: Any, name: str, white: float | None = None) -> Image.Image | Tensor:
    """An image in one of the forms that `Attributor` takes. `white` is as in `read_image`."""
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, Image.Image):
        return as_rgb(image, white)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(io.BytesIO(image), repr(name), white=white)
    if isinstance(image, str | Path):
        return read_image(image, white=white)
    if isinstance(image, Tensor) and image.is_floating_point() and image.dim() == 3:
        return image
    values = np.asarray(image)
    is_color = values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8
    if is_color or (values.ndim == 2 and values.dtype in (np.uint8, np.uint16)):
        return as_rgb(Image.fromarray(values), white)
    raise TypeError(
        "image: expected a picture, the bytes or the path of a file, an array of uint8 (H, W, 3), a gray one of uint8 "
        f"or uint16 (H, W), or a float tensor (C, H, W), found {type(image).__name__} of {values.dtype} {values.shape}"
    )


def _classifier(
    model: str | Classifier | None, weights: str | os.PathLike[str] | None, factory: str | None
) -> Classifier:
    if isinstance(model, Classifier):
        if model.model.training:  # batch normalization would mix the images of a batch
            raise ValueError("model: expected one in evaluation mode, model.eval(), found one in training mode")
        return model
    return chosen_classifier(model, None if weights is None else Path(weights), factory)


def _of_equal_shape(images: Sequence[Prepared]) -> list[list[int]]:
    """Numbers of the images that can be explained together."""
    groups: dict[object, list[int]] = {}
    for number, image in enumerate(images):
        if image.inputs is not None:
            groups.setdefault((image.inputs.shape, image.inputs.dtype), []).append(number)
    return list(groups.values())


def _raise_if_lasting(error: Exception, usual: bool, images_at_once: int) -> None:
    """Raise what would make a row with an error of every further image, as memory for images of the usual size."""
    if is_of_memory(error) and usual:
        found = f"batch_size: expected images that fit into memory, found {images_at_once} at once"
        raise RuntimeError(f"{found} ({reason(error)})") from error
    if is_lasting(error) and not is_of_memory(error):
        raise error
