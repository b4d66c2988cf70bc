// SPDX-License-Identifier: Apache-2.0
//
// Descriptors as JSON, to and fro. The only file of core that knows nlohmann's library; nothing it throws
// leaves.
#include <hookline/compatibility.hpp>

#include <algorithm>
#include <cerrno>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hookline/plugin.h>
#include <hookline/parameters.hpp>

#include "descriptor_keys.hpp"

namespace hookline {

namespace {

using json = nlohmann::ordered_json;

constexpr size_t kMaxDepth = 8;
constexpr size_t kMaxListed = 256;       // items of one list
constexpr size_t kMaxIdentity = 256;     // model, a plugin's name and version
constexpr size_t kMaxDescription = 255;  // and allowed values

/// What is wrong; thrown inside of this file only.
struct Refusal {
  std::string why;
};

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) {
  throw Refusal{fmt::format(text, std::forward<Args>(args)...)};
}

bool is_printable(char c) {
  return c >= 0x20 && c <= 0x7e;
}

/// As text that may stand in a log.
std::string shown(std::string_view text, size_t most = 40) {
  std::string out;
  for (const char c : text.substr(0, most)) out += is_printable(c) ? c : '?';
  return text.size() > most ? out + "..." : out;
}

std::string kind(const json& value) {
  const std::string name = value.type_name();
  if (value.is_null()) return name;
  if (value.is_string()) return "a text";
  return (value.is_structured() ? "an " : "a ") + name;
}

void check_bytes(std::string_view text) {
  if (text.empty()) refuse("it is empty");
  if (text.size() > kMaxMigrationInfo)
    refuse("it has {} bytes, at most {} are possible", text.size(), kMaxMigrationInfo);
  const auto bad = std::ranges::find_if(
      text, [](char c) { return !is_printable(c) && c != '\n' && c != '\r' && c != '\t'; });
  if (bad != text.end())
    refuse("byte {} is 0x{:02x}, only printable ASCII is possible", bad - text.begin(),
           static_cast<unsigned char>(*bad));
}

/// Looks at everything the parser finds, ignored keys included.
class Strict {
 public:
  bool operator()(int, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (keys_.size() == kMaxDepth) refuse("it is nested deeper than {} levels", kMaxDepth);
        keys_.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        keys_.pop_back();
        break;
      case json::parse_event_t::key:
        check_text(value.get_ref<const std::string&>());
        if (!keys_.back().insert(value.get<std::string>()).second)
          refuse("key \"{}\" is given twice", shown(value.get_ref<const std::string&>()));
        break;
      case json::parse_event_t::value:
        if (value.is_string()) check_text(value.get_ref<const std::string&>());
        break;
    }
    return true;
  }

 private:
  static void check_text(std::string_view text) {
    if (!std::ranges::all_of(text, is_printable)) refuse("\"{}\" is not printable ASCII", shown(text));
  }
  std::vector<std::set<std::string>> keys_;
};

json parse(std::string_view text) {
  check_bytes(text);
  try {
    return json::parse(text.begin(), text.end(), Strict());
  } catch (const json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string_view what = e.what();
    const size_t end = what.find("] ");
    refuse("it is no JSON: {}", shown(end == std::string_view::npos ? what : what.substr(end + 2), 160));
  }
}

// ---- one value

std::string text_of(const json& value, std::string_view where, size_t longest) {
  if (!value.is_string()) refuse("\"{}\" is {}, a text is expected", where, kind(value));
  std::string text = value.get<std::string>();
  if (text.size() > longest)
    refuse("\"{}\" has {} bytes, at most {} are possible", where, text.size(), longest);
  return text;
}

std::string filled(std::string text, std::string_view where) {
  if (text.empty()) refuse("\"{}\" is empty", where);
  return text;
}

/// Null if it is not there.
const json* find(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const json& get(const json& object, const char* key, std::string_view where) {
  if (const json* value = find(object, key)) return *value;
  refuse("\"{}\" is missing", where);
}

std::vector<std::string> texts_of(const json& value, std::string_view where, size_t longest) {
  if (!value.is_array()) refuse("\"{}\" is {}, a list of texts is expected", where, kind(value));
  if (value.size() > kMaxListed)
    refuse("\"{}\" has {} items, at most {} are possible", where, value.size(), kMaxListed);
  std::vector<std::string> texts;
  for (const json& item : value) {
    texts.push_back(filled(text_of(item, where, longest), where));
    if (std::find(texts.begin(), std::prev(texts.end()), texts.back()) != std::prev(texts.end()))
      refuse("\"{}\" has \"{}\" twice", where, shown(texts.back()));
  }
  return texts;
}

bool flag_of(const json& object, const char* key, const std::string& where) {
  const json* value = find(object, key);
  if (!value) return false;
  if (!value->is_boolean()) refuse("\"{}.{}\" is {}, true or false is expected", where, key, kind(*value));
  return value->get<bool>();
}

std::string value_of(const json& object, const char* key, const std::string& where) {
  const std::string place = where + "." + key;
  std::string value = text_of(get(object, key, place), place, kMaxParameterValue);
  if (!is_parameter_value(value))
    refuse("\"{}\" is \"{}\"; a value has 1 to {} printable characters without blank and '|'", place, value,
           kMaxParameterValue);
  return value;
}

DescribedParameter parameter_of(const json& object) {
  if (!object.is_object()) refuse("an item of \"parameters\" is {}, an object is expected", kind(object));
  DescribedParameter p;
  p.name = text_of(get(object, "name", "parameters.name"), "parameters.name", kMaxIdentity);
  if (!is_parameter_name(p.name))
    refuse("\"{}\" is no name of a parameter; use a-z, 0-9 and _, at most {} bytes", shown(p.name),
           kMaxParameterName);
  const std::string where = "parameters." + p.name;
  p.value = value_of(object, "value", where);
  if (find(object, "init_value")) p.init_value = value_of(object, "init_value", where);
  if (find(object, "off_value")) p.off_value = value_of(object, "off_value", where);
  if (const json* allowed = find(object, "allowed_values"))
    p.allowed_values = text_of(*allowed, where + ".allowed_values", kMaxDescription);
  if (const json* description = find(object, "description"))
    p.description = text_of(*description, where + ".description", kMaxDescription);
  p.runtime = flag_of(object, "runtime", where);
  p.version = flag_of(object, "version", where);
  return p;
}

std::vector<DescribedParameter> parameters_of(const json& list) {
  if (!list.is_array()) refuse("\"parameters\" is {}, a list is expected", kind(list));
  if (list.size() > HOOKLINE_MAX_PARAMETERS)
    refuse("there are {} parameters, at most {} are possible", list.size(), HOOKLINE_MAX_PARAMETERS);
  std::vector<DescribedParameter> parameters;
  const DescribedParameter* version = nullptr;
  parameters.reserve(list.size());
  for (const json& item : list) {
    DescribedParameter p = parameter_of(item);
    if (std::ranges::find(parameters, p.name, &DescribedParameter::name) != parameters.end())
      refuse("parameter \"{}\" is given twice", p.name);
    if (p.version && version)
      refuse("parameters \"{}\" and \"{}\" are both the state version", version->name, p.name);
    parameters.push_back(std::move(p));
    if (parameters.back().version) version = &parameters.back();
  }
  return parameters;
}

DescribedSection section_of(const json& object) {
  if (!object.is_object()) refuse("an item of \"sections\" is {}, an object is expected", kind(object));
  const auto one = [&object](const char* key, std::string_view where) {
    return filled(text_of(get(object, key, where), where, kMaxIdentity), where);
  };
  return {.plugin = one("name", "sections.name"), .version = one("version", "sections.version")};
}

std::vector<DescribedSection> sections_of(const json& list) {
  if (!list.is_array()) refuse("\"sections\" is {}, a list is expected", kind(list));
  if (list.size() > kMaxListed)
    refuse("\"sections\" has {} items, at most {} are possible", list.size(), kMaxListed);
  std::vector<DescribedSection> sections;
  for (const json& item : list) {
    DescribedSection section = section_of(item);
    if (std::ranges::find(sections, section.plugin, &DescribedSection::plugin) != sections.end())
      refuse("\"sections\" has \"{}\" twice", shown(section.plugin));
    sections.push_back(std::move(section));
  }
  return sections;
}

Descriptor descriptor_of(const json& object) {
  if (!object.is_object()) refuse("it is {}, an object is expected", kind(object));
  if (const json* schema = find(object, "schema")) {
    const std::string name = text_of(*schema, "schema", kMaxIdentity);
    if (name != kDescriptorSchema)
      refuse("its schema is \"{}\", expected \"{}\"", shown(name), kDescriptorSchema);
  }
  Descriptor d;
  d.model = filled(text_of(get(object, "model", "model"), "model", kMaxIdentity), "model");
  const json& plugin = get(object, "plugin", "plugin");
  if (!plugin.is_object()) refuse("\"plugin\" is {}, an object is expected", kind(plugin));
  d.plugin = filled(text_of(get(plugin, "name", "plugin.name"), "plugin.name", kMaxIdentity), "plugin.name");
  if (const json* version = find(plugin, "version"))
    d.plugin_version = text_of(*version, "plugin.version", kMaxIdentity);
  d.emits = filled(text_of(get(object, "emits", "emits"), "emits", kMaxMigrationVersion), "emits");
  if (const json* reads = find(object, "reads")) d.reads = texts_of(*reads, "reads", kMaxMigrationVersion);
  d.capabilities = texts_of(get(object, "capabilities", "capabilities"), "capabilities", kMaxIdentity);
  if (const json* parameters = find(object, "parameters")) d.parameters = parameters_of(*parameters);
  if (const json* sections = find(object, "sections")) d.sections = sections_of(*sections);
  if (const json* config = find(object, "config")) d.config = text_of(*config, "config", kMaxIdentity);
  if (const json* required = find(object, "required"))
    d.required = texts_of(*required, "required", kMaxIdentity);
  return d;
}

// ---- writing

json to_json(const Descriptor& d, bool brief) {
  json out;
  if (!brief) out["schema"] = kDescriptorSchema;
  out["model"] = d.model;
  out["plugin"] = {{"name", d.plugin}, {"version", d.plugin_version}};
  out["emits"] = d.emits;
  if (!brief && d.reads) out["reads"] = *d.reads;
  out["capabilities"] = d.capabilities;
  json parameters = json::array();
  for (const DescribedParameter& p : d.parameters) {
    if (brief && p.off_value == p.value) continue;
    json parameter{{"name", p.name}, {"value", p.value}};
    if (!brief) {
      if (p.init_value) parameter["init_value"] = *p.init_value;
      if (p.off_value) parameter["off_value"] = *p.off_value;
      if (p.allowed_values) parameter["allowed_values"] = *p.allowed_values;
      parameter["description"] = p.description;
      parameter["runtime"] = p.runtime;
    }
    if (!brief || p.version) parameter["version"] = p.version;
    parameters.push_back(std::move(parameter));
  }
  if (!brief || !parameters.empty()) out["parameters"] = std::move(parameters);
  json sections = json::array();
  for (const auto& [plugin, version] : d.sections)
    sections.push_back({{"name", plugin}, {"version", version}});
  if (!brief || !sections.empty()) out["sections"] = std::move(sections);
  if (!d.config.empty()) out["config"] = d.config;
  if (!d.required.empty()) out["required"] = d.required;
  return out;
}

std::string dump(const Descriptor& d, bool brief) {
  return to_json(d, brief).dump(brief ? -1 : 2, ' ', false, json::error_handler_t::replace);
}

}  // namespace

Result<Descriptor> parse_descriptor(std::string_view text) {
  try {
    return descriptor_of(parse(text));
  } catch (const Refusal& refusal) {
    return fail(EINVAL, "this describes no device: " + refusal.why);
  } catch (const std::exception& e) {
    return fail(ENOMEM, fmt::format("the description could not be read: {}", e.what()));
  }
}

std::string migration_info(const Descriptor& descriptor) {
  return dump(descriptor, false) + "\n";
}

Result<std::string> migration_version(const Descriptor& descriptor) {
  std::string text = dump(descriptor, true);
  if (text.size() > kMaxMigrationVersion)
    return fail(
        E2BIG,
        fmt::format("its migration_version has {} bytes, at most {} are possible; use fewer or shorter "
                    "parameters, or a shorter version",
                    text.size(), kMaxMigrationVersion));
  // What no reader takes must not be written either.
  if (const Result<Descriptor> back = parse_descriptor(text); !back) return fail(back.error());
  return text;
}

}  // namespace hookline
