"""Guided Grad-CAM++ and Guided Smooth Grad-CAM++: guided backpropagation times the upsampled map."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, ClassVar

import torch
from captum.attr import GradientAttribution, GuidedBackprop
from torch import Tensor, nn

from captum_sgcampp import checks
from captum_sgcampp.attr.combine import multiply_by_map
from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.results import TensorOrTuple
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
from captum_sgcampp.captum_internals import TargetType, _format_output, log_usage
from captum_sgcampp.functional.noise import rewound_on_error
from captum_sgcampp.functional.sampling_statistics import SamplingStatistics
from captum_sgcampp.model.layout_checks import ReshapeTransform
from captum_sgcampp.model.model_access import eager_models, exclusive_access, usable_for_autograd
from captum_sgcampp.sampling.targets import normal_target


class GuidedGradCamPlusPlus(GradientAttribution):
    r"""
    Computes the element-wise product of guided backpropagation and the upsampled, non-negative map of Grad-CAM++. It
    replaces `captum.attr.GuidedGradCam`: the constructor and the positional arguments of `attribute` are the same.

    As there, each of several inputs gets the map upsampled to its own size, or an empty tensor and a warning where that
    is not possible. Guided backpropagation acts on ReLU modules only; without any it is the plain gradient. Sanity
    checks (Adebayo et al., https://arxiv.org/abs/1810.03292) found it nearly independent of the model's last layers:
    what is specific to the class comes from the map. `multiply_by_map` takes any other attribution.

    Sources: Selvaraju et al., *Grad-CAM*, https://arxiv.org/abs/1610.02391 (section 3.3); Chattopadhay et al.,
    *Grad-CAM++*, https://arxiv.org/abs/1710.11063 (section 3.4); Springenberg et al., https://arxiv.org/abs/1412.6806.
    """

    _layer_method: ClassVar[type[LayerGradCamPlusPlus] | type[LayerSmoothGradCamPlusPlus]] = LayerGradCamPlusPlus

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module,
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        r"""
        Args:

            model (nn.Module): The model. Guided backpropagation sees its ReLU modules (`nn.ReLU`), not
                          `torch.nn.functional.relu`.
            layer (torch.nn.Module): Layer for which the map is computed; it returns a single tensor.
            device_ids (list[int]): Device ID list, necessary only if model
                          is a DataParallel model over several devices.
                          If model is given as the DataParallel model itself,
                          then it is not necessary to provide this argument.
            reshape_transform (Callable, optional): As in `LayerGradCamPlusPlus`.
                          Default: None
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, whose ReLUs can be found, found {_kind(model)}")
        if not isinstance(layer, nn.Module):
            hint = f"; model.get_submodule({layer!r}) is the one of this name" if isinstance(layer, str) else ""
            raise TypeError(f"layer: expected one torch.nn.Module, found {_kind(layer)}{hint}")
        GradientAttribution.__init__(self, model)
        self.grad_cam = self._layer_method(model, layer, device_ids, reshape_transform=reshape_transform)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
        **map_arguments: Any,
    ) -> TensorOrTuple | tuple[TensorOrTuple, SamplingStatistics]:
        r"""
        Args:

            inputs, target, additional_forward_args, attribute_to_layer_input:
                        as in `LayerGradCamPlusPlus.attribute`. The inputs must be floating-point tensors.
            interpolate_mode (str, optional): How the map is upsampled, a mode of
                        `torch.nn.functional.interpolate` for the layer's number of dimensions: "nearest", "area",
                        "linear" (signals), "bilinear" or "bicubic" (images), "trilinear" (volumes). The papers use
                        "bilinear".
                        Default: "nearest", as in Captum
            **map_arguments (Any, optional): The keyword-only arguments of the layer method's `attribute`:
                        `feature_maps`, `neurons`, `score`, `derivatives`, `bound_alpha`, `two_sided`, and for
                        `GuidedSmoothGradCamPlusPlus` also `nt_samples`, `stdevs`, `generator`, `return_statistics`, ...

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or 2-element tuple of **attributions**,
            **statistics**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        Of the shape of each input; an empty tensor where the map cannot be upsampled to it.
            - **statistics** (*SamplingStatistics*, if return_statistics=True):
                        Those of the map.

        Raises:
            TypeError, ValueError, RuntimeError: as in `attribute` of the layer method.

        Examples::

            >>> guided = GuidedGradCamPlusPlus(net, net.conv)
            >>> guided.attribute(images, target=3, interpolate_mode="bilinear").shape
            torch.Size([2, 3, 32, 32])
            >>> guided = GuidedSmoothGradCamPlusPlus(net, net.conv)
            >>> guided.attribute(images, target=3, interpolate_mode="bilinear", nt_samples=4).shape
            torch.Size([2, 3, 32, 32])
        """
        self._check_names(map_arguments)
        generator = map_arguments.get("generator")
        checks.check_generator(generator)
        with exclusive_access(), rewound_on_error(generator):
            found: Any = self.grad_cam.attribute(
                inputs,
                target,
                additional_forward_args,
                attribute_to_layer_input,
                relu_attributions=True,
                **map_arguments,
            )
            maps, *statistics = found if map_arguments.get("return_statistics") else (found,)
            if isinstance(maps, tuple):
                raise ValueError(f"layer: expected a layer of one tensor, found {len(maps)}")
            gradients = guided_gradients(self.forward_func, inputs, target, additional_forward_args)
        products = tuple(_product_or_empty(g, maps, interpolate_mode) for g in gradients)
        attributions = _format_output(isinstance(inputs, tuple), products)
        return (attributions, statistics[0]) if statistics else attributions

    def _check_names(self, map_arguments: dict[str, Any]) -> None:
        parameters = signature(self._layer_method.attribute).parameters.values()
        known = [parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY]
        for name in map_arguments:
            if name not in known:
                raise TypeError(f"{name}: expected an argument among {', '.join(known)}, found one that is not")


class GuidedSmoothGradCamPlusPlus(GuidedGradCamPlusPlus):
    r"""
    Computes the element-wise product of guided backpropagation of the clean input and the upsampled, non-negative map
    of Smooth Grad-CAM++: `GuidedGradCamPlusPlus` with `LayerSmoothGradCamPlusPlus` as its map.

    Sources: as `GuidedGradCamPlusPlus`; Omeiza et al., *Smooth Grad-CAM++*, https://arxiv.org/abs/1908.01224.
    """

    _layer_method = LayerSmoothGradCamPlusPlus


def _kind(value: object) -> str:
    return type(value).__name__


def guided_gradients(
    model: Callable[..., Tensor], inputs: TensorOrTuple, target: TargetType, additional_forward_args: object | None
) -> tuple[Tensor, ...]:
    """Captum's guided backpropagation of every input. The inputs stay as they were."""
    tensors = tuple(usable_for_autograd(x) for x in checks.check_inputs(inputs))
    unfit = [x.dtype for x in tensors if not x.is_floating_point()]
    if unfit:
        raise TypeError(f"inputs: expected floating-point tensors, found {unfit[0]}, which has no gradient")
    with warnings.catch_warnings(), eager_models():
        # The hooks are removed, and the tensors that get gradients are not the caller's.
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU activations")
        warnings.filterwarnings("ignore", message=r"Input Tensor \d+ did not already require gradients")
        try:
            gradients: tuple[Tensor, ...] = GuidedBackprop(model).attribute(
                tensors, _indices(normal_target(target, len(tensors[0]))), additional_forward_args
            )
        except RuntimeError as error:
            if "not have been used" not in str(error):
                raise
            raise RuntimeError(
                "inputs: expected inputs that the score depends on, found one that it does not"
            ) from error
    return gradients


def _indices(target: TargetType) -> TargetType:
    """A list of ints as tuples: Captum gathers a list of ints, which takes no negative ones."""
    if not isinstance(target, list):
        return target
    return [index if isinstance(index, tuple) else (index,) for index in target]


def _product_or_empty(gradients: Tensor, maps: Tensor, interpolate_mode: str) -> Tensor:
    """As Captum's Guided Grad-CAM, an empty tensor and a warning where the map cannot be upsampled to an input."""
    try:
        return multiply_by_map(gradients, maps, interpolate_mode)
    except ValueError as error:
        warnings.warn(
            f"inputs: the map cannot be upsampled to one of them, its attributions are an empty tensor ({error})",
            stacklevel=5,
        )
        return torch.empty(0)
