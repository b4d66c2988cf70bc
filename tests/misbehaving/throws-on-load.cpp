// SPDX-License-Identifier: Apache-2.0
//
// A global object whose constructor throws.
#include <stdexcept>

#include <hookline/plugin.hpp>

namespace {

struct Early {
  Early() { throw std::runtime_error("too early"); }
} early;

class ThrowsOnLoad final : public hookline::Handler {
 public:
  explicit ThrowsOnLoad(hookline::Device&) {}
};

}  // namespace

HOOKLINE_PLUGIN(ThrowsOnLoad, {.name = "throws-on-load", .version = "1", .unknown_op = HOOKLINE_UNKNOWN_PASS});
