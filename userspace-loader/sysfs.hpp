// SPDX-License-Identifier: Apache-2.0
//
// PCI functions as sysfs shows them: who they are, which driver has them, and how to change that.
//
// Every path starts at one root, "/" or a folder that tests fill; no other file of the loader names /sys. Any thread.
// Errors: ENOENT for a function that is not there, else the errno of the attribute, each with a text for people.
//
//     const Sysfs sysfs(root);
//     Result<PciAddress> pf = sysfs.function_of_netdev("enp1s0f0");
//     Result<PciAddress> vf = sysfs.vf(*pf, 2);
//     Result<PciFunction> function = sysfs.function(*vf);
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hookline/config_fingerprint.hpp"
#include "hookline/result.hpp"
#include "pci_address.hpp"

namespace hookline::loader {

inline constexpr uint32_t kNoVf = UINT32_MAX;

struct PciFunction {
  PciAddress address;
  PciId id{};
  std::optional<PciAddress> pf{};  ///< nothing: not a VF
  uint32_t vf_index = kNoVf;       ///< in that PF
  std::string driver{};           ///< empty: none
  std::string driver_override{};  ///< empty: none
  std::string iommu_group{};      ///< number; empty: none
  std::string vfio_device{};      ///< name of its character device under /dev/vfio/devices; empty: none

  bool is_vf() const { return pf.has_value(); }
  bool operator==(const PciFunction&) const = default;
};

struct Sriov {
  uint32_t total = 0;
  uint32_t created = 0;
  uint32_t first_offset = 0, stride = 0;  ///< routing ids of the VFs, counted from the PF's
  uint16_t vf_device = 0;  ///< device id of the VFs
  bool autoprobe = true;  ///< the kernel looks for drivers for new VFs
};

class Sysfs {
 public:
  explicit Sysfs(std::filesystem::path root = "/") : root_(std::move(root)) {}

  bool exists(const PciAddress& address) const;
  Result<PciFunction> function(const PciAddress& address) const;
  /// The function a network device belongs to.
  Result<PciAddress> function_of_netdev(const std::string& name) const;
  /// Network devices of a function; more than one on some NICs, none without a network driver.
  std::vector<std::string> netdevs(const PciAddress& address) const;
  /// Address of an existing VF.
  Result<PciAddress> vf(const PciAddress& pf, uint32_t index) const;
  /// Nothing: the function has no SR-IOV.
  std::optional<Sriov> sriov(const PciAddress& pf) const;
  /// Other functions in the same IOMMU group.
  std::vector<PciAddress> group_peers(const PciAddress& address) const;
  bool driver_present(const std::string& driver) const;
  /// Present values of the migration parameters, by name; none where the function has none.
  std::map<std::string, std::string> migration_values(const PciAddress& address) const;

  /// The device's own description for a destination. ENOENT: it does not migrate; ENOTCONN, ETIMEDOUT: nobody answers.
  Result<std::string> migration_version(const PciAddress& address) const;
  /// EBUSY: it cannot change while the device is open; EINVAL: not an allowed value.
  Result<std::string> migration_value(const PciAddress& address, const std::string& parameter) const;
  Result<void> set_migration_value(const PciAddress& address, const std::string& parameter, const std::string& value) const;
  /// core's config_fingerprint() of the function; the whole configuration space is readable for root only.
  Result<std::string> config_fingerprint(const PciAddress& address) const;

  Result<void> set_driver_override(const PciAddress& address, const std::string& driver) const;
  Result<void> bind(const PciAddress& address, const std::string& driver) const;
  Result<void> unbind(const PciAddress& address, const std::string& driver) const;
  Result<void> set_numvfs(const PciAddress& pf, uint32_t count) const;
  Result<void> set_autoprobe(const PciAddress& pf, bool on) const;

 private:
  std::array<FunctionIdentity::Bar, 6> bars(const PciAddress& address) const;
  std::filesystem::path device(const PciAddress& address) const;
  std::filesystem::path driver(const std::string& name) const;

  std::filesystem::path root_;
};

/// Where VF `index` of a PF appears, from the PF's SR-IOV capability. Nothing where the PF does not say.
std::optional<PciAddress> predicted_vf(const PciAddress& pf, const Sriov& sriov, uint32_t index);

}  // namespace hookline::loader
