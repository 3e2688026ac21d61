"""The arguments of `attribute`: checked, and turned into a request for the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Generator, Tensor

from captum_sgcampp import checks
from captum_sgcampp.captum_internals import TargetType, _format_additional_forward_args
from captum_sgcampp.functional.class_map import MapOptions
from captum_sgcampp.functional.noise import absolute_sigma, default_chunk, relative_sigma
from captum_sgcampp.functional.sampling_statistics import JACKKNIFE_GROUPS
from captum_sgcampp.functional.score_derivatives import SCORES, ScoreFunction, Softmax
from captum_sgcampp.functional.selection import FeatureMaps, Neurons
from captum_sgcampp.model.model_access import usable_for_autograd
from captum_sgcampp.sampling.convergence import LEAST_SAMPLES
from captum_sgcampp.sampling.request import Noise, Request
from captum_sgcampp.sampling.targets import normal_target

Score = Literal["exp", "sigmoid", "softmax", "identity"] | Softmax | ScoreFunction
DerivativesOf = Literal["closed_form", "exact"]

_FLAGS = ("attribute_to_layer_input", "relu_attributions", "attr_dim_summation", "bound_alpha", "two_sided")
_GRAD_KWARGS = ("allow_unused", "materialize_grads", "retain_graph", "create_graph", "is_grads_batched")


@dataclass(frozen=True)
class MapArguments:
    """The arguments of `attribute` that both methods have."""

    additional_forward_args: object | None = None
    attribute_to_layer_input: bool = False
    relu_attributions: bool = False
    attr_dim_summation: bool = True
    grad_kwargs: dict[str, Any] | None = None
    feature_maps: FeatureMaps = None
    neurons: Neurons = None
    score: Score = "exp"
    derivatives: DerivativesOf = "closed_form"
    bound_alpha: bool = False
    two_sided: bool = False

    def __post_init__(self) -> None:
        for flag in _FLAGS:
            checks.check_flag(flag, getattr(self, flag))
        _check_derivatives(self.derivatives)
        _check_score(self.score, self.derivatives)
        _check_grad_kwargs(self.grad_kwargs)

    def in_autograd(self, name: str) -> bool:
        """A flag of `grad_kwargs`."""
        return bool((self.grad_kwargs or {}).get(name))


@dataclass(frozen=True)
class NoiseArguments:
    """The arguments of `LayerSmoothGradCamPlusPlus.attribute` that make the noisy samples."""

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
        checks.check_count("max_nt_samples", self.max_nt_samples, least=LEAST_SAMPLES)
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


def make_request(
    inputs: object, targets: Sequence[TargetType], arguments: MapArguments, noise_arguments: NoiseArguments | None
) -> Request:
    """The sampler's request, from the arguments of `attribute` for several targets."""
    tensors = checks.check_inputs(inputs)
    create_graph = arguments.in_autograd("create_graph")
    additional_args = _format_additional_forward_args(arguments.additional_forward_args) or ()
    detached = tuple(usable_for_autograd(x, create_graph) for x in tensors)
    return Request(
        inputs=detached,
        additional_args=tuple(usable_for_autograd(value, create_graph) for value in additional_args),
        per_example=tuple(
            isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(tensors[0]) for value in additional_args
        ),
        targets=tuple(normal_target(target, len(tensors[0])) for target in targets),
        score=Softmax() if arguments.score == "softmax" else arguments.score,
        feature_maps=arguments.feature_maps,
        neurons=arguments.neurons,
        map_options=MapOptions(
            arguments.bound_alpha, arguments.attr_dim_summation, arguments.relu_attributions, arguments.two_sided
        ),
        unused_is_zero=arguments.in_autograd("allow_unused") or arguments.in_autograd("materialize_grads"),
        exact=arguments.derivatives == "exact",
        create_graph=create_graph,
        noise=noise_arguments.noise(detached) if noise_arguments else None,
    )


def check_create_graph(request: Request, has_replicas: bool) -> None:
    """Refuse what a differentiable map cannot be combined with."""
    auto = request.noise is not None and request.noise.tolerance is not None
    for found, name in (
        (request.exact, "derivatives='exact'"),
        (auto, "nt_samples='auto'"),
        (has_replicas, "DataParallel"),
    ):
        if found and request.create_graph:
            raise ValueError(f"grad_kwargs: expected create_graph=False with {name}, found True")


def _check_score(score: object, derivatives: str) -> None:
    """The name of a score function, `Softmax(classes)`, or with exact derivatives also `"identity"` or a function."""
    names = (*SCORES, "identity")
    if isinstance(score, Softmax):
        return
    if not isinstance(score, str) and (not callable(score) or isinstance(score, type)):
        raise TypeError(
            f"score: expected one of {names}, Softmax(classes=...) or a function, found {type(score).__name__}"
        )
    if isinstance(score, str) and score not in names:
        raise ValueError(f"score: expected one of {names}, Softmax(classes=...) or a function, found {score!r}")
    if derivatives == "closed_form" and score not in SCORES:
        name = repr(score) if isinstance(score, str) else "a function"
        raise ValueError(f"score: expected one of {SCORES} or Softmax(classes=...) with the closed form, found {name}")


def _check_derivatives(derivatives: object) -> None:
    if derivatives not in ("closed_form", "exact"):
        raise ValueError(f"derivatives: expected 'closed_form' or 'exact', found {derivatives!r}")


def _check_grad_kwargs(grad_kwargs: object) -> None:
    """Keyword arguments of `torch.autograd.grad` that keep their meaning here."""
    if grad_kwargs is None:
        return
    if not isinstance(grad_kwargs, Mapping):
        raise TypeError(f"grad_kwargs: expected a dict or None, found {type(grad_kwargs).__name__}")
    for name, value in grad_kwargs.items():
        if name not in _GRAD_KWARGS:
            raise ValueError(f"grad_kwargs: expected keys among {_GRAD_KWARGS}, found {name!r}")
        checks.check_flag(f"grad_kwargs[{name!r}]", value)
    if grad_kwargs.get("is_grads_batched"):
        raise NotImplementedError(
            "grad_kwargs: expected is_grads_batched=False, found True, which this version does not support"
        )
