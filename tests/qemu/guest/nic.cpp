// SPDX-License-Identifier: Apache-2.0
#include "nic.hpp"

#include <linux/if_vlan.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hookline::guest {
namespace {

// The kernel takes interface requests on any socket.
int control() {
  static const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  return fd;
}

ifreq request_for(const std::string& name) {
  ifreq request{};
  std::snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name.c_str());
  return request;
}

bool set_address(const std::string& name, unsigned long what, in_addr address) {
  ifreq request = request_for(name);
  sockaddr_in value{};
  value.sin_family = AF_INET;
  value.sin_addr = address;
  std::memcpy(&request.ifr_addr, &value, sizeof value);
  return ioctl(control(), what, &request) == 0;
}

bool raise(const std::string& name, in_addr address) {
  if (!set_address(name, SIOCSIFADDR, address) || !set_address(name, SIOCSIFNETMASK, {htonl(0xffffff00)})) return false;
  ifreq request = request_for(name);
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_MULTICAST | IFF_BROADCAST;
  return ioctl(control(), SIOCSIFFLAGS, &request) == 0;
}

constexpr int kVlan = 100;

}  // namespace

in_addr NicSettings::vlan_address() const {
  in_addr inner = address;
  reinterpret_cast<uint8_t*>(&inner.s_addr)[1] = 9;
  return inner;
}

bool Nic::exists() const {
  ifreq request = request_for(settings_.name);
  return ioctl(control(), SIOCGIFINDEX, &request) == 0;
}

bool Nic::set_mac(uint8_t last) {
  ifreq request = request_for(settings_.name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, settings_.mac.data(), settings_.mac.size());
  request.ifr_hwaddr.sa_data[5] = static_cast<char>(last);
  return ioctl(control(), SIOCSIFHWADDR, &request) == 0;
}

bool Nic::vlan(int command, int id) {
  vlan_ioctl_args request{};
  request.cmd = command;
  if (command == ADD_VLAN_CMD) {
    std::snprintf(request.device1, sizeof request.device1, "%s", settings_.name.c_str());
    request.u.VID = id;
  } else {
    std::snprintf(request.device1, sizeof request.device1, "%s.%d", settings_.name.c_str(), id);
  }
  return ioctl(control(), SIOCSIFVLAN, &request) == 0;
}

bool Nic::set_up() {
  if (!set_mac(settings_.mac[5]) || !raise(settings_.name, settings_.address)) return false;
  vlan_ioctl_args naming{};
  naming.cmd = SET_VLAN_NAME_TYPE_CMD;
  naming.u.name_type = VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD;
  if (ioctl(control(), SIOCSIFVLAN, &naming) != 0 || !vlan(ADD_VLAN_CMD, kVlan)) return false;
  if (!raise(settings_.name + "." + std::to_string(kVlan), settings_.vlan_address())) return false;
  groups_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  up_ = true;
  return groups_ >= 0;
}

bool Nic::change() {
  const unsigned number = changes_++, round = number / 6;
  ip_mreqn group{};
  group.imr_multiaddr.s_addr = htonl(0xef010200u + round % 200);
  group.imr_ifindex = static_cast<int>(if_nametoindex(settings_.name.c_str()));
  const int id = 200 + static_cast<int>(round % 8);
  switch (number % 6) {
    case 0: return vlan(ADD_VLAN_CMD, id);
    case 1: return setsockopt(groups_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0;
    case 2: return set_mac(settings_.mac[5] ^ 0x80);
    case 3: return vlan(DEL_VLAN_CMD, id);
    case 4: return setsockopt(groups_, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group) == 0;
    default: return set_mac(settings_.mac[5]);
  }
}

uint64_t Nic::interrupts() const {
  FILE* file = std::fopen("/proc/interrupts", "re");
  if (!file) return 0;
  uint64_t count = 0;
  char line[256];
  // "  25:       1234   PCI-MSIX-0000:00:04.0   0-edge      eth0-rx-0"
  while (std::fgets(line, sizeof line, file)) {
    const char* colon = std::strchr(line, ':');
    if (colon && std::strstr(colon, (" " + settings_.name).c_str())) count += std::strtoull(colon + 1, nullptr, 10);
  }
  std::fclose(file);
  return count;
}

uint64_t Nic::link_changes() const {
  FILE* file = std::fopen(("/sys/class/net/" + settings_.name + "/carrier_changes").c_str(), "re");
  unsigned long long count = 0;
  if (!file) return 0;
  if (std::fscanf(file, "%llu", &count) != 1) count = 0;
  std::fclose(file);
  return count;
}

}  // namespace hookline::guest
