// SPDX-License-Identifier: Apache-2.0
//
// hookline check FILE: is this configuration right, as far as the file and the plugins can tell.
#include <cstdio>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "config_check.hpp"
#include "plugin_report.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

const char* plural(size_t count) { return count == 1 ? "" : "s"; }

bool migrates(const DeviceConfig& device) { return device.plugins && device.plugins->owner(); }

std::string chain_text(const DeviceConfig& device) {
  std::string text;
  for (const ChainLink& link : device.chain) {
    if (!text.empty()) text += ", ";
    text += link.name;
    if (!link.plugin)
      text += " (in the kernel)";
    else if (link.plugin->owns_migration())
      text += " (migrates the device)";
  }
  return text;
}

json option_json(const hookline_key& key, const OptionValue& value) {
  if (!value.is_set) return nullptr;
  if (key.type == HOOKLINE_KEY_BOOL) return value.number != 0;
  if (key.type == HOOKLINE_KEY_UINT) return value.number;
  return value.text;
}

json device_json(const DeviceConfig& device) {
  json out;
  json match = json::object();
  if (device.match.address) match["address"] = to_string(*device.match.address);
  if (!device.match.pf.empty()) {
    match["pf"] = device.match.pf;
    match["vf"] = device.match.vfs;
  }
  if (device.match.id) match["id"] = to_string(*device.match.id);
  out["match"] = match;
  out["line"] = device.where.line;
  out["create_vfs"] = device.create_vfs ? json(*device.create_vfs) : json(nullptr);
  out["whole_function"] = device.whole_function;
  out["guest_memory"] = to_string(device.guest_memory);
  out["on_worker_loss"] = to_string(device.on_worker_loss);
  out["limits"] = {{"state_change_ms", device.limits.state_change.count()}, {"access_ms", device.limits.access.count()}};
  out["busy_poll_us"] = device.busy_poll.count();
  out["migrates"] = migrates(device);
  json migration = json::object();
  if (device.plugins) {
    const std::vector<std::string> init = device.plugins->init_values();
    for (size_t i = 0; i < init.size(); ++i)
      migration[device.plugins->parameters()[i].name] =
          i < device.parameters.size() && device.parameters[i] ? *device.parameters[i] : init[i];
  }
  out["migration"] = migration;
  out["chain"] = json::array();
  for (const ChainLink& link : device.chain) {
    json entry;
    entry[link.plugin ? "plugin" : "handler"] = link.name;
    if (link.plugin) {
      json options = json::object();
      for (size_t i = 0; i < link.options.size(); ++i)
        options[link.plugin->abi().keys[i].name] = option_json(link.plugin->abi().keys[i], link.options[i]);
      entry["options"] = options;
    }
    out["chain"].push_back(entry);
  }
  return out;
}

json diagnostics_json(const Source& source, const Diagnostics& diagnostics, Diagnostic::Kind kind) {
  json out = json::array();
  for (const Diagnostic& d : diagnostics.sorted())
    if (d.kind == kind)
      out.push_back({{"line", d.where.line},
                     {"column", d.where.line ? column_in_characters(source, d.where) : 0},
                     {"text", d.text},
                     {"hint", d.hint},
                     {"notes", d.notes}});
  return out;
}

void print_summary(const Config& config) {
  const size_t count = config.devices.size();
  fmt::print("{}: {} device entr{}, no errors\n", printable(config.file, 200), count, count == 1 ? "y" : "ies");
  size_t width = 0;
  for (const DeviceConfig& device : config.devices) width = std::max(width, to_string(device.match).size());
  bool any_migrates = false;
  for (const DeviceConfig& device : config.devices) {
    any_migrates |= migrates(device);
    fmt::print("  {:<{}}  {}\n", to_string(device.match), width, chain_text(device));
  }
  if (any_migrates) fmt::print("note: {}\nnote: {}\n", kEnableMigrationNote, kReturnPathNote);
}

int check_file(const std::string& path, bool as_json, const Globals& globals) {
  Diagnostics diagnostics;
  auto text = read_config_file(path);
  if (!text) diagnostics.error({}, text.error().text);
  const Source source(path, text ? *std::move(text) : std::string());
  PluginCatalog catalog(plugin_search_path(globals.plugin_dirs, globals.root), {.allow_untrusted = globals.allow_untrusted});
  std::optional<Config> config;
  if (!diagnostics.errors()) config = load_config(source, catalog, diagnostics);

  if (as_json) {
    json out;
    out["schema"] = "hookline/check/1";
    out["file"] = printable(path, 4096);
    out["ok"] = config.has_value();
    out["errors"] = diagnostics_json(source, diagnostics, Diagnostic::Kind::error);
    out["warnings"] = diagnostics_json(source, diagnostics, Diagnostic::Kind::warning);
    out["devices"] = json::array();
    if (config)
      for (const DeviceConfig& device : config->devices) out["devices"].push_back(device_json(device));
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return config ? kYes : kUsage;
  }

  const std::vector<Diagnostic> found = diagnostics.sorted();
  for (const Diagnostic& d : found) fmt::print(stderr, "{}", render(source, d, globals.color));
  if (!config) {
    const size_t count = diagnostics.errors();
    fmt::print(stderr, "{}: {} error{}{}\n", printable(path, 200), count, plural(count),
               count > found.size() ? fmt::format(", the first {} are shown", found.size()) : "");
    return kUsage;
  }
  if (globals.verbosity >= 0) print_summary(*config);
  return kYes;
}

}  // namespace

void add_check(CLI::App& app, CommandLine& line) {
  struct Options {
    std::string file;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* check = app.add_subcommand("check", "Check a configuration; needs neither root nor a device");
  check->add_option("FILE", options->file, "YAML file")->required()->type_name("");
  check->add_flag("--json", options->json, "Print the result as JSON");
  check->footer("Exit status: 0 the configuration is right, 2 it is not.");
  check->callback([options, &line] {
    line.run = [options](const Globals& globals) { return check_file(options->file, options->json, globals); };
  });
}

}  // namespace hookline::loader
