// SPDX-License-Identifier: Apache-2.0
#include <hookline/device_state.hpp>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hookline/parameters.hpp>

#include "stream_format.hpp"

namespace hookline {

namespace {

tl::unexpected<Error> no_owner() {
  return fail(EOPNOTSUPP, "the device does not migrate: no plugin of its chain owns the device's migration");
}

}  // namespace

MatchRecord match_record(const Chain& chain, std::span<const std::string> values) {
  const hookline_plugin& p = chain.links()[*chain.owner()].plugin;
  const auto text = [](const char* s) { return std::string(s ? s : ""); };
  MatchRecord match{.model = text(p.model),
                    .plugin = text(p.name),
                    .plugin_version = text(p.version),
                    .migration_version = chain.emits(values)};
  for (size_t i = 0; i < values.size(); ++i) {
    const hookline_parameter& parameter = chain.parameters()[i];
    if (values[i] != parameter.off_value) match.parameters.push_back({parameter.name, values[i]});
  }
  return match;
}

Result<std::vector<std::string>> check_match(const Chain& chain, const MatchRecord& match) {
  if (!chain.owner()) return no_owner();
  const MatchRecord own = match_record(chain, chain.init_values());
  const auto differs = [](std::string_view what, const std::string& theirs, const std::string& ours,
                          std::string_view remedy) {
    return fail(EINVAL,
                fmt::format("the device state is for another device: its {} is \"{}\", here it is \"{}\"; {}",
                            what, theirs, ours, remedy));
  };
  if (match.model != own.model)
    return differs("device model", match.model, own.model, "migrate to a device of the same model");
  if (match.plugin != own.plugin)
    return differs("plugin", match.plugin, own.plugin, "configure the same plugin on both hosts");
  if (std::ranges::find(chain.reads(), match.migration_version) == chain.reads().end())
    return differs("migration version", match.migration_version,
                   fmt::format("{}", fmt::join(chain.reads(), "|")),
                   "install versions of the plugin with a migration version in common on both hosts");

  const std::span<const hookline_parameter> parameters = chain.parameters();
  std::vector<std::string> values;
  for (const hookline_parameter& parameter : parameters) values.emplace_back(parameter.off_value);
  for (const Parameter& given : match.parameters) {
    const auto known =
        std::ranges::find_if(parameters, [&given](const auto& p) { return p.name == given.name; });
    if (known == parameters.end())
      return fail(
          EINVAL,
          fmt::format("the device state has migration parameter \"{}\", which the device here does not have; "
                      "set it to its off value at the source",
                      given.name));
    values[static_cast<size_t>(known - parameters.begin())] = given.value;
  }
  if (const Result<void> ok = chain.check_values(values); !ok) return fail(ok.error());
  return values;
}

// ---- saving

DeviceStateSaver::DeviceStateSaver(OpenDevice& device, StreamWriter writer)
    : device_(&device), writer_(std::move(writer)), total_(writer_.pending() + stream_format::kTrailerSize) {}

Result<DeviceStateSaver> DeviceStateSaver::begin(OpenDevice& device) {
  if (!device.chain().owner()) return no_owner();
  Result<StreamWriter> writer = StreamWriter::create(match_record(device.chain(), device.parameters()));
  if (!writer) return fail(writer.error());
  device.begin_save();
  return DeviceStateSaver(device, std::move(*writer));
}

Result<void> DeviceStateSaver::next_section() {
  const std::span<const Link> links = device_->chain().links();
  while (link_ < links.size() && !links[link_].saves()) ++link_;
  if (link_ == links.size()) return writer_.finish();

  const Link& link = links[link_];
  if (!chunk_) chunk_ = std::make_unique<std::byte[]>(kMaxChunkPayload);
  FieldWriter fields({chunk_.get(), kMaxChunkPayload});
  const Result<bool> more = device_->save(link_, fields);
  if (!more) return fail(more.error());
  if (!*more) ++link_;

  total_ += stream_format::kSectionHeaderSize + fields.bytes().size() + stream_format::kChecksumSize;
  if (total_ > device_->chain().max_state())
    return fail(
        E2BIG,
        fmt::format("plugin \"{}\": its state is larger than it declares: with it the stream has {} bytes, "
                    "the declarations allow {}; raise max_state in the plugin",
                    link.name(), total_, device_->chain().max_state()));
  // A destination may do without an observer, and so without its section.
  return writer_.section(link.name(), {.optional = link.is_observer() && !link.owns_migration()},
                         fields.bytes());
}

Result<size_t> DeviceStateSaver::fill(std::span<std::byte> out, SavePhase phase) {
  if (error_) return fail(*error_);
  size_t filled = 0;
  while (filled < out.size()) {
    filled += writer_.take(out.subspan(filled));
    if (filled == out.size() || finished(phase)) break;
    if (const Result<void> ok = next_section(); !ok) {
      error_ = ok.error();
      return fail(*error_);
    }
  }
  return filled;
}

bool DeviceStateSaver::finished(SavePhase phase) const {
  return phase == SavePhase::pre_copy ? writer_.pending() == 0 : writer_.done();
}

// ---- loading

class DeviceStateLoader::Sink final : public StreamSink {
 public:
  explicit Sink(OpenDevice& device) : device_(device), loaded_(device.chain().links().size()) {}

  Result<void> on_match(const MatchRecord& match) override {
    Result<std::vector<std::string>> values = check_match(device_.chain(), match);
    if (!values) return fail(values.error());
    values_ = *values;
    return device_.begin_load(match.migration_version, std::move(*values));
  }

  Result<void> on_section(const Section& section) override {
    const std::span<const Link> links = device_.chain().links();
    size_t i = 0;
    while (i < links.size() && (links[i].name() != section.name || !links[i].saves())) ++i;
    if (i == links.size()) {
      if (section.flags.optional) return {};
      return refuse(section,
                    fmt::format("no plugin here loads it; add plugin \"{}\" to the chain of this device",
                                section.name));
    }
    // Plugins are promised that nothing reaches them before the whole stream was verified.
    if (section.flags.bulk) return refuse(section, "it is marked as bulk, which its plugin does not send");
    FieldReader fields(section.name, section.payload, section.offset);
    if (const Result<void> ok = device_.load(i, fields); !ok) return ok;
    loaded_[i] = true;
    return fields.finish();
  }

  Result<void> on_complete() override {
    const std::span<const Link> links = device_.chain().links();
    for (size_t i = 0; i < links.size(); ++i) {
      if (!links[i].saves() || loaded_[i] || (links[i].is_observer() && !links[i].owns_migration())) continue;
      return fail(
          EINVAL,
          fmt::format("the device state has no section of plugin \"{}\": it is not in the chain of the "
                      "source; configure the same plugins on both hosts",
                      links[i].name()));
    }
    for (size_t i = 0; i < links.size(); ++i) {
      if (!loaded_[i]) continue;
      if (const Result<void> ok = device_.apply(i); !ok) return ok;
    }
    return device_.set_parameters(values_);
  }

 private:
  static Result<void> refuse(const Section& section, std::string_view why) {
    return fail(EINVAL, fmt::format("section \"{}\" at offset {}: {}", section.name, section.offset, why));
  }

  OpenDevice& device_;
  std::vector<bool> loaded_;
  std::vector<std::string> values_;  // of the parameters, as the device takes them over
};

DeviceStateLoader::DeviceStateLoader(OpenDevice& device)
    : sink_(std::make_unique<Sink>(device)),
      reader_(*sink_, {.max_state = device.chain().max_state(), .max_kept = device.chain().max_state()}) {}
DeviceStateLoader::~DeviceStateLoader() = default;

Result<void> DeviceStateLoader::write(std::span<const std::byte> bytes) {
  return reader_.write(bytes);
}

}  // namespace hookline
