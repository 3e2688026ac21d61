"""Grad-CAM++ and Smooth Grad-CAM++ as Captum layer attributions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from inspect import signature
from typing import Any, Literal, NamedTuple

import torch
from captum.attr import GradientAttribution, LayerAttribution
from torch import Generator, Tensor, nn

from captum_sgcampp import checks
from captum_sgcampp.attr.options import ClassMap, Formula
from captum_sgcampp.attr.reshape_transforms import ReshapeTransform
from captum_sgcampp.captum_internals import TargetType, _format_additional_forward_args, _format_output, log_usage
from captum_sgcampp.functional.class_map import alpha_coefficients
from captum_sgcampp.functional.moments import MomentSums
from captum_sgcampp.functional.noise import absolute_sigma, default_chunk, relative_sigma, rewound_on_error
from captum_sgcampp.functional.sampling_statistics import (
    JACKKNIFE_GROUPS,
    SamplingStatistics,
    pole_shares,
    relative_norm,
)
from captum_sgcampp.functional.score_derivatives import ScoreFunction, Softmax
from captum_sgcampp.functional.selection import FeatureMaps, Neurons, random_entries
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.model_access import exclusive_access, usable_for_autograd
from captum_sgcampp.sampling.sampler import LEAST_COPIES, LayerSample, Noise, Question, sample_layers
from captum_sgcampp.sampling.targets import normal_target

TensorOrTuple = Tensor | tuple[Tensor, ...]


class TopFeatureMaps(NamedTuple):
    """The feature maps with the largest weights, largest first.

    Attributes:
        weights: `w_k`, `(N, k)`.
        indices: the numbers of the feature maps, `(N, k)`.
    """

    weights: Tensor
    indices: Tensor


class ClosedFormError(NamedTuple):
    """How far the closed form is from the true derivatives at some entries of a layer: L2 norm of the difference
    divided by that of the true values, `(N,)` each. 0 behind piecewise linear heads.

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


class _Explanation(NamedTuple):
    """What one tensor of a layer and one target give."""

    maps: Tensor
    weights: Tensor
    statistics: SamplingStatistics | None

    @staticmethod
    def joined(parts: list[_Explanation], order: Tensor) -> _Explanation:
        """The explanation of all examples from those of parts of them, in the order of the batch."""
        if len(parts) == 1:
            return parts[0]

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors)[order.to(tensors[0].device)]

        per_part = [vars(part.statistics) for part in parts if part.statistics is not None]
        statistics = {name: join([values[name] for values in per_part]) for name in (per_part[0] if per_part else ())}
        return _Explanation(
            join([part.maps for part in parts]),
            join([part.weights for part in parts]),
            SamplingStatistics(**statistics) if statistics else None,
        )


@dataclass(frozen=True)
class _NoiseRequest:
    """The arguments of `LayerSmoothGradCamPlusPlus.attribute` that make the noisy copies."""

    nt_samples: int | Literal["auto"] = 25
    nt_samples_batch_size: int | None = None
    stdevs: float | tuple[float, ...] | None = None
    noise_level: float | tuple[float, ...] = 0.15
    generator: Generator | None = None
    show_progress: bool = False
    return_statistics: bool = False
    tolerance: float = 0.03
    max_nt_samples: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.nt_samples, str) and self.nt_samples != "auto":
            raise ValueError(f"nt_samples: expected an int or 'auto', found {self.nt_samples!r}")
        if self.nt_samples != "auto":
            checks.check_count("nt_samples", self.nt_samples)
        checks.check_count("max_nt_samples", self.max_nt_samples, least=LEAST_COPIES)
        checks.check_positive("tolerance", self.tolerance)
        if self.nt_samples_batch_size is not None:
            checks.check_count("nt_samples_batch_size", self.nt_samples_batch_size)
        checks.check_generator(self.generator)
        checks.check_flag("show_progress", self.show_progress)
        checks.check_flag("return_statistics", self.return_statistics)

    def noise(self, inputs: tuple[Tensor, ...]) -> Noise:
        """The noise for these inputs."""
        auto = self.nt_samples == "auto"
        most = self.max_nt_samples if self.nt_samples == "auto" else self.nt_samples
        return Noise(
            sigmas=self._sigmas(inputs),
            nt_samples=most,
            chunk=self.nt_samples_batch_size or default_chunk(inputs, most),
            chunk_is_asked_for=self.nt_samples_batch_size is not None,
            generator=self.generator,
            groups=min(JACKKNIFE_GROUPS, most) if self.return_statistics or auto else 1,
            show_progress=self.show_progress,
            tolerance=self.tolerance if auto else None,
        )

    def _sigmas(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        if self.stdevs is not None:
            stdevs = checks.check_per_input("stdevs", self.stdevs, inputs)
            return tuple(absolute_sigma(x, stdev) if stdev else None for x, stdev in zip(inputs, stdevs, strict=True))
        levels = checks.check_per_input("noise_level", self.noise_level, inputs)
        return tuple(relative_sigma(x, level) if level else None for x, level in zip(inputs, levels, strict=True))


class _LayerCamPlusPlus(LayerAttribution, GradientAttribution):
    """What the two methods share: checks, the pass through the model, the form of the result."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable): The forward function of the model or any
                          modification of it. A model compiled by `torch.compile` is compiled
                          once more for the layer, in pieces that meet there
            layer (torch.nn.Module or list of them): Layer for which attributions are
                          computed. Output size of attribute matches this layer's
                          output dimensions, except for dimension 1, which will be 1,
                          since the feature maps are summed. A list of layers is explained in
                          one pass and gives a list of results.
            device_ids (list[int]): Device ID list, necessary only if forward_func
                          applies a DataParallel model over several devices.
                          If forward_func is given as the DataParallel model itself,
                          then it is not necessary to provide this argument.
            reshape_transform (Callable, optional): For layers whose feature maps are not in dimension 1: a function
                          that moves the entries of the layer's tensors to `(N, K, *space)`, such as
                          `TokenGrid()` for the tokens `(N, T, C)` of a vision transformer and
                          `channels_last_to_first` for `(N, *space, C)`. It is
                          applied to all tensors of all layers, and to their derivatives.
                          Default: None, the tensors are `(N, K, *space)`
        """
        if reshape_transform is not None and not callable(reshape_transform):
            raise TypeError(f"reshape_transform: expected a function or None, found {type(reshape_transform).__name__}")
        if not callable(forward_func):
            raise TypeError(f"forward_func: expected a module or a function, found {type(forward_func).__name__}")
        _check_layers(layer)
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform

    def top_feature_maps(
        self, inputs: TensorOrTuple, target: TargetType = None, k: int = 5, **attribute_arguments: Any
    ) -> TopFeatureMaps:
        r"""
        The feature maps with the largest weights `w_k` for a class.

        Args:

            inputs, target: as in `attribute`.
            k (int, optional): How many. Default: 5
            **attribute_arguments (Any, optional): Any other argument of `attribute` that has a part in the weights,
                        by name.

        Returns:
            *TopFeatureMaps* of **weights** and **indices**, each `(N, k)`, largest weight first; the indices may be
            given to `feature_maps`.

        Examples::

            >>> method = LayerGradCamPlusPlus(net, net.conv)
            >>> weights, indices = method.top_feature_maps(images, target=3, k=2)
            >>> attributions = method.attribute(images, target=3, feature_maps=indices[0])
        """
        checks.check_count("k", k)
        self._check_names(attribute_arguments)
        layers = self._explain(inputs, (target,), **attribute_arguments)[0]
        if len(layers) > 1 or len(layers[0]) > 1:
            raise ValueError(f"layer: expected one layer of one tensor, found {sum(map(len, layers))} tensors")
        weights = layers[0][0].weights.flatten(1)
        if k > weights.shape[1]:
            raise ValueError(f"k: expected at most the layer's {weights.shape[1]} feature maps, found {k}")
        return TopFeatureMaps(*weights.topk(k, dim=1))

    def attribute_targets(
        self, inputs: TensorOrTuple, targets: Sequence[TargetType], **attribute_arguments: Any
    ) -> Any:
        r"""
        Explains several targets of the same inputs in one pass, over the same noisy copies: the network in front of the
        layer runs once, and one gradient per target is taken behind it.

        Args:

            inputs: as in `attribute`.
            targets (sequence of targets): Each in any format that `attribute` takes as `target`. With
                        `nt_samples="auto"`, each example gets the largest number of samples that any of its
                        targets needs.
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
        self._check_names(attribute_arguments)
        results = self._explain(inputs, targets, **attribute_arguments)
        statistics = bool(attribute_arguments.get("return_statistics", False))
        return [_result(layers, isinstance(self.layer, list), statistics) for layers in results]

    def closed_form_error(
        self,
        inputs: TensorOrTuple,
        target: TargetType = None,
        entries: int = 64,
        generator: Generator | None = None,
        *,
        score: str | Softmax = "exp",
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
    ) -> ClosedFormError:
        r"""
        How far `derivatives="closed_form"` is from `"exact"` for this model, layer and class, at random entries of the
        layer with a positive first derivative (the others have no part in the map), without noise.

        Args:

            inputs, target, score, additional_forward_args, attribute_to_layer_input: as in `attribute`.
            entries (int, optional): How many entries of each example are compared, fewer where fewer have a positive
                        derivative. Default: 64
            generator (torch.Generator, optional): Source of the choice.
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
        formula = Formula(score=score)
        checks.check_flag("attribute_to_layer_input", attribute_to_layer_input)
        with exclusive_access(), rewound_on_error(generator):
            question = _question(inputs, (target,), additional_forward_args, None, formula)
            forward_pass = self._forward_pass(attribute_to_layer_input)
            closed = sample_layers(forward_pass, question, None, formula.standard_error)[0].samples
            if len(closed) > 1:
                raise ValueError(f"layer: expected one layer of one tensor, found {len(closed)} tensors")
            chosen = random_entries(closed[0].moments.mean().d1 > 0, entries, generator)
            exact = sample_layers(
                forward_pass,
                replace(question, exact=True, select=lambda activation: chosen),
                None,
                formula.standard_error,
            )[0].samples
        return _closed_form_error(closed[0], exact[0], chosen)

    def _forward_pass(self, attribute_to_layer_input: bool, keep_graph: bool = False) -> ForwardPass:
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        return ForwardPass(
            self.forward_func, layers, self.device_ids, attribute_to_layer_input, self.reshape_transform, keep_graph
        )

    def _check_names(self, attribute_arguments: dict[str, Any]) -> None:
        known = signature(self.attribute).parameters
        for name in attribute_arguments:
            if name not in known:
                raise TypeError(f"{name}: expected an argument of attribute, found one that it does not have")

    def _explain(
        self,
        inputs: Any,
        targets: Sequence[Any] = (None,),
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        noise_request: _NoiseRequest | None = None,
        **formula_arguments: Any,
    ) -> list[list[list[_Explanation]]]:
        """For every target, every layer and every tensor of it."""
        formula = Formula(**formula_arguments)
        checks.check_flag("attribute_to_layer_input", attribute_to_layer_input)
        create_graph = bool(checks.check_grad_kwargs(grad_kwargs).get("create_graph"))
        with exclusive_access(), torch.set_grad_enabled(create_graph):
            question = _question(inputs, targets, additional_forward_args, grad_kwargs, formula)
            noise = noise_request.noise(question.inputs) if noise_request else None
            forward_pass = self._forward_pass(attribute_to_layer_input, keep_graph=create_graph)
            if create_graph:
                auto = noise is not None and noise.tolerance is not None
                checks.check_create_graph(question.exact, auto, forward_pass.has_replicas)
            parts = sample_layers(forward_pass, question, noise, formula.standard_error)
            wanted = noise if noise_request and noise_request.return_statistics else None
            order = torch.cat([part.examples for part in parts]).argsort()
            explanations = [
                _Explanation.joined([_explanation(formula, sample, wanted) for sample in same], order)
                for same in zip(*(part.samples for part in parts), strict=True)
            ]
            _check_finite([explanation.maps for explanation in explanations])
            if self.reshape_transform is not None:
                _warn_of_zero_gradients([sample.moments for part in parts for sample in part.samples])
        return _nested(explanations, len(question.targets), parts[0].tensors)


def _check_layers(layer: object) -> None:
    layers = layer if isinstance(layer, list) else [layer]
    if not layers:
        raise ValueError("layer: expected a module or a list of modules, found an empty list")
    for module in layers:
        if not isinstance(module, nn.Module):
            raise TypeError(f"layer: expected a torch.nn.Module or a list of them, found {type(module).__name__}")
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("layer: expected a module that runs Python hooks, found a TorchScript module")
    if len({id(module) for module in layers}) < len(layers):
        raise ValueError("layer: expected different modules, found one twice")


def _nested(explanations: list[_Explanation], targets: int, tensors: list[int]) -> list[list[list[_Explanation]]]:
    remaining = iter(explanations)
    return [[[next(remaining) for _ in range(count)] for count in tensors] for _ in range(targets)]


def _explanation(formula: Formula, sample: LayerSample, noise: Noise | None) -> _Explanation:
    """The map of a sample, with its statistics where the noise is given."""
    result = formula.class_map(sample, sample.moments.mean())
    statistics = _statistics(formula, sample, result, noise) if noise else None
    return _Explanation(result.maps, result.weights, statistics)


@torch.no_grad()
def _statistics(formula: Formula, sample: LayerSample, result: ClassMap, noise: Noise) -> SamplingStatistics:
    d1 = sample.moments.mean().d1
    examples = len(sample.activation)
    if noise.silent:  # one copy was computed; the others are the same
        copies = noise.nt_samples if noise.tolerance is None else LEAST_COPIES
        effective, error = d1.new_full((examples,), copies), d1.new_zeros(examples)
    else:
        copies = sample.moments.copies
        effective, error = sample.moments.effective_sample_size(), formula.standard_error(sample)
    pole_share, pole_weight_share = pole_shares(result.alpha, d1, sample.selected)
    used = torch.full((examples,), copies, device=d1.device)
    return SamplingStatistics(used, effective, error, pole_share, pole_weight_share)


def _question(
    inputs: object,
    targets: Sequence[Any],
    additional_forward_args: Any,
    grad_kwargs: dict[str, Any] | None,
    formula: Formula,
) -> Question:
    tensors = checks.check_inputs(inputs)
    kwargs = checks.check_grad_kwargs(grad_kwargs)
    create_graph = bool(kwargs.get("create_graph"))
    additional_args = _format_additional_forward_args(additional_forward_args) or ()
    return Question(
        inputs=tuple(usable_for_autograd(x, create_graph) for x in tensors),
        additional_args=tuple(usable_for_autograd(value, create_graph) for value in additional_args),
        per_example=tuple(
            isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(tensors[0]) for value in additional_args
        ),
        targets=tuple(normal_target(target, len(tensors[0])) for target in targets),
        score=Softmax() if formula.score == "softmax" else formula.score,
        select=formula.select,
        unused_is_zero=bool(kwargs.get("allow_unused") or kwargs.get("materialize_grads")),
        exact=formula.derivatives == "exact",
        create_graph=create_graph,
    )


def _closed_form_error(closed: LayerSample, exact: LayerSample, chosen: Tensor) -> ClosedFormError:
    """Both with the scale of the closed form, whose first derivative has the largest magnitude 1."""
    found, true = closed.moments.mean(), exact.moments.mean()
    ratio = (true.scale / torch.where(found.scale > 0, found.scale, 1)).reshape(-1, *(1,) * (chosen.dim() - 1))
    parts = [(d * ratio**p, c) for p, (d, c) in enumerate(zip(true[:3], found[:3], strict=True), start=1)]
    (d1, c1), (d2, c2), (d3, c3) = parts
    scaled = closed.activation * found.scale.reshape(ratio.shape)
    terms = (alpha_coefficients(d2, d3, scaled) * d1, alpha_coefficients(c2, c3, scaled) * c1)
    e1, e2, e3, of_terms = (relative_norm((c - d) * chosen, d * chosen) for d, c in (*parts, terms))
    return ClosedFormError(e1, e2, e3, of_terms, chosen.flatten(1).sum(1))


def _warn_of_zero_gradients(moments: list[MomentSums]) -> None:
    if any(bool((sums.scale == 0).all()) for sums in moments):
        warnings.warn(
            "layer: expected tokens that the score depends on, found a gradient of 0 at every position of the map, "
            "which is all zero; after the last attention only the class token counts: explain what goes into it (its "
            "normalization layer)",
            stacklevel=5,
        )


def _check_finite(maps: list[Tensor]) -> None:
    if not all(bool(torch.isfinite(m).all()) for m in maps):
        raise RuntimeError(
            "forward_func: expected finite activations and gradients at layer, found NaN or infinity (float16 models "
            "overflow beyond 65504)"
        )


def _result(layers: list[list[_Explanation]], is_list: bool, return_statistics: bool) -> Any:
    """What `attribute` returns for one target: a tensor, or a tuple for a layer of several; a list for several layers;
    with the statistics in the same form beside it."""
    attributions = [_format_output(len(e) > 1, tuple(part.maps.contiguous() for part in e)) for e in layers]
    statistics = [_format_output(len(e) > 1, tuple(part.statistics for part in e)) for e in layers]
    found = (attributions, statistics) if is_list else (attributions[0], statistics[0])
    return found if return_statistics else found[0]


class LayerGradCamPlusPlus(_LayerCamPlusPlus):
    r"""
    Computes Grad-CAM++ attribution for a chosen layer. It stands where `captum.attr.LayerGradCam` stands: the
    constructor and the positional arguments of `attribute` are the same.

    Grad-CAM++ weighs each feature map by a weighted sum of the positive gradients, and chooses the coefficients such
    that several occurrences of a class count. With the score `Y = exp(S)` of a logit `S`, `g = dS/dA` and the layer's
    activation `A`:

        alpha = g^2 / (2 g^2 + g^3 * sum_ab A_ab)
        w_k   = sum_ij alpha_kij * relu(g)_kij
        L_ij  = sum_k w_k A_kij

    where the constant factor `exp(S)` is left out. The closed form is exact where the network behind the layer is
    piecewise linear (ReLU, max-pooling, convolutions, linear layers); elsewhere it is an approximation, and
    `derivatives="exact"` takes the true derivatives.

    As in Captum's `LayerGradCam`, the final ReLU of the papers is applied on request only (`relu_attributions=True`).
    Maps are in float32 (float64 for a float64 model), contiguous, and detached but with `create_graph`.

    Give the model's logits, not its probabilities. A model in training mode with batch normalisation or dropout is
    refused, since its rows depend on each other or on chance.

    Sources: Chattopadhay et al., *Grad-CAM++*, https://arxiv.org/abs/1710.11063 (eqs 5, 6, 10 to 19; softmax: 22 to
    24).
    """

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        feature_maps: FeatureMaps = None,
        neurons: Neurons = None,
        score: str | Softmax | ScoreFunction = "exp",
        derivatives: str = "closed_form",
        bound_alpha: bool = False,
    ) -> Any:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions
                        are computed, examples along dimension 0. Several input
                        tensors of a model are given as a tuple. Values must be finite.
            target (int, tuple, Tensor, or list, optional): Output indices for
                        which gradients are computed, in any of Captum's formats:
                        an int (or a tensor with one) for all examples; a list or 1D tensor
                        of ints, one per example; for outputs of more than 2 dimensions
                        a tuple of ints, or a list of one tuple per example.
                        None where the output has one value per example.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of forward_func, which
                        follow the inputs: one argument or a tuple of tensors and other objects. A tensor
                        with as many entries as there are examples counts as one entry per example and is repeated for
                        the noisy copies (bind others with `functools.partial`).
                        Default: None
            attribute_to_layer_input (bool, optional): Whether to explain the layer's
                        inputs (its positional tensors) in the place of its output.
                        Default: False
            relu_attributions (bool, optional): Whether to apply the papers' final ReLU.
                        Default: False
            attr_dim_summation (bool, optional): Whether to sum the weighted feature maps
                        over dimension 1; False gives each `w_k A_kij`.
                        Default: True
            grad_kwargs (Dict[str, Any], optional): `{"materialize_grads": True}` or
                        `{"allow_unused": True}` take the gradient of a layer that the score does
                        not depend on as zero. `{"create_graph": True}` gives maps that can be differentiated with
                        respect to the model's parameters and the inputs, for losses on maps; the graph of all
                        passes is kept (closed form, a fixed number of copies, one device).
                        Default: None
            feature_maps (int, sequence of ints, slice or bool tensor, optional): Feature maps that
                        make the map: indices, or a bool tensor `(K,)` or `(N, K)`.
                        Default: None, all
            neurons (tuple of slices, list of coordinates or bool tensor, optional): Positions that make the map:
                        `numpy.s_[2:5, 3:7]`, `[(2, 3), (4, 4)]`, a bool tensor of the
                        layer's spatial shape, or one that broadcasts to its activation. Weights are summed over them,
                        and the map is 0 elsewhere. `box_to_neurons` makes them from a box in input pixels.
                        Default: None, all
            score (str, Softmax or function, optional): Score link `Y`: `"exp"`, `"sigmoid"`, `"softmax"` or
                        `Softmax(classes=...)` (experimental; in closed form, one gradient per class). With exact
                        derivatives also `"identity"`, the logit itself, or a function of one's own from the
                        selected scores `(rows,)` to as many; the copies then count equally.
                        Default: `"exp"`
            derivatives (str, optional): `"closed_form"` takes the powers of the gradient, which are the derivatives of
                        the score behind piecewise linear heads. `"exact"` gives the true derivatives along
                        every single entry of the layer behind any head (SiLU, GELU, attention, normalisation) by
                        automatic differentiation, at about ten forward passes of the head for each entry and copy.
                        Heads that are piecewise linear are recognised and cost nothing more; in front of global
                        average pooling one entry for each feature map is enough; only the selected entries
                        are differentiated. Expects float32 or float64, and refuses operations that PyTorch
                        differentiates wrongly. `closed_form_error` says what the choice means for a model.
                        Default: `"closed_form"`
            bound_alpha (bool, optional): Whether to clamp alpha to [0, 1/2], where it lies for one sample with
                        `A >= 0` and `g > 0`.
                        Default: False, the papers' formula

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        The map, of the shape of the layer's output but for dimension 1, which is 1:
                        `(N, 1, *space)`. A tuple if the layer's inputs / outputs are several
                        tensors.

        Raises:
            TypeError, ValueError, RuntimeError: the message names the argument, what was expected and what was
                found. The model is as it was.

        Examples::

            >>> # net: images (N, 3, 32, 32) to logits (N, 10); net.conv gives (N, 8, 16, 16).
            >>> layer_gc = LayerGradCamPlusPlus(net, net.conv)
            >>> attr = layer_gc.attribute(images, target=3, relu_attributions=True)
            >>> attr.shape
            torch.Size([2, 1, 16, 16])
            >>> upsampled = LayerAttribution.interpolate(attr, (32, 32), "bilinear")
        """
        layers = self._explain(
            inputs,
            (target,),
            additional_forward_args,
            attribute_to_layer_input,
            grad_kwargs,
            relu_attributions=relu_attributions,
            attr_dim_summation=attr_dim_summation,
            feature_maps=feature_maps,
            neurons=neurons,
            score=score,
            derivatives=derivatives,
            bound_alpha=bound_alpha,
        )[0]
        return _result(layers, isinstance(self.layer, list), return_statistics=False)


class LayerSmoothGradCamPlusPlus(_LayerCamPlusPlus):
    r"""
    Computes Smooth Grad-CAM++ attribution for a chosen layer: Grad-CAM++ (see `LayerGradCamPlusPlus`) whose first,
    second and third derivatives are averaged over noisy copies of the input, inside the formula.

    With `n` noisy copies `x_m = x + eps_m`, `eps_m ~ N(0, sigma^2)`, logits `S_m`, gradients `g_m`, and the activation
    `A` of the clean input:

        e_m   = exp(S_m) / mean_j exp(S_j)
        D_p   = mean_m e_m g_m^p,  p = 1, 2, 3
        alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)
        w_k   = sum_ij alpha_kij * relu(D_1)_kij
        L_ij  = sum_k w_k A_kij

    This differs from `captum.attr.NoiseTunnel` around Grad-CAM++, which averages finished maps.

    Where the layer is followed only by global average pooling and a linear score (ResNet's `layer4`), the noisy
    derivatives are a common multiple of the clean ones and the map equals Grad-CAM++ up to a positive factor, whatever
    the noise. Inner layers and fully connected heads (VGG) are where the smoothing acts.

    After averaging, alpha need not lie in [0, 1/2] and can have poles; `return_statistics=True` says how much of the
    weight comes from them.

    Sources: Omeiza et al., *Smooth Grad-CAM++*, https://arxiv.org/abs/1908.01224; Smilkov et al., *SmoothGrad*,
    https://arxiv.org/abs/1706.03825.
    """

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        nt_samples: int | Literal["auto"] = 25,
        nt_samples_batch_size: int | None = None,
        stdevs: float | tuple[float, ...] | None = None,
        noise_level: float | tuple[float, ...] = 0.15,
        generator: Generator | None = None,
        show_progress: bool = False,
        return_statistics: bool = False,
        tolerance: float = 0.03,
        max_nt_samples: int = 64,
        feature_maps: FeatureMaps = None,
        neurons: Neurons = None,
        score: str | Softmax | ScoreFunction = "exp",
        derivatives: str = "closed_form",
        bound_alpha: bool = False,
    ) -> Any:
        r"""
        Args:

            inputs, target, additional_forward_args, attribute_to_layer_input, relu_attributions,
            attr_dim_summation, grad_kwargs, feature_maps, neurons, score, derivatives, bound_alpha:
                        as in `LayerGradCamPlusPlus.attribute`.
            nt_samples (int or "auto", optional): Number of noisy copies of each example. `"auto"` goes on until the
                        standard error of the map is within `tolerance`, for each example on its own.
                        Default: 25
            nt_samples_batch_size (int, optional): How many copies of each example one forward
                        pass gets: at most `N * nt_samples_batch_size` rows. It changes neither the noise nor,
                        beyond rounding, the map.
                        Default: None, as many as a bounded amount of memory takes, halved where the device runs out
            stdevs (float or tuple of float, optional): Standard deviation of the noise in
                        units of the input, one for all inputs or one for each. 0 leaves an input alone; 0 for
                        all is Grad-CAM++ exactly.
                        Default: None, `noise_level` is used
            noise_level (float or tuple of float, optional): Standard deviation as a fraction of
                        each example's own range (max - min), as in SmoothGrad; one for all inputs or one for each.
                        Default: 0.15
            generator (torch.Generator, optional): Source of the noise. One number is drawn from it; every
                        copy has a stream of its own from that number, which all examples of the batch
                        share.
                        Default: None, the global CPU generator
            show_progress (bool, optional): Whether to show a progress bar over the copies.
                        Default: False
            return_statistics (bool, optional): Whether to return `(attributions, statistics)`,
                        the latter a `SamplingStatistics` (a tuple of them for a layer of several tensors).
                        Default: False
            tolerance (float, optional): For `nt_samples="auto"`: standard error of the map divided by its L2
                        norm, estimated from the copies by a jackknife.
                        Default: 0.03
            max_nt_samples (int, optional): For `nt_samples="auto"`: the most copies of an example, at
                        least 4.
                        Default: 64

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or 2-element tuple of **attributions**,
            **statistics**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        The map, of the shape of the layer's output but for dimension 1, which is 1:
                        `(N, 1, *space)`.
            - **statistics** (*SamplingStatistics*, if return_statistics=True):
                        Per example: copies used, effective sample size, standard error of the map, share of poles.

        Raises:
            TypeError, ValueError, RuntimeError: as in `LayerGradCamPlusPlus.attribute`. The generator is where it was.

        Examples::

            >>> layer_gc = LayerSmoothGradCamPlusPlus(net, net.conv)
            >>> seed = torch.Generator().manual_seed(0)
            >>> attr, statistics = layer_gc.attribute(
            ...     images, target=3, nt_samples=8, noise_level=0.1, generator=seed, return_statistics=True
            ... )
            >>> attr.shape, statistics.nt_samples
            (torch.Size([2, 1, 16, 16]), tensor([8, 8]))
        """
        layers = self._explain(
            inputs,
            (target,),
            additional_forward_args,
            attribute_to_layer_input,
            grad_kwargs,
            relu_attributions=relu_attributions,
            attr_dim_summation=attr_dim_summation,
            feature_maps=feature_maps,
            neurons=neurons,
            score=score,
            derivatives=derivatives,
            bound_alpha=bound_alpha,
            nt_samples=nt_samples,
            nt_samples_batch_size=nt_samples_batch_size,
            stdevs=stdevs,
            noise_level=noise_level,
            generator=generator,
            show_progress=show_progress,
            return_statistics=return_statistics,
            tolerance=tolerance,
            max_nt_samples=max_nt_samples,
        )[0]
        return _result(layers, isinstance(self.layer, list), return_statistics)

    def _explain(self, *arguments: Any, **keywords: Any) -> list[list[list[_Explanation]]]:
        names = [field.name for field in fields(_NoiseRequest)]
        keywords["noise_request"] = _NoiseRequest(**{name: keywords.pop(name) for name in names if name in keywords})
        return super()._explain(*arguments, **keywords)
