// SPDX-License-Identifier: Apache-2.0
//
// How often a byte of a state is copied on its way into the stream and out of it: once each. The linker puts this file's memcpy and
// memmove in the place of those that the library calls.
#include <hookline/stream.hpp>

#include <algorithm>
#include <cstring>
#include <random>
#include <tuple>

#include <gtest/gtest.h>

namespace {

size_t copied = 0;

}  // namespace

extern "C" {
void* __real_memcpy(void* to, const void* from, size_t length);
void* __real_memmove(void* to, const void* from, size_t length);
void* __wrap_memcpy(void* to, const void* from, size_t length) {
  copied += length;
  return __real_memcpy(to, from, length);
}
void* __wrap_memmove(void* to, const void* from, size_t length) {
  copied += length;
  return __real_memmove(to, from, length);
}
}

namespace hookline {
namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kPayload = size_t{1} << 20, kSections = 3;
constexpr size_t kFraming = 4096;  // of the whole stream, and what is copied to make it

const Bytes& payload() {
  static const Bytes bytes = [] {
    Bytes made(kPayload);
    std::mt19937 random(1);
    for (std::byte& b : made) b = static_cast<std::byte>(random());
    return made;
  }();
  return bytes;
}

class Comparing final : public StreamSink {
 public:
  Result<void> on_match(std::string_view) override { return {}; }
  Result<void> on_section(const Section& section) override {
    good += std::ranges::equal(section.payload, payload());
    return {};
  }
  Result<void> on_complete() override { return {}; }
  size_t good = 0;
};

// Also where a section goes to the sink: kept until the trailer, or at once.
class StreamCopies : public ::testing::TestWithParam<std::tuple<size_t, bool>> {};

TEST_P(StreamCopies, MP3_AByteIsCopiedOnceIntoTheStreamAndOnceOutOfIt) {
  const auto [piece, bulk] = GetParam();
  (void)payload();
  Bytes stream(kSections * kPayload + kFraming);
  const std::span<std::byte> room(stream);
  size_t length = 0;
  const auto take = [&](StreamWriter& writer) {
    while (writer.pending()) length += writer.take(room.subspan(length, std::min(piece, room.size() - length)));
  };

  copied = 0;
  StreamWriter writer = *StreamWriter::create("test");
  take(writer);
  for (size_t i = 0; i < kSections; ++i) {
    ASSERT_TRUE(writer.section("memory", {.bulk = bulk}, payload()));
    take(writer);
  }
  ASSERT_TRUE(writer.finish());
  take(writer);
  const size_t written = copied;
  ASSERT_TRUE(writer.done());
  EXPECT_GE(written, kSections * kPayload) << "copies that this test does not see";
  EXPECT_LE(written, kSections * kPayload + kFraming);

  Comparing sink;
  StreamReader reader(sink);
  copied = 0;
  for (size_t at = 0; at < length; at += piece)
    ASSERT_TRUE(reader.write(room.subspan(at, std::min(piece, length - at))));
  const size_t read = copied;
  ASSERT_TRUE(reader.end());
  EXPECT_EQ(sink.good, kSections);
  EXPECT_GE(read, kSections * kPayload) << "copies that this test does not see";
  EXPECT_LE(read, kSections * kPayload + kFraming);
}

INSTANTIATE_TEST_SUITE_P(Pieces, StreamCopies,
                         ::testing::Combine(::testing::Values(4096, 65536, 1 << 20), ::testing::Bool()));

}  // namespace
}  // namespace hookline
