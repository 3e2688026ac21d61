"""`D_p = mean_m e_m d_p`: weighted averages of derivatives over noisy samples, kept as running sums.

A factor `exp(log_weight)` and each example's largest gradient magnitude are kept beside the sums. So neither large
scores nor small gradients overflow, underflow or divide 0 by 0. Both factors only multiply the final map.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_sgcampp.functional.tensors import per_row, ratio, unit_scaled

Powers: TypeAlias = tuple[Tensor, Tensor, Tensor]  # sums of the first, second and third derivatives, `(N, K, *space)`


class Derivatives(NamedTuple):
    """The first three derivatives of the score `Y` with respect to a layer, one row per noisy sample.

    The p-th derivative of row r is `exp(log_weight[r]) * scale[r]**p * d_p[r]`.

    Attributes:
        log_weight: `(rows,)`.
        scale: `(rows,)`, not negative.
        d1, d2, d3: `(rows, K, *space)`, of magnitudes that float32 can take the cube of.
    """

    log_weight: Tensor
    scale: Tensor
    d1: Tensor
    d2: Tensor
    d3: Tensor


class MeanDerivatives(NamedTuple):
    """`D_1, D_2, D_3`: the average of the p-th derivative is `level * scale**p * d_p`.

    Attributes:
        d1, d2, d3: `(N, K, *space)`.
        scale: `(N,)`, the largest gradient magnitude of each example.
        level: `(N,)`, the mean weight of the samples.
    """

    d1: Tensor
    d2: Tensor
    d3: Tensor
    scale: Tensor
    level: Tensor


class PowerSums:
    """Running sums `sum_j weight_j * d_j**p`, p = 1, 2, 3, with one scale per row: `sum_p = scale**p * sums[p - 1]`."""

    def __init__(self, like: Tensor) -> None:
        self.scale = like.new_zeros(len(like))
        self.sums = [torch.zeros_like(like) for _ in range(3)]

    def add(self, weight: Tensor, d: Tensor) -> None:
        """Add one term: `weight` (rows,), `d` (rows, ...)."""
        unit, scale = unit_scaled(d)
        total = torch.maximum(self.scale, scale)
        old, new = ratio(self.scale, total), ratio(scale, total)
        power = unit
        for p in range(1, 4):
            self.sums[p - 1] = self.sums[p - 1] * per_row(old**p, unit) + per_row(weight * new**p, unit) * power
            power = power * unit
        self.scale = total


class MomentSums:
    """Sums of the derivatives over the noisy samples, chunk by chunk, in memory that does not grow with their number.

    Args:
        examples: N.
        groups: number of groups for the jackknife of the standard error; sample m belongs to group `m % groups`. With
            more than one, the sum over all samples is kept beside them: added up in the same order with and without
            groups, the mean is the same bits.
        has_level: whether the mean weight of the samples is part of the derivatives (softmax). Otherwise the weights
            have mean 1, as `e_m`.

    Attributes:
        copies: how many samples each example has had, `(N,)` on the CPU.
    """

    def __init__(self, examples: int, groups: int = 1, has_level: bool = False) -> None:
        self.groups, self.has_level = groups, has_level
        self.copies = torch.zeros(examples, dtype=torch.int64, device="cpu")
        self.sums: list[Tensor] = []  # three tensors (N, groups + 1, K, *space), the last all; (N, 1, ...) for one
        self.scale = self.log_weight = self.weight_sum = self.weight_square_sum = torch.empty(0)

    def add(self, derivatives: Derivatives, skip: int = 0, examples: Tensor | None = None) -> None:
        """Add the next samples.

        Args:
            derivatives: rows example-major.
            skip: this many rows of each example do not count (the clean one).
            examples: indices of their examples, which must have had equally many samples so far. None: all.
        """
        if examples is None or len(examples) == len(self.copies):
            self._add(derivatives, skip)
            return
        some = MomentSums(len(examples), self.groups)
        some.copies = self.copies[examples]
        some.sums = [sums[examples] for sums in self.sums]
        for name in _PER_EXAMPLE:
            setattr(some, name, getattr(self, name)[examples])
        some._add(derivatives, skip)
        self.copies[examples] = some.copies
        for mine, its in zip(self.sums, some.sums, strict=True):
            mine[examples] = its
        for name in _PER_EXAMPLE:
            getattr(self, name)[examples] = getattr(some, name)

    def _add(self, derivatives: Derivatives, skip: int) -> None:
        log_weight, scale, *powers = (part.unflatten(0, (len(self.copies), -1))[:, skip:] for part in derivatives)
        if not self.sums:
            self._start(log_weight, scale, powers[0])
        largest = torch.maximum(self.log_weight, log_weight.amax(1))
        total_scale = torch.maximum(self.scale, scale.amax(1))
        decay = torch.exp(self.log_weight - largest)
        weight = torch.exp(log_weight - largest[:, None])
        old, new = ratio(self.scale, total_scale), ratio(scale, total_scale[:, None])
        done = int(self.copies[0])
        for p, power in enumerate(powers, start=1):
            if done:
                self.sums[p - 1] = _scaled(self.sums[p - 1], per_row(decay * old**p, power))
            factor = per_row(weight * new**p, power)
            for place in range(power.shape[1]):  # one sample at a time stays in the caches
                self.sums[p - 1][:, -1].addcmul_(power[:, place], factor[:, place])
                if self.groups > 1:
                    self.sums[p - 1][:, (done + place) % self.groups].addcmul_(power[:, place], factor[:, place])
        self.weight_sum = self.weight_sum * decay + weight.sum(1)
        self.weight_square_sum = self.weight_square_sum * decay**2 + weight.square().sum(1)
        self.log_weight, self.scale = largest, total_scale
        self.copies = self.copies + log_weight.shape[1]

    def _start(self, log_weight: Tensor, scale: Tensor, power: Tensor) -> None:
        shape = (len(power), 1 if self.groups == 1 else self.groups + 1, *power.shape[2:])
        self.sums = [torch.zeros(shape, dtype=power.dtype, device=power.device) for _ in range(3)]
        self.scale = torch.zeros_like(scale[:, 0])
        self.log_weight = torch.full_like(log_weight[:, 0], -torch.inf)
        self.weight_sum = torch.zeros_like(log_weight[:, 0])
        self.weight_square_sum = torch.zeros_like(log_weight[:, 0])

    def mean(self) -> MeanDerivatives:
        """`D_p = mean_m e_m * d_p`, `e_m = exp(S_m - logmeanexp_j S_j)`: the weights have mean 1."""
        return self._mean(self._powers(-1))

    def means_without_groups(self, groups: int) -> Iterator[MeanDerivatives]:
        """The means without the samples of each of the first groups. The common factor is not corrected for them."""
        parts = [self._powers(group) for group in range(groups)]
        zero = torch.zeros_like(parts[0][0])
        yield from map(self._mean, _sums_without_each(parts, (zero, zero, zero)))

    def of_first_groups(self, groups: int) -> MomentSums:
        """The same sums with these groups only. The others must be empty."""
        found = MomentSums(len(self.copies), groups, self.has_level)
        found.copies = self.copies
        for name in _PER_EXAMPLE:
            setattr(found, name, getattr(self, name))
        kept = [*range(groups), -1] if groups > 1 else [-1]
        found.sums = [sums[:, kept] for sums in self.sums]
        return found

    def _powers(self, group: int) -> Powers:
        first, second, third = self.sums
        return first[:, group], second[:, group], third[:, group]

    def _mean(self, sums: Powers) -> MeanDerivatives:
        d1, d2, d3 = (one / per_row(self.weight_sum, one) for one in sums)
        return MeanDerivatives(d1, d2, d3, self.scale, self._level())

    def _level(self) -> Tensor:
        if not self.has_level:
            return torch.ones_like(self.scale)
        level = self.log_weight + torch.log(self.weight_sum / self.copies.to(self.weight_sum.device))
        # Kept above the smallest numbers of its dtype, so that saturation leaves a map.
        return level.exp().clamp_min(torch.finfo(level.dtype).tiny ** 0.8)

    def effective_sample_size(self) -> Tensor:
        """`(sum_m e_m)^2 / sum_m e_m^2`, `(N,)`: between 1 and the number of samples."""
        return self.weight_sum.square() / self.weight_square_sum


_PER_EXAMPLE = ("scale", "log_weight", "weight_sum", "weight_square_sum")


def _scaled(sums: Tensor, factor: Tensor) -> Tensor:
    """In place, except where a graph needs the old sums."""
    return sums * factor if torch.is_grad_enabled() else sums.mul_(factor)


def _sums_without_each(parts: list[Powers], rest: Powers) -> Iterator[Powers]:
    """For each part `rest` and the sum of the other parts. Subtracting it from the whole would cancel where it holds
    nearly all the weight, so each half is added to what the other half begins with."""
    if len(parts) == 1:
        yield rest
        return
    half = len(parts) // 2
    for own, others in ((parts[:half], parts[half:]), (parts[half:], parts[:half])):
        yield from _sums_without_each(own, reduce(_added, others, rest))


def _added(one: Powers, other: Powers) -> Powers:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
