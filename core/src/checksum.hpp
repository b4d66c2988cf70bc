// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli), as in iSCSI and ext4: crc32c("123456789") is 0xe3069283. Any thread; cannot fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hookline {

/// Continues from `before`, the checksum of what came earlier: crc32c(b, crc32c(a)) is that of a and b
/// together.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace hookline
