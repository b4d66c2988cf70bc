// SPDX-License-Identifier: Apache-2.0
#include "pf_netlink.hpp"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include <cerrno>
#include <cstring>

#include <gmock/gmock.h>

#include "fake_sysfs.hpp"

namespace hookline::loader {
namespace {

/// What the kernel says about a PF's VFs: VF n has MAC ..:n, VLAN 100 + n.
NetlinkMessage link_with_vfs(std::vector<uint32_t> vfs) {
  NetlinkMessage message(nlmsg_alloc_simple(RTM_NEWLINK, 0));
  ifinfomsg link{};
  nlmsg_append(message.get(), &link, sizeof link, NLMSG_ALIGNTO);
  nlattr* list = nla_nest_start(message.get(), IFLA_VFINFO_LIST);
  for (const uint32_t n : vfs) {
    nlattr* info = nla_nest_start(message.get(), IFLA_VF_INFO);
    ifla_vf_mac mac{};
    mac.vf = n;
    mac.mac[5] = static_cast<uint8_t>(n);
    nla_put(message.get(), IFLA_VF_MAC, sizeof mac, &mac);
    const ifla_vf_vlan vlan{.vf = n, .vlan = 100 + n, .qos = 3};
    nla_put(message.get(), IFLA_VF_VLAN, sizeof vlan, &vlan);
    const ifla_vf_spoofchk spoof{.vf = n, .setting = 1};
    nla_put(message.get(), IFLA_VF_SPOOFCHK, sizeof spoof, &spoof);
    const ifla_vf_trust trust{.vf = n, .setting = static_cast<uint32_t>(-1)};
    nla_put(message.get(), IFLA_VF_TRUST, sizeof trust, &trust);
    nla_nest_end(message.get(), info);
  }
  nla_nest_end(message.get(), list);
  return message;
}

TEST(PfNetlinkTest, ReadsExactlyTheVfThatWasAskedFor) {
  const auto message = link_with_vfs({0, 1, 2});
  hookline_pf_request answer{};
  ASSERT_TRUE(read_vf(nlmsg_hdr(message.get()), 1, answer));
  EXPECT_EQ(answer.mac[5], 1);
  EXPECT_EQ(answer.vlan, 101);
  EXPECT_EQ(answer.qos, 3);
  EXPECT_EQ(answer.spoofcheck, 1);
  EXPECT_EQ(answer.trusted, 0) << "a driver that does not know says -1";
}

TEST(PfNetlinkTest, NothingAboutTheVfIsNoAnswer) {
  hookline_pf_request answer{};
  answer.vlan = 7;
  EXPECT_FALSE(read_vf(nlmsg_hdr(link_with_vfs({0, 2}).get()), 1, answer));
  EXPECT_EQ(answer.vlan, 7) << "and leaves the request as it was";
}

TEST(PfNetlinkTest, RL3_SetsOneVfAndNothingElse) {
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_SET_VLAN;
  request.vlan = 42;
  const auto message = pf_message(request, 5, 3);
  ASSERT_TRUE(message);
  nlmsghdr* header = nlmsg_hdr(message.get());
  EXPECT_EQ(header->nlmsg_type, RTM_SETLINK);
  EXPECT_EQ(static_cast<ifinfomsg*>(nlmsg_data(header))->ifi_index, 5);
  nlattr* attributes[IFLA_MAX + 1];
  ASSERT_EQ(nlmsg_parse(header, sizeof(ifinfomsg), attributes, IFLA_MAX, nullptr), 0);
  nlattr* info = static_cast<nlattr*>(nla_data(attributes[IFLA_VFINFO_LIST]));
  EXPECT_EQ(nla_type(info), IFLA_VF_INFO);
  nlattr* vlan = static_cast<nlattr*>(nla_data(info));
  ASSERT_EQ(nla_type(vlan), IFLA_VF_VLAN);
  ifla_vf_vlan value;
  std::memcpy(&value, nla_data(vlan), sizeof value);
  EXPECT_EQ(value.vf, 3u);
  EXPECT_EQ(value.vlan, 42u);
  EXPECT_EQ(nla_len(attributes[IFLA_VFINFO_LIST]), nla_total_size(nla_total_size(sizeof value))) << "one attribute, no more";
}

TEST(PfNetlinkTest, AFunctionThatIsNoVfHasNobodyToAsk) {
  FakeSysfs host;
  host.pf("0000:01:00.0", "igb", 1);
  const Sysfs sysfs(host.root());
  hookline_pf_request request{};
  request.what = HOOKLINE_PF_GET;
  EXPECT_EQ(PfNetlink(sysfs, std::nullopt, kNoVf).perform(request).error().code, EOPNOTSUPP);
  EXPECT_EQ(PfNetlink(sysfs, parse_pci_address("0000:01:00.0"), 0).perform(request).error().code, ENODEV);
}

}  // namespace
}  // namespace hookline::loader
