"""Each package on the same example, network and noise: its map before any scaling to [0, 1], after the final ReLU.

torchcam and NoiseTunnel draw their noise themselves; what they draw from is replaced, so that their copies are the
ones that captum_sgcampp drew.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from captum.attr import LayerGradCam, NoiseTunnel
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Generator, Tensor, nn
from torchcam.methods import GradCAMpp, SmoothGradCAMpp

from captum_sgcampp import LayerGradCamPlusPlus, LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.noise import draw_seed, relative_sigma, standard_noise


@dataclass(frozen=True)
class Case:
    """A network, one of its layers, an example and its noise.

    Attributes:
        model: in evaluation mode, float32.
        layer_name: which layer.
        clean: the example, `(1, C, H, W)`.
        target: class index.
        noise: what is added to make the copies, `(n, C, H, W)`.
        seed: of that noise in captum_sgcampp.
        noise_level: sigma as a fraction of the example's range.
    """

    model: nn.Module
    layer_name: str
    clean: Tensor
    target: int
    noise: Tensor
    seed: int
    noise_level: float

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        return self.model.get_submodule(self.layer_name)

    @property
    def copies(self) -> Tensor:
        """The noisy copies, `(n, C, H, W)`."""
        return self.clean + self.noise

    def in_float64(self) -> Case:
        """The same with a float64 copy of the network."""
        model = copy.deepcopy(self.model).double()
        return replace(self, model=model, clean=self.clean.double(), noise=self.noise.double())


def make_case(
    model: nn.Module, layer_name: str, clean: Tensor, target: int, *, n: int, noise_level: float, seed: int
) -> Case:
    """The case with the noise that `LayerSmoothGradCamPlusPlus` draws from a generator of this seed."""
    stream = draw_seed(Generator().manual_seed(seed))
    sigma = relative_sigma(clean, noise_level)
    noise = torch.stack([sigma[0] * standard_noise(stream, m, 0, like=clean) for m in range(n)])
    return Case(model, layer_name, clean, target, noise, seed, noise_level)


def ours(case: Case) -> Tensor:
    """`LayerGradCamPlusPlus`."""
    method = LayerGradCamPlusPlus(case.model, case.layer)
    return method.attribute(case.clean, case.target, relu_attributions=True)[0, 0]


def ours_smooth(case: Case) -> Tensor:
    """`LayerSmoothGradCamPlusPlus`, which draws its own noise; in float64, where it would draw another, it is given."""
    method = LayerSmoothGradCamPlusPlus(case.model, case.layer)
    with _given_noise(case) if case.clean.dtype == torch.float64 else nullcontext():
        return method.attribute(
            case.clean,
            case.target,
            relu_attributions=True,
            nt_samples=len(case.noise),
            noise_level=case.noise_level,
            generator=Generator().manual_seed(case.seed),
        )[0, 0]


def _given_noise(case: Case) -> Any:
    sigma = relative_sigma(case.clean, case.noise_level)[0]

    def given(seed: int, copy: int, input_index: int, like: Tensor) -> Tensor:
        return case.noise[copy] / sigma

    return patch("captum_sgcampp.functional.noise.standard_noise", given)


def torchcam(case: Case) -> Tensor:
    """torchcam's `GradCAMpp`."""
    with GradCAMpp(case.model, target_layer=case.layer_name) as extractor:
        return extractor(case.target, case.model(case.clean), normalized=False)[0][0]


class _Replay:
    """Stands for torchcam's `Normal` distribution: gives the rows of `noise` in turn."""

    def __init__(self, noise: Tensor) -> None:
        self._rows = iter(noise)

    def sample(self, size: Any) -> Tensor:
        return next(self._rows).reshape(size)


def torchcam_smooth(case: Case) -> Tensor:
    """torchcam's `SmoothGradCAMpp` on the given noise."""
    with SmoothGradCAMpp(case.model, target_layer=case.layer_name, num_samples=len(case.noise)) as extractor:
        extractor._distrib = _Replay(case.noise)
        case.model(case.clean)
        return extractor(case.target, normalized=False)[0][0]


def grad_cam(case: Case) -> Tensor:
    """grad-cam's `GradCAMPlusPlus`, before it scales the map to [0, 1] and to the size of the input."""
    with GradCAMPlusPlus(case.model, [case.layer]) as method:
        method(case.clean, [ClassifierOutputTarget(case.target)])
        seen = method.activations_and_grads
        values = [tensors[0].numpy() for tensors in (seen.activations, seen.gradients)]
        found = method.get_cam_image(case.clean, case.layer, [], *values)
    case.model.zero_grad(set_to_none=True)  # it leaves gradients in the parameters
    return torch.from_numpy(found)[0].relu()


def noise_tunnel_grad_cam(case: Case) -> Tensor:
    """`NoiseTunnel(LayerGradCam)` on the given noise."""
    return _noise_tunnel(LayerGradCam(case.model, case.layer), case)


def noise_tunnel_plus_plus(case: Case) -> Tensor:
    """`NoiseTunnel(LayerGradCamPlusPlus)` on the given noise."""
    return _noise_tunnel(LayerGradCamPlusPlus(case.model, case.layer), case)


def _noise_tunnel(method: Any, case: Case) -> Tensor:
    with patch.object(torch, "normal", lambda mean, std: case.noise):
        maps = NoiseTunnel(method).attribute(
            case.clean, nt_samples=len(case.noise), target=case.target, relu_attributions=True
        )
    return maps[0, 0].detach()
