// SPDX-License-Identifier: Apache-2.0
//
// The rules. Which keys the texts have is descriptor_json.cpp's.
#include <hookline/compatibility.hpp>

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hookline/parameters.hpp>

#include "descriptor_keys.hpp"

namespace hookline {

namespace {

constexpr std::string_view kUnknownPrefix = "unknown-";

bool contains(const std::vector<std::string>& all, std::string_view one) {
  return std::ranges::find(all, one) != all.end();
}

const DescribedParameter* find(const Descriptor& descriptor, std::string_view name) {
  const auto found = std::ranges::find(descriptor.parameters, name, &DescribedParameter::name);
  return found == descriptor.parameters.end() ? nullptr : &*found;
}

/// "1", "1 or 2", "1, 2 or 3"
std::string one_of(const std::vector<std::string>& items) {
  if (items.size() < 2) return fmt::format("{}", fmt::join(items, ""));
  const auto last = std::prev(items.end());
  return fmt::format("{} or {}", fmt::join(items.begin(), last, ", "), *last);
}

std::vector<std::string> items(std::string_view allowed_values) {
  std::vector<std::string> all;
  for (const std::string_view item : split_values(allowed_values)) all.emplace_back(item);
  return all;
}

/// Does not count: a source can do without it.
bool is_off(const DescribedParameter& parameter) {
  return parameter.off_value && *parameter.off_value == parameter.value;
}

const DescribedParameter* version_parameter(const Descriptor& descriptor) {
  const auto found = std::ranges::find(descriptor.parameters, true, &DescribedParameter::version);
  return found == descriptor.parameters.end() ? nullptr : &*found;
}

bool reads_what_comes(const Descriptor& source, const Descriptor& dest) {
  return !dest.reads || contains(*dest.reads, source.emits);
}

using Reasons = std::vector<Reason>;

void keys_are_known(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  const auto look = [&reasons](const Descriptor& d, bool is_source) {
    for (const std::string& key : d.required) {
      if (is_known_key(key)) continue;
      const char* side = is_source ? "source" : "destination";
      reasons.push_back(
          {.code = "unknown-key",
           .field = key,
           .source = is_source ? "required" : "",
           .dest = is_source ? "" : "required",
           .text = fmt::format(
               "the {} says that \"{}\" has to be understood, and this hookline does not know it", side, key),
           .fix = "ask again with a hookline that is as new as the newer of the two hosts"});
    }
  };
  look(source, true);
  look(dest, false);
}

void destination_is_whole(const Descriptor&, const Descriptor& dest, Reasons& reasons) {
  const auto lacks = [&reasons](std::string field, std::string what) {
    reasons.push_back(
        {.code = "unknown-destination",
         .field = std::move(field),
         .source = "",
         .dest = "",
         .text = fmt::format("the destination does not say {}", what),
         .fix =
             "describe it with `hookline compat export DEVICE|CONFIG`; a migration_version describes a source only"});
  };
  if (!dest.reads) return lacks("reads", "which state versions it reads");
  for (const DescribedParameter& p : dest.parameters) {
    if (!p.allowed_values || !p.off_value)
      lacks("parameters." + p.name, fmt::format("which values its parameter \"{}\" may have", p.name));
  }
}

void model_is_the_same(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (source.model == dest.model) return;
  reasons.push_back(
      {.code = "model",
       .field = "model",
       .source = source.model,
       .dest = dest.model,
       .text = fmt::format("the source is a \"{}\", the destination a \"{}\"", source.model, dest.model),
       .fix = "choose a destination of the source's model"});
}

void plugin_is_the_same(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (source.plugin == dest.plugin || source.model != dest.model) return;
  reasons.push_back({.code = "plugin",
                     .field = "plugin.name",
                     .source = source.plugin,
                     .dest = dest.plugin,
                     .text = fmt::format(
                         "the source's state is written by plugin \"{}\", the destination has plugin \"{}\"",
                         source.plugin, dest.plugin),
                     .fix = "configure the same plugin on both hosts"});
}

void version_is_readable(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (reads_what_comes(source, dest) || source.model != dest.model) return;
  const std::string reads = one_of(*dest.reads);
  const DescribedParameter* version = version_parameter(source);
  std::string fix = "install a version of the plugin at the destination that reads it";
  if (version) {
    // What the source can emit is known from a long text only; a short one leaves it to whoever reads the
    // fix.
    std::vector<std::string> common;
    for (const std::string& v : *dest.reads) {
      if (!version->allowed_values || is_allowed(*version->allowed_values, v)) common.push_back(v);
    }
    if (!common.empty())
      fix = fmt::format("write {} to parameter \"{}\" of the source{}, or {}", one_of(common), version->name,
                        version->allowed_values ? "" : " if it allows that", fix);
  }
  reasons.push_back({.code = "version",
                     .field = "emits",
                     .source = source.emits,
                     .dest = fmt::format("{}", fmt::join(*dest.reads, "|")),
                     .text = fmt::format("the source emits state version {}, the destination reads {}",
                                         source.emits, reads),
                     .fix = std::move(fix)});
}

void capabilities_are_equal(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  const auto look = [&reasons](const Descriptor& has, const Descriptor& lacks, bool source_has) {
    for (const std::string& name : has.capabilities) {
      if (contains(lacks.capabilities, name)) continue;
      reasons.push_back(
          {.code = "capability",
           .field = "capabilities." + name,
           .source = source_has ? "yes" : "no",
           .dest = source_has ? "no" : "yes",
           .text = fmt::format("the {} can do {}, the {} cannot", source_has ? "source" : "destination", name,
                               source_has ? "destination" : "source"),
           .fix = "run the same release of hookline and vfio-pci-hooks on both hosts"});
    }
  };
  look(source, dest, true);
  look(dest, source, false);
}

void parameters_are_allowed(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (source.model != dest.model) return;
  for (const DescribedParameter& p : source.parameters) {
    if (is_off(p)) continue;
    if (p.version && !reads_what_comes(source, dest)) continue;  // said already, with the better fix
    const DescribedParameter* at_dest = find(dest, p.name);
    if (at_dest && (!at_dest->allowed_values || is_allowed(*at_dest->allowed_values, p.value))) continue;
    Reason reason{.code = at_dest ? "value" : "parameter",
                  .field = "parameters." + p.name,
                  .source = p.value,
                  .dest = at_dest ? *at_dest->allowed_values : "",
                  .text = {},
                  .fix = {}};
    if (at_dest) {
      const std::string allowed = one_of(items(*at_dest->allowed_values));
      reason.text = fmt::format("parameter \"{}\" is {} at the source, the destination allows {}", p.name,
                                p.value, allowed);
      reason.fix = fmt::format(
          "give the source's device one of these values, or choose a destination that allows {}", p.value);
    } else {
      reason.text = fmt::format("parameter \"{}\" is {} at the source, the destination has no such parameter",
                                p.name, p.value);
      reason.fix =
          p.off_value
              ? fmt::format(
                    "set it to its off value, {}, at the source, or install the source's version of "
                    "plugin \"{}\" at the destination",
                    *p.off_value, source.plugin)
              : fmt::format(
                    "set it to its off value at the source, or install the source's version of plugin "
                    "\"{}\" at the destination",
                    source.plugin);
    }
    reasons.push_back(std::move(reason));
  }
}

void off_values_are_allowed(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (source.model != dest.model) return;
  for (const DescribedParameter& p : dest.parameters) {
    const DescribedParameter* at_source = find(source, p.name);
    if (at_source && !is_off(*at_source)) continue;
    if (!p.off_value || !p.allowed_values || is_allowed(*p.allowed_values, *p.off_value)) continue;
    reasons.push_back(
        {.code = "value",
         .field = "parameters." + p.name,
         .source = "",
         .dest = *p.allowed_values,
         .text = fmt::format(
             "the source does not use parameter \"{}\", and the destination does not allow its off "
             "value, {}",
             p.name, *p.off_value),
         .fix = "choose a destination that allows it, or use the parameter at the source"});
  }
}

const DescribedSection* section_of(const Descriptor& descriptor, std::string_view plugin) {
  const auto found = std::ranges::find(descriptor.sections, plugin, &DescribedSection::plugin);
  return found == descriptor.sections.end() ? nullptr : &*found;
}

void sections_are_the_same(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  for (const auto& [plugin, version] : source.sections) {
    const DescribedSection* there = section_of(dest, plugin);
    if (there && there->version == version) continue;
    Reason reason{.code = "section",
                  .field = "sections." + plugin,
                  .source = version,
                  .dest = there ? there->version : "",
                  .text = {},
                  .fix = {}};
    if (there) {
      reason.text = fmt::format(
          "plugin \"{}\" saves state as version {} at the source and reads it as version {} at the destination, "
          "and only the same version is known to read it",
          plugin, version, there->version);
      reason.fix = fmt::format(
          "install version {} of plugin \"{}\" at the destination, or version {} at the source before the guest "
          "starts",
          version, plugin, there->version);
    } else {
      reason.text = fmt::format(
          "plugin \"{}\" {} saves state at the source, and the destination does not have it", plugin, version);
      reason.fix = fmt::format("add plugin \"{}\" {} to the chain of the destination", plugin, version);
    }
    reasons.push_back(std::move(reason));
  }
  for (const auto& [plugin, version] : dest.sections) {
    if (section_of(source, plugin)) continue;
    reasons.push_back(
        {.code = "section",
         .field = "sections." + plugin,
         .source = "",
         .dest = version,
         .text = fmt::format(
             "plugin \"{}\" {} at the destination needs its state, and the source does not have it", plugin,
             version),
         .fix = fmt::format("take plugin \"{}\" out of the chain of the destination, or add it at the source "
                            "before the guest starts",
                            plugin)});
  }
}

void config_is_the_same(const Descriptor& source, const Descriptor& dest, Reasons& reasons) {
  if (source.config.empty() || dest.config.empty() || source.config == dest.config) return;
  reasons.push_back(
      {.code = "config",
       .field = "config",
       .source = source.config,
       .dest = dest.config,
       .text = fmt::format(
           "the PCI configuration spaces differ where a VMM compares them: {} at the source, {} at "
           "the destination",
           source.config, dest.config),
       .fix = "use the same hardware, firmware and firmware settings; `lspci -xxxx` on both hosts shows the "
              "bytes"});
}

// In this order reasons are told. The names of codes are documented in docs/compatibility.md.
using Rule = void (*)(const Descriptor& source, const Descriptor& dest, Reasons& reasons);
constexpr Rule kRules[] = {keys_are_known,         destination_is_whole,   model_is_the_same,
                           plugin_is_the_same,     version_is_readable,    capabilities_are_equal,
                           parameters_are_allowed, off_values_are_allowed, sections_are_the_same,
                           config_is_the_same};

}  // namespace

std::string_view to_string(Answered answer) {
  switch (answer) {
    case Answered::yes:
      return "yes";
    case Answered::no:
      return "no";
    case Answered::unknown:
      break;
  }
  return "unknown";
}

Verdict check_compatibility(const Descriptor& source, const Descriptor& dest) {
  Verdict verdict;
  for (const Rule rule : kRules) rule(source, dest, verdict.reasons);
  if (!source.config.empty() && dest.config.empty()) verdict.unchecked.push_back("config");
  if (verdict.reasons.empty()) return verdict;
  // What is certain outweighs what is not.
  const bool certain = std::ranges::any_of(
      verdict.reasons, [](const Reason& reason) { return !reason.code.starts_with(kUnknownPrefix); });
  verdict.answer = certain ? Answered::no : Answered::unknown;
  return verdict;
}

std::string to_text(const Verdict& verdict) {
  std::string text;
  for (const Reason& reason : verdict.reasons)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", reason.text, reason.fix);
  return text;
}

std::vector<ParameterValue> values_for(const Descriptor& source, const Descriptor& dest) {
  std::vector<ParameterValue> values;
  for (const DescribedParameter& p : dest.parameters) {
    const DescribedParameter* at_source = find(source, p.name);
    values.push_back(
        {p.name, at_source && !is_off(*at_source) ? at_source->value : p.off_value.value_or(p.value)});
  }
  return values;
}

}  // namespace hookline
