// SPDX-License-Identifier: Apache-2.0
//
// A file's tree to a checked configuration. All that is wrong is found in one run. Neither root nor a device is needed:
// what only the hardware can tell is not asked here.
//
//     Source source(path, *read_config_file(path));
//     Diagnostics found;
//     std::optional<Config> config = load_config(source, catalog, found);
//     for (const Diagnostic& d : found.sorted()) std::cerr << render(source, d, color);
//
// Thread rule: one thread. Errors: in `diagnostics`; a configuration only when there are none (warnings do not count).
#pragma once

#include <optional>

#include "config_model.hpp"
#include "config_parse.hpp"
#include "plugin_catalog.hpp"

namespace hookline::loader {

std::optional<Config> load_config(const Source& source, PluginCatalog& catalog, Diagnostics& diagnostics);

}  // namespace hookline::loader
