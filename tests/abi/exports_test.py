#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each shared object in the given folders exports its one data symbol, and nothing that the dynamic linker would share
between plugins (STB_GNU_UNIQUE makes two plugins use one static variable, and keeps them from being unmapped).

    exports_test.py FOLDER...
"""
import pathlib
import subprocess
import sys

ALLOWED = ("hookline_plugin_v1", "hookline_model_v1")


def exported(path):
    """(name, binding, type) of each defined dynamic symbol."""
    said = subprocess.run(["readelf", "--dyn-syms", "--wide", path], capture_output=True, text=True)
    for line in said.stdout.splitlines():
        words = line.split()
        if len(words) >= 8 and words[0].rstrip(":").isdigit() and words[6] != "UND":
            yield words[7].split("@")[0], words[4], words[3]


def faults(path):
    symbols = list(exported(path))
    names = [name for name, _, _ in symbols]
    found = [f"{name} is {binding}" for name, binding, _ in symbols if binding == "UNIQUE"]
    if len(names) != 1 or names[0] not in ALLOWED:
        found.append(f"exports {', '.join(names) or 'nothing'}; one of {', '.join(ALLOWED)} is expected")
    found += [f"{name} is no data object" for name, _, kind in symbols if kind != "OBJECT"]
    return found


def main(folders):
    files = sorted(f for folder in folders for f in pathlib.Path(folder).glob("*.so"))
    if not files:
        sys.exit(f"no shared object in {', '.join(folders)}: build everything first")
    bad = [f"{path}: {fault}" for path in files for fault in faults(path)]
    print("\n".join(bad) or f"{len(files)} files export what they should")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
