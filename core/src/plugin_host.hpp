// SPDX-License-Identifier: Apache-2.0
//
// The host's side of one plugin of one open device: what the ABI's hookline_device stands for, the function
// table, and calls into the plugin that come back as Results.
//
// Thread rule: one thread. Errors: whatever a callback returns or throws becomes an Error whose text names
// plugin and callback, with the plugin's own reason and that of the host function that failed it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/chain.hpp>
#include <hookline/device_access.hpp>
#include <hookline/fields.hpp>
#include <hookline/open_device.hpp>

namespace hookline {

/// What stands behind a link for one access: the next links, then the device.
class RestOfChain {
 public:
  virtual ~RestOfChain() = default;
  virtual Result<void> run_rest(size_t link, hookline_access& access) = 0;
};

/// Values of the owner's parameters, by what a callback may ask for.
struct ParameterValues {
  std::vector<std::string> present;
  std::vector<std::string> saved;   // when the stream began
  std::vector<std::string> loaded;  // of the stream that comes
  std::string stream_version;
};

/// What all links of one open share.
struct PluginHost {
  DeviceAccess& access;
  RestOfChain& rest;
  PluginLog log;
  PfPort* pf;
  ParameterValues parameters;
};

extern const hookline_host kHostTable;

}  // namespace hookline

/// One per link. Plugins hold its address until close().
struct hookline_device {
  hookline_device(const hookline::Link& link, size_t index, hookline::PluginHost& host);
  hookline_device(const hookline_device&) = delete;
  hookline_device& operator=(const hookline_device&) = delete;

  hookline::Result<void> open(const hookline_info& info);
  void close();
  hookline::Result<int> access(hookline_access& access);
  hookline::Result<int> ioctl(hookline_ioctl& request);
  hookline::Result<void> event(const hookline_event& event);
  hookline::Result<bool> save(hookline::FieldWriter& out);
  hookline::Result<void> load(hookline::FieldReader& in);
  hookline::Result<void> apply();
  hookline::Result<bool> save_bulk(hookline::FieldWriter& out, uint32_t flags);
  hookline::Result<hookline::BulkBytes> bulk_sizes();
  hookline::Result<void> load_bulk(hookline::FieldReader& in, uint32_t flags);

  /// Keeps why a host function failed, for the text of the callback it fails; -errno.
  int failed(const hookline::Error& error);

  const hookline::Link& link;
  const size_t index;
  hookline::PluginHost& host;
  enum class Moving { no, saving, loading };
  Moving moving = Moving::no;                // which of save(), load(), apply() runs
  const hookline_access* running = nullptr;  // what access() is being asked
  std::optional<hookline::Error> said;       // by the plugin, with fail()
  std::optional<hookline::Error> refused;    // by a host function

 private:
  template <typename Callback>
  hookline::Result<int> call(std::string_view name, Callback&& callback, Moving moves = Moving::no);
  template <typename Callback>
  hookline::Result<void> load_section(std::string_view name, hookline::FieldReader& in, Callback&& callback);
  hookline::Error explain(std::string_view name, int code) const;

  std::vector<hookline_value> values_;
  void* self_ = nullptr;
  bool open_ = false;
};
