// SPDX-License-Identifier: Apache-2.0
#include "checksum.hpp"

#include <algorithm>

#include <isa-l/crc.h>

namespace hookline {

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before) {
  // ISA-L leaves the inversions of both ends to its caller and counts in int.
  constexpr size_t kLargestCall = size_t{1} << 30;
  uint32_t state = ~before;
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), kLargestCall);
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(n), state);
    bytes = bytes.subspan(n);
  }
  return ~state;
}

}  // namespace hookline
