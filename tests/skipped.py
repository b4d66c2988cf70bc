#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what tests have skipped, and says why.

Usage: skipped.py LOG    ctest's LastTest.log, with whole outputs
       skipped.py --self the test of this program
"""
import re
import sys

ENTRY = re.compile(r"^\d+/\d+ Testing: (\S+)")
REASON = re.compile(r": Skipped$")
SKIPPED = re.compile(r"^\[  SKIPPED \] (\S+?),? .*\(\d+ ms\)$")


def skipped(lines):
    """Yields (ctest entry, test, reason) for each test of GoogleTest that skipped itself."""
    entry, reason, reading = "?", [], False
    for line in lines:
        line = line.rstrip("\n")
        if found := ENTRY.match(line):
            entry = found[1]
        if found := SKIPPED.match(line):
            yield entry, found[1], " ".join(reason) or "no reason given"
            reason, reading = [], False
        elif REASON.search(line):
            reason, reading = [], True
        elif line.startswith("["):
            reason, reading = [], False
        elif reading and line:
            reason.append(line)


def report(lines):
    found = list(skipped(lines))
    text = f"skipped: {len(found) or 'nothing'}\n"
    reasons = {}
    for entry, test, reason in found:
        reasons.setdefault((entry, reason), []).append(test)
    for (entry, reason), tests in reasons.items():
        text += f"  {entry}: {len(tests)} ({', '.join(tests[:3])}{', ...' if len(tests) > 3 else ''}): {reason}\n"
    return text


SAMPLE = """\
3/60 Testing: sandbox_test
[ RUN      ] SandboxTest.RL3_GivesUpRoot
sandbox_test.cpp:85: Skipped
needs root, to have something to give up

[  SKIPPED ] SandboxTest.RL3_GivesUpRoot (0 ms)
[       OK ] SandboxTest.Other (0 ms)
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] SandboxTest.RL3_GivesUpRoot
9/60 Testing: vm_faults
[  SKIPPED ] Cell/FaultTest.RL1/NoMemory, where GetParam() = 7 (12 ms)
"""

EXPECTED = """\
skipped: 2
  sandbox_test: 1 (SandboxTest.RL3_GivesUpRoot): needs root, to have something to give up
  vm_faults: 1 (Cell/FaultTest.RL1/NoMemory): no reason given
"""


def main():
    if sys.argv[1:] == ["--self"]:
        got = report(SAMPLE.splitlines()) + report([])
        if got != EXPECTED + "skipped: nothing\n":
            sys.exit(f"FAILED: got\n{got}")
        return
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        sys.stdout.write(report(log))


main()
