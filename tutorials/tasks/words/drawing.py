"""Words in print, as the network takes them, with the columns of each letter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT, WIDTH = 32, 128  # of the network's input
FONTS = ("DejaVu Sans", "DejaVu Serif")  # matplotlib brings them
WORDS = (
    *("able", "about", "black", "bread", "chair", "cloud", "country", "dance", "doctor", "earth", "family", "fish"),
    *("flower", "forest", "garden", "ground", "hand", "heart", "house", "island", "jacket", "kitchen", "light"),
    *("machine", "market", "money", "month", "mouth", "nature", "number", "orange", "paper", "person", "picture"),
    *("planet", "point", "problem", "quiet", "river", "round", "school", "second", "shape", "simple", "smoke"),
    *("sound", "south", "stone", "story", "table", "thing", "travel", "under", "voice", "water", "window", "winter"),
    *("world", "young"),
)

_POINTS, _MARGIN = 32, 6  # size of the letters, and pixels around them before the picture is scaled


@dataclass(frozen=True, eq=False)
class Word:
    """A printed word.

    Attributes:
        text: what it says.
        image: `(1, HEIGHT, WIDTH)`, from -1 (black) to 1 (white).
        columns: of each letter, the first and the one after the last, `(letters, 2)`.
    """

    text: str
    image: Tensor
    columns: tuple[tuple[float, float], ...]

    def mask(self, letter: int) -> Tensor:
        """The columns of a letter, `(HEIGHT, WIDTH)`."""
        first, end = self.columns[letter]
        middles = torch.arange(WIDTH) + 0.5
        return ((middles >= first) & (middles < end)).expand(HEIGHT, -1)


def draw_word(text: str, font: str = FONTS[0]) -> Word:
    """A word in black on white."""
    letters = ImageFont.truetype(font_manager.findfont(font), _POINTS)
    width = round(letters.getlength(text)) + 2 * _MARGIN
    picture = Image.new("L", (width, _POINTS + 2 * _MARGIN), 255)
    ImageDraw.Draw(picture).text((_MARGIN, picture.height / 2), text, fill=0, font=letters, anchor="lm")
    ends = [(_MARGIN + letters.getlength(text[:count])) * WIDTH / width for count in range(len(text) + 1)]
    values = np.asarray(picture.resize((WIDTH, HEIGHT)), np.float32)
    return Word(text, torch.from_numpy(values / 127.5 - 1)[None], tuple(pairwise(ends)))
