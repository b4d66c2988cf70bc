// SPDX-License-Identifier: Apache-2.0
//
// A configuration that has been checked: typed, complete (every default filled in), and consistent as far as the file and
// the plugins can tell. Made by config_check.hpp only; whoever holds one need not check it again.
//
// Thread rule: plain values. Errors: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "diagnostics.hpp"
#include "hookline/chain.hpp"
#include "pci_address.hpp"
#include "plugin_library.hpp"

namespace hookline::loader {

enum class GuestMemory { none, read, write };
enum class WorkerLoss { pass, fail };

struct Limits {
  std::chrono::milliseconds state_change{10000};
  std::chrono::milliseconds access{100};
};

/// Which functions: one by its address, or VFs of a PF by their index. What `address` and `pf` mean on this host is asked
/// of the hardware, later.
struct Match {
  std::optional<PciAddress> address;
  std::string pf;             ///< network interface or PCI address; empty with `address`
  std::vector<uint32_t> vfs;  ///< ascending, none twice; empty with `address`
  std::optional<PciId> id;    ///< narrows: a function that is something else is not touched
  Mark where;
};

/// One link of the chain as the file has it: a plugin with its options, or an in-kernel handler by name.
struct ChainLink {
  std::string name;
  PluginPtr plugin;                  ///< null: in-kernel handler
  std::vector<OptionValue> options;  ///< in the order of the plugin's keys
  Mark where;
};

struct DeviceConfig {
  Match match;
  std::optional<uint32_t> create_vfs;
  bool whole_function = false;
  GuestMemory guest_memory = GuestMemory::none;
  WorkerLoss on_worker_loss = WorkerLoss::pass;
  Limits limits;
  std::chrono::microseconds busy_poll{0};  ///< how long the worker watches for the next access before it sleeps
  std::vector<ChainLink> chain;  ///< first asked first
  /// Its plugins, ready to be opened; none: in-kernel handlers only.
  std::optional<Chain> plugins;
  /// What "migration" says of the owner's parameters: one for each of plugins->parameters(), nothing where the file says nothing.
  std::vector<std::optional<std::string>> parameters;
  /// Names for the kernel, in order; "channel" stands for all plugins.
  std::vector<std::string> handlers;
  Mark where;
};

struct Config {
  std::string file;
  std::vector<DeviceConfig> devices;
};

/// "0000:01:10.0", or "enp1s0f0 vf 0-3".
std::string to_string(const Match& match);
const char* to_string(GuestMemory memory);
const char* to_string(WorkerLoss policy);

}  // namespace hookline::loader
