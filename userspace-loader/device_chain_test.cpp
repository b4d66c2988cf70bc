// SPDX-License-Identifier: Apache-2.0
//
// What a configuration says arrives at the worker: from the file, by the record that apply writes down, to its loop.
#include "device_chain.hpp"

#include <gmock/gmock.h>

#include "config_check.hpp"
#include "fake_sysfs.hpp"
#include "run_state.hpp"

namespace hookline::loader {
namespace {

/// As a worker finds it that is started for the only device of the file.
AppliedDevice applied(const std::string& device_keys) {
  const Source source("test.yaml", "devices: [ { match: { address: 01:10.0 }, " + device_keys + " chain: [ { handler: doorbell } ] } ]");
  PluginCatalog catalog({}, {});
  Diagnostics found;
  const auto config = load_config(source, catalog, found);
  for (const Diagnostic& d : found.sorted()) ADD_FAILURE() << render(source, d, false);
  if (!config) return {};
  const PciFunction function{.address = *parse_pci_address("0000:01:10.0"), .id = {0x8086, 0x10ca}};
  const FakeSysfs host;
  const RunState state(host.root());
  EXPECT_TRUE(state.remember(DeviceRecord{.device = resolve(config->devices[0], function, false, "/etc/hookline/test.yaml")}));
  const auto record = state.device(function.address);
  EXPECT_TRUE(record && *record);
  return record && *record ? (*record)->device : AppliedDevice{};
}

TEST(DeviceChain, BusyPollOfTheFileReachesTheWorkersLoop) {
  EXPECT_EQ(serve_options_of(applied("busy_poll: 50us,")).busy_poll, std::chrono::microseconds(50));
  EXPECT_EQ(serve_options_of(applied("busy_poll: 2ms,")).busy_poll, std::chrono::microseconds(2000));
}

TEST(DeviceChain, AWorkerSleepsAtOnceUnlessTheFileSaysOtherwise) {
  EXPECT_EQ(serve_options_of(applied("")).busy_poll, std::chrono::microseconds(0));
}

}  // namespace
}  // namespace hookline::loader
