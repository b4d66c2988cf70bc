// SPDX-License-Identifier: Apache-2.0
//
// Whether stderr is a terminal that shows colours, as people expect it to be decided: --color, then NO_COLOR, then TERM.
#pragma once

#include <string>

namespace hookline::loader {

/// `when`: auto, always or never.
bool use_color(const std::string& when, int fd);

}  // namespace hookline::loader
