// SPDX-License-Identifier: Apache-2.0
//
// One side of a migration as the command line names it, described: a file, a device of this host, or a configuration.
//
// A source is described by its migration_version alone. A destination on this host is described by the plugins of its
// chain and the values sysfs shows, and is believed only where that is what its worker answers, too. Thread rule: that
// of plugin_library.hpp. Errors: Undescribed; whoever cannot be described is not compatible, or nobody can tell.
//
//     const auto source = describe_source(word, host);
//     if (!source) return report(source.error());
//     const Verdict verdict = check_compatibility(source->descriptor, dest->descriptor);
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/compatibility.hpp>
#include <tl/expected.hpp>

#include "command.hpp"
#include "config_model.hpp"
#include "run_state.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

/// Whether a VMM has a device open. A file and a configuration are never in use.
enum class Use { free, open, not_known };

struct Side {
  std::string name;  ///< as it was asked for; of a configuration FILE:LINE
  Descriptor descriptor;
  Use use = Use::free;
};

/// kUsage: the file is wrong, and the reason has only a text. kNo: it does not migrate. kUnknown: nobody can tell.
struct Undescribed {
  std::string name;
  ExitCode code = kUnknown;
  Reason reason{};
};

template <typename T>
using Described = tl::expected<T, Undescribed>;

/// Where devices are looked up.
struct CompatHost {
  Sysfs sysfs;
  RunState state;
  /// An error where it cannot be asked: that takes root.
  std::function<Result<bool>(const PciAddress&)> is_open;
};

/// FILE, "-" for standard input, or DEVICE; `word` as on the command line.
Described<Side> describe_source(const std::string& word, const CompatHost& host);
/// DEVICE, by its plugins and values, and whether it is open.
Described<Side> describe_device(const PciAddress& address, const CompatHost& host);
/// Each entry of a configuration that migrates; never empty. No device is asked.
Described<std::vector<Side>> describe_config(const std::string& file, const Globals& globals);
/// FILE, "-", DEVICE, or CONFIG (.yaml, .yml).
Described<std::vector<Side>> describe_destinations(const std::string& word, const CompatHost& host, const Globals& globals);

bool names_config(std::string_view word);

}  // namespace hookline::loader
