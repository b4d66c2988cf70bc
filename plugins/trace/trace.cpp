// SPDX-License-Identifier: Apache-2.0
//
// Writes down what happens to a device and changes nothing. It has no ranges of its own, so it sees what the
// other plugins of its chain trap, as far as those before it let it pass.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

enum { kLog };  // of the keys below

class Trace final : public Handler {
 public:
  explicit Trace(Device& dev) : dev_(dev) {}
  ~Trace() override {
    dev_.info_line("closed after " + std::to_string(reads_) + " reads, " + std::to_string(writes_) +
                   " writes, " + std::to_string(states_) + " state changes, " + std::to_string(resets_) +
                   " resets");
  }

  Answer on_read(Access& a) override {
    ++reads_;
    if (dev_.text(kLog) != "accesses") return Answer::pass;
    dev_.run_rest(a);  // to tell the value; what comes back goes on as it is
    dev_.info_line(place(a) + " is " + Check::hex(a.value));
    return Answer::handled;
  }

  Answer on_write(Access& a) override {
    ++writes_;
    if (dev_.text(kLog) == "accesses") dev_.info_line(place(a) + " = " + Check::hex(a.value));
    return Answer::pass;
  }

  void on_state(uint32_t from, uint32_t to) override {
    ++states_;
    if (dev_.text(kLog) != "none") dev_.info_line("state " + state(from) + " to " + state(to));
  }

  void on_reset() override {
    ++resets_;
    if (dev_.text(kLog) != "none") dev_.info_line("reset");
  }

 private:
  static std::string place(const Access& a) {
    const std::string region =
        a.region == HOOKLINE_REGION_CONFIG ? "config" : "BAR " + std::to_string(a.region);
    return region + " " + Check::hex(a.offset) + " (" + std::to_string(a.length) + " bytes)";
  }
  // As linux/vfio.h numbers them.
  static std::string state(uint32_t number) {
    static constexpr const char* names[] = {"ERROR",    "STOP",        "RUNNING",  "STOP_COPY",
                                            "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"};
    return number < std::size(names) ? names[number] : std::to_string(number);
  }

  Device& dev_;
  uint64_t reads_ = 0, writes_ = 0, states_ = 0, resets_ = 0;
};

}  // namespace

// clang-format off
HOOKLINE_PLUGIN(Trace, {
    .name = "trace",
    .version = "1.0",
    .summary = "Logs what happens to a device, and changes nothing",
    .keys = {{.name = "log", .help = "what goes to the log; accesses slows the device down", .default_value = "state-changes",
              .choices = "none|state-changes|accesses", .type = HOOKLINE_KEY_CHOICE, .flags = 0, .min = 0, .max = 0}},
    .unknown_op = HOOKLINE_UNKNOWN_PASS,
});
// clang-format on
