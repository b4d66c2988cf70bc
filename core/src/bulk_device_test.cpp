// SPDX-License-Identifier: Apache-2.0
//
// Pre-copy of a device with a memory of its own, with the facade as a vendor uses it: the guest draws, the
// plugin looks at touched pages alone, the sizes fall, and a refused stream leaves nothing.
#include <hookline/software_device.hpp>

#include <cstring>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/plugin.hpp>

namespace hookline {
namespace {

using ::testing::HasSubstr;
using enum MigrationState;

using Bytes = std::vector<std::byte>;

constexpr uint64_t kPage = 4096, kPages = 64;

/// A card of 64 pages of memory.
struct Card {
  Bytes memory = Bytes(kPages * kPage);
};

const hookline_model kCardModel = [] {
  hookline_model model{};
  model.name = "card";
  model.vendor = 0x1234;
  model.device = 0x5678;
  model.bar_size[0] = kPages * kPage;
  model.create = [](const hookline_model_host*, uint32_t) -> void* { return new Card; };
  model.destroy = [](void* self) { delete static_cast<Card*>(self); };
  model.reset = [](void*) {};
  model.read = [](void* self, uint32_t, uint64_t offset, uint32_t width) {
    uint64_t value = 0;
    std::memcpy(&value, &static_cast<Card*>(self)->memory[offset], width);
    return value;
  };
  model.write = [](void* self, uint32_t, uint64_t offset, uint32_t width, uint64_t value) {
    std::memcpy(&static_cast<Card*>(self)->memory[offset], &value, width);
  };
  return model;
}();

/// What a vendor writes: a page a section, those that were touched.
class CardPlugin final : public MigrationOwner {
 public:
  explicit CardPlugin(Device& dev) : dev_(dev) {}

  void save(SectionWriter& out) override { out.u32("mode", 3); }
  void load(SectionReader& in) override { in.u32("mode", in_range(0, 3)); }
  void apply() override {}

  void save_bulk(SectionWriter& out, BulkCall call) override {
    if (call.begin) {
      left_.assign(kPages, true);
      first_round_ = true;
      dev_.touched(0, 0, kPages, bitmap_);
    } else if (std::ranges::find(left_, true) == left_.end()) {
      // A new round.
      first_round_ = false;
      dev_.touched(0, 0, kPages, bitmap_);
      for (uint64_t page = 0; page < kPages; ++page) left_[page] = bitmap_[page / 64] >> (page % 64) & 1;
    }
    const auto next = std::ranges::find(left_, true);
    if (next == left_.end()) return;
    const auto page = static_cast<uint32_t>(next - left_.begin());
    out.u32("page", page);
    const std::span<std::byte> data = out.reserve("data", kPage);
    for (uint64_t i = 0; i < kPage; i += 4) {
      const uint32_t word = dev_.read32(0, page * kPage + i);
      std::memcpy(&data[i], &word, sizeof(word));
    }
    *next = false;
    if (std::ranges::find(left_, true) != left_.end()) {
      out.more();
    } else {
      first_round_ = false;
      // While stopped one look more finds what was touched since.
      if (call.stopped) out.more();
    }
  }
  BulkSizes bulk_sizes() override {
    const uint64_t bytes = static_cast<uint64_t>(std::ranges::count(left_, true)) * (kPage + 4);
    return first_round_ ? BulkSizes{bytes, 0} : BulkSizes{0, bytes};
  }
  void load_bulk(SectionReader& in, BulkCall) override {
    const uint32_t page = in.u32("page", below(kPages));
    const std::span<const std::byte> data = in.view("data", kPage);
    for (uint64_t i = 0; i + 4 <= data.size(); i += 4) {
      uint32_t word = 0;
      std::memcpy(&word, &data[i], sizeof(word));
      dev_.write32(0, page * kPage + i, word);
    }
  }

  static constexpr PluginInfo kInfo = {.name = "card",
                                       .version = "1.0",
                                       .model = "com.example/card",
                                       .migration_version = "1",
                                       .reset = {fill(0, 0, kPages* kPage)},
                                       .max_state = 4,
                                       .max_bulk = kPages * (kPage + 4)};

 private:
  Device& dev_;
  std::vector<bool> left_;
  std::vector<uint64_t> bitmap_;
  bool first_round_ = false;
};
const hookline_plugin kCard = detail::describe<CardPlugin>(CardPlugin::kInfo);

class BulkDeviceTest : public ::testing::Test {
 protected:
  static std::unique_ptr<SoftwareDevice> make() {
    auto device = SoftwareDevice::create(kCardModel, *build_chain({*make_link(kCard)}), {});
    EXPECT_TRUE(device) << device.error().text;
    return std::move(*device);
  }
  BulkDeviceTest() {
    Bytes picture(kPages * kPage);
    std::mt19937 random(6);
    for (std::byte& byte : picture) byte = std::byte(random());
    EXPECT_TRUE(source_->write(0, 0, picture));
  }
  static Bytes memory(SoftwareDevice& device) {
    Bytes all(kPages * kPage);
    EXPECT_TRUE(device.read(0, 0, all));
    return all;
  }
  void draw(uint64_t page, uint32_t value) {
    ASSERT_TRUE(source_->write32(0, page * kPage + value % 1000 * 4, value));
  }

  std::unique_ptr<SoftwareDevice> source_ = make(), destination_ = make();
};

TEST_F(BulkDeviceTest, TheFacadeRequiresAHostWithBulkWhereThereIsOne) {
  EXPECT_EQ(kCard.abi.required, HOOKLINE_REQUIRE_BULK);
  EXPECT_EQ(kCard.max_bulk, kPages * (kPage + 4));
}

TEST_F(BulkDeviceTest, MP2_TheGuestDrawsOnAndLittleIsLeftForTheStop) {
  ASSERT_TRUE(source_->set_state(pre_copy));
  ASSERT_TRUE(destination_->set_state(resuming));
  const Bytes first = *source_->save_all();
  EXPECT_GT(first.size(), kPages * kPage);
  ASSERT_TRUE(destination_->write_state(first));

  for (uint64_t page = 10; page < 16; ++page) draw(page, 7);
  const Bytes second = *source_->save_all();
  EXPECT_GT(second.size(), 6 * kPage);
  EXPECT_LT(second.size(), 7 * kPage);
  ASSERT_TRUE(destination_->write_state(second));

  draw(10, 8);
  draw(63, 9);
  ASSERT_TRUE(source_->set_state(stop_copy));
  const Bytes last = *source_->save_all();
  EXPECT_GT(last.size(), 2 * kPage);
  EXPECT_LT(last.size(), 3 * kPage);
  ASSERT_TRUE(destination_->write_state(last));
  ASSERT_TRUE(destination_->set_state(running));
  EXPECT_TRUE(memory(*destination_) == memory(*source_));
}

TEST_F(BulkDeviceTest, MP5_SizesAreTrueAtEveryMomentAndTheUpperBoundFalls) {
  const uint64_t all = source_->stop_copy_bytes();
  EXPECT_GT(all, kPages * kPage);
  ASSERT_TRUE(source_->set_state(pre_copy));
  EXPECT_GE(source_->precopy_info()->initial, kPages * kPage) << "before anything was read";
  Bytes piece(8192);
  uint64_t initial = source_->precopy_info()->initial, bound = all;
  while (source_->read_state(piece)) {
    EXPECT_LE(source_->precopy_info()->initial, initial);
    EXPECT_LE(source_->stop_copy_bytes(), bound);
    initial = source_->precopy_info()->initial;
    bound = source_->stop_copy_bytes();
  }
  EXPECT_EQ(initial, 0U);
  EXPECT_EQ(source_->precopy_info()->dirty, 0U);
  EXPECT_LT(bound, all / 3);

  draw(20, 1);
  draw(21, 1);
  draw(21, 2);
  EXPECT_EQ(source_->precopy_info()->dirty, 2 * kPage) << "known without asking the plugin";
  EXPECT_GT(source_->stop_copy_bytes(), bound);
  EXPECT_LT(source_->stop_copy_bytes(), bound + 3 * kPage);
  const uint64_t announced = source_->stop_copy_bytes();
  ASSERT_TRUE(source_->set_state(stop_copy));
  const Bytes last = *source_->save_all();
  EXPECT_GT(last.size(), 2 * kPage);
  EXPECT_LE(last.size(), announced);
}

TEST_F(BulkDeviceTest, MP6_AStreamRefusedAfterItsBulkLeavesAScrubbedDevice) {
  ASSERT_TRUE(source_->set_state(stop_copy));
  Bytes stream = *source_->save_all();
  stream.back() ^= std::byte{1};
  ASSERT_TRUE(destination_->set_state(resuming));
  ASSERT_TRUE(destination_->write_state(std::span(stream).first(stream.size() - 1)));
  EXPECT_NE(memory(*destination_), Bytes(kPages * kPage)) << "bulk was loaded as it came";
  const Result<void> refused = destination_->write_state(std::span(stream).last(1));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("checksum"));
  EXPECT_EQ(memory(*destination_), Bytes(kPages * kPage));
  EXPECT_FALSE(destination_->set_state(running));
}

TEST_F(BulkDeviceTest, MP4_ACancelInTheMiddleAndTheNextMigrationIsWhole) {
  ASSERT_TRUE(source_->set_state(pre_copy));
  Bytes piece(3 * kPage + 77);
  ASSERT_TRUE(source_->read_state(piece));
  ASSERT_TRUE(source_->set_state(running));
  draw(0, 5);
  ASSERT_TRUE(source_->set_state(pre_copy));
  EXPECT_GE(source_->precopy_info()->initial, kPages * kPage);
  Bytes stream = *source_->save_all();
  ASSERT_TRUE(source_->set_state(stop_copy));
  const Bytes last = *source_->save_all();
  stream.insert(stream.end(), last.begin(), last.end());
  ASSERT_TRUE(destination_->set_state(resuming));
  ASSERT_TRUE(destination_->write_state(stream));
  EXPECT_TRUE(memory(*destination_) == memory(*source_));
}

TEST_F(BulkDeviceTest, ADeviceThatIsNeverQuietUsesItsShareOfPreCopyAndStillMoves) {
  ASSERT_TRUE(source_->set_state(pre_copy));
  Bytes stream, piece(1 << 20);
  for (int round = 0; round < 40; ++round) {
    for (uint64_t page = 0; page < kPages; ++page) draw(page, static_cast<uint32_t>(round));
    const Result<size_t> got = source_->read_state(piece);
    if (got) stream.insert(stream.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*got));
  }
  EXPECT_GT(stream.size(), 4 * kPages * kPage);
  EXPECT_LT(stream.size(), 6 * kPages * kPage);
  ASSERT_TRUE(source_->set_state(stop_copy));
  const Bytes last = *source_->save_all();
  stream.insert(stream.end(), last.begin(), last.end());
  EXPECT_LE(stream.size(), source_->chain().max_state());
  ASSERT_TRUE(destination_->set_state(resuming));
  ASSERT_TRUE(destination_->write_state(stream));
  EXPECT_TRUE(memory(*destination_) == memory(*source_));
}

}  // namespace
}  // namespace hookline
