#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the figures of ./bench are to be, and what no figure may become: targets.csv beside a report.

    targets.py judge REPORT...        the table of targets, for a terminal; always succeeds
    targets.py gate REPORT...         fails where a figure is missing or beyond its gate
    targets.py page REPORT...         the table of targets, for README.md
    targets.py check README REPORT... fails unless that table stands in the page
    targets.py join REPORT...         all of them as one

A report is what the programs write with --json, several joined, or a folder of them. It names its part of targets.csv:
native, vm or vm-7.2. A target or gate is
    ratio<=N    median of the ratios of times to the anchor
    GiB/s>=N    bytes per time, median
    more<=N     how much oftener than at the anchor
Gates are generous: they find what became several times worse, on a busy host without KVM.
"""
import csv
import json
import operator
import pathlib
import re
import sys
from dataclasses import dataclass

TABLE = pathlib.Path(__file__).parent / "targets.csv"
BEGIN, END = "<!-- targets -->", "<!-- end of targets -->"
COMPARE = {"<=": operator.le, ">=": operator.ge}
RULE = re.compile(r"(ratio|GiB/s|more)(<=|>=)([0-9.]+)")


@dataclass
class Limit:
    unit: str
    compare: str
    number: float

    @staticmethod
    def parse(text):
        if not text:
            return None
        match = RULE.fullmatch(text)
        if not match:
            raise SystemExit(f"{TABLE.name}: '{text}' is no target: see targets.py")
        return Limit(match[1], match[2], float(match[3]))

    def holds(self, value):
        return COMPARE[self.compare](value, self.number)

    def __str__(self):
        words = {"<=": "at most", ">=": "at least"}[self.compare]
        number = f"{self.number:g}"
        return {"ratio": f"{words} x{number}", "GiB/s": f"{words} {number} GiB/s", "more": f"{words} {number} more"}[self.unit]


def rows(table=TABLE):
    with open(table, newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            row["target"], row["gate"] = Limit.parse(row["target"]), Limit.parse(row["gate"])
            yield row


def find(report, row):
    for figure in report["figures"]:
        if all(figure[key] == row[column] for key, column in
               (("what", "figure"), ("anchor", "anchor"), ("placement", "placement"))):
            return figure
    for count in report["counts"]:
        if count["what"] == row["figure"] and count["anchor"] == row["anchor"]:
            return count
    return None


def value(figure, unit):
    """Median, and the interval that holds it with 95 %."""
    if unit == "more":
        more = figure["count"] - figure["anchor_count"]
        return more, (more, more)
    ratio = figure["ratio"]
    if unit == "ratio":
        return ratio["median"], tuple(ratio["interval95"] or (ratio["min"], ratio["max"]))
    rate = lambda ns: figure["bytes"] / ns * 1e9 / (1 << 30)
    times = figure["ns"]
    return rate(times["median"]), (rate(times["max"]), rate(times["min"]))


def number(n):
    return f"{n:.3f}" if n < 0.1 else f"{n:.2f}" if n < 100 else f"{n:.0f}"


def shown(figure, unit):
    median, (low, high) = value(figure, unit)
    if unit == "more":
        return f"{median}"
    text = f"{number(median)} [{number(low)}..{number(high)}]"
    return "x" + text if unit == "ratio" else text + " GiB/s"


def verdict(figure, target):
    if target is None:
        return "no target"
    median, interval = value(figure, target.unit)
    if target.holds(median):
        return "met"
    return "not decided" if any(map(target.holds, interval)) else "**not met**"


def faults(part, report, table):
    """Texts, one for each gate that does not hold."""
    for row in table:
        gate = row["gate"]
        if row["part"] != part or gate is None:
            continue
        name = f"{row['figure']} beside {row['anchor']} ({row['placement'] or 'counted'})"
        figure = find(report, row)
        if figure is None:
            yield f"{name}: not in the report"
        elif not gate.holds(value(figure, gate.unit)[0]):
            yield f"{name}: {shown(figure, gate.unit)}, the gate is {gate}: {row['why']}"


def table_of(reports, table):
    for row in table:
        if row["part"] not in reports:
            continue
        figure = find(reports[row["part"]], row)
        unit = (row["target"] or row["gate"]).unit
        yield {"figure": row["figure"], "beside": row["anchor"], "placement": row["placement"],
               "target": str(row["target"] or ""), "measured": shown(figure, unit) if figure else "not measured",
               "verdict": verdict(figure, row["target"]) if figure else "", "gate": str(row["gate"] or "none"),
               "why": row["why"]}


def page(reports, table):
    lines = ["| figure | beside | placement | target | measured | verdict | gate |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cells[c] for c in ("figure", "beside", "placement", "target", "measured", "verdict", "gate")) + " |"
              for cells in table_of(reports, table)]
    return "\n".join(lines) + "\n"


def terminal(reports, table):
    rows_ = [cells for cells in table_of(reports, table) if cells["target"]]
    columns = ("figure", "beside", "placement", "target", "measured", "verdict")
    widths = [max([len(c)] + [len(r[c]) for r in rows_]) for c in columns]
    for r in [dict(zip(columns, columns))] + rows_:
        print("  ".join(r[c].ljust(w) for c, w in zip(columns, widths)).rstrip())


def load(paths):
    reports = {}
    files = [file for path in map(pathlib.Path, paths)
             for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    for path in files:
        content = json.loads(path.read_text())
        for report in content if isinstance(content, list) else [content]:
            reports[report["part"]] = report
    return reports


def main(arguments):
    if len(arguments) < 2 or arguments[0] not in ("judge", "gate", "page", "check", "join"):
        raise SystemExit(__doc__)
    verb, rest = arguments[0], arguments[1:]
    table = list(rows())
    if verb == "check":
        readme, rest = pathlib.Path(rest[0]).read_text(), rest[1:]
        inside = readme.partition(BEGIN)[2].partition(END)[0].strip()
        if inside != page(load(rest), table).strip():
            raise SystemExit(f"the table of targets in the page is not what 'targets.py page {' '.join(rest)}' says")
        return 0
    reports = load(rest)
    if verb == "page":
        print(page(reports, table), end="")
    elif verb == "join":
        print(json.dumps(list(reports.values()), indent=2))
    elif verb == "judge":
        terminal(reports, table)
    else:
        broken = [text for part, report in reports.items() for text in faults(part, report, table)]
        for text in broken:
            print(text)
        return 1 if broken else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
