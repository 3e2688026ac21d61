"""Why the packages differ from the papers: the expressions, where they stand in the installed versions."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path


@dataclass(frozen=True)
class Reason:
    """Where a package departs from the papers: `expression` stands in `file` of the installed `distribution`."""

    title: str
    distribution: str
    file: str
    expression: str
    text: str


REASONS = (
    Reason(
        "torchcam, Grad-CAM++: alpha is not divided",
        "torchcam",
        "torchcam/methods/gradient.py",
        "alpha[idx][mask].div_(d[mask] + eps)",
        "Indexing with a mask makes a copy, and the division in place changes that copy, which nobody keeps. The "
        "weights are `sum(g^2 relu(g))`.",
    ),
    Reason(
        "torchcam, both methods: a sum of products",
        "torchcam",
        "torchcam/methods/gradient.py",
        "(g3 * act).flatten(2).sum(-1)",
        "In the denominator stands `sum_ab (A_ab g_ab^3)`; the papers have `g_ij^3 sum_ab A_ab`.",
    ),
    Reason(
        "torchcam, both methods: an epsilon",
        "torchcam",
        "torchcam/methods/gradient.py",
        "eps: float = 1e-8",
        "It is added to a denominator that is itself as small as `g^2`.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: the last gradient",
        "torchcam",
        "torchcam/methods/gradient.py",
        "return [a.mul_(torch.relu(grad)).flatten(2).sum(-1) for a, grad in zip(alpha, self.hook_g, strict=True)]",
        "`hook_g` holds the gradient of the last noisy copy when the loop is over; the paper has the mean of all.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: the last activation",
        "torchcam",
        "torchcam/methods/core.py",
        "activations = cast(list[Tensor], self.hook_a)",
        "`hook_a` is overwritten by every noisy copy, so the map is made of the activation of the last one; the clean "
        "one is kept for alpha only.",
    ),
    Reason(
        "torchcam, Smooth Grad-CAM++: copies count equally",
        "torchcam",
        "torchcam/methods/gradient.py",
        "grad_2 = [g2.add_(grad.pow(2)) for g2, grad in zip(grad_2, self.hook_g, strict=True)]",
        "The derivatives of `Y = exp(S)` are `exp(S) g^p`. The factor cancels for one copy; in a mean over copies with "
        "different scores it is a weight.",
    ),
    Reason(
        "grad-cam, Grad-CAM++: an epsilon",
        "grad-cam",
        "pytorch_grad_cam/grad_cam_plusplus.py",
        "eps = 0.000001",
        "It is added to `2 g^2 + g^3 sum(A)`, which is smaller than that at many positions of ImageNet networks. Where "
        "it prevails, the weights are in proportion to `g^2 relu(g)`.",
    ),
    Reason(
        "Captum, NoiseTunnel: finished maps are averaged",
        "captum",
        "captum/attr/_core/noise_tunnel.py",
        "cast(Tensor, sum_attribution) * 1 / nt_samples",
        "This is SmoothGrad, and right as such. Smooth Grad-CAM++ averages the derivatives inside the formula, and "
        "takes the clean activation.",
    ),
)


def quoted(reason: Reason) -> str:
    """The reason with the place of its expression in the installed version."""
    path = Path(str(distribution(reason.distribution).locate_file(reason.file)))
    lines = [count for count, line in enumerate(path.read_text("utf-8").splitlines(), 1) if reason.expression in line]
    where = f"lines {', '.join(map(str, lines))}" if len(lines) > 1 else f"line {lines[0]}" if lines else "not found"
    found = f"{reason.distribution} {version(reason.distribution)}, `{reason.file}`, {where}"
    return f"**{reason.title}** ({found})\n\n```python\n{reason.expression}\n```\n\n{reason.text}\n"
