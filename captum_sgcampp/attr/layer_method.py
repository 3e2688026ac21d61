"""What the two layer methods share: constructor, several targets in one pass, largest weights, closed-form error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerAttribution
from torch import Generator, Tensor, nn

from captum_sgcampp import checks
from captum_sgcampp.attr.cautions import warn_of_doubts
from captum_sgcampp.attr.closed_form_error import ClosedFormError, closed_form_error
from captum_sgcampp.attr.options import MapArguments, NoiseArguments, Score, check_create_graph, make_request
from captum_sgcampp.attr.results import (
    Attributions,
    LayerResult,
    Statistics,
    TensorOrTuple,
    TopFeatureMaps,
    attributions,
    by_target,
    layer_results,
    statistics,
)
from captum_sgcampp.captum_internals import TargetType
from captum_sgcampp.functional.noise import rewound_on_error
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.layout_checks import ReshapeTransform, missing_batch_named
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.sampling.sampler import sample_layers


class LayerCamPlusPlus(LayerAttribution, GradientAttribution):
    """Base of Grad-CAM++ and Smooth Grad-CAM++."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module] | tuple[nn.Module, ...],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable): The forward function of the model or any
                          modification of it. A model compiled by `torch.compile` is compiled
                          once more for the layer, in pieces that meet there.
            layer (torch.nn.Module, or list or tuple of them): Layer for which attributions are
                          computed. Output size of attribute matches this layer's
                          output dimensions, except for dimension 1, which will be 1,
                          since the feature maps are summed. Several layers are explained in
                          one pass and give a list of results.
            device_ids (list[int]): Device ID list, necessary only if forward_func
                          applies a DataParallel model over several devices.
                          If forward_func is given as the DataParallel model itself,
                          then it is not necessary to provide this argument.
            reshape_transform (Callable, optional): For layers whose feature maps are not in dimension 1: a function
                          that moves the entries of the layer's tensors to `(N, K, *space)`. `TokenGrid()` does it
                          for the tokens `(N, T, C)` of a vision transformer, `channels_last_to_first` for
                          `(N, *space, C)`. It is applied to all tensors of all layers, and to their derivatives.
                          Default: None, the tensors are `(N, K, *space)`
        """
        if reshape_transform is not None and not callable(reshape_transform):
            raise TypeError(f"reshape_transform: expected a function or None, found {type(reshape_transform).__name__}")
        if not callable(forward_func):
            raise TypeError(f"forward_func: expected a module or a function, found {type(forward_func).__name__}")
        if isinstance(layer, tuple):
            layer = list(layer)
        _check_layers(layer)
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform

    def _arguments(self, attribute_arguments: dict[str, Any]) -> tuple[MapArguments, NoiseArguments | None]:
        """The arguments of `attribute` by name, checked."""
        raise NotImplementedError

    def top_feature_maps(
        self, inputs: TensorOrTuple, target: TargetType = None, k: int = 5, **attribute_arguments: Any
    ) -> TopFeatureMaps:
        r"""
        The feature maps with the largest weights `w_k` for a class.

        Args:

            inputs, target: as in `attribute`.
            k (int, optional): How many. Default: 5
            **attribute_arguments (Any, optional): Any other argument of `attribute`, by name.

        Returns:
            *TopFeatureMaps* of **weights** and **indices**, each `(N, k)`, largest weight first. `feature_maps` takes
            the indices of one example or of all. With `two_sided=True`, feature maps that speak against the class have
            negative weights.

        Examples::

            >>> method = LayerGradCamPlusPlus(net, net.conv)
            >>> weights, indices = method.top_feature_maps(images, target=3, k=2)
            >>> attributions = method.attribute(images, target=3, feature_maps=indices)
        """
        checks.check_count("k", k)
        layers = self._explain(inputs, (target,), *self._arguments(attribute_arguments))[0]
        if len(layers) > 1 or len(layers[0]) > 1:
            raise ValueError(f"layer: expected one layer of one tensor, found {sum(map(len, layers))} tensors")
        weights = layers[0][0].weights.flatten(1)
        if k > weights.shape[1]:
            raise ValueError(f"k: expected at most the layer's {weights.shape[1]} feature maps, found {k}")
        return TopFeatureMaps(*weights.topk(k, dim=1))

    def attribute_targets(
        self, inputs: TensorOrTuple, targets: Sequence[TargetType], **attribute_arguments: Any
    ) -> list[Attributions] | list[tuple[Attributions, Statistics]]:
        r"""
        Explains several targets of the same inputs over the same noisy samples: one forward pass, and one gradient per
        target.

        Args:

            inputs: as in `attribute`.
            targets (sequence of targets): Each as `target` of `attribute`. With `nt_samples="auto"`, each example gets
                        the largest number of samples that any of its targets needs.
            **attribute_arguments (Any, optional): Any other argument of `attribute`, by name.

        Returns:
            *list* of what `attribute` returns for each target.

        Examples::

            >>> method = LayerGradCamPlusPlus(net, net.conv)
            >>> cat, dog = method.attribute_targets(images, [3, 5])
            >>> torch.allclose(dog, method.attribute(images, 5))
            True
        """
        if isinstance(targets, str | Tensor) or not isinstance(targets, Sequence) or not targets:
            raise TypeError(f"targets: expected a list with at least one target, found {targets!r}")
        arguments, noise = self._arguments(attribute_arguments)
        results = self._explain(inputs, targets, arguments, noise)
        if noise is not None and noise.return_statistics:
            return [(self._attributions(layers), self._statistics(layers)) for layers in results]
        return [self._attributions(layers) for layers in results]

    def closed_form_error(
        self,
        inputs: TensorOrTuple,
        target: TargetType = None,
        entries: int = 64,
        generator: Generator | None = None,
        *,
        score: Score = "exp",
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
    ) -> ClosedFormError:
        r"""
        How far `derivatives="closed_form"` is from `"exact"` for this model, layer and class, without noise. It is
        measured at random entries with a positive first derivative. Only these have a part in the papers' map.

        Args:

            inputs, target, score, additional_forward_args, attribute_to_layer_input: as in `attribute`.
            entries (int, optional): The most entries of each example to compare. Default: 64
            generator (torch.Generator, optional): Chooses the entries.
                        Default: None, the global CPU generator

        Returns:
            *ClosedFormError* of relative errors per example.

        Examples::

            >>> method = LayerGradCamPlusPlus(net, net.conv)
            >>> method.closed_form_error(images, target=3, entries=8).terms  # net has ReLUs and max-pooling only
            tensor([0., 0.])
        """
        checks.check_count("entries", entries)
        checks.check_generator(generator)
        arguments = MapArguments(additional_forward_args, attribute_to_layer_input, score=score)
        with exclusive_access(), rewound_on_error(generator):
            request = make_request(inputs, (target,), arguments, None)
            return closed_form_error(self._forward_pass(arguments), request, entries, generator)

    def _explain(
        self,
        inputs: TensorOrTuple,
        targets: Sequence[TargetType],
        arguments: MapArguments,
        noise: NoiseArguments | None = None,
    ) -> list[list[list[LayerResult]]]:
        """For every target, every layer and every tensor of it."""
        with exclusive_access(), torch.set_grad_enabled(arguments.in_autograd("create_graph")):
            request = make_request(inputs, targets, arguments, noise)
            forward_pass = self._forward_pass(arguments)
            check_create_graph(request, forward_pass.has_replicas)
            with missing_batch_named(self.forward_func, request.inputs):
                sampler = sample_layers(forward_pass, request)
            found = layer_results(sampler, noise is not None and noise.return_statistics)
            warn_of_doubts(sampler, found, self.reshape_transform is not None)
            return by_target(sampler, found)

    def _forward_pass(self, arguments: MapArguments) -> ForwardPass:
        return ForwardPass(
            self.forward_func,
            self.layer if isinstance(self.layer, list) else [self.layer],
            self.device_ids,
            arguments.attribute_to_layer_input,
            self.reshape_transform,
            keep_graph=arguments.in_autograd("create_graph"),
        )

    def _attributions(self, layers: list[list[LayerResult]]) -> Attributions:
        return attributions(layers, isinstance(self.layer, list))

    def _statistics(self, layers: list[list[LayerResult]]) -> Statistics:
        return statistics(layers, isinstance(self.layer, list))


def named_arguments(known: Sequence[type], attribute_arguments: dict[str, Any]) -> list[Any]:
    """One object of each of the known dataclasses, from the arguments that are its fields."""
    names = [[field.name for field in fields(kind)] for kind in known]
    for name in attribute_arguments:
        if not any(name in own for own in names):
            raise TypeError(f"{name}: expected an argument of attribute, found one that it does not have")
    return [
        kind(**{name: value for name, value in attribute_arguments.items() if name in own})
        for kind, own in zip(known, names, strict=True)
    ]


def _check_layers(layer: object) -> None:
    layers = layer if isinstance(layer, list) else [layer]
    if not layers:
        raise ValueError("layer: expected a module or a list of modules, found an empty one")
    for module in layers:
        if not isinstance(module, nn.Module):
            hint = f"; model.get_submodule({module!r}) is the one of this name" if isinstance(module, str) else ""
            raise TypeError(f"layer: expected a torch.nn.Module or a list of them, found {type(module).__name__}{hint}")
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("layer: expected a module that runs Python hooks, found a TorchScript module")
    if len({id(module) for module in layers}) < len(layers):
        raise ValueError("layer: expected different modules, found one twice")
