// SPDX-License-Identifier: Apache-2.0
#include "pf_change.hpp"

#include <gmock/gmock.h>

namespace hookline::loader {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

constexpr PfSettings kFound{.mac = {2, 0, 0, 0, 0, 0x99}, .vlan = 7, .qos = 3};
const PciAddress kVf = *parse_pci_address("0000:01:10.2");

hookline_pf_request set_mac(uint8_t last) {
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_SET_MAC;
  request.mac[0] = 2;
  request.mac[5] = last;
  return request;
}

hookline_pf_request set_vlan(uint16_t vlan, uint16_t qos = 0) {
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_SET_VLAN;
  request.vlan = vlan;
  request.qos = qos;
  return request;
}

PfSettings after(PfSettings settings, const hookline_pf_request& request) {
  const PfSettings asked = settings_of(request);
  if (request.what == HOOKLINE_PF_SET_MAC) settings.mac = asked.mac;
  if (request.what == HOOKLINE_PF_SET_VLAN) settings.vlan = asked.vlan, settings.qos = asked.qos;
  return settings;
}

/// One request after the other, each remembered and performed.
struct Requests {
  std::optional<PfChange> change{};
  PfSettings now = kFound;
  void perform(const hookline_pf_request& request) {
    change = with_request(change, kVf, now, request);
    now = after(now, request);
  }
};

TEST(PfChangeTest, LD2_WhatWasFoundBeforeTheFirstOfManyRequestsIsPutBack) {
  Requests requests;
  requests.perform(set_mac(1));
  requests.perform(set_vlan(0));
  requests.perform(set_mac(2));
  requests.perform(set_vlan(9, 1));
  PfSettings now = requests.now;
  for (const hookline_pf_request& request : put_back(*requests.change, now)) now = after(now, request);
  EXPECT_EQ(now, kFound);
  EXPECT_THAT(put_back(*requests.change, now), IsEmpty());
}

TEST(PfChangeTest, LD2_OnlyWhatWasChangedIsPutBack) {
  Requests requests;
  requests.perform(set_mac(1));
  const auto back = put_back(*requests.change, requests.now);
  ASSERT_THAT(back, SizeIs(1));
  EXPECT_EQ(describe(back[0]), "the address 02:00:00:00:00:99");
}

TEST(PfChangeTest, LD2_WhatTheAdministratorHasSetSinceStays) {
  Requests requests;
  requests.perform(set_mac(1));
  requests.perform(set_vlan(9));
  requests.now = after(requests.now, set_mac(0x55));
  auto back = put_back(*requests.change, requests.now);
  ASSERT_THAT(back, SizeIs(1));
  EXPECT_EQ(describe(back[0]), "VLAN 7 with priority 3");

  // And a later request of the plugin replaces the administrator's new one, not the old one.
  requests.perform(set_mac(2));
  back = put_back(*requests.change, requests.now);
  ASSERT_THAT(back, SizeIs(2));
  EXPECT_EQ(describe(back[0]), "the address 02:00:00:00:00:55");
}

TEST(PfChangeTest, LD2_ARequestForWhatIsThereChangesNothing) {
  Requests requests;
  requests.perform(set_mac(0x99));
  EXPECT_THAT(put_back(*requests.change, requests.now), IsEmpty());
}

TEST(PfChangeTest, VlansReadAsPeopleWriteThem) {
  EXPECT_EQ(describe(set_vlan(0)), "no VLAN");
  EXPECT_EQ(describe(set_vlan(12)), "VLAN 12");
}

}  // namespace
}  // namespace hookline::loader
