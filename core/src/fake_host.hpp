// SPDX-License-Identifier: Apache-2.0
//
// For tests: one host with its fake device, and the chain of fake plugins that is opened on it.
//
//     struct Host : test::FakeHost {
//       FakePlugin owner{"owner", journal};
//     } host;
//     host.open(links(host.owner));
//     DeviceStateLoader loader(*host.device);
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "fake_plugin.hpp"

namespace hookline::test {

struct FakeHost {
  /// The journal begins behind it.
  void open(std::vector<Link> chosen) {
    Result<Chain> built = build_chain(std::move(chosen));
    ASSERT_TRUE(built) << built.error().text;
    chain = std::make_unique<Chain>(std::move(*built));
    auto opened = OpenDevice::open(*chain, access, {});
    ASSERT_TRUE(opened) << opened.error().text;
    device = std::move(*opened);
    journal.clear();
  }

  Journal journal;
  FakeAccess access{journal};
  std::unique_ptr<Chain> chain;
  std::unique_ptr<OpenDevice> device;
};

}  // namespace hookline::test
