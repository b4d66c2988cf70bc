#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""That gates can fail, on reports made for it, and that targets.csv makes sense."""
import unittest

import targets
from targets import Limit


def ratio(what, median, anchor="anchor", placement="one CPU", interval=None, **more):
    return {"what": what, "anchor": anchor, "placement": placement, "ns": {"median": 1, "min": 1, "max": 1},
            "ratio": {"median": median, "min": median, "max": median, "interval95": interval}, **more}


def row(figure="a", target="", gate="", part="native", anchor="anchor", placement="one CPU"):
    return {"part": part, "figure": figure, "anchor": anchor, "placement": placement, "target": Limit.parse(target),
            "gate": Limit.parse(gate), "why": "because"}


class Gate(unittest.TestCase):
    def faults(self, figures, *table, counts=()):
        return list(targets.faults("native", {"figures": figures, "counts": list(counts)}, table))

    def test_a_figure_beyond_its_gate_is_told_with_the_reason(self):
        self.assertEqual(self.faults([ratio("a", 2.0)], row(gate="ratio<=2")), [])
        told = self.faults([ratio("a", 2.1)], row(gate="ratio<=2"))
        self.assertEqual(len(told), 1)
        self.assertIn("x2.10", told[0])
        self.assertIn("because", told[0])

    def test_a_rate_below_its_gate_is_told(self):
        slow = ratio("a", 1.0, bytes=1 << 30)
        slow["ns"] = {"median": 1e9, "min": 1e9, "max": 1e9}
        self.assertEqual(self.faults([slow], row(gate="GiB/s>=1")), [])
        self.assertEqual(len(self.faults([slow], row(gate="GiB/s>=1.1"))), 1)

    def test_more_requests_than_the_gate_allows_are_told(self):
        count = {"what": "a", "anchor": "anchor", "count": 5, "anchor_count": 1}
        self.assertEqual(self.faults([], row(gate="more<=4", placement=""), counts=[count]), [])
        self.assertEqual(len(self.faults([], row(gate="more<=3", placement=""), counts=[count])), 1)

    def test_a_figure_that_is_missing_is_told(self):
        for figures in [], [ratio("b", 1.0)], [ratio("a", 1.0, anchor="other")], [ratio("a", 1.0, placement="cross CPU")]:
            self.assertEqual(len(self.faults(figures, row(gate="ratio<=2"))), 1)

    def test_rows_of_other_parts_and_without_a_gate_are_not_asked(self):
        self.assertEqual(self.faults([], row(gate="ratio<=2", part="vm"), row(target="ratio<=2")), [])


class Verdict(unittest.TestCase):
    def test_words(self):
        target = Limit.parse("ratio<=1.3")
        self.assertEqual(targets.verdict(ratio("a", 1.3), target), "met")
        self.assertEqual(targets.verdict(ratio("a", 1.4, interval=[1.2, 1.5]), target), "not decided")
        self.assertEqual(targets.verdict(ratio("a", 1.4, interval=[1.35, 1.5]), target), "**not met**")
        self.assertEqual(targets.verdict(ratio("a", 1.4), None), "no target")

    def test_nonsense_is_refused(self):
        for text in "ratio<1", "ratio<=", "ns<=4", "ratio<=1.3 or so":
            with self.assertRaises(SystemExit):
                Limit.parse(text)


class Table(unittest.TestCase):
    def test_every_row_says_something_and_why(self):
        table = list(targets.rows())
        self.assertGreater(len(table), 10)
        for line in table:
            with self.subTest(line["figure"]):
                self.assertIn(line["part"], ("native", "vm", "vm-7.2"))
                self.assertTrue(line["target"] or line["gate"])
                self.assertTrue(line["why"])

    def test_no_gate_is_tighter_than_its_target(self):
        for line in targets.rows():
            target, gate = line["target"], line["gate"]
            if target and gate and target.unit == gate.unit:
                with self.subTest(line["figure"]):
                    self.assertTrue(gate.holds(target.number))


class Page(unittest.TestCase):
    def test_an_old_table_is_told(self):
        report = {"figures": [ratio("a", 1.0)], "counts": []}
        table = [row(target="ratio<=2")]
        text = targets.page({"native": report}, table)
        self.assertIn("| a | anchor | one CPU | at most x2 | x1.00 [1.00..1.00] | met | none |", text)
        report["figures"][0]["ratio"]["median"] = 3.0
        self.assertNotEqual(targets.page({"native": report}, table), text)


if __name__ == "__main__":
    unittest.main()
