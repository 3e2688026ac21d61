"""Smooth Grad-CAM++ and Grad-CAM++: explain images, explain whole data sets, measure methods, try it in a browser."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module

from captum_sgcampp._version import __version__
from captum_sgcampp.commands import attribute_arguments, demo_arguments, evaluate_arguments, explain_arguments
from captum_sgcampp.commands.arguments import (
    DONE,
    EXIT_STATUS,
    FAILURE,
    FILE_ERROR,
    INTERRUPTED,
    TERMINATED,
    USAGE_ERROR,
    Parser,
)
from captum_sgcampp.commands.terminal import Terminated, ended_at_once, robust_streams, terminable
from captum_sgcampp.names import printable

# Arguments in messages of the code behind the commands, which Python's users call, too.
OF_PYTHON = ("layer", "target", "box", "device", "feature_maps", "neurons")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        The exit status.
    """
    with robust_streams() as out:
        status = _status(_parser().parse_args(argv))
        if out.error is None or isinstance(out.error, BrokenPipeError):  # a reader that left has read enough
            return status
        return _complain(f"standard output: expected to write there, found {out.error}", status or FILE_ERROR)


def _status(arguments: Namespace) -> int:
    try:
        with terminable():
            return _run(arguments)
    except (ValueError, TypeError) as error:
        status = FILE_ERROR if type(error).__name__ == "ImageError" else USAGE_ERROR
        return _complain(_as_option(str(error), arguments) or error, status)
    except OSError as error:
        return _complain(error, FILE_ERROR)
    except (RuntimeError, MemoryError, ImportError) as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted before all was done", INTERRUPTED)
    except Terminated:
        return _complain("terminated before all was done", TERMINATED)


def _run(arguments: Namespace) -> int:
    """Import the command, which takes seconds, and run it."""
    with ended_at_once():
        command = import_module(f"captum_sgcampp.commands.{arguments.command}")
    return command.run(arguments) or DONE


def _as_option(message: str, arguments: Namespace) -> str:
    """The message in which an argument of Python, that an option stands for, has the option's name."""
    name, colon, rest = message.partition(": expected ")
    is_option = name in OF_PYTHON and any(hasattr(arguments, known) for known in (name, f"{name}s"))
    return f"--{name.replace('_', '-')}{colon}{rest}" if is_option else message


def _complain(error: object, status: int) -> int:
    print(f"captum-sgcampp: error: {printable(str(error) or type(error).__name__)}", file=sys.stderr)
    return status


def _parser() -> Parser:
    parser = Parser(prog="captum-sgcampp", description=__doc__, epilog=EXIT_STATUS)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (explain_arguments, attribute_arguments, evaluate_arguments, demo_arguments):
        command.add_to(commands)
    return parser
