"""What statistics and maps of zeros say, in the words of the commands and of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from captum_sgcampp.functional.sampling_statistics import SamplingStatistics

# An effective sample size below this is hardly more than one sample.
FEW_SAMPLES = 2
MANY_POLES = 0.1  # of the weight
_TWO_SIDED = 'the two-sided method (method="two-sided-smooth-grad-cam++", in attribute two_sided=True)'


def of_statistics(statistics: SamplingStatistics) -> str:
    """How many samples there were, how sure they make the map, and how many they count as; and the poles' share.

    Args:
        statistics: of one example.
    """
    count, size = int(statistics.nt_samples), statistics.effective_sample_size.item()
    error, poles = statistics.standard_error.item(), statistics.pole_weight_share.item()
    parts = [f"{count} sample{'' if count == 1 else 's'}"]
    parts += ["mostly one sample"] * one_sample_decides(statistics)
    parts += [f"standard error {'unknown' if math.isnan(error) else f'{100 * error:.1f} % of the map'}"]
    parts += [f"effective sample size {size:.1f}", f"{100 * poles:.1f} % of the weight from poles of alpha"]
    return ", ".join(parts)


def one_sample_decides(statistics: SamplingStatistics) -> bool:
    """Whether one of several noisy samples outweighs the others.

    Args:
        statistics: of one example.
    """
    count = int(statistics.nt_samples)
    # Two samples of equal weight count as two.
    return count > 1 and statistics.effective_sample_size.item() < min(FEW_SAMPLES, 0.75 * count)


def has_relu(model: nn.Module) -> bool:
    """Whether layers after a ReLU can be named."""
    return any(isinstance(module, nn.ReLU | nn.ReLU6) for module in model.modules())


def advice_on(statistics: SamplingStatistics, with_relu: bool) -> Iterator[str]:
    """What follows where one sample or poles decide the map.

    Args:
        statistics: of one example.
        with_relu: whether the network `has_relu`.
    """
    if one_sample_decides(statistics):
        yield "One noisy sample decides the map: lower the noise level."
    if statistics.pole_weight_share.item() > MANY_POLES:
        layer = "a layer after a ReLU, or " if with_relu else ""
        yield f"Poles of alpha decide much of the map: choose {layer}{_TWO_SIDED}."


def on_closed_form(exact_layers: Sequence[str] = ()) -> str:
    """What follows where the network after the layer is not known to be piecewise linear.

    Args:
        exact_layers: the names of those after which it is, the deepest last, as far as they are known.
    """
    instead = f"Choose {exact_layers[-1]}, or in" if exact_layers else "In"
    return (
        "After this layer the network is not piecewise linear (GELU, SiLU, attention, normalization or something "
        f"unknown), so the closed form of Grad-CAM++ is off here. {instead} Python take derivatives='exact'; "
        "closed_form_error tells how far off it is. Grad-CAM needs no closed form."
    )


def of_zeros(has_negative: bool, both_signs: bool) -> str:
    """Why a map is zero everywhere.

    Args:
        has_negative: whether it has negative values before the ReLU.
        both_signs: whether the method counts gradients of both signs.

    Examples::

        >>> of_zeros(has_negative=False, both_signs=False)
        'all zero (no positive gradient)'
    """
    if has_negative:
        return "all negative (the ReLU leaves nothing)"
    return f"all zero (no {'' if both_signs else 'positive '}gradient)"
