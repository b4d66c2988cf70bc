#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What README.md shows of ./demo --qemu is what it prints, but for the numbers.

usage: demo_test.py README.md DEMO [ARGUMENT...]

Runs it and compares line by line; a table's rows may be more or less than in the README.
"""
import re
import subprocess
import sys


def shape(line):
    """Without what differs from run to run."""
    return re.sub(r"\s+", " ", re.sub(r"[0-9][0-9.:/]*", "N", line)).strip()


def shown(readme, arguments):
    """The README's blocks of this command."""
    command = " ".join(["./demo", *arguments])
    blocks = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", readme, re.M | re.S)
    return next((text.splitlines() for first, text in blocks if first == command), None)


def shapes(lines):
    found = []
    for line in map(shape, lines):
        if line and (not found or found[-1] != line):
            found.append(line)
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        wanted = shown(file.read(), sys.argv[3:])
    if not wanted:
        print(f"README.md shows nothing of ./demo {' '.join(sys.argv[3:])}")
        return 1
    done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout)
    printed = set(shapes(done.stdout.splitlines()))
    # Progress is what the moment makes of it; packages are installed once.
    missing = [line for line in shapes(wanted) if line not in printed and not re.match("(N )?migrate |prerequisites:", line)]
    for line in missing:
        print(f"README.md has, and the demo does not print: {line}")
    return 1 if missing or done.returncode else 0


sys.exit(main())
