#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `hookline` on each case and compares exit code, stdout and stderr, whole.

A case is NAME.expected in one of the folders beside this file. Its command line is in NAME.args, or else
`check NAME.yaml`. Cases run in their own folder; {toys} and {misbehaving} stand for folders of the build.

    run.py --hookline BUILD/userspace-loader/hookline --build BUILD [--update] [CASE...]

--update writes what the program says now; read the difference before you commit it.
"""
import argparse
import difflib
import os
import pathlib
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hookline", required=True, type=pathlib.Path)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("case", nargs="*", help="folder/name")
    options = parser.parse_args()
    places = {"toys": options.build.resolve() / "tests/toys", "misbehaving": options.build.resolve() / "tests/misbehaving/plugins"}
    for place in places.values():
        if not place.is_dir():
            sys.exit(f"{place} is missing: build everything first")

    cases = sorted({p.with_suffix("") for s in ("*/*.yaml", "*/*.args", "*/*.expected") for p in HERE.glob(s)})
    if options.case:
        cases = [c for c in cases if str(c.relative_to(HERE)) in options.case]
    if not cases:
        sys.exit("no such case")
    failed = []
    for case in cases:
        said = run(case, options.hookline.resolve(), places)
        expected = case.with_suffix(".expected")
        if options.update:
            expected.write_text(said)
            continue
        wanted = expected.read_text() if expected.exists() else ""
        if said != wanted:
            failed.append(case)
            name = str(case.relative_to(HERE))
            sys.stdout.writelines(difflib.unified_diff(wanted.splitlines(True), said.splitlines(True), f"{name} expected", f"{name} said"))
    print(f"{len(cases)} cases, {len(failed)} failed")
    return 1 if failed else 0


def run(case, hookline, places):
    args = case.with_suffix(".args")
    if args.exists():
        words = shlex.split(args.read_text(), comments=True)
        words = [w.format(**places) for w in words]
    else:
        words = ["--plugin-dir", str(places["toys"]), "check", case.name + ".yaml"]
    environment = {k: v for k, v in os.environ.items() if k not in ("HOOKLINE_PLUGIN_PATH", "NO_COLOR")}
    done = subprocess.run([hookline, *words], cwd=case.parent, env=environment, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    text = f"exit: {done.returncode}\n"
    for name, stream in (("stdout", done.stdout), ("stderr", done.stderr)):
        said = stream.decode("utf-8", "backslashreplace")
        for place, path in places.items():
            said = said.replace(str(path), "{" + place + "}")
        text += f"--- {name}\n{said}"
    return text


if __name__ == "__main__":
    sys.exit(main())
