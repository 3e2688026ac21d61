"""A network and pictures to try the explanations on, offline.

Scenes of colored shapes are drawn from a seed. A small VGG-style classifier of them has its weights in the package.
How they were trained, and how to train them again: `tutorials/bundled_network`.
"""

from captum_sgcampp.bundled.network import ShapesVGG, load_shapes_vgg, preprocess
from captum_sgcampp.bundled.scenes import CLASSES, Scene, draw_scene, draw_scenes

__all__ = ["CLASSES", "Scene", "ShapesVGG", "draw_scene", "draw_scenes", "load_shapes_vgg", "preprocess"]
