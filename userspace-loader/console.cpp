// SPDX-License-Identifier: Apache-2.0
#include "console.hpp"

#include <unistd.h>

#include <cstdlib>

namespace hookline::loader {

bool use_color(const std::string& when, int fd) {
  if (when != "auto") return when == "always";
  if (const char* no_color = std::getenv("NO_COLOR"); no_color && *no_color) return false;
  if (const char* term = std::getenv("TERM"); !term || std::string(term) == "dumb") return false;
  return isatty(fd) == 1;
}

}  // namespace hookline::loader
