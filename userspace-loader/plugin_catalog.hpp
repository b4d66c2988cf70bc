// SPDX-License-Identifier: Apache-2.0
//
// Where plugins are found by name: NAME.so in the folders of a search path, the first that has it wins. What was loaded
// stays loaded as long as the catalog lives.
//
// Thread rule: one thread. Errors: ENOENT with the folders that were searched, or those of load_plugin().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "plugin_library.hpp"

namespace hookline::loader {

/// --plugin-dir, else HOOKLINE_PLUGIN_PATH (separated by ':'), else the folder of the installation under `root`, or that of
/// the build tree when this program runs from one.
std::vector<std::string> plugin_search_path(const std::vector<std::string>& from_options, const std::string& root);

class PluginCatalog {
 public:
  PluginCatalog(std::vector<std::string> folders, LoadOptions options);
  const std::vector<std::string>& folders() const { return folders_; }

  /// The plugin of this name; the same object each time.
  Result<PluginPtr> find(const std::string& name);
  /// By a file's path (with a '/') or by name.
  Result<PluginPtr> find_name_or_file(const std::string& name_or_file);
  /// Each NAME.so of the search path, sorted by name, without those hidden by an earlier folder.
  struct Entry {
    std::string name, path;
  };
  std::vector<Entry> list() const;
  std::vector<std::string> names() const;

 private:
  std::vector<std::string> folders_;
  LoadOptions options_;
  std::map<std::string, Result<PluginPtr>> loaded_;  ///< by path; refusals too, so that each is said the same way
};

}  // namespace hookline::loader
