// SPDX-License-Identifier: Apache-2.0
//
// hookline plugins: which plugins the search path holds, and which of them would not be loaded, and why.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "diagnostics.hpp"
#include "plugin_catalog.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

// What it is to a chain.
const char* part(const LoadedPlugin& plugin) {
  if (plugin.owns_migration()) return "migrates";
  return plugin.abi().unknown_op == HOOKLINE_UNKNOWN_PASS ? "observes" : "guards";
}

int list_plugins(bool as_json, const Globals& globals) {
  PluginCatalog catalog(plugin_search_path(globals.plugin_dirs, globals.root), {.allow_untrusted = globals.allow_untrusted});
  std::vector<PluginPtr> good;
  struct Refused {
    std::string name, path, reason;
  };
  std::vector<Refused> refused;
  for (const PluginCatalog::Entry& entry : catalog.list()) {
    if (const auto plugin = catalog.find_name_or_file(entry.path))
      good.push_back(*plugin);
    else
      refused.push_back({entry.name, entry.path, plugin.error().text});
  }

  if (as_json) {
    json out;
    out["schema"] = "hookline/plugins/1";
    out["folders"] = catalog.folders();
    out["plugins"] = json::array();
    for (const PluginPtr& plugin : good)
      out["plugins"].push_back({{"name", plugin->name()},
                                {"version", plugin->abi().version},
                                {"summary", plugin->abi().summary ? plugin->abi().summary : ""},
                                {"migrates", plugin->owns_migration()},
                                {"file", plugin->path()}});
    out["refused"] = json::array();
    for (const Refused& r : refused) out["refused"].push_back({{"name", r.name}, {"file", r.path}, {"reason", r.reason}});
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return refused.empty() ? kYes : kNo;
  }

  if (good.empty() && refused.empty()) {
    fmt::print(stderr, "no plugins in {}; name their folder with --plugin-dir or HOOKLINE_PLUGIN_PATH\n",
               fmt::join(catalog.folders(), ", "));
    return kYes;
  }
  size_t names = 0, versions = 0;
  for (const PluginPtr& plugin : good) {
    names = std::max(names, plugin->name().size());
    versions = std::max(versions, std::string_view(plugin->abi().version).size());
  }
  for (const PluginPtr& plugin : good) {
    const char* summary = plugin->abi().summary;
    fmt::print("{:<{}}  {:<{}}  {:<8}  {}\n", plugin->name(), names, plugin->abi().version, versions, part(*plugin),
               summary && *summary ? summary : "-");
  }
  for (const Refused& r : refused) fmt::print(stderr, "refused: {}\n", r.reason);
  return refused.empty() ? kYes : kNo;
}

}  // namespace

void add_plugins(CLI::App& app, CommandLine& line) {
  auto as_json = std::make_shared<bool>(false);
  CLI::App* plugins = app.add_subcommand("plugins", "List the plugins of the search path");
  plugins->add_flag("--json", *as_json, "Print the list as JSON");
  plugins->footer("Exit status: 0 all of them can be loaded, 1 one cannot.");
  plugins->callback([as_json, &line] { line.run = [as_json](const Globals& globals) { return list_plugins(*as_json, globals); }; });
}

}  // namespace hookline::loader
