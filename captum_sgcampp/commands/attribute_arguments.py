"""The arguments of the command `attribute`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from captum_sgcampp.commands.arguments import (
    EXIT_STATUS,
    add_model_arguments,
    add_white_argument,
    count,
    count_or_auto,
    level,
    whole,
)
from captum_sgcampp.commands.choices import EXPLAIN_METHODS

DESCRIPTION = """\
Explain a whole data set: a map of every image, as rows of Parquet files that other tools read.

A run that was stopped, by whatever, goes on with the same command: finished parts are kept, and each is there whole or
not at all. Several runners on one folder share the work, also from several machines with a shared file system.
"""
EPILOG = f"""\
{EXIT_STATUS} An image that cannot be read or explained is a row with an error.

sources: folders (with all images, .tar and .parquet files below), image files, lists (.txt: a path in each line; .csv
with a column path), .parquet files, .tar shards of WebDataset, data sets of Hugging Face saved to disk.

examples:
  captum-sgcampp attribute photos --model resnet50 --out maps
  captum-sgcampp attribute photos --model resnet50 --out maps --workers 8
  captum-sgcampp attribute shards --model resnet50 --layers layer3 layer4 --targets top:3 --nt-samples auto --out maps
  captum-sgcampp attribute val.parquet --model vgg16 --targets column:label --methods grad-cam++ --out maps
  captum-sgcampp attribute photos --model resnet50 --out maps --engine ray --address auto

In Python: captum_sgcampp.dataset.open("maps") gives the rows and the maps as tensors.
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("attribute", help="explain a whole data set", description=DESCRIPTION, epilog=EPILOG)
    _add_model_arguments(parser)
    _add_map_arguments(parser)
    _add_run_arguments(parser)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="where the images are, see below")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="results: a new folder, or that of the run to go on with",
    )
    add_model_arguments(parser)
    add_white_argument(parser)
    add("--channels-last", action="store_true", help="model and images in torch's memory format channels_last")


def _add_map_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layers", nargs="+", default=[], metavar="NAME", help="modules to explain (default: the deepest one)")
    add(
        "--targets",
        nargs="+",
        default=["top"],
        metavar="CLASS",
        help="class numbers or names; top or top:K (default: top); column:NAME, folder or stem where each image "
        "brings its own: a column (in shards: column:cls), the name of its folder, or its file name as number",
    )
    add(
        "--methods",
        nargs="+",
        choices=EXPLAIN_METHODS,
        default=["smooth-grad-cam++"],
        metavar="NAME",
        help=f"among {', '.join(EXPLAIN_METHODS)} (default: smooth-grad-cam++)",
    )
    add("--nt-samples", type=count_or_auto, default=25, metavar="N", help="noisy samples, or auto (default: 25)")
    add("--noise-level", type=level, default=0.15, metavar="F", help="sigma as a share of the range (default: 0.15)")
    add("--seed", type=whole(0, 2**63 - 1), default=0, metavar="S", help="seed of the noise (default: 0)")
    add(
        "--batch-size",
        type=count,
        default=1,
        metavar="N",
        help="images in one explanation (default: 1; more are faster on GPUs)",
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image-column", default="image", metavar="NAME", help="of Parquet files and data sets (default: image)")
    add("--images-per-part", type=count, default=256, metavar="N", help="images in one file of results (default: 256)")
    add("--workers", type=count, metavar="N", help="processes (default: 1; with Ray as many as fit into the cluster)")
    add(
        "--threads",
        type=count,
        metavar="N",
        help="threads of each process, which the last bits depend on (default: torch's own, shared by the workers)",
    )
    add("--retry-errors", action="store_true", help="make the parts that hold errors again")
    add("--overlays", action="store_true", help="also write a picture of every map, as explain draws it (0.2 s each)")
    add("--engine", choices=("plain", "ray"), default="plain", help="who distributes the work (default: plain)")
    add("--address", metavar="ADDRESS", help="of the Ray cluster (default: a new one on this machine)")
