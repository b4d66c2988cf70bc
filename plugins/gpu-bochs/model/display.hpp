// SPDX-License-Identifier: Apache-2.0
//
// The bochs display function (1234:1111): video memory and mode registers, and, as its VGA variant has them, palette,
// attribute, sequencer, graphics and CRT controller registers behind the same BAR.
//
// Modelled on what QEMU's bochs-display and secondary-vga were seen to do. Not modelled: EDID, the legacy window at 0xa0000
// (neither has one), what a screen shows in text and planar modes, cursor and retrace timing.
//
// Thread rule: one thread. Errors: none, as in hardware; what is not there reads as all ones and swallows writes.
//
//     Display display(Kind::bochs, 16 << 20);
//     display.write(2, 0x500 + 2 * kXres, 2, 640);
//     display.picture();   // what a screen shows
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace gpu_bochs {

enum class Kind { bochs, vga };

// Mode registers, 16 bits each, from 0x500 of BAR 2.
enum : uint32_t { kId, kXres, kYres, kBpp, kEnable, kBank, kVirtWidth, kVirtHeight, kXOffset, kYOffset, kMemory };
constexpr uint16_t kEnabled = 1, kGetCaps = 2, kWideDac = 0x20, kNoClear = 0x80;

struct Picture {
  uint32_t width = 0, height = 0;
  std::vector<uint32_t> pixels{};  ///< 0x00rrggbb
  bool operator==(const Picture&) const = default;
};

class Display {
 public:
  Display(Kind kind, size_t vram_bytes);

  uint64_t read(uint32_t bar, uint64_t offset, uint32_t width);
  void write(uint32_t bar, uint64_t offset, uint32_t width, uint64_t value);

  std::span<std::byte> vram() { return vram_; }
  /// What a screen shows; no pixels: no (valid) mode, or blank.
  Picture picture() const;

 private:
  uint64_t read_register(uint32_t offset, uint32_t width);
  void write_register(uint32_t offset, uint32_t width, uint32_t value);
  uint16_t read_mode(uint32_t index) const;
  void write_mode(uint32_t index, uint16_t value);
  void settle_mode();
  uint8_t read_port(uint32_t port);
  void write_port(uint32_t port, uint8_t value);
  bool hidden(uint32_t port) const;
  uint32_t color(uint32_t index) const;

  Kind kind_;
  std::vector<std::byte> vram_;
  std::array<uint16_t, 10> mode_ = {};
  bool big_endian_ = false;

  // VGA
  std::array<uint8_t, 8> sequencer_ = {};
  std::array<uint8_t, 16> graphics_ = {};
  std::array<uint8_t, 256> crt_ = {};
  std::array<uint8_t, 21> attribute_ = {};
  std::array<uint8_t, 768> palette_ = {};
  std::array<uint8_t, 3> color_ = {};
  uint8_t misc_ = 0, sequencer_at_ = 0, graphics_at_ = 0, crt_at_ = 0, attribute_at_ = 0;
  uint8_t palette_reads_ = 0, palette_writes_ = 0, component_ = 0, palette_state_ = 0;
  bool attribute_data_ = false;
};

}  // namespace gpu_bochs
