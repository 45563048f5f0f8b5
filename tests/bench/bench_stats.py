# SPDX-License-Identifier: Apache-2.0
"""Medians, spreads and how a bound is judged: near 1 on an interval. Pure."""

from math import comb
from operator import ge, gt, le


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


def judge_rounds(values: list[float], relation: str, bound: float) -> str:
    """Ratios of few rounds against a bound, by their median. Near 1 that is no answer while rounds lie on both sides: inconclusive then."""
    reaches = {">": gt, ">=": ge, "<=": le}[relation]
    if 0.9 <= bound <= 1.1 and reaches(min(values), bound) != reaches(max(values), bound):
        return "inconclusive"
    return "reached" if reaches(median(values), bound) else "not reached"


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
