// SPDX-License-Identifier: Apache-2.0
//
// What the body of a match record may be; the same for writer and reader, so that a writer cannot make what no reader
// takes. Any thread. Errors: EINVAL; the text is the bare reason, without saying where.
#pragma once

#include <algorithm>
#include <cerrno>
#include <string_view>

#include <fmt/format.h>

#include <hookline/result.hpp>

#include "stream_format.hpp"

namespace hookline {

inline Result<void> check_match_body(std::string_view text) {
  if (text.empty()) return fail(EINVAL, "it is empty");
  if (text.size() > stream_format::kMaxMatchBody)
    return fail(EINVAL, fmt::format("it has {} bytes, at most {} are possible", text.size(), stream_format::kMaxMatchBody));
  // It goes to logs and terminals as it is.
  if (!std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; }))
    return fail(EINVAL, "it holds a byte that is not printable ASCII");
  return {};
}

}  // namespace hookline
