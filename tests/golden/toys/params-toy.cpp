// SPDX-License-Identifier: Apache-2.0
//
// A migration owner in two releases. 2.0 can write two versions of its state; with RELEASE_1 it is 1.0, which knows the first.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

class ParamsToy final : public MigrationOwner {
 public:
  explicit ParamsToy(Device& dev) : dev_(dev) {}
  void save(SectionWriter& out) override {
    out.u32("head", dev_.read32(0, 0x10));
#ifndef RELEASE_1
    if (dev_.parameter(0) == "2") out.u32("tail", dev_.read32(0, 0x14));
#endif
  }
  void load(SectionReader& in) override {
    head_ = in.u32("head", below(256));
    if (dev_.stream_version() == "2") tail_ = in.u32("tail", below(256));
  }
  void apply() override {
    dev_.write32(0, 0x10, head_);
    dev_.write32(0, 0x14, tail_);
  }

 private:
  Device& dev_;
  uint32_t head_ = 0, tail_ = 0;
};

}  // namespace

#ifdef RELEASE_1
HOOKLINE_PLUGIN(ParamsToy, {
    .name = "params-toy",
    .version = "1.0",
    .summary = "A network card that nobody built",
    .model = "com.example/params-toy",
    .migration_version = "1",
    .devices = {{0x1234, 0x0001}},
    .parameters = {{"queues", "Queues the guest may use", "4", "1", "1-8", 0, 0}},
    .max_state = 64,
});
#else
HOOKLINE_PLUGIN(ParamsToy, {
    .name = "params-toy",
    .version = "2.0",
    .summary = "A network card that nobody built, newer",
    .model = "com.example/params-toy",
    .migration_version = "2",
    .reads = "1|2",
    .devices = {{0x1234, 0x0001}},
    .parameters = {{"state_version", "Format of the saved state; 1 is what releases before 2.0 read", "2", "1", "1|2",
                    HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0},
                   {"queues", "Queues the guest may use", "4", "1", "1-8", 0, 0}},
    .max_state = 64,
});
#endif
