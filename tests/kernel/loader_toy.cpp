// SPDX-License-Identifier: Apache-2.0
//
// A plugin for loader_test.sh: owns the migration of an 82576 VF and carries one register that a reset leaves alone.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

constexpr uint64_t kThrottle = 0x1680;  // EITR(0)
constexpr uint32_t kThrottleMask = 0x7fff;

class LoaderToy final : public MigrationOwner {
 public:
  explicit LoaderToy(Device& device) : device_(device) {}
  void save(SectionWriter& out) override { out.u32("throttle", device_.read32(0, kThrottle) & kThrottleMask); }
  void load(SectionReader& in) override { throttle_ = in.u32("throttle", in_range(0, kThrottleMask)); }
  void apply() override { device_.write32(0, kThrottle, throttle_); }

 private:
  Device& device_;
  uint32_t throttle_ = 0;
};

}  // namespace

HOOKLINE_PLUGIN(LoaderToy, {.name = "loader-toy",
                            .version = "1.0",
                            .summary = "for tests of the loader",
                            .model = "org.hookline.test/loader-toy",
                            .migration_version = "1",
                            .devices = {{.vendor = 0x8086, .device = 0x10ca}, {.vendor = 0x8086, .device = 0x10c9}},
                            .traps = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = 0x800, .length = 64}},
                            .parameters = {{"pace", "How often the guest is interrupted", "normal", "normal", "slow|normal",
                                            HOOKLINE_PARAMETER_RUNTIME, 0},
                                           {"queues", "How many the guest sees", "1", "1", "1-4", 0, 0},
                                           {"offload", "Whether the guest is offered any", "off", "off", "off|on", 0, 0}},
                            .max_state = 4096});
