"""The methods that a page shows side by side: those of `vision.methods`, and the guided ones."""

from __future__ import annotations

from captum_sgcampp.vision.methods import METHODS, is_smooth, is_two_sided

GUIDED = "guided-"
# Their titles.
SHOWN = {
    **{name: METHODS[name] for name in ("grad-cam", "grad-cam++", "smooth-grad-cam++")},
    "guided-grad-cam++": "Guided Grad-CAM++",
    "guided-smooth-grad-cam++": "Guided Smooth Grad-CAM++",
    **{name: METHODS[name] for name in ("two-sided-grad-cam++", "two-sided-smooth-grad-cam++")},
}
DEFAULT = ("grad-cam", "grad-cam++", "smooth-grad-cam++")


def is_guided(method: str) -> bool:
    """Whether the map is multiplied by guided backpropagation."""
    return method.startswith(GUIDED)


def takes_noise(method: str) -> bool:
    """Whether it takes noisy samples."""
    return is_smooth(method.removeprefix(GUIDED))


def counts_both_signs(method: str) -> bool:
    """Whether the weights come from gradients of both signs."""
    return is_two_sided(method)
