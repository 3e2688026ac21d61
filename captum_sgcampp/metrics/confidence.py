"""The model's confidence in a class, in batches and without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_sgcampp.checks import check_count

LINKS = ("softmax", "sigmoid")


def class_confidence(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    target: int | Tensor,
    *,
    link: str = "softmax",
    batch_size: int = 32,
) -> Tensor:
    r"""
    Probability of one class for every example.

    Args:

        model (Callable): From inputs to logits `(N, classes)`, in evaluation mode.
        inputs (Tensor): `(N, C, H, W)`.
        target (int or Tensor): Class index, one for all examples or `(N,)`.
        link (str, optional): `"softmax"`, or `"sigmoid"` for classes that do not exclude each other.
                    Default: `"softmax"`
        batch_size (int, optional): Rows of one forward pass.
                    Default: 32

    Returns:
        *Tensor*: `(N,)`, from 0 to 1, float64.

    Raises:
        ValueError: a model without logits `(N, classes)`, or a target outside its classes.

    Examples::

        >>> class_confidence(net, images, 3).shape
        torch.Size([2])
    """
    if link not in LINKS:
        raise ValueError(f"link: expected one of {LINKS}, found {link!r}")
    check_evaluating(model)
    check_count("batch_size", batch_size)
    targets = targets_of(inputs, target)
    with torch.no_grad():
        logits = [model(rows) for rows in inputs.split(batch_size)]
        _check_logits(logits[0], targets)
        scores = torch.cat(logits).double()  # float32 rounds a confident network's probabilities to 1
        probabilities = scores.softmax(1) if link == "softmax" else scores.sigmoid()
        return probabilities.gather(1, targets[:, None])[:, 0]


def _check_logits(logits: object, targets: Tensor) -> None:
    """Raise unless these are logits `(N, classes)` with all targets among the classes."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: expected logits (N, classes), found {found}")
    classes = logits.shape[1]
    if bool((targets < 0).any()) or bool((targets >= classes).any()):
        raise ValueError(f"target: expected classes from 0 to {classes - 1}, found {sorted(set(targets.tolist()))}")


def check_evaluating(model: object) -> None:
    """Raise if a module is in training mode: its rows could depend on each other or on chance."""
    if isinstance(model, nn.Module) and any(module.training for module in model.modules()):
        raise RuntimeError("model: expected a model in evaluation mode, found training mode; call model.eval() first")


def targets_of(inputs: Tensor, target: int | Tensor) -> Tensor:
    """Class indices `(N,)` on the inputs' device."""
    targets = torch.as_tensor(target, device=inputs.device)
    if targets.is_floating_point() or targets.dim() > 1 or (targets.dim() == 1 and len(targets) != len(inputs)):
        raise ValueError(
            f"target: expected an int or {len(inputs)} of them, found {targets.dtype}, shape {tuple(targets.shape)}"
        )
    return targets.long().expand(len(inputs))
