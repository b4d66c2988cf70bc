// SPDX-License-Identifier: Apache-2.0
#include <hookline/stream.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <new>
#include <random>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/compatibility.hpp>

#include "core/src/bytes.hpp"
#include "core/src/checksum.hpp"
#include "core/src/stream_format.hpp"

// Shows that lengths are checked before memory is taken, and what happens when there is none.
static size_t largest_allocation = 0;
static size_t largest_possible_allocation = SIZE_MAX;

[[gnu::noinline]] void* operator new(size_t size) {
  largest_allocation = std::max(largest_allocation, size);
  if (size <= largest_possible_allocation) {
    if (void* memory = std::malloc(size)) return memory;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](size_t size) {
  return operator new(size);
}
[[gnu::noinline]] void operator delete[](void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace hookline {
namespace {

using namespace stream_format;
using testing::HasSubstr;
using testing::IsEmpty;

using Bytes = std::vector<std::byte>;

Bytes bytes(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

Bytes random_bytes(size_t size) {
  std::mt19937_64 random(size);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

struct Chunk {
  std::string name;
  SectionFlags flags;
  Bytes payload;
  bool operator==(const Chunk&) const = default;
};

class RecordingSink : public StreamSink {
 public:
  Result<void> on_match(std::string_view record) override {
    match = record;
    return answer_match;
  }
  Result<void> on_section(const Section& section) override {
    chunks.push_back(
        {std::string(section.name), section.flags, {section.payload.begin(), section.payload.end()}});
    offsets.push_back(section.offset);
    return answer_section;
  }
  Result<void> on_complete() override {
    ++completed;
    return answer_complete;
  }

  std::optional<std::string> match;
  std::vector<Chunk> chunks;
  std::vector<uint64_t> offsets;
  int completed = 0;
  Result<void> answer_match, answer_section, answer_complete;
};

/// For the stream it is a text like any other.
std::string sample_match() {
  return R"({"model":"com.intel/82576-vf","plugin":{"name":"nic-82576"},"emits":"nic-82576"})";
}

std::vector<Chunk> sample_chunks() {
  return {{"nic-82576/mac", {}, bytes("\x02\x11\x22\x33\x44\x55")},
          {"nic-82576/ram", {.bulk = true}, random_bytes(40)},
          {"nic-82576/queue0", {}, random_bytes(33)},
          {"trace/log", {.optional = true}, {}},
          {"nic-82576/ram", {.bulk = true}, random_bytes(24)}};
}

// What a reader of the sample delivers: bulk on arrival, the rest after the trailer.
std::vector<Chunk> sample_delivery() {
  const auto c = sample_chunks();
  return {c[1], c[4], c[0], c[2], c[3]};
}

void drain(StreamWriter& writer, Bytes& into) {
  const size_t at = into.size();
  into.resize(at + writer.pending());
  EXPECT_EQ(writer.take(std::span(into).subspan(at)), into.size() - at);
  EXPECT_EQ(writer.pending(), 0U);
}

Bytes write_stream(std::string_view match, const std::vector<Chunk>& chunks) {
  Bytes out;
  StreamWriter writer = StreamWriter::create(match).value();
  drain(writer, out);
  for (const Chunk& chunk : chunks) {
    EXPECT_TRUE(writer.section(chunk.name, chunk.flags, chunk.payload));
    drain(writer, out);
  }
  EXPECT_TRUE(writer.finish());
  drain(writer, out);
  EXPECT_TRUE(writer.done());
  return out;
}

Bytes sample() {
  return write_stream(sample_match(), sample_chunks());
}

// Where each record of a stream begins, the end of the stream last.
std::vector<size_t> record_offsets(std::span<const std::byte> stream) {
  std::vector<size_t> offsets = {0};
  size_t at = kMatchHeaderSize + load_le<uint32_t>(&stream[kMatchLengthAt]) + kChecksumSize;
  while (at + kTrailerSize < stream.size()) {
    offsets.push_back(at);
    at += kSectionHeaderSize + load_le<uint32_t>(&stream[at + kSectionLengthAt]) + kChecksumSize;
  }
  offsets.push_back(at);
  offsets.push_back(stream.size());
  return offsets;
}

// Makes every checksum of a changed stream hold, record by record, so that the checks behind them are
// reached. Record lengths are taken from `layout`, since those in the stream may be what was changed.
void reseal(Bytes& stream, const std::vector<size_t>& layout) {
  uint32_t running = 0;
  for (size_t i = 0; i + 1 < layout.size(); ++i) {
    const std::span<std::byte> record = std::span(stream).subspan(layout[i], layout[i + 1] - layout[i]);
    const bool is_trailer = i + 2 == layout.size();
    const size_t seal_at = i == 0       ? kMatchHeaderChecksumAt
                           : is_trailer ? kTrailerHeaderChecksumAt
                                        : kSectionHeaderChecksumAt;
    store_le<uint32_t>(&record[seal_at], crc32c(record.first(seal_at)));
    running = crc32c(record.first(seal_at), running);
    const size_t body_at = seal_at + kChecksumSize;
    running = crc32c(record.subspan(body_at, record.size() - kChecksumSize - body_at), running);
    store_le<uint32_t>(&record[record.size() - kChecksumSize], running);
  }
}

Bytes resealed(Bytes stream, const std::function<void(Bytes&, const std::vector<size_t>&)>& change) {
  const std::vector<size_t> layout = record_offsets(stream);
  change(stream, layout);
  reseal(stream, layout);
  return stream;
}

// The error a whole stream gives; empty if it is accepted.
std::string refusal(std::span<const std::byte> stream, StreamLimits limits = {}, int* code = nullptr) {
  RecordingSink sink;
  StreamReader reader(sink, limits);
  auto result = reader.write(stream);
  if (result) result = reader.end();
  if (result) return {};
  EXPECT_FALSE(reader.complete());
  EXPECT_EQ(sink.completed, 0);
  if (code) *code = result.error().code;
  return result.error().text;
}

TEST(Checksum, KnownAnswer) {
  EXPECT_EQ(crc32c(bytes("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c(bytes("6789"), crc32c(bytes("12345"))), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(Stream, RoundTrip) {
  RecordingSink sink;
  StreamReader reader(sink);
  const Bytes stream = sample();
  ASSERT_TRUE(reader.write(stream));
  EXPECT_TRUE(reader.end());
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(sink.match, sample_match());
  EXPECT_EQ(sink.chunks, sample_delivery());
  EXPECT_EQ(sink.completed, 1);
  for (size_t i = 0; i < sink.chunks.size(); ++i) {
    const auto& payload = sink.chunks[i].payload;
    EXPECT_TRUE(
        std::equal(payload.begin(), payload.end(), stream.begin() + static_cast<ptrdiff_t>(sink.offsets[i])));
  }
}

TEST(Stream, TheMatchRecordGoesOutAlone) {
  StreamWriter writer = StreamWriter::create(sample_match()).value();
  RecordingSink sink;
  StreamReader reader(sink);
  Bytes out;
  drain(writer, out);
  EXPECT_FALSE(writer.done());
  ASSERT_TRUE(reader.write(out));
  EXPECT_EQ(sink.match, sample_match());
  EXPECT_FALSE(reader.complete());
}

TEST(Stream, NoSectionsAndAShortRecordAreAStream) {
  const std::string match = "{}";
  RecordingSink sink;
  StreamReader reader(sink);
  ASSERT_TRUE(reader.write(write_stream(match, {})));
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(sink.match, match);
}

TEST(Stream, LargestChunksAndRecordPass) {
  const std::string match(4095, 'm');
  const std::vector<Chunk> chunks = {{std::string(64, 'k'), {}, random_bytes(kMaxChunkPayload)},
                                     {std::string(64, 'b'), {.bulk = true}, random_bytes(kMaxChunkPayload)}};
  RecordingSink sink;
  StreamReader reader(sink);
  ASSERT_TRUE(reader.write(write_stream(match, chunks)));
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(sink.match, match);
  EXPECT_EQ(sink.chunks, (std::vector<Chunk>{chunks[1], chunks[0]}));
}

TEST(Stream, TakenInAnySizeItIsTheSame) {
  const Bytes whole = sample();
  for (const size_t size : {1, 7, 4096}) {
    Bytes out;
    Bytes piece(size);
    StreamWriter writer = StreamWriter::create(sample_match()).value();
    const auto drain_in_pieces = [&] {
      while (const size_t n = writer.take(piece))
        out.insert(out.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(n));
    };
    drain_in_pieces();
    const auto chunks = sample_chunks();
    for (const Chunk& chunk : chunks) {
      EXPECT_TRUE(writer.section(chunk.name, chunk.flags, chunk.payload));
      drain_in_pieces();
    }
    EXPECT_TRUE(writer.finish());
    drain_in_pieces();
    EXPECT_EQ(out, whole) << size;
  }
}

TEST(Stream, CutAnywhereItIsTheSame) {
  const Bytes stream = sample();
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    RecordingSink sink;
    StreamReader reader(sink);
    ASSERT_TRUE(reader.write(std::span(stream).first(cut))) << cut;
    ASSERT_TRUE(reader.write(std::span(stream).subspan(cut))) << cut;
    ASSERT_TRUE(reader.complete()) << cut;
    ASSERT_EQ(sink.chunks, sample_delivery()) << cut;
  }
}

// Whoever waits for a verdict need not wait before so many bytes more, and must with the next one.
TEST(Stream, RL2_NoVerdictComesBeforeTheBytesAhead) {
  const Bytes stream = sample();
  const std::vector<size_t> records = record_offsets(stream);
  const Bytes noise = random_bytes(stream.size());
  for (size_t cut = 0; cut < stream.size(); ++cut) {
    // Within a body, up to the last byte of its checksum; the match record and the trailer have none.
    size_t expected = 0;
    for (size_t i = 1; i + 2 < records.size(); ++i) {
      if (cut >= records[i] + kSectionHeaderSize && cut < records[i + 1]) expected = records[i + 1] - cut - 1;
    }
    RecordingSink sink;
    StreamReader reader(sink);
    ASSERT_TRUE(reader.write(std::span(stream).first(cut)));
    ASSERT_EQ(reader.ahead(), expected) << cut;
    const auto delivered = sink.chunks;
    ASSERT_TRUE(reader.write(std::span(noise).first(expected))) << cut;
    ASSERT_FALSE(reader.complete()) << cut;
    ASSERT_EQ(sink.chunks, delivered) << cut;
    ASSERT_EQ(reader.ahead(), 0U) << cut;
    if (expected == 0) continue;
    ASSERT_FALSE(reader.write(std::span(noise).first(1))) << cut;
    ASSERT_EQ(reader.ahead(), 0U) << cut;
  }
}

TEST(Stream, PiecesOfAnySizeAreTheSame) {
  std::vector<Chunk> chunks = sample_chunks();
  chunks.push_back({"large", {}, random_bytes(300'000)});
  chunks.push_back({"large", {}, random_bytes(kMaxChunkPayload)});
  const Bytes stream = write_stream(sample_match(), chunks);
  std::mt19937 random(1);
  const std::pair<const char*, std::function<size_t()>> cuts[] = {
      {"1", [] { return 1; }},
      {"7", [] { return 7; }},
      {"4096", [] { return 4096; }},
      {"1 MiB", [] { return size_t{1} << 20; }},
      {"random", [&] { return std::uniform_int_distribution<size_t>(0, 5000)(random); }},
      {"whole", [&] { return stream.size(); }}};
  for (const auto& [name, next] : cuts) {
    RecordingSink sink;
    StreamReader reader(sink);
    for (std::span<const std::byte> rest = stream; !rest.empty();) {
      const size_t n = std::min(next(), rest.size());
      ASSERT_TRUE(reader.write(rest.first(n))) << name;
      rest = rest.subspan(n);
    }
    EXPECT_TRUE(reader.complete()) << name;
    EXPECT_EQ(sink.chunks.size(), chunks.size()) << name;
    EXPECT_EQ(sink.chunks.back(), chunks.back()) << name;
  }
}

// A flip must fail write() itself: a VMM may ignore what comes after its last write.
TEST(Stream, EveryFlipIsRefusedAndOnlyVerifiedBulkWasDelivered) {
  const Bytes stream = sample();
  const std::vector<Chunk> all_bulk = {sample_chunks()[1], sample_chunks()[4]};
  const auto try_flip = [&](size_t at, std::byte mask) {
    Bytes flipped = stream;
    flipped[at] ^= mask;
    RecordingSink sink;
    StreamReader reader(sink);
    ASSERT_FALSE(reader.write(flipped)) << at;
    ASSERT_FALSE(reader.complete());
    ASSERT_EQ(sink.completed, 0);
    if (sink.match) {
      ASSERT_EQ(sink.match, sample_match());
    }
    ASSERT_LE(sink.chunks.size(), all_bulk.size());
    ASSERT_TRUE(std::equal(sink.chunks.begin(), sink.chunks.end(), all_bulk.begin())) << at;
  };
  for (size_t at = 0; at < stream.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) try_flip(at, std::byte{1} << bit);
    try_flip(at, std::byte{0xff});
    if (HasFatalFailure()) return;
  }
}

TEST(Stream, EveryTruncationIsRefusedAtTheEnd) {
  const Bytes stream = sample();
  for (size_t size = 0; size < stream.size(); ++size) {
    RecordingSink sink;
    StreamReader reader(sink);
    ASSERT_TRUE(reader.write(std::span(stream).first(size))) << size;
    ASSERT_FALSE(reader.complete());
    const auto end = reader.end();
    ASSERT_FALSE(end) << size;
    EXPECT_EQ(end.error().code, ENODATA);
    EXPECT_THAT(end.error().text, HasSubstr(fmt::format("the stream ends at offset {}", size)));
    EXPECT_EQ(sink.completed, 0);
    for (const Chunk& chunk : sink.chunks) EXPECT_TRUE(chunk.flags.bulk);
  }
}

TEST(Stream, TheFirstErrorStays) {
  Bytes stream = sample();
  stream[300] ^= std::byte{1};
  RecordingSink sink;
  StreamReader reader(sink);
  const auto first = reader.write(stream);
  ASSERT_FALSE(first);
  for (int i = 0; i < 2; ++i) {
    const auto again = reader.write(sample());
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().text, first.error().text);
    EXPECT_EQ(again.error().code, first.error().code);
  }
  EXPECT_EQ(reader.write({}).error().text, first.error().text);
  EXPECT_EQ(reader.end().error().text, first.error().text);
  EXPECT_FALSE(reader.complete());
}

TEST(Stream, TheSinkRefusesInItsOwnWords) {
  const Bytes stream = sample();
  const Result<void> no = fail(EPERM, "no");
  {
    RecordingSink sink;
    sink.answer_match = no;
    StreamReader reader(sink);
    EXPECT_EQ(reader.write(stream).error().text, "no");
    EXPECT_THAT(sink.chunks, IsEmpty());
  }
  {
    RecordingSink sink;
    sink.answer_section = no;
    StreamReader reader(sink);
    EXPECT_EQ(reader.write(stream).error().code, EPERM);
    EXPECT_EQ(sink.chunks.size(), 1U);
  }
  {
    RecordingSink sink;
    sink.answer_complete = no;
    StreamReader reader(sink);
    EXPECT_EQ(reader.write(stream).error().text, "no");
    EXPECT_EQ(reader.end().error().text, "no");
    EXPECT_FALSE(reader.complete());
  }
}

TEST(Stream, BytesBehindTheTrailerAreRefused) {
  Bytes stream = sample();
  const size_t size = stream.size();
  stream.push_back({});
  const std::string text = fmt::format(
      "device-state stream: trailer at offset {}: more bytes follow it at offset {}: the stream is too long; "
      "send the "
      "stream of one device, once",
      size - kTrailerSize, size);
  {
    RecordingSink sink;
    StreamReader reader(sink);
    const auto result = reader.write(stream);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().text, text);
    EXPECT_EQ(result.error().code, EINVAL);
    EXPECT_EQ(sink.completed, 0) << "seen in time, nothing is applied";
  }
  {
    RecordingSink sink;
    StreamReader reader(sink);
    ASSERT_TRUE(reader.write(std::span(stream).first(size)));
    EXPECT_TRUE(reader.complete());
    EXPECT_EQ(reader.write(std::span(stream).last(1)).error().text, text);
    EXPECT_FALSE(reader.complete());
  }
}

// Reordered, repeated and dropped records, with bytes moved as a faulty transport would: every header intact.
TEST(Stream, LostRepeatedAndReorderedRecordsAreNamed) {
  const Bytes stream = sample();
  const std::vector<size_t> at = record_offsets(stream);
  ASSERT_EQ(at, (std::vector<size_t>{0, 104, 198, 326, 447, 535, 647, 671}));
  const auto assemble = [&](std::initializer_list<size_t> records) {
    Bytes out;
    for (const size_t i : records)
      out.insert(out.end(), stream.begin() + static_cast<ptrdiff_t>(at[i]),
                 stream.begin() + static_cast<ptrdiff_t>(at[i + 1]));
    return out;
  };
  ASSERT_EQ(refusal(assemble({0, 1, 2, 3, 4, 5, 6})), "");
  EXPECT_EQ(refusal(assemble({0, 2, 1, 3, 4, 5, 6})),
            "device-state stream: section \"nic-82576/ram\" at offset 104: is number 2, number 1 was "
            "expected: bytes were "
            "lost or reordered on the way; migrate again");
  EXPECT_EQ(refusal(assemble({0, 1, 2, 3, 3, 4, 5, 6})),
            "device-state stream: section \"nic-82576/queue0\" at offset 447: is number 3 again, number 4 "
            "was expected: the "
            "stream was repeated or reordered on the way; migrate again");
  EXPECT_EQ(refusal(assemble({0, 1, 2, 4, 5, 6})),
            "device-state stream: section \"trace/log\" at offset 326: is number 4, number 3 was expected: "
            "bytes were lost "
            "or reordered on the way; migrate again");
  EXPECT_EQ(refusal(assemble({0, 1, 2, 3, 4, 6})),
            "device-state stream: trailer at offset 535: counts 5 chunks, 4 arrived: bytes were lost on the "
            "way; migrate "
            "again");
  EXPECT_EQ(refusal(assemble({0, 1, 2, 3, 4, 5})),
            "device-state stream: record at offset 647: the stream ends at offset 647, where another section "
            "or the "
            "trailer should begin: the transfer was cut off; migrate again");
  EXPECT_EQ(refusal(assemble({0, 0, 1})),
            "device-state stream: record at offset 104: begins with 0x4b4f4f48, neither a section nor the "
            "trailer: the "
            "bytes were changed on the way; migrate again");
}

TEST(Stream, RefusalTexts) {
  const Bytes stream = sample();
  const auto changed = [&](size_t at) {
    Bytes out = stream;
    out[at] ^= std::byte{1};
    return out;
  };
  struct Case {
    Bytes stream;
    int code;
    std::string text;
  };
  const Case cases[] = {
      {bytes("QEVM this is another driver's stream"), EINVAL,
       "device-state stream: match record at offset 0: this is not a Hookline stream: the source runs "
       "another migration "
       "driver for this device; use the same one on both hosts"},
      {resealed(stream, [](Bytes& s, const auto&) { store_le<uint32_t>(&s[kMatchVersionAt], 2); }),
       EPROTONOSUPPORT,
       "device-state stream: match record at offset 0: format version 2, this host reads versions up to 1: "
       "the source "
       "runs a newer Hookline; upgrade this host first"},
      {resealed(stream, [](Bytes& s, const auto&) { store_le<uint32_t>(&s[kMatchVersionAt], 0); }), EBADMSG,
       "device-state stream: match record at offset 0: there is no format version 0"},
      {changed(kMatchVersionAt), EBADMSG,
       "device-state stream: match record at offset 0: header checksum is 0x@, expected 0x@: the bytes were "
       "changed on "
       "the way; migrate again"},
      {changed(40), EBADMSG,
       "device-state stream: match record at offset 0: checksum is 0x@, expected 0x@: the bytes were changed "
       "on the way; "
       "migrate again"},
      {changed(326 + kSectionNameAt), EBADMSG,
       "device-state stream: section number 3 at offset 326: header checksum is 0x@, expected 0x@: the bytes "
       "were "
       "changed on the way; migrate again"},
      {changed(326 + kSectionHeaderSize), EBADMSG,
       "device-state stream: section \"nic-82576/queue0\" at offset 326: checksum is 0x@, expected 0x@: the "
       "bytes were "
       "changed on the way; migrate again"},
      {changed(647 + kTrailerTotalAt), EBADMSG,
       "device-state stream: trailer at offset 647: header checksum is 0x@, expected 0x@: the bytes were "
       "changed on the "
       "way; migrate again"},
      {changed(670), EBADMSG,
       "device-state stream: trailer at offset 647: checksum of the stream is 0x@, expected 0x@: the bytes "
       "were changed "
       "on the way; migrate again"},
      {{},
       ENODATA,
       "device-state stream: match record at offset 0: the stream ends at offset 0, after 0 of the 20 bytes "
       "of its header: "
       "the transfer was cut off; migrate again"},
      {{stream.begin(), stream.begin() + 19},
       ENODATA,
       "device-state stream: match record at offset 0: the stream ends at offset 19, after 19 of the 20 "
       "bytes of its header: "
       "the transfer was cut off; migrate again"},
      {{stream.begin(), stream.begin() + 100},
       ENODATA,
       "device-state stream: match record at offset 0: the stream ends at offset 100, after 80 of the 84 "
       "bytes of its body and checksum: the "
       "transfer was cut off; migrate again"},
      {{stream.begin(), stream.begin() + 330},
       ENODATA,
       "device-state stream: section number 3 at offset 326: the stream ends at offset 330, after 4 of the "
       "84 bytes of its "
       "header: the transfer was cut off; migrate again"},
      {{stream.begin(), stream.begin() + 420},
       ENODATA,
       "device-state stream: section \"nic-82576/queue0\" at offset 326: the stream ends at offset 420, "
       "after 10 of the "
       "37 bytes of its body and checksum: the transfer was cut off; migrate again"},
      {{stream.begin(), stream.begin() + 660},
       ENODATA,
       "device-state stream: trailer at offset 647: the stream ends at offset 660, after 13 of its 24 bytes: "
       "the "
       "transfer was cut off; migrate again"},
      {resealed(stream,
                [](Bytes& s, const auto& at) { store_le<uint64_t>(&s[at[6] + kTrailerTotalAt], 672); }),
       EBADMSG,
       "device-state stream: trailer at offset 647: says that the stream has 672 bytes, it has 671: bytes "
       "were lost or "
       "added on the way; migrate again"},
      {resealed(stream, [](Bytes& s, const auto& at) { store_le<uint32_t>(&s[at[3] + kSectionFlagsAt], 5); }),
       EBADMSG,
       "device-state stream: section \"nic-82576/queue0\" at offset 326: flags 0x4 have no meaning in format "
       "version 1"},
      {resealed(stream, [](Bytes& s, const auto& at) { s[at[3] + kSectionNameAt] = std::byte{0x1b}; }),
       EBADMSG,
       "device-state stream: section number 3 at offset 326: its name is not 1 to 64 of a-z 0-9 - . /"},
      {resealed(stream, [](Bytes& s, const auto& at) { s[at[3] + kSectionNameAt + 3] = std::byte{0}; }),
       EBADMSG,
       "device-state stream: section number 3 at offset 326: its name is not 1 to 64 of a-z 0-9 - . /"},
      {resealed(stream, [](Bytes& s, const auto&) { s[kMatchHeaderSize + 2] = std::byte{'\n'}; }), EBADMSG,
       "device-state stream: match record at offset 0: it holds a byte that is not printable ASCII"},
  };
  for (const Case& c : cases) {
    int code = 0;
    std::string text = refusal(c.stream, {}, &code);
    for (size_t at = text.find("0x"); at != std::string::npos; at = text.find("0x", at + 2)) {
      if (text.substr(at + 2).find_first_not_of("0123456789abcdef") >= 8) text.replace(at + 2, 8, "@");
    }
    EXPECT_EQ(text, c.text);
    EXPECT_EQ(code, c.code) << c.text;
  }
}

TEST(Stream, ChecksumTextsShowBothValues) {
  Bytes stream = sample();
  const size_t seal = 326 + kSectionHeaderSize + 33;
  const auto right = load_le<uint32_t>(&stream[seal]);
  stream[seal] ^= std::byte{1};
  EXPECT_EQ(
      refusal(stream),
      fmt::format(
          "device-state stream: section \"nic-82576/queue0\" at offset 326: checksum is 0x{:08x}, expected "
          "0x{:08x}: the bytes were changed on the way; migrate again",
          right, right ^ 1));
}

TEST(Stream, LimitsHoldBeforeMemoryIsTaken) {
  const std::vector<Chunk> all = sample_chunks();
  const Bytes stream = write_stream(sample_match(), {all[0], all[2], all[3]});
  const auto with_length = [&](size_t record, size_t length_at, uint32_t length) {
    return resealed(
        stream, [&](Bytes& s, const auto& at) { store_le<uint32_t>(&s[at[record] + length_at], length); });
  };
  struct Case {
    Bytes stream;
    StreamLimits limits;
    std::string text;
  };
  const Case cases[] = {
      {with_length(0, kMatchLengthAt, 0xffffffff),
       {},
       "device-state stream: match record at offset 0: its body has 4294967295 bytes, at most 4095 are "
       "possible"},
      {with_length(2, kSectionLengthAt, 0xffffffff),
       {},
       "device-state stream: section \"nic-82576/queue0\" at offset 198: its payload has 4294967295 bytes, a "
       "chunk at "
       "most 1048576"},
      {with_length(2, kSectionLengthAt, 1048576),
       {.max_kept = 1048576},
       "device-state stream: section \"nic-82576/queue0\" at offset 198: its 1048576 bytes would make more "
       "than 1048576 "
       "bytes wait for the trailer; the plugin must mark large sections as bulk"},
      {with_length(2, kSectionLengthAt, 1000000),
       {.max_state = 1000000},
       "device-state stream: section \"nic-82576/queue0\" at offset 198: its 1000000 bytes make the state "
       "larger than "
       "1000000 bytes, the limit of this device"},
      {stream,
       {.max_chunks = 2},
       "device-state stream: section \"trace/log\" at offset 319: more than 2 chunks, the limit of this "
       "device"},
      {stream,
       {.max_state = 0},
       "device-state stream: section \"nic-82576/mac\" at offset 104: its 6 bytes make the state larger than "
       "0 bytes, "
       "the limit of this device"},
  };
  for (const Case& c : cases) {
    int code = 0;
    largest_allocation = 0;
    EXPECT_EQ(refusal(c.stream, c.limits, &code), c.text);
    EXPECT_EQ(code, E2BIG);
    EXPECT_LT(largest_allocation, 4096U) << c.text;
  }
  const StreamLimits exact{.max_state = 39, .max_kept = 39 + 3 * kSectionHeaderSize, .max_chunks = 3};
  EXPECT_EQ(refusal(stream, exact), "");
  EXPECT_NE(refusal(stream, {exact.max_state - 1, exact.max_kept, exact.max_chunks}), "");
  EXPECT_NE(refusal(stream, {exact.max_state, exact.max_kept - 1, exact.max_chunks}), "");
  EXPECT_NE(refusal(stream, {exact.max_state, exact.max_kept, exact.max_chunks - 1}), "");
}

TEST(Stream, RunningOutOfMemoryIsARefusal) {
  const Bytes stream = write_stream(sample_match(), {{"large", {}, Bytes(100'000)}});
  RecordingSink sink;
  StreamReader reader(sink);
  largest_possible_allocation = 50'000;
  const auto result = reader.write(stream);
  largest_possible_allocation = SIZE_MAX;
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ENOMEM);
  EXPECT_EQ(result.error().text, "device-state stream: section \"large\" at offset 104: out of memory");
}

TEST(StreamWriter, RefusesWhatTheFormatCannotCarry) {
  const auto create = [](std::string_view match) {
    const auto writer = StreamWriter::create(match);
    return writer ? std::string() : writer.error().text;
  };
  EXPECT_EQ(create(""), "device-state stream: match record: it is empty");
  EXPECT_EQ(create(std::string(4096, 'x')),
            "device-state stream: match record: it has 4096 bytes, at most 4095 are possible");
  for (const char* text : {"a\tb", "a\n", "\x7f", "\xc3\xa9"})
    EXPECT_EQ(create(text), "device-state stream: match record: it holds a byte that is not printable ASCII");
}

TEST(StreamWriter, TakesOneChunkAtATime) {
  StreamWriter writer = StreamWriter::create(sample_match()).value();
  EXPECT_EQ(writer.section("a", {}, {}).error().text,
            "device-state stream: 104 bytes are still pending; take them first");
  EXPECT_EQ(writer.finish().error().code, EBUSY);
  Bytes out;
  drain(writer, out);
  EXPECT_EQ(writer.section("A", {}, {}).error().text,
            "device-state stream: section name \"A\": use 1 to 64 of a-z 0-9 - . /");
  const Bytes large(kMaxChunkPayload + 1);
  const auto too_large = writer.section("a", {}, large);
  EXPECT_EQ(too_large.error().code, E2BIG);
  EXPECT_EQ(too_large.error().text,
            "device-state stream: section \"a\": a chunk of 1048577 bytes, at most 1048576 are possible; "
            "write several "
            "chunks");
  EXPECT_EQ(writer.pending(), 0U);
  ASSERT_TRUE(writer.finish());
  drain(writer, out);
  EXPECT_EQ(writer.finish().error().text,
            "device-state stream: the stream is finished; nothing can follow its trailer");
  EXPECT_EQ(refusal(out), "");
}

// The page's worked example, decoded from the page itself and compared with what the writer makes of its
// story.
TEST(StreamFormatPage, WorkedExampleIsAStream) {
  std::ifstream page(HOOKLINE_STREAM_FORMAT_PAGE);
  ASSERT_TRUE(page) << HOOKLINE_STREAM_FORMAT_PAGE;
  Bytes dump;
  for (std::string line; std::getline(page, line);) {
    if (line.size() < 10 || line.find_first_not_of("0123456789abcdef") != 8 || line[8] != ' ') continue;
    ASSERT_EQ(std::stoul(line.substr(0, 8), nullptr, 16), dump.size()) << line;
    std::istringstream columns(line.substr(9, line.find('|') - 9));
    for (std::string column; columns >> column;)
      dump.push_back(static_cast<std::byte>(std::stoul(column, nullptr, 16)));
  }
  const Descriptor toy{.model = "com.example/toy",
                       .plugin = "toy",
                       .plugin_version = "1.0",
                       .emits = "toy-1",
                       .capabilities = {"stop_copy", "p2p", "pre_copy"},
                       .parameters = {{.name = "queues", .value = "1"}}};
  const std::string match = migration_version(toy).value();
  const std::vector<Chunk> chunks = {
      {"toy/registers", {}, bytes({"\x04mode\x04\0\0\0\x03\0\0\0\x84hint\x01\0\0\0\x07", 23})}};
  EXPECT_EQ(dump, write_stream(match, chunks));

  RecordingSink sink;
  StreamReader reader(sink);
  ASSERT_TRUE(reader.write(dump));
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(sink.match, match);
  EXPECT_EQ(sink.chunks, chunks);
}

}  // namespace
}  // namespace hookline
