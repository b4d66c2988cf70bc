// SPDX-License-Identifier: Apache-2.0
#include <hookline/parameters.hpp>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>

#include <fmt/format.h>

namespace hookline {

namespace {

constexpr size_t kMaxText = 255;  // of a description, of allowed values, of readable versions
constexpr std::string_view kDigits = "0123456789";

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of(kDigits) == std::string_view::npos &&
         (text.size() == 1 || text.front() != '0');
}

/// Numbers without leading zeros, so the longer one is the larger one.
bool is_at_most(std::string_view a, std::string_view b) {
  return a.size() != b.size() ? a.size() < b.size() : a <= b;
}

struct Range {
  std::string_view low, high;
};

std::optional<Range> as_range(std::string_view item) {
  const size_t dash = item.find('-');
  if (dash == std::string_view::npos) return {};
  const Range range{item.substr(0, dash), item.substr(dash + 1)};
  if (!is_number(range.low) || !is_number(range.high)) return {};
  return range;
}

/// Digits around a dash: meant as a range.
bool looks_like_range(std::string_view item) {
  const size_t dash = item.find('-');
  return dash != std::string_view::npos && dash != 0 && dash + 1 != item.size() &&
         item.find_first_not_of(kDigits) == dash &&
         item.find_first_not_of(kDigits, dash + 1) == std::string_view::npos;
}

bool is_line(std::string_view text) {
  return text.size() <= kMaxText && std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

bool contains(const std::vector<std::string_view>& items, std::string_view item) {
  return std::ranges::find(items, item) != items.end();
}

std::string_view text_of(const char* text) {
  return text ? std::string_view(text) : std::string_view();
}

template <typename... Args>
tl::unexpected<Error> refuse(fmt::format_string<Args...> text, Args&&... args) {
  return fail(EINVAL, fmt::format(text, std::forward<Args>(args)...));
}

Result<void> check_items(std::string_view what, std::string_view list) {
  const std::vector<std::string_view> items = split_values(list);
  if (list.size() > kMaxText || items.empty() || !std::ranges::all_of(items, is_parameter_value))
    return refuse(
        "{} are not 1 to {} characters of values separated by '|'; write them as \"1|2\", each of 1 to {} "
        "printable "
        "characters without blanks",
        what, kMaxText, kMaxParameterValue);
  return {};
}

/// What one parameter must be by itself; its name is good.
Result<void> check_parameter(const hookline_parameter& p) {
  constexpr uint32_t kFlags = HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION;
  if (!p.description || !*p.description || !is_line(p.description))
    return refuse("parameter \"{}\": its description is not one line of 1 to {} printable ASCII characters",
                  p.name, kMaxText);
  const std::string_view allowed = text_of(p.allowed_values);
  if (const Result<void> ok =
          check_items(fmt::format("parameter \"{}\": its allowed values", p.name), allowed);
      !ok)
    return ok;
  for (const std::string_view item : split_values(allowed)) {
    if (!looks_like_range(item)) continue;
    const std::optional<Range> range = as_range(item);
    if (!range || !is_at_most(range->low, range->high))
      return refuse(
          "parameter \"{}\": its allowed values have the range \"{}\"; write LOW-HIGH with LOW at most HIGH, "
          "no leading zeros",
          p.name, item);
  }
  const struct {
    const char* name;
    const char* value;
  } values[] = {{"init", p.init_value}, {"off", p.off_value}};
  for (const auto& v : values) {
    if (!is_allowed(allowed, text_of(v.value)))
      return refuse("parameter \"{}\": its {} value is not among its allowed values \"{}\"", p.name, v.name,
                    allowed);
  }
  if (const uint32_t unknown = p.flags & ~kFlags)
    return refuse(
        "parameter \"{}\" has flags {:#x}, which this hookline does not know; install a newer hookline",
        p.name, unknown);
  if ((p.flags & HOOKLINE_PARAMETER_VERSION) && !(p.flags & HOOKLINE_PARAMETER_RUNTIME))
    return refuse(
        "parameter \"{}\" is the state version and cannot change while the device is open; declare it "
        "HOOKLINE_PARAMETER_RUNTIME, too",
        p.name);
  return {};
}

/// The versions that save() emits and load() takes, of plugins that declare more than migration_version.
Result<void> check_versions(const hookline_plugin& p, const hookline_parameter* version) {
  const std::string_view own = text_of(p.migration_version);
  const std::string_view reads = p.reads ? std::string_view(p.reads) : own;
  if (p.reads) {
    if (const Result<void> ok = check_items("the versions it reads", reads); !ok) return ok;
  }
  const std::vector<std::string_view> readable =
      p.reads ? split_values(reads) : std::vector<std::string_view>{own};
  if (!version) {
    if (p.reads && !contains(readable, own))
      return refuse("it emits state version \"{}\" and reads only \"{}\"; a plugin reads what it emits", own,
                    reads);
    return {};
  }
  if (own != version->init_value)
    return refuse(
        "its migration_version is \"{}\" and parameter \"{}\", the state version, opens with \"{}\"; make "
        "them one",
        own, version->name, version->init_value);
  for (const std::string_view item : split_values(version->allowed_values)) {
    if (!contains(readable, item))
      return refuse(
          "parameter \"{}\" allows state version \"{}\", but the plugin reads only \"{}\"; list the versions "
          "one by "
          "one and read each of them",
          version->name, item, reads);
  }
  return {};
}

}  // namespace

bool is_parameter_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxParameterName && name.front() >= 'a' && name.front() <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos &&
         name != "model";
}

bool is_parameter_value(std::string_view value) {
  return !value.empty() && value.size() <= kMaxParameterValue &&
         std::ranges::all_of(value, [](char c) { return c > ' ' && c <= '~' && c != '|'; });
}

std::vector<std::string_view> split_values(std::string_view list) {
  std::vector<std::string_view> items;
  if (list.empty()) return items;
  for (size_t bar; (bar = list.find('|')) != std::string_view::npos; list.remove_prefix(bar + 1))
    items.push_back(list.substr(0, bar));
  items.push_back(list);
  return items;
}

bool is_allowed(std::string_view allowed_values, std::string_view value) {
  if (!is_parameter_value(value)) return false;
  return std::ranges::any_of(split_values(allowed_values), [value](std::string_view item) {
    const std::optional<Range> range = as_range(item);
    if (!range) return item == value;
    return is_number(value) && is_at_most(range->low, value) && is_at_most(value, range->high);
  });
}

Result<void> check_parameters(const hookline_plugin& p) {
  if (!(p.claims & HOOKLINE_CLAIM_MIGRATION)) {
    if (p.nr_parameters || p.reads)
      return refuse("it has migration parameters or versions, but does not own the device's migration");
    return {};
  }
  if (p.nr_parameters > HOOKLINE_MAX_PARAMETERS)
    return refuse("it has {} migration parameters, at most {} are possible", p.nr_parameters,
                  HOOKLINE_MAX_PARAMETERS);
  const hookline_parameter* version = nullptr;
  for (uint32_t i = 0; i < p.nr_parameters; ++i) {
    const hookline_parameter& parameter = p.parameters[i];
    if (!is_parameter_name(text_of(parameter.name)))
      return refuse(
          "the name of migration parameter {} is not 1 to {} of a-z, 0-9 and _, opening with a letter, or is "
          "\"model\"",
          i, kMaxParameterName);
    for (uint32_t before = 0; before < i; ++before) {
      if (text_of(p.parameters[before].name) == parameter.name)
        return refuse("migration parameter \"{}\" is declared twice", parameter.name);
    }
    if (const Result<void> ok = check_parameter(parameter); !ok) return ok;
    if (!(parameter.flags & HOOKLINE_PARAMETER_VERSION)) continue;
    if (version)
      return refuse("parameters \"{}\" and \"{}\" are both the state version; one can be", version->name,
                    parameter.name);
    version = &parameter;
  }
  return check_versions(p, version);
}

}  // namespace hookline
