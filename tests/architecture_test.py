#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Dependencies point one way: plugin ABI <- core <- userspace-loader. Greps #include lines and licences.

    architecture_test.py ROOT      checks a tree
    architecture_test.py --self    checks that each rule can fail, on trees made for it
"""
import pathlib
import re
import sys
import tempfile

SOURCES = {".c", ".h", ".cpp", ".hpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')

# What a file may not include; each rule whose `where` matches holds.
#   where: files; unless: files the rule does not hold for; forbid: included names; why: told to who broke it
RULES = [
    dict(where=r"core/", unless=r"core/src/descriptor_json\.cpp$", forbid=r"nlohmann/",
         why="descriptor_json.cpp is the only file of core that knows JSON"),
    dict(where=r"core/", forbid=r"(yaml-cpp|boost|spdlog|CLI|netlink|systemd)/|seccomp\.h$",
         why="core knows no configuration, no Boost, no logging library, no command line"),
    dict(where=r"core/", forbid=r"(sys/socket|sys/un|netdb|netinet/.*|arpa/.*)\.?h?$", why="core opens no socket"),
    dict(where=r"core/", forbid=r"(^|/)(plugins|userspace-loader|tests|vfio-pci-hooks)/", why="core depends on nothing above it"),
    dict(where=r"core/include/hookline/plugin\.h$", forbid=r"^(?!std(int|def)\.h$)", why="the ABI header needs stdint.h and stddef.h only"),
    dict(where=r"core/include/hookline/plugin\.hpp$", forbid=r"^(linux|hookline)/(?!plugin\.h$)",
         why="the facade needs hookline/plugin.h only"),
    dict(where=r"plugins/", unless=r"(_test\.(c|cpp)$|/tests?/|model)", forbid=r"^hookline/(?!plugin\.hp?p?$)",
         why="a plugin sees hookline/plugin.h and plugin.hpp only"),
    dict(where=r"plugins/.*model", unless=r"_test\.(c|cpp)$", forbid=r"^hookline/(?!(model\.h|plugin\.hp?p?)$)",
         why="a model sees hookline/model.h and the plugin headers only"),
    dict(where=r"plugins/", unless=r"_test\.(c|cpp)$", forbid=r"^(boost|yaml-cpp|spdlog|CLI|nlohmann|fmt|tl)/|^(core|userspace-loader|tests)/",
         why="a plugin depends on the ABI, not on its host"),
    dict(where=r"userspace-loader/", unless=r"userspace-loader/plugin_library\.cpp$", forbid=r"^boost/dll",
         why="plugin_library.cpp is the only user of Boost.DLL"),
    dict(where=r"userspace-loader/", unless=r"userspace-loader/config_parse\.cpp$", forbid=r"^yaml-cpp/",
         why="config_parse.cpp is the only user of yaml-cpp"),
    dict(where=r"userspace-loader/", unless=r"_test\.cpp$", forbid=r"^(plugins|tests)/", why="the loader knows no plugin by name"),
    dict(where=r"vfio-pci-hooks/", unless=r"^vfio-pci-hooks/tests/", forbid=r"^hookline/|^(core|plugins|userspace-loader|tests)/|^std(int|def|io|lib)\.h$",
         why="the kernel module shares its uAPI header with userspace and nothing else"),
]

# Vendors and their devices do not appear in core, not even as words.
VENDOR_WORDS = re.compile(r"\b(82576|igb|igbvf|mlx5|intel|nvidia|bochs|amd|virtio)\b", re.IGNORECASE)

LICENCES = [
    (re.compile(r"^vfio-pci-hooks/include/uapi/"), "GPL-2.0-only WITH Linux-syscall-note"),
    (re.compile(r"^vfio-pci-hooks/tests/"), "Apache-2.0"),  # programs that run in userspace
    (re.compile(r"^vfio-pci-hooks/"), "GPL-2.0-only"),
    (re.compile(r""), "Apache-2.0"),
]
LICENSED = SOURCES | {".py", ".sh", ".cmake"}
FOLDERS = ["core", "plugins", "userspace-loader", "vfio-pci-hooks", "configs", "tests", "cmake"]


def files(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and "/build/" not in name and not name.endswith(".mod.c"):
                yield path, name


def include_faults(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        for rule in RULES:
            if not re.match(rule["where"], name) or ("unless" in rule and re.search(rule["unless"], name)):
                continue
            if re.search(rule["forbid"], match.group(1)):
                yield f"{name}:{number}: includes {match.group(1)}: {rule['why']}"


def vendor_faults(name, text):
    if not name.startswith("core/") or name.endswith(("_test.cpp", "_test.c")):
        return
    for number, line in enumerate(text.splitlines(), 1):
        # Examples in comments may name a device; code may not.
        code = re.sub(r"//.*|/\*.*?\*/|^\s*\*.*|/\*.*", "", line)
        if VENDOR_WORDS.search(code):
            yield f"{name}:{number}: names a vendor or its device: {line.strip()}"


def licence_faults(name, text):
    wanted = next(licence for pattern, licence in LICENCES if pattern.match(name))
    first = "\n".join(text.splitlines()[:2])
    found = re.search(r"SPDX-License-Identifier: ([^\n*]+)", first)
    if not found:
        yield f"{name}:1: no SPDX line, \"SPDX-License-Identifier: {wanted}\" is expected"
    elif found.group(1).strip() != wanted:
        yield f"{name}:1: licensed as {found.group(1).strip()}, {wanted} is expected here"


def faults(root):
    seen = 0
    for path, name in files(root):
        is_script = path.suffix == "" and path.read_bytes()[:2] == b"#!"
        if path.suffix not in LICENSED and path.name != "CMakeLists.txt" and not is_script:
            continue
        seen += 1
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from licence_faults(name, text)
        if path.suffix in SOURCES:
            yield from include_faults(name, text)
            yield from vendor_faults(name, text)
    if not seen:
        yield f"{root}: no source files found"


APACHE = "// SPDX-License-Identifier: Apache-2.0\n"
GPL = "// SPDX-License-Identifier: GPL-2.0-only\n"

# A tree of one file, and whether it breaks a rule.
SELF = [
    ("core/src/a.cpp", APACHE + "#include <yaml-cpp/yaml.h>\n", "no configuration"),
    ("core/src/a.cpp", APACHE + "#include <boost/dll.hpp>\n", "no Boost"),
    ("core/src/a.cpp", APACHE + "#include <spdlog/spdlog.h>\n", "logging library"),
    ("core/src/a.cpp", APACHE + "#  include <CLI/CLI.hpp>\n", "command line"),
    ("core/src/a.cpp", APACHE + "#include <nlohmann/json.hpp>\n", "only file of core that knows JSON"),
    ("core/src/descriptor_json.cpp", APACHE + "#include <nlohmann/json.hpp>\n", None),
    ("core/src/a.cpp", APACHE + "#include <sys/socket.h>\n", "no socket"),
    ("core/src/a.cpp", APACHE + '#include "userspace-loader/command.hpp"\n', "nothing above it"),
    ("core/src/a.cpp", APACHE + "int igbvf = 1;\n", "names a vendor"),
    ("core/src/a.cpp", APACHE + "// as igbvf does\n#include <fmt/format.h>\n#include <sys/mman.h>\n", None),
    ("core/include/hookline/plugin.h", APACHE + "#include <stdio.h>\n", "stdint.h and stddef.h only"),
    ("core/include/hookline/plugin.h", APACHE + "#include <stdint.h>\n", None),
    ("core/include/hookline/plugin.hpp", APACHE + "#include <hookline/chain.hpp>\n", "hookline/plugin.h only"),
    ("core/include/hookline/plugin.hpp", APACHE + '#include <span>\n#include "hookline/plugin.h"\n', None),
    ("plugins/toy/toy.cpp", APACHE + "#include <hookline/chain.hpp>\n", "a plugin sees"),
    ("plugins/toy/toy.cpp", APACHE + "#include <hookline/model.h>\n", "a plugin sees"),
    ("plugins/toy/toy.cpp", APACHE + "#include <fmt/format.h>\n", "not on its host"),
    ("plugins/toy/toy.cpp", APACHE + "#include <hookline/plugin.hpp>\n#include <array>\n#include \"regs.h\"\n", None),
    ("plugins/toy/model.cpp", APACHE + "#include <hookline/model.h>\n", None),
    ("plugins/toy/model.cpp", APACHE + "#include <hookline/stream.hpp>\n", "a model sees"),
    ("plugins/toy/toy_test.cpp", APACHE + "#include <hookline/chain.hpp>\n", None),
    ("userspace-loader/plan.cpp", APACHE + "#include <boost/dll/shared_library.hpp>\n", "Boost.DLL"),
    ("userspace-loader/plugin_library.cpp", APACHE + "#include <boost/dll/shared_library.hpp>\n", None),
    ("userspace-loader/config_check.cpp", APACHE + "#include <yaml-cpp/yaml.h>\n", "yaml-cpp"),
    ("userspace-loader/config_parse.cpp", APACHE + "#include <yaml-cpp/parser.h>\n", None),
    ("userspace-loader/cmd_run.cpp", APACHE + '#include "plugins/trace/trace.hpp"\n', "by name"),
    ("vfio-pci-hooks/main.c", GPL + "#include <hookline/plugin.h>\n", "shares its uAPI"),
    ("vfio-pci-hooks/main.c", GPL + "#include <linux/module.h>\n#include \"internal.h\"\n", None),
    ("vfio-pci-hooks/main.c", APACHE, "GPL-2.0-only is expected"),
    ("vfio-pci-hooks/include/uapi/linux/x.h", GPL, "Linux-syscall-note is expected"),
    ("core/src/a.cpp", GPL, "Apache-2.0 is expected"),
    ("core/src/a.cpp", "int a;\n", "no SPDX line"),
    ("tests/run", "#!/bin/sh\ntrue\n", "no SPDX line"),
    ("tests/run", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n", None),
    ("README", "nothing to look at\n", "no source files found"),
]


def check_self():
    wrong = 0
    for name, text, expected in SELF:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            found = list(faults(pathlib.Path(folder)))
        as_expected = any(expected in fault for fault in found) if expected else not found
        if not as_expected:
            wrong += 1
            print(f"{name} with {text!r}: found {found}, expected {expected!r}")
    print(f"{len(SELF)} trees, {wrong} judged wrongly")
    return 1 if wrong else 0


def main(argument):
    if argument == "--self":
        return check_self()
    found = list(faults(pathlib.Path(argument)))
    print("\n".join(found) or "dependencies and licences are as they should be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
