// SPDX-License-Identifier: Apache-2.0
#include "utf8.hpp"

#include <cstdint>

namespace hookline::loader {

size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (at >= text.size()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

bool is_printable(std::string_view text, size_t at, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  switch (length) {
    case 0: return false;
    case 1: return byte(0) >= 0x20 && byte(0) != 0x7f;
    case 2: return !(byte(0) == 0xc2 && byte(1) < 0xa0);  // C1 controls
    // U+200B to U+200F, U+2028 to U+202E, U+2060 to U+206F, U+FEFF: invisible, or they turn the line round.
    case 3:
      if (byte(0) == 0xe2 && byte(1) == 0x80)
        return !((byte(2) >= 0x8b && byte(2) <= 0x8f) || (byte(2) >= 0xa8 && byte(2) <= 0xae));
      if (byte(0) == 0xe2 && byte(1) == 0x81) return byte(2) < 0xa0 || byte(2) > 0xaf;
      return !(byte(0) == 0xef && byte(1) == 0xbb && byte(2) == 0xbf);
    default: return true;
  }
}

}  // namespace hookline::loader
