"""The bundled scenes as examples of a page."""

from __future__ import annotations

from PIL import Image

from captum_sgcampp.bundled import draw_scene

# Seeds of scenes with several shapes, of which some are of one class.
SEEDS = (43, 13, 42, 5, 57, 4)


def example_scene(number: int) -> Image.Image:
    """The example of that number.

    Raises:
        ValueError: there is none.
    """
    if not 0 <= number < len(SEEDS):
        raise ValueError(f"scene: expected a number from 0 to {len(SEEDS) - 1}, found {number}")
    return Image.fromarray(draw_scene(SEEDS[number]).image)
