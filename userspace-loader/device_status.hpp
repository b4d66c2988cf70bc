// SPDX-License-Identifier: Apache-2.0
//
// What is known of one device that was set up: from the loader's memory, from sysfs and from the kernel module; and
// whether it could be migrated now, and if not, why.
//
// Plain values; pure functions. No errors: what cannot be read is absent.
//
//     DeviceStatus status{.record = record, .function = function, .kernel = host.status(address), .service = service};
//     for (const Obstacle& o : obstacles(status)) fmt::print("{}: {}\n", o.text, o.fix);
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <linux/vfio_pci_hooks.h>
#include <nlohmann/json_fwd.hpp>

#include "device_record.hpp"
#include "run_state.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

struct DeviceStatus {
  DeviceRecord record;
  std::optional<PciFunction> function{};            ///< nothing: it is gone
  std::optional<vfio_pci_hooks_status> kernel{};    ///< nothing: no definition
  std::optional<ServiceState> service{};
  std::map<std::string, std::string> parameters{};  ///< present values of the migration parameters
  bool supervisor_alive = false, worker_alive = false;
  bool kernel_reports_dirty_pages = false;

  bool is(uint32_t flag) const { return kernel && kernel->flags & flag; }
};

/// Why the device cannot be migrated now, for programs and for people, and what would help.
struct Obstacle {
  std::string reason;  ///< "no-owner"
  std::string text, fix;
};
std::vector<Obstacle> obstacles(const DeviceStatus& status);

/// A migration parameter whose present value is not the configured one: somebody has written it, or a migration has.
struct Drift {
  std::string name, present, configured;
};
std::vector<Drift> drift(const DeviceStatus& status);

std::string status_table(const std::vector<DeviceStatus>& devices);
/// One device, line by line.
std::string status_text(const DeviceStatus& status);
nlohmann::ordered_json status_json(const DeviceStatus& status);

}  // namespace hookline::loader
