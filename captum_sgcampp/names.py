"""Names in messages: shown so that terminals and pictures can take them, and hints to the right one. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape in place of every character that is not printed.

    Letters of all languages stay. Control characters, marks of writing direction and the bytes of file names that are
    no Unicode do not: terminals obey the first two, and nothing can encode the last.

    Args:
        text: a file name, the name of a class, or a message with such names in it.
        keep: characters that stay, such as line breaks.

    Examples::

        >>> print(printable("caf\xe9\n\x1b[31m"))
        café\n\x1b[31m
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def nearest(text: str, names: Iterable[str], most: int = 3) -> str:
    """The end of a message about a name that is not known: ` (did you mean ...?)`, or nothing where none is near."""
    by_lower = {name.lower(): name for name in names}
    close = get_close_matches(text.lower(), by_lower, n=most, cutoff=0.6)
    return f" (did you mean {', '.join(by_lower[name] for name in close)}?)" if close else ""
