// SPDX-License-Identifier: Apache-2.0
//
// A guard: traps a register that nic-toy traps, too, wants a PF, and has no option.
#include <hookline/plugin.hpp>

namespace {

class GuardToy final : public hookline::Handler {
 public:
  explicit GuardToy(hookline::Device&) {}
};

}  // namespace

HOOKLINE_PLUGIN(GuardToy, {
    .name = "guard-toy",
    .version = "1",
    .devices = {{0x1234, 0x0001}},
    .traps = {{0, HOOKLINE_WANT_WRITE, 0x800, 4}},
    .required = HOOKLINE_REQUIRE_PF,
});
