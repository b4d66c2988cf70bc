// SPDX-License-Identifier: Apache-2.0
//
// Opens a VFIO device as a VMM does (type 1 container and group) and drives its migration, for devices that no VMM has.
//
// Opening resets the device and closing resets it again: that is VFIO's rule, not ours. One thread. Errors: Result; EBUSY
// while somebody else has the group, EOPNOTSUPP for a device that does not migrate.
//
//     auto device = VfioClient::open(root, function);
//     auto data = (*device)->set_state(MigrationState::stop_copy);   // a data file
//     ::read(data->get(), ...);                                     // until 0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include <hookline/hook_channel.hpp>
#include <hookline/migration_state.hpp>
#include <hookline/result.hpp>

#include "sysfs.hpp"

namespace hookline::loader {

class VfioClient {
 public:
  /// Fails for a device that has no migration. The device is RUNNING then.
  static Result<std::unique_ptr<VfioClient>> open(const std::filesystem::path& root, const PciFunction& function);

  /// The data file where the state has one, else a descriptor that is none.
  Result<FileDescriptor> set_state(MigrationState state);
  Result<MigrationState> state() const;
  /// What STOP_COPY will have at most, bytes.
  Result<uint64_t> state_size() const;

 private:
  VfioClient() = default;
  FileDescriptor container_, group_, device_;  // closed in reverse
};

}  // namespace hookline::loader
