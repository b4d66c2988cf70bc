// SPDX-License-Identifier: Apache-2.0
//
// Requests of a plugin to the PF's side of its own VF, done by rtnetlink: what `ip link set PF vf N ...` does.
//
// PF and VF index are fixed at construction; a request cannot name another function. One thread. Errors: EOPNOTSUPP for
// a function that is no VF, ENODEV where the PF has no network interface, else what the PF's driver said.
//
//     PfNetlink netlink(sysfs, *device.pf, device.vf_index);
//     auto done = netlink.perform(request);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <netlink/msg.h>

#include "hookline/plugin.h"
#include "hookline/result.hpp"
#include "pci_address.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

class PfNetlink {
 public:
  PfNetlink(const Sysfs& sysfs, std::optional<PciAddress> pf, uint32_t vf_index)
      : sysfs_(sysfs), pf_(pf), vf_(vf_index) {}

  Result<void> perform(hookline_pf_request& request) const;

 private:
  const Sysfs& sysfs_;
  std::optional<PciAddress> pf_;
  uint32_t vf_;
};

struct NetlinkMessageFree {
  void operator()(nl_msg* message) const { nlmsg_free(message); }
};
using NetlinkMessage = std::unique_ptr<nl_msg, NetlinkMessageFree>;

/// RTM_SETLINK, or RTM_GETLINK for HOOKLINE_PF_GET; null: out of memory.
NetlinkMessage pf_message(const hookline_pf_request& request, int pf_interface, uint32_t vf);

/// Fills the answer from an RTM_NEWLINK; false: it says nothing of this VF.
bool read_vf(const nlmsghdr* message, uint32_t vf, hookline_pf_request& answer);

}  // namespace hookline::loader
