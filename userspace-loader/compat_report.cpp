// SPDX-License-Identifier: Apache-2.0
#include "compat_report.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

json answer_json(Answered answer) {
  if (answer == Answered::unknown) return "unknown";
  return answer == Answered::yes;
}

json reasons_json(const Verdict& verdict) {
  json reasons = json::array();
  for (const Reason& r : verdict.reasons)
    reasons.push_back({{"code", r.code}, {"field", r.field}, {"source", r.source}, {"dest", r.dest}, {"text", r.text}, {"fix", r.fix}});
  return reasons;
}

struct Unchecked {
  std::string_view code;
  const char* text;
  const char* brief;  ///< in a list
};
constexpr Unchecked kUnchecked[] = {
    {"config", "configuration space was not compared: the destination's is not known", "configuration space not compared"},
    {"in-use", "whether a VMM has the device open was not asked: only root may", "not asked whether it is open"},
};

/// In what a rule of this hookline left unchecked.
const Unchecked& unchecked(const std::string& code) {
  return *std::find_if(std::begin(kUnchecked), std::prev(std::end(kUnchecked)), [&](const Unchecked& u) { return u.code == code; });
}

json parameters_json(const Judged& judged) {
  json parameters = json::object();
  for (const ParameterValue& p : judged.values) parameters[p.name] = p.value;
  return parameters;
}

int rank(Answered answer) { return answer == Answered::yes ? 0 : (answer == Answered::unknown ? 1 : 2); }

}  // namespace

size_t Judged::changes() const {
  size_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) count += values[i] != present[i];
  return count;
}

Judged judge(const Descriptor& source, const Side& dest) {
  Judged judged{.name = dest.name, .verdict = check_compatibility(source, dest.descriptor)};
  judged.same_plugin_version = source.plugin_version == dest.descriptor.plugin_version;
  if (dest.use == Use::open) {
    judged.verdict.answer = Answered::no;
    judged.verdict.reasons.push_back({.code = "in-use",
                                      .field = "device",
                                      .source = "",
                                      .dest = "open",
                                      .text = "a VMM has the device open",
                                      .fix = "wait until its guest is gone, or choose another device"});
  }
  if (dest.use == Use::not_known) judged.verdict.unchecked.push_back("in-use");
  if (judged.verdict.answer != Answered::yes) return judged;
  judged.values = values_for(source, dest.descriptor);
  for (const DescribedParameter& p : dest.descriptor.parameters) judged.present.push_back({p.name, p.value});
  return judged;
}

Judged judge(const Undescribed& side) {
  return {.name = side.name, .verdict = {side.code == kNo ? Answered::no : Answered::unknown, {side.reason}}};
}

void sort_best_first(std::vector<Judged>& all) {
  std::stable_sort(all.begin(), all.end(), [](const Judged& a, const Judged& b) {
    const auto key = [](const Judged& j) { return std::tuple(rank(j.verdict.answer), j.changes(), !j.same_plugin_version); };
    return key(a) < key(b);
  });
}

ExitCode exit_code(Answered answer) {
  return answer == Answered::yes ? kYes : (answer == Answered::no ? kNo : kUnknown);
}

std::string verdict_text(const std::string& source, const Judged& judged) {
  if (judged.verdict.answer == Answered::yes) {
    std::string text = fmt::format("yes: {} can receive the state of {}\n", judged.name, source);
    for (size_t i = 0; i < judged.values.size(); ++i) {
      const ParameterValue& p = judged.values[i];
      if (p == judged.present[i])
        text += fmt::format("  {} stays {}\n", p.name, p.value);
      else
        text += fmt::format("  {} becomes {}, it is {} now\n", p.name, p.value, judged.present[i].value);
    }
    for (const std::string& code : judged.verdict.unchecked) text += fmt::format("  {}\n", unchecked(code).text);
    return text;
  }
  std::string text = judged.verdict.answer == Answered::no
                         ? fmt::format("no: {} cannot receive the state of {}\n", judged.name, source)
                         : fmt::format("unknown: nobody can tell whether {} can receive the state of {}\n", judged.name, source);
  for (const Reason& r : judged.verdict.reasons) text += fmt::format("  {}: {}\n    to do: {}\n", r.field, r.text, r.fix);
  return text;
}

json verdict_json(const std::string& source, const Judged& judged) {
  return {{"schema", "hookline/compat-check/1"},
          {"source", source},
          {"dest", judged.name},
          {"compatible", answer_json(judged.verdict.answer)},
          {"reasons", reasons_json(judged.verdict)},
          {"unchecked", judged.verdict.unchecked},
          {"parameters", parameters_json(judged)}};
}

std::string candidates_text(const std::vector<Judged>& all, bool refused) {
  std::string text;
  for (const Judged& judged : all) {
    if ((judged.verdict.answer != Answered::yes) != refused) continue;
    if (refused) {
      for (const Reason& r : judged.verdict.reasons) text += fmt::format("{}: {}\n", judged.name, r.text);
      continue;
    }
    const size_t changes = judged.changes();
    std::string notes;
    for (const std::string& code : judged.verdict.unchecked) notes += fmt::format(", {}", unchecked(code).brief);
    text += fmt::format("{}  {}{}{}\n", judged.name,
                        changes ? fmt::format("{} parameter{} to change", changes, changes == 1 ? "" : "s") : "nothing to change",
                        judged.same_plugin_version ? "" : ", another version of the plugin", notes);
  }
  return text;
}

json candidates_json(const std::string& source, const std::vector<Judged>& all) {
  json out{{"schema", "hookline/compat-select/1"}, {"source", source}, {"candidates", json::array()}, {"refused", json::array()}};
  for (const Judged& judged : all) {
    if (judged.verdict.answer == Answered::yes)
      out["candidates"].push_back({{"dest", judged.name},
                                   {"changes", judged.changes()},
                                   {"same_plugin_version", judged.same_plugin_version},
                                   {"unchecked", judged.verdict.unchecked},
                                   {"parameters", parameters_json(judged)}});
    else
      out["refused"].push_back(
          {{"dest", judged.name}, {"compatible", answer_json(judged.verdict.answer)}, {"reasons", reasons_json(judged.verdict)}});
  }
  return out;
}

}  // namespace hookline::loader
