"""Smooth Grad-CAM++ as a Captum layer attribution."""

from __future__ import annotations

from typing import Any, Literal

from torch import Generator

from captum_sgcampp.attr.layer_method import LayerCamPlusPlus, named_arguments
from captum_sgcampp.attr.options import DerivativesOf, MapArguments, NoiseArguments, Score
from captum_sgcampp.attr.results import Attributions, Statistics, TensorOrTuple
from captum_sgcampp.captum_internals import TargetType, log_usage
from captum_sgcampp.functional.selection import FeatureMaps, Neurons


class LayerSmoothGradCamPlusPlus(LayerCamPlusPlus):
    r"""
    Computes Smooth Grad-CAM++ attribution for a chosen layer: Grad-CAM++ (see `LayerGradCamPlusPlus`) whose first,
    second and third derivatives are averages over noisy samples, inside the formula.

    With `n` noisy samples `x_m = x + eps_m`, `eps_m ~ N(0, sigma^2)`, logits `S_m`, gradients `g_m`, and the activation
    `A` of the clean input:

        e_m   = exp(S_m) / mean_j exp(S_j)
        D_p   = mean_m e_m g_m^p,  p = 1, 2, 3
        alpha = D_2 / (2 D_2 + D_3 * sum_ab A_ab)
        w_k   = sum_ij alpha_kij * relu(D_1)_kij
        L_ij  = sum_k w_k A_kij

    This differs from `captum.attr.NoiseTunnel` around Grad-CAM++, which averages finished maps.

    Where only global average pooling and a linear score follow the layer (ResNet's `layer4`), the noisy derivatives are
    a common multiple of the clean ones. There the map equals Grad-CAM++ up to a positive factor, whatever the noise.
    The smoothing acts at inner layers and before fully connected heads (VGG).

    After averaging, alpha can have poles: positions where its denominator is near 0 and alpha leaves [0, 1/2].
    `return_statistics=True` tells how much of the weight comes from them. `two_sided=True` has none:

        alpha = |D_2| / (2 |D_2| + |D_3| * |sum_ab A_ab|)
        w_k   = sum_ij alpha_kij * D_1_kij

    Where both signs cancel, such a map needs more noisy samples for the same standard error.

    One explanation runs at a time in a process, so threads do not make it faster. Processes do, as in
    `captum-sgcampp attribute --workers`.

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
        score: Score = "exp",
        derivatives: DerivativesOf = "closed_form",
        bound_alpha: bool = False,
        two_sided: bool = False,
    ) -> Attributions | tuple[Attributions, Statistics]:
        r"""
        Args:

            inputs, target, additional_forward_args, attribute_to_layer_input, relu_attributions,
            attr_dim_summation, grad_kwargs, feature_maps, neurons, score, derivatives, bound_alpha, two_sided:
                        as in `LayerGradCamPlusPlus.attribute`.
            nt_samples (int or "auto", optional): Number of noisy samples of each example. `"auto"` adds samples to
                        each example until the standard error of its map is within `tolerance` and the effective
                        sample size is at least 2: a standard error that hangs on one sample is no estimate. Where the
                        samples agree to a thirtieth of the tolerance, they need not be so many.
                        Default: 25
            nt_samples_batch_size (int, optional): How many samples of each example one forward
                        pass gets: at most `N * nt_samples_batch_size` rows. It does not change the noise, and the
                        map only by rounding.
                        Default: None, bounded by memory, and halved where the device runs out
            stdevs (float or tuple of float, optional): Standard deviation of the noise in
                        units of the input, one for all inputs or one for each. 0 leaves an input alone; 0 for
                        all inputs is exactly Grad-CAM++.
                        Default: None, `noise_level` is used
            noise_level (float or tuple of float, optional): Standard deviation as a fraction of
                        each example's own range (max - min), as in SmoothGrad. One for all inputs or one for each.
                        Default: 0.15
            generator (torch.Generator, optional): Source of one seed, from which every sample gets its own stream of
                        noise. All examples of the batch share these streams.
                        Default: None, the global CPU generator
            show_progress (bool, optional): Whether to show a progress bar over the samples.
                        Default: False
            return_statistics (bool, optional): Whether to return `(attributions, statistics)`,
                        the latter a `SamplingStatistics` (a tuple of them for a layer of several tensors).
                        Default: False
            tolerance (float, optional): For `nt_samples="auto"`: standard error of the map divided by its L2
                        norm, estimated from the samples by a jackknife.
                        Default: 0.03
            max_nt_samples (int, optional): For `nt_samples="auto"`: the most samples of an example, at least 4.
                        Default: 64

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, or 2-element tuple of **attributions**,
            **statistics**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        The map `(N, 1, *space)`, as `LayerGradCamPlusPlus.attribute` returns it.
            - **statistics** (*SamplingStatistics*, if return_statistics=True):
                        Per example: samples used, effective sample size, standard error of the map, share of poles.

        Raises:
            TypeError, ValueError, RuntimeError: as in `LayerGradCamPlusPlus.attribute`. The generator keeps its state.

        Examples::

            >>> layer_gc = LayerSmoothGradCamPlusPlus(net, net.conv)
            >>> seed = torch.Generator().manual_seed(0)
            >>> attr, statistics = layer_gc.attribute(
            ...     images, target=3, nt_samples=8, noise_level=0.1, generator=seed, return_statistics=True
            ... )
            >>> attr.shape, statistics.nt_samples
            (torch.Size([2, 1, 16, 16]), tensor([8, 8]))
        """
        arguments = MapArguments(
            additional_forward_args,
            attribute_to_layer_input,
            relu_attributions,
            attr_dim_summation,
            grad_kwargs,
            feature_maps,
            neurons,
            score,
            derivatives,
            bound_alpha,
            two_sided,
        )
        noise = NoiseArguments(
            nt_samples,
            nt_samples_batch_size,
            stdevs,
            noise_level,
            generator,
            show_progress,
            return_statistics,
            tolerance,
            max_nt_samples,
        )
        layers = self._explain(inputs, (target,), arguments, noise)[0]
        return (
            (self._attributions(layers), self._statistics(layers)) if return_statistics else self._attributions(layers)
        )

    def _arguments(self, attribute_arguments: dict[str, Any]) -> tuple[MapArguments, NoiseArguments]:
        arguments, noise = named_arguments([MapArguments, NoiseArguments], attribute_arguments)
        return arguments, noise
