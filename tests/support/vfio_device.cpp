// SPDX-License-Identifier: Apache-2.0
#include "tests/support/vfio_device.hpp"

#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>

namespace hookline::vfio {
namespace {

tl::unexpected<Error> failed(const std::string& what) {
  const int code = errno;
  return fail(code, fmt::format("{}: {}", what, std::strerror(code)));
}

std::vector<Area> sparse_areas(std::span<const std::byte> payload) {
  uint32_t count = 0;
  std::memcpy(&count, payload.data(), sizeof count);
  std::vector<Area> areas(count);
  static_assert(sizeof(Area) == sizeof(vfio_region_sparse_mmap_area));
  std::memcpy(areas.data(), payload.data() + 2 * sizeof(uint32_t), count * sizeof(Area));
  return areas;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<Memory> Memory::create(size_t size) {
  Descriptor fd(::memfd_create("hookline-dma", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return failed("memfd");
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return failed("mmap of a memfd");
  return Memory(std::move(fd), {static_cast<std::byte*>(address), size});
}

Memory::~Memory() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

Result<Container> Container::create() {
  const char* const set = std::getenv("HOOKLINE_VFIO");
  if (const std::string_view backend = set ? set : ""; backend == "iommufd" || backend == "hwpt") {
    Descriptor iommu(::open("/dev/iommu", O_RDWR | O_CLOEXEC));
    if (!iommu) return failed("open /dev/iommu");
    iommu_ioas_alloc alloc{};
    alloc.size = sizeof alloc;
    if (::ioctl(iommu.get(), IOMMU_IOAS_ALLOC, &alloc) != 0) return failed("IOMMU_IOAS_ALLOC");
    return Container(std::move(iommu), alloc.out_ioas_id, backend == "hwpt");
  }
  Descriptor fd(::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC));
  if (!fd) return failed("open /dev/vfio/vfio");
  if (::ioctl(fd.get(), VFIO_GET_API_VERSION) != VFIO_API_VERSION) return fail(EPROTO, "unknown VFIO version");
  return Container(std::move(fd), std::nullopt);
}

Result<void> Container::map_dma(uint64_t iova, std::span<std::byte> memory) const {
  if (ioas_) {
    iommu_ioas_map map{};
    map.size = sizeof map;
    map.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    map.ioas_id = *ioas_;
    map.user_va = reinterpret_cast<uintptr_t>(memory.data());
    map.length = memory.size();
    map.iova = iova;
    if (::ioctl(fd(), IOMMU_IOAS_MAP, &map) != 0) return failed("IOMMU_IOAS_MAP");
    return {};
  }
  vfio_iommu_type1_dma_map map{};
  map.argsz = sizeof map;
  map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  map.vaddr = reinterpret_cast<uintptr_t>(memory.data());
  map.iova = iova;
  map.size = memory.size();
  if (::ioctl(fd(), VFIO_IOMMU_MAP_DMA, &map) != 0) return failed("VFIO_IOMMU_MAP_DMA");
  return {};
}

Result<void> Container::unmap_dma(uint64_t iova, uint64_t size) const {
  if (ioas_) {
    iommu_ioas_unmap unmap{};
    unmap.size = sizeof unmap;
    unmap.ioas_id = *ioas_;
    unmap.iova = iova;
    unmap.length = size;
    if (::ioctl(fd(), IOMMU_IOAS_UNMAP, &unmap) != 0) return failed("IOMMU_IOAS_UNMAP");
    return {};
  }
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof unmap;
  unmap.iova = iova;
  unmap.size = size;
  if (::ioctl(fd(), VFIO_IOMMU_UNMAP_DMA, &unmap) != 0) return failed("VFIO_IOMMU_UNMAP_DMA");
  return {};
}

std::vector<Area> Region::mappable() const {
  if (!(flags & VFIO_REGION_INFO_FLAG_MMAP)) return {};
  if (sparse) return *sparse;
  return {{0, size}};
}

std::string state_name(uint32_t state) {
  static constexpr const char* names[] = {"ERROR",    "STOP",        "RUNNING",  "STOP_COPY",
                                          "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"};
  return state < std::size(names) ? names[state] : fmt::format("state {}", state);
}

namespace {

Result<Descriptor> open_character_device(const Container& container, const std::string& address) {
  std::error_code error;
  const std::filesystem::directory_iterator folder("/sys/bus/pci/devices/" + address + "/vfio-dev", error);
  if (error) return fail(error.value(), fmt::format("{}: no VFIO device: {}", address, error.message()));
  const std::string path = "/dev/vfio/devices/" + folder->path().filename().string();
  Descriptor device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!device) return failed("open " + path);
  vfio_device_bind_iommufd bind{};
  bind.argsz = sizeof bind;
  bind.iommufd = container.fd();
  if (::ioctl(device.get(), VFIO_DEVICE_BIND_IOMMUFD, &bind) != 0) return failed("VFIO_DEVICE_BIND_IOMMUFD " + address);
  vfio_device_attach_iommufd_pt attach{};
  attach.argsz = sizeof attach;
  attach.pt_id = *container.ioas();
  if (container.page_tables()) {
    iommu_hwpt_alloc table{};
    table.size = sizeof table;
    table.dev_id = bind.out_devid;
    table.pt_id = *container.ioas();
    if (::ioctl(container.fd(), IOMMU_HWPT_ALLOC, &table) != 0) return failed("IOMMU_HWPT_ALLOC " + address);
    attach.pt_id = table.out_hwpt_id;
  }
  if (::ioctl(device.get(), VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) != 0)
    return failed("VFIO_DEVICE_ATTACH_IOMMUFD_PT " + address);
  return device;
}

}  // namespace

Result<Device> Device::open(const Container& container, const std::string& address) {
  if (container.ioas()) {
    auto device = open_character_device(container, address);
    if (!device) return fail(device.error());
    return Device(address, Descriptor(), std::move(*device));
  }
  const std::string link = "/sys/bus/pci/devices/" + address + "/iommu_group";
  std::error_code error;
  const auto target = std::filesystem::read_symlink(link, error);
  if (error) return fail(error.value(), fmt::format("{}: no IOMMU group: {}", address, error.message()));
  const std::string path = "/dev/vfio/" + target.filename().string();
  Descriptor group(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!group) return failed("open " + path);

  vfio_group_status status{};
  status.argsz = sizeof status;
  if (::ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status) != 0) return failed("VFIO_GROUP_GET_STATUS");
  if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
    return fail(EBUSY, fmt::format("{}: a device of its IOMMU group is bound to a driver that is not VFIO's", address));
  const int container_fd = container.fd();
  if (::ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &container_fd) != 0) return failed("VFIO_GROUP_SET_CONTAINER");
  // EINVAL: an earlier device of this container has set it.
  if (::ioctl(container_fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) != 0 && errno != EINVAL)
    return failed("VFIO_SET_IOMMU");
  Descriptor device(::ioctl(group.get(), VFIO_GROUP_GET_DEVICE_FD, address.c_str()));
  if (!device) return failed("VFIO_GROUP_GET_DEVICE_FD " + address);
  return Device(address, std::move(group), std::move(device));
}

Result<vfio_device_info> Device::info() const {
  vfio_device_info info{};
  info.argsz = sizeof info;
  if (::ioctl(fd(), VFIO_DEVICE_GET_INFO, &info) != 0) return failed("VFIO_DEVICE_GET_INFO");
  return info;
}

Result<Region> Device::region(uint32_t index) const {
  vfio_region_info head{};
  head.argsz = sizeof head;
  head.index = index;
  if (::ioctl(fd(), VFIO_DEVICE_GET_REGION_INFO, &head) != 0)
    return failed(fmt::format("VFIO_DEVICE_GET_REGION_INFO {}", index));

  // argsz has become what the whole answer takes.
  std::vector<uint64_t> storage((head.argsz + 7) / 8);
  const auto bytes = std::as_writable_bytes(std::span(storage));
  head.cap_offset = 0;
  std::memcpy(bytes.data(), &head, sizeof head);
  if (::ioctl(fd(), VFIO_DEVICE_GET_REGION_INFO, bytes.data()) != 0)
    return failed(fmt::format("VFIO_DEVICE_GET_REGION_INFO {}", index));
  std::memcpy(&head, bytes.data(), sizeof head);

  Region region{index, head.flags, head.size, head.offset, {}, {}};
  std::vector<vfio_info_cap_header> headers;
  std::vector<size_t> starts;
  for (size_t at = (head.flags & VFIO_REGION_INFO_FLAG_CAPS) ? head.cap_offset : 0; at != 0; at = headers.back().next) {
    if (at + sizeof(vfio_info_cap_header) > head.argsz || headers.size() > 16)
      return fail(EPROTO, fmt::format("region {}: a capability at {} of {} bytes", index, at, head.argsz));
    headers.emplace_back();
    starts.push_back(at);
    std::memcpy(&headers.back(), bytes.data() + at, sizeof headers.back());
  }
  for (size_t i = 0; i < headers.size(); ++i) {
    const size_t begin = starts[i] + sizeof(vfio_info_cap_header);
    const size_t end = i + 1 < starts.size() ? starts[i + 1] : head.argsz;
    const std::vector<std::byte> payload(bytes.begin() + static_cast<ptrdiff_t>(begin),
                                         bytes.begin() + static_cast<ptrdiff_t>(end));
    if (headers[i].id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
      region.sparse = sparse_areas(payload);
    } else {
      region.capabilities.push_back({headers[i].id, headers[i].version, payload});
    }
  }
  return region;
}

Result<vfio_irq_info> Device::irq(uint32_t index) const {
  vfio_irq_info info{};
  info.argsz = sizeof info;
  info.index = index;
  if (::ioctl(fd(), VFIO_DEVICE_GET_IRQ_INFO, &info) != 0)
    return failed(fmt::format("VFIO_DEVICE_GET_IRQ_INFO {}", index));
  return info;
}

namespace {

// The offset of a region in the descriptor is part of the ABI only through GET_REGION_INFO, but has been this since 2012.
off_t position(uint32_t region, uint64_t offset) {
  return static_cast<off_t>((static_cast<uint64_t>(region) << 40) + offset);
}

Result<void> complete(ssize_t done, size_t wanted, const char* what, uint32_t region, uint64_t offset) {
  if (done < 0) return failed(fmt::format("{} of {} bytes at {:#x} of region {}", what, wanted, offset, region));
  if (static_cast<size_t>(done) != wanted)
    return fail(EIO, fmt::format("{} of {} bytes at {:#x} of region {} ended after {}", what, wanted, offset, region, done));
  return {};
}

}  // namespace

Result<void> Device::read(uint32_t region, uint64_t offset, std::span<std::byte> data) const {
  return complete(::pread(fd(), data.data(), data.size(), position(region, offset)), data.size(), "read", region, offset);
}

Result<void> Device::write(uint32_t region, uint64_t offset, std::span<const std::byte> data) const {
  return complete(::pwrite(fd(), data.data(), data.size(), position(region, offset)), data.size(), "write", region, offset);
}

Result<Mapping> Device::map(uint32_t region, uint64_t offset, uint64_t size) const {
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd(), position(region, offset));
  if (address == MAP_FAILED) return failed(fmt::format("mmap of {} bytes at {:#x} of region {}", size, offset, region));
  return Mapping(address, size);
}

Result<void> Device::enable_memory_and_dma() const {
  auto command = read<uint16_t>(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND);
  if (!command) return fail(command.error());
  return write<uint16_t>(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, *command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

Result<void> Device::set_eventfds(uint32_t index, std::span<const int> eventfds) const {
  std::vector<std::byte> storage(sizeof(vfio_irq_set) + eventfds.size_bytes());
  vfio_irq_set set{};
  set.argsz = static_cast<uint32_t>(storage.size());
  set.flags = VFIO_IRQ_SET_ACTION_TRIGGER | (eventfds.empty() ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD);
  set.index = index;
  set.count = static_cast<uint32_t>(eventfds.size());
  std::memcpy(storage.data(), &set, sizeof set);
  if (!eventfds.empty()) std::memcpy(storage.data() + sizeof set, eventfds.data(), eventfds.size_bytes());
  if (::ioctl(fd(), VFIO_DEVICE_SET_IRQS, storage.data()) != 0)
    return failed(fmt::format("VFIO_DEVICE_SET_IRQS {}", index));
  return {};
}

Result<void> Device::set_msix(std::span<const int> eventfds) const {
  return set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, eventfds);
}

Result<void> Device::watch_requests(int eventfd) const {
  return set_eventfds(VFIO_PCI_REQ_IRQ_INDEX, std::span(&eventfd, 1));
}

Result<void> Device::reset() const {
  if (::ioctl(fd(), VFIO_DEVICE_RESET) != 0) return failed("VFIO_DEVICE_RESET");
  return {};
}

Result<void> Device::hot_reset() const {
  alignas(vfio_pci_hot_reset) std::byte space[sizeof(vfio_pci_hot_reset) + sizeof(int32_t)] = {};
  auto* reset = new (space) vfio_pci_hot_reset{};
  reset->argsz = sizeof space;
  reset->count = group_ ? 1 : 0;  // none: what is allowed follows from the device's own IOMMUFD
  const int32_t group = group_.get();
  std::memcpy(space + sizeof *reset, &group, sizeof group);
  if (::ioctl(fd(), VFIO_DEVICE_PCI_HOT_RESET, space) != 0) return failed("VFIO_DEVICE_PCI_HOT_RESET " + address_);
  return {};
}

Result<void> Device::feature(uint32_t flags, std::span<std::byte> payload) const {
  std::vector<uint64_t> storage((sizeof(vfio_device_feature) + payload.size() + 7) / 8);
  const auto bytes = std::as_writable_bytes(std::span(storage));
  vfio_device_feature head{};
  head.argsz = static_cast<uint32_t>(sizeof head + payload.size());
  head.flags = flags;
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!payload.empty()) std::memcpy(bytes.data() + sizeof head, payload.data(), payload.size());
  if (::ioctl(fd(), VFIO_DEVICE_FEATURE, bytes.data()) != 0)
    return failed(fmt::format("VFIO_DEVICE_FEATURE {} of {}", flags & VFIO_DEVICE_FEATURE_MASK, address_));
  if (!payload.empty()) std::memcpy(payload.data(), bytes.data() + sizeof head, payload.size());
  return {};
}

Result<uint64_t> Device::migration_flags() const {
  vfio_device_feature_migration migration{};
  auto done = feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
                      std::as_writable_bytes(std::span(&migration, 1)));
  if (!done) return fail(done.error());
  return migration.flags;
}

Result<uint32_t> Device::state() const {
  vfio_device_feature_mig_state state{};
  auto done = feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                      std::as_writable_bytes(std::span(&state, 1)));
  if (!done) return fail(done.error());
  return state.device_state;
}

Result<Descriptor> Device::set_state(uint32_t state) const {
  vfio_device_feature_mig_state change{};
  change.device_state = state;
  change.data_fd = -1;
  auto done = feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                      std::as_writable_bytes(std::span(&change, 1)));
  if (!done) return fail(done.error().code, fmt::format("to {}: {}", state_name(state), done.error().text));
  return Descriptor(change.data_fd);
}

Result<uint64_t> Device::data_size() const {
  vfio_device_feature_mig_data_size size{};
  auto done = feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
                      std::as_writable_bytes(std::span(&size, 1)));
  if (!done) return fail(done.error());
  return size.stop_copy_length;
}

Result<vfio_precopy_info> precopy_info(const Descriptor& data) {
  vfio_precopy_info info{};
  info.argsz = sizeof info;
  if (::ioctl(data.get(), VFIO_MIG_GET_PRECOPY_INFO, &info) != 0) return failed("VFIO_MIG_GET_PRECOPY_INFO");
  return info;
}

}  // namespace hookline::vfio
