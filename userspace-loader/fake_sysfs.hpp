// SPDX-License-Identifier: Apache-2.0
//
// For tests: a folder that looks like the /sys of a host, as far as the loader looks. Removed with the object.
//
//     FakeSysfs host;
//     host.pf("0000:01:00.0", "8086:10c9", "igb", 2);     // with VFs at 0000:01:10.0 and 0000:01:10.2
//     Sysfs sysfs(host.root());
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <fmt/core.h>

namespace hookline::loader {

class FakeSysfs {
 public:
  FakeSysfs() {
    std::string name = (std::filesystem::temp_directory_path() / "hookline-test.XXXXXX").string();
    if (!::mkdtemp(name.data())) std::abort();
    root_ = name;
  }
  ~FakeSysfs() { std::filesystem::remove_all(root_); }
  FakeSysfs(const FakeSysfs&) = delete;
  FakeSysfs& operator=(const FakeSysfs&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path device(const std::string& address) const { return root_ / "sys/bus/pci/devices" / address; }

  void write(const std::filesystem::path& file, const std::string& text) const {
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  std::string read(const std::filesystem::path& file) const {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    return line;
  }

  void driver(const std::string& name) const { std::filesystem::create_directories(root_ / "sys/bus/pci/drivers" / name); }

  /// `id` as "8086:10ca"; no driver with an empty name.
  void function(const std::string& address, const std::string& id, const std::string& driver_name, const std::string& group) const {
    write(device(address) / "vendor", "0x" + id.substr(0, 4));
    write(device(address) / "device", "0x" + id.substr(5));
    write(device(address) / "driver_override", "(null)");
    if (!group.empty()) {
      std::filesystem::create_directories(root_ / "sys/kernel/iommu_groups" / group / "devices" / address);
      link(device(address) / "iommu_group", "../../../../kernel/iommu_groups/" + group);
    }
    bind(address, driver_name);
  }
  void bind(const std::string& address, const std::string& driver_name) const {
    std::filesystem::remove(device(address) / "driver");
    if (driver_name.empty()) return;
    driver(driver_name);
    link(device(address) / "driver", "../../drivers/" + driver_name);
  }
  void netdev(const std::string& address, const std::string& name) const {
    std::filesystem::create_directories(device(address) / "net" / name);
    std::filesystem::create_directories(root_ / "sys/class/net" / name);
    link(root_ / "sys/class/net" / name / "device", "../../../bus/pci/devices/" + address);
  }
  /// An 82576: eight VFs at most, the first 128 routing ids behind the PF, then every second one.
  void pf(const std::string& address, const std::string& driver_name, uint32_t vfs) const {
    function(address, "8086:10c9", driver_name, "1");
    write(device(address) / "sriov_totalvfs", "8");
    write(device(address) / "sriov_numvfs", std::to_string(vfs));
    write(device(address) / "sriov_offset", "128");
    write(device(address) / "sriov_stride", "2");
    write(device(address) / "sriov_vf_device", "10ca");
    write(device(address) / "sriov_drivers_autoprobe", "1");
    for (uint32_t n = 0; n < vfs; ++n) vf(address, n);
  }
  std::string vf(const std::string& pf_address, uint32_t index) const {
    const std::string address = fmt::format("{}10.{}", pf_address.substr(0, 8), 2 * index);
    function(address, "8086:10ca", "", std::to_string(10 + index));
    link(device(address) / "physfn", "../" + pf_address);
    link(device(pf_address) / fmt::format("virtfn{}", index), "../" + address);
    return address;
  }

 private:
  void link(const std::filesystem::path& from, const std::string& to) const {
    std::filesystem::remove(from);
    std::filesystem::create_symlink(to, from);
  }
  std::filesystem::path root_;
};

}  // namespace hookline::loader
