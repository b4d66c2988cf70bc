// SPDX-License-Identifier: Apache-2.0
//
// The PF's side of one 82576 VF: what Linux' igb driver does with this VF's mailbox messages, and the filters
// it sets up.
//
// The model has no clock: the PF gets its turn with each register the VF reads, so "2 ms" are a few polls.
// Thread rule: one thread. Errors: none; a message that cannot be understood is refused with a NACK.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

namespace nic82576 {

using MacAddress = std::array<uint8_t, 6>;
using Message = std::array<uint32_t, 16>;

namespace mailbox {
constexpr uint32_t kReset = 1, kMac = 2, kMulticast = 3, kVlan = 4, kLpe = 5, kPromisc = 6,
                   kPfControl = 0x100;
constexpr uint32_t kAck = 1u << 31, kNack = 1u << 30, kClearToSend = 1u << 29, kTypeMask = 0xffff,
                   kInfoShift = 16;
}  // namespace mailbox

/// What the administrator and the host decide; tests turn these.
struct PfPolicy {
  bool in_reset = false;
  bool answers = true;
  bool trusted = false;
  bool spoof_check = true;
  MacAddress admin_mac = {};  ///< zero: none
  uint16_t port_vlan = 0;     ///< 0: none
  unsigned answer_after = 3;  ///< register reads until the ACK; the reply comes one later
};

class PfSide {
 public:
  PfPolicy policy;

  /// FLR, or CTRL.RST by the VF: everything the VF asked for is gone.
  void function_reset();
  /// igb's answer, or nothing: igb is silent until the VF has sent VF_RESET. Returns how many words of
  /// `reply` are valid.
  size_t handle(const Message& request, Message& reply);

  bool receives() const { return enabled_; }
  bool sends() const { return enabled_; }
  const MacAddress& mac() const { return mac_; }
  /// A frame without FCS; `vlan` is the tag's id, or -1.
  bool accepts(std::span<const std::byte> frame, int vlan) const;
  bool may_send(std::span<const std::byte> frame) const;

 private:
  bool set_mac(const Message& request);
  bool set_promiscuous(Message& request);

  bool enabled_ = false;  // VFRE, VFTE and clear-to-send: VF_RESET sets all three
  MacAddress mac_ = {};
  std::vector<MacAddress> filters_;
  std::vector<uint16_t> hashes_;
  bool all_multicast_ = false;
  std::set<uint16_t> vlans_;
  uint32_t max_frame_ = 0;  // 0: 1518 bytes plus tag
};

}  // namespace nic82576
