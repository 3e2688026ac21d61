"""Python code that makes the maps of the page, to the bit.

`captum_sgcampp.explain` would be shorter. But it has no guided maps and no single cells, and takes noisy samples in
batches, which are rounded otherwise: where alpha has poles, up to 1e-3 of a map follows from that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from captum_sgcampp.attr.reshape_transforms import TokenGrid
from captum_sgcampp.demo.methods import GUIDED, SHOWN, counts_both_signs, is_guided, takes_noise
from captum_sgcampp.demo.networks import Network
from captum_sgcampp.demo.scenes import SEEDS
from captum_sgcampp.demo.selection import Cell, rectangle
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.vision.layer_choice import ChosenLayer


@dataclass(frozen=True)
class Recipe:
    """What the code has to name.

    Attributes:
        settings: of the visitor.
        network, layer, targets: that are explained.
        feature_maps, cells: the only ones that count; empty: all.
        counts: noisy samples of each target.
        picture: name of the file. Empty: the example `scene`.
        scene: number of the example.
    """

    settings: Settings
    network: Network
    layer: ChosenLayer
    targets: tuple[int, ...]
    feature_maps: tuple[int, ...]
    cells: tuple[Cell, ...]
    counts: tuple[int, ...]
    picture: str
    scene: int | None

    def code(self) -> str:
        """A script. It leaves every map in `maps`, by method and class, and writes it as `.npy`."""
        body = [*self._start(), ""]
        for target, count in zip(self.targets, self.counts, strict=True):
            name = self.network.classifier.classes[target]
            body += [f"# class {target}: {name!r}"]
            body += [line for method in self.settings.methods for line in self._call(method, target, count)]
        body += ["", "for (method, target), values in maps.items():"]
        body += ['    np.save(f"{method}_{target}.npy", values.squeeze(0).numpy())']
        return "\n".join([*self._imports(body), "", *body]) + "\n"

    def _imports(self, body: list[str]) -> list[str]:
        words = set(re.findall(r"\w+", "\n".join(body)))
        own = sorted(words & {*_CLASSES, "TokenGrid", "channels_last_to_first"})
        lines = (
            ["import numpy as np"]
            + ["import torch"] * ("torch" in words)
            + ["from PIL import Image"] * ("Image" in words)
        )
        lines += [f"from captum_sgcampp import {', '.join(own)}"] * bool(own)
        return lines + sorted({*self.network.imports, *(line for word, line in _IMPORTS.items() if word in words)})

    def _start(self) -> list[str]:
        seed = None if self.scene is None else SEEDS[self.scene]
        picture = f"Image.fromarray(draw_scene({seed}).image)" if seed is not None else f"read_image({self.picture!r})"
        return [
            f"classifier = {self.network.code}",
            f"picture = {picture}",
            "model, inputs = classifier.model, classifier.prepare(picture)",
            f"layer = model.get_submodule({self.layer.name!r})",
            "maps = {}",
        ]

    def _call(self, method: str, target: int, count: int) -> list[str]:
        key, selection = f"maps[{method!r}, {target}]", self._selection()
        transform = self._transform()
        if method == "grad-cam":
            chosen = (
                f", selection={{{', '.join(f'{name!r}: {value}' for name, value in selection)}}}" if selection else ""
            )
            call = f"gradient_maps(model, [layer], inputs, [{target}]{transform}, relu_attributions=True{chosen})"
            return [f"{key} = {call}[0][0][0]"]
        keywords = [f"{name}={value}" for name, value in selection]
        if counts_both_signs(method.removeprefix(GUIDED)):
            keywords.append("two_sided=True")
        keywords.append('interpolate_mode="bilinear"' if is_guided(method) else "relu_attributions=True")
        made = f"{_class_name(method)}(model, layer{transform})"
        if not takes_noise(method):
            return [f"{key} = {made}.attribute(inputs, {target}, {', '.join(keywords)})[0]"]
        noise = [
            f"nt_samples={count}, nt_samples_batch_size=1, noise_level={self.settings.noise_level!r}",
            f"generator=torch.Generator().manual_seed({self.settings.seed}), return_statistics=True",
        ]
        arguments = [f"inputs, {target}, {', '.join(keywords)}", *noise]
        lines = [f"found, statistics = {made}.attribute(", *(f"    {line}," for line in arguments), ")"]
        return [*lines, f"{key} = found[0]", f"print({SHOWN[method]!r}, statistics)"]

    def _selection(self) -> list[tuple[str, str]]:
        found = [("feature_maps", repr(list(self.feature_maps)))] if self.feature_maps else []
        if self.cells:
            box = rectangle(self.cells)
            text = repr(list(self.cells))
            if box is not None:
                text = f"np.s_[{', '.join(f'{side.start}:{side.stop}' for side in box)}]"
            found.append(("neurons", text))
        return found

    def _transform(self) -> str:
        transform = self.layer.reshape_transform
        if transform is None:
            return ""
        if isinstance(transform, TokenGrid):
            return f", reshape_transform={transform!r}"
        return f", reshape_transform={getattr(transform, '__name__', 'None')}"


_CLASSES = {
    "LayerGradCamPlusPlus": (False, False),
    "LayerSmoothGradCamPlusPlus": (False, True),
    "GuidedGradCamPlusPlus": (True, False),
    "GuidedSmoothGradCamPlusPlus": (True, True),
}

_IMPORTS = {
    "draw_scene": "from captum_sgcampp.bundled import draw_scene",
    "gradient_maps": "from captum_sgcampp.vision.gradient_maps import gradient_maps",
    "read_image": "from captum_sgcampp.vision.images import read_image",
}


def _class_name(method: str) -> str:
    kind = is_guided(method), takes_noise(method)
    return next(name for name, own in _CLASSES.items() if own == kind)
