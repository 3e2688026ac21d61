"""Layer attributions where Quantus and `captum.metrics` expect attributions of the input.

Quantus is no dependency: the adapter follows its calling convention (`pip install quantus`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.metrics.maps import image_maps


def quantus_explanation(
    model: nn.Module,
    inputs: npt.NDArray[Any] | Tensor,
    targets: npt.NDArray[Any] | Tensor,
    *,
    layer: str,
    method: Callable[[nn.Module, nn.Module], Attribution] = LayerGradCamPlusPlus,
    device: str | None = None,
    **options: Any,
) -> npt.NDArray[np.float32]:
    r"""
    An explanation function for Quantus: any layer attribution of Captum or of this package as an array of the input's
    height and width.

    Args:

        model (nn.Module): The model, which Quantus passes.
        inputs (ndarray or Tensor): `(N, C, H, W)`.
        targets (ndarray or Tensor): Class indices, `(N,)`.
        layer (str): Name of the layer (not the module, since Quantus also passes copies of the model).
        method (Callable, optional): A class such as `captum.attr.LayerGradCam`.
                    Default: `LayerGradCamPlusPlus`
        device (str, optional): Where to compute.
                    Default: None, where the model is
        **options (Any): Keywords of the method's `attribute`: those in Quantus's `explain_func_kwargs`.

    Returns:
        *ndarray of float32*: `(N, 1, H, W)`.

    Examples::

        >>> # quantus.Sparseness()(model=net, x_batch=x, y_batch=y, explain_func=quantus_explanation,
        >>> #                      explain_func_kwargs={"layer": "conv", "relu_attributions": True})
        >>> quantus_explanation(net, images.numpy(), np.array([3, 1]), layer="conv").shape
        (2, 1, 32, 32)
    """
    place = torch.device(device) if device else next(model.parameters()).device
    x = torch.as_tensor(inputs, dtype=torch.float32, device=place)
    y = torch.as_tensor(targets, device=place).long()
    attributions = method(model, model.get_submodule(layer)).attribute(x, y, **options)
    maps: npt.NDArray[np.float32] = image_maps(attributions, x.shape[2:])[:, None].float().cpu().numpy()
    return maps


def as_input_attributions(method: Attribution) -> Callable[..., tuple[Tensor, ...]]:
    r"""
    A layer attribution as `captum.metrics.sensitivity_max` and `captum.metrics.infidelity` expect it: a function that
    returns a tuple of one tensor of the input's shape. Every channel holds the upsampled map divided by the number of
    channels, so that they sum to the map.

    Args:

        method (Attribution): Such as `LayerGradCamPlusPlus(model, layer)`.

    Returns:
        *Callable*: From inputs, or a tuple of them, and the keywords of `attribute` to `(attributions,)`.

    Examples::

        >>> explain = as_input_attributions(method)
        >>> from captum.metrics import sensitivity_max
        >>> sensitivity_max(explain, images, target=3, n_perturb_samples=2).shape
        torch.Size([2])
    """

    def explain(inputs: Tensor | tuple[Tensor, ...], **keywords: Any) -> tuple[Tensor, ...]:
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        if isinstance(inputs, tuple) and len(inputs) != 1:
            raise ValueError(f"inputs: expected one tensor, found a tuple of {len(inputs)}")
        maps = image_maps(method.attribute(x, **keywords), x.shape[2:])
        return ((maps[:, None] / x.shape[1]).to(x.dtype).repeat(1, x.shape[1], 1, 1),)

    return explain
