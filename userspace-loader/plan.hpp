// SPDX-License-Identifier: Apache-2.0
//
// What apply and detach are going to do, as data: groups of steps. A dry run prints it, execute() does it and takes a
// group back, last step first, when one of its steps fails.
//
// Thread rule: plain values; execute() in one thread. Errors: of the runner; they end a group, not the plan.
//
//     for (const Group& group : plan.groups) for (const Step& step : group.steps) fmt::print("{}\n", describe(step));
//     std::vector<GroupResult> results = execute(plan, runner);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device_record.hpp"
#include "hookline/plugin.h"
#include "hookline/result.hpp"
#include "pci_address.hpp"

namespace hookline::loader {

enum class Action {
  load_module,      ///< value: module
  check_module,     ///< that the loaded module can do what `records` need
  remember_pf,      ///< pf_record
  forget_pf,        ///< pf_record
  set_autoprobe,    ///< value, before: "0", "1"
  set_numvfs,       ///< value, before: numbers
  await_vf,         ///< that the VF has appeared where it was expected; record
  remember,         ///< record, replacing `previous`
  forget,           ///< previous
  unbind,           ///< value: driver
  bind,             ///< value: driver
  set_override,     ///< value, before: drivers; empty: none
  define,           ///< record, replacing `previous`
  undefine,         ///< previous
  serve,            ///< start the supervisor and wait until the worker is ready
  stop_serving,     ///< the supervisor and its worker
  set_on_pf,        ///< pf_request, for the VF that `record` describes
};

using DeviceRecordPtr = std::shared_ptr<const DeviceRecord>;

struct Step {
  Action action;
  PciAddress address{};
  std::string value{}, before{};
  DeviceRecordPtr record{}, previous{};
  std::optional<PfRecord> pf_record{};
  std::optional<hookline_pf_request> pf_request{};
  std::vector<AppliedParameter> kept{};  ///< define: migration parameters that were written since the last apply
  std::string note{};  ///< what a person should know about it
};

/// What undoes a step; nothing if nothing has to be undone.
std::optional<Step> inverse(const Step& step);

/// "bind 0000:01:10.0 to vfio-pci-hooks"
std::string describe(const Step& step);

struct Group {
  std::string title;  ///< "0000:01:10.0 (VF 0 of 0000:01:00.0)"
  std::vector<Step> steps;
  std::vector<size_t> needs{};  ///< groups that must have succeeded
  /// Undone too when each group that needs it has failed: VFs nobody could use.
  bool only_for_others = false;
  bool roll_back = true;
};

struct Plan {
  std::vector<Group> groups;
  std::vector<std::string> notes{};      ///< for people; nothing is done about them
  std::vector<std::string> unchanged{};  ///< titles of devices that are as they should be
  bool empty() const { return groups.empty(); }
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual Result<void> run(const Step& step) = 0;
};

struct GroupResult {
  enum class End { done, failed, skipped };
  End end = End::done;
  std::optional<Step> failed_step{};
  Error error{};
  std::vector<std::string> not_undone{};  ///< roll-back steps that failed, with their reasons
};

/// One result per group. A group that needs a failed one is skipped.
std::vector<GroupResult> execute(const Plan& plan, StepRunner& runner);

}  // namespace hookline::loader
