// SPDX-License-Identifier: Apache-2.0
//
// hookline detach: give devices back exactly as they were found.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "linux_host.hpp"
#include "plan_report.hpp"
#include "planner.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

struct DetachCommand {
  std::string what;  ///< address or file
  bool all = false;
  bool as_json = false;
};

/// Devices that were set up from this file, whatever it says by now.
std::vector<PciAddress> devices_of_file(const RunState& state, const std::string& file) {
  const std::string path = std::filesystem::absolute(file).lexically_normal();
  std::vector<PciAddress> found;
  for (const PciAddress& address : state.devices())
    if (const auto record = state.device(address); record && *record && (*record)->device.config_file == path)
      found.push_back(address);
  return found;
}

int detach(const DetachCommand& command, const Globals& globals) {
  if (command.all != command.what.empty()) {
    fmt::print(stderr, "hookline: name a device, the file it was set up from, or --all\n");
    return kUsage;
  }
  LinuxHost host(globals.root);
  const auto lock = host.state().lock();
  if (!lock) {
    fmt::print(stderr, "hookline: {}\n", lock.error().text);
    return kNo;
  }
  std::vector<PciAddress> devices;
  if (command.all)
    devices = host.state().devices();
  else if (const auto address = parse_pci_address(command.what))
    devices = {*address};
  else if (std::filesystem::exists(command.what))
    devices = devices_of_file(host.state(), command.what);
  else {
    fmt::print(stderr, "hookline: \"{}\" is neither a PCI address such as 0000:01:10.0 nor a file\n", command.what);
    return kUsage;
  }

  const DetachPlan detach = plan_detach(devices, host.sysfs(), host.state(), host);
  if (globals.verbosity >= 0 && !command.as_json)
    host.on_step = [](const Step& step) { fmt::print(stderr, "{}\n", describe(step)); };
  const std::vector<GroupResult> results = execute(detach.plan, host);
  const bool ok = all_done(results) && detach.problems.empty();

  if (command.as_json) {
    json out{{"schema", "hookline/detach/1"}, {"ok", ok}, {"problems", json::array()}};
    for (const Error& problem : detach.problems) out["problems"].push_back({{"errno", problem.code}, {"text", problem.text}});
    out.update(plan_json(detach.plan, results));
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return ok ? kYes : kNo;
  }
  for (const std::string& title : detach.plan.unchanged) fmt::print("{}: nothing to do, it is not set up\n", title);
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].end == GroupResult::End::done) fmt::print("{}: given back\n", detach.plan.groups[i].title);
  if (devices.empty()) fmt::print("nothing to do, no device is set up\n");
  for (const std::string& note : detach.plan.notes) fmt::print(stderr, "note: {}\n", note);
  for (const Error& problem : detach.problems) fmt::print(stderr, "hookline: {}\n", problem.text);
  fmt::print(stderr, "{}", failures_text(detach.plan, results));
  return ok ? kYes : kNo;
}

}  // namespace

void add_detach(CLI::App& app, CommandLine& line) {
  auto command = std::make_shared<DetachCommand>();
  CLI::App* detach_app = app.add_subcommand("detach", "Stop serving devices and give them back as they were found");
  detach_app->add_option("WHAT", command->what, "PCI address, or the file given to apply")->type_name("DEVICE|FILE");
  detach_app->add_flag("--all", command->all, "Every device that is set up");
  detach_app->add_flag("--json", command->as_json, "Print the result as JSON");
  detach_app->footer("Exit status: 0 given back (or nothing to do), 1 a device is in use or could not be given back, 2 usage.");
  detach_app->callback([command, &line] { line.run = [command](const Globals& globals) { return detach(*command, globals); }; });
}

}  // namespace hookline::loader
