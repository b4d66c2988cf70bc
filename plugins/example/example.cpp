// SPDX-License-Identifier: Apache-2.0
//
// A plugin to copy. It moves the toy device of toy_model.cpp:
//
//     page 0   CTRL   0x00   bit 0 RUN
//              STATUS 0x04   bit 0 IDLE, read-only
//              MODE   0x08   0 to 3; write-only: it reads as 0
//              RESET  0x0c   writing 1 clears everything
//     page 1   BASE   0x1000 guest address of a ring of 4-byte slots
//              COUNT  0x1004 its slots, at most 256
//              HEAD   0x1008 the slot the device fills next
//              TAIL   0x100c doorbell: the device fills slots up to here
//
// How to make it yours: (1) what can a register not show? Trap its page and keep it in the shadow. (2) How is
// the device stopped without losing anything? That is the stop program. (3) Save what registers show plus the
// shadow. (4) Check each value you load as if an enemy had written it. (5) Write it back with the device
// stopped.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

constexpr uint32_t kCtrl = 0x00, kRun = 1, kStatus = 0x04, kIdle = 1, kMode = 0x08, kReset = 0x0c;
constexpr uint32_t kBase = 0x1000, kCount = 0x1004, kHead = 0x1008, kTail = 0x100c;
constexpr uint32_t kMaxSlots = 256, kSavedCtrl = 0;
constexpr uint32_t kRunning = 2;  // VFIO_DEVICE_STATE_RUNNING of linux/vfio.h

// Survives a crash of this process, and is zeroed when the device is opened or reset. Plain data, no
// pointers.
struct Shadow {
  uint32_t mode;
};

// One object for each open of a device, used from one thread. Throw (raise) to fail an operation with an
// errno and a text.
class Toy final : public MigrationOwner {
 public:
  // Look at the hardware once: better a clear refusal here than a lost guest later.
  explicit Toy(Device& dev) : dev_(dev), shadow_(dev) {
    if (read(kStatus) == ~0u) raise(ENODEV, "the device does not answer: was it removed?");
  }

  // Only accesses to the declared range come here; the ring's page stays mapped in the guest. Passing lets
  // the device do it.
  Answer on_write(Access& a) override {
    if (a.covers(0, kMode)) {
      // Whole registers only: a part of one could not be kept.
      if (a.offset != kMode || a.length != 4) raise(EINVAL, "MODE takes aligned 32-bit writes");
      shadow_->mode = a.value32() & 3;
    }
    // The guest resets its device by itself: what it has set is gone.
    if (a.covers(0, kReset) && (a.value & 1)) shadow_->mode = 0;
    return Answer::pass;
  }

  // The stop program has run, so nothing moves any more. RUN as it was before is what that program kept.
  void save(SectionWriter& out) override {
    out.u32("mode", shadow_->mode);
    out.u32("ctrl", restored_ ? loaded_.ctrl : dev_.saved(kSavedCtrl) & kRun);
    out.u32("base", read(kBase));
    out.u32("count", read(kCount));
    out.u32("head", read(kHead));
    out.u32("tail", read(kTail));
  }

  // The same fields in the same order, each with what it may be. Nothing touches the device yet: the rest of
  // the stream may still turn out to be bad.
  void load(SectionReader& in) override {
    loaded_.mode = in.u32("mode", in_range(0, 3));
    loaded_.ctrl = in.u32("ctrl", known_bits(kRun));
    loaded_.base = in.u32("base", multiple_of(4, UINT32_MAX));
    loaded_.count = in.u32("count", in_range(0, kMaxSlots));
    // An empty ring has no place to be in but 0.
    const Check in_ring = below(loaded_.count ? loaded_.count : 1);
    loaded_.head = in.u32("head", in_ring);
    loaded_.tail = in.u32("tail", in_ring);
  }

  // The device is stopped here and must stay so: guest memory may be incomplete, and DMA is forbidden.
  // Whatever starts it belongs into the start program, which runs when the guest does. Used once: the next
  // stop keeps CTRL again.
  void apply() override {
    shadow_->mode = loaded_.mode;
    write(kMode, loaded_.mode);
    write(kBase, loaded_.base);
    write(kCount, loaded_.count);
    write(kHead, loaded_.head);
    write(kTail, loaded_.tail);
    const hookline_step start[] = {hookline::write(0, kCtrl, loaded_.ctrl)};
    dev_.start_once(start);
    restored_ = true;
  }

  // A guest that was paused when it came may move on before it ever runs here. Then the kernel has kept
  // nothing of its yet: the stop program last ran for whoever used the device before.
  void on_state(uint32_t, uint32_t to) override { restored_ = restored_ && to != kRunning; }
  void on_reset() override { restored_ = false; }

 private:
  uint32_t read(uint32_t offset) const { return dev_.read32(0, offset); }
  void write(uint32_t offset, uint32_t value) const { dev_.write32(0, offset, value); }

  struct State {
    uint32_t mode, ctrl, base, count, head, tail;
  };
  Device& dev_;
  ShadowRef<Shadow> shadow_;
  State loaded_ = {};
  bool restored_ = false;
};

}  // namespace

// clang-format off
HOOKLINE_PLUGIN(Toy, {
    // The file is NAME.so; the model names the state format's owner: who does not share it does not exchange guests.
    .name = "example",
    .version = "1.0",
    .summary = "A toy device, to copy",
    .model = "org.hookline/toy",
    .migration_version = "1",
    .devices = {{.vendor = 0x1234, .device = 0x0001}},
    // As little as possible, but all of what no register shows.
    .traps = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = 0, .length = 0x10}},
    .registers = {{"CTRL", 0, kCtrl, 4}, {"STATUS", 0, kStatus, 4}, {"MODE", 0, kMode, 4}, {"RESET", 0, kReset, 4}},
    // Run by the kernel on every stop and cont, whether this process lives or not. Start undoes stop and nothing else.
    .stop = {save(0, kCtrl, kSavedCtrl), clear_bits(0, kCtrl, kRun), poll(0, kStatus, kIdle, kIdle, 10000)},
    .start = {restore(0, kCtrl, kSavedCtrl)},
    .reset = {write(0, kReset, 1)},
    // An operation younger than this plugin: refuse rather than be bypassed. That is also the default.
    .unknown_op = HOOKLINE_UNKNOWN_REFUSE,
    .shadow_size = sizeof(Shadow),
    .max_state = 6 * sizeof(uint32_t),
});
// clang-format on
