#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replays configs/upgrade.md: a fleet of two hosts, each a folder that looks like /sys and /run to `hookline`.

usage: guide_test.py SOURCE_DIR BUILD_DIR [--update]

Each line `old$ ...` or `new$ ...` of a console block is run by a shell on that host, in one folder that both see; what it
prints must be the lines below it. The device of each host is a function with the configuration nics.yaml applied; where a
kernel would ask a worker for migration_version, this script answers with what the values of the moment make of it.
--update writes what is printed now; read the difference before you commit it.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

DEVICES = ["0000:01:10.0", "0000:01:10.2"]
CONFIG = 'devices:\n  - match: { address: "0000:01:10.0" }\n    chain:\n      - plugin: params-toy\n'
PROMPT = re.compile(r"^(old|new)\$ (.*)$")


class Host:
    def __init__(self, name, folder, plugins, hookline):
        self.root = folder / name
        self.plugins = plugins
        self.bin = self.root / "bin"
        self.bin.mkdir(parents=True)
        wrapper = self.bin / "hookline"
        wrapper.write_text(f'#!/bin/sh\nexec "{hookline}" --allow-untrusted --plugin-dir "{plugins}" --root "{self.root}" "$@"\n')
        wrapper.chmod(0o755)
        config = folder / f"{name}.yaml"
        config.write_text(CONFIG)
        text = subprocess.run([wrapper, "compat", "export", config], check=True, text=True, stdout=subprocess.PIPE).stdout
        config.unlink()
        self.info = json.loads(text)
        for device in DEVICES:
            self.set_up(device)

    def device(self, address):
        return self.root / "sys/bus/pci/devices" / address

    def set_up(self, address):
        files = {"vendor": "0x1234", "device": "0x0001", "driver_override": "(null)", "migration/model": self.info["model"]}
        for p in self.info["parameters"]:
            for key in ("value", "init_value", "off_value", "allowed_values", "description"):
                files[f"migration/{p['name']}/{key}"] = p[key]
        for name, value in files.items():
            path = self.device(address) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value + "\n")
        record = {"schema": 1, "found": {"driver": "", "driver_override": ""},
                  "device": {"address": address, "id": "1234:0001", "pf": None, "vf": None, "guest_memory": "none",
                             "on_worker_loss": "pass", "state_change_ms": 10000, "access_ms": 100, "migrates": True,
                             "allow_untrusted": True, "config_file": "nics.yaml", "config_space": "", "parameters": [],
                             "chain": [{"name": "params-toy", "file": str(self.plugins / "params-toy.so"), "options": []}]}}
        run = self.root / "run/hookline"
        run.mkdir(parents=True, exist_ok=True)
        (run / f"{address}.json").write_text(json.dumps(record))

    def answer(self):
        """What a worker would say: migration_version with the parameters that are not off, in the order of their declaration."""
        for address in DEVICES:
            brief = {k: self.info[k] for k in ("model", "plugin", "emits", "capabilities")}
            parameters = []
            for p in self.info["parameters"]:
                value = (self.device(address) / "migration" / p["name"] / "value").read_text().strip()
                if p["version"]:
                    brief["emits"] = value
                if value != p["off_value"]:
                    parameters.append({"name": p["name"], "value": value} | ({"version": True} if p["version"] else {}))
            if parameters:
                brief["parameters"] = parameters
            (self.device(address) / "migration_version").write_text(json.dumps(brief, separators=(",", ":")) + "\n")

    def run(self, command, folder):
        self.answer()
        done = subprocess.run(["bash", "-c", command.replace("/sys/", f"{self.root}/sys/")], cwd=folder, text=True, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
                              env=os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"})
        return done.stdout.replace(str(self.root), "")


def main():
    source, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    page = source / "configs/upgrade.md"
    out, replayed, wrong, expected, in_block = [], 0, 0, None, False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shared = folder / "work"
        shared.mkdir()
        (shared / "nics.yaml").write_text(CONFIG)
        hookline = build / "userspace-loader/hookline"
        hosts = {"old": Host("old", folder, build / "tests/toys-1", hookline), "new": Host("new", folder, build / "tests/toys", hookline)}

        def compare():
            nonlocal wrong
            if expected is not None and expected[1] != expected[2]:
                wrong += 1
                print(f"{expected[0]}\n--- the page says\n" + "\n".join(expected[2]) + "\n--- it prints\n" + "\n".join(expected[1]) + "\n")

        for line in page.read_text().splitlines():
            prompt = PROMPT.match(line) if in_block else None
            if line.startswith("```"):
                compare()
                expected, in_block = None, line == "```console"
                out.append(line)
            elif prompt:
                compare()
                printed = hosts[prompt[1]].run(prompt[2], shared).splitlines()
                expected = (line, printed, [])
                replayed += 1
                out += [line] + printed
            elif expected is not None:
                expected[2].append(line)
            else:
                out.append(line)
    if "--update" in sys.argv:
        page.write_text("\n".join(out) + "\n")
        return 0
    print(f"{replayed} commands replayed, {wrong} print something else")
    return 1 if wrong or not replayed else 0


sys.exit(main())
