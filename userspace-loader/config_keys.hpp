// SPDX-License-Identifier: Apache-2.0
//
// The keys of a configuration file, as tables: what the checker accepts, what "did you mean" chooses from, and what the
// JSON Schema and the format's page are held against by a test. Options of plugins are not here: plugins declare them.
//
// IF YOU ADD A KEY: read it in config_check.cpp, describe it in configs/README.md and configs/schema/hookline.schema.json.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace hookline::loader {

struct ConfigKey {
  const char* name;
  bool required = false;
};

/// A map of the file.
struct ConfigSection {
  const char* name;     ///< definition of the schema
  const char* in_text;  ///< "a device", as messages say it
  std::span<const ConfigKey> keys;
};

extern const ConfigSection kFileSection, kDefaultsSection, kLimitsSection, kDeviceSection, kMatchSection;
/// The two kinds of a chain's links; a plugin's options stand beside its first key.
extern const ConfigSection kPluginSection, kHandlerSection;
extern const std::span<const ConfigSection* const> kAllSections;

std::vector<std::string> key_names(const ConfigSection& section);

}  // namespace hookline::loader
