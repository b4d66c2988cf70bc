// SPDX-License-Identifier: Apache-2.0
#include "pf_netlink.hpp"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/core.h>

namespace hookline::loader {
namespace {

struct SocketFree {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
};
using NetlinkSocket = std::unique_ptr<nl_sock, SocketFree>;

int to_errno(int netlink_error) {
  switch (-netlink_error) {
    case NLE_PERM: return EPERM;
    case NLE_NOACCESS: return EACCES;
    case NLE_OPNOTSUPP: return EOPNOTSUPP;
    case NLE_INVAL: return EINVAL;
    case NLE_RANGE: return ERANGE;
    case NLE_NODEV: return ENODEV;
    case NLE_BUSY: return EBUSY;
    case NLE_NOMEM: return ENOMEM;
    case NLE_AGAIN: return EAGAIN;
    default: return EIO;
  }
}

bool put_vf_info(nl_msg* message, const hookline_pf_request& request, uint32_t vf) {
  if (request.what == HOOKLINE_PF_SET_MAC) {
    ifla_vf_mac mac{};
    mac.vf = vf;
    std::copy(std::begin(request.mac), std::end(request.mac), mac.mac);
    return nla_put(message, IFLA_VF_MAC, sizeof mac, &mac) == 0;
  }
  const ifla_vf_vlan vlan{.vf = vf, .vlan = request.vlan, .qos = request.qos};
  return nla_put(message, IFLA_VF_VLAN, sizeof vlan, &vlan) == 0;
}

struct Answer {
  uint32_t vf;
  hookline_pf_request* request;
  bool found;
};

int on_link(nl_msg* message, void* argument) {
  auto* answer = static_cast<Answer*>(argument);
  answer->found |= read_vf(nlmsg_hdr(message), answer->vf, *answer->request);
  return NL_OK;
}

/// The attribute's payload, if it is long enough to be a T.
template <typename T>
std::optional<T> payload(const nlattr* attribute) {
  if (static_cast<size_t>(nla_len(attribute)) < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, nla_data(attribute), sizeof value);
  return value;
}

bool read_vf_info(nlattr* info, uint32_t vf, hookline_pf_request& answer) {
  hookline_pf_request read = answer;
  bool is_ours = false;
  nlattr* attribute;
  int left;
  nla_for_each_nested(attribute, info, left) {
    switch (nla_type(attribute)) {
      case IFLA_VF_MAC:
        if (const auto mac = payload<ifla_vf_mac>(attribute)) {
          is_ours = mac->vf == vf;
          std::copy_n(mac->mac, sizeof read.mac, read.mac);
        }
        break;
      case IFLA_VF_VLAN:
        if (const auto vlan = payload<ifla_vf_vlan>(attribute)) {
          read.vlan = static_cast<uint16_t>(vlan->vlan);
          read.qos = static_cast<uint16_t>(vlan->qos);
        }
        break;
      // A driver that does not know says -1.
      case IFLA_VF_SPOOFCHK:
        if (const auto check = payload<ifla_vf_spoofchk>(attribute)) read.spoofcheck = check->setting == 1;
        break;
      case IFLA_VF_TRUST:
        if (const auto trust = payload<ifla_vf_trust>(attribute)) read.trusted = trust->setting == 1;
        break;
      default: break;
    }
  }
  if (is_ours) answer = read;
  return is_ours;
}

}  // namespace

NetlinkMessage pf_message(const hookline_pf_request& request, int pf_interface, uint32_t vf) {
  const bool get = request.what == HOOKLINE_PF_GET;
  NetlinkMessage message(nlmsg_alloc_simple(get ? RTM_GETLINK : RTM_SETLINK, NLM_F_REQUEST | (get ? 0 : NLM_F_ACK)));
  if (!message) return nullptr;
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = pf_interface;
  if (nlmsg_append(message.get(), &link, sizeof link, NLMSG_ALIGNTO) < 0) return nullptr;
  if (get) return nla_put_u32(message.get(), IFLA_EXT_MASK, RTEXT_FILTER_VF) == 0 ? std::move(message) : nullptr;

  nlattr* list = nla_nest_start(message.get(), IFLA_VFINFO_LIST);
  nlattr* info = list ? nla_nest_start(message.get(), IFLA_VF_INFO) : nullptr;
  if (!info || !put_vf_info(message.get(), request, vf)) return nullptr;
  nla_nest_end(message.get(), info);
  nla_nest_end(message.get(), list);
  return message;
}

bool read_vf(const nlmsghdr* message, uint32_t vf, hookline_pf_request& answer) {
  if (message->nlmsg_type != RTM_NEWLINK) return false;
  auto* header = const_cast<nlmsghdr*>(message);
  nlattr* list = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_VFINFO_LIST);
  if (!list) return false;
  nlattr* info;
  int left;
  nla_for_each_nested(info, list, left)
    if (nla_type(info) == IFLA_VF_INFO && read_vf_info(info, vf, answer)) return true;
  return false;
}

Result<void> PfNetlink::perform(hookline_pf_request& request) const {
  if (!pf_) return fail(EOPNOTSUPP, "the function is no VF, so it has no PF to ask");
  const auto netdevs = sysfs_.netdevs(*pf_);
  const unsigned interface = netdevs.empty() ? 0 : ::if_nametoindex(netdevs.front().c_str());
  if (interface == 0) return fail(ENODEV, fmt::format("the PF {} has no network interface", to_string(*pf_)));

  NetlinkMessage message = pf_message(request, static_cast<int>(interface), vf_);
  const NetlinkSocket socket(nl_socket_alloc());
  if (!message || !socket) return fail(ENOMEM, "out of memory");
  const auto failed = [&](int error) {
    return fail(to_errno(error), fmt::format("{} for VF {}: {}", netdevs.front(), vf_, nl_geterror(error)));
  };
  int error = nl_connect(socket.get(), NETLINK_ROUTE);
  if (error < 0) return failed(error);
  // libnl frees the message, whatever comes of it.
  if (request.what != HOOKLINE_PF_GET) {
    error = nl_send_sync(socket.get(), message.release());
    return error < 0 ? Result<void>(failed(error)) : Result<void>();
  }
  Answer answer{vf_, &request, false};
  nl_socket_modify_cb(socket.get(), NL_CB_VALID, NL_CB_CUSTOM, on_link, &answer);
  nl_socket_disable_auto_ack(socket.get());
  error = nl_send_auto(socket.get(), message.get());
  if (error >= 0) error = nl_recvmsgs_default(socket.get());
  if (error < 0) return failed(error);
  if (!answer.found) return fail(ENODEV, fmt::format("{} says nothing about VF {}", netdevs.front(), vf_));
  return {};
}

}  // namespace hookline::loader
