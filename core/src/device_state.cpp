// SPDX-License-Identifier: Apache-2.0
#include <hookline/device_state.hpp>

#include <cerrno>

#include <fmt/format.h>

#include <hookline/chain_descriptor.hpp>

#include "stream_format.hpp"

namespace hookline {

// ---- saving

DeviceStateSaver::DeviceStateSaver(OpenDevice& device, StreamWriter writer)
    : device_(&device), writer_(std::move(writer)), total_(writer_.pending() + stream_format::kTrailerSize) {}

Result<DeviceStateSaver> DeviceStateSaver::begin(OpenDevice& device) {
  const Result<std::string> match =
      migration_version(device.chain(), device.parameters(), device.config_space());
  if (!match) return fail(match.error());
  Result<StreamWriter> writer = StreamWriter::create(*match);
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

  Result<void> on_match(std::string_view match) override {
    Result<Accepted> source = accept_source(device_.chain(), device_.config_space(), match);
    if (!source) return fail(source.error());
    values_ = source->values;
    return device_.begin_load(std::move(source->version), std::move(source->values));
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
