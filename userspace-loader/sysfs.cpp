// SPDX-License-Identifier: Apache-2.0
#include "sysfs.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>

#include <fmt/core.h>

#include "files.hpp"

namespace hookline::loader {
namespace fs = std::filesystem;
namespace {

/// Name of what a symbolic link points to; empty if there is no link.
std::string link_name(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? std::string() : target.filename().string();
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Decimal, or hexadecimal with 0x in front, as sysfs writes it.
Result<uint32_t> read_number(const fs::path& file) {
  const Result<std::string> text = read_line(file);
  if (!text) return fail(text.error());
  char* end = nullptr;
  const unsigned long value = std::strtoul(text->c_str(), &end, 0);
  if (text->empty() || *end != '\0' || value > UINT32_MAX)
    return fail(EINVAL, fmt::format("{} holds \"{}\", which is no number", file.string(), *text));
  return static_cast<uint32_t>(value);
}

}  // namespace

std::optional<PciAddress> predicted_vf(const PciAddress& pf, const Sriov& sriov, uint32_t index) {
  if (sriov.first_offset == 0 || (index > 0 && sriov.stride == 0)) return std::nullopt;
  const uint32_t id = (pf.bus << 8 | pf.devfn()) + sriov.first_offset + index * sriov.stride;
  return PciAddress{pf.domain, static_cast<uint8_t>(id >> 8), static_cast<uint8_t>(id >> 3 & 0x1f),
                    static_cast<uint8_t>(id & 7)};
}

fs::path Sysfs::device(const PciAddress& address) const { return root_ / "sys/bus/pci/devices" / to_string(address); }
fs::path Sysfs::driver(const std::string& name) const { return root_ / "sys/bus/pci/drivers" / name; }

bool Sysfs::exists(const PciAddress& address) const { return fs::exists(device(address)); }

Result<PciFunction> Sysfs::function(const PciAddress& address) const {
  const fs::path folder = device(address);
  if (!fs::exists(folder)) return fail(ENOENT, fmt::format("there is no PCI function {} on this host", to_string(address)));
  const Result<uint32_t> vendor = read_number(folder / "vendor");
  if (!vendor) return fail(vendor.error());
  const Result<uint32_t> id = read_number(folder / "device");
  if (!id) return fail(id.error());

  PciFunction function{.address = address, .id = {static_cast<uint16_t>(*vendor), static_cast<uint16_t>(*id)}};
  function.driver = link_name(folder / "driver");
  function.iommu_group = link_name(folder / "iommu_group");
  if (const auto names = names_in(folder / "vfio-dev"); !names.empty()) function.vfio_device = names.front();
  if (const auto text = read_line(folder / "driver_override"); text && *text != "(null)") function.driver_override = *text;
  function.pf = parse_pci_address(link_name(folder / "physfn"));
  if (!function.pf) return function;

  for (const std::string& name : names_in(device(*function.pf))) {
    if (name.rfind("virtfn", 0) != 0 || link_name(device(*function.pf) / name) != to_string(address)) continue;
    std::from_chars(name.data() + 6, name.data() + name.size(), function.vf_index);
    return function;
  }
  return fail(ENODEV, fmt::format("{} says it is a VF of {}, which does not list it: is it being removed?",
                                  to_string(address), to_string(*function.pf)));
}

Result<PciAddress> Sysfs::function_of_netdev(const std::string& name) const {
  const fs::path folder = root_ / "sys/class/net" / name;
  if (name.find('/') != std::string::npos || !fs::exists(folder))
    return fail(ENOENT, fmt::format("there is no network interface \"{}\" on this host", name));
  const auto address = parse_pci_address(link_name(folder / "device"));
  if (!address || !exists(*address))
    return fail(ENODEV, fmt::format("the network interface \"{}\" is no PCI function", name));
  return *address;
}

std::vector<std::string> Sysfs::netdevs(const PciAddress& address) const { return names_in(device(address) / "net"); }

Result<PciAddress> Sysfs::vf(const PciAddress& pf, uint32_t index) const {
  const auto address = parse_pci_address(link_name(device(pf) / fmt::format("virtfn{}", index)));
  if (!address) return fail(ENOENT, fmt::format("{} has no VF {}", to_string(pf), index));
  return *address;
}

std::map<std::string, std::string> Sysfs::migration_values(const PciAddress& address) const {
  const fs::path folder = device(address) / "migration";
  std::map<std::string, std::string> values;
  for (const std::string& name : names_in(folder))
    if (const auto value = read_line(folder / name / "value")) values[name] = *value;
  return values;
}

std::optional<Sriov> Sysfs::sriov(const PciAddress& pf) const {
  const fs::path folder = device(pf);
  const auto total = read_number(folder / "sriov_totalvfs"), created = read_number(folder / "sriov_numvfs");
  if (!total || !created) return std::nullopt;
  Sriov sriov{.total = *total, .created = *created};
  sriov.first_offset = read_number(folder / "sriov_offset").value_or(0);
  sriov.stride = read_number(folder / "sriov_stride").value_or(0);
  sriov.autoprobe = read_number(folder / "sriov_drivers_autoprobe").value_or(1) != 0;
  // The only attribute in hexadecimal without 0x.
  if (const auto id = read_line(folder / "sriov_vf_device"))
    sriov.vf_device = static_cast<uint16_t>(std::strtoul(id->c_str(), nullptr, 16));
  return sriov;
}

std::vector<PciAddress> Sysfs::group_peers(const PciAddress& address) const {
  std::vector<PciAddress> peers;
  for (const std::string& name : names_in(device(address) / "iommu_group/devices"))
    if (const auto peer = parse_pci_address(name); peer && *peer != address) peers.push_back(*peer);
  return peers;
}

bool Sysfs::driver_present(const std::string& name) const { return fs::exists(driver(name)); }

Result<std::string> Sysfs::migration_version(const PciAddress& address) const {
  return read_line(device(address) / "migration_version");
}

Result<std::string> Sysfs::migration_value(const PciAddress& address, const std::string& parameter) const {
  return read_line(device(address) / "migration" / parameter / "value");
}

Result<void> Sysfs::set_migration_value(const PciAddress& address, const std::string& parameter, const std::string& value) const {
  return write_attribute(device(address) / "migration" / parameter / "value", value + "\n");
}

Result<std::string> Sysfs::config_fingerprint(const PciAddress& address) const {
  const auto identity = function(address);
  if (!identity) return fail(identity.error());
  // Not read_line(): bytes, and the last ones may be newlines.
  std::ifstream file(device(address) / "config", std::ios::binary);
  const std::vector<char> config{std::istreambuf_iterator<char>(file), {}};
  FunctionIdentity shown{.vendor = identity->id.vendor, .device = identity->id.device, .bars = bars(address)};
  const auto print = hookline::config_fingerprint(std::as_bytes(std::span(config)), shown);
  if (!print) return fail(print.error().code, fmt::format("{}: {}", to_string(address), print.error().text));
  return print;
}

std::array<FunctionIdentity::Bar, 6> Sysfs::bars(const PciAddress& address) const {
  std::array<FunctionIdentity::Bar, 6> bars{};
  std::ifstream lines(device(address) / "resource");
  for (FunctionIdentity::Bar& bar : bars) {
    uint64_t start = 0, end = 0, flags = 0;
    if (!(lines >> std::hex >> start >> end >> flags) || end <= start) continue;
    bar.size = end - start + 1;
    // The lowest bits of a resource's flags are those of the register.
    bar.type_bits = static_cast<uint32_t>(flags & 0xf);
  }
  return bars;
}

Result<void> Sysfs::set_driver_override(const PciAddress& address, const std::string& name) const {
  return write_attribute(device(address) / "driver_override", name + "\n");
}

Result<void> Sysfs::bind(const PciAddress& address, const std::string& name) const {
  if (!driver_present(name))
    return fail(ENOENT, fmt::format("cannot bind {} to {}: that driver is not loaded", to_string(address), name));
  return write_attribute(driver(name) / "bind", to_string(address));
}

Result<void> Sysfs::unbind(const PciAddress& address, const std::string& name) const {
  return write_attribute(driver(name) / "unbind", to_string(address));
}

Result<void> Sysfs::set_numvfs(const PciAddress& pf, uint32_t count) const {
  return write_attribute(device(pf) / "sriov_numvfs", fmt::format("{}", count));
}

Result<void> Sysfs::set_autoprobe(const PciAddress& pf, bool on) const {
  return write_attribute(device(pf) / "sriov_drivers_autoprobe", on ? "1" : "0");
}

}  // namespace hookline::loader
