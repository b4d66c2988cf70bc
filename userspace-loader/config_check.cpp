// SPDX-License-Identifier: Apache-2.0
#include "config_check.hpp"

#include <linux/vfio_pci_hooks.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "config_keys.hpp"
#include "config_values.hpp"
#include "hookline/parameters.hpp"
#include "plugin_declaration.hpp"

namespace hookline::loader {
namespace {

constexpr uint64_t kMaxVf = 4095;

// A time as a key of the file takes it: from one of the small unit to so many of the large one.
struct TimeRange {
  TimeUnit small, large;
  int low;   // of the small unit
  int high;  // of the large one
  const char *small_example, *large_example;
};
// The limits as vfio_pci_hooks.h has them.
constexpr TimeRange kStateLimit = {kMillisecond, kSecond, 1, 600, "100ms", "10s"};
constexpr TimeRange kAccessLimit = {kMillisecond, kSecond, 1, 10, "100ms", "10s"};
constexpr TimeRange kBusyPoll = {kMicrosecond, kMillisecond, 0, 10, "50us", "1ms"};

using Kind = YamlNode::Kind;
using Entry = YamlNode::Entry;

const char* kind_name(const YamlNode& node) {
  switch (node.kind) {
    case Kind::null: return "nothing";
    case Kind::scalar: return "a single value";
    case Kind::sequence: return "a list";
    case Kind::map: return "a map";
  }
  return "?";
}

// Where to point: an absent value has no place of its own.
Mark place(const Entry& entry) { return entry.value->kind == Kind::null ? entry.key_mark : entry.value->where; }
Mark key_place(const Entry& entry) {
  Mark mark = entry.key_mark;
  mark.length = static_cast<uint32_t>(std::max<size_t>(entry.key.size(), 1));
  return mark;
}

template <typename T>
struct Choice {
  const char* name;
  T value;
};
constexpr std::array kGuestMemory = {Choice<GuestMemory>{"none", GuestMemory::none}, Choice<GuestMemory>{"read", GuestMemory::read},
                                     Choice<GuestMemory>{"write", GuestMemory::write}};
constexpr std::array kWorkerLoss = {Choice<WorkerLoss>{"pass", WorkerLoss::pass}, Choice<WorkerLoss>{"fail", WorkerLoss::fail}};

// What "defaults" and a device have in common; absent: not said.
struct Policy {
  std::optional<WorkerLoss> on_worker_loss;
  std::optional<std::chrono::microseconds> state_change, access, busy_poll;
};

class Checker {
 public:
  Checker(PluginCatalog& catalog, Diagnostics& diagnostics) : catalog_(catalog), diagnostics_(diagnostics) {}

  Config file(const YamlNode& root) {
    Config config;
    if (root.kind != Kind::map) {
      diagnostics_.error(root.where, fmt::format("{} where the keys of the file are expected", kind_name(root)),
                         "it needs at least \"devices:\"");
      return config;
    }
    known_keys(root, kFileSection, root.where);
    Policy defaults;
    if (const Entry* entry = root.find("defaults"); entry && is_map(*entry)) {
      known_keys(*entry->value, kDefaultsSection, entry->key_mark);
      defaults = policy(*entry->value);
    }
    if (const Entry* entry = root.find("devices"); entry && is_list(*entry))
      for (const YamlPtr& item : entry->value->items) config.devices.push_back(device(*item, defaults));
    return config;
  }

 private:
  // ---- shapes

  void error(Mark where, std::string text, std::string hint = "", std::vector<std::string> notes = {}) {
    diagnostics_.error(where, std::move(text), std::move(hint), std::move(notes));
  }

  void wrong_kind(const Entry& entry, const char* expected) {
    error(place(entry), fmt::format("{}: {} where {} is expected", printable(entry.key), kind_name(*entry.value), expected));
  }

  bool is_map(const Entry& entry) {
    if (entry.value->kind == Kind::map) return true;
    wrong_kind(entry, "a map");
    return false;
  }

  bool is_list(const Entry& entry) {
    if (entry.value->kind != Kind::sequence) {
      wrong_kind(entry, "a list");
      return false;
    }
    if (entry.value->items.empty()) error(entry.value->where, fmt::format("{}: the list is empty", printable(entry.key)));
    return true;
  }

  // Each key of the map is one of the section's, and each required one is there. Answers which keys were probably meant by
  // those that are unknown: they are not missed on top of it.
  std::set<std::string> known_keys(const YamlNode& map, const ConfigSection& section, Mark where) {
    const std::vector<std::string> names = key_names(section);
    std::set<std::string> meant;
    for (const Entry& entry : map.entries) {
      if (std::find(names.begin(), names.end(), entry.key) != names.end()) continue;
      const bool merge = entry.key == "<<";
      error(key_place(entry), fmt::format("unknown key \"{}\" in {}", printable(entry.key), section.in_text),
            merge ? "merge keys mean nothing here: write out what is meant" : did_you_mean(entry.key, names),
            {fmt::format("known keys: {}", fmt::join(names, ", "))});
      if (merge)
        meant.insert(names.begin(), names.end());
      else
        meant.insert(closest(entry.key, names));
    }
    for (const ConfigKey& key : section.keys)
      if (key.required && !map.find(key.name) && !meant.count(key.name))
        error(where, fmt::format("{} without \"{}\"", section.in_text, key.name));
    return meant;
  }

  // ---- values

  // The text of a scalar.
  std::optional<std::string> text(const Entry& entry, const char* expected) {
    if (entry.value->kind == Kind::scalar) return entry.value->text;
    wrong_kind(entry, expected);
    return std::nullopt;
  }

  // The text of a scalar that is not in quotes, which would make it a text.
  std::optional<std::string> bare(const Entry& entry, const char* expected) {
    auto value = text(entry, expected);
    if (!value || !entry.value->quoted) return value;
    error(place(entry), fmt::format("{}: a text where {} is expected", printable(entry.key), expected), "remove the quotes");
    return std::nullopt;
  }

  std::optional<bool> boolean(const Entry& entry) {
    const auto value = bare(entry, "true or false");
    if (!value) return std::nullopt;
    const auto parsed = parse_bool(*value);
    if (!parsed)
      error(place(entry), fmt::format("{}: \"{}\" is neither true nor false", printable(entry.key), printable(*value)),
            "write true or false");
    return parsed;
  }

  std::optional<uint64_t> number(const Entry& entry, uint64_t low, uint64_t high) {
    const auto value = bare(entry, "a number");
    if (!value) return std::nullopt;
    const auto parsed = parse_number(*value);
    if (!parsed) {
      const bool octal = value->size() > 1 && value->front() == '0' && value->find_first_not_of("0123456789") == std::string::npos;
      error(place(entry), fmt::format("{}: \"{}\" is not a number", printable(entry.key), printable(*value)),
            octal ? "write it without leading zeros" : "write it as 42 or 0x2a");
      return std::nullopt;
    }
    if (*parsed < low || *parsed > high) {
      error(place(entry), fmt::format("{}: {} is out of range", printable(entry.key), *parsed),
            high == UINT64_MAX ? fmt::format("at least {}", low) : fmt::format("from {} to {}", low, high));
      return std::nullopt;
    }
    return parsed;
  }

  std::optional<std::chrono::microseconds> duration(const Entry& entry, const TimeRange& range) {
    const auto& [small, large, low, high, small_example, large_example] = range;
    const auto value = text(entry, fmt::format("a time such as {} or {}", small_example, large_example).c_str());
    if (!value) return std::nullopt;
    const auto parsed = parse_duration(*value, std::array{small, large});
    if (!parsed) {
      error(place(entry), fmt::format("{}: \"{}\" is not a time", printable(entry.key), printable(*value)),
            parse_number(*value) ? fmt::format("with its unit: {}{} or {}{}", *value, small.name, *value, large.name)
                                 : fmt::format("a whole number and its unit, {} or {}: {}, {}", small.name, large.name, small_example,
                                               large_example));
      return std::nullopt;
    }
    if (*parsed < low * small.length || *parsed > high * large.length) {
      error(place(entry), fmt::format("{}: {} is out of range", printable(entry.key), printable(*value)),
            fmt::format("from {}{} to {}{}", low, small.name, high, large.name));
      return std::nullopt;
    }
    return parsed;
  }

  // Which of `names` the entry holds.
  std::optional<size_t> one_of(const Entry& entry, const std::vector<std::string>& names) {
    const std::string expected = fmt::format("one of {}", fmt::join(names, ", "));
    const auto value = text(entry, expected.c_str());
    if (!value) return std::nullopt;
    const auto found = std::find(names.begin(), names.end(), *value);
    if (found != names.end()) return static_cast<size_t>(found - names.begin());
    const std::string guess = did_you_mean(*value, names);
    error(place(entry), fmt::format("{}: unknown value \"{}\"", printable(entry.key), printable(*value)),
          guess.empty() ? expected : guess, guess.empty() ? std::vector<std::string>{} : std::vector<std::string>{expected});
    return std::nullopt;
  }

  template <typename T, size_t N>
  std::optional<T> choice(const Entry& entry, const std::array<Choice<T>, N>& choices) {
    std::vector<std::string> names;
    for (const auto& c : choices) names.push_back(c.name);
    const auto index = one_of(entry, names);
    return index ? std::optional<T>(choices[*index].value) : std::nullopt;
  }

  // ---- sections

  Policy policy(const YamlNode& map) {
    Policy said;
    if (const Entry* entry = map.find("on_worker_loss")) said.on_worker_loss = choice(*entry, kWorkerLoss);
    if (const Entry* entry = map.find("limits"); entry && is_map(*entry)) {
      known_keys(*entry->value, kLimitsSection, entry->key_mark);
      if (const Entry* limit = entry->value->find("state_change")) said.state_change = duration(*limit, kStateLimit);
      if (const Entry* limit = entry->value->find("access")) said.access = duration(*limit, kAccessLimit);
    }
    if (const Entry* entry = map.find("busy_poll")) said.busy_poll = duration(*entry, kBusyPoll);
    return said;
  }

  DeviceConfig device(const YamlNode& node, const Policy& defaults) {
    DeviceConfig device;
    device.where = node.where;
    if (node.kind != Kind::map) {
      error(node.where, fmt::format("{} where a device is expected", kind_name(node)), "a device has \"match:\" and \"chain:\"");
      return device;
    }
    known_keys(node, kDeviceSection, node.where);
    if (const Entry* entry = node.find("match"); entry && is_map(*entry)) device.match = match(*entry);
    if (const Entry* entry = node.find("create_vfs"))
      if (const auto count = number(*entry, 1, kMaxVf + 1)) device.create_vfs = static_cast<uint32_t>(*count);
    if (const Entry* entry = node.find("whole_function")) device.whole_function = boolean(*entry).value_or(false);
    if (const Entry* entry = node.find("guest_memory"))
      device.guest_memory = choice(*entry, kGuestMemory).value_or(GuestMemory::none);
    which_functions(node, device);

    if (const Entry* entry = node.find("chain"); entry && is_list(*entry)) chain(*entry->value, device);

    if (const Entry* entry = node.find("migration"); entry && is_map(*entry)) parameters(*entry, device);

    const Policy own = policy(node);
    const Limits unsaid;
    const auto limit = [](const auto& said, const auto& by_default, std::chrono::milliseconds otherwise) {
      return std::chrono::duration_cast<std::chrono::milliseconds>(said.value_or(by_default.value_or(otherwise)));
    };
    device.limits.state_change = limit(own.state_change, defaults.state_change, unsaid.state_change);
    device.limits.access = limit(own.access, defaults.access, unsaid.access);
    device.busy_poll = own.busy_poll.value_or(defaults.busy_poll.value_or(device.busy_poll));
    const bool guarded = device.plugins && device.plugins->has_guard();
    device.on_worker_loss =
        own.on_worker_loss.value_or(defaults.on_worker_loss.value_or(guarded ? WorkerLoss::fail : WorkerLoss::pass));
    return device;
  }

  Match match(const Entry& section) {
    Match match;
    const YamlNode& map = *section.value;
    match.where = map.where;
    const std::set<std::string> meant = known_keys(map, kMatchSection, section.key_mark);
    const Entry* address = map.find("address");
    const Entry* pf = map.find("pf");
    const Entry* vf = map.find("vf");
    if (address && pf)
      error(key_place(*pf), "both \"address\" and \"pf\" in one match", "a device is named by one of them");
    else if (!address && !pf && !meant.count("address") && !meant.count("pf"))
      error(map.where, "a match without \"address\" or \"pf\"",
            map.find("id") ? "\"id\" only narrows: it never says which function is meant" : "");
    if (pf && !vf && !meant.count("vf")) error(key_place(*pf), "\"pf\" without \"vf\"", "which of its VFs? vf: 0-3");
    if (vf && !pf && !meant.count("pf")) error(key_place(*vf), "\"vf\" without \"pf\"", address ? "\"address\" says it all" : "whose? pf: enp1s0f0");

    if (address)
      if (const auto value = text(*address, "a PCI address")) {
        match.address = parse_pci_address(*value);
        if (!match.address)
          error(place(*address), fmt::format("address: \"{}\" is not a PCI address", printable(*value)), "such as 0000:01:10.0");
      }
    if (pf)
      if (const auto value = text(*pf, "a network interface or a PCI address")) {
        if (const auto pci = parse_pci_address(*value))
          match.pf = to_string(*pci);
        else if (is_interface_name(*value))
          match.pf = *value;
        else
          error(place(*pf), fmt::format("pf: \"{}\" is neither a network interface nor a PCI address", printable(*value)),
                "such as enp1s0f0 or 0000:01:00.0");
      }
    if (vf) match.vfs = vf_indices(*vf);
    if (const Entry* id = map.find("id"))
      if (const auto value = text(*id, "vendor and device")) {
        match.id = parse_pci_id(*value);
        if (!match.id)
          error(place(*id), fmt::format("id: \"{}\" is not a vendor and a device", printable(*value)), "such as \"8086:10ca\"");
      }
    return match;
  }

  std::vector<uint32_t> vf_indices(const Entry& entry) {
    std::set<uint32_t> found;
    const auto one = [&](const YamlNode& node) {
      const auto range = node.kind == Kind::scalar ? parse_range(node.text) : std::nullopt;
      if (!range) {
        error(node.kind == Kind::null ? entry.key_mark : node.where,
              node.kind == Kind::scalar ? fmt::format("vf: \"{}\" is no VF index", printable(node.text))
                                        : fmt::format("vf: {} where a VF index is expected", kind_name(node)),
              "a number, a range, or a list of them: 0, 0-3, [0, 2-3]");
      } else if (range->second > kMaxVf) {
        error(node.where, fmt::format("vf: {} is out of range", range->second), fmt::format("from 0 to {}", kMaxVf));
      } else {
        for (uint64_t i = range->first; i <= range->second; ++i)
          if (!found.insert(static_cast<uint32_t>(i)).second) error(node.where, fmt::format("vf: {} is given twice", i));
      }
    };
    if (entry.value->kind == Kind::sequence) {
      if (is_list(entry))
        for (const YamlPtr& item : entry.value->items) one(*item);
    } else {
      one(*entry.value);
    }
    return {found.begin(), found.end()};
  }

  // What match, create_vfs and whole_function say together, and that no other device said it before.
  void which_functions(const YamlNode& node, const DeviceConfig& device) {
    const Match& match = device.match;
    const Entry* create = node.find("create_vfs");
    const Entry* whole = node.find("whole_function");
    const Entry* section = node.find("match");
    const bool by_pf = section && section->value->kind == Kind::map && section->value->find("pf");
    if (whole && device.whole_function && by_pf)
      error(key_place(*whole), "\"whole_function\" for VFs", "a VF is no whole function: remove it",
            {"to give away the PF itself, match it by its address in a device of its own"});
    if (create && section && !by_pf) error(key_place(*create), "\"create_vfs\" without a \"pf\" in the match", "whose VFs? match: { pf: enp1s0f0, vf: 0-3 }");
    if (create && device.create_vfs && !match.vfs.empty() && match.vfs.back() >= *device.create_vfs)
      error(place(*create), fmt::format("create_vfs: {} makes VF 0 to {}, the match wants VF {}", *device.create_vfs,
                                        *device.create_vfs - 1, match.vfs.back()),
            fmt::format("at least {}", match.vfs.back() + 1));
    if (create && device.create_vfs && !match.pf.empty()) {
      const auto [first, is_new] = created_.emplace(match.pf, std::pair(*device.create_vfs, create->key_mark.line));
      if (!is_new && first->second.first != *device.create_vfs)
        error(place(*create), fmt::format("create_vfs: {} here and {} in line {}, both for {}", *device.create_vfs,
                                          first->second.first, first->second.second, printable(match.pf)),
              "a PF has one number of VFs");
    }

    const auto twice = [&](const std::string& what, uint32_t line) {
      error(match.where, fmt::format("{} is matched twice", what), fmt::format("first in line {}", line));
    };
    if (match.address) {
      const auto [first, is_new] = addresses_.emplace(*match.address, match.where.line);
      if (!is_new) twice(to_string(*match.address), first->second);
      if (const auto used = pfs_.find(to_string(*match.address)); used != pfs_.end() && device.whole_function)
        given_away(to_string(*match.address), match.where, used->second);
      if (device.whole_function) whole_.emplace(to_string(*match.address), match.where.line);
    }
    if (!match.pf.empty()) {
      pfs_.emplace(match.pf, match.where.line);
      if (const auto given = whole_.find(match.pf); given != whole_.end()) given_away(match.pf, match.where, given->second);
      for (const uint32_t vf : match.vfs) {
        const auto [first, is_new] = vfs_.emplace(std::pair(match.pf, vf), match.where.line);
        if (!is_new) {
          twice(fmt::format("VF {} of {}", vf, printable(match.pf)), first->second);
          break;  // a range that overlaps is one mistake
        }
      }
    }
  }

  void given_away(const std::string& pf, Mark where, uint32_t line) {
    error(where, fmt::format("{} is given away as a whole function and is the PF of VFs", pf), fmt::format("see line {}", line),
          {"a PF keeps its own driver while its VFs are used"});
  }

  // ---- the chain

  void chain(const YamlNode& list, DeviceConfig& device) {
    for (const YamlPtr& item : list.items)
      if (auto link = chain_link(*item, device)) device.chain.push_back(std::move(*link));

    handlers_of_plugins(device);

    std::optional<size_t> last_plugin;
    for (size_t i = 0; i < device.chain.size(); ++i) {
      const ChainLink& link = device.chain[i];
      if (!link.plugin) {
        device.handlers.push_back(link.name);
        continue;
      }
      if (last_plugin && *last_plugin + 1 != i)
        error(link.where, fmt::format("an in-kernel handler stands between the plugins \"{}\" and \"{}\"",
                                      device.chain[*last_plugin].name, link.name),
              "put it before or behind all plugins");
      if (!last_plugin) device.handlers.push_back(VFIO_PCI_HOOKS_CHANNEL_NAME);
      last_plugin = i;
    }
    if (device.handlers.size() > VFIO_PCI_HOOKS_MAX_HANDLERS)
      error(list.where, fmt::format("{} positions in the chain, all plugins together being one", device.handlers.size()),
            fmt::format("at most {}", VFIO_PCI_HOOKS_MAX_HANDLERS));
    plugins_together(device);
  }

  // What options of plugins ask for stands before the plugins: a worker's own accesses do not pass it.
  void handlers_of_plugins(DeviceConfig& device) {
    const auto is_plugin = [](const ChainLink& link) { return link.plugin != nullptr; };
    std::vector<ChainLink> wanted;
    for (const ChainLink& link : device.chain) {
      for (size_t i = 0; i < link.options.size(); ++i) {
        const hookline_key& key = link.plugin->abi().keys[i];
        if (!(key.flags & HOOKLINE_KEY_HANDLER) || !link.options[i].number) continue;
        const auto is_it = [&](const ChainLink& other) { return !other.plugin && other.name == key.choices; };
        if (std::ranges::none_of(device.chain, is_it) && std::ranges::none_of(wanted, is_it))
          wanted.push_back({key.choices, nullptr, {}, link.where});
      }
    }
    device.chain.insert(std::ranges::find_if(device.chain, is_plugin), wanted.begin(), wanted.end());
  }

  // ---- migration parameters: the owner declares them

  void parameters(const Entry& section, DeviceConfig& device) {
    // What is wrong with the chain has been said; without it nobody knows what the keys mean.
    if (!device.plugins) return;
    if (!device.plugins->owner()) {
      error(key_place(section), "\"migration\" for a device that does not migrate", "remove it",
            {"its keys are parameters of the plugin that owns the device's migration, and no plugin of this chain does"});
      return;
    }
    const std::span<const hookline_parameter> declared = device.plugins->parameters();
    const std::string_view owner = device.plugins->links()[*device.plugins->owner()].name();
    std::vector<std::string> names;
    for (const hookline_parameter& p : declared) names.push_back(p.name);
    device.parameters.resize(declared.size());
    for (const Entry& entry : section.value->entries) {
      const auto found = std::find(names.begin(), names.end(), entry.key);
      if (found == names.end()) {
        error(key_place(entry), fmt::format("plugin \"{}\" has no migration parameter \"{}\"", owner, printable(entry.key)),
              did_you_mean(entry.key, names),
              {names.empty() ? std::string("it has none")
                             : fmt::format("its parameters: {}; `hookline describe {}` explains them", fmt::join(names, ", "), owner)});
        continue;
      }
      const auto index = static_cast<size_t>(found - names.begin());
      if (auto value = parameter(entry, declared[index])) device.parameters[index] = std::move(*value);
    }
  }

  std::optional<std::string> parameter(const Entry& entry, const hookline_parameter& declared) {
    const auto value = text(entry, "a value");
    if (!value || is_allowed(declared.allowed_values, *value)) return value;
    error(place(entry), fmt::format("{}: \"{}\" is not allowed", printable(entry.key), printable(*value)),
          fmt::format("allowed: {}", fmt::join(split_choices(declared.allowed_values), ", ")),
          {fmt::format("{}: {}", declared.name, declared.description)});
    return std::nullopt;
  }

  // Whether the plugins can stand in one chain. Built link by link, so that the first that does not fit is the one to point
  // at; without it, others are still looked at.
  void plugins_together(DeviceConfig& device) {
    std::vector<Link> links;
    for (const ChainLink& entry : device.chain) {
      if (!entry.plugin) continue;
      auto link = make_link(entry.plugin->abi(), entry.options, entry.plugin);
      if (!link) {
        error(entry.where, link.error().text);
        continue;
      }
      links.push_back(std::move(*link));
      auto chain = build_chain(links);
      if (chain) {
        device.plugins.emplace(std::move(*chain));
      } else {
        error(entry.where, chain.error().text);
        links.pop_back();
      }
    }
  }

  std::optional<ChainLink> chain_link(const YamlNode& node, const DeviceConfig& device) {
    const Entry* plugin = node.find("plugin");
    const Entry* handler = node.find("handler");
    if (node.kind == Kind::scalar) {
      error(node.where, fmt::format("chain: \"{}\" alone", printable(node.text)),
            fmt::format("write plugin: {}", printable(node.text)));
    } else if (node.kind != Kind::map) {
      error(node.where, fmt::format("chain: {} where a link is expected", kind_name(node)), "such as plugin: trace");
    } else if (plugin && handler) {
      error(key_place(*handler), "both \"plugin\" and \"handler\" in one link", "make them two links");
    } else if (handler) {
      return handler_link(node, *handler);
    } else if (plugin) {
      return plugin_link(node, *plugin, device);
    } else {
      std::string hint = "such as plugin: trace";
      if (!node.entries.empty())
        if (const std::string guess = did_you_mean(node.entries.front().key, {"plugin", "handler"}); !guess.empty()) hint = guess;
      error(node.where, "chain: a link without \"plugin\" or \"handler\"", hint);
    }
    return std::nullopt;
  }

  std::optional<ChainLink> handler_link(const YamlNode& node, const Entry& handler) {
    known_keys(node, kHandlerSection, node.where);
    const auto name = text(handler, "the name of an in-kernel handler");
    if (!name) return std::nullopt;
    if (*name == VFIO_PCI_HOOKS_CHANNEL_NAME) {
      error(place(handler), fmt::format("handler: \"{}\" stands for the plugins", *name), "name the plugins instead");
      return std::nullopt;
    }
    if (!is_handler_name(*name)) {
      error(place(handler), fmt::format("handler: \"{}\" cannot be the name of an in-kernel handler", printable(*name)),
            fmt::format("a-z, 0-9, - and _, at most {}", VFIO_PCI_HOOKS_NAME_LEN - 1));
      return std::nullopt;
    }
    return ChainLink{*name, nullptr, {}, place(handler)};
  }

  std::optional<ChainLink> plugin_link(const YamlNode& node, const Entry& entry, const DeviceConfig& device) {
    const auto name = text(entry, "the name of a plugin");
    if (!name) return std::nullopt;
    const auto plugin = catalog_.find(*name);
    if (!plugin) {
      if (plugin.error().code == ENOENT)
        error(place(entry), fmt::format("unknown plugin \"{}\"", printable(*name)), did_you_mean(*name, catalog_.names()),
              {fmt::format("plugins are searched in {}; `hookline plugins` lists them", fmt::join(catalog_.folders(), ", "))});
      else
        error(place(entry), fmt::format("plugin \"{}\" cannot be loaded", printable(*name)), "", {plugin.error().text});
      return std::nullopt;
    }
    fits_device(**plugin, place(entry), device);
    ChainLink link{*name, *plugin, {}, place(entry)};
    options(node, (*plugin)->abi(), link);
    return link;
  }

  void fits_device(const LoadedPlugin& plugin, Mark where, const DeviceConfig& device) {
    const hookline_plugin& abi = plugin.abi();
    if (const auto& id = device.match.id; id && !plugin.serves(id->vendor, id->device))
      error(where, fmt::format("plugin \"{}\" does not serve {}", abi.name, to_string(*id)), "it serves " + device_ids(abi));
    if ((abi.abi.required & HOOKLINE_REQUIRE_IOVA_READ) && device.guest_memory == GuestMemory::none)
      error(where, fmt::format("plugin \"{}\" has to read guest memory, which this device does not grant", abi.name),
            "add guest_memory: read to the device");
    if ((abi.abi.required & HOOKLINE_REQUIRE_PF) && device.whole_function)
      error(where, fmt::format("plugin \"{}\" has to ask the PF of its VF, and this device is a whole function", abi.name));
  }

  void options(const YamlNode& node, const hookline_plugin& plugin, ChainLink& link) {
    std::vector<std::string> names;
    for (uint32_t i = 0; i < plugin.nr_keys; ++i) names.push_back(plugin.keys[i].name);
    for (const Entry& entry : node.entries) {
      if (entry.key == "plugin" || std::find(names.begin(), names.end(), entry.key) != names.end()) continue;
      error(key_place(entry), fmt::format("plugin \"{}\" has no option \"{}\"", plugin.name, printable(entry.key)),
            did_you_mean(entry.key, names),
            {names.empty() ? std::string("it has no options")
                           : fmt::format("its options: {}; `hookline describe {}` explains them", fmt::join(names, ", "), plugin.name)});
    }
    for (uint32_t i = 0; i < plugin.nr_keys; ++i) {
      const hookline_key& key = plugin.keys[i];
      const Entry* entry = node.find(key.name);
      if (entry) {
        link.options.push_back(option(key, *entry));
      } else if (key.default_value) {
        // As it would be written in YAML.
        auto value = std::make_shared<YamlNode>();
        value->kind = Kind::scalar;
        value->where = link.where;
        value->text = key.default_value;
        link.options.push_back(option(key, Entry{fmt::format("default of {}", key.name), link.where, value}));
      } else {
        if (key.flags & HOOKLINE_KEY_REQUIRED)
          error(link.where, fmt::format("plugin \"{}\" needs the option \"{}\"", plugin.name, key.name), "",
                {fmt::format("{}: {}", key.name, key.help ? printable(key.help, 200) : "")});
        link.options.emplace_back();
      }
    }
  }

  OptionValue option(const hookline_key& key, const Entry& entry) {
    OptionValue value;
    switch (key.type) {
      case HOOKLINE_KEY_BOOL:
        if (const auto parsed = boolean(entry)) {
          value.number = *parsed ? 1 : 0;
          value.is_set = true;
        }
        break;
      case HOOKLINE_KEY_UINT:
        // No upper bound declared: none.
        if (const auto parsed = number(entry, key.min, key.max ? key.max : UINT64_MAX)) {
          value.number = *parsed;
          value.is_set = true;
        }
        break;
      case HOOKLINE_KEY_STRING:
        if (auto parsed = text(entry, "a text")) {
          value.text = std::move(*parsed);
          value.is_set = true;
        }
        break;
      case HOOKLINE_KEY_CHOICE: {
        const std::vector<std::string> choices = split_choices(key.choices);
        if (const auto index = one_of(entry, choices)) {
          value.text = choices[*index];
          value.is_set = true;
        }
        break;
      }
    }
    return value;
  }

  PluginCatalog& catalog_;
  Diagnostics& diagnostics_;
  // What earlier devices matched, and in which line.
  std::map<PciAddress, uint32_t> addresses_;
  std::map<std::pair<std::string, uint32_t>, uint32_t> vfs_;
  std::map<std::string, uint32_t> pfs_, whole_;
  std::map<std::string, std::pair<uint32_t, uint32_t>> created_;
};

}  // namespace

std::optional<Config> load_config(const Source& source, PluginCatalog& catalog, Diagnostics& diagnostics) {
  const YamlPtr root = parse_yaml(source, diagnostics);
  if (!root) return std::nullopt;
  Config config = Checker(catalog, diagnostics).file(*root);
  if (diagnostics.errors()) return std::nullopt;
  config.file = source.name();
  return config;
}

}  // namespace hookline::loader
