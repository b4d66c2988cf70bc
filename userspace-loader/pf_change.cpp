// SPDX-License-Identifier: Apache-2.0
#include "pf_change.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hookline::loader {
namespace {

using Vlan = std::pair<uint16_t, uint16_t>;

Vlan vlan_of(const PfSettings& settings) { return {settings.vlan, settings.qos}; }

void set_vlan(PfSettings& settings, const Vlan& vlan) { std::tie(settings.vlan, settings.qos) = vlan; }

}  // namespace

PfSettings settings_of(const hookline_pf_request& answer) {
  PfSettings settings{.vlan = answer.vlan, .qos = answer.qos};
  std::copy(std::begin(answer.mac), std::end(answer.mac), settings.mac.begin());
  return settings;
}

PfChange with_request(const std::optional<PfChange>& earlier, const PciAddress& address, const PfSettings& now,
                      const hookline_pf_request& request) {
  PfChange change = earlier.value_or(PfChange{.address = address, .found = now, .set = now});
  const PfSettings wanted = settings_of(request);
  if (request.what == HOOKLINE_PF_SET_MAC) {
    if (change.set.mac != now.mac) change.found.mac = now.mac;
    change.set.mac = wanted.mac;
  } else if (request.what == HOOKLINE_PF_SET_VLAN) {
    if (vlan_of(change.set) != vlan_of(now)) set_vlan(change.found, vlan_of(now));
    set_vlan(change.set, vlan_of(wanted));
  }
  return change;
}

std::vector<hookline_pf_request> put_back(const PfChange& change, const PfSettings& now) {
  std::vector<hookline_pf_request> requests;
  if (change.found.mac != change.set.mac && now.mac == change.set.mac) {
    hookline_pf_request& request = requests.emplace_back();
    request.what = HOOKLINE_PF_SET_MAC;
    std::copy(change.found.mac.begin(), change.found.mac.end(), request.mac);
  }
  if (vlan_of(change.found) != vlan_of(change.set) && vlan_of(now) == vlan_of(change.set)) {
    hookline_pf_request& request = requests.emplace_back();
    request.what = HOOKLINE_PF_SET_VLAN;
    request.vlan = change.found.vlan;
    request.qos = change.found.qos;
  }
  return requests;
}

std::string describe(const hookline_pf_request& request) {
  if (request.what == HOOKLINE_PF_SET_MAC) return fmt::format("the address {:02x}", fmt::join(request.mac, ":"));
  if (request.vlan == 0) return "no VLAN";
  return request.qos == 0 ? fmt::format("VLAN {}", request.vlan)
                          : fmt::format("VLAN {} with priority {}", request.vlan, request.qos);
}

}  // namespace hookline::loader
