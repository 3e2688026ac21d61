"""What fails for one image, and what would fail for all further ones."""

from __future__ import annotations

import errno

import torch

from captum_sgcampp.names import printable

# Of one file: it is gone, forbidden or a folder. Other errors of the system concern the disk or the process.
_OF_ONE_FILE = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class LastingError(RuntimeError):
    """What no further image can be explained after."""


def reason(error: Exception) -> str:
    """One line of plain text, as in a traceback."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))


def is_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice, also where an explanation says it, which names the argument."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or isinstance(error.__cause__, kinds) or "can't allocate memory" in str(error)


def is_lasting(error: Exception) -> bool:
    """Whether it would come with every further image: memory that is full, a device or a disk that broke, a package or
    a data set that is missing."""
    if isinstance(error, OSError):
        return error.errno not in _OF_ONE_FILE
    broken = (LastingError, ImportError, getattr(torch, "AcceleratorError", LastingError))
    return isinstance(error, broken) or is_of_memory(error) or "CUDA error" in str(error)
