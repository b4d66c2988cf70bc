// SPDX-License-Identifier: Apache-2.0
//
// From a configured device to what the kernel is told and the worker runs: the function it is, its plugins as a core
// Chain, its definition.
//
// apply and the worker both go through here, so they cannot disagree. Thread rule: that of plugin_library.hpp. Errors:
// Result, naming device and plugin.
//
//     AppliedDevice device = resolve(config.devices[0], *sysfs.function(address), options);
//     Result<Chain> chain = load_chain(device, {.rehearse = false});
//     Definition definition = definition_of(device);
//     definition.parameters = parameter_values(device, {});
//     control->define(definition, *chain);
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <hookline/chain.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/hook_serve.hpp>

#include "config_model.hpp"
#include "device_record.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

vfio_pci_hooks_address to_uapi(const PciAddress& address);

AppliedDevice resolve(const DeviceConfig& config, const PciFunction& function, bool allow_untrusted, std::string config_file);

/// Loads the plugins and gives each its options.
Result<Chain> load_chain(const AppliedDevice& device, bool rehearse);

Definition definition_of(const AppliedDevice& device);

/// How the worker's loop runs; log and stop are the worker's own.
ServeOptions serve_options_of(const AppliedDevice& device);

/// Name and value of each migration parameter: what was written since the last apply and is `kept`, else what the
/// configuration wants.
std::vector<std::pair<std::string, std::string>> parameter_values(const AppliedDevice& device,
                                                                  const std::vector<AppliedParameter>& kept);

/// What the loaded module lacks for this device, one line each; empty: nothing.
std::vector<std::string> lacking(const vfio_pci_hooks_features& module, const AppliedDevice& device, const Chain& chain);

}  // namespace hookline::loader
