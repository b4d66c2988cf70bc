// SPDX-License-Identifier: Apache-2.0
#include "match_record.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "bytes.hpp"
#include "stream_format.hpp"

namespace hookline {

using namespace stream_format;

namespace {

// The texts go to logs and terminals as they are, hence printable ASCII.
Result<void> check_text(std::string_view what, std::string_view text, size_t shortest, size_t longest) {
  if (text.size() < shortest) return fail(EINVAL, fmt::format("the {} is empty", what));
  if (text.size() > longest)
    return fail(EINVAL,
                fmt::format("the {} has {} bytes, at most {} are possible", what, text.size(), longest));
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; }))
    return fail(EINVAL, fmt::format("the {} holds a byte that is not printable ASCII", what));
  return {};
}

Result<void> check(const MatchRecord& match) {
  if (auto ok = check_text("model", match.model, 1, kMaxIdentity); !ok) return ok;
  if (auto ok = check_text("plugin name", match.plugin, 1, kMaxIdentity); !ok) return ok;
  if (auto ok = check_text("plugin version", match.plugin_version, 0, kMaxIdentity); !ok) return ok;
  if (auto ok = check_text("migration_version", match.migration_version, 0, kMaxMigrationVersion); !ok)
    return ok;
  if (match.parameters.size() > kMaxParameters)
    return fail(EINVAL, fmt::format("there are {} parameters, at most {} are possible",
                                    match.parameters.size(), kMaxParameters));
  for (auto it = match.parameters.begin(); it != match.parameters.end(); ++it) {
    if (auto ok = check_text("name of a parameter", it->name, 1, kMaxParameterName); !ok) return ok;
    const std::string value_of = fmt::format("value of parameter \"{}\"", it->name);
    if (auto ok = check_text(value_of, it->value, 0, kMaxParameterValue); !ok) return ok;
    if (std::any_of(match.parameters.begin(), it,
                    [&](const Parameter& earlier) { return earlier.name == it->name; }))
      return fail(EINVAL, fmt::format("parameter \"{}\" is given twice", it->name));
  }
  return {};
}

void append_u16(std::vector<std::byte>& out, size_t value) {
  out.resize(out.size() + 2);
  store_le<uint16_t>(&out[out.size() - 2], static_cast<uint16_t>(value));
}

void append_text(std::vector<std::byte>& out, std::string_view text) {
  append_u16(out, text.size());
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// Reads on after an overrun as if zeros followed; overrun() tells at the end.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> rest) : rest_(rest) {}

  uint16_t u16() {
    const auto bytes = take(2);
    return bytes.size() == 2 ? load_le<uint16_t>(bytes.data()) : uint16_t{0};
  }
  std::string text() {
    const auto bytes = take(u16());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  bool overrun() const { return overrun_; }
  size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> take(size_t n) {
    if (n > rest_.size()) {
      overrun_ = true;
      rest_ = {};
      return {};
    }
    const auto bytes = rest_.first(n);
    rest_ = rest_.subspan(n);
    return bytes;
  }

  std::span<const std::byte> rest_;
  bool overrun_ = false;
};

}  // namespace

Result<std::vector<std::byte>> encode_match_body(const MatchRecord& match) {
  if (auto ok = check(match); !ok) return fail(ok.error());
  std::vector<std::byte> body;
  append_text(body, match.model);
  append_text(body, match.plugin);
  append_text(body, match.plugin_version);
  append_text(body, match.migration_version);
  append_u16(body, match.parameters.size());
  for (const Parameter& parameter : match.parameters) {
    append_text(body, parameter.name);
    append_text(body, parameter.value);
  }
  if (body.size() > kMaxMatchBody)
    return fail(EINVAL,
                fmt::format("it has {} bytes, at most {} are possible; use fewer or shorter parameters",
                            body.size(), kMaxMatchBody));
  return body;
}

Result<MatchRecord> decode_match_body(std::span<const std::byte> body) {
  Cursor cursor(body);
  MatchRecord match;
  match.model = cursor.text();
  match.plugin = cursor.text();
  match.plugin_version = cursor.text();
  match.migration_version = cursor.text();
  const size_t count = std::min<size_t>(cursor.u16(), kMaxParameters + 1);
  for (size_t i = 0; i < count && !cursor.overrun(); ++i) {
    std::string name = cursor.text();
    match.parameters.push_back({std::move(name), cursor.text()});
  }
  if (cursor.overrun()) return fail(EINVAL, "its last text reaches beyond its end");
  if (auto ok = check(match); !ok) return fail(ok.error());
  if (cursor.left() > 0)
    return fail(EINVAL, fmt::format("{} bytes follow its last parameter", cursor.left()));
  return match;
}

}  // namespace hookline
