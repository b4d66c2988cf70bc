// SPDX-License-Identifier: Apache-2.0
//
// A loaded plugin, told to people and to programs: what `hookline describe` prints.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "plugin_library.hpp"

namespace hookline::loader {

/// What an administrator has to know where a migration owner is used; see also configs/README.md.
inline constexpr const char* kEnableMigrationNote =
    "where the kernel cannot report dirty pages (vfio without IOMMUFD, as in Debian 12 and 13), QEMU migrates the\n"
    "device only with enable-migration=on in its -device vfio-pci option";

/// What keeps a destination that does not fit from costing the guest anything.
inline constexpr const char* kReturnPathNote =
    "switch on QEMU's migration capabilities return-path and switchover-ack on both sides: then a destination that does\n"
    "not fit is refused while the guest runs (hookline(8), MIGRATION WITH QEMU)";

/// QEMU's words for a destination that Hookline has no part in, and so no line in a log for.
inline constexpr const char* kForeignDestinationNote =
    "where QEMU at the destination says \"Unknown savevm section or instance '.../vfio'\" or \"VFIO migration is not supported\n"
    "in kernel\", its device has no chain that migrates it: see `hookline status` there";

std::string describe_text(const LoadedPlugin& plugin);
nlohmann::ordered_json describe_json(const LoadedPlugin& plugin);

/// "set bits 0x4 of CTRL"
std::string describe_step(const hookline_plugin& plugin, const hookline_step& step);

}  // namespace hookline::loader
