"""The occlusion map, the Grad-CAM paper's measure of faithfulness: what the score loses when a patch is covered."""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import Occlusion
from torch import Tensor

from captum_sgcampp.checks import check_count
from captum_sgcampp.metrics.confidence import check_evaluating


def occlusion_map(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    target: int | Tensor,
    *,
    window: int = 64,
    stride: int = 32,
    baseline: float = 0.0,
    batch_size: int = 32,
) -> Tensor:
    r"""
    Drop of the class score (the logit) when a square window over a pixel is covered, averaged over the windows, by
    `captum.attr.Occlusion`. Its rank correlation with another map (:func:`spearman`) measures how faithful that map is
    to the model (Grad-CAM paper, section on faithfulness).

    Args:

        model (Callable): From inputs to logits `(N, classes)`.
        inputs (Tensor): Normalized images, `(N, C, H, W)`.
        target (int or Tensor): Class index, one for all examples or `(N,)`.
        window (int, optional): Side of the window in pixels.
                    Default: 64
        stride (int, optional): Pixels from one window to the next.
                    Default: 32
        baseline (float, optional): Value of the normalized input under the window.
                    Default: 0, the mean color
        batch_size (int, optional): Rows of one forward pass.
                    Default: 32

    Returns:
        *Tensor*: `(N, H, W)`.

    Examples::

        >>> occlusion_map(net, images, 3, window=16, stride=8).shape
        torch.Size([2, 32, 32])
    """
    check_evaluating(model)
    check_count("window", window)
    check_count("stride", stride)
    if window > min(inputs.shape[2:]) or stride > window:
        raise ValueError(
            f"window, stride: expected stride <= window <= {min(inputs.shape[2:])}, found {window} and {stride}"
        )
    channels = inputs.shape[1]
    with torch.no_grad():
        attributions: Tensor = Occlusion(model).attribute(
            inputs,
            (channels, window, window),
            strides=(channels, stride, stride),
            baselines=baseline,
            target=target,
            perturbations_per_eval=max(1, batch_size // len(inputs)),
        )
    return attributions[:, 0]  # the window covers all channels, so every channel holds the same drop
