// SPDX-License-Identifier: Apache-2.0
//
// The plugin on models of the display: what a screen shows, and every register and byte of memory behind it, moves with its
// function. The destination has shown something else before, so that whatever is not restored shows.
#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/fields.hpp>
#include <hookline/software_device.hpp>

#include "model/display.hpp"

namespace hookline {
namespace {

using namespace gpu_bochs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using enum MigrationState;
using Bytes = std::vector<std::byte>;

constexpr size_t kPage = 4096, kVram = 1 << 20, kPages = kVram / kPage;

Display* displays[2];  // of the running test: functions 0 and 1

template <Kind kind, size_t vram>
hookline_model observed() {
  hookline_model model = hookline_model_v1;
  model.bar_size[0] = vram;
  model.create = [](const hookline_model_host*, uint32_t index) -> void* { return displays[index] = new Display(kind, vram); };
  return model;
}
const hookline_model kBochs = observed<Kind::bochs, kVram>(), kVga = observed<Kind::vga, kVram>();
const hookline_model kSmaller = observed<Kind::bochs, kVram / 2>();

class GpuBochsTest : public ::testing::Test {
 protected:
  static std::unique_ptr<SoftwareDevice> make(uint32_t index, const hookline_model& model = kBochs) {
    auto link = make_link(hookline_plugin_v1);
    if (!link) throw std::runtime_error(link.error().text);
    std::vector<Link> links;
    links.push_back(std::move(*link));
    auto chain = build_chain(std::move(links));
    if (!chain) throw std::runtime_error(chain.error().text);
    SoftwareDevice::Options options;
    options.index = index;
    auto device = SoftwareDevice::create(model, std::move(*chain), std::move(options));
    if (!device) throw std::runtime_error(device.error().text);
    decode(**device, true);
    return std::move(*device);
  }

  static void decode(SoftwareDevice& device, bool on) {
    const uint16_t command = on ? 2 : 0;
    ASSERT_TRUE(device.write(HOOKLINE_REGION_CONFIG, 4, std::as_bytes(std::span(&command, 1))));
  }
  static bool decodes(SoftwareDevice& device) { return device.read32(HOOKLINE_REGION_CONFIG, 4).value() & 2; }

  // As a guest reaches the function.
  static void mode(SoftwareDevice& device, uint32_t index, uint16_t value) {
    ASSERT_TRUE(device.write(2, 0x500 + 2 * index, std::as_bytes(std::span(&value, 1))));
  }
  static uint16_t mode(SoftwareDevice& device, uint32_t index) {
    uint16_t value = 0;
    EXPECT_TRUE(device.read(2, 0x500 + 2 * index, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  static void port(SoftwareDevice& device, uint32_t at, uint8_t value) {
    ASSERT_TRUE(device.write(2, 0x400 + at - 0x3c0, std::as_bytes(std::span(&value, 1))));
  }
  static uint8_t port(SoftwareDevice& device, uint32_t at) {
    uint8_t value = 0;
    EXPECT_TRUE(device.read(2, 0x400 + at - 0x3c0, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  static void set_mode(SoftwareDevice& device, uint16_t width, uint16_t height, uint16_t bpp) {
    mode(device, kEnable, 0);
    mode(device, kBpp, bpp), mode(device, kXres, width), mode(device, kYres, height);
    mode(device, kEnable, kEnabled);
    if (!is_vga(device)) return;
    port(device, 0x3c2, 1);
    port(device, 0x3da);
    port(device, 0x3c0, 0x20);
  }
  static bool is_vga(SoftwareDevice& device) { return port(device, 0x3c4) < 8; }

  Bytes noise(size_t length) {
    Bytes bytes(length);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    return bytes;
  }
  void draw(SoftwareDevice& device, uint64_t at, size_t length) { ASSERT_TRUE(device.write(0, at, noise(length))); }

  /// Another guest's picture, mode and colours.
  void poison(SoftwareDevice& device) {
    draw(device, 0, displays[1]->vram().size());
    set_mode(device, 72, 64, 16);
    for (const uint32_t i : {kBank, kVirtWidth, kXOffset, kYOffset, kVirtHeight}) mode(device, i, 8);
    ASSERT_TRUE(device.write32(2, 0x604, 0xbebebebe));
    if (!is_vga(device)) return;
    for (uint8_t i = 0; i < 25; ++i) port(device, 0x3d4, i), port(device, 0x3d5, static_cast<uint8_t>(0x5a + i));
    for (uint8_t i = 0; i < 9; ++i) port(device, 0x3ce, i), port(device, 0x3cf, 1);
    for (uint8_t i = 0; i < 5; ++i) port(device, 0x3c4, i), port(device, 0x3c5, 1);
    port(device, 0x3c8, 0);
    for (int i = 0; i < 768; ++i) port(device, 0x3c9, 7);
    port(device, 0x3da);
    for (uint8_t i = 0; i < 21; ++i) port(device, 0x3c0, i), port(device, 0x3c0, 2);
    port(device, 0x3d4, 0x11), port(device, 0x3d5, 0x80);  // locked
  }

  static Result<Bytes> stop_and_save(SoftwareDevice& from, size_t cut = 65536) {
    if (const Result<void> ok = from.set_state(stop_copy); !ok) return fail(ok.error());
    return from.save_all(cut);
  }
  static Result<void> load(SoftwareDevice& to, std::span<const std::byte> stream, size_t cut = 65536) {
    if (const Result<void> ok = to.set_state(resuming); !ok) return ok;
    for (size_t at = 0; at < stream.size(); at += cut)
      if (const Result<void> ok = to.write_state(stream.subspan(at, std::min(cut, stream.size() - at))); !ok) return ok;
    return to.set_state(running);
  }
  static void move(SoftwareDevice& from, SoftwareDevice& to, size_t cut = 65536) {
    const Result<Bytes> stream = stop_and_save(from, cut);
    ASSERT_TRUE(stream) << stream.error().text;
    const Result<void> ok = load(to, *stream, cut);
    ASSERT_TRUE(ok) << ok.error().text;
  }
  /// A round of PRE_COPY.
  static Bytes round(SoftwareDevice& from) {
    const Result<Bytes> bytes = from.save_all();
    EXPECT_TRUE(bytes) << bytes.error().text;
    return bytes.value_or(Bytes{});
  }

  /// Function 1 is what function 0 was.
  static void expect_same() {
    EXPECT_EQ(displays[0]->picture(), displays[1]->picture());
    EXPECT_TRUE(std::ranges::equal(displays[0]->vram(), displays[1]->vram()));
    EXPECT_EQ(registers(*displays[0]), registers(*displays[1]));
  }
  /// Leaves them as they are: the attribute controller's turn is looked at last.
  static std::vector<uint32_t> registers(Display display) {
    std::vector<uint32_t> all;
    const bool off_vga = display.read(2, 0x404, 1) < 8 && !(display.read(2, 0x500 + 2 * kEnable, 2) & kEnabled);
    for (uint32_t i = 0; i < 10; ++i)
      if (i != kVirtHeight || !off_vga)  // of an earlier mode, and read-only there
        all.push_back(static_cast<uint32_t>(display.read(2, 0x500 + 2 * i, 2)));
    all.push_back(static_cast<uint32_t>(display.read(2, 0x604, 4)));
    auto in = [&](uint32_t at) { return static_cast<uint32_t>(display.read(2, 0x400 + at - 0x3c0, 1)); };
    auto out = [&](uint32_t at, uint32_t value) { display.write(2, 0x400 + at - 0x3c0, 1, value); };
    for (const uint32_t at : {0x3c0, 0x3c4, 0x3c8, 0x3cc, 0x3ce}) all.push_back(in(at));
    out(0x3c2, in(0x3cc) | 1);
    all.push_back(in(0x3d4));
    for (uint32_t i = 0; i < 8; ++i) out(0x3c4, i), all.push_back(in(0x3c5));
    for (uint32_t i = 0; i < 9; ++i) out(0x3ce, i), all.push_back(in(0x3cf));
    for (uint32_t i = 0; i < 25; ++i) out(0x3d4, i), all.push_back(in(0x3d5));
    for (uint32_t i = 0; i < 21; ++i) in(0x3da), out(0x3c0, i), all.push_back(in(0x3c1));
    out(0x3c7, 0);
    for (int i = 0; i < 768; ++i) all.push_back(in(0x3c9));
    return all;
  }

  std::mt19937 random_{42};
};

// ---- a picture moves

struct Screen {
  const char* name;
  const hookline_model& model;
  uint16_t width, height, bpp;
};
void PrintTo(const Screen& s, std::ostream* os) {
  *os << s.name;
}
class Screens : public GpuBochsTest, public ::testing::WithParamInterface<Screen> {};

TEST_P(Screens, RandomDrawingsArrivePixelByPixel) {
  const Screen& s = GetParam();
  auto source = make(0, s.model), target = make(1, s.model);
  for (int i = 0; i < 5; ++i) {
    poison(*target);
    set_mode(*source, s.width, s.height, s.bpp);
    if (is_vga(*source)) {
      port(*source, 0x3c8, 0);
      for (int c = 0; c < 768; ++c) port(*source, 0x3c9, static_cast<uint8_t>(random_() & 63));
    }
    for (int r = 0; r < 20; ++r) draw(*source, random_() % (kVram - 5000), random_() % 5000);
    mode(*source, kYOffset, static_cast<uint16_t>(random_() % 20));
    ASSERT_THAT(displays[0]->picture().pixels, SizeIs(size_t{s.width} * s.height));
    move(*source, *target);
    expect_same();
    ASSERT_TRUE(source->set_state(running));
  }
}
INSTANTIATE_TEST_SUITE_P(GpuBochs, Screens,
                         ::testing::Values(Screen{"Bochs32", kBochs, 320, 200, 32}, Screen{"Bochs16", kBochs, 333, 200, 16},
                                           Screen{"Vga32", kVga, 320, 200, 32}, Screen{"Vga16", kVga, 320, 200, 16},
                                           Screen{"Vga8", kVga, 320, 200, 8}),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_F(GpuBochsTest, EveryRegisterArrives) {
  for (const hookline_model* model : {&kBochs, &kVga}) {
    auto source = make(0, *model), target = make(1, *model);
    for (int i = 0; i < 6; ++i) {
      for (uint32_t at = 0; at < 10; ++at) mode(*source, at, static_cast<uint16_t>(random_() & (i % 2 ? 0xffff : 0x2ff)));
      ASSERT_TRUE(source->write32(2, 0x604, i % 3 ? 0x1e1e1e1e : 0xbebebebe));
      for (uint32_t at = 0x3c0; at < 0x3e0; ++at) port(*source, at, static_cast<uint8_t>(random_()));
      for (int n = 0; n < 40; ++n)
        for (const uint32_t at : {0x3c4, 0x3ce, 0x3d4}) port(*source, at, static_cast<uint8_t>(random_() & 31)), port(*source, at + 1, static_cast<uint8_t>(random_()));
      poison(*target);
      move(*source, *target);
      expect_same();
      ASSERT_TRUE(source->set_state(running));
    }
  }
}

// A driver's own tables, which it wrote after setting the mode.
TEST_F(GpuBochsTest, VgaThatIsInTheMiddleOfAnAttributeGoesOn) {
  auto source = make(0, kVga), target = make(1, kVga);
  set_mode(*source, 320, 200, 32);
  port(*source, 0x3da);
  port(*source, 0x3c0, 0x20 | 0x11);  // the value is still to come
  poison(*target);
  move(*source, *target);
  port(*target, 0x3c0, 0x3c);
  EXPECT_EQ(port(*target, 0x3c1), 0x3c);
}

TEST_F(GpuBochsTest, SavingLeavesTheSourceAsItWas) {
  auto source = make(0, kVga);
  set_mode(*source, 320, 200, 8);
  mode(*source, kEnable, kEnabled | kGetCaps);
  port(*source, 0x3c4, 3), port(*source, 0x3ce, 4), port(*source, 0x3d4, 5), port(*source, 0x3c8, 6), port(*source, 0x3c2, 0);
  draw(*source, 0, kVram);
  const auto before = registers(*displays[0]);
  const Picture picture = displays[0]->picture();
  ASSERT_TRUE(stop_and_save(*source));
  ASSERT_TRUE(source->set_state(running));
  EXPECT_EQ(registers(*displays[0]), before);
  EXPECT_EQ(displays[0]->picture(), picture);
}

class Cuts : public GpuBochsTest, public ::testing::WithParamInterface<size_t> {};
TEST_P(Cuts, MoveThePicture) {
  auto source = make(0, kVga), target = make(1, kVga);
  set_mode(*source, 320, 200, 32);
  draw(*source, 1234, 40000);
  poison(*target);
  move(*source, *target, GetParam());
  expect_same();
}
INSTANTIATE_TEST_SUITE_P(GpuBochs, Cuts, ::testing::Values(1, 7, 509, 4096, 1 << 20));

TEST_F(GpuBochsTest, MovesThereAndBackAndOn) {
  std::unique_ptr<SoftwareDevice> devices[2] = {make(0), make(1)};
  set_mode(*devices[0], 320, 200, 32);
  for (int i = 0; i < 20; ++i) {
    draw(*devices[i % 2], random_() % (kVram - 5000), 5000);
    move(*devices[i % 2], *devices[1 - i % 2]);
    expect_same();
    ASSERT_TRUE(devices[i % 2]->set_state(running));
  }
}

// ---- rounds

TEST_F(GpuBochsTest, RoundsCarryWhatChangedAndTheStopTheRest) {
  auto source = make(0), target = make(1);
  set_mode(*source, 320, 200, 32);
  draw(*source, 0, kVram);
  poison(*target);
  ASSERT_TRUE(source->set_state(pre_copy));
  Bytes stream = round(*source);
  EXPECT_GT(stream.size(), kVram);
  for (int i = 1; i <= 4; ++i) {
    draw(*source, i * 10 * kPage, 3 * kPage);
    const Bytes more = round(*source);
    EXPECT_GT(more.size(), 3 * kPage);
    EXPECT_LT(more.size(), 4 * kPage);
    stream.insert(stream.end(), more.begin(), more.end());
  }
  EXPECT_THAT(round(*source), IsEmpty());
  draw(*source, 7 * kPage + 8, 8);
  const Result<Bytes> last = stop_and_save(*source);
  ASSERT_TRUE(last) << last.error().text;
  EXPECT_LT(last->size(), 2 * kPage);
  stream.insert(stream.end(), last->begin(), last->end());
  const Result<void> loaded = load(*target, stream);
  ASSERT_TRUE(loaded) << loaded.error().text;
  expect_same();
}

TEST_F(GpuBochsTest, RandomRoundsLoseNoPage) {
  for (int run = 0; run < 3; ++run) {
    auto source = make(0), target = make(1);
    draw(*source, 0, kVram / 2);
    poison(*target);
    ASSERT_TRUE(source->set_state(pre_copy));
    Bytes stream, piece(9973);
    for (int i = 0; i < 300; ++i) {
      // Between any two reads, also in the middle of a section, somebody draws, or draws nothing, or undoes it.
      if (random_() % 3 == 0) draw(*source, random_() % (kVram - 9000), 1 + random_() % 9000);
      if (random_() % 5 == 0) {
        ASSERT_TRUE(source->write(0, random_() % kPages * kPage, Bytes(kPage)));
      }
      const Result<size_t> got = source->read_state(piece);
      if (!got) {
        ASSERT_EQ(got.error().code, ENOMSG) << got.error().text;
        continue;
      }
      stream.insert(stream.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*got));
    }
    const Result<Bytes> last = stop_and_save(*source);
    ASSERT_TRUE(last) << last.error().text;
    stream.insert(stream.end(), last->begin(), last->end());
    const Result<void> loaded = load(*target, stream, 5000);
    ASSERT_TRUE(loaded) << loaded.error().text;
    expect_same();
  }
}

TEST_F(GpuBochsTest, WhatWasTouchedAndIsTheSameIsNotSentAgain) {
  auto source = make(0);
  draw(*source, 0, kVram);
  ASSERT_TRUE(source->set_state(pre_copy));
  round(*source);
  Bytes same(kVram);
  ASSERT_TRUE(source->read(0, 0, same));
  ASSERT_TRUE(source->write(0, 0, same));
  EXPECT_THAT(round(*source), IsEmpty());
}

TEST_F(GpuBochsTest, ABlackScreenCostsNextToNothing) {
  auto source = make(0), target = make(1);
  set_mode(*source, 320, 200, 32);
  poison(*target);
  const Result<Bytes> stream = stop_and_save(*source);
  ASSERT_TRUE(stream) << stream.error().text;
  EXPECT_LT(stream->size(), kPage);
  ASSERT_TRUE(load(*target, *stream));
  expect_same();
}

// By writing a register, not memory: nobody touched a page.
TEST_F(GpuBochsTest, MemoryThatTheDeviceClearsItselfIsNoticed) {
  auto source = make(0, kVga), target = make(1, kVga);
  set_mode(*source, 320, 200, 32);
  draw(*source, 0, kVram);
  poison(*target);
  ASSERT_TRUE(source->set_state(pre_copy));
  Bytes stream = round(*source);
  set_mode(*source, 320, 200, 32);
  const Result<Bytes> last = stop_and_save(*source);
  ASSERT_TRUE(last) << last.error().text;
  stream.insert(stream.end(), last->begin(), last->end());
  ASSERT_TRUE(load(*target, stream));
  expect_same();
  EXPECT_EQ(displays[1]->picture().pixels[0], 0u);
}

TEST_F(GpuBochsTest, SizesAreTrue) {
  auto source = make(0);
  draw(*source, 0, kVram);
  ASSERT_TRUE(source->set_state(pre_copy));
  Bytes piece(300 * kPage / 2);
  ASSERT_TRUE(source->read_state(piece));
  uint64_t before = source->precopy_info().value().initial, carried = 0;
  EXPECT_GT(before, 0u);
  EXPECT_LE(before, kVram);
  for (;;) {
    const Result<size_t> got = source->read_state(piece);
    if (!got) break;
    const uint64_t initial = source->precopy_info().value().initial;
    EXPECT_LE(initial, before);
    before = initial;
    carried += *got;
  }
  EXPECT_EQ(before, 0u);
  EXPECT_GT(carried, kVram / 4);
  EXPECT_EQ(source->precopy_info().value().dirty, 0u);

  draw(*source, 10 * kPage, 5 * kPage);
  EXPECT_EQ(source->precopy_info().value().dirty, 5 * kPage);
  const uint64_t bound = source->stop_copy_bytes();
  EXPECT_LT(bound, kVram / 4);
  const Result<Bytes> last = stop_and_save(*source);
  ASSERT_TRUE(last) << last.error().text;
  EXPECT_GT(last->size(), 5 * kPage);
  EXPECT_LE(last->size(), bound);
}

// A VMM has it off until it has loaded config space; a guest may have switched its display off.
TEST_F(GpuBochsTest, MemoryDecodingIsLeftAsItWas) {
  auto source = make(0), target = make(1);
  set_mode(*source, 320, 200, 32);
  draw(*source, 0, kVram);
  poison(*target);
  decode(*source, false), decode(*target, false);
  ASSERT_TRUE(source->set_state(pre_copy));
  EXPECT_LT(round(*source).size(), kPage);  // what is off is left for the stop
  EXPECT_FALSE(decodes(*source));
  ASSERT_TRUE(source->set_state(running));
  move(*source, *target);
  EXPECT_FALSE(decodes(*source));
  EXPECT_FALSE(decodes(*target));
  expect_same();
}

// ---- giving up and beginning again

TEST_F(GpuBochsTest, CancelledAtEveryPointAndAgain) {
  auto source = make(0, kVga), target = make(1, kVga);
  set_mode(*source, 320, 200, 32);
  draw(*source, 0, kVram);
  constexpr size_t kPiece = 100000;
  Bytes piece(kPiece);
  for (const MigrationState from : {pre_copy, stop_copy}) {
    bool over = false;
    for (int reads = 0; !over; ++reads) {
      ASSERT_TRUE(source->set_state(from));
      for (int i = 0; i < reads && !over; ++i) {
        const Result<size_t> got = source->read_state(piece);
        over = !got || *got == 0;
      }
      ASSERT_TRUE(source->set_state(running));
      draw(*source, random_() % (kVram - 5000), 5000);
    }
  }
  poison(*target);
  ASSERT_TRUE(source->set_state(pre_copy));
  Bytes stream = round(*source);
  const Result<Bytes> last = stop_and_save(*source);
  ASSERT_TRUE(last) << last.error().text;
  stream.insert(stream.end(), last->begin(), last->end());
  // The destination gives up in the middle, too, is reset, and takes it the next time.
  ASSERT_TRUE(target->set_state(resuming));
  ASSERT_TRUE(target->write_state(std::span(stream).first(stream.size() / 2)));
  target->reset();
  const Result<void> loaded = load(*target, stream);
  ASSERT_TRUE(loaded) << loaded.error().text;
  expect_same();
}

TEST_F(GpuBochsTest, AResetLeavesNothing) {
  for (const hookline_model* model : {&kBochs, &kVga}) {
    auto device = make(0, *model);
    set_mode(*device, 320, 200, 32);
    draw(*device, 0, kVram);
    device->reset();
    EXPECT_THAT(displays[0]->picture().pixels, IsEmpty());
    EXPECT_TRUE(std::ranges::all_of(displays[0]->vram(), [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_EQ(mode(*device, kXres), 0);
    EXPECT_EQ(mode(*device, kEnable), 0);
  }
}

TEST_F(GpuBochsTest, ARefusedStreamLeavesNothing) {
  auto source = make(0), target = make(1);
  draw(*source, 0, kVram);
  Result<Bytes> stream = stop_and_save(*source);
  ASSERT_TRUE(stream) << stream.error().text;
  stream->back() ^= std::byte{1};
  EXPECT_FALSE(load(*target, *stream));
  EXPECT_TRUE(std::ranges::all_of(displays[1]->vram(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(GpuBochsTest, OtherVariantsAndOtherMemoryAreRefusedWithTheReason) {
  const struct {
    const hookline_model &from, &to;
    const char* reason;
  } cases[] = {{kBochs, kVga, "this is the VGA variant"},
               {kVga, kBochs, "this is not the VGA variant"},
               {kSmaller, kBochs, "video memory has 256 pages here"},
               {kBochs, kSmaller, "not in video memory, which has 128 here"}};
  for (const auto& c : cases) {
    auto source = make(0, c.from), target = make(1, c.to);
    const Result<Bytes> stream = stop_and_save(*source);
    ASSERT_TRUE(stream) << stream.error().text;
    const Result<void> loaded = load(*target, *stream);
    ASSERT_FALSE(loaded) << c.reason;
    EXPECT_THAT(loaded.error().text, HasSubstr(c.reason));
  }
}

// Moved are all sizes that QEMU gives; what says something else is another device.
TEST_F(GpuBochsTest, MemoryThatNoDisplayHasIsRefused) {
  hookline_model model = kBochs;
  model.read = [](void* self, uint32_t bar, uint64_t offset, uint32_t width) -> uint64_t {
    const uint64_t value = hookline_model_v1.read(self, bar, offset, width);
    return bar == 2 && offset == 0x500 + 2 * kMemory ? 0x2010 : value;
  };
  const Result<Bytes> stream = stop_and_save(*make(0, model));
  ASSERT_FALSE(stream);
  EXPECT_THAT(stream.error().text, HasSubstr("has 513 MiB of video memory, up to 512 are known"));
}

// ---- hostile streams

struct Hostile {
  const char* name;
  const char* field;
  size_t at;
  uint32_t value;
  const char* reason;
};
void PrintTo(const Hostile& h, std::ostream* os) {
  *os << h.name;
}

/// The value of a field, in fields that are well-formed.
std::span<std::byte> value_of(Bytes& fields, std::string_view name) {
  for (size_t at = 0; at < fields.size();) {
    const size_t length = std::to_integer<size_t>(fields[at]) & 0x7f;
    const std::string_view here(reinterpret_cast<const char*>(&fields[at + 1]), length);
    uint32_t size;
    std::memcpy(&size, &fields[at + 1 + length], 4);
    at += 5 + length;
    if (here == name) return std::span(fields).subspan(at, size);
    at += size;
  }
  throw std::runtime_error("no such field");
}

class HostileGpuStream : public GpuBochsTest, public ::testing::WithParamInterface<Hostile> {
 protected:
  // Sections as a source makes them: one of bulk, with data and zero pages, and one of registers.
  void SetUp() override {
    source_ = make(0, kVga), target_ = make(1, kVga);
    draw(*source_, 3 * kPage, 2 * kPage);
    ASSERT_TRUE(source_->set_state(stop));
    Bytes buffer(1 << 20);
    FieldWriter bulk(buffer);
    source_->worker()->begin_save();
    const auto more = source_->worker()->save_bulk(bulk, HOOKLINE_BULK_BEGIN | HOOKLINE_BULK_STOPPED);
    ASSERT_TRUE(more) << more.error().text;
    ASSERT_FALSE(*more);
    bulk_.assign(bulk.bytes().begin(), bulk.bytes().end());
    FieldWriter state(buffer);
    ASSERT_TRUE(source_->worker()->save(0, state));
    state_.assign(state.bytes().begin(), state.bytes().end());
    ASSERT_TRUE(target_->worker()->begin_load("1", {}));
  }
  Result<void> load_bulk() {
    FieldReader in("gpu-bochs", bulk_, 1000);
    return target_->worker()->load_bulk(in, HOOKLINE_BULK_BEGIN);
  }
  Result<void> load_state() {
    FieldReader in("gpu-bochs", state_, 1000);
    return target_->worker()->load(0, in);
  }
  std::unique_ptr<SoftwareDevice> source_, target_;
  Bytes bulk_, state_;
};

TEST_P(HostileGpuStream, IsRefused) {
  const Result<void> bulk = load_bulk();
  ASSERT_TRUE(bulk) << bulk.error().text;
  const Result<void> state = load_state();
  ASSERT_TRUE(state) << state.error().text;

  const Hostile& h = GetParam();
  const bool in_bulk = std::string_view(h.field) == "runs";
  const auto value = value_of(in_bulk ? bulk_ : state_, h.field);
  ASSERT_LE(h.at + 4, value.size());
  std::memcpy(&value[h.at], &h.value, 4);
  Result<void> loaded = load_bulk();
  if (loaded) loaded = load_state();
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, EINVAL);
  EXPECT_THAT(loaded.error().text, AllOf(HasSubstr("section \"gpu-bochs\""), HasSubstr(h.reason)));
}

// Runs: 3 zero pages, 2 with data, 251 zero ones.
constexpr uint32_t kZero = 1u << 31;
INSTANTIATE_TEST_SUITE_P(
    GpuBochs, HostileGpuStream,
    ::testing::Values(Hostile{"RunBehindMemory", "runs", 0, 256, "not in video memory"},
                      Hostile{"RunBeginsFarOut", "runs", 0, 0xffffffff, "not in video memory"},
                      Hostile{"RunEndsBehindMemory", "runs", 20, kZero | 252, "not in video memory"},
                      Hostile{"RunOfNoPages", "runs", 4, kZero, "not in video memory"},
                      Hostile{"RunOfAllPages", "runs", 4, kZero | 0x7fffffff, "not in video memory"},
                      Hostile{"MorePagesThanData", "runs", 12, 3, "there are more pages than data"},
                      Hostile{"MorePagesThanASectionHas", "runs", 20, 251, "no section is made so"},
                      Hostile{"LessPagesThanData", "runs", 12, 1, "data"},
                      Hostile{"PagesThatNeverCame", "runs", 4, kZero | 2, "not all of them came"},
                      Hostile{"NoVariant", "vga", 0, 2, "expected 0 to 1"},
                      Hostile{"OtherVariant", "vga", 0, 0, "this is the VGA variant"},
                      Hostile{"OtherMemory", "pages", 0, 128, "video memory has 256 pages here"},
                      Hostile{"NoByteOrder", "byte_order", 0, 0x1e1e1e1f, "there is no such order"},
                      Hostile{"ByteOrderOutOfRange", "byte_order", 0, 0, "field \"byte_order\""},
                      Hostile{"Id", "id", 0, 0x10000, "outside 0xffff"}, Hostile{"Width", "xres", 0, 0x10000, "outside 0xffff"},
                      Hostile{"Height", "yres", 0, 0x10000, "outside 0xffff"}, Hostile{"Depth", "bpp", 0, 0x10000, "outside 0xffff"},
                      Hostile{"Enable", "enable", 0, 0x10000, "outside 0xffff"}, Hostile{"Bank", "bank", 0, 0x10000, "outside 0xffff"},
                      Hostile{"VirtualWidth", "virt_width", 0, 0x10000, "outside 0xffff"},
                      Hostile{"VirtualHeight", "virt_height", 0, 0x10000, "outside 0xffff"},
                      Hostile{"XOffset", "x_offset", 0, 0x10000, "outside 0xffff"},
                      Hostile{"YOffset", "y_offset", 0, 0x10000, "outside 0xffff"},
                      Hostile{"AttributeIndex", "ports", 2, 0x00400000, "no attribute controller"},
                      Hostile{"AttributeTurn", "ports", 2, 0x02000000, "no attribute controller"}),
    [](const auto& param) { return std::string(param.param.name); });

// Whatever a stream says: no crash, and the device can be used, reset and moved.
TEST_F(GpuBochsTest, RandomRegistersOfAStreamDoNoHarm) {
  auto source = make(0, kVga), target = make(1, kVga);
  for (int i = 0; i < 30; ++i) {
    for (uint32_t at = 0; at < 10; ++at) {
      const auto value = static_cast<uint16_t>(random_());
      displays[0]->write(2, 0x500 + 2 * at, 2, at == kEnable ? value & ~kEnabled : value);  // taken as they are while off
    }
    move(*source, *target);
    ASSERT_TRUE(source->set_state(running));
    mode(*target, kEnable, kEnabled);
    displays[1]->picture();
  }
}

}  // namespace
}  // namespace hookline
