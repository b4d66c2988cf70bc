// SPDX-License-Identifier: Apache-2.0
#include <hookline/fields.hpp>

#include <algorithm>
#include <cerrno>
#include <limits>

#include <fmt/format.h>

#include "bytes.hpp"
#include "stream_format.hpp"

namespace hookline {

using namespace stream_format;

bool is_field_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxFieldName &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_./") == std::string_view::npos;
}

Result<void> FieldWriter::put(std::string_view name, std::span<const std::byte> value, FieldFlags flags) {
  const Result<std::span<std::byte>> at = reserve(name, value.size(), flags);
  if (!at) return fail(at.error());
  std::ranges::copy(value, at->begin());
  return {};
}

Result<std::span<std::byte>> FieldWriter::reserve(std::string_view name, size_t length, FieldFlags flags) {
  if (!is_field_name(name))
    return fail(EINVAL,
                fmt::format("field name \"{}\": use 1 to {} of a-z 0-9 - _ . /", name, kMaxFieldName));
  const size_t overhead = 1 + name.size() + sizeof(uint32_t);
  const size_t room = buffer_.size() - used_;
  if (length > std::numeric_limits<uint32_t>::max() || overhead + length > room)
    return fail(ENOSPC,
                fmt::format("field \"{}\": {} bytes do not fit into the {} that are left of the chunk; "
                            "write another chunk",
                            name, overhead + length, room));
  std::byte* at = buffer_.data() + used_;
  *at++ = static_cast<std::byte>(name.size() | (flags.optional ? kFieldOptional : 0));
  at = std::ranges::copy(std::as_bytes(std::span(name)), at).out;
  store_le<uint32_t>(at, static_cast<uint32_t>(length));
  used_ += overhead + length;
  return std::span(at + sizeof(uint32_t), length);
}

Result<FieldReader::Field> FieldReader::expect(std::string_view name) const {
  const Result<std::optional<Field>> found = find(name);
  if (!found) return fail(found.error());
  if (!*found)
    return refuse(EINVAL, name, {},
                  "is missing, the section ends before it: written by another version of the plugin");
  if ((*found)->name != name)
    return refuse(EINVAL, name, (*found)->at,
                  fmt::format("was expected, \"{}\" is there: written by another version of the plugin",
                              (*found)->name));
  return **found;
}

Result<void> FieldReader::get(std::string_view name, std::span<std::byte> value) {
  const Result<Field> found = expect(name);
  if (!found) return fail(found.error());
  const Field& field = *found;
  if (field.value.size() != value.size())
    return refuse(EINVAL, name, field.at,
                  fmt::format("has {} bytes, expected {}: written by another version of the plugin",
                              field.value.size(), value.size()));
  std::ranges::copy(field.value, value.begin());
  next_ = field.end;
  return {};
}

Result<std::span<const std::byte>> FieldReader::view(std::string_view name, size_t most) {
  const Result<Field> found = expect(name);
  if (!found) return fail(found.error());
  if (found->value.size() > most)
    return refuse(EINVAL, name, found->at,
                  fmt::format("has {} bytes, expected at most {}: written by another version of the plugin",
                              found->value.size(), most));
  next_ = found->end;
  return found->value;
}

bool FieldReader::has(std::string_view name) const {
  const Result<std::optional<Field>> found = find(name);
  return found && *found && (*found)->name == name;
}

Result<void> FieldReader::finish() {
  const Result<std::optional<Field>> rest = find({});
  if (!rest) return fail(rest.error());
  if (*rest)
    return refuse(EINVAL, (*rest)->name, (*rest)->at,
                  "is unknown here and not optional: written by a newer version of the plugin; upgrade it on "
                  "this host");
  next_ = payload_.size();
  return {};
}

// The field `name`, or the first mandatory field if that comes earlier, or nothing at the end of the section.
Result<std::optional<FieldReader::Field>> FieldReader::find(std::string_view name) const {
  size_t at = next_;
  while (at < payload_.size()) {
    Result<Field> field = decode(at);
    if (!field) return fail(field.error());
    if (field->name == name || !field->optional) return std::optional(*field);
    at = field->end;
  }
  return std::optional<Field>();
}

Result<FieldReader::Field> FieldReader::decode(size_t at) const {
  const std::span<const std::byte> rest = payload_.subspan(at);
  const auto first = std::to_integer<uint8_t>(rest[0]);
  const size_t name_size = first & ~kFieldOptional;
  const size_t value_at = 1 + name_size + sizeof(uint32_t);
  if (value_at > rest.size()) return refuse(EBADMSG, {}, at, "reaches beyond the section");
  const std::string_view name(reinterpret_cast<const char*>(rest.data()) + 1, name_size);
  if (!is_field_name(name))
    return refuse(EBADMSG, {}, at, "has a name that is not 1 to 64 of a-z 0-9 - _ . /");
  const auto size = load_le<uint32_t>(rest.data() + value_at - sizeof(uint32_t));
  if (size > rest.size() - value_at) return refuse(EBADMSG, name, at, "reaches beyond the section");
  return Field{name, (first & kFieldOptional) != 0, at, rest.subspan(value_at, size), at + value_at + size};
}

tl::unexpected<Error> FieldReader::reject(std::string_view name, std::string_view reason) const {
  size_t at = 0;
  while (at < next_) {
    const Result<Field> field = decode(at);
    if (!field) break;
    if (field->name == name) return refuse(EINVAL, name, at, reason);
    at = field->end;
  }
  return refuse(EINVAL, name, {}, reason);
}

tl::unexpected<Error> FieldReader::refuse(int code, std::string_view name, std::optional<size_t> at,
                                          std::string_view reason) const {
  std::string text = fmt::format("device-state stream: section \"{}\": ", section_);
  text += name.empty() ? "a field" : fmt::format("field \"{}\"", name);
  if (at && offset_) text += fmt::format(" at offset {}", *offset_ + *at);
  return fail(code, fmt::format("{}: {}", text, reason));
}

}  // namespace hookline
