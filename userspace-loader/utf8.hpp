// SPDX-License-Identifier: Apache-2.0
//
// The little of UTF-8 that a reader of configuration files needs.
#pragma once

#include <cstddef>
#include <string_view>

namespace hookline::loader {

/// Bytes of the valid character at `at` (shortest form, no surrogates, up to U+10FFFF); 0: none there.
size_t utf8_length(std::string_view text, size_t at);

/// Whether the character at `at`, `length` bytes long, is shown by a terminal and does nothing else to it.
bool is_printable(std::string_view text, size_t at, size_t length);

}  // namespace hookline::loader
