"""The parts of the page that Gradio has no component for, as HTML. Every text of a visitor or a model is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image
from torch import Tensor

from captum_sgcampp.demo.drawing import cell_style, data_url, enlarged, overlay, tile
from captum_sgcampp.demo.explaining import Explanation, Progress
from captum_sgcampp.demo.maps import ShownMap
from captum_sgcampp.demo.methods import SHOWN
from captum_sgcampp.demo.selection import Cell
from captum_sgcampp.demo.words import sentences
from captum_sgcampp.names import printable

TILES = 12  # feature maps of the gallery
BUSY = "Sorry, this was not done: the page is busy, or something failed."


def text(words: str) -> str:
    """Words of any origin, as they are. Gradio would read `${` and `{{` as parts of a template."""
    return escape(printable(words)).replace("{", "&#123;").replace("$", "&#36;")


def status(words: str, progress: Progress | None = None, is_error: bool = False) -> str:
    """A line that screen readers tell, with a bar while the network runs."""
    bar = ""
    if progress is not None:
        bar = f'<progress max="{progress.expected}" value="{progress.done}" aria-label="noisy samples"></progress>'
    kind = ' class="error"' if is_error else ""
    return f"<p{kind}>{text(words)} {bar}</p>"


def busy(reloads: bool = False) -> str:
    """The status where no answer comes.

    Args:
        reloads: whether only the whole page can be tried again.
    """
    button = '<button type="button" onclick="location.reload()">Try again</button>'
    again = button if reloads else "Please try again in a moment."
    return f'<p class="error">{BUSY} {again}</p>'


def figures(found: Explanation) -> str:
    """The maps of every class, side by side."""
    return "".join(_class(found, target, row) for target, row in zip(found.targets, found.rows, strict=True))


def _class(found: Explanation, target: int, row: Sequence[ShownMap]) -> str:
    name = found.network.classifier.classes[target]
    shown = enlarged(found.seen.shown)
    parts = [_figure(shown, f"the picture, as {found.network.name} sees it", "Picture")]
    for one in row:
        picture = overlay(shown, one, found.settings.cmap, found.settings.opacity)
        alt = f"{SHOWN[one.method]} of {name} at {found.settings.layer}"
        zeros = " (zero everywhere)" if one.reason_of_zeros else ""
        parts.append(_figure(picture, f"{alt}{zeros}", f"{SHOWN[one.method]}{zeros}"))
    return f'<section><h3>{text(found.label(target))}</h3><div class="maps">{"".join(parts)}</div></section>'


def _figure(picture: Image.Image, alt: str, caption: str) -> str:
    return f'<figure><img src="{data_url(picture)}" alt="{text(alt)}"><figcaption>{text(caption)}</figcaption></figure>'


def told(found: Explanation) -> str:
    """The statistics and the advice, as a list."""
    lines = sentences(found)
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""


def scenes(pictures: Sequence[Image.Image]) -> str:
    """The examples, to be clicked."""
    tiles = [
        _button(number, enlarged(one, 96), f"Example {number + 1}", "", False) for number, one in enumerate(pictures)
    ]
    return f'<div class="tiles" role="group" aria-label="Examples">{"".join(tiles)}</div>'


def feature_maps(activation: Tensor, weights: Tensor, chosen: Sequence[int], cmap: str) -> str:
    """The feature maps with the largest weights, and the chosen ones, to be clicked.

    Args:
        activation: `(1, K, h, w)`.
        weights: `(K,)`.
        chosen: numbers of feature maps.
        cmap: name of the colors.
    """
    largest = weights.topk(min(TILES, len(weights))).indices.tolist()
    numbers = list(dict.fromkeys([*largest, *chosen]))
    tiles = [
        _button(k, tile(activation[0, k], cmap), f"Feature map {k}", f"w {weights[k]:.2g}", k in chosen)
        for k in numbers
    ]
    return f'<div class="tiles" role="group" aria-label="Feature maps">{"".join(tiles)}</div>'


def _button(number: int, picture: Image.Image, label: str, note: str, pressed: bool) -> str:
    state = f' aria-pressed="{"true" if pressed else "false"}"' if note else ""
    image = f'<img src="{data_url(picture, lossless=True)}" alt="">'
    words = f"<span>{text(f'{number}: {note}')}</span>" if note else ""
    start = f'<button type="button" data-number="{number}" aria-label="{text(f"{label} {note}".strip())}"'
    return f"{start}{state}>{image}{words}</button>"


def neurons(picture: Image.Image, size: tuple[int, int], cells: Sequence[Cell]) -> str:
    """The picture under the grid of the layer, to be dragged over and clicked.

    Args:
        picture: that the network sees.
        size: rows and columns of the layer.
        cells: that are chosen.
    """
    marks = "".join(f'<i style="{cell_style(cell, size)}"></i>' for cell in cells)
    lines = f"background-size:{100 / size[1]:.4g}% {100 / size[0]:.4g}%"
    label = f"Neurons: {size[0]} rows and {size[1]} columns. Arrow keys move, Space chooses a cell, Escape clears."
    image = f'<img src="{data_url(enlarged(picture))}" alt="" draggable="false">'
    return (
        f'<div class="grid" tabindex="0" role="application" aria-label="{label}" data-rows="{size[0]}" '
        f'data-columns="{size[1]}">{image}<b style="{lines}"></b>{marks}<u hidden></u></div>'
        '<p class="place" aria-live="polite"></p>'
    )
