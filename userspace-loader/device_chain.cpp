// SPDX-License-Identifier: Apache-2.0
#include "device_chain.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fmt/core.h>

#include "plugin_library.hpp"

namespace hookline::loader {
namespace {

uint32_t to_uapi(GuestMemory memory) {
  switch (memory) {
    case GuestMemory::read: return VFIO_PCI_HOOKS_MEMORY_READ;
    case GuestMemory::write: return VFIO_PCI_HOOKS_MEMORY_WRITE;
    case GuestMemory::none: break;
  }
  return VFIO_PCI_HOOKS_MEMORY_NONE;
}

Result<std::vector<OptionValue>> options_by_key(const hookline_plugin& plugin, const AppliedLink& link) {
  std::vector<OptionValue> values(plugin.nr_keys);
  for (const AppliedOption& option : link.options) {
    const auto* end = plugin.keys + plugin.nr_keys;
    const auto* key = std::find_if(plugin.keys, end, [&](const hookline_key& k) { return option.key == k.name; });
    if (key == end)
      return fail(EINVAL, fmt::format("{} has no option \"{}\" any more: it has been replaced by another version since the "
                                      "configuration was applied; apply it again", link.file, option.key));
    values[static_cast<size_t>(key - plugin.keys)] = option.value;
  }
  return values;
}

}  // namespace

vfio_pci_hooks_address to_uapi(const PciAddress& address) { return {address.domain, address.bus, address.devfn(), 0}; }

AppliedDevice resolve(const DeviceConfig& config, const PciFunction& function, bool allow_untrusted, std::string config_file) {
  AppliedDevice device{.address = function.address,
                       .id = function.id,
                       .pf = function.pf,
                       .vf_index = function.vf_index,
                       .guest_memory = config.guest_memory,
                       .on_worker_loss = config.on_worker_loss,
                       .limits = config.limits,
                       .busy_poll = config.busy_poll,
                       .migrates = config.plugins && config.plugins->owner(),
                       .allow_untrusted = allow_untrusted,
                       .config_file = std::move(config_file)};
  for (const ChainLink& link : config.chain) {
    AppliedLink applied{.name = link.name};
    if (link.plugin) {
      applied.file = std::filesystem::absolute(link.plugin->path()).lexically_normal();
      for (size_t i = 0; i < link.options.size(); ++i)
        if (link.options[i].is_set) applied.options.push_back({link.plugin->abi().keys[i].name, link.options[i]});
    }
    device.chain.push_back(std::move(applied));
  }
  if (config.plugins) {
    const std::vector<std::string> init = config.plugins->init_values();
    for (size_t i = 0; i < init.size(); ++i) {
      const bool said = i < config.parameters.size() && config.parameters[i];
      device.parameters.push_back({config.plugins->parameters()[i].name, said ? *config.parameters[i] : init[i]});
    }
  }
  return device;
}

Result<Chain> load_chain(const AppliedDevice& device, bool rehearse) {
  std::vector<Link> links;
  for (const AppliedLink& applied : device.chain) {
    if (applied.file.empty()) continue;
    const Result<PluginPtr> plugin =
        load_plugin(applied.file, {.allow_untrusted = device.allow_untrusted, .rehearse = rehearse});
    if (!plugin) return fail(plugin.error());
    auto options = options_by_key((*plugin)->abi(), applied);
    if (!options) return fail(options.error());
    auto link = make_link((*plugin)->abi(), std::move(*options), *plugin);
    if (!link) return fail(link.error());
    links.push_back(std::move(*link));
  }
  return build_chain(std::move(links));
}

Definition definition_of(const AppliedDevice& device) {
  Definition definition{.address = to_uapi(device.address),
                        .vendor = device.id.vendor,
                        .device = device.id.device,
                        .handlers = {},
                        .guest_memory = to_uapi(device.guest_memory),
                        .fail_without_worker = device.on_worker_loss == WorkerLoss::fail,
                        .access_limit_ms = static_cast<uint32_t>(device.limits.access.count()),
                        .state_limit_ms = static_cast<uint32_t>(device.limits.state_change.count())};
  for (const AppliedLink& link : device.chain) {
    // The plugins stand together and are one handler for the kernel: the channel.
    const std::string name = link.file.empty() ? link.name : VFIO_PCI_HOOKS_CHANNEL_NAME;
    if (definition.handlers.empty() || definition.handlers.back() != name) definition.handlers.push_back(name);
  }
  return definition;
}

ServeOptions serve_options_of(const AppliedDevice& device) { return {.idle_ms = 500, .busy_poll = device.busy_poll}; }

std::vector<std::pair<std::string, std::string>> parameter_values(const AppliedDevice& device,
                                                                  const std::vector<AppliedParameter>& kept) {
  std::vector<std::pair<std::string, std::string>> values;
  for (const AppliedParameter& wanted : device.parameters) {
    const auto written = std::find_if(kept.begin(), kept.end(), [&](const AppliedParameter& p) { return p.name == wanted.name; });
    values.emplace_back(wanted.name, written == kept.end() ? wanted.value : written->value);
  }
  return values;
}

std::vector<std::string> lacking(const vfio_pci_hooks_features& module, const AppliedDevice& device, const Chain& chain) {
  std::vector<std::string> found;
  const auto need = [&](bool needed, uint64_t feature, const char* what) {
    if (needed && !(module.features & feature)) found.push_back(fmt::format("the loaded vfio-pci-hooks cannot {}: load a newer one", what));
  };
  need(chain.owner().has_value(), VFIO_PCI_HOOKS_FEATURE_MIGRATION, "migrate devices");
  need(device.guest_memory != GuestMemory::none, VFIO_PCI_HOOKS_FEATURE_IOVA_RW, "reach guest memory (guest_memory)");
  need(!chain.parameters().empty(), VFIO_PCI_HOOKS_FEATURE_PARAMETERS, "keep migration parameters");
  const auto fills = [](std::span<const hookline_step> steps) {
    return std::ranges::any_of(steps, [](const hookline_step& step) { return step.op == HOOKLINE_STEP_FILL; });
  };
  need(fills(chain.stop()) || fills(chain.start()) || fills(chain.reset()), VFIO_PCI_HOOKS_FEATURE_FILL,
       "run the register step FILL");
  need(chain.ioctls() || chain.features(), VFIO_PCI_HOOKS_FEATURE_IOCTL, "hand ioctls to plugins");
  const auto limit = [&](size_t needed, uint32_t most, const char* what) {
    if (needed > most)
      found.push_back(fmt::format("the loaded vfio-pci-hooks takes {} {}, and the chain has {}: load a newer one", most, what, needed));
  };
  limit(definition_of(device).handlers.size(), module.max_handlers, "handlers");
  limit(chain.ranges().size(), module.max_ranges, "trapped ranges");
  limit(std::max({chain.stop().size(), chain.start().size(), chain.reset().size()}), module.max_steps, "register steps");
  limit(chain.shadow_size(), module.max_shadow, "bytes of shadow");
  return found;
}

}  // namespace hookline::loader
