// SPDX-License-Identifier: Apache-2.0
#include "stream_mutator.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/src/bytes.hpp"
#include "core/src/checksum.hpp"
#include "core/src/stream_format.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace hookline::fuzz {
namespace {

using namespace stream_format;
using Bytes = std::vector<std::byte>;
using Random = std::minstd_rand;

struct SectionRecord {
  uint32_t number = 0, flags = 0;
  std::string name;
  Bytes payload;
};

struct Stream {
  Bytes match;
  std::vector<SectionRecord> sections;
};

// Checksums are not looked at: they are made anew.
std::optional<Stream> parse(std::span<const std::byte> in) {
  Stream stream;
  const auto take = [&](size_t n) {
    const auto front = in.first(std::min(n, in.size()));
    in = in.subspan(front.size());
    return front;
  };
  const auto header = take(kMatchHeaderSize);
  if (header.size() < kMatchHeaderSize) return std::nullopt;
  const auto body = take(load_le<uint32_t>(&header[kMatchLengthAt]));
  stream.match.assign(body.begin(), body.end());
  take(kChecksumSize);
  while (in.size() >= kSectionHeaderSize) {
    const auto head = take(kSectionHeaderSize);
    SectionRecord section;
    section.number = load_le<uint32_t>(&head[kSectionNumberAt]);
    section.flags = load_le<uint32_t>(&head[kSectionFlagsAt]);
    section.name.assign(reinterpret_cast<const char*>(&head[kSectionNameAt]), kSectionNameSize);
    section.name.erase(section.name.find_last_not_of('\0') + 1);
    const auto payload = take(load_le<uint32_t>(&head[kSectionLengthAt]));
    section.payload.assign(payload.begin(), payload.end());
    take(kChecksumSize);
    stream.sections.push_back(std::move(section));
  }
  return stream;
}

class Builder {
 public:
  template <typename T>
  void integer(T value) {
    out_.resize(out_.size() + sizeof(T));
    store_le(&out_[out_.size() - sizeof(T)], value);
  }
  void bytes(std::span<const std::byte> more) { out_.insert(out_.end(), more.begin(), more.end()); }
  void text(std::string_view more) { bytes(std::as_bytes(std::span(more))); }
  void begin() { record_ = out_.size(); }
  void seal_header() {
    const auto header = std::span(out_).subspan(record_);
    running_ = crc32c(header, running_);
    integer(crc32c(header));
    record_ = out_.size();
  }
  void seal() {
    running_ = crc32c(std::span(out_).subspan(record_), running_);
    integer(running_);
  }
  size_t size() const { return out_.size(); }
  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
  size_t record_ = 0;
  uint32_t running_ = 0;
};

Bytes serialise(const Stream& stream, bool keep_numbers) {
  Builder out;
  out.begin();
  out.text(kMagic);
  out.integer(kVersion);
  out.integer(static_cast<uint32_t>(stream.match.size()));
  out.seal_header();
  out.bytes(stream.match);
  out.seal();
  uint32_t number = 0;
  for (const SectionRecord& section : stream.sections) {
    ++number;
    out.begin();
    out.text(kSectionTag);
    out.integer(keep_numbers ? section.number : number);
    out.integer(section.flags);
    out.integer(static_cast<uint32_t>(section.payload.size()));
    std::string name = section.name;
    name.resize(kSectionNameSize);
    out.text(name);
    out.seal_header();
    out.bytes(section.payload);
    out.seal();
  }
  out.begin();
  out.text(kTrailerTag);
  out.integer(number);
  out.integer(static_cast<uint64_t>(out.size() - 8 + kTrailerSize));
  out.seal_header();
  out.seal();
  return out.take();
}

void mutate_bytes(Bytes& bytes, size_t most) {
  const size_t size = bytes.size();
  bytes.resize(std::max(most, size));
  if (bytes.empty()) return;  // libFuzzer wants room
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), size, bytes.size()));
}

// The values of the fields in a payload; nothing if it has another form.
std::vector<std::span<std::byte>> fields_of(Bytes& payload) {
  std::vector<std::span<std::byte>> fields;
  size_t at = 0;
  while (at < payload.size()) {
    const size_t name = std::to_integer<size_t>(payload[at]) & 0x7f;
    if (payload.size() - at < 1 + name + 4) return {};
    const size_t length = load_le<uint32_t>(&payload[at + 1 + name]);
    at += 1 + name + 4;
    if (payload.size() - at < length) return {};
    if (length) fields.push_back(std::span(payload).subspan(at, length));
    at += length;
  }
  return fields;
}

// Values that are wrong most often: around the limits of what a register, an index or a count can be.
void mutate_word(std::span<std::byte> field, Random& random) {
  static constexpr uint32_t kWords[] = {
      0,      1,       2,       3,       7,       0x0f,       0x10,       0x33,       0x34,
      0x35,   0x7f,    0x80,    0xff,    0x100,   0xfff,      0x1000,     0x7fff,     0x8000,
      0xffff, 1 << 16, 1 << 20, 1 << 24, 1 << 25, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
  if (field.size() < 4) {
    field[random() % field.size()] = static_cast<std::byte>(random());
    return;
  }
  // Structures open with what says how to read the rest.
  std::byte* word = &field[(random() % (field.size() / 4) >> random() % 8) * 4];
  const uint32_t now = load_le<uint32_t>(word);
  switch (random() % 4) {
    case 0:
      return store_le<uint32_t>(word, kWords[random() % std::size(kWords)]);
    case 1:
      return store_le<uint32_t>(word, now ^ 1u << random() % 32);
    case 2:
      return store_le<uint32_t>(word, now + (random() % 3 - 1));
    default:
      return store_le<uint32_t>(word, static_cast<uint32_t>(random() * 2654435761u));
  }
}

void mutate_payload(Bytes& payload, Random& random, size_t room) {
  auto fields = fields_of(payload);
  if (fields.empty() || random() % 16 == 0)
    return mutate_bytes(payload, payload.size() + std::min<size_t>(room, 256));
  // Half of the changes go where most of the bytes are.
  const auto largest =
      *std::max_element(fields.begin(), fields.end(), [](auto x, auto y) { return x.size() < y.size(); });
  for (auto rounds = 1 + random() % 4; rounds; --rounds)
    mutate_word(random() % 2 ? largest : fields[random() % fields.size()], random);
}

}  // namespace

size_t mutate_stream(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  auto stream = parse({reinterpret_cast<const std::byte*>(data), size});
  if (!stream || random() % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);

  auto& sections = stream->sections;
  const size_t which = sections.empty() ? 0 : random() % sections.size();
  const auto change = random() % 32;
  bool keep_numbers = false;
  if (change == 0 || sections.empty()) {
    mutate_bytes(stream->match, stream->match.size() + 64);
  } else if (change == 1) {
    sections.insert(sections.begin() + static_cast<ptrdiff_t>(random() % (sections.size() + 1)),
                    SectionRecord(sections[which]));
  } else if (change == 2) {
    sections.erase(sections.begin() + static_cast<ptrdiff_t>(which));
  } else if (change == 3) {
    std::swap(sections[which], sections[random() % sections.size()]);
    keep_numbers = random() % 4 == 0;
  } else if (change == 4) {
    sections[which].flags ^= 1u << random() % (random() % 4 ? 2 : 32);
  } else if (change == 5 && !sections[which].name.empty()) {
    sections[which].name[random() % sections[which].name.size()] = static_cast<char>(random());
  } else {
    mutate_payload(sections[which].payload, random, max_size - std::min(max_size, size));
  }
  const Bytes out = serialise(*stream, keep_numbers);
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

}  // namespace hookline::fuzz
