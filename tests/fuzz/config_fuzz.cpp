// SPDX-License-Identifier: Apache-2.0
//
// `hookline check` on any text: a configuration or errors, never both and never neither; each message stands
// in the file and can be printed on any terminal.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "config_check.hpp"

namespace {

using namespace hookline::loader;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "config_fuzz: %s\n", what);
  std::abort();
}

bool is_printable(const std::string& text) {
  for (const char c : text)
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7f) return false;
  return true;
}

PluginCatalog& catalog() {
  static PluginCatalog plugins({HOOKLINE_PLUGINS}, {.allow_untrusted = true, .rehearse = false});
  return plugins;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Source source("fuzz.yaml", std::string(reinterpret_cast<const char*>(data), size));
  Diagnostics found;
  const std::optional<Config> config = load_config(source, catalog(), found);
  require(config.has_value() == (found.errors() == 0), "neither a configuration nor an error, or both");
  for (const Diagnostic& diagnostic : found.sorted()) {
    // What is missing is missing at the end, which is a line of its own.
    require(diagnostic.where.line <= source.lines() + 1, "a place behind the end of the file");
    require(!diagnostic.text.empty(), "an error without a text");
    require(is_printable(render(source, diagnostic, false)), "a message with control characters");
  }
  if (!config) return 0;
  require(!config->devices.empty(), "a configuration of no device");
  for (const DeviceConfig& device : config->devices) {
    require(!device.chain.empty(), "a device without a chain");
    require(is_printable(to_string(device.match)), "a match with control characters");
    // RL4: a configuration acts on the devices it names, and on no others.
    require(device.match.address.has_value() || !device.match.pf.empty(),
            "a device that is named by neither address nor PF");
  }
  return 0;
}
