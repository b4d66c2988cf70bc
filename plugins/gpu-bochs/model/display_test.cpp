// SPDX-License-Identifier: Apache-2.0
//
// The traps of the device, each as it was seen, so that a model that forgives what the device does not is noticed.
#include "display.hpp"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpu_bochs {
namespace {

using ::testing::IsEmpty;

constexpr uint32_t kVramBytes = 1 << 20;

class DisplayModel : public ::testing::Test {
 protected:
  static void mode(Display& d, uint32_t index, uint16_t value) { d.write(2, 0x500 + 2 * index, 2, value); }
  static uint32_t mode(Display& d, uint32_t index) { return static_cast<uint32_t>(d.read(2, 0x500 + 2 * index, 2)); }
  static void port(Display& d, uint32_t at, uint8_t value) { d.write(2, 0x400 + at - 0x3c0, 1, value); }
  static uint32_t port(Display& d, uint32_t at) { return static_cast<uint32_t>(d.read(2, 0x400 + at - 0x3c0, 1)); }

  static void set_mode(Display& d, uint16_t width, uint16_t height, uint16_t bpp, uint16_t enable = kEnabled) {
    mode(d, kEnable, 0);
    mode(d, kBpp, bpp), mode(d, kXres, width), mode(d, kYres, height);
    mode(d, kEnable, enable);
  }
  /// As the VGA variant's driver ends the blanking.
  static void unblank(Display& d) {
    port(d, 0x3c2, 1);
    port(d, 0x3da);
    port(d, 0x3c0, 0x20);
  }

  static bool all(std::span<const std::byte> bytes, uint8_t value) {
    return std::ranges::all_of(bytes, [value](std::byte b) { return b == std::byte{value}; });
  }

  Display bochs_{Kind::bochs, kVramBytes}, vga_{Kind::vga, kVramBytes};
};

TEST_F(DisplayModel, SaysWhatItIs) {
  for (Display* d : {&bochs_, &vga_}) {
    EXPECT_EQ(mode(*d, kId), 0xb0c5u);
    EXPECT_EQ(mode(*d, kMemory), kVramBytes / 65536);
    EXPECT_EQ(d->read(2, 0x600, 4), 8u);
    EXPECT_EQ(d->read(2, 0x604, 4), 0x1e1e1e1eu);
    EXPECT_EQ(d->read(2, 0x800, 4), 0xffffffffu);
  }
  EXPECT_EQ(bochs_.read(2, 0x404, 1), 0xffu);  // no VGA ports
  EXPECT_LT(vga_.read(2, 0x404, 1), 8u);
}

TEST_F(DisplayModel, BochsTakesAnyValueAndShowsOnlyValidModes) {
  mode(bochs_, kVirtHeight, 0x1234);
  mode(bochs_, kXOffset, 0xffff);
  EXPECT_EQ(mode(bochs_, kVirtHeight), 0x1234u);
  EXPECT_EQ(mode(bochs_, kXOffset), 0xffffu);
  mode(bochs_, kXOffset, 0);
  set_mode(bochs_, 100, 80, 32);
  EXPECT_EQ(bochs_.picture().pixels.size(), 8000u);
  for (const auto& [index, value] : {std::pair<uint32_t, uint16_t>{kBpp, 24}, {kXres, 63}, {kYres, 8000}}) {
    set_mode(bochs_, 100, 80, 32);
    mode(bochs_, index, value);
    EXPECT_THAT(bochs_.picture().pixels, IsEmpty()) << index;
  }
}

TEST_F(DisplayModel, ByteOrderTurnsPixelsRound) {
  set_mode(bochs_, 64, 64, 32);
  bochs_.write(0, 0, 4, 0x00112233);
  EXPECT_EQ(bochs_.picture().pixels[0], 0x112233u);
  bochs_.write(2, 0x604, 4, 0xbebebebe);
  EXPECT_EQ(bochs_.read(2, 0x604, 4), 0xbebebebeu);
  EXPECT_EQ(bochs_.picture().pixels[0], 0x221100u);
  bochs_.write(2, 0x604, 4, 17);
  EXPECT_EQ(bochs_.read(2, 0x604, 4), 0xbebebebeu);
}

TEST_F(DisplayModel, VgaClearsTheScreenWhenAModeIsEnabled) {
  std::ranges::fill(vga_.vram(), std::byte{7});
  set_mode(vga_, 128, 64, 32, kEnabled | kNoClear);
  EXPECT_TRUE(all(vga_.vram(), 7));
  EXPECT_EQ(mode(vga_, kEnable), uint32_t{kEnabled | kNoClear});  // and says so ever after
  mode(vga_, kEnable, kEnabled);                                  // enabled as it is, nothing is cleared
  EXPECT_EQ(mode(vga_, kEnable), uint32_t{kEnabled});
  EXPECT_TRUE(all(vga_.vram(), 7));
  set_mode(vga_, 128, 64, 32);
  EXPECT_TRUE(all(vga_.vram().first(128 * 64 * 4), 0));
  EXPECT_TRUE(all(vga_.vram().subspan(128 * 64 * 4), 7));
}

TEST_F(DisplayModel, VgaForgetsWhatWasSetBeforeItWasEnabledAndCorrectsWhatCannotBe) {
  mode(vga_, kVirtWidth, 512), mode(vga_, kXOffset, 8), mode(vga_, kYOffset, 9);
  set_mode(vga_, 130, 64, 32);
  EXPECT_EQ(mode(vga_, kXres), 128u);
  EXPECT_EQ(mode(vga_, kVirtWidth), 128u);
  EXPECT_EQ(mode(vga_, kXOffset), 0u);
  EXPECT_EQ(mode(vga_, kYOffset), 0u);
  EXPECT_EQ(mode(vga_, kVirtHeight), kVramBytes / 512);
  mode(vga_, kVirtHeight, 3);
  EXPECT_EQ(mode(vga_, kVirtHeight), kVramBytes / 512);
  mode(vga_, kYOffset, 3000);
  EXPECT_EQ(mode(vga_, kYOffset), 0u);
  mode(vga_, kBpp, 31);
  EXPECT_EQ(mode(vga_, kBpp), 8u);
}

TEST_F(DisplayModel, VgaSaysItsLimitsWhereAsked) {
  set_mode(vga_, 128, 64, 32, kEnabled | kGetCaps);
  EXPECT_EQ(mode(vga_, kXres), 16000u);
  EXPECT_EQ(mode(vga_, kYres), 12000u);
  mode(vga_, kEnable, kEnabled);
  EXPECT_EQ(mode(vga_, kXres), 128u);
}

TEST_F(DisplayModel, VgaIsBlankUntilItsAttributeIndexSaysOtherwise) {
  set_mode(vga_, 128, 64, 32);
  EXPECT_THAT(vga_.picture().pixels, IsEmpty());
  unblank(vga_);
  EXPECT_EQ(vga_.picture().pixels.size(), 128u * 64);
}

TEST_F(DisplayModel, AttributePortTakesIndexAndValueInTurn) {
  unblank(vga_);
  EXPECT_EQ(port(vga_, 0x3c0), 0u);  // a value is awaited
  port(vga_, 0x3da);
  EXPECT_EQ(port(vga_, 0x3c0), 0x20u);
  port(vga_, 0x3c0, 0x11), port(vga_, 0x3c0, 0x5a);
  EXPECT_EQ(port(vga_, 0x3c1), 0x5au);
}

TEST_F(DisplayModel, MonochromeHidesTheCrtController) {
  port(vga_, 0x3c2, 1);
  port(vga_, 0x3d4, 0x12), port(vga_, 0x3d5, 0x34);
  EXPECT_EQ(port(vga_, 0x3d5), 0x34u);
  port(vga_, 0x3c2, 0);
  EXPECT_EQ(port(vga_, 0x3d5), 0xffu);
  port(vga_, 0x3d5, 0x56);
  port(vga_, 0x3c2, 1);
  EXPECT_EQ(port(vga_, 0x3d5), 0x34u);
}

TEST_F(DisplayModel, CrtLockProtectsItsFirstRegisters) {
  port(vga_, 0x3c2, 1);
  port(vga_, 0x3d4, 0x11), port(vga_, 0x3d5, 0x80);
  vga_.write(2, 0x414, 2, 0x5500);  // index and value at once
  EXPECT_EQ(port(vga_, 0x3d5), 0u);
  port(vga_, 0x3d4, 0x07), port(vga_, 0x3d5, 0xff);
  EXPECT_EQ(port(vga_, 0x3d5), 0x10u);
}

TEST_F(DisplayModel, PaletteColoursEightBitModes) {
  unblank(vga_);
  set_mode(vga_, 128, 64, 8);
  port(vga_, 0x3c8, 5);
  for (uint8_t c : {63, 32, 1}) port(vga_, 0x3c9, c);
  vga_.write(0, 0, 1, 5);
  EXPECT_EQ(vga_.picture().pixels[0], 0xff8204u);
  mode(vga_, kEnable, kEnabled | kWideDac);
  EXPECT_EQ(vga_.picture().pixels[0], 0x3f2001u);
  port(vga_, 0x3c7, 5);
  EXPECT_EQ(port(vga_, 0x3c9), 63u);
  EXPECT_EQ(port(vga_, 0x3c9), 32u);
}

}  // namespace
}  // namespace gpu_bochs
