#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replays README.md: what it shows is what happens.

usage: readme_test.py SOURCE_DIR BUILD_DIR CXX

  console blocks   each `$ hookline ...` line is run in the source folder; its whole output must be the lines below it
  yaml blocks      must pass `hookline check`
  cpp blocks       must compile against the public headers alone

A console block whose command begins with ./ needs more than a build and is not replayed here.
"""
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

INSTALLED_PLUGINS = "/usr/lib/hookline/plugins"


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands(block):
    """Pairs of a command and the output below it."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return found


def run(command, source, build):
    hookline = [str(build / "userspace-loader" / "hookline"), "--plugin-dir", str(build / "plugins")]
    argv = shlex.split(command)
    done = subprocess.run(hookline + argv[1:], cwd=source, text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return done.stdout.replace(str(build / "plugins"), INSTALLED_PLUGINS)


def main():
    source, build, cxx = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    readme = (source / "README.md").read_text()
    failures, replayed = [], 0

    for block in blocks(readme, "console"):
        for command, expected in commands(block):
            if command.startswith("./"):
                continue
            replayed += 1
            output = run(command, source, build)
            if output.rstrip("\n") != "\n".join(expected).rstrip("\n"):
                failures.append(f"$ {command}\n--- README says\n" + "\n".join(expected) + f"\n--- it prints\n{output}")

    with tempfile.TemporaryDirectory() as folder:
        for text in blocks(readme, "yaml"):
            replayed += 1
            file = pathlib.Path(folder) / "readme.yaml"
            file.write_text(text)
            done = subprocess.run([str(build / "userspace-loader" / "hookline"), "--plugin-dir", str(build / "plugins"),
                                   "check", str(file)], text=True, timeout=60, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                failures.append(f"yaml block: hookline check answers {done.returncode}\n{done.stdout}")
        for text in blocks(readme, "cpp"):
            replayed += 1
            file = pathlib.Path(folder) / "readme.cpp"
            file.write_text(text)
            done = subprocess.run([cxx, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                                   f"-I{source / 'core/include'}", str(file)], text=True, timeout=120,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                failures.append(f"cpp block does not compile:\n{done.stdout}")

    for failure in failures:
        print(failure, end="\n\n")
    if not replayed:
        failures.append("nothing")
        print("README.md has no block to replay")
    print(f"{replayed} replayed, {len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())
