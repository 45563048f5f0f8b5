# SPDX-License-Identifier: Apache-2.0
"""Medians, spreads and how a bound is judged: near 1 on an interval. Pure."""

from math import comb
from operator import ge, gt, le

RELATIONS = {">": gt, ">=": ge, "<=": le}


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


def judge_interval(low: float, high: float, relation: str, bound: float) -> str:
    """Of an interval, all of which must lie on one side."""
    reaches = RELATIONS[relation]
    if reaches(low, bound) != reaches(high, bound):
        return "inconclusive"
    return "reached" if reaches(low, bound) else "not reached"


def judge_pairs(values: list[float], relation: str, bound: float) -> str:
    """Ratios of interleaved pairs, for a bound near 1. Fewer than six have no interval of 95 %."""
    return judge_interval(*interval_of_median(values), relation, bound) if len(values) >= 6 else "inconclusive"


def judge_rounds(values: list[float], relation: str, bound: float) -> str:
    """Ratios of a few rounds against a factor, by their median."""
    return "reached" if RELATIONS[relation](median(values), bound) else "not reached"


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
