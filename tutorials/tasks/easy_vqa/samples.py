"""The questions and pictures of the easy-VQA network, and where the one shape of each picture is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.assets import needed_folder

SIZE = 64
_DIFFERENT = 60  # of 255: how far one of its colors is from the background where the shape is


@dataclass(frozen=True)
class Asked:
    """A question about a picture.

    Attributes:
        picture: number of the picture.
        question, answer: what is asked, and the right answer.
    """

    picture: int
    question: str
    answer: str


def load_questions() -> list[Asked]:
    """All questions that come with the network."""
    found = json.loads((needed_folder() / "samples" / "vqa" / "questions.json").read_text())
    return [Asked(picture, question, answer) for question, answer, picture in found]


@cache
def load_picture(number: int) -> np.ndarray:
    """Colors from 0 to 255, `(SIZE, SIZE, 3)`."""
    with Image.open(needed_folder() / "samples" / "vqa" / f"{number}.png") as picture:
        return np.asarray(picture.convert("RGB"))


def inputs(numbers: list[int]) -> Tensor:
    """Pictures as the network takes them, `(N, 3, SIZE, SIZE)`."""
    pictures = np.stack([load_picture(number) for number in numbers])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5


def shape_mask(picture: np.ndarray) -> Tensor:
    """Where the shape is: all that is not of the background's color, which most of the pixels have, `(SIZE, SIZE)`."""
    colors, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    background = colors[counts.argmax()].astype(int)
    return torch.from_numpy((np.abs(picture.astype(int) - background) > _DIFFERENT).any(2))
