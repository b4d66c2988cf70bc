// SPDX-License-Identifier: Apache-2.0
//
// Bulk sections: rounds before the stop, what is announced of them, and what a destination does with them.
#include <hookline/device_state.hpp>
#include <hookline/stream.hpp>

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_host.hpp"

namespace hookline {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr size_t kChunk = 1000;
constexpr size_t kChunks = 40;
constexpr size_t kValues = sizeof(uint32_t) + kChunk;  // of one section
constexpr size_t kSection = 84 + (1 + 5 + 4 + 4) + (1 + 4 + 4 + kChunk) + 4;

/// One host: an owner whose memory goes in sections of a chunk, and as its other state a single value.
class Host : public test::FakeHost {
 public:
  Host() : memory(kChunk * kChunks), changed(kChunks) {
    owner.own_migration().guard().with_bulk(kChunks * kValues).abi.max_state = 8;
    owner.on_save = [this](hookline_writer* out) { return owner.host->put(out, "value", &value, 8); };
    owner.on_load = [this](hookline_reader* in) { return owner.host->get(in, "value", &loaded, 8); };
    owner.on_apply = [this] {
      value = loaded;
      return 0;
    };
    owner.on_save_bulk = [this](hookline_writer* out, uint32_t flags) { return save_bulk(out, flags); };
    owner.on_bulk_sizes = [this](uint64_t* initial, uint64_t* dirty) {
      *initial = *dirty = 0;
      for (size_t i = 0; i < kChunks; ++i) *(first_round ? initial : dirty) += changed[i] ? kValues : 0;
      return 0;
    };
    owner.on_load_bulk = [this](hookline_reader* in, uint32_t flags) { return load_bulk(in, flags); };
  }

  using FakeHost::open;
  void open() { open(links(owner)); }

  void draw(size_t chunk, int value_) {
    std::fill_n(memory.begin() + static_cast<ptrdiff_t>(chunk * kChunk), kChunk, std::byte(value_));
    changed[chunk] = true;
  }

  DeviceStateSaver begin() { return std::move(*DeviceStateSaver::begin(*device)); }
  DeviceStateLoader loader() { return DeviceStateLoader(*device); }

  int save_bulk(hookline_writer* out, uint32_t flags) {
    calls.push_back(flags);
    if (flags & HOOKLINE_BULK_BEGIN) {
      std::fill(changed.begin(), changed.end(), true);
      first_round = true;
    }
    const auto next = std::find(changed.begin(), changed.end(), true);
    if (next == changed.end()) {
      first_round = false;
      return 0;
    }
    *next = false;
    const auto chunk = static_cast<uint32_t>(next - changed.begin());
    void* at = nullptr;
    if (const int ret = owner.host->put(out, "chunk", &chunk, sizeof(chunk)); ret < 0) return ret;
    if (const int ret = owner.host->reserve(out, "data", kChunk, &at); ret < 0) return ret;
    std::memcpy(at, &memory[chunk * kChunk], kChunk);
    const bool more = std::find(changed.begin(), changed.end(), true) != changed.end();
    if (!more) first_round = false;
    return more ? HOOKLINE_MORE : 0;
  }

  int load_bulk(hookline_reader* in, uint32_t flags) {
    calls.push_back(flags);
    uint32_t chunk = 0;
    const void* data = nullptr;
    size_t length = 0;
    if (const int ret = owner.host->get(in, "chunk", &chunk, sizeof(chunk)); ret < 0) return ret;
    if (chunk >= kChunks) return owner.host->reject(in, "chunk", "is behind the end of the memory");
    if (const int ret = owner.host->view(in, "data", kChunk, &data, &length); ret < 0) return ret;
    std::memcpy(&memory[chunk * kChunk], data, length);
    return 0;
  }

  test::FakePlugin owner{"owner", journal};
  Bytes memory;
  std::vector<bool> changed;
  bool first_round = false;
  uint64_t value = 0, loaded = 0;
  std::vector<uint32_t> calls;  // flags of each bulk callback
};

class BulkStateTest : public ::testing::Test {
 protected:
  BulkStateTest() {
    std::mt19937 random(6);
    for (std::byte& byte : source_.memory) byte = std::byte(random());
    source_.value = 0x1234;
    source_.open();
    destination_.open();
  }

  /// Reads a phase to its end, or in PRE_COPY to "nothing now".
  static Bytes read(DeviceStateSaver& saver, SavePhase phase, size_t cut = 1 << 20) {
    Bytes bytes, piece(cut);
    for (;;) {
      const Result<size_t> got = saver.fill(piece, phase);
      if (!got) {
        ADD_FAILURE() << got.error().text;
        return bytes;
      }
      if (*got == 0) return bytes;
      bytes.insert(bytes.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*got));
    }
  }

  /// A migration in three rounds and the stop, all changes of the memory among them.
  Bytes stream(size_t cut = 1 << 20) {
    DeviceStateSaver saver = source_.begin();
    Bytes all = read(saver, SavePhase::pre_copy, cut);
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < 7; ++i) source_.draw(5 * i + static_cast<size_t>(round), round + 1);
      const Bytes more = read(saver, SavePhase::pre_copy, cut);
      all.insert(all.end(), more.begin(), more.end());
    }
    source_.draw(39, 9);
    const Bytes last = read(saver, SavePhase::stop_copy, cut);
    EXPECT_TRUE(saver.done());
    all.insert(all.end(), last.begin(), last.end());
    return all;
  }

  void expect_moved() {
    EXPECT_EQ(destination_.memory, source_.memory);
    EXPECT_EQ(destination_.value, source_.value);
  }

  Host source_, destination_;
};

TEST_F(BulkStateTest, MP2_WhatChangesWhileTheDeviceRunsGoesInRoundsAndLittleIsLeftForTheStop) {
  DeviceStateSaver saver = source_.begin();
  Bytes all = read(saver, SavePhase::pre_copy);
  EXPECT_GT(all.size(), kChunks * kSection);
  EXPECT_EQ(read(saver, SavePhase::pre_copy).size(), 0U) << "a round begins only if something has changed";

  source_.draw(3, 1);
  source_.draw(30, 2);
  const Bytes round = read(saver, SavePhase::pre_copy);
  EXPECT_EQ(round.size(), 2 * kSection);
  source_.draw(3, 3);
  const Bytes last = read(saver, SavePhase::stop_copy);
  EXPECT_LT(last.size(), 2 * kSection);

  DeviceStateLoader loader(*destination_.device);
  for (const Bytes& part : {all, round, last}) ASSERT_TRUE(loader.write(part));
  EXPECT_TRUE(loader.end());
  expect_moved();
}

TEST_F(BulkStateTest, ARoundEndsOnceForTheVmmAlsoIfTheDeviceNeverRests) {
  DeviceStateSaver saver = source_.begin();
  Bytes buffer(1 << 20);
  EXPECT_GT(*saver.fill(buffer, SavePhase::pre_copy), kChunks * kSection);
  source_.draw(1, 1);
  EXPECT_EQ(*saver.fill(buffer, SavePhase::pre_copy), 0U) << "nothing now, though there is";
  EXPECT_EQ(*saver.fill(buffer, SavePhase::pre_copy), kSection);
  EXPECT_FALSE(saver.finished(SavePhase::pre_copy)) << "PRE_COPY ends with the stop";
}

TEST_F(BulkStateTest, AnyCutOnEitherSideGivesTheSame) {
  const Bytes whole = stream();
  Bytes first = source_.memory;
  for (const size_t cut : {1UL, 83UL, 1109UL, 4096UL}) {
    std::mt19937 random(6);
    for (std::byte& byte : source_.memory) byte = std::byte(random());
    EXPECT_TRUE(stream(cut) == whole) << cut;
    ASSERT_TRUE(source_.memory == first);
    std::ranges::fill(destination_.memory, std::byte{0});
    destination_.value = 0;
    DeviceStateLoader loader(*destination_.device);
    for (size_t at = 0; at < whole.size(); at += cut)
      ASSERT_TRUE(loader.write(std::span(whole).subspan(at, std::min(cut, whole.size() - at)))) << cut;
    EXPECT_TRUE(loader.complete());
    expect_moved();
  }
}

TEST_F(BulkStateTest, TheFirstCallSaysSoAndTheStopDoes) {
  DeviceStateSaver saver = source_.begin();
  read(saver, SavePhase::pre_copy);
  EXPECT_EQ(source_.calls.front(), HOOKLINE_BULK_BEGIN);
  EXPECT_EQ(std::ranges::count(source_.calls, 0U), static_cast<ptrdiff_t>(source_.calls.size() - 1));
  source_.calls.clear();
  const Bytes last = read(saver, SavePhase::stop_copy);
  EXPECT_THAT(source_.calls, ElementsAre(HOOKLINE_BULK_STOPPED));
  EXPECT_THAT(source_.journal, ElementsAre("owner save")) << "once, when no bulk is left";

  source_.calls.clear();
  DeviceStateSaver at_once = source_.begin();
  const Bytes stream = read(at_once, SavePhase::stop_copy);
  EXPECT_EQ(source_.calls.front(), HOOKLINE_BULK_BEGIN | HOOKLINE_BULK_STOPPED);
  DeviceStateLoader loader(*destination_.device);
  ASSERT_TRUE(loader.write(stream));
  EXPECT_EQ(destination_.calls.front(), HOOKLINE_BULK_BEGIN);
  EXPECT_EQ(std::ranges::count(destination_.calls, 0U), static_cast<ptrdiff_t>(kChunks - 1));
  expect_moved();
}

TEST_F(BulkStateTest, WhatIsAnnouncedIsWhatComes) {
  DeviceStateSaver saver = source_.begin();
  const uint64_t match = saver.sizes().initial - source_.chain->max_bulk_pass();
  EXPECT_EQ(saver.sizes().dirty, 0U);
  Bytes buffer(match);
  ASSERT_EQ(*saver.fill(buffer, SavePhase::pre_copy), match);
  EXPECT_GE(saver.sizes().initial, kChunks * kValues) << "an upper bound before the plugin was asked";

  buffer.resize(kSection);
  for (size_t left = kChunks; left-- > 0;) {
    ASSERT_EQ(*saver.fill(buffer, SavePhase::pre_copy), kSection);
    EXPECT_EQ(saver.sizes().initial, left * kValues);
    EXPECT_EQ(saver.sizes().dirty, 0U);
  }
  ASSERT_EQ(*saver.fill(buffer, SavePhase::pre_copy), 0U);

  for (size_t i = 0; i < 5; ++i) source_.draw(7 * i, 1);
  for (size_t left = 5; left-- > 0;) {
    ASSERT_EQ(*saver.fill(buffer, SavePhase::pre_copy), kSection);
    EXPECT_EQ(saver.sizes().initial, 0U);
    EXPECT_EQ(saver.sizes().dirty, left * kValues);
  }
}

TEST_F(BulkStateTest, InitialBytesNeverGrowWhateverThePluginAndTheCutSay) {
  DeviceStateSaver saver = source_.begin();
  Bytes piece(333);
  uint64_t before = saver.sizes().initial;
  for (int i = 0; i < 400; ++i) {
    if (i % 10 == 0) source_.draw(static_cast<size_t>(i) % kChunks, i);
    if (i % 90 == 0) source_.first_round = true;
    ASSERT_TRUE(saver.fill(piece, SavePhase::pre_copy));
    EXPECT_LE(saver.sizes().initial, before);
    before = saver.sizes().initial;
  }
}

TEST_F(BulkStateTest, ACancelAtAnyByteLeavesTheNextMigrationWhole) {
  const size_t length = stream().size();
  for (size_t at = 0; at < length; at += 997) {
    {
      DeviceStateSaver cancelled = source_.begin();
      Bytes piece(at);
      ASSERT_TRUE(cancelled.fill(piece, SavePhase::pre_copy));
    }
    DeviceStateLoader gone(*destination_.device);
    DeviceStateSaver saver = source_.begin();
    const Bytes all = read(saver, SavePhase::stop_copy);
    ASSERT_TRUE(gone.write(std::span(all).first(std::min(at, all.size() - 1))));
    EXPECT_FALSE(gone.end());
    DeviceStateLoader loader(*destination_.device);
    ASSERT_TRUE(loader.write(all)) << at;
    expect_moved();
  }
}

TEST_F(BulkStateTest, BulkIsLoadedAsItsChecksumHoldsAndAllElseWaitsForTheTrailer) {
  const Bytes all = stream();
  DeviceStateLoader loader(*destination_.device);
  size_t at = 0;
  while (destination_.calls.empty()) {
    ASSERT_LT(at, all.size());
    ASSERT_TRUE(loader.write(std::span(all).subspan(at++, 1)));
  }
  EXPECT_LT(at, 2 * kSection);
  ASSERT_TRUE(loader.write(std::span(all).subspan(at, all.size() - at - 1)));
  EXPECT_GT(destination_.calls.size(), kChunks);
  EXPECT_TRUE(destination_.journal.empty()) << destination_.journal.front();
  ASSERT_TRUE(loader.write(std::span(all).last(1)));
  EXPECT_THAT(destination_.journal, ElementsAre("owner load", "owner apply"));
  expect_moved();
}

TEST_F(BulkStateTest, ADamagedStreamIsRefusedWherever) {
  const Bytes all = stream();
  for (size_t at = 0; at < all.size(); at += 61) {
    Bytes damaged = all;
    damaged[at] ^= std::byte{1};
    destination_.journal.clear();
    DeviceStateLoader loader(*destination_.device);
    Result<void> ok = loader.write(damaged);
    if (ok) ok = loader.end();
    EXPECT_FALSE(ok) << at;
    EXPECT_THAT(destination_.journal, ::testing::Not(::testing::Contains("owner apply"))) << at;
  }
}

TEST_F(BulkStateTest, ASectionItsPluginRejectsNamesFieldAndOffset) {
  source_.owner.on_save_bulk = [this](hookline_writer* out, uint32_t) {
    const uint32_t chunk = kChunks;
    return source_.owner.host->put(out, "chunk", &chunk, sizeof(chunk));
  };
  DeviceStateSaver saver = source_.begin();
  const Bytes all = read(saver, SavePhase::stop_copy);
  DeviceStateLoader loader(*destination_.device);
  const Result<void> refused = loader.write(all);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_THAT(refused.error().text,
              AllOf(HasSubstr("section \"owner\""), HasSubstr("field \"chunk\" at offset"),
                    HasSubstr("behind the end of the memory")));
}

TEST_F(BulkStateTest, APluginWithoutLoadBulkGetsNone) {
  const Bytes all = stream();
  Host other;
  other.owner.abi.save_bulk = nullptr;
  other.owner.abi.bulk_sizes = nullptr;
  other.owner.abi.load_bulk = nullptr;
  other.owner.abi.max_bulk = 0;
  other.owner.abi.max_state = 1 << 20;
  other.open();
  DeviceStateLoader loader(*other.device);
  const Result<void> refused = loader.write(all);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("marked as bulk"));
  EXPECT_TRUE(other.calls.empty());
}

TEST_F(BulkStateTest, APluginThatNeverEndsIsHeldToItsDeclaration) {
  source_.owner.on_save_bulk = [this](hookline_writer* out, uint32_t) {
    const uint32_t chunk = 1;
    void* at = nullptr;
    source_.owner.host->put(out, "chunk", &chunk, sizeof(chunk));
    source_.owner.host->reserve(out, "data", kChunk, &at);
    std::memset(at, 1, kChunk);
    return HOOKLINE_MORE;
  };
  DeviceStateSaver saver = source_.begin();
  const Bytes running = read(saver, SavePhase::pre_copy);
  EXPECT_GE(running.size(), 4 * kChunks * kValues);
  EXPECT_LT(running.size(), 5 * kChunks * kValues);
  EXPECT_EQ(read(saver, SavePhase::pre_copy).size(), 0U) << "its share of PRE_COPY is used up";

  Bytes buffer(16 << 20);
  const Result<size_t> got = saver.fill(buffer, SavePhase::stop_copy);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, E2BIG);
  EXPECT_THAT(got.error().text, AllOf(HasSubstr("\"owner\""), HasSubstr("raise max_bulk")));
  EXPECT_EQ(saver.fill(buffer, SavePhase::stop_copy).error().text, got.error().text) << "the first one stays";

  DeviceStateLoader loader(*destination_.device);
  EXPECT_TRUE(loader.write(running)) << "what was sent so far is no fault of the destination's";
}

TEST_F(BulkStateTest, MoreWithoutASectionIsAskedAgainButNotForEver) {
  int calls = 0;
  source_.owner.on_save_bulk = [&](hookline_writer*, uint32_t) { return ++calls < 1000 ? HOOKLINE_MORE : 0; };
  DeviceStateSaver saver = source_.begin();
  Bytes buffer(1 << 20);
  ASSERT_GT(*saver.fill(buffer, SavePhase::pre_copy), 0U);
  EXPECT_EQ(calls, 1000);

  source_.owner.on_save_bulk = [](hookline_writer*, uint32_t) { return HOOKLINE_MORE; };
  const Result<size_t> got = saver.fill(buffer, SavePhase::stop_copy);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, EPROTO);
}

TEST_F(BulkStateTest, WhatSaveBulkOrBulkSizesFailsWithFailsTheStream) {
  source_.owner.on_save_bulk = [this](hookline_writer*, uint32_t) {
    return source_.owner.host->fail(source_.owner.device, EIO, "the memory is gone");
  };
  Bytes buffer(1 << 20);
  const auto error = [&] {
    DeviceStateSaver saver = source_.begin();
    const Result<size_t> got = saver.fill(buffer, SavePhase::pre_copy);
    return got ? std::string() : got.error().text;
  };
  EXPECT_EQ(error(), "plugin \"owner\": save_bulk(): the memory is gone");
  source_.owner.on_save_bulk = [](hookline_writer*, uint32_t) { return 0; };
  source_.owner.on_bulk_sizes = [](uint64_t*, uint64_t*) { return -ENODEV; };
  EXPECT_EQ(error(), "plugin \"owner\": bulk_sizes(): No such device");
}

TEST_F(BulkStateTest, ADestinationKeepsNothingOfBulkAndBoundsTheRest) {
  const std::string match = [&] {
    DeviceStateSaver saver = source_.begin();
    Bytes head(saver.sizes().initial - source_.chain->max_bulk_pass());
    EXPECT_TRUE(saver.fill(head, SavePhase::pre_copy));
    std::string text;
    for (size_t i = 20; i < head.size() - 4; ++i) text += static_cast<char>(head[i]);
    return text;
  }();
  Bytes section(kSection - 88);
  {
    FieldWriter fields(section);
    const uint32_t chunk = 0;
    ASSERT_TRUE(fields.put("chunk", std::as_bytes(std::span(&chunk, 1))));
    ASSERT_TRUE(fields.reserve("data", kChunk));
  }
  /// How many sections of a hostile stream a destination takes.
  const auto taken = [&](SectionFlags flags) {
    StreamWriter writer = std::move(*StreamWriter::create(match));
    DeviceStateLoader loader(*destination_.device);
    Bytes piece(1 << 20);
    for (size_t n = 0;; ++n) {
      const size_t length = writer.take(piece);
      const Result<void> ok = loader.write(std::span(piece).first(length));
      if (!ok) {
        EXPECT_EQ(ok.error().code, E2BIG) << ok.error().text;
        return n;
      }
      if (n == 10000) return n;
      EXPECT_TRUE(writer.section("owner", flags, section));
    }
  };
  EXPECT_LE(taken({.bulk = true}), 1 + destination_.chain->max_state() / (kSection - 4));
  EXPECT_LE(taken({}), 1 + destination_.chain->max_save() / (kSection - 4));
  EXPECT_LT(destination_.chain->max_save(), 70000U) << "whatever the bulk";
}

}  // namespace
}  // namespace hookline
