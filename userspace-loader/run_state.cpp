// SPDX-License-Identifier: Apache-2.0
#include "run_state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "files.hpp"

namespace hookline::loader {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr const char* kDevice = ".json";
constexpr const char* kPf = ".pf.json";
constexpr const char* kPfChange = ".pf-change.json";
constexpr const char* kService = ".service.json";

Result<std::optional<json>> read_json(const fs::path& file) {
  const Result<std::string> text = read_line(file);
  if (!text && text.error().code == ENOENT) return std::nullopt;
  if (!text) return fail(text.error());
  json parsed = json::parse(*text, nullptr, false);
  if (parsed.is_discarded())
    return fail(EBADMSG, fmt::format("{} is no JSON: it was damaged; give its device back by hand and remove it", file.string()));
  return parsed;
}

template <typename Record>
Result<std::optional<Record>> read_record(const fs::path& file, Result<Record> (*parse)(const json&)) {
  const auto parsed = read_json(file);
  if (!parsed) return fail(parsed.error());
  if (!*parsed) return std::nullopt;
  Result<Record> record = parse(**parsed);
  if (!record) return fail(EBADMSG, fmt::format("{} cannot be used: {}", file.string(), record.error().text));
  return std::optional<Record>(std::move(*record));
}

Result<void> remove_file(const fs::path& file) {
  std::error_code error;
  fs::remove(file, error);
  if (error) return fail(error.value(), fmt::format("cannot remove {}: {}", file.string(), error.message()));
  return {};
}

json to_json(const Process& process) { return {{"pid", process.pid}, {"start_time", process.start_time}}; }

Process process_from_json(const json& from) { return {from.at("pid"), from.at("start_time")}; }

}  // namespace

Process process_of(pid_t pid) {
  if (pid <= 0) return {};
  std::ifstream stat(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(stat, text);
  // The name in parentheses may hold anything; the 22nd field is the 20th after it. State Z has ended already.
  const size_t end = text.rfind(')');
  if (end == std::string::npos) return {};
  std::istringstream rest(text.substr(end + 1));
  std::string field;
  for (int n = 3; n <= 22 && rest >> field; ++n) {
    if (n == 3 && (field == "Z" || field == "X")) return {};
    if (n == 22) return {pid, std::strtoull(field.c_str(), nullptr, 10)};
  }
  return {};
}

bool is_alive(const Process& process) {
  return process.pid > 0 && process_of(process.pid).start_time == process.start_time && process.start_time != 0;
}

fs::path RunState::file(const PciAddress& address, const char* suffix) const { return folder_ / (to_string(address) + suffix); }
fs::path RunState::log_file(const PciAddress& address) const { return file(address, ".log"); }

Result<std::optional<DeviceRecord>> RunState::device(const PciAddress& address) const {
  return read_record<DeviceRecord>(file(address, kDevice), device_record);
}

Result<std::optional<PfRecord>> RunState::pf(const PciAddress& address) const {
  return read_record<PfRecord>(file(address, kPf), pf_record);
}

Result<std::optional<PfChange>> RunState::pf_change(const PciAddress& address) const {
  return read_record<PfChange>(file(address, kPfChange), loader::pf_change);
}

std::optional<ServiceState> RunState::service(const PciAddress& address) const {
  const auto parsed = read_json(file(address, kService));
  if (!parsed || !*parsed) return std::nullopt;
  try {
    const json& j = **parsed;
    return ServiceState{process_from_json(j.at("supervisor")), process_from_json(j.at("worker")), j.at("ready"),
                        j.at("restarts"), j.at("last_end")};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::vector<PciAddress> RunState::with_suffix(const char* suffix) const {
  std::vector<PciAddress> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    const size_t length = std::strlen(suffix);
    if (name.size() <= length || name.compare(name.size() - length, length, suffix) != 0) continue;
    // "x.pf.json" also ends in ".json"; its stem is no address.
    if (const auto address = parse_pci_address(name.substr(0, name.size() - length))) found.push_back(*address);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<PciAddress> RunState::devices() const { return with_suffix(kDevice); }
std::vector<PciAddress> RunState::pfs() const { return with_suffix(kPf); }

Result<void> RunState::make_folder() const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error)
    return fail(error.value(), fmt::format("cannot create {}: {}; is this root?", folder_.string(), error.message()));
  return {};
}

Result<void> RunState::remember(const DeviceRecord& record) const {
  if (auto ok = make_folder(); !ok) return ok;
  return replace_file(file(record.device.address, kDevice), loader::to_json(record).dump(2) + "\n");
}

Result<void> RunState::remember(const PfRecord& record) const {
  if (auto ok = make_folder(); !ok) return ok;
  return replace_file(file(record.pf, kPf), loader::to_json(record).dump(2) + "\n");
}

Result<void> RunState::remember(const PfChange& change) const {
  if (auto ok = make_folder(); !ok) return ok;
  return replace_file(file(change.address, kPfChange), loader::to_json(change).dump(2) + "\n");
}

Result<void> RunState::remember(const PciAddress& address, const ServiceState& service) const {
  const json j = {{"supervisor", to_json(service.supervisor)},
                  {"worker", to_json(service.worker)},
                  {"ready", service.ready},
                  {"restarts", service.restarts},
                  {"last_end", service.last_end}};
  return replace_file(file(address, kService), j.dump(2) + "\n");
}

Result<void> RunState::forget_device(const PciAddress& address) const {
  forget_service(address);
  for (const auto& path : {file(address, kPfChange), log_file(address)})
    if (auto ok = remove_file(path); !ok) return ok;
  return remove_file(file(address, kDevice));
}

Result<void> RunState::forget_pf(const PciAddress& address) const { return remove_file(file(address, kPf)); }

void RunState::forget_service(const PciAddress& address) const { (void)remove_file(file(address, kService)); }

Result<RunState::Lock> RunState::lock() const {
  if (auto ok = make_folder(); !ok) return fail(ok.error());
  const fs::path path = folder_ / "lock";
  Lock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return fail(errno, fmt::format("cannot open {}: {}; is this root?", path.string(), std::strerror(errno)));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) < 0)
    return fail(EBUSY, "another `hookline apply`, `hookline detach` or `hookline compat prepare` is at work; try again when it has ended");
  return lock;
}

}  // namespace hookline::loader
