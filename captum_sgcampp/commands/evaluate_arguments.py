"""The arguments of the command `evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from captum_sgcampp.commands.arguments import (
    EXIT_STATUS,
    add_model_arguments,
    add_white_argument,
    count,
    level,
    positive,
    whole,
)
from captum_sgcampp.commands.choices import BASELINES, EVALUATE_METHODS, METRICS

DESCRIPTION = """\
Measure methods on many images: means with bootstrap intervals and paired tests, as a table, CSV and a figure.

Without arguments it measures on fresh scenes of the bundled generator, whose objects are known. With a folder, on its
images. A run that was stopped, by whatever, goes on with the same command, and several runners on one folder share the
work. An image that cannot be measured is left out, and the table says why.
"""
EPILOG = f"""\
{EXIT_STATUS}

examples:
  captum-sgcampp evaluate --scenes 50 --out scenes
  captum-sgcampp evaluate photos --model mobilenet_v2 --layers features.18 features.14.conv.0 --out photos-mobilenet
  captum-sgcampp evaluate photos --model-factory my_models.py:load=mobilenet_v2 --target-from-name --out mine
"""
DEFAULT_METHODS = ("grad-cam", "grad-cam++", "smooth-grad-cam++", "random", "center-gaussian")


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "evaluate", help="measure methods on many images", description=DESCRIPTION, epilog=EPILOG
    )
    _add_case_arguments(parser)
    _add_method_arguments(parser)
    _add_metric_arguments(parser)
    _add_run_arguments(parser)


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER", help="folder of images (default: bundled scenes)")
    add("--scenes", type=count, default=100, metavar="N", help="bundled scenes (default: 100)")
    add("--limit", type=count, metavar="N", help="only the first images of the folder")
    add("--masks", type=Path, metavar="FOLDER", help="masks as PNG by the images' stems, not black where the object is")
    add(
        "--boxes",
        type=Path,
        metavar="FILE",
        help='JSON with the images to measure, the class and the boxes of each: {"cat.jpg": {"target": 281, "boxes": '
        "[[10, 20, 90, 80]]}}",
    )
    add(
        "--target-from-name",
        action="store_true",
        help="a file's stem is its class number (default: the most probable class)",
    )
    add_model_arguments(parser)
    add_white_argument(parser)
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the model in torch's memory format channels_last, which is faster on CPUs and changes the last bits "
        "(default: yes, as the tables in tutorials/results were made)",
    )


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layers", nargs="+", metavar="NAME", help="modules to explain (default: the deepest one)")
    add(
        "--methods",
        nargs="+",
        choices=EVALUATE_METHODS,
        default=list(DEFAULT_METHODS),
        metavar="NAME",
        help=f"among {', '.join(EVALUATE_METHODS)} (default: {', '.join(DEFAULT_METHODS)})",
    )
    add("--reference", metavar="NAME", help="method that the others are tested against (default: the first)")
    add("--nt-samples", nargs="+", type=count, default=[8], metavar="N", help="noisy samples (default: 8)")
    add("--noise-level", nargs="+", type=positive, default=[0.15], metavar="F", help="sigma / range (default: 0.15)")
    add(
        "--seed",
        type=whole(0, 999),
        default=0,
        metavar="S",
        help="of noise, scenes, mosaics, parameters (default: 0)",
    )


def _add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=list(METRICS),
        metavar="NAME",
        help=f"among {', '.join(METRICS)}",
    )
    add("--steps", type=count, metavar="N", help="steps of deletion and insertion (default: 16)")
    add("--deletion-baseline", choices=BASELINES, help="default: zero, the mean color")
    add("--insertion-baseline", choices=BASELINES, help="default: blur")
    add("--window", type=count, metavar="N", help="side of the occluded square (default: 64; scenes: 32)")
    add("--stride", type=count, metavar="N", help="stride of the occlusion (default: 32; scenes: 16)")
    add("--tolerance", type=level, metavar="N", help="pixels, for the pointing game (default: 0)")
    add(
        "--grid-size",
        choices=("auto", "full", "half"),
        default="auto",
        help="mosaics of twice the image's side, or of its own; auto: full where the model takes it",
    )
    add("--randomization-steps", type=count, metavar="N", help="randomized copies of the model (default: 3)")
    add("--batch-size", type=count, metavar="N", help="rows of a forward pass (default: 4 on the CPU, else 32)")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--strict", action="store_true", help="stop at an image that cannot be measured")
    add("--workers", type=count, default=1, metavar="N", help="processes on this machine (default: 1)")
    add(
        "--threads",
        type=count,
        metavar="N",
        help="threads of each process, which the last bits depend on (default: torch's own, shared by the workers)",
    )
    add("--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="results (default: evaluation)")
