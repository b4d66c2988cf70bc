// SPDX-License-Identifier: Apache-2.0
#include "plugin_report.hpp"

#include <array>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hookline/chain_descriptor.hpp>

#include "plugin_declaration.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

struct Program {
  const char* name;
  const hookline_program hookline_plugin::*steps;
};
constexpr std::array kPrograms = {Program{"stop", &hookline_plugin::stop}, Program{"start", &hookline_plugin::start},
                                  Program{"reset", &hookline_plugin::reset}};

const char* type_name(uint32_t type) {
  switch (type) {
    case HOOKLINE_KEY_BOOL: return "bool";
    case HOOKLINE_KEY_UINT: return "number";
    case HOOKLINE_KEY_STRING: return "text";
    case HOOKLINE_KEY_CHOICE: return "choice";
  }
  return "?";
}

std::string region_name(uint32_t region) {
  return region == HOOKLINE_REGION_CONFIG ? std::string("config space") : fmt::format("BAR {}", region);
}

std::vector<std::string> op_names(uint32_t ops) {
  std::vector<std::string> names;
  if (ops & HOOKLINE_WANT_READ) names.push_back("read");
  if (ops & HOOKLINE_WANT_WRITE) names.push_back("write");
  return names;
}

std::vector<std::string> registers_in(const hookline_plugin& p, const hookline_range& range) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < p.nr_registers; ++i) {
    const hookline_register& r = p.registers[i];
    if (r.region == range.region && r.offset + uint64_t{r.width} > range.offset && r.offset < range.offset + range.length)
      names.push_back(r.name);
  }
  return names;
}

// As plugin.h has it: an observer without ranges.
bool sees_others(const hookline_plugin& p) { return p.nr_ranges == 0 && p.access && p.unknown_op == HOOKLINE_UNKNOWN_PASS; }

std::vector<uint32_t> bits(uint32_t set) {
  std::vector<uint32_t> numbers;
  for (uint32_t i = 0; i < 32; ++i)
    if (set >> i & 1) numbers.push_back(i);
  return numbers;
}

std::vector<std::string> required_features(const hookline_plugin& p) {
  std::vector<std::string> names;
  if (p.abi.required & HOOKLINE_REQUIRE_IOVA_READ) names.push_back("guest memory (at least guest_memory: read)");
  if (p.abi.required & HOOKLINE_REQUIRE_PF) names.push_back("requests to the PF");
  return names;
}

std::string place(const hookline_plugin& p, const hookline_step& step) {
  for (uint32_t i = 0; i < p.nr_registers; ++i) {
    const hookline_register& r = p.registers[i];
    if (r.region == step.bar && r.offset == step.offset) return r.name;
  }
  return fmt::format("BAR {} +0x{:x}", step.bar, step.offset);
}

// Words joined with ", ", lines of at most 100 characters, the later ones indented.
std::string wrapped(const std::vector<std::string>& words, size_t indent) {
  std::string out, line;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i] + (i + 1 < words.size() ? "," : "");
    if (!line.empty() && indent + line.size() + 1 + word.size() > 100) {
      out += line + "\n" + std::string(indent, ' ');
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return out + line;
}

std::string value_text(const hookline_key& key) {
  switch (key.type) {
    case HOOKLINE_KEY_BOOL: return "true or false";
    case HOOKLINE_KEY_UINT:
      return key.max ? fmt::format("number, {} to {}", key.min, key.max)
                     : (key.min ? fmt::format("number, at least {}", key.min) : std::string("number"));
    case HOOKLINE_KEY_CHOICE: return fmt::format("{}", fmt::join(split_choices(key.choices), " | "));
    default: return "text";
  }
}

void line(std::string& out, const char* label, const std::string& value) { out += fmt::format("  {:<20}{}\n", label, value); }

}  // namespace

std::string describe_step(const hookline_plugin& p, const hookline_step& step) {
  const std::string at = place(p, step);
  switch (step.op) {
    case HOOKLINE_STEP_WRITE: return fmt::format("write 0x{:x} to {}", step.value, at);
    case HOOKLINE_STEP_MODIFY:
      if (step.mask == 0) return fmt::format("write {} back", at);
      if ((step.value & step.mask) == 0) return fmt::format("clear bits 0x{:x} of {}", step.mask, at);
      if ((step.value & step.mask) == step.mask) return fmt::format("set bits 0x{:x} of {}", step.mask, at);
      return fmt::format("set bits 0x{:x} of {} to 0x{:x}", step.mask, at, step.value & step.mask);
    case HOOKLINE_STEP_SAVE: return fmt::format("keep {} in slot {}", at, step.slot);
    case HOOKLINE_STEP_RESTORE: return fmt::format("restore {} from slot {}", at, step.slot);
    case HOOKLINE_STEP_POLL:
      return fmt::format("wait until {} & 0x{:x} is 0x{:x}, at most {} us", at, step.mask, step.value, step.timeout_us);
    case HOOKLINE_STEP_FILL:
      if (step.mask == 0) return fmt::format("fill all from {} on with 0x{:x}", at, step.value);
      return fmt::format("fill {} bytes from {} with 0x{:x}", step.mask, at, step.value);
    case HOOKLINE_STEP_DELAY: return fmt::format("wait {} us", step.timeout_us);
  }
  return fmt::format("step {}", step.op);
}

std::string describe_text(const LoadedPlugin& plugin) {
  const hookline_plugin& p = plugin.abi();
  std::string out = fmt::format("{} {}{}{}\n", p.name, p.version, p.summary && *p.summary ? ": " : "", p.summary ? p.summary : "");
  line(out, "file", plugin.path());
  line(out, "plugin ABI", fmt::format("{}.{} (this hookline: {}.{})", plugin.built_for().major, plugin.built_for().minor,
                                      HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR));
  if (plugin.owns_migration()) {
    line(out, "claims", "migration");
    line(out, "model", p.model);
    line(out, "migration version", p.migration_version);
    if (p.reads) line(out, "reads versions", fmt::format("{}", fmt::join(split_choices(p.reads), ", ")));
    line(out, "largest state", fmt::format("{} bytes", p.max_state));
    if (p.max_bulk) line(out, "memory, at most", fmt::format("{} bytes, in rounds while the device runs", p.max_bulk));
  } else {
    line(out, "claims", "nothing");
  }
  line(out, "devices", p.nr_devices ? device_ids(p) : "every device");
  line(out, "unknown operations", p.unknown_op == HOOKLINE_UNKNOWN_PASS ? "pass" : "refused");
  if (p.shadow_size) line(out, "shadow", fmt::format("{} bytes", p.shadow_size));
  if (const auto required = required_features(p); !required.empty()) line(out, "requires", fmt::format("{}", fmt::join(required, ", ")));
  if (p.ioctls) line(out, "ioctls", fmt::format("VFIO_BASE + {}", fmt::join(bits(p.ioctls), ", ")));
  if (p.features) line(out, "device features", fmt::format("{}", fmt::join(bits(p.features), ", ")));

  out += "\noptions\n";
  if (!p.nr_keys) out += "  none\n";
  for (uint32_t i = 0; i < p.nr_keys; ++i) {
    const hookline_key& key = p.keys[i];
    std::string value = value_text(key);
    if (key.default_value) value += fmt::format(" (default: {})", key.default_value);
    if (key.flags & HOOKLINE_KEY_REQUIRED) value += " (required)";
    out += fmt::format("  {}: {}\n", key.name, value);
    if (key.help && *key.help) out += fmt::format("      {}\n", key.help);
    if (key.flags & HOOKLINE_KEY_HANDLER) out += fmt::format("      true: the in-kernel handler {} stands before the plugins\n", key.choices);
  }

  if (p.nr_parameters) out += "\nmigration parameters\n";
  for (uint32_t i = 0; i < p.nr_parameters; ++i) {
    const hookline_parameter& parameter = p.parameters[i];
    out += fmt::format("  {}: {} (new devices: {}, off: {}){}\n", parameter.name,
                       fmt::join(split_choices(parameter.allowed_values), " | "), parameter.init_value, parameter.off_value,
                       parameter.flags & HOOKLINE_PARAMETER_RUNTIME ? ", changes while the device is open" : "");
    out += fmt::format("      {}\n", parameter.description);
  }

  out += "\ntraps\n";
  if (!p.nr_ranges) out += sees_others(p) ? "  none of its own; it is shown what others of its chain trap\n" : "  none\n";
  for (uint32_t i = 0; i < p.nr_ranges; ++i) {
    const hookline_range& range = p.ranges[i];
    out += fmt::format("  {} 0x{:x} to 0x{:x}, {}\n", region_name(range.region), range.offset, range.offset + range.length - 1,
                       fmt::join(op_names(range.ops), " and "));
    if (const auto names = registers_in(p, range); !names.empty()) out += "      " + wrapped(names, 6) + "\n";
  }

  for (const Program& program : kPrograms) {
    const hookline_program& steps = p.*program.steps;
    if (!steps.nr_steps) continue;
    out += fmt::format("\n{} program\n", program.name);
    for (uint32_t i = 0; i < steps.nr_steps; ++i) out += fmt::format("  {:>2}. {}\n", i + 1, describe_step(p, steps.steps[i]));
  }
  if (plugin.owns_migration()) out += fmt::format("\nnote: {}\nnote: {}\n", kEnableMigrationNote, kReturnPathNote);
  return out;
}

/// Null: it does not migrate a device, or would be refused as a chain of its own.
json migration_info_json(const LoadedPlugin& plugin) {
  if (!plugin.owns_migration()) return nullptr;
  const auto link = make_link(plugin.abi());
  if (!link) return nullptr;
  const auto chain = build_chain({*link});
  if (!chain) return nullptr;
  const auto descriptor = describe_chain(*chain);
  return descriptor ? json::parse(migration_info(*descriptor)) : json(nullptr);
}

json describe_json(const LoadedPlugin& plugin) {
  const hookline_plugin& p = plugin.abi();
  const auto text = [](const char* t) { return t ? json(t) : json(nullptr); };
  json out;
  out["name"] = p.name;
  out["version"] = p.version;
  out["summary"] = text(p.summary);
  out["file"] = plugin.path();
  out["abi"] = {{"plugin", fmt::format("{}.{}", plugin.built_for().major, plugin.built_for().minor)},
                {"host", fmt::format("{}.{}", HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR)}};
  out["claims"] = json::array();
  if (plugin.owns_migration()) out["claims"].push_back("migration");
  out["model"] = text(p.model);
  out["migration_version"] = text(p.migration_version);
  out["migration_info"] = migration_info_json(plugin);
  out["max_state"] = p.max_state;
  out["shadow_size"] = p.shadow_size;
  out["unknown_operations"] = p.unknown_op == HOOKLINE_UNKNOWN_PASS ? "pass" : "refuse";
  out["requires"] = json::array();
  if (p.abi.required & HOOKLINE_REQUIRE_IOVA_READ) out["requires"].push_back("guest_memory_read");
  if (p.abi.required & HOOKLINE_REQUIRE_PF) out["requires"].push_back("pf_requests");
  out["enable_migration"] = plugin.owns_migration() ? "needed where the kernel cannot report dirty pages" : "not needed";

  out["devices"] = json::array();
  for (uint32_t i = 0; i < p.nr_devices; ++i)
    out["devices"].push_back({{"vendor", fmt::format("0x{:04x}", p.devices[i].vendor)}, {"device", fmt::format("0x{:04x}", p.devices[i].device)}});
  out["options"] = json::array();
  for (uint32_t i = 0; i < p.nr_keys; ++i) {
    const hookline_key& key = p.keys[i];
    json option = {{"name", key.name},
                   {"type", type_name(key.type)},
                   {"required", (key.flags & HOOKLINE_KEY_REQUIRED) != 0},
                   {"default", text(key.default_value)},
                   {"help", text(key.help)}};
    if (key.type == HOOKLINE_KEY_UINT) {
      option["min"] = key.min;
      option["max"] = key.max ? json(key.max) : json(nullptr);
    }
    if (key.type == HOOKLINE_KEY_CHOICE) option["choices"] = split_choices(key.choices);
    if (key.flags & HOOKLINE_KEY_HANDLER) option["handler"] = key.choices;
    out["options"].push_back(option);
  }
  out["traps"] = json::array();
  for (uint32_t i = 0; i < p.nr_ranges; ++i) {
    const hookline_range& range = p.ranges[i];
    out["traps"].push_back({{"region", range.region},
                            {"offset", range.offset},
                            {"length", range.length},
                            {"operations", op_names(range.ops)},
                            {"registers", registers_in(p, range)}});
  }
  out["sees_traps_of_others"] = sees_others(p);
  out["ioctls"] = bits(p.ioctls);
  out["device_features"] = bits(p.features);
  out["programs"] = json::object();
  for (const Program& program : kPrograms) {
    const hookline_program& steps = p.*program.steps;
    json list = json::array();
    for (uint32_t i = 0; i < steps.nr_steps; ++i) list.push_back(describe_step(p, steps.steps[i]));
    out["programs"][program.name] = list;
  }
  return out;
}

}  // namespace hookline::loader
