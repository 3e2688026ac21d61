"""What is explained, and over which noise: one object from the arguments of `attribute` to the model's rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Generator, Tensor

from captum_sgcampp.captum_internals import TargetType
from captum_sgcampp.functional.class_map import MapOptions
from captum_sgcampp.functional.noise import copies_of, noisy_rows
from captum_sgcampp.functional.score_derivatives import ScoreFunction, Softmax
from captum_sgcampp.functional.selection import FeatureMaps, Neurons


@dataclass(frozen=True)
class Noise:
    """How the noisy samples are made.

    Attributes:
        sigmas: for each input `(N, 1, ...)`, or None to leave it alone.
        nt_samples: number of noisy samples; with `tolerance`, the most of them.
        chunk: noisy samples of each example in one pass.
        chunk_is_asked_for: whether the caller chose it; otherwise it is halved where memory runs out.
        generator: source of the seed.
        groups: groups of samples for the jackknife.
        show_progress: whether a bar counts the samples.
        tolerance: sample until the standard error of every map is below it; None: no.
    """

    sigmas: tuple[Tensor | None, ...]
    nt_samples: int
    chunk: int
    chunk_is_asked_for: bool = True
    generator: Generator | None = None
    groups: int = 1
    show_progress: bool = False
    tolerance: float | None = None

    @property
    def silent(self) -> bool:
        """Whether every sample equals the clean example."""
        return all(sigma is None for sigma in self.sigmas)


@dataclass(frozen=True)
class Request:
    """The scores of targets for `inputs`, through a score function, and the form of the map.

    Attributes:
        inputs: clean inputs, `(N, ...)` each.
        additional_args: the arguments after them.
        per_example: which of these have one entry per example and grow with the rows.
        targets: in Captum's formats, plain ints; each is explained on its own, over the same noisy samples.
        score: `"exp"`, `"sigmoid"` or a `Softmax`; with exact derivatives also `"identity"` or a function.
        feature_maps, neurons: the selection.
        entries: the selection as a bool tensor that broadcasts to the activation, in their place.
        map_options: how derivatives become a map.
        unused_is_zero: whether a layer without influence has the gradient 0, or raises.
        exact: whether to take true derivatives where the network after the layer is not piecewise linear.
        create_graph: whether the maps are to be differentiated.
        noise: how the noisy samples are made; None: the clean example is the only sample.
    """

    inputs: tuple[Tensor, ...]
    additional_args: tuple[Any, ...]
    per_example: tuple[bool, ...]
    targets: tuple[TargetType, ...]
    score: str | Softmax | ScoreFunction
    feature_maps: FeatureMaps = None
    neurons: Neurons = None
    entries: Tensor | None = None
    map_options: MapOptions = field(default_factory=MapOptions)
    unused_is_zero: bool = False
    exact: bool = False
    create_graph: bool = False
    noise: Noise | None = None

    @property
    def examples(self) -> int:
        """N."""
        return len(self.inputs[0])

    @property
    def has_noise(self) -> bool:
        """Whether the samples differ from the clean example."""
        return self.noise is not None and not self.noise.silent

    def of(self, examples: Tensor) -> Request:
        """The request for some of the examples (indices)."""
        chosen = examples.tolist()
        sigmas = () if self.noise is None else self.noise.sigmas
        return replace(
            self,
            inputs=tuple(x[examples.to(x.device)] for x in self.inputs),
            additional_args=tuple(
                arg[examples.to(arg.device)] if per_example else arg
                for arg, per_example in zip(self.additional_args, self.per_example, strict=True)
            ),
            targets=tuple([t[i] for i in chosen] if isinstance(t, list) else t for t in self.targets),
            noise=self.noise and replace(self.noise, sigmas=tuple(s if s is None else s[examples] for s in sigmas)),
        )

    def rows(self, seed: int, copies: range, with_clean: bool) -> tuple[Tensor, ...]:
        """The inputs of one pass: for every example the clean row (where asked for) and its noisy samples."""
        sigmas = self.noise.sigmas if self.noise else (None,) * len(self.inputs)
        return tuple(
            noisy_rows(x, sigma, seed, index, copies, with_clean)
            for index, (x, sigma) in enumerate(zip(self.inputs, sigmas, strict=True))
        )

    def args(self, repeats: int) -> tuple[Any, ...]:
        """The additional arguments for rows in which every example stands `repeats` times."""
        return tuple(
            copies_of(arg, repeats) if per_example else arg
            for arg, per_example in zip(self.additional_args, self.per_example, strict=True)
        )
