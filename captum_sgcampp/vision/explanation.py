"""What `explain` returns: the maps, the most probable classes, what was assumed; shown, saved and told in words."""

from __future__ import annotations

import html
import io
import os
import sys
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image, ImageShow
from torch import Tensor

from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.names import printable
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explained_classes import Explained, Results, Subject
from captum_sgcampp.vision.layer_choice import ChosenLayer
from captum_sgcampp.vision.methods import METHODS, Noise
from captum_sgcampp.vision.pictures import picture_figure, png_of, save_picture
from captum_sgcampp.vision.places import Place
from captum_sgcampp.vision.saved_maps import MANIFEST, MapFolder

PICTURE = "explanation.png"
DOTS_PER_INCH = 100  # of the picture in a notebook


class TopClass(NamedTuple):
    """One of the most probable classes."""

    target: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class ExplainedMap:
    """The map of one class by one method at one layer.

    Attributes:
        target: class index.
        class_name: its name.
        method: as `explain` takes it, `"smooth-grad-cam++"`.
        layer: name of the module.
        values: `(1, 1, h, w)`, in the layer's size, after the papers' ReLU: what `attribute` gives with
            `relu_attributions=True`.
        note: size of the map, why it is zero where it is, and how sure it is, in words.
        nt_samples: how many noisy samples it took. None: a method without noise.
        statistics: of these samples. None: a method without noise.
    """

    target: int
    class_name: str
    method: str
    layer: str
    values: Tensor
    note: str
    nt_samples: int | None = None
    statistics: SamplingStatistics | None = None

    @property
    def names(self) -> tuple[int, str]:
        """Of its class: the index, and the name."""
        return self.target, self.class_name

    def explained(self) -> Explained:
        """As the pictures and the folders of maps take it."""
        return Explained(self.values, self.note, self.nt_samples, self.statistics)

    def __repr__(self) -> str:
        return f"ExplainedMap({self.class_name!r}, {METHODS[self.method]}, {self.layer}: {self.note})"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    r"""
    What `captum_sgcampp.explain` returns. `print` tells all of it in words, and a notebook shows it.

    Attributes:
        maps: tuple of `ExplainedMap`, by class, layer and method; see `map`.
        top: the most probable classes, at most five, each with `target` (its index), `name` and `probability`.
        layers: that were explained, each with its `name`, `reshape_transform` and, if it was chosen, `reason`.
        notes: what was assumed, in words: preprocessing, names of the classes.
        reasons: why these layers, in words; empty where they were named.
        subjects: what was explained, a class each.
        classifier: the model, with its preprocessing and class names.
        noise: of the smooth methods.
        place: what the maps are restricted to.
        restriction: the same, and the feature maps, for the manifest.
        advice: how far to trust the maps, in sentences, where something speaks against them.

    Examples::

        >>> explanation = explain(None, bundled.draw_scene(7).image, nt_samples=2)
        >>> explanation.top[0].name
        'ring'
        >>> explanation.map("grad-cam++").values.shape
        torch.Size([1, 1, 16, 16])
        >>> folder = explanation.save("ring")
        >>> sorted(path.suffix for path in folder.iterdir())
        ['.json', '.npy', '.npy', '.npy', '.png']
    """

    classifier: Classifier
    subjects: tuple[Subject, ...]
    maps: tuple[ExplainedMap, ...]
    top: tuple[TopClass, ...]
    layers: tuple[ChosenLayer, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    noise: Noise
    place: Place | None
    restriction: Mapping[str, Any]
    advice: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the image."""
        return self.subjects[0].name

    @property
    def image(self) -> Image.Image:
        """The part of the image that the model saw."""
        shown: Image.Image = self.subjects[0].shown
        return shown

    @property
    def inputs(self) -> Tensor:
        """What the model got, `(1, C, H, W)`: for Captum's classes, and ours."""
        return self.subjects[0].inputs

    def map(self, method: str | None = None, layer: str | None = None, target: str | int | None = None) -> ExplainedMap:
        """The first map of this method, at this layer, of this class.

        Args:
            method: as `explain` takes it. None: any.
            layer: name of a module. None: any.
            target: name or index of a class. None: any.

        Raises:
            ValueError: there is none.
        """
        for one in self.maps:
            if method in (None, one.method) and layer in (None, one.layer) and target in (None, *one.names):
                return one
        there = ", ".join(f"({one.method!r}, {one.layer!r}, {one.class_name!r})" for one in self.maps)
        wanted = ", ".join(repr(value) for value in (method, layer, target) if value is not None)
        raise ValueError(f"method, layer, target: expected one of {there}, found {wanted}")

    def figure(self, cmap: str = "jet") -> Figure:
        """The image and its maps: a row for each class and layer. matplotlib's own figure, unknown to pyplot.

        Args:
            cmap: color map of matplotlib.
        """
        rows = list(self._rows())
        maps = [{key: one.maps for key, one in results.items()} for _, results in rows]
        places = [self.place] * len(rows)
        return picture_figure([subject for subject, _ in rows], maps, places, cmap=cmap, note=self._selected())

    def show(self) -> None:
        """Show it: below the cell of a notebook, elsewhere in the system's viewer of pictures."""
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if hasattr(shell, "kernel"):
            display: Any = import_module("IPython.display")  # there where a notebook runs
            display.display(self)
        elif not ImageShow.show(Image.open(io.BytesIO(self._repr_png_()))):
            warnings.warn(
                "show: expected a notebook or a viewer of pictures, found none; use save(folder)", stacklevel=2
            )

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the picture (`explanation.png`), every map (`.npy`, in the layer's size), and `manifest.json`, which
        says what each is, with the versions and a digest of the weights as they are now.

        Args:
            folder: made where it is missing.
            overwrite: whether files of an earlier explanation there may be replaced.

        Returns:
            The folder.

        Raises:
            OSError: files that are there, or a folder that cannot be written.
        """
        place = Path(folder)
        there = [path.name for path in (place / PICTURE, place / MANIFEST, *place.glob("*.npy")) if path.exists()]
        if there and not overwrite:
            raise FileExistsError(
                f"folder: expected one without an explanation, found {there[0]!r} in {os.fspath(place)!r}; choose "
                "another, or overwrite=True"
            )
        maps = MapFolder(place, self.classifier, self.noise, {**self.restriction, "notes": [*self.notes, *self.advice]})
        for subject in self.subjects:
            maps.add(subject, self.results(subject))
        save_picture(place / PICTURE, self.figure())
        maps.finish()
        return place

    def results(self, subject: Subject) -> Results:
        """The maps of one class, as pictures and folders of maps take them."""
        own = [one for one in self.maps if one.target == subject.target]
        return {(METHODS[one.method], one.layer): one.explained() for one in own}

    def lines(self, subject: Subject) -> list[str]:
        """One class in words: its probability, and a line for each map."""
        maps = [
            f"  {METHODS[one.method]}, {one.layer}: {one.note}" for one in self.maps if one.target == subject.target
        ]
        return [f"{subject.name}: {subject.label}", *maps]

    def __repr__(self) -> str:
        classes = ", ".join(f"{one.name} {one.probability:.3f}" for one in self.top)
        lines = [f"Explanation of {self.name} by {self.classifier.name}", f"most probable: {classes}"]
        lines += [f"layer: {reason}" for reason in self.reasons] + list(self.notes)
        lines += [line for subject in self.subjects for line in self.lines(subject)] + list(self.advice)
        return "\n".join(printable(line) for line in lines)

    def _repr_html_(self) -> str:
        """For notebooks: the picture, and below it the words."""
        picture = b64encode(self._repr_png_()).decode()
        title, *words = repr(self).split("\n")
        return (
            f'<img src="data:image/png;base64,{picture}" alt="{html.escape(title)}" style="max-width: 100%">'
            f"<details><summary>{html.escape(title)}. {html.escape(words[0].capitalize())}.</summary>"
            f'<pre style="white-space: pre-wrap">{html.escape(chr(10).join(words[1:]))}</pre></details>'
        )

    def _repr_png_(self) -> bytes:
        return png_of(self.figure(), DOTS_PER_INCH)

    def _rows(self) -> Iterator[tuple[Subject, Results]]:
        """A row of the picture for each class and layer."""
        for subject in self.subjects:
            results = self.results(subject)
            for layer in self.layers:
                yield subject, {key: one for key, one in results.items() if key[1] == layer.name}

    def _selected(self) -> str:
        chosen = self.restriction.get("feature_maps")
        return f"feature maps {', '.join(map(str, chosen))}" if chosen else ""
