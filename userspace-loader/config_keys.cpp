// SPDX-License-Identifier: Apache-2.0
#include "config_keys.hpp"

namespace hookline::loader {
namespace {

constexpr ConfigKey kFile[] = {{"defaults"}, {"devices", true}};
constexpr ConfigKey kDefaults[] = {{"on_worker_loss"}, {"limits"}, {"busy_poll"}};
constexpr ConfigKey kLimits[] = {{"state_change"}, {"access"}};
constexpr ConfigKey kDevice[] = {{"match", true}, {"create_vfs"}, {"whole_function"}, {"guest_memory"}, {"on_worker_loss"},
                                 {"limits"},      {"busy_poll"},  {"migration"},      {"chain", true}};
constexpr ConfigKey kMatch[] = {{"address"}, {"pf"}, {"vf"}, {"id"}};
constexpr ConfigKey kPlugin[] = {{"plugin", true}};
constexpr ConfigKey kHandler[] = {{"handler", true}};

}  // namespace

const ConfigSection kFileSection = {"file", "the file", kFile};
const ConfigSection kDefaultsSection = {"defaults", "\"defaults\"", kDefaults};
const ConfigSection kLimitsSection = {"limits", "\"limits\"", kLimits};
const ConfigSection kDeviceSection = {"device", "a device", kDevice};
const ConfigSection kMatchSection = {"match", "\"match\"", kMatch};
const ConfigSection kPluginSection = {"plugin", "a plugin", kPlugin};
const ConfigSection kHandlerSection = {"handler", "an in-kernel handler", kHandler};

namespace {
constexpr const ConfigSection* kSections[] = {&kFileSection,  &kDefaultsSection, &kLimitsSection, &kDeviceSection,
                                              &kMatchSection, &kPluginSection,   &kHandlerSection};
}  // namespace
const std::span<const ConfigSection* const> kAllSections = kSections;

std::vector<std::string> key_names(const ConfigSection& section) {
  std::vector<std::string> names;
  for (const ConfigKey& key : section.keys) names.push_back(key.name);
  return names;
}

}  // namespace hookline::loader
