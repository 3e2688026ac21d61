"""What the network said of one class at one layer. From this every map is made without running the network again.

Noisy samples are taken one row at a time. So the sums depend on their number only, and not on the steps in which it was
raised: the bits are those of one call of `attribute` with `nt_samples_batch_size=1`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from captum_sgcampp.attr.guided_grad_cam_plus_plus import guided_gradients
from captum_sgcampp.attr.options import MapArguments, NoiseArguments, make_request
from captum_sgcampp.demo.networks import Network
from captum_sgcampp.functional.noise import draw_seed
from captum_sgcampp.functional.sampling_statistics import standard_error
from captum_sgcampp.model.forward_pass import ForwardPass
from captum_sgcampp.model.model_access import exclusive_access
from captum_sgcampp.sampling.convergence import checkpoints, is_sure
from captum_sgcampp.sampling.sampler import LayerSample, Sampler, sample_layers
from captum_sgcampp.vision.layer_choice import ListedLayer

MOST_SAMPLES, TOLERANCE = 64, 0.03  # those of nt_samples="auto"


class KeptSamples:
    """The clean gradients, guided backpropagation, and the sums over the noisy samples so far.

    Args:
        network: that is explained.
        layer: of it.
        inputs: `(1, C, H, W)`.
        target: class index.
        noise_level: as in `LayerSmoothGradCamPlusPlus.attribute`.
        seed: of the noise.

    Attributes:
        clean: activation and gradients of the picture itself.
        count: noisy samples so far.
    """

    def __init__(
        self, network: Network, layer: ListedLayer, inputs: Tensor, target: int, noise_level: float, seed: int
    ) -> None:
        model = network.classifier.model
        forward_pass = ForwardPass(model, [layer.module], None, False, layer.layer.reshape_transform)
        noise = NoiseArguments(
            nt_samples=MOST_SAMPLES, nt_samples_batch_size=1, noise_level=noise_level, return_statistics=True
        )
        with exclusive_access():
            self.clean = _one(sample_layers(forward_pass, make_request(inputs, (target,), MapArguments(), None)))
            self._guided = _guided_or_error(model, inputs, target)
            request = make_request(inputs, (target,), MapArguments(), noise)
            self._sampler = Sampler(forward_pass, request, draw_seed(Generator().manual_seed(seed)))
        self.count = 0

    @property
    def guided(self) -> Tensor:
        """Guided backpropagation, `(1, C, H, W)`.

        Raises:
            RuntimeError: it fails for this network. The other methods can do without.
        """
        if isinstance(self._guided, RuntimeError):
            raise self._guided
        return self._guided

    def add_one(self) -> None:
        """Take the next noisy sample.

        Raises:
            RuntimeError: scores that are not finite.
        """
        with exclusive_access():
            self._sampler.add(range(self.count, self.count + 1))
            self._sampler.finish()
        self.count += 1

    def noisy(self) -> LayerSample:
        """The sums over all samples so far, as one call with that number makes them.

        Raises:
            ValueError: none so far.
        """
        if self.count == 0:
            raise ValueError("n: expected at least one noisy sample, found none")
        sample = _one(self._sampler)
        groups = min(sample.moments.groups, self.count)  # as a call with so many samples has
        return replace(sample, moments=sample.moments.of_first_groups(groups))

    def is_sure(self) -> bool:
        """Whether `nt_samples="auto"` would stop here."""
        if self.count not in checkpoints(MOST_SAMPLES):
            return False
        sample = self.noisy()
        errors, sizes = [standard_error(sample.activation, sample.moments)], [sample.moments.effective_sample_size()]
        return self.count >= MOST_SAMPLES or bool(is_sure(errors, sizes, self.count, TOLERANCE).all())

    def bytes(self) -> int:
        """How much memory it keeps, about."""
        a = self.clean.activation
        return 4 * a.numel() * (3 * self._sampler.request.noise.groups + 8) if self._sampler.request.noise else 0


def _guided_or_error(model: nn.Module, inputs: Tensor, target: int) -> Tensor | RuntimeError:
    try:
        return guided_gradients(model, inputs, target, None)[0]
    except RuntimeError as error:
        return RuntimeError(f"methods: expected a network that guided backpropagation goes through, found {error}")


def _one(sampler: Sampler) -> LayerSample:
    if len(sampler.samples) != 1:
        raise ValueError(f"layer: expected a layer of one tensor, found {len(sampler.samples)}")
    return sampler.samples[0]


def all_finite(maps: Tensor) -> bool:
    """Whether there is neither NaN nor infinity."""
    return bool(torch.isfinite(maps).all())
