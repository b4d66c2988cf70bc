// SPDX-License-Identifier: Apache-2.0
#include "linux_host.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "child_process.hpp"
#include "device_chain.hpp"
#include "files.hpp"
#include "pf_change.hpp"
#include "pf_netlink.hpp"

namespace hookline::loader {
namespace fs = std::filesystem;
using namespace std::chrono_literals;
namespace {

constexpr auto kVfLimit = 10s;

/// Whether the process has one of the files open.
bool has_open(const fs::path& process, const std::vector<std::string>& files) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(process / "fd", error)) {
    std::error_code gone;
    const std::string target = fs::read_symlink(entry.path(), gone).string();
    if (!gone && std::find(files.begin(), files.end(), target) != files.end()) return true;
  }
  return false;
}

}  // namespace

bool LinuxHost::module_loaded() const { return sysfs_.driver_present(kDriver); }

bool LinuxHost::module_available() const {
  if (module_loaded()) return true;
  const auto status = run_and_wait({"modprobe", "--dry-run", "--quiet", kDriver}, true);
  return status && *status == 0;
}

std::optional<vfio_pci_hooks_status> LinuxHost::status(const PciAddress& address) const {
  if (!module_loaded()) return std::nullopt;
  const auto control = ControlDevice::open();
  if (!control) return std::nullopt;
  const auto status = control->status(to_uapi(address));
  if (!status) return std::nullopt;
  return *status;
}

Result<bool> LinuxHost::is_open(const PciAddress& address) const {
  if (!module_loaded()) return false;
  const auto control = ControlDevice::open();
  if (!control) return fail(control.error());
  const auto status = control->status(to_uapi(address));
  if (status) return (status->flags & VFIO_PCI_HOOKS_STATUS_OPEN) != 0;
  if (status.error().code == ENOENT) return false;
  return fail(status.error());
}

std::vector<std::string> LinuxHost::holders(const PciFunction& function) const {
  std::vector<std::string> files;
  if (!function.iommu_group.empty()) files.push_back("/dev/vfio/" + function.iommu_group);
  if (!function.vfio_device.empty()) files.push_back("/dev/vfio/devices/" + function.vfio_device);
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& process : fs::directory_iterator(root_ / "proc", error)) {
    const std::string pid = process.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || !has_open(process.path(), files)) continue;
    found.push_back(fmt::format("{} (process {})", read_line(process.path() / "comm").value_or("?"), pid));
  }
  return found;
}

std::optional<PfSettings> LinuxHost::pf_settings(const AppliedDevice& device) const {
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_GET;
  if (!PfNetlink(sysfs_, device.pf, device.vf_index).perform(request)) return std::nullopt;
  return settings_of(request);
}

std::vector<std::string> LinuxHost::lacking(const AppliedDevice& device) const {
  const auto chain = load_chain(device, false);
  if (!chain) return {chain.error().text};
  if (!module_loaded()) return {};
  const auto control = ControlDevice::open();
  if (!control) return {control.error().text};
  const auto features = control->features();
  if (!features) return {features.error().text};
  return loader::lacking(*features, device, *chain);
}

Result<void> LinuxHost::run(const Step& step) {
  if (on_step) on_step(step);
  switch (step.action) {
    case Action::load_module: return load_module(step.value);
    case Action::check_module: return check_module(step.record->device);
    case Action::remember_pf: return state_.remember(*step.pf_record);
    case Action::forget_pf: return state_.forget_pf(step.address);
    case Action::set_autoprobe: return sysfs_.set_autoprobe(step.address, step.value == "1");
    case Action::set_numvfs: return sysfs_.set_numvfs(step.address, static_cast<uint32_t>(std::stoul(step.value)));
    case Action::await_vf: return await_vf(step.record->device);
    case Action::remember: return remember(*step.record);
    case Action::forget: return state_.forget_device(step.address);
    case Action::unbind: return sysfs_.unbind(step.address, step.value);
    case Action::bind: return bind(step.address, step.value);
    case Action::set_override: return sysfs_.set_driver_override(step.address, step.value);
    case Action::define: return define(step.record->device, step.kept);
    case Action::undefine: return undefine(step.address);
    case Action::serve: return services_.start(step.address);
    case Action::stop_serving: return services_.stop(step.address);
    case Action::set_on_pf: {
      hookline_pf_request request = *step.pf_request;
      return PfNetlink(sysfs_, step.record->device.pf, step.record->device.vf_index).perform(request);
    }
  }
  return fail(EINVAL, "no such step");
}

Result<void> LinuxHost::remember(DeviceRecord record) const {
  // Known from now on, whatever a guest does to the device later; without it there is one question less.
  auto print = sysfs_.config_fingerprint(record.device.address);
  if (print)
    record.device.config_space = std::move(*print);
  else
    fmt::print(stderr, "{}; no verdict will compare its configuration space\n", print.error().text);
  return state_.remember(record);
}

Result<void> LinuxHost::load_module(const std::string& module) const {
  const auto status = run_and_wait({"modprobe", module});
  if (!status) return fail(status.error());
  if (*status != 0) return fail(EIO, fmt::format("modprobe {} failed; `dmesg` may say why", module));
  return {};
}

Result<void> LinuxHost::check_module(const AppliedDevice& device) const {
  const auto missing = lacking(device);
  if (missing.empty()) return {};
  return fail(EOPNOTSUPP, fmt::format("{}", fmt::join(missing, "; ")));
}

Result<void> LinuxHost::define(const AppliedDevice& device, const std::vector<AppliedParameter>& kept) const {
  const auto chain = load_chain(device, false);
  if (!chain) return fail(chain.error());
  const auto control = ControlDevice::open();
  if (!control) return fail(control.error());
  Definition definition = definition_of(device);
  definition.parameters = parameter_values(device, kept);
  return control->define(definition, *chain);
}

Result<void> LinuxHost::undefine(const PciAddress& address) const {
  const auto control = ControlDevice::open();
  if (!control) return fail(control.error());
  const auto ok = control->undefine(to_uapi(address));
  if (!ok && ok.error().code == ENOENT) return {};
  return ok;
}

Result<void> LinuxHost::await_vf(const AppliedDevice& device) const {
  const auto deadline = std::chrono::steady_clock::now() + kVfLimit;
  for (;;) {
    const auto address = sysfs_.vf(*device.pf, device.vf_index);
    if (address && *address != device.address)
      return fail(ENODEV, fmt::format("VF {} of {} has appeared at {}, not at {}: apply again, now that it exists",
                                      device.vf_index, to_string(*device.pf), to_string(*address), to_string(device.address)));
    const auto function = address ? sysfs_.function(*address) : tl::make_unexpected(address.error());
    if (function && !function->iommu_group.empty()) return {};
    if (std::chrono::steady_clock::now() > deadline)
      return fail(ETIMEDOUT, function ? fmt::format("{} has no IOMMU group", to_string(device.address)) : function.error().text);
    std::this_thread::sleep_for(20ms);
  }
}

Result<void> LinuxHost::bind(const PciAddress& address, const std::string& driver) const {
  const auto before = sysfs_.function(address);
  if (!before) return fail(before.error());
  // Where its PF has sriov_drivers_autoprobe off, a VF binds to nothing but what driver_override names.
  const bool named = before->driver_override == driver;
  if (!named)
    if (auto ok = sysfs_.set_driver_override(address, driver); !ok) return ok;
  const auto bound = sysfs_.bind(address, driver);
  if (!named)
    if (auto ok = sysfs_.set_driver_override(address, before->driver_override); !ok) return ok;
  if (!bound) return bound;
  // A probe that fails by a driver's own choice does not fail the write.
  const auto function = sysfs_.function(address);
  if (!function) return fail(function.error());
  if (function->driver != driver)
    return fail(ENODEV, fmt::format("{} did not take {}; `dmesg` may say why", driver, to_string(address)));
  return {};
}

}  // namespace hookline::loader
