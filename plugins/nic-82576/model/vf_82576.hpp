// SPDX-License-Identifier: Apache-2.0
//
// Intel 82576 virtual function: registers, two queue pairs, three MSI-X vectors, and the traps a migration
// falls into.
//
// Modelled on the 82576 data sheet and, where the sheet is silent, on what QEMU's igb was seen to do
// (../README.md lists which is which). Not modelled: RSS, header split, checksum and segmentation offload,
// interrupt throttling.
//
// Thread rule: one thread. Errors: none, as in hardware; a failing DMA loses the frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "pf_82576.hpp"

namespace nic82576 {

constexpr uint32_t kQueues = 2, kVectors = 3;
constexpr uint64_t kBarSize = 16384;

struct Ports {
  std::function<bool(uint64_t iova, std::span<std::byte>)> dma_read;
  std::function<bool(uint64_t iova, std::span<const std::byte>)> dma_write;
  std::function<void(uint32_t vector)> interrupt;
  std::function<void(std::span<const std::byte> frame)> transmit;
};

class Vf {
 public:
  explicit Vf(Ports ports) : ports_(std::move(ports)) {}

  uint32_t read32(uint32_t offset);
  void write32(uint32_t offset, uint32_t value);
  void function_reset();
  bool receive(std::span<const std::byte> frame);

  PfSide& pf() { return pf_; }
  /// Sends a control message of the PF's own, as igb does when its link changes.
  void pf_notify();
  /// A VF whose BAR the platform mapped wrongly: reads as zero.
  bool reads_zero = false;

 private:
  struct Descriptor {
    std::array<uint32_t, 4> word;
  };
  struct Queue {
    uint32_t low = 0, high = 0, length = 0, head = 0, tail = 0, control = 0;
    uint32_t srrctl = 0, rxctl = 0;                   // receive
    uint32_t txctl = 0, back_low = 0, back_high = 0;  // transmit
    bool enabled() const { return control & 1u << 25; }
    uint32_t count() const { return length / 16; }
    uint64_t at(uint32_t index) const { return (uint64_t{high} << 32 | low) + uint64_t{index} * 16; }
    uint32_t pending() const { return (tail + count() - head) % count(); }
    bool empty() const { return head == tail || tail >= count(); }
  };
  // What no register shows.
  struct Transmitter {
    std::array<std::array<uint32_t, 4>, 2> context = {};
    std::vector<std::byte> frame;
    std::optional<Descriptor> first;
  };

  uint32_t* queue_register(uint32_t offset, bool& writable, uint32_t& mask);
  void write_mailbox(uint32_t value);
  uint32_t read_mailbox();
  void pf_turn();
  void transmit(uint32_t q);
  void consume(uint32_t q, const Descriptor& d);
  void raise(uint32_t causes, uint32_t unmask = 0);
  void raise_queue(uint32_t byte_of_ivar);
  void raise_mailbox();

  Ports ports_;
  PfSide pf_;
  std::array<Queue, kQueues> rx_, tx_;
  std::array<Transmitter, kQueues> sender_;

  std::array<uint32_t, kVectors> eitr_ = {};
  uint32_t mask_ = 0, causes_ = 0, auto_clear_ = 0, auto_mask_ = 0;  // the state
  uint32_t eics_ = 0, eims_ = 0, eimc_ = 0, eicr_ = 0;  // what reads back: the last value written
  uint32_t vtivar_ = 0, vtivar_misc_ = 0;
  uint32_t pf_table_ = 0;  // the PF's IVAR entries of this VF: only ever ORed into

  Message memory_ = {};
  uint32_t status_ = 0x80;  // V2PMAILBOX; the PF has finished its own reset once
  std::optional<unsigned> request_due_;
  bool acknowledged_ = false;

  struct {
    uint32_t received, sent, bytes_received, bytes_sent, multicast_received;
  } count_ = {};
};

}  // namespace nic82576
