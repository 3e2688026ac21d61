"""Gaussian noise: how much (`sigma`), from which stream, and the noisy rows that a forward pass gets.

A sample's noise depends only on the seed, the sample's number and the number of the input tensor. So it does not change
with the chunk size, the other examples of the batch or the memory format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor

# By default the rows of one chunk fill about this many bytes, with few samples up to three times as many. On a CPU
# image networks are fastest at 3 to 9 images of 3 x 224 x 224 in one pass, and one pass beats two of half the size.
# With many samples, 4 images keep the memory flat: with more, it goes back to the system after every layer.
CPU_CHUNK_BYTES = 2 * 2**20
ACCELERATOR_CHUNK_BYTES = 64 * 2**20
LARGEST_DEFAULT_CHUNK_ROWS = 4096


def draw_seed(generator: Generator | None) -> int:
    """One draw from `generator` (None: the global CPU generator): the seed of all noise of one call."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device).item())


@contextmanager
def rewound_on_error(generator: Generator | None) -> Iterator[None]:
    """Restore the state of `generator` (None: the global CPU generator) if the block raises."""
    source = torch.default_generator if generator is None else generator
    state = source.get_state()
    try:
        yield
    except BaseException:
        source.set_state(state)
        raise


def standard_noise(seed: int, copy: int, input_index: int, like: Tensor) -> Tensor:
    """`eps ~ N(0, 1)` of one noisy sample, with the shape of one example of `like`, its device and its dtype."""
    stream = np.random.SeedSequence(seed, spawn_key=(copy, input_index)).generate_state(1, np.uint64)[0]
    generator = Generator(device=like.device).manual_seed(int(stream))
    return torch.randn(like.shape[1:], generator=generator, device=like.device, dtype=like.dtype)


def relative_sigma(x: Tensor, noise_level: float) -> Tensor:
    """SmoothGrad's sigma, `noise_level * (max(x) - min(x))` of each example: shape `(N, 1, ...)` as `x`."""
    values = x.reshape(len(x), -1).to(torch.promote_types(x.dtype, torch.float32))
    sigma = noise_level * (values.amax(1) - values.amin(1))
    return sigma.to(x.dtype).reshape(-1, *(1,) * (x.dim() - 1))


def absolute_sigma(x: Tensor, stdev: float) -> Tensor:
    """The same sigma, in input units, for every example: shape `(N, 1, ...)` as `x`."""
    return torch.full((len(x),) + (1,) * (x.dim() - 1), stdev, dtype=x.dtype, device=x.device)


def default_chunk(inputs: Sequence[Tensor], nt_samples: int) -> int:
    """How many samples of each example one forward pass gets by default: bounded by bytes and rows."""
    examples = len(inputs[0])
    copy_bytes = max(sum(x.numel() * x.element_size() for x in inputs), 1)
    limit = ACCELERATOR_CHUNK_BYTES
    if inputs[0].device.type == "cpu":
        limit = CPU_CHUNK_BYTES * (2 if torch.is_autocast_enabled("cpu") else 1)  # activations of half the size
    rows = nt_samples + 1
    passes = max(1, rows * copy_bytes // limit - 1, math.ceil(rows * examples / LARGEST_DEFAULT_CHUNK_ROWS))
    return math.ceil(rows / passes)  # passes of equal size


def copies_of(x: Tensor, repeats: int) -> Tensor:
    """`(N * repeats, ...)` in new memory and the same memory format: each example `repeats` times in a row."""
    rows = torch.empty((len(x) * repeats, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=_layout(x))
    rows.unflatten(0, (len(x), repeats)).copy_(x.unsqueeze(1))
    return rows


def noisy_rows(
    x: Tensor,
    sigma: Tensor | None,
    seed: int,
    input_index: int,
    copies: range,
    with_clean: bool,
) -> Tensor:
    """The rows of one forward pass: for every example the clean row (if asked for), then its noisy samples.

    Args:
        x: clean input, `(N, ...)`.
        sigma: `(N, 1, ...)`, or None to leave this input alone.
        seed: the seed of the call.
        input_index: the number of this tensor among the inputs.
        copies: numbers of the samples.
        with_clean: whether each example's first row is the clean one.

    Returns:
        Tensor, `(N * (len(copies) + with_clean), ...)`, example-major.
    """
    first = int(with_clean)
    rows = copies_of(x, first + len(copies))
    if sigma is None:
        return rows
    by_example = rows.unflatten(0, (len(x), -1))
    for place, copy in enumerate(copies, first):
        # Two rounded steps, never a fused one, so that every memory format gives the same bits.
        noise = sigma * standard_noise(seed, copy, input_index, like=x)
        by_example[:, place] += noise
    return rows


def _layout(x: Tensor) -> torch.memory_format:
    if not x.is_contiguous():
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
        if x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
            return torch.channels_last_3d
    return torch.contiguous_format
