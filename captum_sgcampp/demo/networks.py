"""The networks that a page offers. They are loaded when it starts, and no visitor can name another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from captum_sgcampp.demo.scenes import example_scene
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.vision.classifiers import BUNDLED, Classifier, load_classifier
from captum_sgcampp.vision.layer_choice import ListedLayer, layers_with_exact_closed_form, listed_layers
from captum_sgcampp.vision.model_factory import classifier_from_factory


@dataclass(frozen=True)
class Network:
    """A classifier, and how Python code gets it.

    Attributes:
        name: on the page.
        classifier: in evaluation mode.
        code: an expression that makes the classifier.
        imports: the lines that the expression needs.
    """

    name: str
    classifier: Classifier
    code: str
    imports: tuple[str, ...]

    @cached_property
    def layers(self) -> list[ListedLayer]:
        """The layers that can be explained, the deepest first."""
        example = self.classifier.prepare(example_scene(0))
        with exclusive_access():
            found = listed_layers(self.classifier.model, example)
        return sorted(reversed(found), key=lambda one: not one.is_default)

    @cached_property
    def exact_layers(self) -> list[str]:
        """The names of the layers at which the closed form of Grad-CAM++ is known to be exact, the deepest last."""
        example = self.classifier.prepare(example_scene(0))
        with exclusive_access():
            modules = {one.layer.name: one.module for one in self.layers}
            return layers_with_exact_closed_form(self.classifier.model, example, modules)

    def layer(self, name: str) -> ListedLayer:
        """The layer of that name.

        Raises:
            ValueError: none of the list.
        """
        for one in self.layers:
            if one.layer.name == name:
                return one
        raise ValueError(f"layer: expected one of the list, found {name!r}")


class Networks:
    """All networks of a page, by name.

    Args:
        models: `NAME` or `NAME=FILE`: the bundled network, or one of torchvision's, with its own weights or a file's.
        factories: as the option `--model-factory`.

    Raises:
        ValueError, TypeError, OSError: see `load_classifier` and `classifier_from_factory`.

    Examples::

        >>> Networks(["shapes"]).names
        ['shapes']
    """

    def __init__(self, models: Sequence[str] = (BUNDLED,), factories: Sequence[str] = ()) -> None:
        found = [*map(_of_name, models), *map(_of_factory, factories)]
        self._by_name = {network.name: network for network in found}
        if len(self._by_name) < len(found) or not found:
            raise ValueError(f"--model: expected networks of different names, found {[one.name for one in found]}")

    @property
    def names(self) -> list[str]:
        """In the order of the list; the first is shown first."""
        return list(self._by_name)

    def __getitem__(self, name: str) -> Network:
        if name not in self._by_name:
            raise ValueError(f"network: expected one of {', '.join(self.names)}, found {name!r}")
        return self._by_name[name]


def _of_name(text: str) -> Network:
    name, _, file = text.partition("=")
    classifier = load_classifier(name, Path(file) if file else None)
    argument = f", Path({Path(file).name!r})" if file else ""
    imports = ("from captum_sgcampp.vision.classifiers import load_classifier",)
    return Network(
        name,
        classifier,
        f"load_classifier({name!r}{argument})",
        (*imports, "from pathlib import Path") if file else imports,
    )


def _of_factory(text: str) -> Network:
    classifier = classifier_from_factory(text)
    where, _, call = text.rpartition(":")
    shown = f"{Path(where).name}:{call}"  # folders of the server are nobody's business
    imports = ("from captum_sgcampp.vision.model_factory import classifier_from_factory",)
    return Network(classifier.name, classifier, f"classifier_from_factory({shown!r})", imports)
