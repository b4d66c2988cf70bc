// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <algorithm>

#include <fmt/core.h>

#include "pf_change.hpp"

namespace hookline::loader {
namespace {

Step with_action(Step step, Action action) {
  step.action = action;
  step.note.clear();
  return step;
}

std::string driver_or_none(const std::string& driver) { return driver.empty() ? "none" : driver; }

/// Undoes the steps, last first; what cannot be undone is reported and the rest goes on.
void roll_back(const std::vector<Step>& done, StepRunner& runner, std::vector<std::string>& not_undone) {
  for (auto step = done.rbegin(); step != done.rend(); ++step) {
    const std::optional<Step> undo = inverse(*step);
    if (!undo) continue;
    if (const auto ok = runner.run(*undo); !ok)
      not_undone.push_back(fmt::format("{}: {}", describe(*undo), ok.error().text));
  }
}

}  // namespace

std::optional<Step> inverse(const Step& step) {
  Step undo = with_action(step, step.action);
  std::swap(undo.value, undo.before);
  std::swap(undo.record, undo.previous);
  switch (step.action) {
    case Action::load_module:  // harmless without devices, and perhaps in use by now
    case Action::check_module:
    case Action::await_vf:
    case Action::set_on_pf:  // part of giving back, which goes on where a step fails
      return std::nullopt;
    case Action::set_autoprobe:
    case Action::set_numvfs:
    case Action::set_override:
      return undo;
    case Action::remember_pf: return with_action(step, Action::forget_pf);
    case Action::forget_pf: return with_action(step, Action::remember_pf);
    case Action::unbind: return with_action(step, Action::bind);
    case Action::bind: return with_action(step, Action::unbind);
    case Action::serve: return with_action(step, Action::stop_serving);
    case Action::stop_serving: return with_action(step, Action::serve);
    case Action::remember: return with_action(undo, undo.record ? Action::remember : Action::forget);
    case Action::forget: return with_action(undo, Action::remember);
    case Action::define: return with_action(undo, undo.record ? Action::define : Action::undefine);
    case Action::undefine: return with_action(undo, Action::define);
  }
  return std::nullopt;
}

std::string describe(const Step& step) {
  const std::string address = to_string(step.address);
  std::string text;
  switch (step.action) {
    case Action::load_module: text = fmt::format("load the kernel module {}", step.value); break;
    case Action::check_module: text = "check that the module can do what the devices need"; break;
    case Action::remember_pf:
    case Action::remember: text = fmt::format("write down how {} was found", address); break;
    case Action::forget_pf:
    case Action::forget: text = fmt::format("forget what was written down about {}", address); break;
    case Action::set_autoprobe:
      text = fmt::format("{}: {} drivers for new VFs", address, step.value == "0" ? "do not look for" : "look again for");
      break;
    case Action::set_numvfs: text = fmt::format("{}: change the number of VFs from {} to {}", address, step.before, step.value); break;
    case Action::await_vf: text = fmt::format("wait for {} to appear", address); break;
    case Action::unbind: text = fmt::format("unbind {} from {}", address, step.value); break;
    case Action::bind: text = fmt::format("bind {} to {}", address, step.value); break;
    case Action::set_override:
      text = fmt::format("{}: change driver_override from {} to {}", address, driver_or_none(step.before), driver_or_none(step.value));
      break;
    case Action::define: text = fmt::format("define the chain of {}", address); break;
    case Action::undefine: text = fmt::format("remove the definition of {}", address); break;
    case Action::serve: text = fmt::format("start serving {}", address); break;
    case Action::stop_serving: text = fmt::format("stop serving {}", address); break;
    case Action::set_on_pf: text = fmt::format("{}: set {} on its PF again", address, describe(*step.pf_request)); break;
  }
  if (!step.note.empty()) text += fmt::format(" ({})", step.note);
  return text;
}

std::vector<GroupResult> execute(const Plan& plan, StepRunner& runner) {
  std::vector<GroupResult> results(plan.groups.size());
  const auto succeeded = [&](size_t group) { return results[group].end == GroupResult::End::done; };

  for (size_t g = 0; g < plan.groups.size(); ++g) {
    const Group& group = plan.groups[g];
    GroupResult& result = results[g];
    if (!std::all_of(group.needs.begin(), group.needs.end(), succeeded)) {
      result.end = GroupResult::End::skipped;
      continue;
    }
    std::vector<Step> done;
    for (const Step& step : group.steps) {
      const auto ok = runner.run(step);
      if (ok) {
        done.push_back(step);
        continue;
      }
      result.end = GroupResult::End::failed;
      result.failed_step = step;
      result.error = ok.error();
      if (group.roll_back) roll_back(done, runner, result.not_undone);
      break;
    }
  }

  for (size_t g = 0; g < plan.groups.size(); ++g) {
    if (!plan.groups[g].only_for_others || !succeeded(g)) continue;
    bool used = false;
    for (size_t other = 0; other < plan.groups.size(); ++other) {
      const auto& needs = plan.groups[other].needs;
      if (std::find(needs.begin(), needs.end(), g) != needs.end() && succeeded(other)) used = true;
    }
    if (!used) roll_back(plan.groups[g].steps, runner, results[g].not_undone);
  }
  return results;
}

}  // namespace hookline::loader
