// SPDX-License-Identifier: Apache-2.0
//
// What every plugin should be held to: it moves a device in mid-life to one that another guest has used,
// survives its own crash, and refuses a bad value by name.
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/fields.hpp>
#include <hookline/software_device.hpp>

namespace hookline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using enum MigrationState;

constexpr uint32_t kCtrl = 0x00, kMode = 0x08, kReset = 0x0c, kBase = 0x1000, kCount = 0x1004, kTail = 0x100c;

class Example : public ::testing::Test {
 protected:
  std::unique_ptr<SoftwareDevice> make() {
    std::vector<Link> links;
    links.push_back(std::move(*make_link(hookline_plugin_v1)));
    auto chain = build_chain(std::move(links));
    EXPECT_TRUE(chain) << chain.error().text;
    SoftwareDevice::Options options;
    options.memory = memory_;
    auto device = SoftwareDevice::create(hookline_model_v1, std::move(*chain), std::move(options));
    EXPECT_TRUE(device) << device.error().text;
    return std::move(*device);
  }

  static void write(SoftwareDevice& device, uint32_t offset, uint32_t value) {
    const Result<void> ok = device.write32(0, offset, value);
    ASSERT_TRUE(ok) << ok.error().text;
  }
  /// A guest's driver at work: a ring of 16 slots at `base`.
  static void start(SoftwareDevice& device, uint32_t mode, uint32_t base) {
    write(device, kReset, 1), write(device, kMode, mode), write(device, kBase, base),
        write(device, kCount, 16);
    write(device, kCtrl, 1);
  }
  static Result<void> move(SoftwareDevice& from, SoftwareDevice& to, size_t cut = 4096) {
    if (const Result<void> ok = from.set_state(stop_copy); !ok) return ok;
    const auto stream = from.save_all(cut);
    if (!stream) return fail(stream.error());
    if (const Result<void> ok = to.set_state(resuming); !ok) return ok;
    for (size_t at = 0; at < stream->size(); at += cut)
      if (const Result<void> ok =
              to.write_state(std::span(*stream).subspan(at, std::min(cut, stream->size() - at)));
          !ok)
        return ok;
    return to.set_state(running);
  }
  uint32_t slot(uint32_t base, uint32_t i) const {
    uint32_t value;
    std::memcpy(&value, &memory_[base + 4 * i], 4);
    return value;
  }

  std::vector<std::byte> memory_ = std::vector<std::byte>(4096);
};

TEST_F(Example, MovesInMidLifeInAnyCut) {
  for (size_t cut : {1, 13, 4096}) {
    auto source = make(), target = make();
    start(*source, 3, 0x100), start(*target, 1, 0x800);
    write(*source, kTail, 5), write(*target, kTail, 9);
    ASSERT_TRUE(source->set_state(stop));
    write(*source, kTail, 7);  // two slots are still to be filled, by the destination
    EXPECT_EQ(slot(0x100, 5), 0u);
    const Result<void> moved = move(*source, *target, cut);
    ASSERT_TRUE(moved) << moved.error().text;
    EXPECT_EQ(slot(0x100, 6), 3006u);
    write(*target, kTail, 8);
    EXPECT_EQ(slot(0x100, 7), 3007u);
    std::fill(memory_.begin(), memory_.end(), std::byte{0});
  }
}

TEST_F(Example, AStoppedDeviceStaysStoppedAfterTheMove) {
  auto source = make(), target = make();
  start(*source, 2, 0x100);
  write(*source, kCtrl, 0);
  ASSERT_TRUE(move(*source, *target));
  EXPECT_EQ(*target->read32(0, kCtrl), 0u);
}

TEST_F(Example, MovesTwiceWithoutRunningInBetween) {
  auto first = make(), middle = make(), last = make();
  start(*first, 2, 0x100);
  ASSERT_TRUE(first->set_state(stop_copy));
  const auto stream = first->save_all();
  ASSERT_TRUE(middle->set_state(resuming));
  ASSERT_TRUE(middle->write_state(*stream));
  ASSERT_TRUE(move(*middle, *last));
  write(*last, kTail, 1);
  EXPECT_EQ(slot(0x100, 0), 2000u);
}

TEST_F(Example, WhatNoRegisterShowsSurvivesTheWorker) {
  auto source = make(), target = make();
  start(*source, 2, 0x100);
  source->kill_worker();
  ASSERT_TRUE(source->start_worker());
  ASSERT_TRUE(move(*source, *target));
  write(*target, kTail, 1);
  EXPECT_EQ(slot(0x100, 0), 2000u);
}

TEST_F(Example, RefusesWhatNoDeviceCanHave) {
  auto device = make();
  const struct {
    const char* field;
    uint32_t value;
    const char* reason;
  } bad[] = {{"mode", 4, "expected 0 to 3"},   {"ctrl", 2, "no bits outside 0x1"},
             {"base", 2, "a multiple of 4"},   {"count", 257, "expected 0 to 256"},
             {"head", 16, "expected 0 to 15"}, {"tail", 16, "expected 0 to 15"}};
  for (const auto& b : bad) {
    std::vector<std::byte> buffer(256);
    FieldWriter out(buffer);
    for (const char* name : {"mode", "ctrl", "base", "count", "head", "tail"}) {
      const uint32_t good = std::string_view(name) == "count" ? 16 : 0;
      const uint32_t value = std::string_view(name) == b.field ? b.value : good;
      ASSERT_TRUE(out.put(name, std::as_bytes(std::span(&value, 1))));
    }
    FieldReader in("example", out.bytes(), 0);
    const Result<void> loaded = device->worker()->load(0, in);
    ASSERT_FALSE(loaded) << b.field;
    EXPECT_THAT(loaded.error().text,
                AllOf(HasSubstr(std::string("field \"") + b.field + "\""), HasSubstr(b.reason)));
  }
}

}  // namespace
}  // namespace hookline
