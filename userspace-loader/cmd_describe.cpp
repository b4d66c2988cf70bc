// SPDX-License-Identifier: Apache-2.0
//
// hookline describe PLUGIN|CONFIG: everything a plugin says about itself, or why it is refused; what the devices of a
// configuration would say of their migration, before there is one.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "compat_side.hpp"
#include "diagnostics.hpp"
#include "plugin_catalog.hpp"
#include "plugin_report.hpp"
#include "register_names.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

int print_trace(const hookline_plugin& plugin, const std::string& file) {
  std::ifstream opened;
  if (file != "-") opened.open(file);
  std::istream& in = file == "-" ? std::cin : opened;
  if (!in) {
    fmt::print(stderr, "{}: {}\n", file, std::strerror(errno));
    return kNo;
  }
  // As they come: a trace_pipe does not end.
  for (std::string line; std::getline(in, line);) {
    fmt::print("{}\n", name_registers(plugin, line));
    std::fflush(stdout);
  }
  return kYes;
}

int describe_plugin(const std::string& which, bool as_json, const std::string& trace, const Globals& globals) {
  PluginCatalog catalog(plugin_search_path(globals.plugin_dirs, globals.root), {.allow_untrusted = globals.allow_untrusted});
  // "acme.so" can only be a file; a bare word is a name, whatever files lie about here.
  const bool bare_file = which.find('/') == std::string::npos && which.ends_with(".so");
  const auto plugin = catalog.find_name_or_file(bare_file ? "./" + which : which);

  if (plugin && !trace.empty()) return print_trace((*plugin)->abi(), trace);
  if (as_json) {
    json out;
    out["schema"] = "hookline/describe/1";
    out["ok"] = plugin.has_value();
    if (plugin)
      out["plugin"] = describe_json(**plugin);
    else
      out["reason"] = plugin.error().text;
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
  } else if (plugin) {
    fmt::print("{}", describe_text(**plugin));
  } else {
    const std::string guess = did_you_mean(which, catalog.names());
    fmt::print(stderr, "{}{}\n", plugin.error().text, plugin.error().code == ENOENT && !guess.empty() ? "; " + guess : "");
  }
  return plugin ? kYes : kNo;
}

/// Every device entry that migrates; a line of one that does not would say nothing.
int describe_configuration(const std::string& file, bool as_json, const Globals& globals) {
  const auto sides = describe_config(file, globals);
  if (!sides) {
    fmt::print(stderr, "{}: {}\n", printable(file, 200), sides.error().reason.text);
    return sides.error().code;
  }
  if (as_json) {
    json out{{"schema", "hookline/describe-config/1"}, {"devices", json::array()}};
    for (const Side& side : *sides)
      out["devices"].push_back({{"where", side.name}, {"migration_info", json::parse(migration_info(side.descriptor))}});
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return kYes;
  }
  for (const Side& side : *sides) {
    const Descriptor& d = side.descriptor;
    fmt::print("{}\n  model      {}\n  plugin     {} {}\n  emits      {}\n  reads      {}\n", side.name, d.model, d.plugin,
               d.plugin_version, d.emits, fmt::join(*d.reads, ", "));
    for (const DescribedParameter& p : d.parameters)
      fmt::print("  parameter  {}: {} at first, off is {}, one of {}\n             {}\n", p.name, p.value, *p.off_value,
                 *p.allowed_values, p.description);
  }
  return kYes;
}

}  // namespace

void add_describe(CLI::App& app, CommandLine& line) {
  struct Options {
    std::string which;
    bool json = false;
    std::string trace;
  };
  auto options = std::make_shared<Options>();
  CLI::App* describe = app.add_subcommand("describe", "Tell what a plugin is, traps, does, and can be told");
  describe->add_option("PLUGIN", options->which, "Name of a plugin, path of its file, or a YAML configuration")->required()->type_name("");
  describe->add_flag("--json", options->json, "Print the description as JSON");
  describe->add_option("--trace", options->trace, "Instead, print a kernel trace with the names of registers (-: standard input)")
      ->type_name("FILE")
      ->excludes("--json");
  describe->footer("Exit status: 0 described, 1 there is none or it is refused.");
  describe->callback([options, &line] {
    line.run = [options](const Globals& globals) {
      if (names_config(options->which)) return describe_configuration(options->which, options->json, globals);
      return describe_plugin(options->which, options->json, options->trace, globals);
    };
  });
}

}  // namespace hookline::loader
