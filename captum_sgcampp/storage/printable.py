"""Names of any origin as text that terminals and pictures can show."""

from __future__ import annotations


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
