// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include <fmt/format.h>

#include <hookline/stream.hpp>

#include "bytes.hpp"
#include "checksum.hpp"
#include "stream_format.hpp"
#include "stream_text.hpp"

namespace hookline {

using namespace stream_format;

namespace {

constexpr std::string_view kChanged = "the bytes were changed on the way; migrate again";

std::string_view ascii(const std::byte* at, size_t size) {
  return {reinterpret_cast<const char*>(at), size};
}

std::string checksum_differs(std::string_view which, uint32_t is, uint32_t expected) {
  return fmt::format("{} is 0x{:08x}, expected 0x{:08x}: {}", which, is, expected, kChanged);
}

}  // namespace

StreamReader::StreamReader(StreamSink& sink, StreamLimits limits) : sink_(sink), limits_(limits) {
  gather(Step::magic, header_.data(), kMagic.size());
}

Result<void> StreamReader::write(std::span<const std::byte> bytes) {
  if (error_) return fail(*error_);
  Result<void> result;
  try {
    result = consume(bytes);
  } catch (const std::bad_alloc&) {
    result = refuse(ENOMEM, "out of memory");
  }
  if (!result) {
    error_ = result.error();
    kept_.clear();
    bulk_buffer_.reset();
    chunk_.bytes.reset();
  }
  return result;
}

Result<void> StreamReader::consume(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (step_ == Step::complete) return too_long();
    const size_t n = std::min(wanted_ - have_, bytes.size());
    std::memcpy(into_ + have_, bytes.data(), n);
    have_ += n;
    offset_ += n;
    bytes = bytes.subspan(n);
    if (have_ == wanted_) {
      if (auto ok = on_gathered(bytes.size()); !ok) return ok;
    }
  }
  return {};
}

Result<void> StreamReader::on_gathered(size_t bytes_behind) {
  switch (step_) {
    case Step::magic:
      if (ascii(header_.data(), kMagic.size()) != kMagic)
        return refuse(
            EINVAL,
            "this is not a Hookline stream: the source runs another migration driver for this device; "
            "use the same one on both hosts");
      gather(Step::match_header, header_.data(), kMatchHeaderSize);
      have_ = kMagic.size();
      return {};
    case Step::match_header:
      return match_header();
    case Step::match_body:
      return match_body();
    case Step::tag:
      return tag();
    case Step::section_header:
      return section_header();
    case Step::section_body:
      return section_body();
    case Step::trailer:
      return trailer(bytes_behind);
    case Step::complete:
      break;
  }
  return {};
}

Result<void> StreamReader::match_header() {
  if (auto ok = check_header(kMatchHeaderChecksumAt); !ok) return ok;
  const auto version = load_le<uint32_t>(&header_[kMatchVersionAt]);
  if (version > kVersion)
    return refuse(
        EPROTONOSUPPORT,
        fmt::format("format version {}, this host reads versions up to {}: the source runs a newer Hookline; "
                    "upgrade this host first",
                    version, kVersion));
  if (version < kVersion) return refuse(EBADMSG, fmt::format("there is no format version {}", version));
  const auto length = load_le<uint32_t>(&header_[kMatchLengthAt]);
  if (length > kMaxMatchBody)
    return refuse(E2BIG,
                  fmt::format("its body has {} bytes, at most {} are possible", length, kMaxMatchBody));
  checksum_ = crc32c(std::span(header_).first(kMatchHeaderChecksumAt));
  chunk_.length = length;
  chunk_.bytes = std::make_unique_for_overwrite<std::byte[]>(length + kChecksumSize);
  gather(Step::match_body, chunk_.bytes.get(), length + kChecksumSize);
  return {};
}

Result<void> StreamReader::match_body() {
  const std::span<const std::byte> body(chunk_.bytes.get(), chunk_.length);
  if (auto ok = check_body(body); !ok) return ok;
  const std::string_view match = ascii(body.data(), body.size());
  if (const Result<void> ok = check_match_body(match); !ok) return refuse(EBADMSG, ok.error().text);
  if (auto ok = sink_.on_match(match); !ok) return ok;
  next_record();
  return {};
}

Result<void> StreamReader::tag() {
  const std::string_view found = ascii(header_.data(), kTagSize);
  const bool is_section = found == kSectionTag;
  if (!is_section && found != kTrailerTag)
    return refuse(EBADMSG, fmt::format("begins with 0x{:08x}, neither a section nor the trailer: {}",
                                       load_le<uint32_t>(header_.data()), kChanged));
  if (is_section)
    gather(Step::section_header, header_.data(), kSectionHeaderSize);
  else
    gather(Step::trailer, header_.data(), kTrailerSize);
  have_ = kTagSize;
  return {};
}

Result<void> StreamReader::section_header() {
  if (auto ok = check_header(kSectionHeaderChecksumAt); !ok) return ok;

  std::string_view name = ascii(&header_[kSectionNameAt], kSectionNameSize);
  name = name.substr(0, name.find_last_not_of('\0') + 1);
  if (!is_section_name(name)) return refuse(EBADMSG, "its name is not 1 to 64 of a-z 0-9 - . /");
  chunk_.name = name;

  const auto number = load_le<uint32_t>(&header_[kSectionNumberAt]);
  if (number <= chunks_)
    return refuse(EBADMSG,
                  fmt::format("is number {} again, number {} was expected: the stream was repeated or "
                              "reordered on the way; migrate again",
                              number, chunks_ + 1));
  if (number > chunks_ + 1)
    return refuse(EBADMSG,
                  fmt::format("is number {}, number {} was expected: bytes were lost or reordered on the "
                              "way; migrate again",
                              number, chunks_ + 1));
  const auto flags = load_le<uint32_t>(&header_[kSectionFlagsAt]);
  if (const uint32_t unknown = flags & ~(kFlagOptional | kFlagBulk); unknown != 0)
    return refuse(EBADMSG,
                  fmt::format("flags 0x{:x} have no meaning in format version {}", unknown, kVersion));
  const auto length = load_le<uint32_t>(&header_[kSectionLengthAt]);
  if (length > kMaxChunkPayload)
    return refuse(E2BIG,
                  fmt::format("its payload has {} bytes, a chunk at most {}", length, kMaxChunkPayload));

  chunk_.flags = {.optional = (flags & kFlagOptional) != 0, .bulk = (flags & kFlagBulk) != 0};
  chunk_.offset = offset_;
  chunk_.length = length;
  if (auto ok = check_limits(); !ok) return ok;

  chunks_ = number;
  checksum_ = crc32c(std::span(header_).first(kSectionHeaderChecksumAt), checksum_);
  if (chunk_.flags.bulk) {
    if (!bulk_buffer_)
      bulk_buffer_ = std::make_unique_for_overwrite<std::byte[]>(kMaxChunkPayload + kChecksumSize);
    gather(Step::section_body, bulk_buffer_.get(), length + kChecksumSize);
  } else {
    chunk_.bytes = std::make_unique_for_overwrite<std::byte[]>(length + kChecksumSize);
    gather(Step::section_body, chunk_.bytes.get(), length + kChecksumSize);
  }
  return {};
}

Result<void> StreamReader::check_limits() {
  if (!chunk_.flags.bulk && kept_.size() >= limits_.max_chunks)
    return refuse(E2BIG, fmt::format("more than {} chunks, the limit of this device", limits_.max_chunks));
  // Nothing of bulk is kept: there may be any number of chunks, but each counts with its header.
  const uint64_t counts = chunk_.length + (chunk_.flags.bulk ? kSectionHeaderSize : 0);
  if (counts > limits_.max_state - state_bytes_)
    return refuse(E2BIG,
                  fmt::format("its {} bytes make the state larger than {} bytes, the limit of this device",
                              chunk_.length, limits_.max_state));
  state_bytes_ += counts;
  if (chunk_.flags.bulk) return {};
  const uint64_t kept = kSectionHeaderSize + chunk_.length;
  if (kept > limits_.max_kept - kept_bytes_)
    return refuse(E2BIG,
                  fmt::format("its {} bytes would make more than {} bytes wait for the trailer; the plugin "
                              "must mark large sections as bulk",
                              chunk_.length, limits_.max_kept));
  kept_bytes_ += kept;
  return {};
}

Result<void> StreamReader::section_body() {
  if (auto ok = check_body({into_, chunk_.length}); !ok) return ok;
  if (chunk_.flags.bulk) {
    if (auto ok = deliver(chunk_, bulk_buffer_.get()); !ok) return ok;
  } else {
    kept_.push_back(std::move(chunk_));
  }
  next_record();
  return {};
}

Result<void> StreamReader::trailer(size_t bytes_behind) {
  if (auto ok = check_header(kTrailerHeaderChecksumAt); !ok) return ok;
  const auto chunks = load_le<uint32_t>(&header_[kTrailerChunksAt]);
  if (chunks != chunks_)
    return refuse(EBADMSG,
                  fmt::format("counts {} chunks, {} arrived: bytes were lost on the way; migrate again",
                              chunks, chunks_));
  const auto total = load_le<uint64_t>(&header_[kTrailerTotalAt]);
  if (total != offset_)
    return refuse(EBADMSG,
                  fmt::format("says that the stream has {} bytes, it has {}: bytes were lost or added on the "
                              "way; migrate again",
                              total, offset_));
  checksum_ = crc32c(std::span(header_).first(kTrailerHeaderChecksumAt), checksum_);
  const auto expected = load_le<uint32_t>(&header_[kTrailerHeaderSize]);
  if (checksum_ != expected)
    return refuse(EBADMSG, checksum_differs("checksum of the stream", checksum_, expected));
  if (bytes_behind > 0) return too_long();

  for (const Chunk& chunk : kept_) {
    if (auto ok = deliver(chunk, chunk.bytes.get()); !ok) return ok;
  }
  kept_.clear();
  bulk_buffer_.reset();
  if (auto ok = sink_.on_complete(); !ok) return ok;
  gather(Step::complete, nullptr, 0);
  return {};
}

tl::unexpected<Error> StreamReader::too_long() const {
  return refuse(EINVAL, fmt::format("more bytes follow it at offset {}: the stream is too long; "
                                    "send the stream of one device, once",
                                    offset_));
}

Result<void> StreamReader::check_header(size_t checksum_at) const {
  const uint32_t is = crc32c(std::span(header_).first(checksum_at));
  const auto expected = load_le<uint32_t>(&header_[checksum_at]);
  if (is != expected) return refuse(EBADMSG, checksum_differs("header checksum", is, expected));
  return {};
}

Result<void> StreamReader::check_body(std::span<const std::byte> body) {
  checksum_ = crc32c(body, checksum_);
  const auto expected = load_le<uint32_t>(body.data() + body.size());
  if (checksum_ != expected) return refuse(EBADMSG, checksum_differs("checksum", checksum_, expected));
  return {};
}

Result<void> StreamReader::deliver(const Chunk& chunk, const std::byte* payload) {
  return sink_.on_section({chunk.name, chunk.flags, chunk.offset, {payload, chunk.length}});
}

void StreamReader::gather(Step step, std::byte* into, size_t size) {
  step_ = step;
  into_ = into;
  wanted_ = size;
  have_ = 0;
}

void StreamReader::next_record() {
  chunk_ = {};
  record_offset_ = offset_;
  gather(Step::tag, header_.data(), kTagSize);
}

size_t StreamReader::ahead() const {
  return step_ == Step::section_body && !error_ ? wanted_ - have_ - 1 : 0;
}

Result<void> StreamReader::end() const {
  if (error_) return fail(*error_);
  if (step_ == Step::complete) return {};
  return refuse(ENODATA,
                fmt::format("the stream ends at offset {}, {}: the transfer was cut off; migrate again",
                            offset_, progress()));
}

std::string StreamReader::progress() const {
  switch (step_) {
    case Step::magic:
      return fmt::format("after {} of the {} bytes of its header", have_, kMatchHeaderSize);
    case Step::match_header:
    case Step::section_header:
      return fmt::format("after {} of the {} bytes of its header", have_, wanted_);
    case Step::match_body:
    case Step::section_body:
      return fmt::format("after {} of the {} bytes of its body and checksum", have_, wanted_);
    case Step::tag:
      return "where another section or the trailer should begin";
    case Step::trailer:
    case Step::complete:
      break;
  }
  return fmt::format("after {} of its {} bytes", have_, wanted_);
}

std::string StreamReader::where() const {
  switch (step_) {
    case Step::magic:
    case Step::match_header:
    case Step::match_body:
      return "match record";
    case Step::tag:
      return "record";
    case Step::section_header:
    case Step::section_body:
      return chunk_.name.empty() ? fmt::format("section number {}", chunks_ + 1)
                                 : fmt::format("section \"{}\"", chunk_.name);
    case Step::trailer:
    case Step::complete:
      return "trailer";
  }
  return "record";
}

tl::unexpected<Error> StreamReader::refuse(int code, std::string_view reason) const {
  return fail(code, fmt::format("device-state stream: {} at offset {}: {}", where(), record_offset_, reason));
}

}  // namespace hookline
