"""How far the closed form is from the true derivatives, for one model, layer and class."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from captum_sgcampp.functional.class_map import alpha_coefficients
from captum_sgcampp.functional.selection import random_entries
from captum_sgcampp.functional.tensors import per_row, relative_norm
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.sampling.request import Request
from captum_sgcampp.sampling.sampler import LayerSample, sample_layers


class ClosedFormError(NamedTuple):
    """How far the closed form is from the true derivatives at some entries of a layer: L2 norm of the difference
    divided by that of the true values, `(N,)` each. 0 where the network after the layer is piecewise linear.

    Attributes:
        d1, d2, d3: of the first, second and third derivative.
        terms: of `alpha * relu(D_1)`, whose sum is the weight of a feature map.
        entries: how many entries were compared (int64).
    """

    d1: Tensor
    d2: Tensor
    d3: Tensor
    terms: Tensor
    entries: Tensor


def closed_form_error(
    forward_pass: ForwardPass, request: Request, entries: int, generator: Generator | None
) -> ClosedFormError:
    """Compare at random entries with a positive first derivative.

    Args:
        forward_pass: the model and one layer.
        request: in closed form, without noise.
        entries: how many of each example.
        generator: source of the choice.
    """
    closed = sample_layers(forward_pass, request).samples
    if len(closed) > 1:
        raise ValueError(f"layer: expected one layer of one tensor, found {len(closed)} tensors")
    chosen = random_entries(closed[0].moments.mean().d1 > 0, entries, generator)
    exact = sample_layers(forward_pass, replace(request, exact=True, entries=chosen)).samples
    return _relative_errors(closed[0], exact[0], chosen)


def _relative_errors(closed: LayerSample, exact: LayerSample, chosen: Tensor) -> ClosedFormError:
    """Both with the scale of the closed form, whose first derivative has the largest magnitude 1."""
    found, true = closed.moments.mean(), exact.moments.mean()
    ratio = per_row(true.scale / torch.where(found.scale > 0, found.scale, 1), chosen)
    parts = [(d * ratio**p, c) for p, (d, c) in enumerate(zip(true[:3], found[:3], strict=True), start=1)]
    (d1, c1), (d2, c2), (d3, c3) = parts
    scaled = closed.activation * per_row(found.scale, chosen)
    terms = (alpha_coefficients(d2, d3, scaled) * d1, alpha_coefficients(c2, c3, scaled) * c1)
    e1, e2, e3, of_terms = (relative_norm((c - d) * chosen, d * chosen) for d, c in (*parts, terms))
    return ClosedFormError(e1, e2, e3, of_terms, chosen.flatten(1).sum(1))
