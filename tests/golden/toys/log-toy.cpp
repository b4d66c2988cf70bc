// SPDX-License-Identifier: Apache-2.0
//
// An observer: passes everything on, claims nothing, is content to be left out.
#include <hookline/plugin.hpp>

namespace {

class LogToy final : public hookline::Handler {
 public:
  explicit LogToy(hookline::Device&) {}
};

}  // namespace

HOOKLINE_PLUGIN(LogToy, {
    .name = "log-toy",
    .version = "3",
    .summary = "Writes down what happens",
    .traps = {{0, HOOKLINE_WANT_WRITE, 0x0, 0x1000}},
    .keys = {{"log", "What is written down", "all", "all|state-changes", HOOKLINE_KEY_CHOICE, 0, 0, 0}},
    .unknown_op = HOOKLINE_UNKNOWN_PASS,
});
