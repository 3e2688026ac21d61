"""How concentrated a map is, whatever it shows."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_sgcampp.functional.tensors import ratio
from captum_sgcampp.metrics.maps import check_maps


def sparseness(maps: Tensor) -> Tensor:
    r"""
    Gini index of the map's absolute values (Chalasani et al., https://arxiv.org/abs/1810.06583): 0 for a uniform map,
    near 1 for a single pixel. It is a description and no merit: a sharp map may be sharp at the wrong place.

    Args:

        maps (Tensor): `(N, H, W)`.

    Returns:
        *Tensor*: `(N,)`, from 0 to 1; 0 for a map that is all zero.

    Examples::

        >>> sparseness(torch.tensor([[[0.0, 0.0], [0.0, 8.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor([0.7500, 0.0000])
    """
    check_maps(maps)
    values = maps.flatten(1).abs().double().sort(1).values
    n = values.shape[1]
    ranks = torch.arange(1, n + 1, dtype=values.dtype, device=values.device)
    gini = ratio(((2 * ranks - n - 1) * values).sum(1), n * values.sum(1))
    return gini.to(maps.dtype)
