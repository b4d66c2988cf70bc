# SPDX-License-Identifier: Apache-2.0
"""Whether one device can receive the state of another, from all who say so, before a VMM has opened the destination.

    answer = ask(host, source, destination, "host.yaml", plugin_dirs)
    if not answer.yes: print(answer.why())

The three are the command line about two devices, the command line about the source's exported description and a
configuration, and the destination's migration_version in sysfs. Errors: HostError where they do not agree, do not answer, or
have not looked at everything.
"""
import dataclasses
import errno
import os

from host import HostError


@dataclasses.dataclass
class Answer:
    yes: bool
    reasons: list  # as the command line's verdict on the two devices has them

    def why(self):
        """The reasons as a worker logs them, in one line."""
        return "; ".join(f"{reason['text']}: {reason['fix']}" for reason in self.reasons)


def ask(host, source, destination, config, plugin_dirs=()):
    """config, plugin_dirs: what the destination was set up with."""
    devices = host.compat_check("--source", source, "--dest", destination)
    types = host.compat_check("--source", "-", "--type", config, plugin_dirs=plugin_dirs, text=host.compat_export(source))
    code = offer(host, source, destination)
    answers = {"two devices": devices["compatible"], "a configuration": types["compatible"], "sysfs": code == 0}
    if len(set(answers.values())) != 1:
        raise HostError(f"{source} -> {destination}: {answers}; devices: {devices}; configuration: {types}; sysfs: errno {code}")
    if devices["unchecked"]:
        raise HostError(f"{source} -> {destination}: not all was looked at: {devices}")
    if told(devices) != told(types):
        raise HostError(f"{source} -> {destination}: not for the same reasons: devices: {devices}; configuration: {types}")
    return Answer(devices["compatible"], devices["reasons"])


def told(verdict):
    """What makes a reason the same: the words of a fix may know more where there is more to know of the source."""
    return [[reason[key] for key in ("code", "field", "source", "dest")] for reason in verdict["reasons"]]


def offer(host, source, destination):
    """As a management program does it: the errno of what was read at the source, written to the destination; or 0."""
    try:
        version = host.migration_version(source)
        host.offer(destination, version)
    except FileNotFoundError:
        return errno.ENOENT
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise HostError(f"{destination}: migration_version: {os.strerror(error.errno)}") from error
        return error.errno
    return 0
