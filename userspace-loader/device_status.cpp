// SPDX-License-Identifier: Apache-2.0
#include "device_status.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hookline/migration_state.hpp>
#include <nlohmann/json.hpp>

#include "plugin_report.hpp"
#include "planner.hpp"
#include "table.hpp"

namespace hookline::loader {
namespace {

struct Cause {
  const char* reason;
  bool (*holds)(const DeviceStatus&);
  const char* text;
  const char* fix;
};

// In this order: the first is what to do something about first.
constexpr Cause kCauses[] = {
    {"gone", [](const DeviceStatus& s) { return !s.function; }, "the function is gone", "`hookline detach` forgets it"},
    {"no-owner", [](const DeviceStatus& s) { return !s.record.device.migrates; }, "no plugin of its chain migrates it",
     "add a plugin that does to the configuration"},
    {"not-bound", [](const DeviceStatus& s) { return s.function && !s.is(VFIO_PCI_HOOKS_STATUS_BOUND); },
     "it is not bound to vfio-pci-hooks", "`hookline apply` binds it"},
    {"no-worker", [](const DeviceStatus& s) { return s.function && !s.worker_alive; }, "no worker serves it",
     "`hookline apply` starts one; the log of its supervisor may say why there is none"},
    {"incomplete", [](const DeviceStatus& s) { return s.is(VFIO_PCI_HOOKS_STATUS_INCOMPLETE); },
     "the guest accessed it while no worker was there to see", "reset it: the guest's driver does when it is loaded again"}};

std::string chain_text(const AppliedDevice& device) {
  std::vector<std::string> names;
  for (const AppliedLink& link : device.chain) names.push_back(link.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string vf_text(const AppliedDevice& device) {
  return device.pf ? fmt::format("VF {} of {}", device.vf_index, to_string(*device.pf)) : "whole function";
}

std::string state_text(const DeviceStatus& status) {
  if (!status.is(VFIO_PCI_HOOKS_STATUS_OPEN)) return "not open";
  return std::string(to_string(static_cast<MigrationState>(status.kernel->mig_state)));
}

std::string worker_text(const DeviceStatus& status) {
  if (!status.worker_alive) return "none";
  return fmt::format("{}{}", status.service->worker.pid, status.service->ready ? "" : " (starting)");
}

std::string driver_text(const DeviceStatus& status) {
  if (!status.function) return "gone";
  return status.function->driver.empty() ? "none" : status.function->driver;
}

}  // namespace

std::vector<Obstacle> obstacles(const DeviceStatus& status) {
  std::vector<Obstacle> found;
  for (const Cause& cause : kCauses)
    if (cause.holds(status)) found.push_back({cause.reason, cause.text, cause.fix});
  return found;
}

std::vector<Drift> drift(const DeviceStatus& status) {
  std::vector<Drift> found;
  for (const AppliedParameter& p : status.record.device.parameters)
    if (const auto now = status.parameters.find(p.name); now != status.parameters.end() && now->second != p.value)
      found.push_back({p.name, now->second, p.value});
  return found;
}

std::string status_table(const std::vector<DeviceStatus>& devices) {
  std::vector<std::vector<std::string>> rows{{"DEVICE", "WHAT", "CHAIN", "DRIVER", "WORKER", "STATE", "MIGRATION"}};
  for (const DeviceStatus& status : devices) {
    const auto causes = obstacles(status);
    const AppliedDevice& device = status.record.device;
    rows.push_back({to_string(device.address), vf_text(device), chain_text(device), driver_text(status), worker_text(status),
                    state_text(status), causes.empty() ? "possible" : "no: " + causes.front().text});
  }
  return table(rows);
}

std::string status_text(const DeviceStatus& status) {
  const AppliedDevice& device = status.record.device;
  std::vector<std::vector<std::string>> rows{{"device", fmt::format("{} ({}, {})", to_string(device.address), vf_text(device), to_string(device.id))},
                                             {"chain", chain_text(device)},
                                             {"set up from", device.config_file},
                                             {"driver", driver_text(status)},
                                             {"state", state_text(status)},
                                             {"worker", worker_text(status)}};
  if (device.busy_poll.count()) rows.push_back({"busy poll", fmt::format("{}us", device.busy_poll.count())});
  if (status.service) {
    rows.push_back({"supervisor", status.supervisor_alive ? std::to_string(status.service->supervisor.pid) : "none"});
    rows.push_back({"restarts", std::to_string(status.service->restarts)});
    if (!status.service->last_end.empty()) rows.push_back({"last end", status.service->last_end});
  }
  if (status.kernel)
    rows.push_back({"accesses", fmt::format("{} answered, {} missed, {} sessions revoked, {} resets", status.kernel->accesses,
                                            status.kernel->missed, status.kernel->revoked, status.kernel->resets)});
  const std::vector<Drift> drifted = drift(status);
  for (const AppliedParameter& p : device.parameters) {
    const auto now = status.parameters.find(p.name);
    const bool differs = std::any_of(drifted.begin(), drifted.end(), [&](const Drift& d) { return d.name == p.name; });
    const std::string value = now == status.parameters.end() ? "not known" : now->second;
    rows.push_back({"parameter", fmt::format("{} = {}{}", p.name, value, differs ? fmt::format(" (configured: {})", p.value) : "")});
  }
  const auto causes = obstacles(status);
  rows.push_back({"migration", causes.empty() ? "possible" : "not possible"});
  for (const Obstacle& cause : causes) rows.push_back({"", fmt::format("{}: {}", cause.text, cause.fix)});
  std::string text = table(rows);
  if (causes.empty()) {
    if (!status.kernel_reports_dirty_pages) text += fmt::format("note: {}\n", kEnableMigrationNote);
    text += fmt::format("note: {}\nnote: {}\n", kReturnPathNote, kForeignDestinationNote);
  }
  return text;
}

nlohmann::ordered_json status_json(const DeviceStatus& status) {
  using json = nlohmann::ordered_json;
  const AppliedDevice& device = status.record.device;
  json chain = json::array();
  for (const AppliedLink& link : device.chain) chain.push_back(link.name);
  json out{{"address", to_string(device.address)},
           {"id", to_string(device.id)},
           {"pf", device.pf ? json(to_string(*device.pf)) : json()},
           {"vf", device.pf ? json(device.vf_index) : json()},
           {"chain", std::move(chain)},
           {"config_file", device.config_file},
           {"busy_poll_us", device.busy_poll.count()},
           {"driver", status.function ? json(status.function->driver) : json()},
           {"iommu_group", status.function ? json(status.function->iommu_group) : json()},
           {"bound", status.is(VFIO_PCI_HOOKS_STATUS_BOUND)},
           {"open", status.is(VFIO_PCI_HOOKS_STATUS_OPEN)},
           {"served", status.is(VFIO_PCI_HOOKS_STATUS_SERVED)},
           {"incomplete", status.is(VFIO_PCI_HOOKS_STATUS_INCOMPLETE)},
           {"migration_state", status.is(VFIO_PCI_HOOKS_STATUS_OPEN) ? json(state_text(status)) : json()}};
  const ServiceState service = status.service.value_or(ServiceState{});
  out["supervisor"] = {{"pid", status.supervisor_alive ? json(service.supervisor.pid) : json()}};
  out["worker"] = {{"pid", status.worker_alive ? json(service.worker.pid) : json()},
                   {"ready", status.worker_alive && service.ready},
                   {"restarts", service.restarts},
                   {"last_end", service.last_end}};
  if (status.kernel)
    out["counters"] = {{"accesses", status.kernel->accesses},
                       {"missed", status.kernel->missed},
                       {"revoked", status.kernel->revoked},
                       {"resets", status.kernel->resets}};
  json parameters = json::array();
  for (const AppliedParameter& p : device.parameters) {
    const auto now = status.parameters.find(p.name);
    const bool known = now != status.parameters.end();
    parameters.push_back({{"name", p.name},
                          {"value", known ? json(now->second) : json()},
                          {"configured", p.value},
                          {"drifted", known && now->second != p.value}});
  }
  out["parameters"] = std::move(parameters);
  json why = json::array();
  for (const Obstacle& cause : obstacles(status))
    why.push_back({{"reason", cause.reason}, {"text", cause.text}, {"fix", cause.fix}});
  out["migration"] = {{"possible", why.empty()},
                      {"needs_enable_migration", why.empty() && !status.kernel_reports_dirty_pages},
                      {"obstacles", std::move(why)}};
  return out;
}

}  // namespace hookline::loader
