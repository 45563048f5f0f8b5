# SPDX-License-Identifier: Apache-2.0
"""Medians, spreads and the 95 % interval on which a bound near 1 is judged. Pure."""

from math import comb


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """At least 95 %, from order statistics: no assumption on how the noise is distributed, and few wild slices do no harm."""
    ordered, count = sorted(values), len(values)
    below, rank = 0.0, 0
    # The largest rank that less than 2.5 % of all samples would put beyond the true median.
    while rank < count // 2:
        below += comb(count, rank) / 2**count
        if below > 0.025:
            break
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[count - max(rank, 1)]


def judge(low: float, high: float, bound: float) -> str:
    if high <= bound:
        return "reached"
    return "not reached" if low > bound else "inconclusive"


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
