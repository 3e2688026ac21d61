"""Changes of the page: what its components show of an explanation, or of what went wrong."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from captum_sgcampp.demo import html
from captum_sgcampp.demo.explaining import Explanation
from captum_sgcampp.demo.maps import full_weights
from captum_sgcampp.demo.methods import GUIDED, takes_noise
from captum_sgcampp.demo.networks import Network, Networks
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.settings import Settings, link_of, settings_of
from captum_sgcampp.demo.visitor import Seen, Visitor
from captum_sgcampp.vision.layer_choice import ListedLayer

Changes = dict[Any, Any]
SETTINGS = tuple(field.name for field in fields(Settings))
# The components that handlers change.
OUTPUTS = ("visitor", *SETTINGS, "image", "status", "maps", "words", "tiles", "grid", "files", "link", "code")


class Changing:
    """What all handlers have in common.

    Args:
        networks: that visitors can choose.
        parts: the components by name.
    """

    def __init__(self, networks: Networks, parts: dict[str, Any]) -> None:
        self._networks, self._parts = networks, parts

    def _read(self, values: Any) -> Settings:
        return settings_of(dict(zip(SETTINGS, values, strict=True)))

    def _named(self, changes: dict[str, Any]) -> Changes:
        return {self._parts[name]: value for name, value in changes.items()}

    def _failed(self, error: Exception) -> Changes:
        # After a refused layer no map of another one stays.
        nothing = self._nothing() if isinstance(error, RuntimeError) else {}
        return self._named({**nothing, "status": html.status(str(error), is_error=True)})

    def _nothing(self) -> dict[str, Any]:
        return {
            **dict.fromkeys(["maps", "words", "tiles", "grid", "code", "link"], ""),
            "files": gr.File(None, visible=False),
        }

    def _choices(self, visitor: Visitor, settings: Settings) -> dict[str, Any]:
        """The values of all settings, and what can be chosen."""
        network = self._networks[settings.network]
        values = {name: getattr(settings, name) for name in SETTINGS}
        classes = _class_choices(network, visitor.seen_by(network))
        return {
            **values,
            "methods": list(settings.methods),
            "layer": gr.Dropdown(_layer_choices(network), value=settings.layer),
            "target": gr.Dropdown(classes, value=settings.target),
            "compared": gr.Dropdown([("nothing", ""), *classes], value=_or_nothing(settings.compared)),
        }

    def _all(self, visitor: Visitor, found: Explanation, unchanged: str = "") -> dict[str, Any]:
        """Everything that shows an explanation, but what a click leaves as it is: `tiles` or `grid`."""
        settings = found.settings
        parts = {"tiles": _tiles, "grid": _grid}
        return {
            "visitor": visitor,  # a sign of life: Gradio forgets those that are not set again for an hour
            "maps": html.figures(found),
            "words": html.told(found),
            **{name: shown(found) for name, shown in parts.items() if name != unchanged},
            "link": visitor.address + link_of(settings, visitor.scene),
            "code": found.recipe(visitor).code(),
            "files": gr.File(None, visible=False),
        }


def _tiles(found: Explanation) -> str:
    settings, kept = found.settings, found.kept[0]
    strongest = next((m for m in settings.methods if kept.count or not takes_noise(m)), "grad-cam++")
    weights = full_weights(strongest.removeprefix(GUIDED), kept)
    return html.feature_maps(kept.clean.activation, weights, found.feature_maps, settings.cmap)


def _grid(found: Explanation) -> str:
    return html.neurons(found.seen.shown, found.layer.size, found.cells)


def _class_choices(network: Network, seen: Seen) -> list[tuple[str, Any]]:
    names = network.classifier.classes
    return [(f"{names[k]}: {seen.probabilities[k]:.3f}", k) for k in seen.order()]


def _layer_choices(network: Network) -> list[tuple[str, str]]:
    return [(_layer_label(one), one.layer.name) for one in network.layers]


def _layer_label(one: ListedLayer) -> str:
    deepest = " (the deepest)" if one.is_default else ""
    return f"{one.layer.name}, {one.feature_maps} maps of {one.size[0]} x {one.size[1]}{deepest}"


def _or_nothing(target: int | None) -> Any:
    return "" if target is None else target
