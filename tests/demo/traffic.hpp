// SPDX-License-Identifier: Apache-2.0
//
// The guest of the demo: ICMP echo requests at a steady pace over its own rings, each answer checked byte by byte. It takes
// frames from the ring only when an interrupt has come, so lost interrupts show as lost packets.
//
// Thread rule: one thread. Errors: std::runtime_error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/demo/side.hpp"

namespace hookline::demo {

enum class Period { before, during, after };

struct Counts {
  uint64_t sent = 0;
  uint64_t answered = 0;
  uint64_t lost_in_stop = 0;       ///< on their way when the source stopped
  uint64_t lost_outside_stop = 0;
};

class Traffic {
 public:
  using Clock = std::chrono::steady_clock;

  Traffic(std::chrono::milliseconds spacing, std::function<void()> progress)
      : spacing_(spacing), progress_(std::move(progress)) {}

  /// Brings the function up and finds the gateway's address.
  void begin(Side& side, testing::DmaMemory memory);
  /// Sends so many requests, one each `spacing`, and takes answers meanwhile.
  void send(uint64_t packets, Period period);
  /// The same without the spacing and without taking answers: these are on their way when it returns.
  void burst(uint64_t packets, Period period);
  /// Lets that time pass without looking at interrupts or rings, as a guest whose vCPUs do not run.
  void idle(std::chrono::milliseconds time);
  /// Takes answers until none is outstanding or nothing has come for that long.
  void settle(std::chrono::milliseconds limit);
  /// From now on the device is stopped: what is unanswered was on its way.
  void stopped();
  /// The same rings and memory go on with another device.
  void continue_on(Side& side, testing::DmaMemory memory);

  Counts counts(Period period) const;
  uint64_t duplicates() const { return duplicates_; }
  uint64_t damaged() const { return damaged_; }
  uint64_t sent() const { return packets_.size(); }
  uint64_t answered() const { return answered_; }
  std::string device() const { return side_ ? side_->name() : ""; }

 private:
  struct Packet {
    Period period;
    Clock::time_point sent;
    bool answered = false;
    bool on_its_way_at_stop = false;
  };

  void send_one(Period period);
  void take_until(Clock::time_point end);
  void take(uint32_t vectors);
  void handle(const testing::ReceivedFrame& frame);
  void transmit(std::span<const std::byte> frame);

  std::chrono::milliseconds spacing_;
  std::function<void()> progress_;
  Side* side_ = nullptr;
  std::unique_ptr<testing::VfDriver> nic_;
  testing::Host self_ = {};
  testing::Host gateway_ = {};
  bool gateway_known_ = false;
  uint32_t unhandled_ = 0;  // interrupts that came while idle
  std::vector<Packet> packets_;
  uint64_t answered_ = 0, duplicates_ = 0, damaged_ = 0;
  Clock::time_point last_answer_ = {};
};

}  // namespace hookline::demo
