// SPDX-License-Identifier: Apache-2.0
//
// For tests: the smallest device that has everything (a register nobody can read back, DMA, an interrupt,
// frames, a stop that takes time), its model, and the plugin that migrates it.
#pragma once

#include <cstring>

#include <hookline/model.h>
#include <hookline/chain.hpp>
#include <hookline/plugin.hpp>

namespace hookline::toy {

enum : uint32_t {
  kCtrl = 0x00,      // bit 0: run
  kStatus = 0x04,    // bit 0: idle; read-only
  kMode = 0x08,      // write-only: reads as 0
  kCount = 0x0c,     // events so far
  kAddress = 0x10,   // IOVA the count is written to
  kDoorbell = 0x14,  // one more event
  kSticky = 0x18,    // survives the function's own reset
  kBarSize = 0x1000,
};
constexpr uint32_t kRun = 1, kIdle = 1;

struct Model {
  const hookline_model_host* host;
  uint32_t ctrl = 0, mode = 0, count = 0, address = 0, sticky = 0, busy = 0;

  void event() {
    if (!(ctrl & kRun)) return;
    ++count;
    host->dma_write(host->context, address, &count, sizeof(count));
    host->interrupt(host->context, 0);
  }
};

inline const hookline_model kModel = {
    .magic = HOOKLINE_MODEL_MAGIC,
    .size = sizeof(hookline_model),
    .name = "toy",
    .vendor = 0x1234,
    .device = 0x0001,
    .vectors = 1,
    .bar_size = {kBarSize},
    .create = [](const hookline_model_host* host, uint32_t) -> void* { return new Model{host}; },
    .destroy = [](void* self) { delete static_cast<Model*>(self); },
    .read = [](void* self, uint32_t, uint64_t offset, uint32_t width) -> uint64_t {
      Model& m = *static_cast<Model*>(self);
      if (width != 4) return 0;
      switch (offset) {
        case kCtrl:
          return m.ctrl;
        case kStatus:
          return m.ctrl & kRun || (m.busy && m.busy--) ? 0 : kIdle;
        case kCount:
          return m.count;
        case kAddress:
          return m.address;
        case kSticky:
          return m.sticky;
      }
      return 0;
    },
    .write =
        [](void* self, uint32_t, uint64_t offset, uint32_t width, uint64_t value64) {
          Model& m = *static_cast<Model*>(self);
          const auto value = static_cast<uint32_t>(value64);
          if (width != 4) return;
          switch (offset) {
            case kCtrl:
              if (m.ctrl & ~value & kRun) m.busy = 3;  // so many looks until it is idle
              m.ctrl = value;
              break;
            case kMode:
              m.mode = value;
              break;
            case kCount:
              m.count = value;
              break;
            case kAddress:
              m.address = value;
              break;
            case kDoorbell:
              m.event();
              break;
            case kSticky:
              m.sticky = value;
              break;
          }
        },
    .reset =
        [](void* self) {
          Model& m = *static_cast<Model*>(self);
          m = Model{.host = m.host, .sticky = m.sticky};
        },
    .receive = [](void* self, const void* frame, size_t length) -> int {
      Model& m = *static_cast<Model*>(self);
      if (!(m.ctrl & kRun)) return 0;
      m.host->transmit(m.host->context, frame, length);
      m.event();
      return 1;
    },
};

class Plugin final : public MigrationOwner {
 public:
  explicit Plugin(Device& dev) : dev_(dev), shadow_(dev) {}

  Answer on_write(Access& a) override {
    if (a.value32() == 0xdead) raise(EPROTO, "this mode kills the device");
    shadow_->mode = a.value32();
    return Answer::pass;
  }

  void save(SectionWriter& out) override {
    out.u32("ctrl", dev_.saved(0));
    out.u32("mode", shadow_->mode);
    out.u32("count", dev_.read32(0, kCount));
    out.u32("address", dev_.read32(0, kAddress));
  }
  void load(SectionReader& in) override {
    ctrl_ = in.u32("ctrl", known_bits(kRun));
    mode_ = in.u32("mode", in_range(0, 15));
    count_ = in.u32("count", anything());
    address_ = in.u32("address", multiple_of(4, 0xfffffffc));
  }
  void apply() override {
    dev_.write32(0, kMode, mode_);
    shadow_->mode = mode_;
    dev_.write32(0, kCount, count_);
    dev_.write32(0, kAddress, address_);
    const hookline_step start[] = {hookline::write(0, kCtrl, ctrl_)};
    dev_.start_once(start);
  }

 private:
  struct Shadow {
    uint32_t mode;
  };
  Device& dev_;
  ShadowRef<Shadow> shadow_;
  uint32_t ctrl_ = 0, mode_ = 0, count_ = 0, address_ = 0;
};

constexpr PluginInfo kPluginInfo = {
    .name = "toy",
    .version = "1.0",
    .model = "com.example/toy",
    .migration_version = "1",
    .traps = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = kMode, .length = 4}},
    .stop = {save(0, kCtrl, 0), clear_bits(0, kCtrl, kRun), poll(0, kStatus, kIdle, kIdle, 100000)},
    .start = {restore(0, kCtrl, 0)},
    .reset = {write(0, kSticky, 0)},
    .shadow_size = 4,
    .max_state = 16,
};
inline const hookline_plugin kPlugin = hookline::detail::describe<Plugin>(kPluginInfo);

inline Chain chain() {
  return *build_chain({*make_link(kPlugin)});
}

}  // namespace hookline::toy
