"""What the arguments of all commands have in common: the parser, its errors, and the types of options.

Nothing here imports torch, which takes seconds. What an option says is checked before anything is read or computed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from captum_sgcampp.commands.choices import BUNDLED
from captum_sgcampp.names import nearest, printable

DONE, FAILURE, USAGE_ERROR, FILE_ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
EXIT_STATUS = (
    "exit status: 0 done; 1 the model failed; 2 an argument does not fit; 3 a file cannot be read or written;\n"
    "130 interrupted (Ctrl-C); 143 terminated."
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors have one line, as all errors of the package: `--option: expected ..., found ...`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        text = printable(message.removeprefix("argument "))
        self.exit(USAGE_ERROR, f"captum-sgcampp: error: {text} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, unknown(value, list(action.choices)))


class _ListModels(argparse.Action):
    """Prints the networks that can be named, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Only here torch is imported, which takes seconds."""
        from captum_sgcampp.vision.classifiers import torchvision_names

        print("\n".join([BUNDLED, *torchvision_names()]))
        parser.exit()


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network: the options of all commands."""
    add = parser.add_argument
    add("--model", metavar="NAME", help=f"{BUNDLED} (bundled, default) or a torchvision model")
    add("--list-models", action=_ListModels, help="print the names that --model takes, and do nothing else")
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict, .safetensors or .pt (default: torchvision's own, downloaded)",
    )
    add(
        "--model-factory",
        metavar="WHERE:FUNCTION[=ARGUMENT]",
        help="module or .py file, which is executed, and a function that gives a network of RGB pictures, or a "
        "Classifier with a preprocessing of its own",
    )
    add("--device", default="cpu", help="torch device, as cuda (default: cpu)")


def add_white_argument(parser: argparse.ArgumentParser) -> None:
    """How gray of more than 8 bits is scaled."""
    parser.add_argument(
        "--white",
        type=positive,
        metavar="N",
        help="value that becomes 255 in gray images of 16 and 32 bits, while 0 becomes 0 (default: the largest "
        "number of 8, 10, 12, 14 or 16 bits, the fewest that hold all values of the image)",
    )


def unknown(name: str, known: Sequence[str]) -> str:
    """The end of a message about a name that is none of the known ones."""
    return f"expected one of {', '.join(known)}, found {name!r}{nearest(name, known, most=1)}"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of options that are whole numbers in a range."""
    wanted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
        return value

    return number


count = whole(1)


def count_or_auto(text: str) -> int | str:
    """`auto`, or a whole number of at least 1."""
    if text == "auto":
        return text
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(str(error).replace("expected ", "expected auto or ", 1)) from None


def level(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, lambda value: value >= 0, "a finite number of at least 0")


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, lambda value: value > 0, "a finite number above 0")


def _number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return value


def box(text: str) -> tuple[float, ...]:
    """`X0,Y0,X1,Y1`: the corner at the top left, then the one at the bottom right."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"expected 4 numbers as 10,20,90,80, found {text!r}")
    left, top, right, bottom = numbers
    if not (0 <= left < right and 0 <= top < bottom):
        raise argparse.ArgumentTypeError(f"expected 0 <= X0 < X1 and 0 <= Y0 < Y1, found {text!r}")
    return numbers


def neurons(text: str) -> tuple[slice, ...]:
    """`R0:R1,C0:C1`: rows and columns, as Python's slices."""
    try:
        slices = tuple(
            slice(*(int(bound) if bound.strip() else None for bound in part.split(":"))) for part in text.split(",")
        )
    except (ValueError, TypeError):
        slices = ()
    if len(slices) != 2 or text.count(":") < 2:
        raise argparse.ArgumentTypeError(f"expected rows and columns as 2:5,3:7, found {text!r}")
    return slices


def feature_map(text: str) -> str:
    """A number, or `top:K`."""
    number = text.removeprefix("top:")
    if _is_number(number) and (text == number or int(number) > 0):
        return text
    raise argparse.ArgumentTypeError(f"expected a number, or top:K with K of at least 1, found {text!r}")


def target(text: str) -> str:
    """A class, `top` or `top:K`."""
    number = text.removeprefix("top:")
    if text == number or (_is_number(number) and int(number) > 0):
        return text
    raise argparse.ArgumentTypeError(f"expected top:K with K of at least 1, found {text!r}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6  # no layer and no model has as many


def colormap(text: str) -> str:
    """A color map of matplotlib."""
    from matplotlib import colormaps  # only where the option is given: this takes a while

    if text not in colormaps:
        hint = nearest(text, colormaps, most=1)
        raise argparse.ArgumentTypeError(f"expected a color map of matplotlib as viridis, found {text!r}{hint}")
    return text
