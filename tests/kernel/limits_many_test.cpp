// SPDX-License-Identifier: Apache-2.0
//
// As many devices as the machine has, in pairs that move their state to and fro at the same time, each device with a worker
// of its own.
#include <unistd.h>

#include <future>

#include <fmt/format.h>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kState = 200000;
constexpr int kMoves = 6;

struct Side {
  Side(const vfio::Container& container, const std::string& vf) : worker(vf, *board), guest(container, vf) {}
  SharedBoard board = shared_board();
  Worker worker;
  Guest guest;
};

// "" or what went wrong.
std::string move(Side& from, Side& to) {
  const auto failed = [](const char* what, const Error& error) { return fmt::format("{}: {}", what, error.text); };
  std::vector<uint8_t> piece(65536);
  const auto carry = [&](const vfio::Descriptor& out, const vfio::Descriptor& in, int end) -> std::string {
    for (;;) {
      const ssize_t got = ::read(out.get(), piece.data(), piece.size());
      if (got < 0) return errno == end ? "" : fmt::format("read: {}", errno);
      if (got == 0) return end ? "the stream ended in PRE_COPY" : "";
      if (::write(in.get(), piece.data(), static_cast<size_t>(got)) != got) return fmt::format("write: {}", errno);
    }
  };
  if (auto reset = to.guest.device.reset(); !reset) return failed("reset", reset.error());
  auto in = to.guest.device.set_state(VFIO_DEVICE_STATE_RESUMING);
  if (!in) return failed("destination", in.error());
  auto out = from.guest.device.set_state(VFIO_DEVICE_STATE_PRE_COPY);
  if (!out) return failed("source", out.error());
  if (auto wrong = carry(*out, *in, ENOMSG); !wrong.empty()) return wrong;
  if (auto copying = from.guest.device.set_state(VFIO_DEVICE_STATE_STOP_COPY); !copying) return failed("source", copying.error());
  if (auto wrong = carry(*out, *in, 0); !wrong.empty()) return wrong;
  if (auto stopped = from.guest.device.set_state(VFIO_DEVICE_STATE_STOP); !stopped) return failed("source", stopped.error());
  if (auto running = to.guest.device.set_state(VFIO_DEVICE_STATE_RUNNING); !running) return failed("destination", running.error());
  if (to.board->loaded_bytes != kState || !to.board->load_matches) return "another state was loaded than was saved";
  return "";
}

class ManyDevices : public HooksTest {};

TEST_F(ManyDevices, RL1_MoveAtTheSameTime) {
  ASSERT_EQ(vfs_.size(), 14u) << "needs tests/vm/run --igb 2 --vfs 7";
  std::vector<std::unique_ptr<Side>> sides;
  for (const std::string& vf : vfs_) {
    Definition definition = migratable(vf);
    // Fourteen workers on two emulated processors.
    definition.access_limit_ms = 10000;
    definition.state_limit_ms = 60000;
    define_and_bind(definition);
    if (HasFatalFailure()) return;
    sides.push_back(std::make_unique<Side>(*container_, vf));
    sides.back()->board->state_bytes = kState;
  }
  for (const std::string& vf : vfs_) EXPECT_TRUE(wait_served(vf)) << vf;

  std::vector<std::future<std::string>> pairs;
  for (size_t i = 0; i < sides.size(); i += 2)
    pairs.push_back(std::async(std::launch::async, [&, i] {
      for (int n = 0; n < kMoves; ++n)
        if (auto wrong = move(*sides[i + n % 2], *sides[i + (n + 1) % 2]); !wrong.empty())
          return fmt::format("{} to {}, move {}: {}", vfs_[i + n % 2], vfs_[i + (n + 1) % 2], n, wrong);
      return std::string();
    }));
  for (auto& pair : pairs) EXPECT_EQ(pair.get(), "");
  for (size_t i = 0; i < sides.size(); ++i) {
    const vfio_pci_hooks_status status = control_.status(vfs_[i]);
    EXPECT_EQ(status.missed, 0u) << vfs_[i];
    EXPECT_EQ(status.revoked, 0u) << vfs_[i];
    uint32_t value = 0;
    if (i % 2 == 0) {
      EXPECT_TRUE(sides[i]->guest.device.enable_memory_and_dma());
      EXPECT_EQ(sides[i]->guest.read32(kTrapped, value), 0);
      EXPECT_EQ(value, 0x600d600du) << vfs_[i];
    }
  }
}

}  // namespace
}  // namespace hookline::kernel_test
