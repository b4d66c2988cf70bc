// SPDX-License-Identifier: Apache-2.0
//
// Verdicts, told to people and to programs: what `hookline compat` prints.
//
// Pure functions, any thread. Errors: none.
//
//     fmt::print("{}", verdict_text(source.name, result));
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <hookline/compatibility.hpp>
#include <nlohmann/json_fwd.hpp>

#include "command.hpp"
#include "compat_side.hpp"

namespace hookline::loader {

/// One destination judged.
struct Judged {
  std::string name;
  Verdict verdict{};
  std::vector<ParameterValue> values{};   ///< with yes: what its parameters become
  std::vector<ParameterValue> present{};  ///< with yes: what they are, in the same order
  bool same_plugin_version = false;

  size_t changes() const;
};

Judged judge(const Descriptor& source, const Side& dest);
/// Of a side that has no descriptor.
Judged judge(const Undescribed& side);

/// The better one first: yes before unknown before no; then the fewest parameters to change, then the source's own
/// version of the plugin; what is equal stays in its order.
void sort_best_first(std::vector<Judged>& all);

ExitCode exit_code(Answered answer);

std::string verdict_text(const std::string& source, const Judged& judged);
nlohmann::ordered_json verdict_json(const std::string& source, const Judged& judged);
/// One line each: those that can receive, or with `refused` the others and why.
std::string candidates_text(const std::vector<Judged>& all, bool refused);
nlohmann::ordered_json candidates_json(const std::string& source, const std::vector<Judged>& all);

}  // namespace hookline::loader
