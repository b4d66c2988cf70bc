// SPDX-License-Identifier: Apache-2.0
#include "vfio_client.hpp"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/core.h>

namespace hookline::loader {
namespace {

tl::unexpected<Error> failed(const std::string& what) {
  const int code = errno;
  return fail(code, fmt::format("{}: {}", what, std::strerror(code)));
}

/// VFIO_DEVICE_FEATURE with the payload T behind its header.
template <typename T>
struct Feature {
  alignas(8) std::array<char, sizeof(vfio_device_feature) + sizeof(T)> bytes{};

  Feature(uint32_t flags, const T& payload) {
    const vfio_device_feature header{.argsz = static_cast<uint32_t>(bytes.size()), .flags = flags};
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &payload, sizeof payload);
  }
  int call(int device) { return ::ioctl(device, VFIO_DEVICE_FEATURE, bytes.data()); }
  T payload() const {
    T out;
    std::memcpy(&out, bytes.data() + sizeof(vfio_device_feature), sizeof out);
    return out;
  }
};

}  // namespace

Result<std::unique_ptr<VfioClient>> VfioClient::open(const std::filesystem::path& root, const PciFunction& function) {
  const std::string name = to_string(function.address);
  const auto folder = root / "dev/vfio";
  std::unique_ptr<VfioClient> client(new VfioClient);
  client->container_ = FileDescriptor(::open((folder / "vfio").c_str(), O_RDWR | O_CLOEXEC));
  if (client->container_.get() < 0) return failed(fmt::format("cannot open {}", (folder / "vfio").string()));
  const auto group_file = folder / function.iommu_group;
  client->group_ = FileDescriptor(::open(group_file.c_str(), O_RDWR | O_CLOEXEC));
  if (client->group_.get() < 0 && errno == ENOENT)
    return fail(ENOENT, fmt::format("{} is not bound to a VFIO driver, but to {}: `hookline apply` sets it up", name,
                                    function.driver.empty() ? "none" : function.driver));
  if (client->group_.get() < 0) return failed(fmt::format("cannot open {} for {}", group_file.string(), name));

  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  if (::ioctl(client->group_.get(), VFIO_GROUP_GET_STATUS, &status) < 0) return failed(group_file.string());
  if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
    return fail(EBUSY, fmt::format("IOMMU group {} of {} holds another function that a host driver has", function.iommu_group, name));
  const int container = client->container_.get();
  if (::ioctl(client->group_.get(), VFIO_GROUP_SET_CONTAINER, &container) < 0) return failed("VFIO container");
  if (::ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) return failed("VFIO type 1 IOMMU");
  client->device_ = FileDescriptor(::ioctl(client->group_.get(), VFIO_GROUP_GET_DEVICE_FD, name.c_str()));
  if (client->device_.get() < 0) return failed(fmt::format("cannot open {}", name));

  Feature<vfio_device_feature_migration> migration(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, {});
  if (migration.call(client->device_.get()) < 0)
    return fail(EOPNOTSUPP, fmt::format("{} does not support migration: `hookline status {}` may say why", name, name));
  return client;
}

Result<FileDescriptor> VfioClient::set_state(MigrationState state) {
  Feature<vfio_device_feature_mig_state> feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                                                 {.device_state = static_cast<uint32_t>(state), .data_fd = -1});
  if (feature.call(device_.get()) < 0) return failed(fmt::format("cannot go to {}", to_string(state)));
  return FileDescriptor(feature.payload().data_fd);
}

Result<MigrationState> VfioClient::state() const {
  Feature<vfio_device_feature_mig_state> feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {});
  if (feature.call(device_.get()) < 0) return failed("cannot ask for the migration state");
  return static_cast<MigrationState>(feature.payload().device_state);
}

Result<uint64_t> VfioClient::state_size() const {
  Feature<vfio_device_feature_mig_data_size> feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, {});
  if (feature.call(device_.get()) < 0) return failed("cannot ask for the size of the state");
  return feature.payload().stop_copy_length;
}

}  // namespace hookline::loader
