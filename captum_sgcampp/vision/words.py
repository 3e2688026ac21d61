"""What statistics and maps of zeros say, in the words of the commands and of the page."""

from __future__ import annotations

import math

from captum_sgcampp.functional.sampling_statistics import SamplingStatistics

# An effective sample size below this is hardly more than one sample.
FEW_SAMPLES = 2


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
