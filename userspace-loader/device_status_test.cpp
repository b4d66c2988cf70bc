// SPDX-License-Identifier: Apache-2.0
#include "device_status.hpp"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace hookline::loader {
namespace {

using testing::HasSubstr;
using testing::Not;

DeviceStatus example() {
  DeviceStatus status{.record = {.device = {.address = *parse_pci_address("0000:01:10.0"),
                                            .migrates = true,
                                            .parameters = {{"state_version", "2"}, {"queues", "4"}, {"cache", "on"}}}}};
  status.parameters = {{"state_version", "1"}, {"queues", "4"}};
  return status;
}

TEST(DeviceStatus, ShowsWhereAValueIsNotTheConfiguredOne) {
  const std::vector<Drift> drifted = drift(example());
  ASSERT_EQ(drifted.size(), 1u);
  EXPECT_EQ(drifted[0].name, "state_version");
  EXPECT_EQ(drifted[0].present, "1");
  EXPECT_EQ(drifted[0].configured, "2");
}

TEST(DeviceStatus, SaysItToPeople) {
  const std::string text = status_text(example());
  EXPECT_THAT(text, HasSubstr("state_version = 1 (configured: 2)"));
  EXPECT_THAT(text, HasSubstr("queues = 4"));
  EXPECT_THAT(text, Not(HasSubstr("queues = 4 (")));
  EXPECT_THAT(text, HasSubstr("cache = not known"));
}

TEST(DeviceStatus, TellsOfAWorkerThatKeepsACpuBusy) {
  DeviceStatus status = example();
  EXPECT_THAT(status_text(status), Not(HasSubstr("busy poll")));
  EXPECT_EQ(status_json(status)["busy_poll_us"], 0);
  status.record.device.busy_poll = std::chrono::milliseconds(2);
  EXPECT_THAT(status_text(status), HasSubstr("busy poll    2000us"));
  EXPECT_EQ(status_json(status)["busy_poll_us"], 2000);
}

TEST(DeviceStatus, SaysItToPrograms) {
  const auto json = status_json(example())["parameters"];
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[0], (nlohmann::ordered_json{{"name", "state_version"}, {"value", "1"}, {"configured", "2"}, {"drifted", true}}));
  EXPECT_EQ(json[1]["drifted"], false);
  EXPECT_EQ(json[2], (nlohmann::ordered_json{{"name", "cache"}, {"value", nullptr}, {"configured", "on"}, {"drifted", false}}));
}

}  // namespace
}  // namespace hookline::loader
