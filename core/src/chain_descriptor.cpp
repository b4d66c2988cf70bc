// SPDX-License-Identifier: Apache-2.0
#include <hookline/chain_descriptor.hpp>

#include <cerrno>

#include <fmt/format.h>

namespace hookline {

namespace {

// The framework provides them for every plugin, always.
constexpr const char* kCapabilities[] = {"stop_copy", "p2p", "pre_copy"};

std::string text(const char* s) {
  return s ? s : "";
}

DescribedParameter describe(const hookline_parameter& p, const std::string& value) {
  return {.name = p.name,
          .value = value,
          .init_value = p.init_value,
          .off_value = p.off_value,
          .allowed_values = p.allowed_values,
          .description = text(p.description),
          .runtime = (p.flags & HOOKLINE_PARAMETER_RUNTIME) != 0,
          .version = (p.flags & HOOKLINE_PARAMETER_VERSION) != 0};
}

}  // namespace

Result<Descriptor> describe_chain(const Chain& chain, std::span<const std::string> values,
                                  std::string config) {
  if (!chain.owner())
    return fail(
        EOPNOTSUPP,
        "the device does not migrate: no plugin of its chain owns the device's migration; add one that does");
  if (const Result<void> ok = chain.check_values(values); !ok) return fail(ok.error());
  const Link& owner = chain.links()[*chain.owner()];
  const std::span<const std::string> reads = chain.reads();
  Descriptor d{.model = text(owner.plugin.model),
               .plugin = text(owner.plugin.name),
               .plugin_version = text(owner.plugin.version),
               .emits = chain.emits(values),
               .reads = std::vector<std::string>(reads.begin(), reads.end()),
               .capabilities = {std::begin(kCapabilities), std::end(kCapabilities)},
               .config = std::move(config)};
  for (size_t i = 0; i < chain.parameters().size(); ++i)
    d.parameters.push_back(describe(chain.parameters()[i], values[i]));
  for (const Link& link : chain.links()) {
    // A destination may do without an observer, and so without its section.
    if (&link != &owner && link.saves() && !link.is_observer())
      d.sections.push_back({.plugin = text(link.plugin.name), .version = text(link.plugin.version)});
  }
  return d;
}

Result<Descriptor> describe_chain(const Chain& chain) {
  return describe_chain(chain, chain.init_values());
}

Result<std::string> migration_version(const Chain& chain, std::span<const std::string> values,
                                      std::string config) {
  const Result<Descriptor> own = describe_chain(chain, values, std::move(config));
  if (!own) return fail(own.error());
  return migration_version(*own);
}

Result<Accepted> accept_source(const Chain& chain, const std::string& config, std::string_view version) {
  // The values the device has now decide nothing.
  const Result<Descriptor> own = describe_chain(chain, chain.init_values(), config);
  if (!own) return fail(own.error());
  const Result<Descriptor> source = parse_descriptor(version);
  if (!source) return fail(source.error());
  const Verdict verdict = check_compatibility(*source, *own);
  if (verdict.answer == Answered::no)
    return fail(EINVAL, fmt::format("the device state is for another device: {}", to_text(verdict)));
  if (verdict.answer == Answered::unknown)
    return fail(EINVAL, fmt::format("nobody can tell whether the device state is for this device: {}",
                                    to_text(verdict)));
  Accepted accepted{.version = source->emits, .values = {}};
  for (ParameterValue& p : values_for(*source, *own)) accepted.values.push_back(std::move(p.value));
  return accepted;
}

}  // namespace hookline
