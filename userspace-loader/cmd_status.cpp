// SPDX-License-Identifier: Apache-2.0
//
// hookline status [DEVICE]: what the devices are doing, and whether they could be migrated now.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "device_status.hpp"
#include "linux_host.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

struct StatusCommand {
  std::string device;
  bool as_json = false;
};

DeviceStatus ask(const LinuxHost& host, DeviceRecord record, const std::string& root) {
  const PciAddress address = record.device.address;
  DeviceStatus status{.record = std::move(record)};
  if (auto function = host.sysfs().function(address)) status.function = std::move(*function);
  status.kernel = host.status(address);
  status.parameters = host.sysfs().migration_values(address);
  status.service = host.state().service(address);
  status.supervisor_alive = status.service && is_alive(status.service->supervisor);
  status.worker_alive = status.service && is_alive(status.service->worker);
  status.kernel_reports_dirty_pages = std::filesystem::exists(std::filesystem::path(root) / "dev/iommu");
  return status;
}

int show(const StatusCommand& command, const Globals& globals) {
  const LinuxHost host(globals.root);
  std::vector<PciAddress> wanted = host.state().devices();
  if (!command.device.empty()) {
    const auto address = parse_pci_address(command.device);
    if (!address) {
      fmt::print(stderr, "hookline: \"{}\" is no PCI address such as 0000:01:10.0\n", command.device);
      return kUsage;
    }
    if (std::find(wanted.begin(), wanted.end(), *address) == wanted.end()) {
      fmt::print(stderr, "hookline: {} has not been set up: `hookline apply FILE` does\n", to_string(*address));
      return kNo;
    }
    wanted = {*address};
  }
  std::vector<DeviceStatus> devices;
  bool all_read = true;
  for (const PciAddress& address : wanted) {
    auto record = host.state().device(address);
    if (record && *record) {
      devices.push_back(ask(host, std::move(**record), globals.root));
    } else if (!record) {
      fmt::print(stderr, "hookline: {}\n", record.error().text);
      all_read = false;
    }
  }
  if (command.as_json) {
    json out{{"schema", "hookline/status/1"}, {"devices", json::array()}};
    for (const DeviceStatus& status : devices) out["devices"].push_back(status_json(status));
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
  } else if (!command.device.empty() && !devices.empty()) {
    fmt::print("{}", status_text(devices.front()));
  } else if (devices.empty()) {
    fmt::print("no device is set up\n");
  } else {
    fmt::print("{}", status_table(devices));
  }
  return all_read ? kYes : kUnknown;
}

}  // namespace

void add_status(CLI::App& app, CommandLine& line) {
  auto command = std::make_shared<StatusCommand>();
  CLI::App* status = app.add_subcommand("status", "Show the devices that are set up");
  status->add_option("DEVICE", command->device, "PCI address; all of them without")->type_name("");
  status->add_flag("--json", command->as_json, "Print it as JSON");
  status->footer("Exit status: 0 shown, 1 the device is not set up, 3 something could not be read.");
  status->callback([command, &line] { line.run = [command](const Globals& globals) { return show(*command, globals); }; });
}

}  // namespace hookline::loader
