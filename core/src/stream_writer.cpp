// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include <hookline/stream.hpp>

#include "bytes.hpp"
#include "checksum.hpp"
#include "stream_format.hpp"
#include "stream_text.hpp"

namespace hookline {

using namespace stream_format;

namespace {

void put_ascii(std::byte* at, std::string_view text) {
  std::memcpy(at, text.data(), text.size());
}

}  // namespace

bool is_section_name(std::string_view name) {
  return !name.empty() && name.size() <= kSectionNameSize &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-./") == std::string_view::npos;
}

Result<StreamWriter> StreamWriter::create(std::string_view migration_version) {
  if (const Result<void> ok = check_match_body(migration_version); !ok)
    return fail(EINVAL, fmt::format("device-state stream: match record: {}", ok.error().text));

  std::vector<std::byte> head(kMatchHeaderSize + migration_version.size());
  put_ascii(&head[kMatchHeaderSize], migration_version);
  put_ascii(head.data(), kMagic);
  store_le<uint32_t>(&head[kMatchVersionAt], kVersion);
  store_le<uint32_t>(&head[kMatchLengthAt], static_cast<uint32_t>(migration_version.size()));

  StreamWriter writer;
  writer.head_ = std::move(head);
  writer.seal(kMatchHeaderChecksumAt, {});
  return writer;
}

void StreamWriter::seal(size_t header_checksum_at, std::span<const std::byte> payload) {
  const std::span<const std::byte> head(head_);
  const uint32_t header_checksum = crc32c(head.first(header_checksum_at));
  store_le<uint32_t>(&head_[header_checksum_at], header_checksum);

  checksum_ = crc32c(head.first(header_checksum_at), checksum_);
  checksum_ = crc32c(head.subspan(header_checksum_at + kChecksumSize), checksum_);
  checksum_ = crc32c(payload, checksum_);
  store_le<uint32_t>(tail_.data(), checksum_);

  payload_ = payload;
  taken_ = 0;
  total_ += pending();
}

Result<void> StreamWriter::check_idle() const {
  if (pending() > 0)
    return fail(EBUSY,
                fmt::format("device-state stream: {} bytes are still pending; take them first", pending()));
  if (finished_)
    return fail(EINVAL, "device-state stream: the stream is finished; nothing can follow its trailer");
  return {};
}

Result<void> StreamWriter::section(std::string_view name, SectionFlags flags,
                                   std::span<const std::byte> payload) {
  if (auto idle = check_idle(); !idle) return idle;
  if (!is_section_name(name))
    return fail(EINVAL, fmt::format("device-state stream: section name \"{}\": use 1 to {} of a-z 0-9 - . /",
                                    name, kSectionNameSize));
  if (payload.size() > kMaxChunkPayload)
    return fail(
        E2BIG,
        fmt::format("device-state stream: section \"{}\": a chunk of {} bytes, at most {} are possible; "
                    "write several chunks",
                    name, payload.size(), kMaxChunkPayload));
  head_.assign(kSectionHeaderSize, std::byte{0});
  put_ascii(head_.data(), kSectionTag);
  store_le<uint32_t>(&head_[kSectionNumberAt], ++chunks_);
  store_le<uint32_t>(&head_[kSectionFlagsAt],
                     (flags.optional ? kFlagOptional : 0) | (flags.bulk ? kFlagBulk : 0));
  store_le<uint32_t>(&head_[kSectionLengthAt], static_cast<uint32_t>(payload.size()));
  put_ascii(&head_[kSectionNameAt], name);
  seal(kSectionHeaderChecksumAt, payload);
  return {};
}

Result<void> StreamWriter::finish() {
  if (auto idle = check_idle(); !idle) return idle;
  head_.assign(kTrailerHeaderSize, std::byte{0});
  put_ascii(head_.data(), kTrailerTag);
  store_le<uint32_t>(&head_[kTrailerChunksAt], chunks_);
  store_le<uint64_t>(&head_[kTrailerTotalAt], total_ + kTrailerSize);
  seal(kTrailerHeaderChecksumAt, {});
  finished_ = true;
  return {};
}

size_t StreamWriter::pending() const {
  return head_.size() + payload_.size() + tail_.size() - taken_;
}

size_t StreamWriter::take(std::span<std::byte> out) {
  size_t moved = 0;
  size_t skip = taken_;
  for (const std::span<const std::byte> part :
       {std::span<const std::byte>(head_), payload_, std::span<const std::byte>(tail_)}) {
    const size_t from = std::min(skip, part.size());
    const size_t n = std::min(part.size() - from, out.size() - moved);
    if (n > 0) std::memcpy(out.data() + moved, part.data() + from, n);
    skip -= from;
    moved += n;
  }
  taken_ += moved;
  return moved;
}

}  // namespace hookline
