"""Training a small network to look where a large one looks (Grad-CAM++, section 5)."""

from __future__ import annotations

import math
from numbers import Real

import torch
from captum.attr import LayerAttribution
from torch import Tensor
from torch.nn.functional import cross_entropy

from captum_sgcampp.functional.tensors import at_least_float32

MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}


def explanation_loss(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    r"""
    How differently two networks explain the same class: `|| L_student - L_teacher ||_2^2` (Grad-CAM++, eq 28), averaged
    over the examples.

    Maps are those of eq 20: negative values count as 0. Where sizes differ, both are upsampled to the larger one. The
    norm adds over the positions, so that its size depends on theirs, and on the scale of both networks' maps.

    Args:

        student_maps (Tensor): `(N, 1, *space)` with a graph to the student's parameters, as
                    `LayerGradCamPlusPlus(student, layer).attribute(..., grad_kwargs={"create_graph": True})` gives it.
                    Captum's `LayerGradCam` with the same argument, and any other differentiable map, will do.
                    Where the student has batch normalization or dropout, it is explained in evaluation mode.
        teacher_maps (Tensor): `(N, 1, *space)`. No gradient goes to the teacher.

    Returns:
        *Tensor* of shape `()`.

    Examples::

        >>> student_maps = method.attribute(images, 3, grad_kwargs={"create_graph": True})
        >>> explanation_loss(student_maps, method.attribute(images, 3)).item()
        0.0
    """
    _check_maps("student_maps", student_maps)
    _check_maps("teacher_maps", teacher_maps)
    if student_maps.dim() != teacher_maps.dim() or len(student_maps) != len(teacher_maps):
        raise ValueError(
            f"teacher_maps: expected as many maps of as many dimensions as the student's {tuple(student_maps.shape)}, "
            f"found {tuple(teacher_maps.shape)}"
        )
    if torch.is_grad_enabled() and not student_maps.requires_grad:
        raise ValueError(
            'student_maps: expected maps with a graph, from grad_kwargs={"create_graph": True}, found detached ones'
        )
    size = tuple(map(max, student_maps.shape[2:], teacher_maps.shape[2:]))
    difference = _positive(student_maps, size) - _positive(teacher_maps.detach(), size)
    return difference.square().flatten(1).sum(1).mean()


def distillation_loss(
    logits: Tensor, target: Tensor, student_maps: Tensor, teacher_maps: Tensor, weight: float = 0.01
) -> Tensor:
    r"""
    The loss of a student that learns the classes and where its teacher sees them: `cross-entropy + weight *
    || L_student - L_teacher ||_2^2` (Grad-CAM++, eq 27).

    Args:

        logits (Tensor): The student's, `(N, C)`.
        target (Tensor): The classes, `(N,)`; the maps explain these.
        student_maps, teacher_maps: as in `explanation_loss`.
        weight (float, optional): Share of the maps. Default: 0.01, the paper's

    Returns:
        *Tensor* of shape `()`.

    Examples::

        >>> conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU())
        >>> student = torch.nn.Sequential(conv, torch.nn.Flatten(), torch.nn.Linear(4 * 16 * 16, 10))
        >>> labels = torch.tensor([3, 5])
        >>> seen_by_teacher = LayerGradCamPlusPlus(net, net.conv).attribute(images, labels)
        >>> optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     explain = LayerGradCamPlusPlus(student, conv).attribute
        ...     seen = explain(images, labels, grad_kwargs={"create_graph": True})
        ...     distillation_loss(student(images), labels, seen, seen_by_teacher).backward()
        ...     optimizer.step()
    """
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < math.inf:
        raise ValueError(f"weight: expected a finite number of at least 0, found {weight!r}")
    return cross_entropy(logits, target) + weight * explanation_loss(student_maps, teacher_maps)


def _positive(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    wide = at_least_float32(maps).relu()
    same = tuple(maps.shape[2:]) == size
    return wide if same else LayerAttribution.interpolate(wide, size, MODES[maps.dim()])


def _check_maps(name: str, maps: object) -> None:
    if not isinstance(maps, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(maps).__name__}")
    if maps.dim() not in MODES or maps.shape[1] != 1 or maps.numel() == 0:
        raise ValueError(f"{name}: expected maps (N, 1, *space) of 1 to 3 dimensions, found {tuple(maps.shape)}")
