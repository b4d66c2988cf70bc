// SPDX-License-Identifier: Apache-2.0
//
// Rows of text as aligned columns, two spaces apart, no blanks at a line's end. Pure; any thread; no errors.
//
//     fmt::print("{}", table({{"DEVICE", "STATE"}, {"0000:01:10.0", "RUNNING"}}));
#pragma once

#include <string>
#include <vector>

namespace hookline::loader {

std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace hookline::loader
