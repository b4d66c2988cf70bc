// SPDX-License-Identifier: Apache-2.0
#include "plan_report.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hookline::loader {
namespace {

const char* to_string(GroupResult::End end) {
  switch (end) {
    case GroupResult::End::done: return "done";
    case GroupResult::End::failed: return "failed";
    case GroupResult::End::skipped: return "skipped";
  }
  return "?";
}

}  // namespace

std::string plan_text(const Plan& plan) {
  std::string text;
  for (const Group& group : plan.groups) {
    if (group.steps.empty()) continue;
    text += group.title + ":\n";
    for (const Step& step : group.steps) text += fmt::format("  {}\n", describe(step));
  }
  for (const std::string& title : plan.unchanged) text += fmt::format("{}: nothing to do\n", title);
  for (const std::string& note : plan.notes) text += fmt::format("note: {}\n", note);
  return text;
}

std::string failures_text(const Plan& plan, const std::vector<GroupResult>& results) {
  std::string text;
  for (size_t i = 0; i < results.size(); ++i) {
    const GroupResult& result = results[i];
    const Group& group = plan.groups[i];
    if (result.end == GroupResult::End::skipped)
      text += fmt::format("{}: not begun, because what it needs failed\n", group.title);
    if (result.end == GroupResult::End::failed)
      text += fmt::format("{}: cannot {}: {}\n", group.title, describe(*result.failed_step), result.error.text);
    if (result.end == GroupResult::End::failed && group.roll_back && result.not_undone.empty())
      text += fmt::format("{}: it is as it was before\n", group.title);
    for (const std::string& step : result.not_undone) text += fmt::format("{}: could not be undone: {}\n", group.title, step);
  }
  return text;
}

nlohmann::ordered_json plan_json(const Plan& plan, const std::vector<GroupResult>& results) {
  using json = nlohmann::ordered_json;
  json groups = json::array();
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    const Group& group = plan.groups[i];
    if (group.steps.empty()) continue;
    json steps = json::array();
    for (const Step& step : group.steps) steps.push_back(describe(step));
    json entry = {{"title", group.title}, {"steps", std::move(steps)}, {"result", "planned"}};
    if (!results.empty()) {
      const GroupResult& result = results[i];
      entry["result"] = to_string(result.end);
      if (result.failed_step)
        entry["error"] = {{"step", describe(*result.failed_step)}, {"errno", result.error.code}, {"text", result.error.text}};
      entry["not_undone"] = result.not_undone;
    }
    groups.push_back(std::move(entry));
  }
  return {{"groups", std::move(groups)}, {"unchanged", plan.unchanged}, {"notes", plan.notes}};
}

bool all_done(const std::vector<GroupResult>& results) {
  return std::all_of(results.begin(), results.end(), [](const GroupResult& r) { return r.end == GroupResult::End::done; });
}

}  // namespace hookline::loader
