// SPDX-License-Identifier: Apache-2.0
//
// Takes from the calling process what a worker does not need, before any code of a plugin runs in it: root, capabilities,
// the ways to get them back, and every system call but those that serving a device takes. For good.
//
// Whole process; call it with one thread. Errors: Result; a process that gets one must end.
//
//     if (auto ok = enter_sandbox(); !ok) return ok;   // files that all may read can still be read, nothing be written
#pragma once

#include "hookline/result.hpp"

namespace hookline::loader {

/// User `hookline` if there is one, else `nobody`. Without root only what needs no root is done.
Result<void> enter_sandbox();

/// The system-call filter alone.
Result<void> restrict_system_calls();

}  // namespace hookline::loader
