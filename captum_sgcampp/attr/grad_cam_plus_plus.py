"""Grad-CAM++ as a Captum layer attribution."""

from __future__ import annotations

from typing import Any

from captum_sgcampp.attr.layer_method import LayerCamPlusPlus, named_arguments
from captum_sgcampp.attr.options import DerivativesOf, MapArguments, Score
from captum_sgcampp.attr.results import Attributions, TensorOrTuple
from captum_sgcampp.captum_internals import TargetType, log_usage
from captum_sgcampp.functional.selection import FeatureMaps, Neurons


class LayerGradCamPlusPlus(LayerCamPlusPlus):
    r"""
    Computes Grad-CAM++ attribution for a chosen layer. It replaces `captum.attr.LayerGradCam`: the constructor and the
    positional arguments of `attribute` are the same.

    Grad-CAM++ weights each feature map by a weighted sum of its positive gradients. The coefficients are chosen such
    that several occurrences of a class count. With the score `Y = exp(S)` of a logit `S`, `g = dS/dA` and the layer's
    activation `A`:

        alpha = g^2 / (2 g^2 + g^3 * sum_ab A_ab)
        w_k   = sum_ij alpha_kij * relu(g)_kij
        L_ij  = sum_k w_k A_kij

    where the constant factor `exp(S)` is left out. The gradient is the total derivative with respect to what the layer
    returned, as in Captum. This closed form is exact where the network after the layer is piecewise linear (ReLU,
    max-pooling, convolutions, linear layers). Elsewhere it approximates `derivatives="exact"`.

    The ReLU on the gradient leaves out what speaks against the class, and with it much of what tells classes apart.
    `two_sided=True` takes both signs. The derivation of alpha (eq 19) has no ReLU either, but that alpha has a pole at
    `g * sum A = -2`. With magnitudes it has none, and lies in [0, 1/2]:

        alpha = 1 / (2 + |g| * |sum_ab A_ab|)
        w_k   = sum_ij alpha_kij * g_kij

    where alpha is 0 at `g = 0`. For `A >= 0` these are the paper's weights for the score `S` less those for `-S`. (The
    paper's table 7 drops the ReLU with the literal alpha, poles included.) Other score functions and noisy samples
    have `alpha = |D_2| / (2 |D_2| + |D_3| * |sum_ab A_ab|)`, `D_p` being the p-th derivative. Where only global average
    pooling and a linear score follow the layer, it is Grad-CAM but for a factor of each feature map: what a feature
    map adds to the score, `c`, becomes `c / (1 + |c| / 2)`.

    As in Captum's `LayerGradCam`, the final ReLU of the papers is applied on request only (`relu_attributions=True`).
    Maps are in float32 (float64 for a float64 model), contiguous, and detached unless `create_graph` is set.

    Give the model's logits, not its probabilities. A model in training mode with batch normalization or dropout is
    refused, since its rows depend on each other or on chance.

    One explanation runs at a time in a process, so threads do not make it faster. Processes do, as in
    `captum-sgcampp attribute --workers`.

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
        score: Score = "exp",
        derivatives: DerivativesOf = "closed_form",
        bound_alpha: bool = False,
        two_sided: bool = False,
    ) -> Attributions:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions
                        are computed, examples along dimension 0. Several input
                        tensors of a model are given as a tuple. Values must be finite.
            target (int, tuple, Tensor, numpy array or list, optional): Output indices for
                        which gradients are computed, in any of Captum's formats:
                        an int (or a tensor with one) for all examples; a list, 1D tensor or
                        1D numpy array of ints, one per example; for outputs of more than 2 dimensions
                        a tuple of ints, or a list of one tuple per example.
                        None where the output has one value per example.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of forward_func, which
                        follow the inputs: one argument or a tuple of tensors and other objects. A tensor
                        with as many entries as there are examples has one entry per example, and is repeated for the
                        noisy samples (bind others with `functools.partial`).
                        Default: None
            attribute_to_layer_input (bool, optional): Whether to explain the layer's
                        inputs (its positional tensors) instead of its output.
                        Default: False
            relu_attributions (bool, optional): Whether to apply the papers' final ReLU.
                        Default: False
            attr_dim_summation (bool, optional): Whether to sum the weighted feature maps
                        over dimension 1; False gives each `w_k A_kij`.
                        Default: True
            grad_kwargs (Dict[str, Any], optional): `{"materialize_grads": True}` or
                        `{"allow_unused": True}` take the gradient of a layer that the score does
                        not depend on as zero. `{"create_graph": True}` gives maps that can be differentiated with
                        respect to the model's parameters and the inputs, for losses on maps. It keeps the graph of
                        all passes (closed form, a fixed number of samples, one device).
                        Default: None
            feature_maps (int, sequence of ints, slice or bool tensor, optional): Feature maps that
                        make the map: indices, or a bool tensor `(K,)`. A choice per example is a tensor of
                        indices `(N, k)`, as from `top_feature_maps`, or a bool tensor `(N, K)`.
                        Default: None, all
            neurons (tuple of slices, list of coordinates or bool tensor, optional): Positions that make the map:
                        `numpy.s_[2:5, 3:7]`, `[(2, 3), (4, 4)]`, a bool tensor of the
                        layer's spatial shape, or one that broadcasts to its activation. Weights are summed over them,
                        and the map is 0 elsewhere. `box_to_neurons` makes them from a box in input pixels.
                        Default: None, all
            score (str, Softmax or function, optional): Score function `Y`: `"exp"`, `"sigmoid"`, `"softmax"` or
                        `Softmax(classes=...)` (experimental; in closed form, one gradient per class). With exact
                        derivatives also `"identity"` (the logit) or a function from the selected scores `(rows,)`
                        to as many. With these two, the samples count equally.
                        Default: `"exp"`
            derivatives (str, optional): `"closed_form"` takes the powers of the gradient. They are the derivatives of
                        the score where the network after the layer is piecewise linear. `"exact"`
                        differentiates along every selected entry of the layer, whatever follows (SiLU, GELU,
                        attention, normalization). Each entry of each sample costs about ten forward passes of the
                        network after the layer. Before global average pooling, one entry per feature map is enough.
                        Where the network is found to be piecewise linear, nothing is added. Expects float32 or
                        float64, and refuses operations that PyTorch differentiates wrongly. `closed_form_error`
                        measures the difference for a model.
                        Default: `"closed_form"`
            bound_alpha (bool, optional): Whether to clamp alpha to [0, 1/2], where it lies for one sample with
                        `A >= 0` and `g > 0`.
                        Default: False, the papers' formula
            two_sided (bool, optional): Whether weights come from gradients of both signs, with an alpha that has no
                        poles (see the class). `bound_alpha` then changes nothing.
                        Default: False, the papers' formula

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        The map `(N, 1, *space)`: the layer's output shape with 1 in dimension 1. A tuple if the
                        layer's inputs / outputs are several tensors.

        Raises:
            TypeError, ValueError, RuntimeError: the message names the argument, what was expected and what was
                found. The model stays as it was.

        Examples::

            >>> # net: images (N, 3, 32, 32) to logits (N, 10); net.conv gives (N, 8, 16, 16).
            >>> layer_gc = LayerGradCamPlusPlus(net, net.conv)
            >>> attr = layer_gc.attribute(images, target=3, relu_attributions=True)
            >>> attr.shape
            torch.Size([2, 1, 16, 16])
            >>> upsampled = LayerAttribution.interpolate(attr, (32, 32), "bilinear")
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
        return self._attributions(self._explain(inputs, (target,), arguments)[0])

    def _arguments(self, attribute_arguments: dict[str, Any]) -> tuple[MapArguments, None]:
        (arguments,) = named_arguments([MapArguments], attribute_arguments)
        return arguments, None
