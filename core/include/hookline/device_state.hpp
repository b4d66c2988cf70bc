// SPDX-License-Identifier: Apache-2.0
//
// A whole chain's state, to a stream and back: the device's migration_version, each plugin's sections under
// its name, the trailer.
//
// In PRE_COPY the match record goes out first: a wrong destination refuses it while the guest still runs.
// Then the owner's bulk sections, if it has any, in rounds, of which a destination loads each as it arrives.
// All else waits for the trailer: a destination refuses a stream before anything is applied, or the failure
// is that of apply() itself; either is final. Thread rule: that of the OpenDevice, which outlives both.
// Errors: Result; the first one stays.
//
//     auto saver = DeviceStateSaver::begin(device);
//     while (!saver->done()) send(saver->fill(buffer, SavePhase::stop_copy));
//
//     DeviceStateLoader loader(device);
//     for (piece : stream) if (auto ok = loader.write(piece); !ok) return ok;
//     return loader.end();  // already applied, with the trailer's last byte
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <hookline/open_device.hpp>
#include <hookline/result.hpp>
#include <hookline/stream.hpp>

namespace hookline {

enum class SavePhase { pre_copy, stop_copy };

class DeviceStateSaver {
 public:
  /// EOPNOTSUPP without a migration owner. No plugin is asked before the first fill().
  static Result<DeviceStateSaver> begin(OpenDevice& device);

  /// Moves the next bytes of the phase to the front of `out` and says how many; fewer than out.size() at the
  /// end of the phase, or in PRE_COPY at the end of a round, which an answer of 0 ends: the next call begins
  /// another.
  Result<size_t> fill(std::span<std::byte> out, SavePhase phase);
  /// Nothing follows in this phase.
  bool finished(SavePhase phase) const;
  /// The trailer is out.
  bool done() const { return writer_.done(); }
  /// What is still to come in PRE_COPY, as far as it is known: what PRECOPY_INFO says. Initial bytes never
  /// grow. Before the first fill() bulk counts as a complete pass.
  BulkBytes sizes() const;

 private:
  DeviceStateSaver(OpenDevice& device, StreamWriter writer);
  Result<bool> next(SavePhase phase);
  Result<bool> next_bulk(bool stopped);
  Result<void> next_section();
  Result<void> add(const Link& link, SectionFlags flags, std::span<const std::byte> payload);
  bool has_bulk() const { return device_->chain().max_bulk_pass() != 0; }

  OpenDevice* device_;
  StreamWriter writer_;
  size_t link_ = 0;                     // whose section is next
  std::unique_ptr<std::byte[]> chunk_;  // the section that goes out
  uint64_t total_ = 0;                  // of the match record, save() and the trailer
  std::optional<Error> error_;

  bool stopped_ = false;     // STOP_COPY was asked for
  bool bulk_begun_ = false;  // save_bulk() was called
  bool bulk_over_ = false;   // it has no more, while stopped
  bool round_over_ = false;  // it has no more now
  uint64_t bulk_[2] = {};    // bytes of its sections: running, stopped
  BulkBytes left_;           // as it said last
  bool pending_is_initial_ = true;
  uint64_t initial_ = 0;  // as announced last
};

class DeviceStateLoader {
 public:
  explicit DeviceStateLoader(OpenDevice& device);
  ~DeviceStateLoader();
  DeviceStateLoader(const DeviceStateLoader&) = delete;
  DeviceStateLoader& operator=(const DeviceStateLoader&) = delete;

  /// Takes bytes in any cut. With the trailer's last byte every plugin has loaded and applied its state, in
  /// chain order, and the device has taken over the stream's parameters.
  Result<void> write(std::span<const std::byte> bytes);
  /// So many bytes more that no write() refuses: a transport may take them without waiting for a verdict.
  size_t ahead() const { return reader_.ahead(); }
  /// Everything was written and applied.
  bool complete() const { return reader_.complete(); }
  /// Nothing more will come; ENODATA with what is missing.
  Result<void> end() const { return reader_.end(); }

 private:
  class Sink;
  std::unique_ptr<Sink> sink_;
  StreamReader reader_;
};

}  // namespace hookline
