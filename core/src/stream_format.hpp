// SPDX-License-Identifier: Apache-2.0
//
// Constants of the device-state stream. ../docs/stream-format.md says what they mean and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hookline::stream_format {

inline constexpr std::string_view kMagic = "HOOKLINE";
inline constexpr uint32_t kVersion = 1;

inline constexpr size_t kChecksumSize = 4;

// Match record; its first 20 bytes are the same in every format version.
inline constexpr size_t kMatchVersionAt = 8;
inline constexpr size_t kMatchLengthAt = 12;
inline constexpr size_t kMatchHeaderChecksumAt = 16;
inline constexpr size_t kMatchHeaderSize = 20;
inline constexpr size_t kMaxMatchBody = 4095;  // a migration_version

// Every later record begins with its tag.
inline constexpr size_t kTagSize = 4;
inline constexpr std::string_view kSectionTag = "SECT";
inline constexpr std::string_view kTrailerTag = "DONE";

inline constexpr size_t kSectionNumberAt = 4;
inline constexpr size_t kSectionFlagsAt = 8;
inline constexpr size_t kSectionLengthAt = 12;
inline constexpr size_t kSectionNameAt = 16;
inline constexpr size_t kSectionNameSize = 64;
inline constexpr size_t kSectionHeaderChecksumAt = 80;
inline constexpr size_t kSectionHeaderSize = 84;
inline constexpr uint32_t kFlagOptional = 1U << 0;
inline constexpr uint32_t kFlagBulk = 1U << 1;

inline constexpr size_t kTrailerChunksAt = 4;
inline constexpr size_t kTrailerTotalAt = 8;
inline constexpr size_t kTrailerHeaderChecksumAt = 16;
inline constexpr size_t kTrailerHeaderSize = 20;
inline constexpr size_t kTrailerSize = kTrailerHeaderSize + kChecksumSize;

// Fields inside a payload.
inline constexpr uint8_t kFieldOptional = 0x80;  // in the name's length byte
inline constexpr size_t kMaxFieldName = 64;

}  // namespace hookline::stream_format
