// SPDX-License-Identifier: Apache-2.0
//
// A device that needs no hardware and no kernel module: a software model (hookline/model.h), the plugin chain
// in front of it, and what vfio-pci and vfio-pci-hooks do around both. Plugins cannot tell the difference, so
// their unit tests and the demo run on it.
//
// Thread rule: one thread. Errors: Result, with the errno a VMM would get and the reason.
//
//     SoftwareDevice vf(model, chain, {.memory = guest});
//     vf.write32(0, kMode, 3);                                  // as the guest does; the chain sees its
//     ranges vf.set_state(MigrationState::stop_copy); auto stream = vf.save_all(); // read() until 0
//     other.set_state(MigrationState::resuming);
//     other.write_state(*stream);                               // in any cut
//     other.set_state(MigrationState::running);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hookline/model.h>
#include <hookline/chain.hpp>
#include <hookline/device_state.hpp>
#include <hookline/migration_state.hpp>
#include <hookline/open_device.hpp>
#include <hookline/result.hpp>

namespace hookline {

class SoftwareDevice {
 public:
  enum class Grant { none, read, write };  ///< guest memory, for plugins; the model always reaches it

  struct Options {
    uint32_t index = 0;  ///< which function of its kind: two of them differ in what hardware lets differ
    DeviceInfo info{};   ///< vendor and device are the model's
    std::vector<std::pair<std::string, std::string>>
        parameters{};               ///< values at first, where not the init value
    std::span<std::byte> memory{};  ///< the guest's, from IOVA 0; two devices may share it
    Grant grant = Grant::none;
    bool fail_without_worker = false;
    std::function<void(uint32_t vector)> on_interrupt{};
    std::function<void(std::span<const std::byte> frame)> on_transmit{};
    PluginLog log{};
    PfPort* pf = nullptr;
  };

  /// Opened, with a worker, in RUNNING. ENOMEM, or what a plugin's open() said. `model` outlives the device.
  static Result<std::unique_ptr<SoftwareDevice>> create(const hookline_model& model, Chain chain,
                                                        Options options);
  ~SoftwareDevice();
  SoftwareDevice(const SoftwareDevice&) = delete;
  SoftwareDevice& operator=(const SoftwareDevice&) = delete;

  // ---- the VMM's side

  /// Any offset and length inside the region; cut at the edges of trapped ranges and into aligned units of at
  /// most 8 bytes, as the kernel does.
  Result<void> read(uint32_t region, uint64_t offset, std::span<std::byte> data);
  Result<void> write(uint32_t region, uint64_t offset, std::span<const std::byte> data);
  Result<uint32_t> read32(uint32_t region, uint64_t offset);
  Result<void> write32(uint32_t region, uint64_t offset, uint32_t value);

  /// An ioctl the chain asked for; `behind` stands for vfio-pci. EOPNOTSUPP if nobody answers it.
  using Behind = std::function<int(hookline_ioctl& request)>;
  Result<void> ioctl(hookline_ioctl& request, const Behind& behind = {});

  MigrationState state() const { return state_; }
  /// Walks all arcs to `target`. A failing arc leaves the state the protocol allows.
  Result<void> set_state(MigrationState target);
  /// The data file: 0 only after the trailer in STOP_COPY; ENOMSG at the end of what PRE_COPY has.
  Result<size_t> read_state(std::span<std::byte> out);
  Result<void> write_state(std::span<const std::byte> bytes);
  /// read_state() until 0 (or ENOMSG, in PRE_COPY), `cut` bytes at a time.
  Result<std::vector<std::byte>> save_all(size_t cut = 65536);
  /// VFIO_MIG_GET_PRECOPY_INFO; EINVAL outside PRE_COPY.
  Result<BulkBytes> precopy_info() const;
  /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: an upper bound that falls with PRE_COPY.
  uint64_t stop_copy_bytes() const;
  /// Always succeeds and leads to RUNNING. The parameters stay.
  void reset();

  // ---- migration parameters: the device's, whatever worker serves it

  /// In the order of chain().parameters(). Those of a new device at first, the source's after a migration.
  const std::vector<std::string>& parameters() const { return parameters_; }
  /// As a write to sysfs. EINVAL: not a parameter, or not allowed. EBUSY: it cannot change while the device
  /// is open.
  Result<void> set_parameter(std::string_view name, const std::string& value);

  // ---- the wire

  /// True if the device took the frame.
  bool receive(std::span<const std::byte> frame);

  // ---- the worker

  /// As the death of its process: the plugins are gone, the device and its shadow stay.
  void kill_worker();
  /// A successor; it finds the shadow as it was left.
  Result<void> start_worker();
  /// An access was missed: no migration until the next reset.
  bool incomplete() const { return incomplete_; }
  /// The running chain; null without a worker.
  OpenDevice* worker() { return worker_.get(); }
  const Chain& chain() const { return chain_; }
  /// Registers behind the chain, and everything else plugins are given.
  DeviceAccess& behind();

 private:
  class Access;  // what the worker reaches
  class TouchedPages;
  SoftwareDevice(const hookline_model& model, Chain chain, Options options);

  Result<void> access(uint32_t op, uint32_t region, uint64_t offset, std::span<std::byte> data);
  Result<void> trapped(hookline_access& access);
  Result<void> missed();
  Result<size_t> find_parameter(std::string_view name) const;
  Result<uint64_t> device_access(uint32_t op, uint32_t region, uint64_t offset, uint32_t width,
                                 uint64_t value);
  uint64_t region_size(uint32_t region) const;
  void enter(MigrationState state);
  Result<void> run_arc(const Arc& arc);
  void run_reset_program();
  BulkBytes left() const;
  void touch(uint32_t region, uint64_t offset, size_t length);
  void begin_session(bool load);
  void end_session();
  Error session_error() const;
  tl::unexpected<Error> incomplete_error() const;

  const hookline_model& model_;
  Chain chain_;
  Options options_;
  hookline_model_host model_host_{};
  void* model_self_ = nullptr;
  std::array<std::byte, 4096> config_{};
  std::vector<std::byte> shadow_;
  std::array<uint32_t, HOOKLINE_SAVED> saved_{};
  std::optional<std::vector<hookline_step>> start_once_;

  MigrationState state_ = MigrationState::running;
  bool incomplete_ = false;
  std::vector<std::string> parameters_;
  std::array<std::unique_ptr<TouchedPages>, 6> touched_;  // of each BAR somebody asked about
  std::unique_ptr<Access> access_;
  std::unique_ptr<OpenDevice> worker_;

  // The data session. Its saver or loader dies with the worker; then reading and writing fail.
  std::optional<DeviceStateSaver> saver_;
  std::unique_ptr<DeviceStateLoader> loader_;
  std::optional<Error> session_error_;
};

}  // namespace hookline
