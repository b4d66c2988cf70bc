// SPDX-License-Identifier: Apache-2.0
//
// Named fields inside a section's payload: name, length and value, one behind the other, in a fixed order.
//
// The names cost a few bytes and make a refusal say which value was wrong. docs/stream-format.md has the
// encoding. Neither class owns memory. One thread at a time per object. Values are bytes: byte order is their
// writer's business.
//
// Errors: Result. ENOSPC from a full buffer; EBADMSG for bytes that are no fields; EINVAL for fields other
// than asked for. A failed put() or get() changes nothing, the caller's value included.
//
//     FieldWriter out(buffer);
//     out.put("head", head_bytes);
//     writer.section("nic-82576/queue0", {}, out.bytes());
//
//     FieldReader in(section.name, section.payload, section.offset);
//     if (auto ok = in.get("head", head_bytes); !ok) return ok;
//     if (head >= ring_size) return in.reject("head", "is not below the ring size");
//     return in.finish();
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <hookline/result.hpp>

namespace hookline {

/// True for what may name a field: 1 to 64 of a-z 0-9 - _ . /
bool is_field_name(std::string_view name);

struct FieldFlags {
  bool optional = false;  ///< a reader that does not ask for the field skips it
};

class FieldWriter {
 public:
  explicit FieldWriter(std::span<std::byte> buffer) : buffer_(buffer) {}

  /// EINVAL for a bad name, ENOSPC if the field does not fit.
  Result<void> put(std::string_view name, std::span<const std::byte> value, FieldFlags flags = {});

  /// The same, but the caller fills the value in place.
  Result<std::span<std::byte>> reserve(std::string_view name, size_t length, FieldFlags flags = {});

  /// What was put so far.
  std::span<const std::byte> bytes() const { return buffer_.first(used_); }

 private:
  std::span<std::byte> buffer_;
  size_t used_ = 0;
};

class FieldReader {
 public:
  /// `offset` is the payload's place in the stream, for texts; leave it out where there is none.
  FieldReader(std::string_view section, std::span<const std::byte> payload,
              std::optional<uint64_t> offset = {})
      : section_(section), payload_(payload), offset_(offset) {}

  /// The next field must be `name` and exactly as long as `value`. Optional fields of other names are
  /// skipped.
  Result<void> get(std::string_view name, std::span<std::byte> value);

  /// The same for a value of any length up to `most`, in place.
  Result<std::span<const std::byte>> view(std::string_view name, size_t most);

  /// Whether get(name) would find the field: for optional ones, which an older writer does not send.
  bool has(std::string_view name) const;

  /// Every field has been read; what remains may only be optional.
  Result<void> finish();

  /// The error for a value that was read and is out of range; EINVAL.
  tl::unexpected<Error> reject(std::string_view name, std::string_view reason) const;

 private:
  struct Field {
    std::string_view name;
    bool optional;
    size_t at;  // offset in the payload
    std::span<const std::byte> value;
    size_t end;
  };
  Result<Field> decode(size_t at) const;
  Result<std::optional<Field>> find(std::string_view name) const;
  Result<Field> expect(std::string_view name) const;
  tl::unexpected<Error> refuse(int code, std::string_view name, std::optional<size_t> at,
                               std::string_view reason) const;

  std::string section_;
  std::span<const std::byte> payload_;
  std::optional<uint64_t> offset_;
  size_t next_ = 0;
};

}  // namespace hookline
