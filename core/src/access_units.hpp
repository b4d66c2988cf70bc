// SPDX-License-Identifier: Apache-2.0
//
// How an access is cut: at given edges, and between them into naturally aligned units of 1, 2, 4 or 8 bytes,
// the largest first that fits. Values; any thread; no errors.
//
//     AccessUnits units(0x7fe, 12);
//     units.cut(0x800);             // -> 7fe+2, 800+8, 808+2
#pragma once

#include <cstdint>
#include <set>
#include <vector>

namespace hookline {

struct AccessUnit {
  uint64_t offset;
  uint32_t length;
  bool operator==(const AccessUnit&) const = default;
};

class AccessUnits {
 public:
  AccessUnits(uint64_t offset, uint64_t length) : edges_{offset, offset + length} {}

  /// An edge outside the access cuts nothing.
  void cut(uint64_t edge) {
    if (edge > *edges_.begin() && edge < *edges_.rbegin()) edges_.insert(edge);
  }

  std::vector<AccessUnit> units() const {
    std::vector<AccessUnit> units;
    for (auto edge = edges_.begin(); std::next(edge) != edges_.end(); ++edge) {
      const uint64_t end = *std::next(edge);
      for (uint64_t at = *edge; at < end; at += units.back().length) {
        uint32_t length = 8;
        while (at % length || at + length > end) length /= 2;
        units.push_back({at, length});
      }
    }
    return units;
  }

 private:
  std::set<uint64_t> edges_;
};

}  // namespace hookline
