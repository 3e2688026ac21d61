"""The command line: `captum-sgcampp explain` and `captum-sgcampp evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from captum_sgcampp import __version__
from captum_sgcampp.commands import attribute, evaluate, explain

USAGE_ERROR, FILE_ERROR, FAILURE = 2, 3, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, TypeError) as error:
        return _complain(error, FILE_ERROR if type(error).__name__ == "ImageError" else USAGE_ERROR)
    except OSError as error:
        return _complain(error, FILE_ERROR)
    except (RuntimeError, ImportError) as error:
        return _complain(error, FAILURE)
    return 0


def _complain(error: Exception, status: int) -> int:
    print(f"captum-sgcampp: error: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="captum-sgcampp", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (explain, attribute, evaluate):
        command.add_to(commands)
    return parser
