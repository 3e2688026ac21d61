r"""
A network and pictures to try the explanations on, offline: scenes of coloured shapes that are
drawn from a seed, and a small VGG-style classifier of them whose weights are part of the package.
Its training and its evaluation are part of the package, too::

    python -m captum_sgcampp.bundled.train --seed 0 --out shapes_vgg.safetensors
    python -m captum_sgcampp.bundled.evaluate
"""

from captum_sgcampp.bundled.network import ShapesVGG, load_shapes_vgg, preprocess
from captum_sgcampp.bundled.scenes import CLASSES, Scene, draw_scene, draw_scenes

__all__ = ["CLASSES", "Scene", "ShapesVGG", "draw_scene", "draw_scenes", "load_shapes_vgg", "preprocess"]
