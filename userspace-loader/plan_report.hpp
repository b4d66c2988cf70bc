// SPDX-License-Identifier: Apache-2.0
//
// A plan and what came of it, told to people and to programs: what apply and detach print.
//
// Pure functions. `results` is empty for a dry run.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "plan.hpp"

namespace hookline::loader {

std::string plan_text(const Plan& plan);
/// What failed, with what could not be undone; empty: nothing.
std::string failures_text(const Plan& plan, const std::vector<GroupResult>& results);
nlohmann::ordered_json plan_json(const Plan& plan, const std::vector<GroupResult>& results);
bool all_done(const std::vector<GroupResult>& results);

}  // namespace hookline::loader
