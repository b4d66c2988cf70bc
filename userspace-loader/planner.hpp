// SPDX-License-Identifier: Apache-2.0
//
// Decides what apply and detach have to do on this host, and what stands in the way; changes nothing.
//
// Everything that can be known is asked before the first step: functions that are not there, that are something else,
// that somebody uses, that a driver needs. Thread rule: one thread. Errors: planning a file fills `diagnostics`, planning
// a detach returns problems; with either the plan must not be executed.
//
//     Plan plan = plan_apply(config, {.allow_untrusted = false}, sysfs, state, facts, diagnostics);
//     if (diagnostics.errors() == 0) execute(plan, runner);
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <linux/vfio_pci_hooks.h>

#include "config_model.hpp"
#include "diagnostics.hpp"
#include "plan.hpp"
#include "run_state.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

inline constexpr const char* kDriver = "vfio-pci-hooks";  ///< the kernel module and its PCI driver

/// What the planner asks of the running system besides sysfs and the loader's own memory.
class HostFacts {
 public:
  virtual ~HostFacts() = default;
  /// The module is loaded, or can be.
  virtual bool module_loaded() const = 0;
  virtual bool module_available() const = 0;
  /// Nothing: the function has no definition.
  virtual std::optional<vfio_pci_hooks_status> status(const PciAddress& address) const = 0;
  /// A supervisor or a worker it has left behind is alive.
  virtual bool served(const PciAddress& address) const = 0;
  /// A supervisor is.
  virtual bool supervised(const PciAddress& address) const = 0;
  /// Who has its VFIO group or device open: "qemu-system-x86_64 (process 812)".
  virtual std::vector<std::string> holders(const PciFunction& function) const = 0;
  /// What is set for a VF on its PF; nothing: it cannot be asked.
  virtual std::optional<PfSettings> pf_settings(const AppliedDevice& device) const = 0;
  /// What the loaded module lacks for the device; empty too when it is not loaded.
  virtual std::vector<std::string> lacking(const AppliedDevice& device) const = 0;
};

struct ApplyOptions {
  bool allow_untrusted = false;
  std::string config_file;  ///< as it is written down; absolute
};

Plan plan_apply(const Config& config, const ApplyOptions& options, const Sysfs& sysfs, const RunState& state,
                const HostFacts& facts, Diagnostics& diagnostics);

struct DetachPlan {
  Plan plan;
  std::vector<Error> problems;  ///< devices that cannot be given back now; the plan leaves them out
};

DetachPlan plan_detach(const std::vector<PciAddress>& addresses, const Sysfs& sysfs, const RunState& state,
                       const HostFacts& facts);

}  // namespace hookline::loader
