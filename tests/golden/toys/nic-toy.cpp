// SPDX-License-Identifier: Apache-2.0
//
// A migration owner with an option of each type, migration parameters, traps with and without named registers, and all three
// programs.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

class NicToy final : public MigrationOwner {
 public:
  explicit NicToy(Device& dev) : dev_(dev) {}
  void save(SectionWriter& out) override {
    out.u32("head", dev_.read32(0, 0x10));
    if (dev_.parameter(0) == "2") out.u32("tail", dev_.read32(0, 0x18));
  }
  void load(SectionReader& in) override {
    head_ = in.u32("head", below(256));
    if (dev_.stream_version() == "2") tail_ = in.u32("tail", below(256));
  }
  void apply() override {
    dev_.write32(0, 0x10, head_);
    dev_.write32(0, 0x18, tail_);
  }

 private:
  Device& dev_;
  uint32_t head_ = 0, tail_ = 0;
};

}  // namespace

HOOKLINE_PLUGIN(NicToy, {
    .name = "nic-toy",
    .version = "1.2",
    .summary = "A network card that nobody built",
    .model = "com.example/nic-toy",
    .migration_version = "2",
    .reads = "1|2",
    .devices = {{0x1234, 0x0001}, {0x1234, 0x0002}},
    .traps = {{0, HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE, 0x0, 0x1000}, {HOOKLINE_REGION_CONFIG, HOOKLINE_WANT_READ, 0x40, 4}},
    .registers = {{"CTRL", 0, 0x0, 4}, {"STATUS", 0, 0x8, 4}, {"HEAD", 0, 0x10, 4}, {"BEHIND", 0, 0x2000, 4}},
    .keys = {{"dirty_tracking", "Ask the device which pages it wrote", "true", nullptr, HOOKLINE_KEY_BOOL, 0, 0, 0},
             {"queues", "How many queues are saved", "4", nullptr, HOOKLINE_KEY_UINT, 0, 1, 8},
             {"delay_us", "How long to wait before a save", nullptr, nullptr, HOOKLINE_KEY_UINT, 0, 0, 0},
             {"label", "Shown in the log", nullptr, nullptr, HOOKLINE_KEY_STRING, 0, 0, 0},
             {"mode", "How rings are stopped", "drain", "drain|drop", HOOKLINE_KEY_CHOICE, 0, 0, 0}},
    .parameters = {{"state_version", "Format of the state that is emitted", "2", "1", "1|2",
                    HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0},
                   {"rings", "Rings the guest sees", "4", "1", "1-8", 0, 0},
                   {"offload", "What the device does for the driver", "checksum", "none", "none|checksum|segments", 0, 0}},
    .stop = {save(0, 0x0, 3), clear_bits(0, 0x0, 0x1), poll(0, 0x8, 0x2, 0x2, 1000), delay(10)},
    .start = {restore(0, 0x0, 3), rewrite(0, 0x2000), {HOOKLINE_STEP_MODIFY, 0, 4, 0, 0x100, 0xff, 0x0f, 0}},
    .reset = {hookline::write(0, 0x0, 0x4), set_bits(0, 0x0, 0x8)},
    .shadow_size = 64,
    .max_state = 65536,
    .ioctls = 1u << 10,
});
