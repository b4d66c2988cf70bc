// SPDX-License-Identifier: Apache-2.0
//
// The userspace end of vfio-pci-hooks: define a device, attach to it, serve one open after the other.
//
// linux/vfio_pci_hooks.h says what each call means; here are its descriptors and mappings as objects. Closing
// is their destructor's. Thread rule: one thread per object. Errors: Result, the kernel's errno and a text
// that says what was asked of which device; ESHUTDOWN once the device was closed, ECANCELED once the session
// was revoked.
//
//     auto control = ControlDevice::open();
//     control->define(definition, chain);                    // before the driver is bound
//     auto channel = control->attach(address);               // then: any process that holds the channel
//     while (auto session = channel->wait_open()) {
//       auto device = OpenDevice::open(chain, **session, info, log);
//       serve(**session, **device, {});                      // hookline/hook_serve.hpp: until the VMM closes
//       the device
//     }
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linux/vfio_pci_hooks.h>

#include <hookline/chain.hpp>
#include <hookline/device_access.hpp>
#include <hookline/result.hpp>

namespace hookline {

/// A descriptor that is closed with its object.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }
  int release();

 private:
  int fd_ = -1;
};

/// What the administrator decides about one function; the rest of its definition is the chain's.
struct Definition {
  vfio_pci_hooks_address address{};
  uint16_t vendor = 0, device = 0;
  std::vector<std::string> handlers = {
      VFIO_PCI_HOOKS_CHANNEL_NAME};                    ///< in-kernel handlers stand around "channel"
  uint32_t guest_memory = VFIO_PCI_HOOKS_MEMORY_NONE;  ///< VFIO_PCI_HOOKS_MEMORY_*
  bool fail_without_worker =
      false;  ///< an access with no worker fails (EIO) instead of passing to the device
  uint32_t access_limit_ms = 100;
  uint32_t state_limit_ms = 10000;
  /// Name and value of the owner's migration parameters that do not begin with their init value.
  std::vector<std::pair<std::string, std::string>> parameters{};
};

class Channel;

class ControlDevice {
 public:
  static constexpr const char* kPath = "/dev/vfio-pci-hooks";
  static Result<ControlDevice> open(const char* path = kPath);

  Result<vfio_pci_hooks_features> features() const;
  /// EOPNOTSUPP: the chain has parameters, and the loaded module is older than they are. With such a module a
  /// chain without parameters migrates, but the device has no migration_version.
  Result<void> define(const Definition& definition, const Chain& chain) const;
  Result<void> undefine(const vfio_pci_hooks_address& address) const;
  Result<Channel> attach(const vfio_pci_hooks_address& address) const;
  Result<vfio_pci_hooks_status> status(const vfio_pci_hooks_address& address) const;

 private:
  explicit ControlDevice(FileDescriptor fd) : fd_(std::move(fd)) {}
  FileDescriptor fd_;
};

/// Where the device's migration parameters are kept, whoever serves it.
class ParameterStore {
 public:
  virtual ~ParameterStore() = default;
  /// At this moment, in the order of the chain's parameters; none where the module is older than they are.
  virtual Result<std::vector<std::string>> parameters() = 0;
  /// The device takes over the source's values: all or none, only in RESUMING and once for each stream
  /// (EBUSY).
  virtual Result<void> set_parameters(std::span<const std::string> values) = 0;
};

/// One open of the device. Its registers are reached by calls, and by a mapping only where a plugin asks for
/// one: a mapped BAR answers SIGBUS while the device is in reset, in low power or has memory decoding off, a
/// call answers an errno. Slots, shadow, stream buffer and mapped BARs are taken back when the session ends,
/// in the middle of a request, too; from then on they read as zero, and next() says why.
class Session final : public DeviceAccess, public ParameterStore {
 public:
  ~Session() override;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Result<uint64_t> read(uint32_t region, uint64_t offset, uint32_t width) override;
  Result<void> write(uint32_t region, uint64_t offset, uint32_t width, uint64_t value) override;
  Result<std::span<volatile std::byte>> map_bar(uint32_t bar) override;
  std::span<std::byte> shadow() override;
  Result<void> iova_read(uint64_t iova, std::span<std::byte> data) override;
  Result<void> iova_write(uint64_t iova, std::span<const std::byte> data) override;
  Result<void> start_once(std::span<const hookline_step> steps) override;
  Result<uint32_t> saved(uint32_t slot) override;
  Result<void> touched(uint32_t bar, uint64_t offset, uint64_t pages, std::span<uint64_t> bitmap) override;
  Result<void> set_sizes(uint64_t initial, uint64_t stop_copy) override;

  Result<std::vector<std::string>> parameters() override;
  Result<void> set_parameters(std::span<const std::string> values) override;

  /// Hands over the answer in slot `answered` (or VFIO_PCI_HOOKS_NO_SLOT) and waits for what comes next.
  /// Besides the errors above ETIME after `timeout_ms` and EINTR; the answer has been handed over then.
  ///
  /// watch: where nothing came up it returns at once, with VFIO_PCI_HOOKS_NEXT_WATCHING, and requests come by
  /// slot 0's word until the next call. EINVAL: the module is older than that.
  Result<vfio_pci_hooks_next> next(int answered, int timeout_ms, bool watch = false);
  /// Whoever answers a LOAD without writing dirty_bytes promises nothing, and the VMM waits for each answer.
  vfio_pci_hooks_slot& slot(uint32_t index);
  std::span<std::byte> stream();

  /// An earlier worker served this open; what it kept is in the shadow.
  bool again() const { return again_; }
  /// VFIO_DEVICE_STATE_* when the session began.
  uint32_t initial_state() const { return initial_state_; }

 private:
  friend class Channel;
  struct Mapping;
  Session(FileDescriptor fd, bool again, uint32_t state, size_t shadow_size);
  Result<void> map();

  FileDescriptor fd_;
  bool again_ = false;
  uint32_t initial_state_ = 0;
  size_t shadow_size_ = 0;
  std::unique_ptr<Mapping> slots_, shadow_, stream_;
  std::unique_ptr<Mapping> bars_[6];
};

/// What somebody asks of the device by its file migration_version.
struct Query {
  uint64_t id = 0;
  uint32_t what = 0;   ///< VFIO_PCI_HOOKS_QUERY_*
  std::string text{};  ///< QUERY_WRITE: the source's migration_version
};

struct QueryAnswer {
  int code = 0;  ///< 0 or an errno
  std::string
      text{};  ///< QUERY_READ: the device's migration_version; with an errno the reason, for the kernel log
};

/// The right to serve one device. parameters() and next_query() may be called by one other thread than
/// wait_open().
class Channel {
 public:
  /// For a process that was handed the descriptor.
  explicit Channel(FileDescriptor fd) : fd_(std::move(fd)) {}
  int fd() const { return fd_.get(); }

  /// Waits until the device is open and not served; `chain` says how large its shadow is. ENODEV: the
  /// function left the driver. EAGAIN with `wait` false: not now; poll() fd() for POLLIN. EINTR: a signal.
  Result<std::unique_ptr<Session>> wait_open(const Chain& chain, bool wait = true);

  /// Hands over the answer to query `answered` (0: none) and waits for the next. ETIME after `timeout_ms`
  /// (below 0: never); EINVAL: nobody waits for this answer any more; ENODEV: the function left the driver;
  /// ENOTTY: a module without queries.
  Result<Query> next_query(uint64_t answered, const QueryAnswer& answer, int timeout_ms) const;
  /// As those of a Session, whether the device is open or not.
  Result<std::vector<std::string>> parameters() const;

 private:
  FileDescriptor fd_;
};

}  // namespace hookline
