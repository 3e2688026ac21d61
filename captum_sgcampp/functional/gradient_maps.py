"""Maps of other methods, from one activation and one gradient: the terms whose sum over the feature maps is the map.

All take `A` and `g = dS/dA` at the clean input, `(N, K, *space)`, and give a tensor of that shape.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from captum_sgcampp.functional.class_map import alpha_coefficients
from captum_sgcampp.functional.tensors import per_row, sum_space, unit_scaled


def grad_cam_terms(activation: Tensor, gradient: Tensor) -> Tensor:
    """`w_k A_kij` with `w_k = mean_ij g_kij` (Selvaraju et al., arXiv 1610.02391)."""
    return sum_space(gradient) / max(activation[0, 0].numel(), 1) * activation


def hires_cam_terms(activation: Tensor, gradient: Tensor) -> Tensor:
    """`g_kij A_kij`: HiResCAM (Draelos and Carin, arXiv 2011.08891)."""
    return gradient * activation


def layer_cam_terms(activation: Tensor, gradient: Tensor) -> Tensor:
    """`relu(g_kij) A_kij`: LayerCAM (Jiang et al., IEEE Transactions on Image Processing 30, 2021)."""
    return relu(gradient) * activation


def without_relu_terms(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++ without the ReLU on the gradient, as the paper has it (eqs 29 and 30, table 7):

        alpha = g^2 / (2 g^2 + g^3 sum_ab A_ab)    (0 where the denominator is 0)
        w_k   = sum_ij alpha_kij g_kij

    At negative gradients this alpha has poles. The two-sided alpha has none (see `class_map`).
    """
    g, scale = unit_scaled(gradient)  # cubes of small gradients would vanish
    a = per_row(scale, activation) * activation
    return sum_space(alpha_coefficients(g**2, g**3, a) * g) * a
