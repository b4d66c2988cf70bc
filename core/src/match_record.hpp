// SPDX-License-Identifier: Apache-2.0
//
// The body of a match record, to bytes and back. Both ways check the same rules, so that a writer cannot make
// what no reader takes. Any thread. Errors: EINVAL; the text is the bare reason, without saying where.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <hookline/stream.hpp>

namespace hookline {

Result<std::vector<std::byte>> encode_match_body(const MatchRecord& match);
Result<MatchRecord> decode_match_body(std::span<const std::byte> body);

}  // namespace hookline
