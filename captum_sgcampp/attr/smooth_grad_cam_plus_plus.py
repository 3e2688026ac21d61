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
        score: Score = "exp",
        derivatives: DerivativesOf = "closed_form",
        bound_alpha: bool = False,
    ) -> Attributions | tuple[Attributions, Statistics]:
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
