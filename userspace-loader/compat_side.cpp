// SPDX-License-Identifier: Apache-2.0
#include "compat_side.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include <fmt/core.h>
#include <hookline/chain_descriptor.hpp>

#include "config_check.hpp"
#include "device_chain.hpp"

namespace hookline::loader {
namespace {

/// More than a descriptor may have, so that one that is too long is told apart from one that is whole.
constexpr size_t kEnough = kMaxMigrationInfo + 1;

Undescribed wrong_file(const std::string& name, std::string text) {
  return {.name = name, .code = kUsage, .reason = {.text = std::move(text)}};
}

Undescribed no_migration(const std::string& name, std::string text, std::string fix) {
  return {.name = name,
          .code = kNo,
          .reason = {.code = "not-migratable", .field = "migration_version", .text = std::move(text), .fix = std::move(fix)}};
}

Undescribed not_known(const std::string& name, std::string field, std::string text, std::string fix) {
  return {.name = name,
          .code = kUnknown,
          .reason = {.code = "unknown-device", .field = std::move(field), .text = std::move(text), .fix = std::move(fix)}};
}

std::string read_at_most(std::istream& in, size_t most) {
  std::string text(most, '\0');
  in.read(text.data(), static_cast<std::streamsize>(most));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

/// What sysfs answers: absent and failing mean the same, not compatible; the difference is what to do.
Described<std::string> ask_device(const PciAddress& address, const CompatHost& host) {
  const std::string name = to_string(address);
  if (!host.sysfs.exists(address))
    return tl::make_unexpected(no_migration(name, fmt::format("there is no PCI function {} on this host", name),
                                            "`hookline status` lists the devices that are set up"));
  auto version = host.sysfs.migration_version(address);
  if (version) return *version;
  if (version.error().code == ENOENT)
    return tl::make_unexpected(
        no_migration(name, "the device has no migration_version: it is not bound to vfio-pci-hooks, or no plugin of its chain migrates it",
                     "`hookline status` says which; `hookline apply` binds it"));
  return tl::make_unexpected(no_migration(name, fmt::format("the device does not answer: {}", std::strerror(version.error().code)),
                                          "`hookline status` says whether a worker serves it; the log of its supervisor says why not"));
}

Described<Descriptor> read_text(const std::string& name, const std::string& text) {
  auto descriptor = parse_descriptor(text);
  if (!descriptor) return tl::make_unexpected(wrong_file(name, descriptor.error().text));
  return *std::move(descriptor);
}

Described<Side> describe_file(const std::string& word) {
  std::ifstream opened;
  if (word != "-") {
    opened.open(word, std::ios::binary);
    if (!opened) return tl::make_unexpected(wrong_file(word, fmt::format("cannot open it: {}", std::strerror(errno))));
  }
  std::istream& in = word == "-" ? std::cin : opened;
  std::string text = read_at_most(in, kEnough);
  if (in.bad()) return tl::make_unexpected(wrong_file(word, "cannot read it"));
  auto descriptor = read_text(word, text);
  if (!descriptor) return tl::make_unexpected(descriptor.error());
  return Side{.name = word, .descriptor = *std::move(descriptor)};
}

struct Look {
  Side side;
  bool worker_agrees;
};

/// One look at the device; its files are read one after the other.
Described<Look> look_at(const PciAddress& address, const Result<std::optional<DeviceRecord>>& record, const CompatHost& host) {
  const std::string name = to_string(address);
  const auto version = ask_device(address, host);
  if (!version) return tl::make_unexpected(version.error());
  if (!record) return tl::make_unexpected(not_known(name, "chain", record.error().text, "apply its configuration again"));
  if (!*record)
    return tl::make_unexpected(not_known(name, "chain", "it was not set up by hookline on this host",
                                         "set it up with `hookline apply FILE`"));
  const auto chain = load_chain((*record)->device, true);
  if (!chain) return tl::make_unexpected(not_known(name, "chain", chain.error().text, "apply its configuration again"));
  std::vector<std::string> values;
  for (const hookline_parameter& p : chain->parameters()) {
    auto value = host.sysfs.migration_value(address, p.name);
    if (!value)
      return tl::make_unexpected(not_known(name, fmt::format("parameters.{}", p.name), value.error().text,
                                           "apply its configuration again: its plugin has been replaced since"));
    values.push_back(*std::move(value));
  }
  auto descriptor = describe_chain(*chain, values, (*record)->device.config_space);
  if (!descriptor)
    return tl::make_unexpected(not_known(name, "chain", descriptor.error().text, "apply its configuration again"));
  const Result<bool> open = host.is_open(address);
  const auto expected = migration_version(*descriptor);
  return Look{.side = {name, *std::move(descriptor), !open ? Use::not_known : (*open ? Use::open : Use::free)},
              .worker_agrees = expected && *expected == *version};
}

}  // namespace

bool names_config(std::string_view word) { return word.ends_with(".yaml") || word.ends_with(".yml"); }

Described<Side> describe_source(const std::string& word, const CompatHost& host) {
  const auto address = parse_pci_address(word);
  if (!address) return describe_file(word);
  const auto text = ask_device(*address, host);
  if (!text) return tl::make_unexpected(text.error());
  auto descriptor = parse_descriptor(*text);
  if (!descriptor)
    return tl::make_unexpected(not_known(word, "migration_version",
                                         fmt::format("its migration_version is not Hookline's: {}", descriptor.error().text),
                                         "ask the driver that the device is bound to"));
  return Side{.name = word, .descriptor = *std::move(descriptor)};
}

Described<Side> describe_device(const PciAddress& address, const CompatHost& host) {
  const std::string name = to_string(address);
  const auto record = host.state.device(address);
  // Somebody may write a value between one read and the next.
  for (int again = 0; again < 2; ++again) {
    auto look = look_at(address, record, host);
    if (!look) return tl::make_unexpected(look.error());
    if (look->worker_agrees) return std::move(look->side);
  }
  return tl::make_unexpected(not_known(name, "migration_version",
                                       "its worker answers otherwise than the plugins on disk: they were replaced since it was started",
                                       "restart its worker (`systemctl restart hookline@DEVICE`), then ask again"));
}

Described<std::vector<Side>> describe_config(const std::string& file, const Globals& globals) {
  const auto text = read_config_file(file);
  if (!text) return tl::make_unexpected(wrong_file(file, text.error().text));
  const Source source(file, *text);
  PluginCatalog catalog(plugin_search_path(globals.plugin_dirs, globals.root), {.allow_untrusted = globals.allow_untrusted});
  Diagnostics diagnostics;
  const auto config = load_config(source, catalog, diagnostics);
  if (!config) {
    std::string errors;
    for (const Diagnostic& d : diagnostics.sorted()) errors += render(source, d, globals.color);
    return tl::make_unexpected(wrong_file(file, "it is not a correct configuration\n" + errors));
  }
  std::vector<Side> sides;
  for (const DeviceConfig& device : config->devices) {
    if (!device.plugins || !device.plugins->owner()) continue;
    std::vector<std::string> values = device.plugins->init_values();
    for (size_t i = 0; i < device.parameters.size(); ++i)
      if (device.parameters[i]) values[i] = *device.parameters[i];
    auto descriptor = describe_chain(*device.plugins, values);
    if (!descriptor) return tl::make_unexpected(wrong_file(file, descriptor.error().text));
    sides.push_back({.name = fmt::format("{}:{}", file, device.where.line), .descriptor = *std::move(descriptor)});
  }
  if (sides.empty())
    return tl::make_unexpected(no_migration(file, "no device of this configuration has a plugin that migrates it",
                                            "add a plugin that does to its chain"));
  return sides;
}

Described<std::vector<Side>> describe_destinations(const std::string& word, const CompatHost& host, const Globals& globals) {
  if (names_config(word)) return describe_config(word, globals);
  const auto address = parse_pci_address(word);
  auto side = address ? describe_device(*address, host) : describe_file(word);
  if (!side) return tl::make_unexpected(side.error());
  return std::vector<Side>{*std::move(side)};
}

}  // namespace hookline::loader
