// SPDX-License-Identifier: Apache-2.0
//
// A network interface of the inner guest: sets it up, and changes what its driver has to tell the PF through the mailbox.
//
// One thread. What fails is false, with errno; the caller counts it.
//
//     Nic nic({.name = "eth0", .address = ..., .mac = {...}});
//     if (nic.exists() && !nic.is_up()) nic.set_up();
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <string>

namespace hookline::guest {

struct NicSettings {
  std::string name;     // eth0
  in_addr address{};    // /24
  std::array<uint8_t, 6> mac{};
  in_addr vlan_address() const;  // 10.9.N.x for 10.0.N.x
  in_addr echo{};       // who answers on TCP port 7
};

class Nic {
 public:
  explicit Nic(NicSettings settings) : settings_(std::move(settings)) {}

  const NicSettings& settings() const { return settings_; }
  bool exists() const;
  bool is_up() const { return up_; }
  /// Address, VLAN 100 with an address of its own, up.
  bool set_up();
  /// The next of a row of changes: VLANs and multicast groups come and go, the MAC changes to another and back.
  bool change();
  uint64_t interrupts() const;
  uint64_t link_changes() const;

 private:
  bool set_mac(uint8_t last);
  bool vlan(int command, int id);

  NicSettings settings_;
  bool up_ = false;
  unsigned changes_ = 0;
  int groups_ = -1;  // a socket that joins and leaves
};

}  // namespace hookline::guest
