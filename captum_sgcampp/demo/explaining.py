"""One explanation of the page: which classes, at which layer, the noisy samples it needs, and the maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from captum_sgcampp.demo.kept_samples import MOST_SAMPLES, KeptSamples
from captum_sgcampp.demo.maps import ShownMap, shown_map
from captum_sgcampp.demo.methods import takes_noise
from captum_sgcampp.demo.networks import Network, Networks
from captum_sgcampp.demo.recipe import Recipe
from captum_sgcampp.demo.selection import Cell, cells_of, feature_maps_of
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Seen, Visitor
from captum_sgcampp.vision.layer_choice import ListedLayer


@dataclass(frozen=True)
class Explanation:
    """All that the page shows of one picture.

    Attributes:
        settings: complete: with a network, a layer and a class.
        network, layer, seen: that they name.
        targets: the class, and the one that it is compared with.
        feature_maps, cells: the only ones that count; empty: all.
        kept: what the network said of each class.
        rows: the maps of each class.
    """

    settings: Settings
    network: Network
    layer: ListedLayer
    seen: Seen
    targets: tuple[int, ...]
    feature_maps: tuple[int, ...]
    cells: tuple[Cell, ...]
    kept: tuple[KeptSamples, ...]
    rows: tuple[tuple[ShownMap, ...], ...]

    def label(self, target: int) -> str:
        """The class and its probability."""
        return f"{self.network.classifier.classes[target]}: {self.seen.probabilities[target]:.3f}"

    @property
    def closed_form_is_exact(self) -> bool:
        """Whether the network after the layer is known to be piecewise linear."""
        return self.settings.layer in self.network.exact_layers

    def recipe(self, visitor: Visitor) -> Recipe:
        """The code that makes these maps."""
        counts = tuple(kept.count for kept in self.kept)
        return Recipe(
            self.settings,
            self.network,
            self.layer.layer,
            self.targets,
            self.feature_maps,
            self.cells,
            counts,
            visitor.name,
            visitor.scene,
        )


@dataclass(frozen=True)
class Progress:
    """How far the noisy samples of all classes are."""

    done: int
    expected: int


def complete(visitor: Visitor, networks: Networks, settings: Settings) -> Settings:
    """With the network, the layer and the class that are explained unless others are named.

    Raises:
        ValueError: names or numbers that there are not.
    """
    network = networks[settings.network or networks.names[0]]
    classes = len(network.classifier.classes)
    seen = visitor.seen_by(network)
    for argument, target in (("class", settings.target), ("second class", settings.compared)):
        if target is not None and not 0 <= target < classes:
            raise ValueError(f"{argument}: expected a number from 0 to {classes - 1}, found {target}")
    return replace(
        settings,
        network=network.name,
        layer=network.layer(settings.layer or network.layers[0].layer.name).layer.name,
        target=seen.order()[0] if settings.target is None else settings.target,
    )


def sampled(visitor: Visitor, networks: Networks, settings: Settings) -> Iterator[Progress]:
    """Take the noisy samples that are missing, and tell after each how far they are. Ends early if the visitor's turn
    is over.

    Args:
        visitor: whose picture is explained.
        networks: of the page.
        settings: complete.
    """
    network, turn = networks[settings.network], visitor.turn
    targets = _targets(settings)
    wanted = MOST_SAMPLES if settings.auto else settings.nt_samples
    for number, target in enumerate(targets):
        while visitor.turn == turn:
            with visitor.lock:
                kept = visitor.kept(network, target, settings)
                if kept.count >= wanted or (settings.auto and kept.is_sure()):
                    break
                kept.add_one()
                done = kept.count
            yield Progress(number * wanted + done, len(targets) * wanted)


def explanation(visitor: Visitor, networks: Networks, settings: Settings) -> Explanation:
    """The maps with the samples so far. The network does not run, but where it has said nothing of a class yet.

    Args:
        visitor, networks, settings: as in `sampled`.

    Raises:
        ValueError: a selection that does not fit the layer.
    """
    network = networks[settings.network]
    layer, seen = network.layer(settings.layer), visitor.seen_by(network)
    feature_maps = tuple(feature_maps_of(settings.feature_maps, layer.feature_maps))
    cells = tuple(cells_of(settings.neurons, layer.size))
    with visitor.lock:
        kept = tuple(visitor.kept(network, target, settings) for target in _targets(settings))
        rows = tuple(_row(one, settings, feature_maps, cells) for one in kept)
    return Explanation(settings, network, layer, seen, _targets(settings), feature_maps, cells, kept, rows)


def _row(
    kept: KeptSamples, settings: Settings, feature_maps: tuple[int, ...], cells: tuple[Cell, ...]
) -> tuple[ShownMap, ...]:
    methods = [method for method in settings.methods if kept.count or not takes_noise(method)]
    return tuple(shown_map(method, kept, feature_maps, cells) for method in methods)


def _targets(settings: Settings) -> tuple[int, ...]:
    assert settings.target is not None
    return tuple(dict.fromkeys([settings.target, *([] if settings.compared is None else [settings.compared])]))
