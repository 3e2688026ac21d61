"""The arguments of the command `explain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from captum_sgcampp.commands.arguments import (
    EXIT_STATUS,
    add_model_arguments,
    add_white_argument,
    box,
    colormap,
    count_or_auto,
    feature_map,
    level,
    neurons,
    target,
    whole,
)
from captum_sgcampp.commands.choices import DEFAULT_METHODS, EXPLAIN_METHODS, FILE_KINDS

DESCRIPTION = """\
Explain what an image classifier sees: the image, Grad-CAM, Grad-CAM++ and Smooth Grad-CAM++ side by side.

Without arguments it explains a scene of the bundled generator with the bundled network (eight classes of shapes).
With --model it explains your images with a classification network of torchvision.

The picture has a row for every image and class. More than 12 rows go into several pictures of 12 rows each:
explanation-01.png, explanation-02.png, ... Files that are there are kept, unless --overwrite is given. An image that
cannot be read is named, the others are explained, and the exit status is 3.

A clip (.gif with --kind clip, .npy), a volume (.nii, .nii.gz, .npy) or a signal (.wav, .npy) needs --model-factory and
--layer. The function returns a captum_sgcampp.vision.classifiers.Classifier whose `prepare` turns a
captum_sgcampp.vision.recordings.Recording into the input of the model. There is a picture for every class and method;
clips give a GIF beside it. --save-maps writes maps of a NIfTI volume as .nii.gz, too, with the place of the volume.
"""

EPILOG = f"""\
{EXIT_STATUS}

examples:
  captum-sgcampp explain
  captum-sgcampp explain cat.jpg dog.png --model squeezenet1_1 --weights squeezenet.safetensors --target top:2
  captum-sgcampp explain --target star --feature-maps top:3 --out star.png
  captum-sgcampp explain brain.nii.gz --model-factory mine.py:load --layer features.8 --target tumor --save-maps maps
  captum-sgcampp explain cat.jpg --model resnet50 --layer layer3 --box 60,40,160,140
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("explain", help="explain images", description=DESCRIPTION, epilog=EPILOG)
    _add_model_arguments(parser)
    _add_method_arguments(parser)
    _add_selection_arguments(parser)
    _add_output_arguments(parser)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files (default: a bundled scene)")
    parser.add_argument(
        "--kind",
        choices=FILE_KINDS,
        help="what the files are (default: .nii and .nii.gz volumes, .wav signals, all others images)",
    )
    add_model_arguments(parser)
    add_white_argument(parser)
    parser.add_argument(
        "--layer", metavar="NAME", help="module to explain, as layer4 or features.9 (default: the deepest one)"
    )
    parser.add_argument(
        "--list-layers", action="store_true", help="print the layers that can be explained, and do nothing else"
    )
    parser.add_argument(
        "--target",
        nargs="+",
        type=target,
        metavar="CLASS",
        help="class numbers or names, or top or top:K for the most probable (default: top)",
    )


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--method",
        nargs="+",
        choices=EXPLAIN_METHODS,
        default=list(DEFAULT_METHODS),
        metavar="NAME",
        help=f"among {', '.join(EXPLAIN_METHODS)} (default: the first three)",
    )
    add(
        "--nt-samples",
        type=count_or_auto,
        default=25,
        metavar="N",
        help="noisy samples, or auto: as many as it takes (default: 25)",
    )
    add("--noise-level", type=level, default=0.15, metavar="F", help="sigma as a share of the range (default: 0.15)")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="S", help="seed of the noise and scene (default: 0)")


def _add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--feature-maps",
        nargs="+",
        type=feature_map,
        metavar="K",
        help="only these feature maps: numbers, or top:K by weight",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--neurons", type=neurons, metavar="R0:R1,C0:C1", help="only these rows and columns of the layer"
    )
    place.add_argument(
        "--box",
        type=box,
        metavar="X0,Y0,X1,Y1",
        help="only this box, in pixels of the image file, turned upright; the part that the model sees counts",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    default = Path("explanation.png")
    add("--out", type=Path, default=default, metavar="FILE", help=f"picture (default: {default})")
    add("--cmap", type=colormap, default="jet", metavar="NAME", help="color map of matplotlib (default: jet)")
    add("--save-maps", type=Path, metavar="FOLDER", help="also write every map as a .npy file into this folder")
    add("--overwrite", action="store_true", help="replace files that are there")
