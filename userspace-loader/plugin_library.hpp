// SPDX-License-Identifier: Apache-2.0
//
// A plugin, loaded and checked: the only user of Boost.DLL.
//
//     auto plugin = load_plugin("/usr/lib/hookline/plugins/nic-82576.so", {});
//     if (!plugin) return fail(plugin.error());
//     (*plugin)->abi().open(...);
//
// What is declared (names, ranges, programs, options) is checked once, here; users of a LoadedPlugin need not. The library
// stays mapped as long as one PluginPtr lives.
// Thread rule: loading from one thread; a loaded plugin is read-only. Errors: as plugin_file.hpp; nothing of Boost leaves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "hookline/plugin.h"
#include "hookline/result.hpp"

namespace hookline::loader {

class LoadedPlugin {
 public:
  const std::string& path() const { return path_; }
  /// The plugin's object as this host knows it: what an older plugin has not is zero, what a newer one adds is left out.
  const hookline_plugin& abi() const { return abi_; }
  /// The header as the plugin wrote it, its own size and minor version included.
  const hookline_abi& built_for() const { return built_for_; }
  std::string name() const { return abi_.name; }
  bool owns_migration() const { return abi_.claims & HOOKLINE_CLAIM_MIGRATION; }
  /// Whether it serves a device of this identity.
  bool serves(uint16_t vendor, uint16_t device) const;

 private:
  friend Result<std::shared_ptr<const LoadedPlugin>> load_plugin(const std::string&, const struct LoadOptions&);
  LoadedPlugin() = default;
  std::string path_;
  hookline_plugin abi_ = {};
  hookline_abi built_for_ = {};
  std::shared_ptr<const void> library_;
};

using PluginPtr = std::shared_ptr<const LoadedPlugin>;

struct LoadOptions {
  bool allow_untrusted = false;
  /// First loads it in a child process, so that a plugin whose constructors crash, exit or hang is refused like any other.
  /// A worker, which may not fork, leaves it out: its supervisor has done it.
  bool rehearse = true;
};

Result<PluginPtr> load_plugin(const std::string& path, const LoadOptions& options);

}  // namespace hookline::loader
