// SPDX-License-Identifier: Apache-2.0
#include "device_record.hpp"

#include <cerrno>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace hookline::loader {
namespace {

using nlohmann::json;

// Raised when the meaning of a field changes; a loader that finds another number leaves the file alone.
constexpr int kSchema = 1;

json link_to_json(const AppliedLink& link) {
  json options = json::array();
  for (const AppliedOption& option : link.options)
    options.push_back({{"key", option.key}, {"number", option.value.number}, {"text", option.value.text}});
  return {{"name", link.name}, {"file", link.file}, {"options", std::move(options)}};
}

AppliedLink link_from_json(const json& from) {
  AppliedLink link{.name = from.at("name"), .file = from.at("file")};
  for (const json& option : from.at("options"))
    link.options.push_back({option.at("key"), {.text = option.at("text"), .number = option.at("number"), .is_set = true}});
  return link;
}

PciAddress address_from_json(const json& from) {
  const auto address = parse_pci_address(from.get<std::string>());
  if (!address) throw std::invalid_argument(fmt::format("\"{}\" is no PCI address", from.get<std::string>()));
  return *address;
}

AppliedDevice device_from_json(const json& from) {
  AppliedDevice device{.address = address_from_json(from.at("address"))};
  const auto id = parse_pci_id(from.at("id").get<std::string>());
  if (!id) throw std::invalid_argument("\"id\" is no vendor:device");
  device.id = *id;
  if (!from.at("pf").is_null()) {
    device.pf = address_from_json(from.at("pf"));
    device.vf_index = from.at("vf");
  }
  const std::string memory = from.at("guest_memory");
  for (const GuestMemory m : {GuestMemory::none, GuestMemory::read, GuestMemory::write})
    if (memory == to_string(m)) device.guest_memory = m;
  device.on_worker_loss = from.at("on_worker_loss") == to_string(WorkerLoss::fail) ? WorkerLoss::fail : WorkerLoss::pass;
  device.limits.state_change = std::chrono::milliseconds(from.at("state_change_ms").get<int64_t>());
  device.limits.access = std::chrono::milliseconds(from.at("access_ms").get<int64_t>());
  // Records written before the key was known have none.
  device.busy_poll = std::chrono::microseconds(from.value("busy_poll_us", int64_t{0}));
  for (const json& link : from.at("chain")) device.chain.push_back(link_from_json(link));
  device.migrates = from.at("migrates");
  // Records written before there were parameters have none.
  if (const auto parameters = from.find("parameters"); parameters != from.end())
    for (const json& p : *parameters) device.parameters.push_back({p.at("name"), p.at("value")});
  device.allow_untrusted = from.at("allow_untrusted");
  device.config_file = from.at("config_file");
  device.config_space = from.value("config_space", "");
  return device;
}

json settings_to_json(const PfSettings& settings) {
  return {{"mac", settings.mac}, {"vlan", settings.vlan}, {"qos", settings.qos}};
}

PfSettings settings_from_json(const json& from) {
  return {.mac = from.at("mac"), .vlan = from.at("vlan"), .qos = from.at("qos")};
}

template <typename Parse>
auto guarded(const json& from, Parse parse) -> Result<decltype(parse(from))> {
  try {
    if (from.at("schema") != kSchema)
      return fail(EBADMSG, fmt::format("it has schema {}, this hookline knows {}", from.at("schema").dump(), kSchema));
    return parse(from);
  } catch (const std::exception& e) {
    return fail(EBADMSG, e.what());
  }
}

}  // namespace

json to_json(const AppliedDevice& device) {
  json chain = json::array();
  for (const AppliedLink& link : device.chain) chain.push_back(link_to_json(link));
  json parameters = json::array();
  for (const AppliedParameter& p : device.parameters) parameters.push_back({{"name", p.name}, {"value", p.value}});
  return {{"address", to_string(device.address)},
          {"id", to_string(device.id)},
          {"pf", device.pf ? json(to_string(*device.pf)) : json()},
          {"vf", device.pf ? json(device.vf_index) : json()},
          {"guest_memory", to_string(device.guest_memory)},
          {"on_worker_loss", to_string(device.on_worker_loss)},
          {"state_change_ms", device.limits.state_change.count()},
          {"access_ms", device.limits.access.count()},
          {"busy_poll_us", device.busy_poll.count()},
          {"chain", std::move(chain)},
          {"migrates", device.migrates},
          {"parameters", std::move(parameters)},
          {"allow_untrusted", device.allow_untrusted},
          {"config_file", device.config_file},
          {"config_space", device.config_space}};
}

json to_json(const DeviceRecord& record) {
  return {{"schema", kSchema},
          {"device", to_json(record.device)},
          {"found", {{"driver", record.found.driver}, {"driver_override", record.found.driver_override}}}};
}

json to_json(const PfRecord& record) {
  return {{"schema", kSchema},
          {"pf", to_string(record.pf)},
          {"created", record.created},
          {"found", {{"numvfs", record.numvfs}, {"autoprobe", record.autoprobe}}}};
}

json to_json(const PfChange& change) {
  return {{"schema", kSchema},
          {"address", to_string(change.address)},
          {"found", settings_to_json(change.found)},
          {"set", settings_to_json(change.set)}};
}

Result<DeviceRecord> device_record(const json& from) {
  return guarded(from, [](const json& j) {
    const json& found = j.at("found");
    return DeviceRecord{device_from_json(j.at("device")), {found.at("driver"), found.at("driver_override")}};
  });
}

Result<PfRecord> pf_record(const json& from) {
  return guarded(from, [](const json& j) {
    const json& found = j.at("found");
    return PfRecord{address_from_json(j.at("pf")), found.at("numvfs"), found.at("autoprobe"), j.at("created")};
  });
}

Result<PfChange> pf_change(const json& from) {
  return guarded(from, [](const json& j) {
    return PfChange{address_from_json(j.at("address")), settings_from_json(j.at("found")), settings_from_json(j.at("set"))};
  });
}

bool same_service(const AppliedDevice& a, const AppliedDevice& b) {
  const auto relevant = [](const AppliedDevice& device) {
    json j = to_json(device);
    j.erase("config_file");
    j.erase("config_space");
    return j;
  };
  return relevant(a) == relevant(b);
}

bool same_definition(const AppliedDevice& a, const AppliedDevice& b) {
  AppliedDevice other = b;
  other.busy_poll = a.busy_poll;
  return same_service(a, other);
}

}  // namespace hookline::loader
