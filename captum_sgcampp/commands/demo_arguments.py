"""The arguments of the command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captum_sgcampp.commands.arguments import EXIT_STATUS, whole
from captum_sgcampp.commands.choices import BUNDLED

DESCRIPTION = f"""\
Open a page in the browser that explains pictures. Needs the extra `demo`: pip install '.[demo]' in a checkout

The page is served on this machine alone, and asks no other host for anything. Its visitors choose among the networks
that are named here: {BUNDLED} (bundled, default), torchvision's, and those of your own code. Stop it with Ctrl-C.
"""

EPILOG = f"""\
{EXIT_STATUS}

examples:
  captum-sgcampp demo
  captum-sgcampp demo --model shapes resnet50 squeezenet1_1=squeezenet.safetensors
  captum-sgcampp demo --model-factory my_models.py:net
  captum-sgcampp demo --host 0.0.0.0 --auth users.txt
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("demo", help="a page in the browser", description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        metavar="NAME[=FILE]",
        help=f"{BUNDLED} (bundled, default) or torchvision models, with a state dict, .safetensors or .pt "
        "(default: torchvision's own, downloaded)",
    )
    add(
        "--model-factory",
        nargs="+",
        default=[],
        metavar="WHERE:FUNCTION[=ARGUMENT]",
        help="modules or .py files, which are executed, and functions that give a torch.nn.Module of RGB pictures, "
        "prepared as timm does it for its networks, else as for ImageNet; or a Classifier",
    )
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1, this machine)")
    add("--port", type=whole(1, 65535), metavar="P", help="port (default: the first free one from 7860)")
    add(
        "--auth",
        type=Path,
        metavar="FILE",
        help="lines of NAME:PASSWORD. Needed with a --host that others can reach",
    )
