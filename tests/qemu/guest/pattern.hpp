// SPDX-License-Identifier: Apache-2.0
//
// What the streams carry: a block of noise over and over. Its length is a prime, so that lost, repeated or misplaced bytes
// do not fit. tests/qemu/traffic.py makes the same block.
//
// Any thread; no errors.
//
//     wrong += pattern.differences(position, received);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hookline::guest {

class Pattern {
 public:
  static constexpr size_t kLength = 65521;

  Pattern() {
    uint32_t x = 82576;
    for (uint8_t& byte : block_) {
      x = x * 1664525 + 1013904223;
      byte = static_cast<uint8_t>(x >> 24);
    }
  }

  uint8_t at(uint64_t position) const { return block_[position % kLength]; }
  void fill(uint64_t position, std::span<uint8_t> out) const {
    for (uint8_t& byte : out) byte = at(position++);
  }
  uint64_t differences(uint64_t position, std::span<const uint8_t> in) const {
    uint64_t wrong = 0;
    for (const uint8_t byte : in) wrong += byte != at(position++);
    return wrong;
  }

 private:
  std::array<uint8_t, kLength> block_;
};

}  // namespace hookline::guest
