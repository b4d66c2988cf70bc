// SPDX-License-Identifier: Apache-2.0
//
// A small driver for an Intel 82576 virtual function, for tests: own rings in memory the test gives it,
// mailbox, MSI-X vectors as Linux' igbvf lays them out (TX 0, RX 1, other 2). The same code drives a software
// model and, through VFIO, a real function.
//
// All of the driver's own state lies at the beginning of its DMA memory, as a guest driver's lies in guest
// memory: copy the memory to the destination, or share it, and adopt() goes on there without touching a
// register.
//
// Thread rule: one thread. Errors: std::runtime_error with what the device did.
//
//     VfDriver nic = VfDriver::init(bar, memory, {.mac = {2, 0, 0, 0, 0, 1}});
//     nic.send(frame);
//     while (auto received = nic.receive()) ...
//     // stop, save, load, start: then, on the destination
//     VfDriver there = VfDriver::adopt(bar_of_destination, memory);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace hookline::testing {

using MacAddress = std::array<uint8_t, 6>;

/// BAR 0 of the function.
class BarPort {
 public:
  virtual ~BarPort() = default;
  virtual uint32_t read32(uint32_t offset) = 0;
  virtual void write32(uint32_t offset, uint32_t value) = 0;
  /// Between two polls: a real PF needs about 2 ms for an answer, a model none.
  virtual void pause();
};

/// Memory the device reaches at `iova`: zeroed before init(), 4 KiB aligned.
struct DmaMemory {
  std::span<std::byte> bytes;  ///< at least VfDriver::kMemoryBytes
  uint64_t iova = 0;
};

struct VfOptions {
  MacAddress mac = {};  ///< all zero: takes what the PF says
  uint32_t queue = 0;   ///< 0 or 1
  uint32_t max_frame = 1522;
};

struct ReceivedFrame {
  std::vector<std::byte> bytes;
  std::optional<uint16_t> vlan;  ///< where the device stripped the tag
};

/// In descriptors: the device's view (heads, tails) and the driver's.
struct RingPositions {
  uint32_t rx_head, rx_tail, rx_next;
  uint32_t tx_head, tx_tail, tx_next, tx_clean;
};

struct MailboxReply {
  bool ack = false;
  std::array<uint32_t, 3> words = {};
};

struct SendOptions {
  std::optional<uint16_t> vlan;  ///< the device inserts the tag from a TX context
  bool new_context = true;       ///< false: relies on the context an earlier frame set
  bool doorbell = true;          ///< false: the descriptor is written, TDT is not
};

class VfDriver {
 public:
  static constexpr uint32_t kDescriptors = 64;
  static constexpr uint32_t kBufferBytes = 2048;
  static constexpr size_t kMemoryBytes = 3 * 4096 + 2 * size_t{kDescriptors} * kBufferBytes;
  static constexpr uint32_t kTxVector = 0, kRxVector = 1, kOtherVector = 2;

  /// Resets the function and brings it up: mailbox handshake, MAC, frame size, rings, vectors, interrupts on.
  static VfDriver init(BarPort& bar, DmaMemory memory, const VfOptions& options);
  /// Goes on with a function that was running when its state was saved; no register is touched.
  static VfDriver adopt(BarPort& bar, DmaMemory memory);

  MacAddress mac() const;
  /// False: the TX ring is full.
  bool send(std::span<const std::byte> frame, const SendOptions& options = {});
  /// Rings the TX doorbell for everything written so far.
  void doorbell();
  /// The next complete frame, its buffer given back to the device; nothing if there is none.
  std::optional<ReceivedFrame> receive();
  /// How many TX descriptors have been completed since the last call.
  uint32_t reap();
  /// What an interrupt handler does at its end: lets these vectors (a bit mask) interrupt again.
  void unmask(uint32_t vectors);

  /// Writes a request to the mailbox and takes the PF's answer.
  MailboxReply request(std::span<const uint32_t> message);
  /// The first half of it: the PF's answer is left unread.
  void post(std::span<const uint32_t> message);
  /// The second half. Throws if none comes.
  MailboxReply take_reply();
  bool set_mac(const MacAddress& mac);
  bool set_vlan(uint16_t id, bool on);
  bool set_multicast(std::span<const MacAddress> groups);
  bool set_max_frame(uint32_t bytes);
  bool set_multicast_promiscuous(bool on);

  RingPositions positions();
  /// Sum of frames the function's own counters say were received and sent.
  uint32_t good_received();
  uint32_t good_sent();

 private:
  struct State;
  VfDriver(BarPort& bar, DmaMemory memory) : bar_(&bar), memory_(memory) {}
  State& state() const;
  std::byte* at(size_t offset) const { return memory_.bytes.data() + offset; }
  uint32_t status();
  void give_rx_buffer(uint32_t index);

  BarPort* bar_;
  DmaMemory memory_;
};

}  // namespace hookline::testing
