#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The kernel module compiles without a warning of gcc (W=1) or sparse, and keeps to the kernel's style where a machine can tell.

usage: module_lint.py SOURCE_DIR BUILD_DIR
       module_lint.py --self           shows that each style rule can fail
"""
import pathlib
import re
import subprocess
import sys

COLUMNS = 100
# Per line: what must not be there, and why. Tabs count as 8 columns.
RULES = [
    (re.compile(r"[ \t]+$"), "white space at the end"),
    (re.compile(r"^ {8,}\S"), "indented with spaces: use tabs"),
    (re.compile(r"^ *\t* +\t"), "a space before a tab"),
    (re.compile(r"(?<![:\"])//(?! SPDX-License-Identifier)"), "a // comment: use /* */"),
    (re.compile(r"\b(printk|pr_debug|BUG_ON|BUG)\s*\("), "printk, pr_debug and BUG: say dev_* or WARN_ON, and go on"),
    (re.compile(r"\b(if|for|while|switch)\("), "no space before ("),
    (re.compile(r"\)\{|\belse\{"), "no space before {"),
    (re.compile(r"^\s*typedef\b"), "a typedef"),
    (re.compile(r"\bLINUX_VERSION_CODE\b|\bKERNEL_VERSION\b"), "a version number: grep the header instead (Kbuild, compat.h)"),
]
CODE = re.compile(r'"(\\.|[^"\\])*"')


def style(name, text):
    found = []
    lines = text.split("\n")
    comment = "/*" if name.endswith(".h") else "//"
    if not re.match(re.escape(comment) + r" SPDX-License-Identifier: GPL-2\.0-only", lines[0]):
        found.append(f"{name}:1: the first line is not the SPDX line of this kind of file")
    for number, line in enumerate(lines, 1):
        bare = CODE.sub('""', line)
        # Messages stay in one piece, so that they can be searched for; the uAPI header's comments stand behind its fields.
        if len(bare.expandtabs(8)) > COLUMNS and "/uapi/" not in name:
            found.append(f"{name}:{number}: longer than {COLUMNS} columns")
        for rule, why in RULES:
            if rule.search(bare):
                found.append(f"{name}:{number}: {why}")
    if lines and lines[-1] != "":
        found.append(f"{name}:{len(lines)}: no newline at the end")
    return found


def self_test():
    good = "// SPDX-License-Identifier: GPL-2.0-only\nint f(void)\n{\n\tif (a)\n\t\treturn 1;\n}\n"
    bad = ["int a; \n", "        int a;\n", "\t \tint a;\n", "\tint a; // why\n", "\tprintk(1);\n", "\tif(a)\n", "\tif (a){\n",
           "typedef int a;\n", "#if LINUX_VERSION_CODE > 1\n", "\t" + "a" * COLUMNS + "\n"]
    problems = style("good.c", good)
    problems += [f"nothing found in {line!r}" for line in bad if not style("bad.c", good + line)]
    problems += [] if style("bad.c", "int a;\n") else ["a missing SPDX line is not found"]
    problems += [] if style("bad.c", good + "int a;") else ["a missing newline is not found"]
    return problems


def compile_warnings(source, build):
    """gcc's with W=1, and sparse's: the whole module anew, in a folder of its own."""
    kernel = subprocess.run([source / "tests/prerequisites", "kernel-build"], text=True, check=True, capture_output=True).stdout.strip()
    subprocess.run(["rm", "-rf", build], check=True)
    subprocess.run(["cp", "-a", source / "vfio-pci-hooks", build], check=True)
    done = subprocess.run(["make", "-C", build, f"KDIR={kernel}", "W=1", "sparse"], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300, check=False)
    found = [line for line in done.stdout.splitlines() if re.search(r"\b(warning|error):", line)]
    if done.returncode != 0:
        found.append(f"make answers {done.returncode}:\n{done.stdout[-2000:]}")
    if "CHECK" not in done.stdout:
        found.append("sparse did not run")
    return found


def main():
    if sys.argv[1:] == ["--self"]:
        problems = self_test()
    else:
        source, build = (pathlib.Path(argument) for argument in sys.argv[1:3])
        files = sorted(f for f in (source / "vfio-pci-hooks").rglob("*.[ch]") if "tests" not in f.parts[-2:-1] and not f.name.endswith(".mod.c"))
        problems = [] if files else ["no source found"]
        for file in files:
            problems += style(str(file.relative_to(source)), file.read_text())
        problems += compile_warnings(source, build)
    print("\n".join(problems) or "clean")
    return 1 if problems else 0


sys.exit(main())
