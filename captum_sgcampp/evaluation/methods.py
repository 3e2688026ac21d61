"""The methods that are compared, and baselines without a model. Every map goes through the papers' ReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from captum.attr import LayerActivation, LayerGradCam, NoiseTunnel
from torch import Generator, Tensor, nn

from captum_sgcampp.attr.grad_cam_plus_plus import LayerGradCamPlusPlus
from captum_sgcampp.attr.smooth_grad_cam_plus_plus import LayerSmoothGradCamPlusPlus
from captum_sgcampp.functional.gradient_maps import hires_cam_terms, layer_cam_terms, without_relu_terms
from captum_sgcampp.scores.classes import LogOdds
from captum_sgcampp.vision.gradient_maps import Terms, gradient_maps

# From the model, the layer, one input (1, C, H, W), the class and a seed to a map (1, 1, h, w).
Explain: TypeAlias = Callable[[nn.Module, nn.Module, Tensor, int, int], Tensor]
TUNNEL_ROWS = 8  # noisy samples in one pass of NoiseTunnel


@dataclass(frozen=True)
class Method:
    """A method with its settings, which are part of its name."""

    name: str
    explain: Explain


def _grad_cam(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    maps: Tensor = LayerGradCam(model, layer).attribute(inputs, target, relu_attributions=True)
    return maps


def _grad_cam_plus_plus(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int, two_sided: bool = False
) -> Tensor:
    maps: Tensor = LayerGradCamPlusPlus(model, layer).attribute(
        inputs, target, relu_attributions=True, two_sided=two_sided
    )
    return maps


def _of_gradient(terms: Terms, model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """A method that needs no more than the activation and the gradient."""
    ((maps,),) = gradient_maps(model, [layer], inputs, [target], terms=terms, relu_attributions=True)
    return maps


def _top_feature_map(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """Grad-CAM++ of the one feature map with the largest weight."""
    method = LayerGradCamPlusPlus(model, layer)
    index = int(method.top_feature_maps(inputs, target, k=1).indices)
    maps: Tensor = method.attribute(inputs, target, relu_attributions=True, feature_maps=index)
    return maps


def _smooth(
    n: int,
    noise_level: float,
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: int,
    seed: int,
    two_sided: bool = False,
) -> Tensor:
    maps: Tensor = LayerSmoothGradCamPlusPlus(model, layer).attribute(
        inputs,
        target,
        relu_attributions=True,
        nt_samples=n,
        noise_level=noise_level,
        generator=Generator().manual_seed(seed),
        two_sided=two_sided,
    )
    return maps


def _noise_tunnel(
    attribution: type[LayerGradCam] | type[LayerGradCamPlusPlus],
    n: int,
    noise_level: float,
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: int,
    seed: int,
) -> Tensor:
    """Mean of the finished maps of noisy samples. Their noise comes from the global random state."""
    sigma = noise_level * float(inputs.max() - inputs.min())
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        torch.manual_seed(seed)
        maps: Tensor = NoiseTunnel(attribution(model, layer)).attribute(
            inputs,
            nt_samples=n,
            nt_samples_batch_size=min(n, TUNNEL_ROWS),
            stdevs=sigma,
            target=target,
            relu_attributions=True,
        )
    return maps.detach()


def _of_log_odds(
    explain: Explain, model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int
) -> Tensor:
    """The method with the log-odds of the class as the score: what speaks for it and not for any other."""
    return explain(LogOdds(model).eval(), layer, inputs, target, seed)


def _smooth_of_log_odds(n: int, noise_level: float, *arguments: Any) -> Tensor:
    return _of_log_odds(partial(_smooth, n, noise_level, two_sided=True), *arguments)


def _uniform(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """One value everywhere: what a measure gives for area alone."""
    return torch.ones(1, 1, *inputs.shape[2:]).to(inputs)


def _random(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """Uniform values at every position of the layer."""
    return torch.rand(_map_shape(model, layer, inputs), generator=Generator().manual_seed(seed)).to(inputs)


def _center_gaussian(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """A Gaussian at the image's center, sigma a quarter of its side: what photographers favor."""
    height, width = inputs.shape[2:]
    ys, xs = torch.linspace(-2, 2, height)[:, None], torch.linspace(-2, 2, width)
    return torch.exp(-(ys**2 + xs**2) / 2)[None, None].to(inputs)


def _edges(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int, seed: int) -> Tensor:
    """Absolute differences of neighboring pixels, summed over the channels: an edge detector."""
    down, right = inputs.diff(dim=2, append=inputs[:, :, -1:]), inputs.diff(dim=3, append=inputs[..., -1:])
    return (down.abs() + right.abs()).sum(1, keepdim=True)


def _map_shape(model: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    with torch.no_grad():
        activation = LayerActivation(model, layer).attribute(inputs)
    return 1, 1, *activation.shape[2:]


PLAIN: dict[str, Explain] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "two-sided-grad-cam++": partial(_grad_cam_plus_plus, two_sided=True),
    "grad-cam++-without-relu": partial(_of_gradient, without_relu_terms),
    "hires-cam": partial(_of_gradient, hires_cam_terms),
    "layer-cam": partial(_of_gradient, layer_cam_terms),
    "top-feature-map": _top_feature_map,
    "uniform": _uniform,
    "random": _random,
    "center-gaussian": _center_gaussian,
    "edges": _edges,
}
NOISY: dict[str, Callable[..., Tensor]] = {
    "smooth-grad-cam++": _smooth,
    "two-sided-smooth-grad-cam++": partial(_smooth, two_sided=True),
    "noise-tunnel-grad-cam": partial(_noise_tunnel, LayerGradCam),
    "noise-tunnel-grad-cam++": partial(_noise_tunnel, LayerGradCamPlusPlus),
}
LOG_ODDS = "log-odds-"  # before the names of the methods that explain them
PLAIN |= {
    LOG_ODDS + name: partial(_of_log_odds, PLAIN[name])
    for name in ("grad-cam", "grad-cam++", "two-sided-grad-cam++", "hires-cam")
}
NOISY[f"{LOG_ODDS}two-sided-smooth-grad-cam++"] = _smooth_of_log_odds
METHODS = (*PLAIN, *NOISY)


def chosen_methods(names: Sequence[str], nt_samples: Sequence[int], noise_levels: Sequence[float]) -> list[Method]:
    """The methods by their names. Those with noise come once for every number of samples and noise level."""
    methods: list[Method] = []
    for name in dict.fromkeys(names):
        if name in PLAIN:
            methods.append(Method(name, PLAIN[name]))
        else:
            settings = [(n, level) for n in dict.fromkeys(nt_samples) for level in dict.fromkeys(noise_levels)]
            methods += [Method(f"{name} n={n} s={level:g}", partial(NOISY[name], n, level)) for n, level in settings]
    return methods
