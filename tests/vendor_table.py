#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is left for a vendor: the plugins' lines beside those of the variant drivers in the kernel.

usage: vendor_table.py SOURCE_DIR            the README's table is what counting gives; exit status 1 if not
       vendor_table.py --write SOURCE_DIR    writes it there
       vendor_table.py --kernel DIR          counts the drivers again, in the source of a kernel

One counter for all: lines that are neither blank nor comment. The drivers' figures below are those of one kernel; where its
source is at hand (tests/prerequisites kernels) the check counts them again.
"""
import os
import pathlib
import re
import sys

KERNEL = "7.2.12"
# Folder in drivers/vfio/pci, what it moves, lines of its *.c and *.h, and where else in the kernel code for its migration lies.
DRIVERS = [
    ("mlx5", "NVIDIA ConnectX VFs", 2920, "commands in mlx5_core"),
    ("hisilicon", "HiSilicon accelerator VFs", 1472, "queue manager in hisi_qm"),
    ("pds", "AMD Pensando VFs", 1685, "admin queue in pds_core"),
    ("qat", "Intel QuickAssist VFs", 542, "all of the device's part, in drivers/crypto/intel/qat"),
    ("virtio", "virtio-net VFs", 1661, "admin commands in virtio_pci"),
    ("xe", "Intel graphics VFs", 448, "all of the device's part, in drivers/gpu/drm/xe"),
]
PLUGINS = [
    ("nic-82576", "Intel 82576 VFs", "plugins/nic-82576/nic_82576.cpp"),
    ("gpu-bochs", "bochs displays, with PRE_COPY", "plugins/gpu-bochs/gpu_bochs.cpp"),
]
HANDLER = "vfio-pci-hooks/handlers"  # of the NIC's option dirty_tracking, in the kernel
BEGIN, END = "<!-- written by tests/vendor_table.py -->\n", "<!-- until here -->\n"


def lines_of(text):
    """Strings are kept whole: a comment sign in one is none."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    bare = token.sub(lambda m: re.sub(r"[^\n]", "", m[0]) if m[0][0] == "/" else m[0], text)
    return sum(1 for line in bare.splitlines() if line.strip())


def lines_of_files(files):
    return sum(lines_of(path.read_text(encoding="utf-8")) for path in files)


def count_drivers(kernel):
    return {name: lines_of_files(sorted((kernel / "drivers/vfio/pci" / name).glob("*.[ch]"))) for name, *_ in DRIVERS}


def table(source):
    rows = ["| | moves | lines | and elsewhere |", "|---|---|---|---|"]
    for name, what, path in PLUGINS:
        rows.append(f"| [{name}](plugins/{name}/README.md) | {what} | {lines_of_files([source / path])} | |")
    files = sorted((source / HANDLER).glob("82576_*.[ch]"))
    rows.append(f"| [{HANDLER}]({HANDLER}) | nothing; tells what the NIC wrote, as an option | {lines_of_files(files)} | |")
    for name, what, lines, elsewhere in DRIVERS:
        rows.append(f"| drivers/vfio/pci/{name} | {what} | {lines:,} | {elsewhere} |")
    return "\n".join(rows) + f"\n\nLines that are neither blank nor comment; the drivers' are those of Linux {KERNEL}.\n"


def kernels_at_hand():
    """Where tests/prerequisites kernels has put them. This is a test, and fetches nothing."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    found = sorted((cache / "hookline/kernels").glob("linux-source-*"))
    return [kernel for kernel in found if (kernel / "Makefile").exists() and version_of(kernel) == KERNEL]


def version_of(kernel):
    parts = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", (kernel / "Makefile").read_text(), re.M))
    return ".".join(parts[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def main():
    if sys.argv[1] == "--kernel":
        print(version_of(pathlib.Path(sys.argv[2])), count_drivers(pathlib.Path(sys.argv[2])))
        return 0
    write = sys.argv[1] == "--write"
    source = pathlib.Path(sys.argv[-1])
    readme = (source / "README.md").read_text()
    before, rest = readme.split(BEGIN)
    shown, after = rest.split(END)
    right = table(source)
    if write:
        (source / "README.md").write_text(before + BEGIN + right + END + after)
        return 0
    failures = []
    if shown != right:
        failures.append(f"README.md shows\n{shown}\ncounting gives\n{right}\ntests/vendor_table.py --write .")
    for name, _, path in PLUGINS:
        if (lines := lines_of_files([source / path])) > 300:
            failures.append(f"{name} has {lines} lines, a migration plugin may have 300")
    kernels = kernels_at_hand()
    for kernel in kernels:
        for name, _, lines, _ in DRIVERS:
            if (counted := count_drivers(kernel)[name]) != lines:
                failures.append(f"drivers/vfio/pci/{name} has {counted} lines, not {lines}")
    print("\n".join(failures) or "the table is right" + ("" if kernels else f"; no source of Linux {KERNEL} here to count its drivers again"))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
