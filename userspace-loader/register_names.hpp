// SPDX-License-Identifier: Apache-2.0
//
// The kernel's trace of a device, read with the names a plugin gives its registers.
//
// Pure; any thread. No errors: a line that speaks of no register is handed back as it is.
//
//     name_registers(plugin, "... channel read region 0 offset 0xc40 length 4 ...")
//         -> "... channel read region 0 offset 0xc40 (V2PMAILBOX) length 4 ..."
#pragma once

#include <string>

#include <hookline/plugin.h>

namespace hookline::loader {

/// Puts the register's name behind each "region N offset 0xM"; "NAME+2" inside a register.
std::string name_registers(const hookline_plugin& plugin, const std::string& line);

}  // namespace hookline::loader
