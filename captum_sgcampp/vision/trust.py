"""How far to trust the maps of a picture: what their statistics and the network after the layer say, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from captum_sgcampp.vision.explanation import ExplainedMap
from captum_sgcampp.vision.layer_choice import layers_with_exact_closed_form, named_layer
from captum_sgcampp.vision.methods import OF_GRADIENT
from captum_sgcampp.vision.words import advice_on, has_relu, on_closed_form


def advice(model: nn.Module, inputs: Tensor, maps: Sequence[ExplainedMap]) -> list[str]:
    """The sentences, each once; none where nothing speaks against the maps.

    Args:
        model: that was explained. It runs once.
        inputs: `(1, C, H, W)`.
        maps: of all methods, classes and layers.
    """
    with_relu = has_relu(model)
    told = [
        f"{one.layer}: {line}"
        for one in maps
        if one.statistics is not None and one.values.any()
        for line in advice_on(one.statistics, with_relu)
    ]
    with_closed_form = dict.fromkeys(one.layer for one in maps if one.method not in OF_GRADIENT)
    exact = _exact(model, inputs, with_closed_form)
    return [*dict.fromkeys(told), *(f"{name}: {on_closed_form()}" for name in with_closed_form if name not in exact)]


def _exact(model: nn.Module, inputs: Tensor, names: Iterable[str]) -> list[str]:
    """Those layers at which the closed form is exact. All where the model cannot tell: it refuses a graph."""
    modules = {name: named_layer(model, name) for name in names}
    try:
        return layers_with_exact_closed_form(model, inputs, modules) if modules else []
    except RuntimeError:
        return list(modules)
