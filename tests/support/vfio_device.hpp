// SPDX-License-Identifier: Apache-2.0
//
// A plain VFIO client: <linux/vfio.h> with a type1 container and groups, as every VMM uses it, and nothing of Hookline.
// It is what stands in for the VMM in tests and in the demo. With HOOKLINE_VFIO=iommufd in the environment it goes by the
// devices' own character devices and IOMMUFD instead; with HOOKLINE_VFIO=hwpt, too, and attaches page tables of its own, as QEMU does.
//
// Thread rule: one thread per object. Errors: Result with the kernel's errno and the call that failed. Lifetime: a Device
// keeps its group open; a Container must outlive nothing, the kernel keeps what is in use.
//
//     auto container = vfio::Container::create();
//     auto device = vfio::Device::open(*container, "0000:01:10.0");
//     auto memory = vfio::Memory::create(1 << 20);
//     container->map_dma(0x100000, memory->bytes());
//     auto data = device->set_state(VFIO_DEVICE_STATE_STOP_COPY);   // an open descriptor: the stream
#pragma once

#include <linux/vfio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <hookline/result.hpp>

namespace hookline::vfio {

/// A descriptor that closes itself.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

/// Shared memory of this process, zeroed and page-aligned; what a device does DMA to.
class Memory {
 public:
  static Result<Memory> create(size_t size);
  Memory(Memory&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, std::span<std::byte>{})) {}
  Memory& operator=(Memory&&) = delete;
  ~Memory();

  std::span<std::byte> bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  Memory(Descriptor fd, std::span<std::byte> bytes) : fd_(std::move(fd)), bytes_(bytes) {}
  Descriptor fd_;
  std::span<std::byte> bytes_;
};

/// A part of a region mapped into this process.
class Mapping {
 public:
  Mapping(void* address, size_t size) : address_(address), size_(size) {}
  Mapping(Mapping&& other) noexcept : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping();

  volatile uint32_t& word(size_t offset) const {
    return *reinterpret_cast<volatile uint32_t*>(static_cast<volatile std::byte*>(address_) + offset);
  }
  size_t size() const { return size_; }
  void* address() const { return address_; }

 private:
  void* address_;
  size_t size_;
};

/// An IOMMU address space. Devices in one container see the same memory at the same IOVA.
class Container {
 public:
  static Result<Container> create();

  Result<void> map_dma(uint64_t iova, std::span<std::byte> memory) const;
  Result<void> unmap_dma(uint64_t iova, uint64_t size) const;
  /// Of /dev/vfio/vfio or /dev/iommu.
  int fd() const { return fd_.get(); }
  /// Of the address space in IOMMUFD; nothing: a type1 container.
  std::optional<uint32_t> ioas() const { return ioas_; }
  /// Whether a device is attached to a page table (HWPT) of the address space.
  bool page_tables() const { return page_tables_; }

 private:
  Container(Descriptor fd, std::optional<uint32_t> ioas, bool page_tables = false)
      : fd_(std::move(fd)), ioas_(ioas), page_tables_(page_tables) {}
  Descriptor fd_;
  std::optional<uint32_t> ioas_;
  bool page_tables_;
};

struct Area {
  uint64_t offset;
  uint64_t size;
  bool operator==(const Area&) const = default;
};

struct Capability {
  uint16_t id;       ///< VFIO_REGION_INFO_CAP_*
  uint16_t version;
  std::vector<std::byte> payload;  ///< what follows the header
  bool operator==(const Capability&) const = default;
};

struct Region {
  uint32_t index;
  uint32_t flags;    ///< VFIO_REGION_INFO_FLAG_*
  uint64_t size;
  uint64_t offset;   ///< in the device's descriptor
  std::vector<Capability> capabilities;  ///< without the sparse areas
  std::optional<std::vector<Area>> sparse;  ///< nothing: the capability is absent

  /// What may be mapped: the sparse areas, or else the whole region if it may be mapped at all.
  std::vector<Area> mappable() const;
};

/// The state as VFIO_DEVICE_STATE_*; "RUNNING_P2P" and so on.
std::string state_name(uint32_t state);

class Device {
 public:
  /// Opens the device, which has to be bound to a VFIO driver, and puts it (or its group) into the container.
  static Result<Device> open(const Container& container, const std::string& address);

  int fd() const { return device_.get(); }
  const std::string& address() const { return address_; }

  Result<vfio_device_info> info() const;
  Result<Region> region(uint32_t index) const;
  Result<vfio_irq_info> irq(uint32_t index) const;

  /// All of the bytes or an error.
  Result<void> read(uint32_t region, uint64_t offset, std::span<std::byte> data) const;
  Result<void> write(uint32_t region, uint64_t offset, std::span<const std::byte> data) const;
  /// One access of sizeof(T) bytes.
  template <typename T>
  Result<T> read(uint32_t region, uint64_t offset) const;
  template <typename T>
  Result<void> write(uint32_t region, uint64_t offset, T value) const;
  Result<Mapping> map(uint32_t region, uint64_t offset, uint64_t size) const;
  /// Memory and bus master bits of COMMAND.
  Result<void> enable_memory_and_dma() const;

  /// One eventfd per MSI-X vector, from vector 0; none: MSI-X off.
  Result<void> set_msix(std::span<const int> eventfds) const;
  /// This eventfd is signalled when the host wants the device back.
  Result<void> watch_requests(int eventfd) const;
  Result<void> reset() const;
  /// VFIO_DEVICE_PCI_HOT_RESET of everything on its bus, which has to be in this group.
  Result<void> hot_reset() const;

  /// VFIO_DEVICE_FEATURE as it is: flags (GET, SET or PROBE, and the number) and the payload, in and out.
  Result<void> feature(uint32_t flags, std::span<std::byte> payload) const;
  /// VFIO_MIGRATION_* flags; ENOTTY: the device does not migrate.
  Result<uint64_t> migration_flags() const;
  Result<uint32_t> state() const;
  /// The descriptor of the stream where this state change opens one, else an empty one.
  Result<Descriptor> set_state(uint32_t state) const;
  /// Upper bound of what STOP_COPY will give, bytes.
  Result<uint64_t> data_size() const;

 private:
  Device(std::string address, Descriptor group, Descriptor device)
      : address_(std::move(address)), group_(std::move(group)), device_(std::move(device)) {}
  Result<void> set_eventfds(uint32_t index, std::span<const int> eventfds) const;

  std::string address_;
  Descriptor group_;
  Descriptor device_;  // closed before the group
};

/// On the descriptor of a stream in PRE_COPY or PRE_COPY_P2P.
Result<vfio_precopy_info> precopy_info(const Descriptor& data);

template <typename T>
Result<T> Device::read(uint32_t region, uint64_t offset) const {
  T value{};
  auto done = read(region, offset, std::as_writable_bytes(std::span(&value, 1)));
  if (!done) return fail(done.error());
  return value;
}

template <typename T>
Result<void> Device::write(uint32_t region, uint64_t offset, T value) const {
  return write(region, offset, std::as_bytes(std::span(&value, 1)));
}

}  // namespace hookline::vfio
