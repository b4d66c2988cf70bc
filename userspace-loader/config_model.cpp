// SPDX-License-Identifier: Apache-2.0
#include "config_model.hpp"

#include <fmt/format.h>

namespace hookline::loader {

std::string to_string(const Match& match) {
  if (match.address) return to_string(*match.address);
  std::string vfs;
  for (size_t i = 0; i < match.vfs.size();) {
    size_t last = i;
    while (last + 1 < match.vfs.size() && match.vfs[last + 1] == match.vfs[last] + 1) ++last;
    vfs += fmt::format("{}{}", vfs.empty() ? "" : ",", match.vfs[i]);
    if (last > i) vfs += fmt::format("-{}", match.vfs[last]);
    i = last + 1;
  }
  return fmt::format("{} vf {}", match.pf, vfs);
}

const char* to_string(GuestMemory memory) {
  switch (memory) {
    case GuestMemory::none: return "none";
    case GuestMemory::read: return "read";
    case GuestMemory::write: return "write";
  }
  return "?";
}

const char* to_string(WorkerLoss policy) { return policy == WorkerLoss::fail ? "fail" : "pass"; }

}  // namespace hookline::loader
