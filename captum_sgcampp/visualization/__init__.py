"""Pictures of maps: over images, along clips, in volumes, on signals.

Figures are matplotlib's own, unknown to pyplot: there is nothing to close.
"""

from captum_sgcampp.visualization.arrays import Picture, upsampled
from captum_sgcampp.visualization.clips import save_clip, show_clip
from captum_sgcampp.visualization.colors import Colors, draw_color_bar
from captum_sgcampp.visualization.images import (
    compare_maps,
    draw_map,
    show_feature_maps,
    show_neurons,
    show_product,
)
from captum_sgcampp.visualization.panels import draw_box, draw_outline, draw_title
from captum_sgcampp.visualization.signals import show_signal
from captum_sgcampp.visualization.volumes import show_volume

__all__ = [
    "Colors",
    "Picture",
    "compare_maps",
    "draw_box",
    "draw_color_bar",
    "draw_map",
    "draw_outline",
    "draw_title",
    "save_clip",
    "show_clip",
    "show_feature_maps",
    "show_neurons",
    "show_product",
    "show_signal",
    "show_volume",
    "upsampled",
]
