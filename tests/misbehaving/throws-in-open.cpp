// SPDX-License-Identifier: Apache-2.0
//
// Cannot start: the facade turns what its constructor throws into an errno and a text.
#include <hookline/plugin.hpp>

namespace {

class ThrowsInOpen final : public hookline::Handler {
 public:
  explicit ThrowsInOpen(hookline::Device&) { hookline::raise(ENODEV, "no firmware answers"); }
};

}  // namespace

HOOKLINE_PLUGIN(ThrowsInOpen, {.name = "throws-in-open", .version = "1", .unknown_op = HOOKLINE_UNKNOWN_PASS});
