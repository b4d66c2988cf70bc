#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Nothing of a released ABI has moved: each line the frozen header's layout program prints, today's prints, too.

    layout_test.py TODAY FROZEN...
"""
import subprocess
import sys


def lines(program):
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()


def main(today, *frozen):
    now = set(lines(today))
    moved = [f"{program}: {line}" for program in frozen for line in lines(program) if line not in now]
    print("\n".join(["no longer true of hookline/plugin.h:", *moved]) if moved else f"{len(now)} places are where they were")
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
