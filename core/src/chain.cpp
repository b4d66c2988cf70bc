// SPDX-License-Identifier: Apache-2.0
#include <hookline/chain.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include <hookline/parameters.hpp>

namespace hookline {

namespace {

constexpr size_t kSmallestPlugin = offsetof(hookline_plugin, open) + sizeof(hookline_plugin::open);

std::string version(const hookline_abi& abi) {
  return fmt::format("{}.{}", abi.major, abi.minor);
}

Result<void> check_abi(const hookline_abi& abi) {
  if (abi.magic != HOOKLINE_ABI_MAGIC)
    return fail(EPROTONOSUPPORT, fmt::format("this is no plugin: its magic number is {:#010x}, not {:#010x}",
                                             abi.magic, HOOKLINE_ABI_MAGIC));
  if (abi.major != HOOKLINE_ABI_MAJOR)
    return fail(EPROTONOSUPPORT,
                fmt::format("the plugin is built for plugin ABI {}, this host has {}.{}: rebuild the "
                            "plugin against this host's hookline/plugin.h",
                            version(abi), HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR));
  if (abi.size < kSmallestPlugin)
    return fail(
        EINVAL,
        fmt::format("the plugin's object has {} bytes, too few to hold an open(): it was built without "
                    "hookline/plugin.h",
                    abi.size));
  if (const uint64_t missing = abi.required & ~uint64_t{HOOKLINE_HOST_FEATURES})
    return fail(EPROTONOSUPPORT,
                fmt::format("the plugin requires host features {:#x} that this host does not have: use "
                            "a newer hookline",
                            missing));
  return {};
}

}  // namespace

Result<Link> make_link(const hookline_plugin& exported, std::vector<OptionValue> options,
                       std::shared_ptr<const void> library) {
  if (const Result<void> ok = check_abi(exported.abi); !ok) return fail(ok.error());
  Link link;
  std::memcpy(&link.plugin, &exported, std::min<size_t>(exported.abi.size, sizeof(link.plugin)));
  if (!link.plugin.name || !*link.plugin.name) return fail(EINVAL, "the plugin has no name");
  if (!link.plugin.open || !link.plugin.close)
    return fail(EINVAL, fmt::format("plugin \"{}\": open() and close() are required", link.name()));
  if (options.size() > link.plugin.nr_keys)
    return fail(EINVAL, fmt::format("plugin \"{}\": {} options, it has {}", link.name(), options.size(),
                                    link.plugin.nr_keys));
  options.resize(link.plugin.nr_keys);
  link.options = std::move(options);
  link.library = std::move(library);
  return link;
}

std::vector<std::string> Chain::init_values() const {
  std::vector<std::string> values;
  for (const hookline_parameter& parameter : parameters_) values.emplace_back(parameter.init_value);
  return values;
}

std::string Chain::emits(std::span<const std::string> values) const {
  if (version_parameter_) return values[*version_parameter_];
  if (!owner_) return {};
  const char* version = links_[*owner_].plugin.migration_version;
  return version ? version : "";
}

Result<void> Chain::check_values(std::span<const std::string> values) const {
  if (values.size() != parameters_.size())
    return fail(EINVAL,
                fmt::format("{} values for {} migration parameters", values.size(), parameters_.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const hookline_parameter& parameter = parameters_[i];
    if (is_allowed(parameter.allowed_values, values[i])) continue;
    return fail(EINVAL, fmt::format("migration parameter \"{}\" cannot be \"{}\"; allowed: {}",
                                    parameter.name, values[i], parameter.allowed_values));
  }
  return {};
}

}  // namespace hookline
