// SPDX-License-Identifier: Apache-2.0
//
// hookline apply FILE: make the devices of this host what the file says.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "config_check.hpp"
#include "linux_host.hpp"
#include "plan_report.hpp"
#include "planner.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

struct ApplyCommand {
  std::string file;
  bool dry_run = false;
  bool as_json = false;
};

json errors_json(const Diagnostics& diagnostics) {
  json out = json::array();
  for (const Diagnostic& d : diagnostics.sorted())
    if (d.kind == Diagnostic::Kind::error)
      out.push_back({{"line", d.where.line}, {"text", d.text}, {"hint", d.hint}, {"notes", d.notes}});
  return out;
}

int refuse(const ApplyCommand& command, const Source& source, const Diagnostics& found, const Globals& globals, int code) {
  if (command.as_json) {
    fmt::print("{}\n", json{{"schema", "hookline/apply/1"}, {"file", command.file}, {"ok", false},
                            {"dry_run", command.dry_run}, {"errors", errors_json(found)}}.dump(2));
    return code;
  }
  for (const Diagnostic& d : found.sorted()) fmt::print(stderr, "{}", render(source, d, globals.color));
  fmt::print(stderr, "{}: nothing has been touched\n", command.file);
  return code;
}

int apply(const ApplyCommand& command, const Globals& globals) {
  Diagnostics found;
  auto text = read_config_file(command.file);
  if (!text) found.error({}, text.error().text);
  const Source source(command.file, text ? *std::move(text) : std::string());
  PluginCatalog catalog(plugin_search_path(globals.plugin_dirs, globals.root), {.allow_untrusted = globals.allow_untrusted});
  std::optional<Config> config;
  if (!found.errors()) config = load_config(source, catalog, found);
  if (!config) return refuse(command, source, found, globals, kUsage);

  LinuxHost host(globals.root);
  RunState::Lock lock;
  if (!command.dry_run) {
    auto taken = host.state().lock();
    if (!taken) {
      fmt::print(stderr, "hookline: {}\n", taken.error().text);
      return kNo;
    }
    lock = std::move(*taken);
  }
  const ApplyOptions options{globals.allow_untrusted, std::filesystem::absolute(command.file).lexically_normal()};
  const Plan plan = plan_apply(*config, options, host.sysfs(), host.state(), host, found);
  if (found.errors()) return refuse(command, source, found, globals, kNo);

  std::vector<GroupResult> results;
  if (!command.dry_run) {
    if (globals.verbosity >= 0 && !command.as_json)
      host.on_step = [](const Step& step) { fmt::print(stderr, "{}\n", describe(step)); };
    results = execute(plan, host);
  }
  const bool ok = all_done(results);
  if (command.as_json) {
    json out{{"schema", "hookline/apply/1"}, {"file", command.file}, {"ok", ok}, {"dry_run", command.dry_run},
             {"errors", json::array()}};
    out.update(plan_json(plan, results));
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return ok ? kYes : kNo;
  }
  if (command.dry_run) {
    fmt::print("{}", plan_text(plan));
    return kYes;
  }
  for (const std::string& title : plan.unchanged) fmt::print("{}: nothing to do\n", title);
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].end == GroupResult::End::done && !plan.groups[i].steps.empty()) fmt::print("{}: done\n", plan.groups[i].title);
  for (const std::string& note : plan.notes) fmt::print(stderr, "note: {}\n", note);
  fmt::print(stderr, "{}", failures_text(plan, results));
  return ok ? kYes : kNo;
}

}  // namespace

void add_apply(CLI::App& app, CommandLine& line) {
  auto command = std::make_shared<ApplyCommand>();
  CLI::App* apply_app = app.add_subcommand("apply", "Set up the devices of a configuration and serve them");
  apply_app->add_option("FILE", command->file, "YAML file")->required()->type_name("");
  apply_app->add_flag("--dry-run", command->dry_run, "Ask the hardware, print what would be done, and change nothing");
  apply_app->add_flag("--json", command->as_json, "Print the result as JSON");
  apply_app->footer("Exit status: 0 all is as the file says, 1 a device cannot be set up (it is left as it was),\n2 the file is wrong.");
  apply_app->callback([command, &line] { line.run = [command](const Globals& globals) { return apply(*command, globals); }; });
}

}  // namespace hookline::loader
