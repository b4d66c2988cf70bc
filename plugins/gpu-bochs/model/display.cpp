// SPDX-License-Identifier: Apache-2.0
#include "display.hpp"

#include <algorithm>
#include <cstring>

namespace gpu_bochs {

namespace {

constexpr uint32_t kPorts = 0x400, kPortsEnd = 0x420, kModes = 0x500, kModesEnd = 0x516;
constexpr uint32_t kExtensionSize = 0x600, kByteOrder = 0x604, kLittle = 0x1e1e1e1e, kBig = 0xbebebebe;
constexpr uint16_t kIdFirst = 0xb0c0, kIdLast = 0xb0c5, kMaxWidth = 16000, kMaxHeight = 12000, kMaxBpp = 32;

// VGA ports, less 0x3c0.
enum : uint32_t { kAttribute = 0x0, kAttributeRead = 0x1, kMiscWrite = 0x2, kSequencer = 0x4, kPaletteRead = 0x7,
                  kPaletteWrite = 0x8, kPaletteData = 0x9, kMiscRead = 0xc, kGraphics = 0xe, kCrt = 0x14, kInputStatus = 0x1a };
constexpr uint8_t kColorPorts = 1, kScreenOn = 0x20, kCrtLock = 0x80, kVSyncEnd = 0x11, kOverflow = 0x07;
constexpr uint8_t kSequencerBits[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff};
constexpr uint8_t kGraphicsBits[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

constexpr uint8_t attribute_bits(uint32_t index) {
  constexpr uint8_t bits[] = {0xef, 0xff, 0x3f, 0x0f, 0x0f};  // from register 0x10
  return index < 16 ? 0x3f : bits[index - 16];
}

}  // namespace

Display::Display(Kind kind, size_t vram_bytes) : kind_(kind), vram_(vram_bytes) {
  if (kind == Kind::vga) mode_[kId] = kIdLast;
}

uint64_t Display::read(uint32_t bar, uint64_t offset, uint32_t width) {
  uint64_t value = ~uint64_t{0} >> (64 - 8 * width);
  if (bar == 0) {
    std::memcpy(&value, vram_.data() + offset, width);
  } else if (bar == 2 && width < 8) {
    value &= read_register(static_cast<uint32_t>(offset), width);
  }
  return value;
}

void Display::write(uint32_t bar, uint64_t offset, uint32_t width, uint64_t value) {
  if (bar == 0) {
    std::memcpy(vram_.data() + offset, &value, width);
  } else if (bar == 2 && width < 8) {
    write_register(static_cast<uint32_t>(offset), width, static_cast<uint32_t>(value));
  }
}

uint64_t Display::read_register(uint32_t offset, uint32_t width) {
  if (offset >= kModes && offset < kModesEnd) {
    const uint32_t index = (offset - kModes) / 2;
    const uint64_t low = read_mode(index);
    if (width == 1) return low >> 8 * (offset & 1);
    return width == 2 ? low : low | uint64_t{read_mode(index + 1)} << 16;
  }
  if (offset >= kPorts && offset < kPortsEnd && kind_ == Kind::vga) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < width; ++i) value |= uint64_t{read_port(offset - kPorts + i)} << 8 * i;
    return value;
  }
  if (width == 4 && offset == kExtensionSize) return 8;
  if (width == 4 && offset == kByteOrder) return big_endian_ ? kBig : kLittle;
  return ~uint64_t{0};
}

void Display::write_register(uint32_t offset, uint32_t width, uint32_t value) {
  if (offset >= kModes && offset < kModesEnd && width > 1) {
    write_mode((offset - kModes) / 2, static_cast<uint16_t>(value));
    if (width == 4) write_mode((offset - kModes) / 2 + 1, static_cast<uint16_t>(value >> 16));
  } else if (offset >= kPorts && offset < kPortsEnd && kind_ == Kind::vga) {
    // The lower byte first: an index and its value may be written at once.
    for (uint32_t i = 0; i < width; ++i) write_port(offset - kPorts + i, static_cast<uint8_t>(value >> 8 * i));
  } else if (width == 4 && offset == kByteOrder && (value == kLittle || value == kBig)) {
    big_endian_ = value == kBig;
  }
}

// ---- modes

uint16_t Display::read_mode(uint32_t index) const {
  if (index == kMemory) return static_cast<uint16_t>(vram_.size() >> 16);
  if (index > kMemory) return kind_ == Kind::vga ? 0 : 0xffff;
  if (kind_ == Kind::bochs) return index == kId ? kIdLast : mode_[index];
  if (mode_[kEnable] & kGetCaps) {
    if (index == kXres) return kMaxWidth;
    if (index == kYres) return kMaxHeight;
    if (index == kBpp) return kMaxBpp;
  }
  return mode_[index];
}

void Display::write_mode(uint32_t index, uint16_t value) {
  if (index >= mode_.size()) return;
  if (kind_ == Kind::bochs) {
    mode_[index] = value;
    return;
  }
  switch (index) {
    case kId:
      if (value >= kIdFirst && value <= kIdLast) mode_[kId] = value;
      break;
    case kVirtHeight:
      break;
    case kBank:
      mode_[kBank] = static_cast<uint16_t>(value & (vram_.size() / 65536 - 1));
      break;
    case kEnable:
      if ((value & kEnabled) && !(mode_[kEnable] & kEnabled)) {
        mode_[kVirtWidth] = mode_[kXOffset] = mode_[kYOffset] = 0;
        mode_[kEnable] |= kEnabled;
        settle_mode();
        const size_t line = size_t{mode_[kVirtWidth]} * mode_[kBpp] / 8;
        if (!(value & kNoClear)) std::fill_n(vram_.begin(), std::min(mode_[kYres] * line, vram_.size()), std::byte{0});
      }
      mode_[kEnable] = value;
      break;
    default:
      mode_[index] = value;
      settle_mode();
  }
}

/// The VGA variant puts what cannot be right to the next thing that can.
void Display::settle_mode() {
  if (!(mode_[kEnable] & kEnabled)) return;
  auto& m = mode_;
  const auto known = {4, 8, 15, 16, 24, 32};
  if (std::ranges::find(known, m[kBpp]) == known.end()) m[kBpp] = 8;
  m[kXres] = std::clamp<uint16_t>(m[kXres] & ~7, 8, kMaxWidth);
  m[kVirtWidth] = std::clamp<uint16_t>(m[kVirtWidth] & ~7, m[kXres], kMaxWidth);
  const uint32_t bits = m[kBpp] == 15 ? 16 : m[kBpp], line = m[kVirtWidth] * bits / 8;
  const auto lines = static_cast<uint16_t>(std::min<size_t>(vram_.size() / line, 0xffff));
  m[kYres] = std::min(std::clamp<uint16_t>(m[kYres], 1, kMaxHeight), lines);
  m[kXOffset] = std::min(m[kXOffset], kMaxWidth), m[kYOffset] = std::min(m[kYOffset], kMaxHeight);
  auto fits = [&] { return m[kXOffset] * bits / 8 + (size_t{m[kYOffset]} + m[kYres]) * line <= vram_.size(); };
  if (!fits()) m[kYOffset] = 0;
  if (!fits()) m[kXOffset] = 0;
  m[kVirtHeight] = lines;
}

// ---- VGA ports

/// In monochrome the CRT controller and the input status are at other ports, which are not behind this BAR.
bool Display::hidden(uint32_t port) const {
  return port >= 0x10 && !(misc_ & kColorPorts);
}

uint8_t Display::read_port(uint32_t port) {
  if (hidden(port)) return 0xff;
  switch (port) {
    case kAttribute: return attribute_data_ ? 0 : attribute_at_;
    case kAttributeRead: return (attribute_at_ & 0x1f) < attribute_.size() ? attribute_[attribute_at_ & 0x1f] : 0;
    case kSequencer: return sequencer_at_;
    case kSequencer + 1: return sequencer_[sequencer_at_];
    case kPaletteRead: return palette_state_;
    case kPaletteWrite: return palette_writes_;
    case kPaletteData: {
      const uint8_t value = palette_[palette_reads_ * 3 + component_];
      if (++component_ == 3) component_ = 0, ++palette_reads_;
      return value;
    }
    case kMiscRead: return misc_;
    case kGraphics: return graphics_at_;
    case kGraphics + 1: return graphics_[graphics_at_];
    case kCrt: return crt_at_;
    case kCrt + 1: return crt_[crt_at_];
    case kInputStatus: attribute_data_ = false; return 0;
    default: return 0;
  }
}

void Display::write_port(uint32_t port, uint8_t value) {
  if (hidden(port)) return;
  switch (port) {
    case kAttribute: {
      const uint32_t index = attribute_at_ & 0x1f;
      if (!attribute_data_) {
        attribute_at_ = value & 0x3f;
      } else if (index < attribute_.size()) {
        attribute_[index] = value & attribute_bits(index);
      }
      attribute_data_ = !attribute_data_;
      break;
    }
    case kMiscWrite: misc_ = value & ~0x10; break;
    case kSequencer: sequencer_at_ = value & 7; break;
    case kSequencer + 1: sequencer_[sequencer_at_] = value & kSequencerBits[sequencer_at_]; break;
    case kPaletteRead: palette_reads_ = value, component_ = 0, palette_state_ = 3; break;
    case kPaletteWrite: palette_writes_ = value, component_ = 0, palette_state_ = 0; break;
    case kPaletteData:
      color_[component_] = value;
      if (++component_ == 3) {
        std::ranges::copy(color_, palette_.begin() + palette_writes_ * 3);
        component_ = 0, ++palette_writes_;
      }
      break;
    case kGraphics: graphics_at_ = value & 15; break;
    case kGraphics + 1: graphics_[graphics_at_] = value & kGraphicsBits[graphics_at_]; break;
    case kCrt: crt_at_ = value; break;
    case kCrt + 1:
      if ((crt_[kVSyncEnd] & kCrtLock) && crt_at_ <= kOverflow) {
        if (crt_at_ == kOverflow) crt_[kOverflow] = static_cast<uint8_t>((crt_[kOverflow] & ~0x10) | (value & 0x10));
      } else {
        crt_[crt_at_] = value;
      }
      break;
    default: break;
  }
}

// ---- the screen

uint32_t Display::color(uint32_t index) const {
  auto eight = [&](uint32_t c) -> uint32_t {
    const uint32_t v = palette_[index * 3 + c];
    return mode_[kEnable] & kWideDac ? v : (v & 63) << 2 | (v & 63) >> 4;
  };
  return eight(0) << 16 | eight(1) << 8 | eight(2);
}

Picture Display::picture() const {
  const uint32_t bpp = mode_[kBpp], width = mode_[kXres], height = mode_[kYres];
  const bool vga = kind_ == Kind::vga, known = bpp == 32 || bpp == 16 || (bpp == 8 && vga);
  if (!(mode_[kEnable] & kEnabled) || !known || (vga && !(attribute_at_ & kScreenOn)) || (!vga && (width < 64 || height < 64)))
    return {};
  const size_t line = size_t{std::max(mode_[kVirtWidth], mode_[kXres])} * bpp / 8;
  const size_t begin = size_t{mode_[kXOffset]} * bpp / 8 + mode_[kYOffset] * line;
  if (begin + line * height > vram_.size()) return {};
  Picture picture{width, height};
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x) {
      const std::byte* at = &vram_[begin + y * line + size_t{x} * bpp / 8];
      auto byte = [at](size_t i) { return std::to_integer<uint32_t>(at[i]); };
      uint32_t pixel = 0;
      if (bpp == 8) {
        pixel = color(byte(0));
      } else if (bpp == 16) {
        const uint32_t v = byte(0) | byte(1) << 8, r = v >> 11, g = v >> 5 & 63, b = v & 31;
        pixel = (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
      } else {
        pixel = big_endian_ ? byte(1) << 16 | byte(2) << 8 | byte(3) : byte(2) << 16 | byte(1) << 8 | byte(0);
      }
      picture.pixels.push_back(pixel);
    }
  }
  return picture;
}

}  // namespace gpu_bochs
