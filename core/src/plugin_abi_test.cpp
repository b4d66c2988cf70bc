// SPDX-License-Identifier: Apache-2.0
#include "plugin_abi_test.c"

#include <cstddef>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio_pci_hooks.h>

#include <hookline/chain.hpp>
#include <hookline/open_device.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

// What a plugin writes down is what the kernel reads.
static_assert(sizeof(hookline_step) == sizeof(vfio_pci_hooks_step));
static_assert(HOOKLINE_STEP_WRITE == VFIO_PCI_HOOKS_STEP_WRITE &&
              HOOKLINE_STEP_MODIFY == VFIO_PCI_HOOKS_STEP_MODIFY &&
              HOOKLINE_STEP_SAVE == VFIO_PCI_HOOKS_STEP_SAVE &&
              HOOKLINE_STEP_RESTORE == VFIO_PCI_HOOKS_STEP_RESTORE &&
              HOOKLINE_STEP_POLL == VFIO_PCI_HOOKS_STEP_POLL &&
              HOOKLINE_STEP_DELAY == VFIO_PCI_HOOKS_STEP_DELAY &&
              HOOKLINE_STEP_FILL == VFIO_PCI_HOOKS_STEP_FILL);
static_assert(HOOKLINE_SAVED == VFIO_PCI_HOOKS_SAVED && HOOKLINE_MAX_STEPS == VFIO_PCI_HOOKS_MAX_STEPS);
static_assert(HOOKLINE_WANT_READ == VFIO_PCI_HOOKS_OP_READ && HOOKLINE_WANT_WRITE == VFIO_PCI_HOOKS_OP_WRITE);

TEST(PluginAbi, APluginInPlainCWorks) {
  test::Journal journal;
  test::FakeAccess device(journal);
  const Result<Link> link = make_link(hookline_plugin_v1);
  ASSERT_TRUE(link) << link.error().text;
  const Result<Chain> chain = build_chain({*link});
  ASSERT_TRUE(chain) << chain.error().text;
  EXPECT_TRUE(chain->has_guard()) << "zero is the safe value";

  std::vector<std::string> log;
  const auto open =
      OpenDevice::open(*chain, device, {}, [&](uint32_t, std::string_view plugin, std::string_view text) {
        log.push_back(std::string(plugin) + ": " + std::string(text));
      });
  ASSERT_TRUE(open);
  EXPECT_THAT(log, ::testing::ElementsAre("plain: plain C is here"));
  hookline_access access{};
  access.offset = 8;
  access.length = 4;
  EXPECT_EQ((*open)->access(access).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(access.value, 0xc11U);
}

}  // namespace
}  // namespace hookline
