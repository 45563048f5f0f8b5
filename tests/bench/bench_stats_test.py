#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How verdicts of the bench are found."""

import unittest

from bench_stats import interval_of_median, judge_interval, judge_pairs, judge_rounds


class Rounds(unittest.TestCase):
    def test_factors_are_judged_by_the_median(self) -> None:
        self.assertEqual(judge_rounds([1.3, 1.5, 1.6], ">=", 1.4), "reached")
        self.assertEqual(judge_rounds([1.3, 1.35, 1.6], ">=", 1.4), "not reached")
        self.assertEqual(judge_rounds([0.7, 0.8, 0.9], "<=", 0.85), "reached")


class Pairs(unittest.TestCase):
    def test_are_judged_by_the_interval_of_their_median(self) -> None:
        even = [1 + 0.001 * step for step in range(20)]  # 1.005 to 1.014
        self.assertEqual(judge_pairs(even, ">", 1.004), "reached")
        self.assertEqual(judge_pairs(even, ">", 1.01), "inconclusive")
        self.assertEqual(judge_pairs(even, ">=", 1.02), "not reached")

    def test_a_few_wild_ones_decide_nothing(self) -> None:
        self.assertEqual(judge_pairs([0.5] * 4 + [1.02] * 16, ">", 1), "reached")
        self.assertEqual(judge_pairs([0.5] * 8 + [1.02] * 12, ">", 1), "inconclusive")

    def test_too_few_are_no_answer(self) -> None:
        self.assertEqual(judge_pairs([1.1] * 5, ">", 1), "inconclusive")
        self.assertEqual(judge_pairs([1.1] * 6, ">", 1), "reached")


class Interval(unittest.TestCase):
    def test_is_judged_as_a_whole(self) -> None:
        self.assertEqual(judge_interval(1.00, 1.02, "<=", 1.02), "reached")
        self.assertEqual(judge_interval(1.01, 1.03, "<=", 1.02), "inconclusive")
        self.assertEqual(judge_interval(1.021, 1.03, "<=", 1.02), "not reached")

    def test_level_is_not_ahead(self) -> None:
        self.assertEqual(judge_interval(1.0, 1.0, ">", 1), "not reached")
        self.assertEqual(judge_interval(1.0, 1.0, ">=", 1), "reached")

    def test_leaves_out_at_most_one_in_forty_on_each_side(self) -> None:
        # Of 20 values the 6th from either end: Binomial(20, 1/2) < 6 has 2.07 %, < 7 has 5.77 %.
        self.assertEqual(interval_of_median([float(value) for value in range(1, 21)]), (6.0, 15.0))


if __name__ == "__main__":
    unittest.main()
