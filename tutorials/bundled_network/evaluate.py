"""Measures the bundled network on scenes that it was not trained on.

The measure is the average precision of every class, and its mean over the classes.

    python evaluate.py --scenes 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from captum_sgcampp.bundled.network import load_shapes_vgg, normalise, read_network
from captum_sgcampp.bundled.scenes import CLASSES, Scene, draw_scenes
from captum_sgcampp.evaluation.cases import evaluation_seeds


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision: the sum over the thresholds of the precision, weighted by how much the recall rises there.

    Nothing is interpolated, and equal scores share one threshold.

    Args:
        labels: `(samples,)`, 1 for a positive sample, 0 for a negative one.
        scores: `(samples,)`, higher for samples that are more likely positive.

    Returns:
        From 0 to 1; NaN where no sample is positive.

    Examples::

        >>> average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.8333333333333333
    """
    scores = np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.asarray(labels, np.float64)[order])
    if not hits.size or hits[-1] == 0:
        return float("nan")
    # A threshold lies below the last sample of every run of equal scores.
    last = np.append(np.diff(scores[order]) != 0, True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    rise = np.diff(hits[last], prepend=0.0) / hits[-1]
    return float(np.sum(rise * precision))


def evaluate(network: nn.Module, scenes: Iterable[Scene]) -> list[float]:
    """Average precision of every class, from 0 to 1; NaN for a class that no scene holds.

    Args:
        network: from normalized images to logits, in evaluation mode.
        scenes: to judge, of 128 x 128 pixels.
    """
    labels, scores = [], []
    for batch in _batches(scenes, 64):
        labels.append(np.stack([scene.labels for scene in batch]))
        scores.append(_logits(network, batch))
    columns = zip(np.concatenate(labels).T, np.concatenate(scores).T, strict=True)
    return [average_precision(label, score) for label, score in columns]


def _batches(scenes: Iterable[Scene], size: int) -> Iterator[list[Scene]]:
    source = iter(scenes)
    while batch := list(islice(source, size)):
        yield batch


def _logits(network: nn.Module, batch: Sequence[Scene]) -> npt.NDArray[np.float32]:
    pixels = torch.from_numpy(np.stack([scene.image for scene in batch])).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = network(normalise(pixels)).numpy()
    return logits


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="number of scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="0 or larger (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="file of other weights (default: the bundled ones)")
    chosen = parser.parse_args(argv)
    network = read_network(chosen.weights.read_bytes()) if chosen.weights else load_shapes_vgg()
    precisions = evaluate(network, draw_scenes(evaluation_seeds(chosen.seed, chosen.scenes)))
    for name, precision in zip(CLASSES, precisions, strict=True):
        print(f"{name:10s} {precision:.4f}")
    print(f"{'mean':10s} {np.mean(precisions):.4f}")


if __name__ == "__main__":
    main()
