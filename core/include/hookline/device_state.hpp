// SPDX-License-Identifier: Apache-2.0
//
// A whole chain's state, to a stream and back: the device's migration_version, each plugin's sections under its
// name, the trailer.
//
// In PRE_COPY the match record goes out alone: a wrong destination refuses it while the guest still runs. A
// destination refuses a stream before anything is applied, or the failure is that of apply() itself; either
// is final. Thread rule: that of the OpenDevice, which outlives both. Errors: Result; the first one stays.
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
  /// EOPNOTSUPP without a migration owner. No plugin is asked before STOP_COPY.
  static Result<DeviceStateSaver> begin(OpenDevice& device);

  /// Moves the next bytes of the phase to the front of `out` and says how many; fewer than out.size() only at
  /// the end of the phase.
  Result<size_t> fill(std::span<std::byte> out, SavePhase phase);
  /// Nothing follows in this phase.
  bool finished(SavePhase phase) const;
  /// The trailer is out.
  bool done() const { return writer_.done(); }
  /// Bytes of the phase that are certain to follow: what PRECOPY_INFO says in PRE_COPY.
  size_t pending() const { return writer_.pending(); }

 private:
  DeviceStateSaver(OpenDevice& device, StreamWriter writer);
  Result<void> next_section();

  OpenDevice* device_;
  StreamWriter writer_;
  size_t link_ = 0;                     // whose section is next
  std::unique_ptr<std::byte[]> chunk_;  // the section that goes out
  uint64_t total_ = 0;
  std::optional<Error> error_;
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
