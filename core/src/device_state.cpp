// SPDX-License-Identifier: Apache-2.0
#include <hookline/device_state.hpp>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include <hookline/chain_descriptor.hpp>

#include "stream_format.hpp"

namespace hookline {

// ---- saving

namespace {

constexpr uint64_t kRunningPasses = 4;  // of bulk, before the device is stopped
constexpr uint32_t kMaxIdleCalls =
    1U << 20;  // of save_bulk() in a row without a section: 64 GiB in pages of 64 KiB

}  // namespace

DeviceStateSaver::DeviceStateSaver(OpenDevice& device, StreamWriter writer)
    : device_(&device),
      writer_(std::move(writer)),
      // Here, for a stream begins while the guest still runs.
      chunk_(std::make_unique<std::byte[]>(kMaxChunkPayload)),
      total_(writer_.pending() + stream_format::kTrailerSize),
      left_{.initial = device.chain().max_bulk_pass()},
      initial_(writer_.pending() + left_.initial) {}

Result<DeviceStateSaver> DeviceStateSaver::begin(OpenDevice& device) {
  const Result<std::string> match =
      migration_version(device.chain(), device.parameters(), device.config_space());
  if (!match) return fail(match.error());
  Result<StreamWriter> writer = StreamWriter::create(*match);
  if (!writer) return fail(writer.error());
  device.begin_save();
  return DeviceStateSaver(device, std::move(*writer));
}

/// False: nothing more now.
Result<bool> DeviceStateSaver::next(SavePhase phase) {
  const bool stopped = phase == SavePhase::stop_copy;
  if (has_bulk() && !bulk_over_) {
    if (stopped && !std::exchange(stopped_, true)) round_over_ = false;
    const Result<bool> made = next_bulk(stopped);
    if (!made || *made || !stopped) return made;
    bulk_over_ = true;
  }
  if (const Result<void> ok = next_section(); !ok) return fail(ok.error());
  return true;
}

Result<bool> DeviceStateSaver::next_bulk(bool stopped) {
  const Chain& chain = device_->chain();
  const Link& owner = chain.links()[*chain.owner()];
  if (round_over_ || (!stopped && bulk_[0] >= kRunningPasses * owner.plugin.max_bulk)) return false;

  for (uint32_t idle = 0; idle < kMaxIdleCalls; ++idle) {
    FieldWriter fields({chunk_.get(), kMaxChunkPayload});
    const uint32_t flags = (bulk_begun_ ? 0 : HOOKLINE_BULK_BEGIN) | (stopped ? HOOKLINE_BULK_STOPPED : 0);
    const Result<bool> more = device_->save_bulk(fields, flags);
    if (!more) return fail(more.error());
    bulk_begun_ = true;
    round_over_ = !*more;
    const bool was_initial = left_.initial > 0;
    const Result<BulkBytes> left = device_->bulk_sizes();
    if (!left) return fail(left.error());
    left_ = *left;
    if (fields.bytes().empty()) {
      if (round_over_) return false;
      continue;
    }

    uint64_t& sent = bulk_[stopped];
    sent += stream_format::kSectionHeaderSize + fields.bytes().size() + stream_format::kChecksumSize;
    if (stopped ? sent > chain.max_bulk_pass() : total_ + sent > chain.max_state())
      return fail(E2BIG,
                  fmt::format("plugin \"{}\": a pass of its bulk is larger than it declares: {} bytes, the "
                              "declaration allows {}; raise max_bulk in the plugin",
                              owner.name(), sent, chain.max_bulk_pass()));
    pending_is_initial_ = was_initial;
    if (const Result<void> ok = writer_.section(owner.name(), {.bulk = true}, fields.bytes()); !ok)
      return fail(ok.error());
    return true;
  }
  return fail(EPROTO,
              fmt::format("plugin \"{}\": save_bulk() was called {} times without making a section, and "
                          "says that there is more",
                          owner.name(), kMaxIdleCalls));
}

Result<void> DeviceStateSaver::next_section() {
  const std::span<const Link> links = device_->chain().links();
  while (link_ < links.size() && !links[link_].saves()) ++link_;
  if (link_ == links.size()) return writer_.finish();

  const Link& link = links[link_];
  FieldWriter fields({chunk_.get(), kMaxChunkPayload});
  const Result<bool> more = device_->save(link_, fields);
  if (!more) return fail(more.error());
  if (!*more) ++link_;

  total_ += stream_format::kSectionHeaderSize + fields.bytes().size() + stream_format::kChecksumSize;
  if (total_ > device_->chain().max_save())
    return fail(
        E2BIG,
        fmt::format("plugin \"{}\": its state is larger than it declares: with it the stream has {} bytes, "
                    "the declarations allow {}; raise max_state in the plugin",
                    link.name(), total_, device_->chain().max_save()));
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
    const Result<bool> made = next(phase);
    if (!made) {
      error_ = made.error();
      return fail(*error_);
    }
    if (!*made) break;
  }
  // Told once that a round is over, the VMM decides when another begins.
  if (filled == 0) round_over_ = false;
  const uint64_t initial = left_.initial + (pending_is_initial_ ? writer_.pending() : 0);
  initial_ = std::min(initial_, initial);
  return filled;
}

BulkBytes DeviceStateSaver::sizes() const {
  return {.initial = initial_, .dirty = left_.initial + left_.dirty + writer_.pending() - initial_};
}

bool DeviceStateSaver::finished(SavePhase phase) const {
  return phase == SavePhase::pre_copy ? writer_.pending() == 0 && !has_bulk() : writer_.done();
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
    FieldReader fields(section.name, section.payload, section.offset);
    if (section.flags.bulk) {
      // save()'s sections wait: plugins are promised that those do not reach them before all was verified.
      if (!links[i].plugin.load_bulk)
        return refuse(section, "it is marked as bulk, which its plugin does not send");
      const uint32_t flags = std::exchange(bulk_begun_, true) ? 0 : HOOKLINE_BULK_BEGIN;
      if (const Result<void> ok = device_.load_bulk(fields, flags); !ok) return ok;
      return fields.finish();
    }
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
  bool bulk_begun_ = false;
  std::vector<std::string> values_;  // of the parameters, as the device takes them over
};

DeviceStateLoader::DeviceStateLoader(OpenDevice& device)
    : sink_(std::make_unique<Sink>(device)),
      reader_(*sink_, {.max_state = device.chain().max_state(), .max_kept = device.chain().max_save()}) {}
DeviceStateLoader::~DeviceStateLoader() = default;

Result<void> DeviceStateLoader::write(std::span<const std::byte> bytes) {
  return reader_.write(bytes);
}

}  // namespace hookline
