"""Weighted sums of powers, kept so that neither large logits nor tiny gradients overflow, underflow or divide 0 by 0.

Two scales are taken out and carried beside the sums: a factor `exp(log_weight)` and, per example, the largest
gradient magnitude. Both only ever multiply the final map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Derivatives(NamedTuple):
    """The first three derivatives of the score `Y` with respect to a layer, one row per noisy copy.

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
    """`D_1, D_2, D_3`: derivatives averaged over the copies. The p-th is `level * scale**p * d_p`.

    Attributes:
        d1, d2, d3: `(N, K, *space)`.
        scale: `(N,)`, the largest gradient magnitude of each example.
        log_level: `(N,)`, log of the mean weight of the copies.
    """

    d1: Tensor
    d2: Tensor
    d3: Tensor
    scale: Tensor
    log_level: Tensor


def unit_scaled(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """`gradient` (rows, ...) divided by each row's largest magnitude, and those magnitudes `(rows,)`."""
    scale = gradient.reshape(len(gradient), -1).abs().amax(1)
    return gradient / _like(torch.where(scale > 0, scale, 1), gradient), scale


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
            self.sums[p - 1] = self.sums[p - 1] * _like(old**p, unit) + _like(weight * new**p, unit) * power
            power = power * unit
        self.scale = total


class MomentSums:
    """Sums of the derivatives over the noisy copies, chunk by chunk, in memory that does not grow with their number.

    Args:
        groups: copies are also summed in this many groups (copy m belongs to group `m % groups`), from which
            the jackknife estimates the standard error.
    """

    def __init__(self, groups: int = 1) -> None:
        self.groups = groups
        self.copies = 0
        self.sums: list[Tensor] = []  # three tensors (N, groups, K, *space)
        self.scale = torch.empty(0)
        self.log_weight = torch.empty(0)  # the largest log weight so far, (N,)
        self.weight_sum = torch.empty(0)
        self.weight_square_sum = torch.empty(0)

    def add(self, derivatives: Derivatives, examples: int, skip: int = 0) -> None:
        """Add the next copies.

        Args:
            derivatives: rows example-major.
            examples: N.
            skip: this many rows of each example do not count (the clean one).
        """
        log_weight, scale, *powers = (part.unflatten(0, (examples, -1))[:, skip:] for part in derivatives)
        if not self.sums:
            self._start(log_weight, scale, powers[0])
        largest = torch.maximum(self.log_weight, log_weight.amax(1))
        total_scale = torch.maximum(self.scale, scale.amax(1))
        decay = torch.exp(self.log_weight - largest)
        weight = torch.exp(log_weight - largest[:, None])
        old, new = ratio(self.scale, total_scale), ratio(scale, total_scale[:, None])
        for p, power in enumerate(powers, start=1):
            factor = decay * old**p
            if self.copies:
                self.sums[p - 1] = _scaled(self.sums[p - 1], factor.reshape(-1, *(1,) * (power.dim() - 1)))
            self._add_to_groups(self.sums[p - 1], power, _like(weight * new**p, power))
        self.weight_sum = self.weight_sum * decay + weight.sum(1)
        self.weight_square_sum = self.weight_square_sum * decay**2 + weight.square().sum(1)
        self.log_weight, self.scale = largest, total_scale
        self.copies += log_weight.shape[1]

    def _start(self, log_weight: Tensor, scale: Tensor, power: Tensor) -> None:
        shape = (len(power), self.groups, *power.shape[2:])
        self.sums = [torch.zeros(shape, dtype=power.dtype, device=power.device) for _ in range(3)]
        self.scale = torch.zeros_like(scale[:, 0])
        self.log_weight = torch.full_like(log_weight[:, 0], -torch.inf)
        self.weight_sum = torch.zeros_like(log_weight[:, 0])
        self.weight_square_sum = torch.zeros_like(log_weight[:, 0])

    def _add_to_groups(self, sums: Tensor, power: Tensor, factor: Tensor) -> None:
        for place in range(power.shape[1]):  # one copy at a time stays in the caches
            sums[:, (self.copies + place) % self.groups].addcmul_(power[:, place], factor[:, place])

    def of(self, examples: Tensor) -> MomentSums:
        """The sums of some of the examples (indices), to be continued on their own."""
        some = MomentSums(self.groups)
        some.copies = self.copies
        some.sums = [sums[examples] for sums in self.sums]
        for name in ("scale", "log_weight", "weight_sum", "weight_square_sum"):
            setattr(some, name, getattr(self, name)[examples])
        return some

    def mean(self, without_group: int | None = None) -> MeanDerivatives:
        """`D_p = mean_m e_m * d_p`, `e_m = exp(S_m - logmeanexp_j S_j)`: the weights have mean 1.

        Args:
            without_group: leave this group of copies out (its common factor is not corrected for).
        """
        # The other groups are summed, not this one subtracted: it may hold nearly all the weight.
        kept = [group for group in range(self.groups) if group != without_group]
        d1, d2, d3 = (s[:, kept].sum(1) / _like(self.weight_sum, s[:, 0]) for s in self.sums)
        log_level = self.log_weight + torch.log(self.weight_sum / self.copies)
        return MeanDerivatives(d1, d2, d3, self.scale, log_level)

    def effective_sample_size(self) -> Tensor:
        """`(sum_m e_m)^2 / sum_m e_m^2`, `(N,)`: between 1 and the number of copies."""
        return self.weight_sum.square() / self.weight_square_sum


def _scaled(sums: Tensor, factor: Tensor) -> Tensor:
    """In place, but where a graph needs the old sums."""
    return sums * factor if torch.is_grad_enabled() else sums.mul_(factor)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, 0 where the whole is not positive."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), 0)


def _like(per_row: Tensor, rows: Tensor) -> Tensor:
    """`per_row` with trailing dimensions of size 1 up to those of `rows`."""
    return per_row.reshape(*per_row.shape, *(1,) * (rows.dim() - per_row.dim()))
