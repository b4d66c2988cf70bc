// SPDX-License-Identifier: Apache-2.0
#include "planner.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "device_chain.hpp"
#include "hookline/parameters.hpp"
#include "pf_change.hpp"

namespace hookline::loader {
namespace {

/// A function the file names. One that does not exist yet is what the PF says it is going to be.
struct Target {
  const DeviceConfig* config;
  PciFunction function;
  bool to_create = false;
};

std::string title(const PciAddress& address, const std::optional<PciAddress>& pf, uint32_t vf) {
  if (!pf) return to_string(address);
  return fmt::format("{} (VF {} of {})", to_string(address), vf, to_string(*pf));
}

std::string listed(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

class ApplyPlanner {
 public:
  ApplyPlanner(const Config& config, const ApplyOptions& options, const Sysfs& sysfs, const RunState& state,
               const HostFacts& facts, Diagnostics& diagnostics)
      : config_(config), options_(options), sysfs_(sysfs), state_(state), facts_(facts), diagnostics_(diagnostics) {}

  Plan run() {
    for (const DeviceConfig& device : config_.devices) find_targets(device);
    refuse_duplicates();
    plan_module();
    for (const auto& [pf, count] : vfs_to_create_) plan_vfs(pf, count);
    for (const PciAddress& pf : pfs_) finish_autoprobe(pf);
    for (const Target& target : targets_) plan_device(target);
    drop_idle_groups();
    return std::move(plan_);
  }

 private:
  // ---- which functions

  void find_targets(const DeviceConfig& device) {
    if (device.match.address) {
      auto function = sysfs_.function(*device.match.address);
      if (!function) {
        diagnostics_.error(device.match.where, function.error().text, "",
                           {"a VF that does not exist yet is named by its PF: `match: { pf: ..., vf: N }`, with `create_vfs`"});
        return;
      }
      add_target({&device, std::move(*function)});
      return;
    }
    const auto pf = find_pf(device.match);
    if (!pf) return;
    const auto sriov = sysfs_.sriov(*pf);
    if (!sriov) {
      diagnostics_.error(device.match.where, fmt::format("{} ({}) has no SR-IOV, so no VFs", device.match.pf, to_string(*pf)));
      return;
    }
    if (!check_vf_count(device, *pf, *sriov)) return;
    pfs_.insert(*pf);
    for (const uint32_t index : device.match.vfs) add_vf(device, *pf, *sriov, index);
  }

  std::optional<PciAddress> find_pf(const Match& match) {
    if (const auto address = parse_pci_address(match.pf)) {
      if (sysfs_.exists(*address)) return address;
      diagnostics_.error(match.where, fmt::format("there is no PCI function {} on this host", to_string(*address)));
      return std::nullopt;
    }
    const auto address = sysfs_.function_of_netdev(match.pf);
    if (address) return *address;
    diagnostics_.error(match.where, address.error().text, "", {"`ip link` lists them; a PCI address may stand here, too"});
    return std::nullopt;
  }

  bool check_vf_count(const DeviceConfig& device, const PciAddress& pf, const Sriov& sriov) {
    const uint32_t wanted = device.create_vfs.value_or(0);
    const uint32_t highest = device.match.vfs.back();
    const std::string name = to_string(pf);
    if (wanted > sriov.total) {
      diagnostics_.error(device.where, fmt::format("create_vfs is {}, but {} has at most {} VFs", wanted, name, sriov.total));
      return false;
    }
    if (sriov.created != 0 && wanted > sriov.created) {
      diagnostics_.error(device.where, fmt::format("{} has {} VFs already, and {} are wanted", name, sriov.created, wanted), "",
                         {"their number can only be changed by removing them all, also those in use: do that by hand"});
      return false;
    }
    if (highest >= std::max(wanted, sriov.created)) {
      diagnostics_.error(device.match.where, fmt::format("{} has no VF {}: it has {} VFs", name, highest, sriov.created),
                         sriov.created == 0 ? fmt::format("`create_vfs: {}` creates them", highest + 1) : "");
      return false;
    }
    if (sriov.created == 0) vfs_to_create_[pf] = std::max(vfs_to_create_[pf], wanted);
    return true;
  }

  void add_vf(const DeviceConfig& device, const PciAddress& pf, const Sriov& sriov, uint32_t index) {
    if (sriov.created > 0) {
      const auto address = sysfs_.vf(pf, index);
      auto function = address ? sysfs_.function(*address) : tl::make_unexpected(address.error());
      if (function)
        add_target({&device, std::move(*function)});
      else
        diagnostics_.error(device.match.where, function.error().text);
      return;
    }
    const auto address = predicted_vf(pf, sriov, index);
    const auto parent = sysfs_.function(pf);
    if (!address || !parent) {
      diagnostics_.error(device.where, fmt::format("{} does not tell where its VFs will appear", to_string(pf)),
                         "create them by hand and leave out create_vfs");
      return;
    }
    add_target({&device,
                PciFunction{.address = *address,
                            .id = {parent->id.vendor, sriov.vf_device},
                            .pf = pf,
                            .vf_index = index,
                            .iommu_group = parent->iommu_group},
                true});
  }

  void add_target(Target target) {
    const PciFunction& function = target.function;
    const std::string name = to_string(function.address);
    const Match& match = target.config->match;
    if (match.id && *match.id != function.id) {
      diagnostics_.error(match.where, fmt::format("{} is {}, not {}", name, to_string(function.id), to_string(*match.id)));
      return;
    }
    for (const ChainLink& link : target.config->chain)
      if (link.plugin && !link.plugin->serves(function.id.vendor, function.id.device)) {
        diagnostics_.error(link.where, fmt::format("plugin \"{}\" does not serve {} ({})", link.name, name, to_string(function.id)),
                           "", {fmt::format("`hookline describe {}` lists the devices it serves", link.name)});
        return;
      }
    targets_.push_back(std::move(target));
  }

  void refuse_duplicates() {
    for (size_t i = 0; i < targets_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (targets_[i].function.address == targets_[j].function.address)
          diagnostics_.error(targets_[i].config->match.where,
                             fmt::format("{} is matched twice", to_string(targets_[i].function.address)), "",
                             {fmt::format("line {} matches it, too", targets_[j].config->match.where.line)});
  }

  // ---- what to do

  void plan_module() {
    if (!facts_.module_available()) {
      diagnostics_.error({}, fmt::format("the kernel module {} is not installed for the running kernel", kDriver), "",
                         {"install the package that brings it, or build it in vfio-pci-hooks/ and load it"});
      return;
    }
    Group group{.title = "kernel", .steps = {}};
    if (!facts_.module_loaded()) group.steps.push_back({.action = Action::load_module, .value = kDriver});
    module_ = add_group(std::move(group));
  }

  void plan_vfs(const PciAddress& pf, uint32_t count) {
    const auto sriov = sysfs_.sriov(pf);
    const auto before = state_.pf(pf);
    if (!before) diagnostics_.error({}, before.error().text);
    if (!sriov || !before) return;
    const bool autoprobe = *before ? (*before)->autoprobe : sriov->autoprobe;
    Group group{.title = fmt::format("{} (PF)", to_string(pf)), .steps = {}, .needs = {module_}, .only_for_others = true};
    // VFs as their driver would find them must not be probed: unbinding them again costs seconds and confuses networks.
    group.steps.push_back({.action = Action::remember_pf,
                           .address = pf,
                           .pf_record = PfRecord{.pf = pf, .numvfs = 0, .autoprobe = autoprobe, .created = count}});
    if (sriov->autoprobe)
      group.steps.push_back({.action = Action::set_autoprobe, .address = pf, .value = "0", .before = "1"});
    group.steps.push_back({.action = Action::set_numvfs, .address = pf, .value = std::to_string(count), .before = "0"});
    if (autoprobe) group.steps.push_back({.action = Action::set_autoprobe, .address = pf, .value = "1", .before = "0"});
    pf_groups_[pf] = add_group(std::move(group));
  }

  /// An earlier run that was killed may have left it switched off.
  void finish_autoprobe(const PciAddress& pf) {
    const auto sriov = sysfs_.sriov(pf);
    const auto record = state_.pf(pf);
    if (vfs_to_create_.count(pf) || !sriov || !record || !*record || (*record)->autoprobe == sriov->autoprobe) return;
    Group group{.title = fmt::format("{} (PF)", to_string(pf)), .steps = {}};
    group.steps.push_back({.action = Action::set_autoprobe, .address = pf, .value = "1", .before = "0"});
    add_group(std::move(group));
  }

  /// Written down by a release that did not, and there is a moment to do so: nobody needs the worker.
  bool lacks_config_space(const DeviceRecord& record, const vfio_pci_hooks_status& status) const {
    return record.device.migrates && record.device.config_space.empty() && !(status.flags & VFIO_PCI_HOOKS_STATUS_OPEN) &&
           sysfs_.config_fingerprint(record.device.address);
  }

  void plan_device(const Target& target) {
    const PciFunction& function = target.function;
    const Mark where = target.config->match.where;
    const auto record = state_.device(function.address);
    if (!record) {
      diagnostics_.error(where, record.error().text);
      return;
    }
    const DeviceRecordPtr previous = *record ? std::make_shared<const DeviceRecord>(**record) : nullptr;
    auto wanted = std::make_shared<DeviceRecord>();
    wanted->device = resolve(*target.config, function, options_.allow_untrusted, options_.config_file);
    wanted->found = previous && !target.to_create ? previous->found : Found{function.driver, function.driver_override};

    const bool ours = function.driver == kDriver;
    const auto status = facts_.status(function.address);
    const bool served = facts_.served(function.address);
    const std::string name = title(function.address, function.pf, function.vf_index);

    Group group{.title = name, .steps = {}, .needs = {module_}};
    if (const auto pf = function.pf ? pf_groups_.find(*function.pf) : pf_groups_.end(); pf != pf_groups_.end())
      group.needs.push_back(pf->second);

    if (ours && status && previous && same_definition(previous->device, wanted->device)) {
      const bool changed = !same_service(previous->device, wanted->device);
      if (changed && !may_take(target, status)) return;
      const bool outdated = changed || lacks_config_space(*previous, *status);
      if (facts_.supervised(function.address) && !outdated) {
        plan_.unchanged.push_back(name);
        return;
      }
      if (outdated) {
        // The worker goes by what the record said when it was started; one that is started again by a roll-back, too.
        if (served)
          group.steps.push_back({.action = Action::stop_serving, .address = function.address, .record = wanted, .previous = previous});
        group.steps.push_back({.action = Action::remember, .address = function.address, .record = wanted, .previous = previous});
      }
      group.steps.push_back({.action = Action::serve, .address = function.address, .record = wanted});
      add_group(std::move(group));
      return;
    }
    if (!may_take(target, status)) return;
    for (const std::string& text : facts_.lacking(wanted->device)) diagnostics_.error(where, text);

    const auto step = [&](Step s) {
      s.address = function.address;
      group.steps.push_back(std::move(s));
    };
    if (!facts_.module_loaded()) step({.action = Action::check_module, .record = wanted});
    if (target.to_create) step({.action = Action::await_vf, .record = wanted});
    // A worker that a roll-back starts again goes by the record that stands there then.
    if (served) step({.action = Action::stop_serving, .record = wanted, .previous = previous});
    step({.action = Action::remember, .record = wanted, .previous = previous});
    if (!function.driver.empty()) {
      const auto netdevs = sysfs_.netdevs(function.address);
      step({.action = Action::unbind, .value = function.driver, .note = netdevs.empty() ? "" : listed(netdevs) + " goes away"});
    }
    std::vector<AppliedParameter> kept;
    if (ours && status && previous) kept = written_since(target, *previous, name);
    std::vector<std::string> stay;
    for (const AppliedParameter& p : kept) stay.push_back(fmt::format("{} stays {}", p.name, p.value));
    step({.action = Action::define, .record = wanted, .previous = status ? previous : nullptr, .kept = kept, .note = listed(stay)});
    if (function.driver_override != kDriver)
      step({.action = Action::set_override, .value = kDriver, .before = function.driver_override});
    step({.action = Action::bind, .value = kDriver});
    step({.action = Action::serve, .record = wanted});
    note_peers(function);
    add_group(std::move(group));
  }

  /// Migration parameters whose value somebody has written since they were configured: it stays, where the chain allows it.
  std::vector<AppliedParameter> written_since(const Target& target, const DeviceRecord& previous, const std::string& name) {
    std::vector<AppliedParameter> kept;
    if (!target.config->plugins) return kept;
    const auto present = sysfs_.migration_values(target.function.address);
    for (const AppliedParameter& configured : previous.device.parameters) {
      const auto now = present.find(configured.name);
      if (now == present.end() || now->second == configured.value) continue;
      const auto all = target.config->plugins->parameters();
      const auto declared = std::find_if(all.begin(), all.end(), [&](const auto& p) { return configured.name == p.name; });
      if (declared != all.end() && is_allowed(declared->allowed_values, now->second))
        kept.push_back({configured.name, now->second});
      else
        plan_.notes.push_back(fmt::format("{}: the value \"{}\" of migration parameter \"{}\", written since the last apply, is lost: "
                                          "the plugin does not allow it any more",
                                          name, now->second, configured.name));
    }
    return kept;
  }

  bool may_take(const Target& target, const std::optional<vfio_pci_hooks_status>& status) {
    const PciFunction& function = target.function;
    const Mark where = target.config->match.where;
    const std::string name = to_string(function.address);
    const size_t before = diagnostics_.errors();

    if (function.iommu_group.empty())
      diagnostics_.error(where, fmt::format("{} has no IOMMU group, so it cannot be passed through", name),
                         "switch the IOMMU on in the firmware and on the kernel's command line, e.g. intel_iommu=on");
    auto holders = target.to_create ? std::vector<std::string>{} : facts_.holders(function);
    if (status && status->flags & VFIO_PCI_HOOKS_STATUS_OPEN && holders.empty()) holders.push_back("a process");
    if (!holders.empty())
      diagnostics_.error(where, fmt::format("{} is in use by {}", name, listed(holders)), "",
                         {"a device is changed only while nobody has it: shut that guest down or migrate it away, then apply again"});
    if (!function.is_vf()) check_whole_function(target);
    return diagnostics_.errors() == before;
  }

  void check_whole_function(const Target& target) {
    const PciFunction& function = target.function;
    const std::string name = to_string(function.address);
    const auto sriov = sysfs_.sriov(function.address);
    if ((sriov && sriov->created > 0) || vfs_to_create_.count(function.address)) {
      diagnostics_.error(target.config->match.where, fmt::format("{} is a PF with VFs; its driver serves them and stays bound", name));
      return;
    }
    const bool passed_through = function.driver == "vfio-pci" || function.driver == kDriver;
    if (!function.driver.empty() && !passed_through && !target.config->whole_function)
      diagnostics_.error(target.config->match.where,
                         fmt::format("{} is a whole function that its own driver {} has", name, function.driver),
                         "`whole_function: true` takes it away from that driver");
  }

  void note_peers(const PciFunction& function) {
    for (const PciAddress& peer : sysfs_.group_peers(function.address)) {
      const auto other = sysfs_.function(peer);
      if (!other || other->driver.empty() || other->driver.rfind("vfio", 0) == 0 || other->driver == "pcieport") continue;
      plan_.notes.push_back(fmt::format("{} shares IOMMU group {} with {}, which {} has: no VMM can open it until that is unbound",
                                        to_string(function.address), function.iommu_group, to_string(peer), other->driver));
    }
  }

  size_t add_group(Group group) {
    plan_.groups.push_back(std::move(group));
    return plan_.groups.size() - 1;
  }

  /// Nothing to do at all: also nothing about the kernel.
  void drop_idle_groups() {
    const bool idle = std::all_of(plan_.groups.begin(), plan_.groups.end(), [](const Group& g) { return g.steps.empty(); });
    if (idle) plan_.groups.clear();
  }

  const Config& config_;
  const ApplyOptions& options_;
  const Sysfs& sysfs_;
  const RunState& state_;
  const HostFacts& facts_;
  Diagnostics& diagnostics_;
  std::vector<Target> targets_;
  std::set<PciAddress> pfs_;
  std::map<PciAddress, uint32_t> vfs_to_create_;
  std::map<PciAddress, size_t> pf_groups_;
  size_t module_ = 0;
  Plan plan_;
};

/// The steps that give one device back, from whatever state an earlier run has left it in.
Group give_back(const DeviceRecordPtr& record, const std::optional<PciFunction>& function,
                const std::vector<hookline_pf_request>& on_pf, bool defined, bool served, std::vector<std::string>& notes) {
  const AppliedDevice& device = record->device;
  Group group{.title = title(device.address, device.pf, device.vf_index), .steps = {}, .roll_back = false};
  const auto step = [&](Step s) {
    s.address = device.address;
    group.steps.push_back(std::move(s));
  };
  if (served) step({.action = Action::stop_serving, .record = record});
  if (function) {
    std::string driver = function->driver;
    if (driver == kDriver) {
      step({.action = Action::unbind, .value = kDriver});
      driver.clear();
    }
    if (defined) step({.action = Action::undefine, .previous = record});
    for (const hookline_pf_request& request : on_pf) step({.action = Action::set_on_pf, .record = record, .pf_request = request});
    if (driver.empty()) {
      if (function->driver_override != record->found.driver_override)
        step({.action = Action::set_override, .value = record->found.driver_override, .before = function->driver_override});
      if (!record->found.driver.empty()) step({.action = Action::bind, .value = record->found.driver});
    } else if (driver != record->found.driver) {
      notes.push_back(fmt::format("{} was bound to {} by somebody else meanwhile: left as it is", to_string(device.address), driver));
    }
  }
  step({.action = Action::forget, .previous = record});
  return group;
}

}  // namespace

Plan plan_apply(const Config& config, const ApplyOptions& options, const Sysfs& sysfs, const RunState& state,
                const HostFacts& facts, Diagnostics& diagnostics) {
  return ApplyPlanner(config, options, sysfs, state, facts, diagnostics).run();
}

DetachPlan plan_detach(const std::vector<PciAddress>& addresses, const Sysfs& sysfs, const RunState& state,
                       const HostFacts& facts) {
  DetachPlan result;
  std::map<PciAddress, std::vector<size_t>> groups_of_pf;
  std::vector<PciAddress> kept = state.devices();
  for (const PciAddress& address : addresses) {
    const auto read = state.device(address);
    if (!read) {
      result.problems.push_back(read.error());
      continue;
    }
    if (!*read) {
      result.plan.unchanged.push_back(to_string(address));
      continue;
    }
    const auto record = std::make_shared<const DeviceRecord>(**read);
    std::optional<PciFunction> function;
    if (auto found = sysfs.function(address)) function = std::move(*found);
    const auto status = facts.status(address);
    auto holders = function ? facts.holders(*function) : std::vector<std::string>{};
    if (status && status->flags & VFIO_PCI_HOOKS_STATUS_OPEN && holders.empty()) holders.push_back("a process");
    if (!holders.empty()) {
      result.problems.push_back(
          {EBUSY, fmt::format("{} is in use by {} (VFIO group {}): shut that guest down or migrate it away first",
                              to_string(address), listed(holders), function ? function->iommu_group : "?")});
      continue;
    }
    const auto change = state.pf_change(address);
    if (!change) {
      result.problems.push_back(change.error());
      continue;
    }
    std::vector<hookline_pf_request> on_pf;
    if (const auto now = *change ? facts.pf_settings(record->device) : std::nullopt) on_pf = put_back(**change, *now);
    result.plan.groups.push_back(
        give_back(record, function, on_pf, status.has_value(), facts.served(address), result.plan.notes));
    if (record->device.pf) groups_of_pf[*record->device.pf].push_back(result.plan.groups.size() - 1);
    std::erase(kept, address);
  }

  for (const PciAddress& pf : state.pfs()) {
    const auto read = state.pf(pf);
    if (!read) {
      result.problems.push_back(read.error());
      continue;
    }
    const PfRecord& record = **read;
    const auto sriov = sysfs.sriov(pf);
    std::vector<std::string> in_use;
    bool has_kept = false;
    for (uint32_t vf = 0; sriov && vf < sriov->created; ++vf) {
      const auto address = sysfs.vf(pf, vf);
      if (!address) continue;
      has_kept |= std::find(kept.begin(), kept.end(), *address) != kept.end();
      const auto function = sysfs.function(*address);
      const bool given_back = std::find(addresses.begin(), addresses.end(), *address) != addresses.end();
      if (function && !function->driver.empty() && !given_back)
        in_use.push_back(fmt::format("{} ({})", to_string(*address), function->driver));
    }
    if (has_kept) continue;
    if (!in_use.empty()) {
      result.plan.notes.push_back(fmt::format("the VFs of {} stay: somebody uses {}", to_string(pf), listed(in_use)));
      continue;
    }
    Group group{.title = fmt::format("{} (PF)", to_string(pf)), .steps = {}, .needs = groups_of_pf[pf], .roll_back = false};
    if (sriov && sriov->created != record.numvfs)
      group.steps.push_back({.action = Action::set_numvfs, .address = pf, .value = std::to_string(record.numvfs),
                             .before = std::to_string(sriov->created)});
    if (sriov && sriov->autoprobe != record.autoprobe)
      group.steps.push_back({.action = Action::set_autoprobe, .address = pf, .value = record.autoprobe ? "1" : "0",
                             .before = sriov->autoprobe ? "1" : "0"});
    group.steps.push_back({.action = Action::forget_pf, .address = pf, .pf_record = record});
    result.plan.groups.push_back(std::move(group));
  }
  return result;
}

}  // namespace hookline::loader
