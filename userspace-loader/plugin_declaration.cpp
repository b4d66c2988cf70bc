// SPDX-License-Identifier: Apache-2.0
#include "plugin_declaration.hpp"

#include <linux/vfio_pci_hooks.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "config_values.hpp"
#include "diagnostics.hpp"
#include "pci_address.hpp"

namespace hookline::loader {
namespace {

template <typename... Args>
tl::unexpected<Error> refuse(const hookline_plugin& plugin, fmt::format_string<Args...> text, Args&&... args) {
  return fail(EINVAL, fmt::format("plugin \"{}\": {}", plugin.name, fmt::format(text, std::forward<Args>(args)...)));
}

bool is_plain(const char* text, size_t limit) {
  const std::string_view view = text;
  return view.size() <= limit && std::all_of(view.begin(), view.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// As the ABI says; "plugin" and "handler" stand beside the options in the configuration.
bool is_option_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.front() >= 'a' && name.front() <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos && name != "plugin" &&
         name != "handler";
}

bool is_value(const hookline_key& key, const char* text) {
  switch (key.type) {
    case HOOKLINE_KEY_BOOL: return parse_bool(text).has_value();
    case HOOKLINE_KEY_UINT: {
      const auto number = parse_number(text);
      return number && *number >= key.min && (key.max == 0 || *number <= key.max);
    }
    case HOOKLINE_KEY_CHOICE: {
      const auto choices = split_choices(key.choices);
      return std::find(choices.begin(), choices.end(), text) != choices.end();
    }
    default: return true;
  }
}

Result<void> check_texts(const hookline_plugin& p) {
  if (!p.version || !*p.version) return refuse(p, "it has no version");
  const struct {
    const char* name;
    const char* text;
    size_t limit;
  } texts[] = {
      {"version", p.version, 63},
      {"summary", p.summary, 200},
      {"model", p.model, 255},
      {"migration_version", p.migration_version, 4096},
  };
  for (const auto& field : texts)
    if (field.text && !is_plain(field.text, field.limit))
      return refuse(p, "its {} is not one line of at most {} printable ASCII characters", field.name, field.limit);
  if (p.claims & HOOKLINE_CLAIM_MIGRATION) {
    if (!p.model || !*p.model) return refuse(p, "it owns migration but names no model; set .model, such as \"com.example/toy\"");
    if (!p.migration_version || !*p.migration_version) return refuse(p, "it owns migration but has no migration_version");
    if (!p.max_state) return refuse(p, "it owns migration but says nothing of its largest state; set .max_state");
  }
  return {};
}

Result<void> check_claims(const hookline_plugin& p) {
  if (const uint32_t unknown = p.claims & ~HOOKLINE_CLAIM_MIGRATION)
    return refuse(p, "claims 0x{:x}, which this hookline does not know; install a newer hookline", unknown);
  if (p.unknown_op != HOOKLINE_UNKNOWN_REFUSE && p.unknown_op != HOOKLINE_UNKNOWN_PASS)
    return refuse(p, "its unknown_op is {}; use HOOKLINE_UNKNOWN_REFUSE or HOOKLINE_UNKNOWN_PASS", p.unknown_op);
  return {};
}

Result<void> check_registers(const hookline_plugin& p) {
  static constexpr std::array<uint32_t, 4> kWidths = {1, 2, 4, 8};
  for (uint32_t i = 0; i < p.nr_registers; ++i) {
    const hookline_register& r = p.registers[i];
    if (!r.name || !*r.name || !is_plain(r.name, 63)) return refuse(p, "register {} has no proper name", i);
    if (std::find(kWidths.begin(), kWidths.end(), r.width) == kWidths.end())
      return refuse(p, "register \"{}\" is {} bytes wide; use 1, 2, 4 or 8", r.name, r.width);
  }
  return {};
}

Result<void> check_keys(const hookline_plugin& p) {
  std::set<std::string_view> names;
  for (uint32_t i = 0; i < p.nr_keys; ++i) {
    const hookline_key& key = p.keys[i];
    if (!key.name || !is_option_name(key.name))
      return refuse(p, "option {} is called \"{}\"; names are a-z, 0-9 and _, open with a letter, and are not \"plugin\" or "
                       "\"handler\"",
                    i, key.name ? printable(key.name) : "");
    if (!names.insert(key.name).second) return refuse(p, "option \"{}\" is declared twice", key.name);
    if (key.type < HOOKLINE_KEY_BOOL || key.type > HOOKLINE_KEY_CHOICE)
      return refuse(p, "option \"{}\" is of type {}, which this hookline does not know; install a newer hookline", key.name, key.type);
    if (const uint32_t unknown = key.flags & ~(HOOKLINE_KEY_REQUIRED | HOOKLINE_KEY_HANDLER))
      return refuse(p, "option \"{}\" has flags 0x{:x}, which this hookline does not know; install a newer hookline", key.name, unknown);
    if ((key.flags & HOOKLINE_KEY_HANDLER) &&
        (key.type != HOOKLINE_KEY_BOOL || !key.choices || !is_handler_name(key.choices)))
      return refuse(p, "option \"{}\" puts an in-kernel handler into the chain, but is no bool or names none", key.name);
    if (key.help && !is_plain(key.help, 200))
      return refuse(p, "the help of option \"{}\" is not one line of at most 200 printable ASCII characters", key.name);
    if (key.type == HOOKLINE_KEY_UINT && key.max != 0 && key.min > key.max)
      return refuse(p, "option \"{}\" has a minimum of {} and a maximum of {}", key.name, key.min, key.max);
    if (key.type == HOOKLINE_KEY_CHOICE) {
      const auto choices = split_choices(key.choices);
      const auto bad = [](const std::string& choice) { return choice.empty() || !is_plain(choice.c_str(), 63); };
      if (choices.empty() || std::any_of(choices.begin(), choices.end(), bad))
        return refuse(p, "option \"{}\" is a choice without proper choices; write them as \"a|b|c\"", key.name);
    }
    if (key.default_value && (key.flags & HOOKLINE_KEY_REQUIRED))
      return refuse(p, "option \"{}\" is required and has a default; it can be one of both", key.name);
    if (key.default_value && (!is_plain(key.default_value, 200) || !is_value(key, key.default_value)))
      return refuse(p, "the default of option \"{}\", \"{}\", is not one of its values", key.name, printable(key.default_value));
  }
  return {};
}

}  // namespace

Result<void> check_declaration(const hookline_plugin& p) {
  if (!p.name || !is_plugin_name(p.name))
    return fail(EINVAL, fmt::format("the plugin calls itself \"{}\"; names are a-z, 0-9 and -, do not open with -, and have at "
                                    "most 31 characters",
                                    p.name ? printable(p.name) : ""));
  for (const auto check : {check_texts, check_claims, check_registers, check_keys})
    if (auto ok = check(p); !ok) return ok;
  return {};
}

bool is_plugin_name(std::string_view name) {
  if (name.empty() || name.size() > 31 || name.front() == '-') return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

bool is_handler_name(std::string_view name) {
  return !name.empty() && name.size() < VFIO_PCI_HOOKS_NAME_LEN &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") == std::string_view::npos;
}

std::vector<std::string> split_choices(const char* choices) {
  std::vector<std::string> all;
  if (!choices || !*choices) return all;
  std::string_view rest = choices;
  for (size_t bar; (bar = rest.find('|')) != std::string_view::npos; rest.remove_prefix(bar + 1)) all.emplace_back(rest.substr(0, bar));
  all.emplace_back(rest);
  return all;
}

std::string device_ids(const hookline_plugin& plugin) {
  std::vector<std::string> ids;
  for (uint32_t i = 0; i < plugin.nr_devices; ++i) ids.push_back(to_string(PciId{plugin.devices[i].vendor, plugin.devices[i].device}));
  return fmt::format("{}", fmt::join(ids, ", "));
}

}  // namespace hookline::loader
