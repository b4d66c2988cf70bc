// SPDX-License-Identifier: Apache-2.0
//
// What is allocated while a guest stands still: nothing for each section of its device's state.
#include <hookline/device_state.hpp>
#include <hookline/plugin.hpp>

#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "fake_plugin.hpp"

namespace {

size_t allocations = 0;

void* counted(size_t size) {
  ++allocations;
  if (void* at = std::malloc(size)) return at;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t size) {
  return counted(size);
}
void* operator new[](size_t size) {
  return counted(size);
}
void operator delete(void* at) noexcept {
  std::free(at);
}
void operator delete[](void* at) noexcept {
  std::free(at);
}
void operator delete(void* at, size_t) noexcept {
  std::free(at);
}
void operator delete[](void* at, size_t) noexcept {
  std::free(at);
}

namespace hookline {
namespace {

constexpr int kSections = 20;
constexpr size_t kSection = 900000;

class Large final : public MigrationOwner {
 public:
  explicit Large(Device&) {}
  void save(SectionWriter& out) override {
    out.bytes("memory", memory_);
    if (++saved_ < kSections) out.more();
  }
  void load(SectionReader& in) override { in.bytes("memory", memory_); }
  void apply() override {}

 private:
  std::vector<std::byte> memory_ = std::vector<std::byte>(kSection);
  int saved_ = 0;
};

constexpr PluginInfo kInfo = {.name = "large",
                              .version = "1",
                              .model = "com.example/large",
                              .migration_version = "1",
                              .max_state = kSections * (kSection + 100)};
const hookline_plugin kPlugin = detail::describe<Large>(kInfo);

TEST(StreamAllocations, MP3_AStoppedDeviceIsSavedWithoutAny) {
  test::Journal journal;
  test::FakeAccess access{journal};
  const Chain chain = *build_chain({*make_link(kPlugin)});
  const auto device = *OpenDevice::open(chain, access, {});
  auto saver = DeviceStateSaver::begin(*device);
  ASSERT_TRUE(saver) << saver.error().text;
  std::vector<std::byte> slice(1 << 20);
  ASSERT_TRUE(saver->fill(slice, SavePhase::pre_copy));

  const size_t before = allocations;
  size_t bytes = 0;
  bool good = true;
  while (good && !saver->done()) {
    const Result<size_t> filled = saver->fill(slice, SavePhase::stop_copy);
    good = filled.has_value();
    bytes += filled.value_or(0);
  }
  EXPECT_EQ(allocations - before, 0U);
  EXPECT_TRUE(good);
  EXPECT_GT(bytes, kSections * kSection);
}

}  // namespace
}  // namespace hookline
