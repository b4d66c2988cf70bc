// SPDX-License-Identifier: Apache-2.0
//
// Moves the bochs display function: bochs-display and secondary-vga of QEMU, 1234:1111. README.md says what is carried,
// what cannot be, and why each step is as it is.
//
// Video memory goes in rounds while the guest draws, and after each round only what was touched and is different now. It stays
// mapped in the guest; what is trapped is ENABLE alone, because writing it may make the device clear memory by itself.
#include <algorithm>
#include <bit>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

constexpr uint32_t kVramBar = 0, kBar = 2, kPage = 4096, kMaxVram = 512 << 20;  // of secondary-vga; bochs-display has up to 256 MiB
constexpr uint32_t kClass = 0x0a, kClassVga = 0x0300;  // in config space
constexpr uint32_t kByteOrder = 0x604, kLittle = 0x1e1e1e1e, kBig = 0xbebebebe;
enum : uint32_t { kId, kXres, kYres, kBpp, kEnable, kBank, kVirtWidth, kVirtHeight, kXOffset, kYOffset, kMemory };
constexpr const char* kNames[kMemory] = {"id", "xres", "yres", "bpp", "enable", "bank", "virt_width", "virt_height", "x_offset", "y_offset"};
constexpr uint32_t kEnabled = 1, kGetCaps = 2, kNoClear = 0x80;
constexpr uint32_t mode_at(uint32_t index) { return 0x500 + 2 * index; }

// VGA ports, as they lie in BAR 2.
constexpr uint32_t port_at(uint32_t port) { return 0x400 + port - 0x3c0; }
constexpr uint32_t kAttribute = port_at(0x3c0), kAttributeRead = port_at(0x3c1), kMiscWrite = port_at(0x3c2), kSequencer = port_at(0x3c4);
constexpr uint32_t kPaletteRead = port_at(0x3c7), kPaletteWrite = port_at(0x3c8), kPaletteData = port_at(0x3c9);
constexpr uint32_t kMiscRead = port_at(0x3cc), kGraphics = port_at(0x3ce), kCrt = port_at(0x3d4), kInputStatus = port_at(0x3da);
constexpr uint8_t kColorPorts = 1, kScreenOn = 0x20, kVSyncEnd = 0x11, kCrtLock = 0x80;

// What the VGA variant has besides. It travels as it is: any byte is one that a guest can write there.
struct Vga {
  uint8_t misc, sequencer_at, graphics_at, crt_at, attribute_at, attribute_waits, palette_at;
  std::array<uint8_t, 8> sequencer;
  std::array<uint8_t, 9> graphics;
  std::array<uint8_t, 25> crt;
  std::array<uint8_t, 21> attribute;
  std::array<uint8_t, 768> palette;
};

// Pages in a row: `count` of them from `first`, with their data, or zero ones without.
struct Run {
  uint32_t first, count : 31, zero : 1;
};
constexpr uint32_t kSectionPages = 240, kSectionRuns = 2048;

class Pages {
 public:
  explicit Pages(uint32_t count = 0, bool all = false) : words((count + 63) / 64, all ? ~uint64_t{0} : 0) {
    if (all && count % 64) words.back() >>= 64 - count % 64;
  }
  bool has(uint32_t page) const { return words[page / 64] >> page % 64 & 1; }
  void add(uint32_t page) { words[page / 64] |= uint64_t{1} << page % 64; }
  void drop(uint32_t page) { words[page / 64] &= ~(uint64_t{1} << page % 64); }
  std::vector<uint64_t> words;
};

class GpuBochs final : public MigrationOwner {
 public:
  explicit GpuBochs(Device& dev) : dev_(dev) {}

  // The VGA variant clears memory as it is enabled. What it has cleared has to be looked at afterwards.
  Answer on_write(Access& a) override {
    dev_.run_rest(a);
    if ((a.value & kEnabled) && !(a.value & kNoClear)) todo_ = Pages(pages_, true), next_ = 0;
    return Answer::handled;
  }
  void on_reset() override { arrived_ = Pages(); }

  void save_bulk(SectionWriter& out, BulkCall call) override {
    const bool on = Decoding::is_on(dev_);
    if (call.begin) {
      look();
      known_ = Pages(pages_), todo_ = Pages(pages_, true), hashes_.resize(pages_), next_ = pages_, stopped_ = false;
    }
    // A guest that has switched the device off draws nothing, and does not want it on.
    if (!on && !call.stopped) return;
    const Decoding decoding(dev_);
    if (call.begin || (call.stopped ? !stopped_ : next_ == pages_)) collect();
    stopped_ = call.stopped;

    std::vector<Run> runs;
    uint32_t filled = 0;
    for (; next_ < pages_ && filled < kSectionPages && runs.size() < kSectionRuns; ++next_) {
      if (!todo_.has(next_)) continue;
      todo_.drop(next_);
      // What is hashed is what is sent: the guest may be drawing.
      const auto page = std::span(buffer_).subspan(size_t{filled} * kPage, kPage);
      vram_.read(uint64_t{next_} * kPage, page);
      const XXH128_hash_t hash = XXH3_128bits(page.data(), kPage);
      if (known_.has(next_) && XXH128_isEqual(hash, hashes_[next_])) continue;
      known_.add(next_), hashes_[next_] = hash;
      const bool zero = std::ranges::all_of(page, [](std::byte b) { return b == std::byte{0}; });
      if (!runs.empty() && runs.back().zero == zero && runs.back().first + runs.back().count == next_)
        ++runs.back().count;
      else
        runs.push_back({next_, 1, zero});
      filled += !zero;
    }
    if (!runs.empty()) out.bytes("runs", std::as_bytes(std::span(runs)));
    if (filled) out.bytes("data", std::span(buffer_).first(size_t{filled} * kPage));
    if (next_ < pages_) out.more();
  }

  BulkSizes bulk_sizes() override {
    uint64_t unknown = pages_, dirty = 0;
    for (size_t i = 0; i < known_.words.size(); ++i) {
      unknown -= static_cast<uint64_t>(std::popcount(known_.words[i]));
      dirty += static_cast<uint64_t>(std::popcount(known_.words[i] & todo_.words[i]));
    }
    return {unknown * kPage, dirty * kPage};
  }

  void load_bulk(SectionReader& in, BulkCall call) override {
    const Decoding decoding(dev_);
    if (call.begin) {
      look();
      arrived_ = Pages(pages_);
      mode(kEnable, 0);
    }
    const auto bytes = in.view("runs", kSectionRuns * sizeof(Run));
    if (bytes.empty() || bytes.size() % sizeof(Run)) in.reject("runs", "no section is made so");
    std::vector<Run> runs(bytes.size() / sizeof(Run));
    std::memcpy(runs.data(), bytes.data(), runs.size() * sizeof(Run));
    uint64_t filled = 0;
    for (const Run& run : runs) {
      if (!run.count || run.first >= pages_ || run.count > pages_ - run.first)
        in.reject("runs", "pages " + std::to_string(run.first) + " and " + std::to_string(run.count) +
                              " on are not in video memory, which has " + std::to_string(pages_) + " here");
      if (!run.zero) filled += run.count;
    }
    if (filled > kSectionPages) in.reject("runs", "no section is made so");
    const auto data = filled ? in.view("data", filled * kPage) : bytes.first(0);
    if (data.size() != filled * kPage) in.reject("data", "there are more pages than data");
    static constexpr std::array<std::byte, kPage> zeros = {};
    size_t taken = 0;
    for (const Run& run : runs)
      for (uint32_t page = run.first; page < run.first + run.count; ++page) {
        vram_.write(uint64_t{page} * kPage, run.zero ? std::span<const std::byte>(zeros) : data.subspan(kPage * taken++, kPage));
        arrived_.add(page);
      }
  }

  void save(SectionWriter& out) override {
    const Decoding decoding(dev_);
    out.u32("vga", vga_);
    out.u32("pages", pages_);
    out.u32("byte_order", registers_.read<uint32_t>(kByteOrder));
    const uint16_t enable = mode(kEnable);
    if (enable & kGetCaps) mode(kEnable, enable & ~kGetCaps);  // the others would read as their limits
    for (uint32_t i = 0; i < kMemory; ++i) out.u32(kNames[i], i == kEnable ? enable : mode(i));
    if (enable & kGetCaps) mode(kEnable, enable);
    if (!vga_) return;
    const Vga ports = read_ports();
    out.bytes("ports", std::as_bytes(std::span(&ports, 1)));
  }

  void load(SectionReader& in) override {
    const Pages arrived = std::exchange(arrived_, Pages());
    if (!pages_) look();
    if (in.u32("vga", in_range(0, 1)) != vga_)
      in.reject("vga", vga_ ? "this is the VGA variant, the source's was not" : "this is not the VGA variant that the source's was");
    if (in.u32("pages", anything()) != pages_) in.reject("pages", "video memory has " + std::to_string(pages_) + " pages here");
    if (arrived.words != Pages(pages_, true).words) in.reject("pages", "not all of them came");
    byte_order_ = in.u32("byte_order", in_range(kLittle, kBig));
    if (byte_order_ != kLittle && byte_order_ != kBig) in.reject("byte_order", "there is no such order");
    for (uint32_t i = 0; i < kMemory; ++i) mode_[i] = static_cast<uint16_t>(in.u32(kNames[i], known_bits(0xffff)));
    if (!vga_) return;
    in.bytes("ports", std::as_writable_bytes(std::span(&ports_, 1)));
    if (ports_.attribute_at > 0x3f || ports_.attribute_waits > 1) in.reject("ports", "no attribute controller is in this state");
  }

  // The variants take the same order. VGA's: enabling resets width and offsets, and does not clear memory where told so.
  void apply() override {
    const Decoding decoding(dev_);
    mode(kEnable, 0);
    registers_.write<uint32_t>(kByteOrder, byte_order_);
    for (const uint32_t i : {kId, kBpp, kXres, kYres, kVirtHeight}) mode(i, mode_[i]);
    if (mode_[kEnable] & kEnabled) mode(kEnable, mode_[kEnable] | kNoClear);
    for (const uint32_t i : {kVirtWidth, kXOffset, kYOffset, kEnable, kBank}) mode(i, mode_[i]);
    if (vga_) write_ports(ports_);
  }

 private:
  /// What device this is. Not when it is opened: its registers may be switched off then.
  void look() {
    const Decoding decoding(dev_);
    vram_ = Bar(dev_, kVramBar), registers_ = Bar(dev_, kBar);
    const uint64_t bytes = uint64_t{mode(kMemory)} << 16;
    if (bytes == 0 || bytes > kMaxVram)
      raise(ENODEV, "the display says that it has " + std::to_string(bytes >> 20) + " MiB of video memory, up to " +
                        std::to_string(kMaxVram >> 20) + " are known of such devices");
    pages_ = static_cast<uint32_t>(bytes / kPage);
    vga_ = port(kSequencer) < 8;  // without ports there is nothing
    // Behind the window at 0xa0000, which only a VGA controller proper has, nobody sees who writes.
    unseen_ = dev_.read(HOOKLINE_REGION_CONFIG, kClass, 2) == kClassVga;
  }

  void collect() {
    if (unseen_) {
      todo_ = Pages(pages_, true);
    } else {
      dev_.touched(kVramBar, 0, pages_, touched_);
      for (size_t i = 0; i < touched_.size(); ++i) todo_.words[i] |= touched_[i];
    }
    next_ = 0;
  }

  uint16_t mode(uint32_t index) const { return registers_.read<uint16_t>(mode_at(index)); }
  void mode(uint32_t index, uint32_t value) const { registers_.write<uint16_t>(mode_at(index), static_cast<uint16_t>(value)); }
  uint8_t port(uint32_t at) const { return registers_.read<uint8_t>(at); }
  void port(uint32_t at, uint32_t value) const { registers_.write<uint8_t>(at, static_cast<uint8_t>(value)); }

  /// An index and its value lie side by side.
  template <size_t N>
  void read_indexed(uint32_t index, uint8_t& at, std::array<uint8_t, N>& values) const {
    at = port(index);
    for (uint32_t i = 0; i < N; ++i) port(index, i), values[i] = port(index + 1);
  }
  template <size_t N>
  void write_indexed(uint32_t index, const std::array<uint8_t, N>& values) const {
    for (uint32_t i = 0; i < N; ++i) port(index, i), port(index + 1, values[i]);
  }

  Vga read_ports() const {
    Vga v{};
    v.misc = port(kMiscRead);
    const uint8_t seen = port(kAttribute);  // 0 while a value is awaited
    port(kMiscWrite, v.misc | kColorPorts);  // in monochrome half of the ports are elsewhere
    port(kInputStatus);
    v.attribute_at = port(kAttribute), v.attribute_waits = seen != v.attribute_at;
    for (uint32_t i = 0; i < v.attribute.size(); ++i)
      port(kAttribute, i | (v.attribute_at & kScreenOn)), v.attribute[i] = port(kAttributeRead), port(kInputStatus);
    read_indexed(kSequencer, v.sequencer_at, v.sequencer);
    read_indexed(kGraphics, v.graphics_at, v.graphics);
    read_indexed(kCrt, v.crt_at, v.crt);
    v.palette_at = port(kPaletteWrite);
    port(kPaletteRead, 0);
    for (uint8_t& c : v.palette) c = port(kPaletteData);
    leave_ports(v);
    return v;
  }

  void write_ports(const Vga& v) const {
    port(kMiscWrite, v.misc | kColorPorts);
    port(kCrt, kVSyncEnd), port(kCrt + 1, v.crt[kVSyncEnd] & ~kCrtLock);
    auto unlocked = v.crt;
    unlocked[kVSyncEnd] &= static_cast<uint8_t>(~kCrtLock);
    write_indexed(kSequencer, v.sequencer);
    write_indexed(kGraphics, v.graphics);
    write_indexed(kCrt, unlocked);
    port(kCrt, kVSyncEnd), port(kCrt + 1, v.crt[kVSyncEnd]);
    port(kInputStatus);
    for (uint32_t i = 0; i < v.attribute.size(); ++i) port(kAttribute, i), port(kAttribute, v.attribute[i]);
    port(kPaletteWrite, 0);
    for (const uint8_t c : v.palette) port(kPaletteData, c);
    leave_ports(v);
  }

  /// Each index as the guest left it.
  void leave_ports(const Vga& v) const {
    port(kSequencer, v.sequencer_at), port(kGraphics, v.graphics_at), port(kCrt, v.crt_at), port(kPaletteWrite, v.palette_at);
    port(kInputStatus), port(kAttribute, v.attribute_at);
    if (!v.attribute_waits) port(kInputStatus);
    port(kMiscWrite, v.misc);
  }

  Device& dev_;
  Bar vram_, registers_;
  uint32_t pages_ = 0, vga_ = 0;
  bool unseen_ = false;

  std::vector<std::byte> buffer_ = std::vector<std::byte>((kSectionPages + 1) * kPage);  // the last page is not sent
  std::vector<XXH128_hash_t> hashes_;  // of what was sent last
  std::vector<uint64_t> touched_;
  Pages todo_, known_, arrived_;       // to look at; sent at least once; loaded
  uint32_t next_ = 0;                  // where the round goes on
  bool stopped_ = false;

  std::array<uint16_t, kMemory> mode_ = {};
  uint32_t byte_order_ = kLittle;
  Vga ports_ = {};
};

constexpr hookline_step set16(uint32_t at, uint32_t value) {
  hookline_step step = write(kBar, at, value);
  step.width = 2;
  return step;
}

}  // namespace

// clang-format off
HOOKLINE_PLUGIN(GpuBochs, {
    .name = "gpu-bochs", .version = "1.0", .summary = "Moves the bochs display function: bochs-display and secondary-vga",
    .model = "org.qemu/bochs-display", .migration_version = "1", .devices = {{0x1234, 0x1111}},
    .traps = {{kBar, HOOKLINE_WANT_WRITE, mode_at(kEnable), 2}},
    .registers = {{"XRES", kBar, mode_at(kXres), 2}, {"YRES", kBar, mode_at(kYres), 2}, {"BPP", kBar, mode_at(kBpp), 2},
                  {"ENABLE", kBar, mode_at(kEnable), 2}, {"VIRT_WIDTH", kBar, mode_at(kVirtWidth), 2},
                  {"X_OFFSET", kBar, mode_at(kXOffset), 2}, {"Y_OFFSET", kBar, mode_at(kYOffset), 2}, {"BYTE_ORDER", kBar, kByteOrder, 4}},
    // It does no DMA: nothing has to be stopped, and the picture stays. It has no reset of its own either.
    .reset = {set16(mode_at(kEnable), 0), set16(mode_at(kXres), 0), set16(mode_at(kYres), 0), set16(mode_at(kBpp), 0),
              set16(mode_at(kBank), 0), set16(mode_at(kVirtWidth), 0), set16(mode_at(kVirtHeight), 0), set16(mode_at(kXOffset), 0),
              set16(mode_at(kYOffset), 0), write(kBar, kByteOrder, kLittle), fill(kVramBar, 0, 0)},
    .max_state = 4 * (kMemory + 3) + sizeof(Vga), .max_bulk = kMaxVram + kMaxVram / kPage * sizeof(Run)});
// clang-format on
