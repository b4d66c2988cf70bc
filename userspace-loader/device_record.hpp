// SPDX-License-Identifier: Apache-2.0
//
// What the loader remembers of a device it has taken over: the configuration with everything resolved, so that a
// supervisor needs nothing but the address, and what was found before, so that detach can give it back.
//
// Plain values; JSON to and from. Errors: EBADMSG for JSON that is not one of ours, with what is missing.
//
//     DeviceRecord record{.device = applied, .found = {.driver = "igbvf"}};
//     std::string text = to_json(record).dump(2);
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "config_model.hpp"
#include "hookline/result.hpp"
#include "pci_address.hpp"
#include "sysfs.hpp"

namespace hookline::loader {

struct AppliedOption {
  std::string key;
  OptionValue value;
};

struct AppliedLink {
  std::string name;
  std::string file{};  ///< empty: an in-kernel handler
  std::vector<AppliedOption> options{};
};

/// A migration parameter as the configuration wants it; where the file says nothing, its init value.
struct AppliedParameter {
  std::string name;
  std::string value;
};

/// One function and how it is to be served.
struct AppliedDevice {
  PciAddress address;
  PciId id{};
  std::optional<PciAddress> pf{};
  uint32_t vf_index = kNoVf;
  GuestMemory guest_memory = GuestMemory::none;
  WorkerLoss on_worker_loss = WorkerLoss::pass;
  Limits limits{};
  std::chrono::microseconds busy_poll{0};
  std::vector<AppliedLink> chain{};
  bool migrates = false;  ///< a plugin owns migration
  std::vector<AppliedParameter> parameters{};  ///< of that plugin
  bool allow_untrusted = false;
  std::string config_file{};  ///< for people
  std::string config_space{};  ///< its fingerprint when it was set up; empty: not known
};

/// The device as it was before its first apply. Empty texts: none.
struct Found {
  std::string driver{};
  std::string driver_override{};
};

struct DeviceRecord {
  AppliedDevice device;
  Found found{};
};

/// What an administrator can set for a VF on its PF and a plugin's request can change.
struct PfSettings {
  std::array<uint8_t, 6> mac{};  ///< zero: none
  uint16_t vlan = 0, qos = 0;    ///< 0: none
  bool operator==(const PfSettings&) const = default;
};

/// A VF whose settings on the PF were changed because its plugin asked for it.
struct PfChange {
  PciAddress address;
  PfSettings found{};  ///< before the first change
  PfSettings set{};    ///< after the last one; where the PF has something else by now, somebody else has set it
};

/// A PF whose VFs the loader has created.
struct PfRecord {
  PciAddress pf;
  uint32_t numvfs = 0;    ///< found
  bool autoprobe = true;  ///< found
  uint32_t created = 0;
};

nlohmann::json to_json(const AppliedDevice& device);
nlohmann::json to_json(const DeviceRecord& record);
nlohmann::json to_json(const PfRecord& record);
nlohmann::json to_json(const PfChange& change);
Result<DeviceRecord> device_record(const nlohmann::json& json);
Result<PfRecord> pf_record(const nlohmann::json& json);
Result<PfChange> pf_change(const nlohmann::json& json);

/// Nothing a worker or the kernel would notice differs.
bool same_service(const AppliedDevice& a, const AppliedDevice& b);
/// Nothing the kernel would notice: what differs a worker learns when it starts.
bool same_definition(const AppliedDevice& a, const AppliedDevice& b);

}  // namespace hookline::loader
