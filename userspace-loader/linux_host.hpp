// SPDX-License-Identifier: Apache-2.0
//
// The real host behind planner and plan: asks the kernel, takes the steps.
//
// One thread. Errors: Result, as the part that does the work words them.
//
//     LinuxHost host(root);
//     Plan plan = plan_apply(config, options, host.sysfs(), host.state(), host, diagnostics);
//     execute(plan, host);
#pragma once

#include <functional>
#include <string>

#include "plan.hpp"
#include "planner.hpp"
#include "run_state.hpp"
#include "service_control.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

class LinuxHost final : public HostFacts, public StepRunner {
 public:
  explicit LinuxHost(const std::string& root) : root_(root), sysfs_(root), state_(root), services_(root, state_) {}

  const Sysfs& sysfs() const { return sysfs_; }
  const RunState& state() const { return state_; }
  /// Told of each step before it is taken.
  std::function<void(const Step&)> on_step{};

  bool module_loaded() const override;
  bool module_available() const override;
  /// Whether the function is open; an error where that cannot be asked.
  Result<bool> is_open(const PciAddress& address) const;
  std::optional<vfio_pci_hooks_status> status(const PciAddress& address) const override;
  bool served(const PciAddress& address) const override { return services_.serves(address); }
  bool supervised(const PciAddress& address) const override { return services_.supervises(address); }
  std::vector<std::string> holders(const PciFunction& function) const override;
  std::optional<PfSettings> pf_settings(const AppliedDevice& device) const override;
  std::vector<std::string> lacking(const AppliedDevice& device) const override;

  Result<void> run(const Step& step) override;

 private:
  Result<void> remember(DeviceRecord record) const;
  Result<void> load_module(const std::string& module) const;
  Result<void> check_module(const AppliedDevice& device) const;
  Result<void> define(const AppliedDevice& device, const std::vector<AppliedParameter>& kept) const;
  Result<void> undefine(const PciAddress& address) const;
  Result<void> await_vf(const AppliedDevice& device) const;
  Result<void> bind(const PciAddress& address, const std::string& driver) const;

  std::filesystem::path root_;
  Sysfs sysfs_;
  RunState state_;
  ServiceControl services_;
};

}  // namespace hookline::loader
