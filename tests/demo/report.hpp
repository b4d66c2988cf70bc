// SPDX-License-Identifier: Apache-2.0
//
// What a person and what a program gets to see of the job's result. Pure functions.
#pragma once

#include <string>

#include "tests/demo/job.hpp"

namespace hookline::demo {

std::string to_table(const Report& report, bool color);
std::string to_json(const Report& report);

}  // namespace hookline::demo
