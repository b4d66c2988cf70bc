// SPDX-License-Identifier: Apache-2.0
#include "pci_address.hpp"

#include <gtest/gtest.h>

namespace hookline::loader {
namespace {

TEST(PciAddress, IsReadWithAndWithoutDomain) {
  EXPECT_EQ(parse_pci_address("0000:01:10.0"), (PciAddress{0, 0x01, 0x10, 0}));
  EXPECT_EQ(parse_pci_address("81:1f.7"), (PciAddress{0, 0x81, 0x1f, 7}));
  EXPECT_EQ(parse_pci_address("10000:e1:00.0"), (PciAddress{0x10000, 0xe1, 0, 0}));
}

TEST(PciAddress, NothingElseIsOne) {
  for (const char* text : {"", "0000", "0000:01:10", "0000:01:10.", "0000:01:10.8", "0000:01:20.0", "000:01:10.0", "0000:1:10.0",
                           "0000:01:10.0 ", " 01:10.0", "0000:01:10.00", "0000:0g:10.0", "0000-01-10.0", "-000:01:10.0",
                           "100000:01:10.0", "::.", "0000:01:10:0", "+1:10.0"})
    EXPECT_FALSE(parse_pci_address(text)) << text;
}

TEST(PciAddress, IsWrittenAsTheKernelWritesIt) {
  EXPECT_EQ(to_string(PciAddress{0, 0xa, 0x1f, 7}), "0000:0a:1f.7");
  EXPECT_EQ((PciAddress{0, 1, 0x10, 2}.devfn()), 0x82);
}

TEST(PciId, IsFourDigitsEach) {
  EXPECT_EQ(parse_pci_id("8086:10ca"), (PciId{0x8086, 0x10ca}));
  for (const char* text : {"", "8086", "8086:", "8086:10c", "8086:10ca1", "0x8086:10ca", "8086 10ca"}) EXPECT_FALSE(parse_pci_id(text)) << text;
  EXPECT_EQ(to_string(PciId{0x8086, 0x10ca}), "8086:10ca");
}

}  // namespace
}  // namespace hookline::loader
