// SPDX-License-Identifier: Apache-2.0
//
// One open of one device: the chain's plugins, opened in order on a DeviceAccess, and the walk of every
// operation through them.
//
// A link is asked only for bytes of its own ranges and for operations it wants; the walk is flat, first link
// first, and ends at the first that does not pass. Thread rule: one thread. Errors: a failing plugin becomes
// an Outcome or an Error with its errno and a text that names the plugin; nothing a plugin throws comes out,
// and nothing here throws.
//
//     auto device = OpenDevice::open(chain, access, {.address = "0000:01:10.0"}, log);
//     if (!device) return fail(device.error());
//     Outcome outcome = (*device)->access(a);  // 0: a.value holds. > 0: nobody's, do the default. < 0:
//     -errno
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/plugin.h>
#include <hookline/chain.hpp>
#include <hookline/device_access.hpp>
#include <hookline/fields.hpp>
#include <hookline/result.hpp>

namespace hookline {

struct DeviceInfo {
  std::string address{};  ///< "0000:01:10.0"
  uint16_t vendor = 0, device = 0;
  uint32_t vf_index = UINT32_MAX;  ///< UINT32_MAX: not a VF
  std::string config_space{};      ///< its config_fingerprint(); empty: not known
};

/// Where a plugin's lines go: HOOKLINE_LOG_* level, plugin name, text. Empty: nowhere.
using PluginLog = std::function<void(uint32_t level, std::string_view plugin, std::string_view text)>;

/// Bulk state that is not sent yet: of the first round, and what changed since it was sent.
struct BulkBytes {
  uint64_t initial = 0, dirty = 0;
};

/// How an operation ended, and at whom.
struct Outcome {
  int answer = HOOKLINE_PASS;    ///< 0, positive, or -errno
  std::optional<size_t> link{};  ///< who answered; none: everybody passed
  std::string text{};            ///< of a failure: plugin, operation, reason
};

class OpenDevice {
 public:
  /// Opens every plugin, first link first; if one fails, those already open are closed again. `chain` and
  /// `access` (and `pf`, if there is one) outlive the object.
  static Result<std::unique_ptr<OpenDevice>> open(const Chain& chain, DeviceAccess& access,
                                                  const DeviceInfo& info, PluginLog log = {},
                                                  PfPort* pf = nullptr);
  /// Closes the plugins, last link first.
  ~OpenDevice();
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;

  /// One aligned access of 1, 2, 4 or 8 bytes. A link whose range begins or ends inside it is asked for its
  /// part alone; if then one part is answered and another passes, the passing one is done here, behind the
  /// chain.
  Outcome access(hookline_access& access) noexcept;

  /// HOOKLINE_RUN_REST: run what is behind the chain, then call again with HOOKLINE_IOCTL_AFTER and the
  /// result, which goes to every link that wants the operation, last link first.
  Outcome ioctl(hookline_ioctl& request) noexcept;

  /// Tells every link; a failure is logged.
  void event(const hookline_event& event) noexcept;

  /// Values of the owner's migration parameters, in the order of chain().parameters(); those of a new device
  /// at first.
  std::span<const std::string> parameters() const;
  /// EINVAL for values that are not allowed; nothing has changed then.
  Result<void> set_parameters(std::vector<std::string> values);
  /// A stream begins: save() is told the values as they are now, whatever is set later.
  void begin_save();
  /// A stream comes: what load() and apply() are told. The device's own values stay until set_parameters().
  Result<void> begin_load(std::string version, std::vector<std::string> values);

  /// One section of a link; true: it has more, call again.
  Result<bool> save(size_t link, FieldWriter& out) noexcept;
  Result<void> load(size_t link, FieldReader& in) noexcept;
  Result<void> apply(size_t link) noexcept;

  // Of the migration owner, if the chain has bulk. `flags`: HOOKLINE_BULK_*.
  /// True: it has more now, call again; a section without a field is none.
  Result<bool> save_bulk(FieldWriter& out, uint32_t flags) noexcept;
  /// What save_bulk() has still to put.
  Result<BulkBytes> bulk_sizes() noexcept;
  Result<void> load_bulk(FieldReader& in, uint32_t flags) noexcept;

  const Chain& chain() const;
  /// As it was given with the DeviceInfo.
  const std::string& config_space() const;
  DeviceAccess& behind();

 private:
  struct Impl;
  explicit OpenDevice(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hookline
