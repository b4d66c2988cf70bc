// SPDX-License-Identifier: Apache-2.0
//
// For tests: a plugin whose callbacks are lambdas, and a device that is 4 KiB of memory and a journal.
//
//     Journal journal;
//     FakePlugin a("a", journal), b("b", journal);
//     a.trap(0, 0x10, 4);
//     a.on_access = [](hookline_access&) { return HOOKLINE_PASS; };
//     FakeAccess device(journal);
//     auto chain = build_chain(links(a, b));
//     auto open = OpenDevice::open(*chain, device, {});
#pragma once

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <hookline/chain.hpp>
#include <hookline/device_access.hpp>
#include <hookline/open_device.hpp>

namespace hookline::test {

using Journal = std::vector<std::string>;

class FakePlugin {
 public:
  FakePlugin(std::string name, Journal& journal) : journal_(journal), name_(std::move(name)) {
    key_.name = "self";
    key_.type = HOOKLINE_KEY_UINT;
    abi.abi = {HOOKLINE_ABI_MAGIC, HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR, sizeof(hookline_plugin), 0, 0};
    abi.name = name_.c_str();
    abi.version = "1.0";
    abi.keys = &key_;
    abi.nr_keys = 1;
    abi.ops_known = HOOKLINE_OPS_KNOWN;
    abi.unknown_op = HOOKLINE_UNKNOWN_PASS;
    abi.open = [](const hookline_host* table, hookline_device* dev, const hookline_info*,
                  const hookline_value* values, void** self) {
      auto* plugin = reinterpret_cast<FakePlugin*>(values[0].number);
      plugin->host = table;
      plugin->device = dev;
      *self = plugin;
      plugin->note("open");
      return plugin->on_open ? plugin->on_open() : 0;
    };
    abi.close = [](void* self) { static_cast<FakePlugin*>(self)->note("close"); };
    abi.access = [](void* self, hookline_access* a) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note(
          fmt::format("{} {:#x}+{}", a->op == HOOKLINE_OP_READ ? "read" : "write", a->offset, a->length));
      return plugin->on_access ? plugin->on_access(*a) : HOOKLINE_PASS;
    };
    abi.ioctl = [](void* self, hookline_ioctl* request) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note(request->flags & HOOKLINE_IOCTL_AFTER ? "after" : "ioctl");
      return plugin->on_ioctl ? plugin->on_ioctl(*request) : HOOKLINE_PASS;
    };
    abi.event = [](void* self, const hookline_event* event) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note(event->what == HOOKLINE_EVENT_RESET ? "reset"
                                                       : fmt::format("state {}>{}", event->from, event->to));
      if (plugin->on_event) plugin->on_event();
    };
  }
  FakePlugin(const FakePlugin&) = delete;
  FakePlugin& operator=(const FakePlugin&) = delete;

  FakePlugin& trap(uint32_t region, uint64_t offset, uint64_t length,
                   uint32_t ops = HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE) {
    ranges_.push_back({region, ops, offset, length});
    abi.ranges = ranges_.data();
    abi.nr_ranges = static_cast<uint32_t>(ranges_.size());
    return *this;
  }
  FakePlugin& guard() {
    abi.unknown_op = HOOKLINE_UNKNOWN_REFUSE;
    return *this;
  }
  FakePlugin& with_state() {
    abi.save = [](void* self, hookline_writer* out) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note("save");
      return plugin->on_save ? plugin->on_save(out) : 0;
    };
    abi.load = [](void* self, hookline_reader* in) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note("load");
      return plugin->on_load ? plugin->on_load(in) : 0;
    };
    abi.apply = [](void* self) {
      auto* plugin = static_cast<FakePlugin*>(self);
      plugin->note("apply");
      return plugin->on_apply ? plugin->on_apply() : 0;
    };
    return *this;
  }
  /// All three bulk callbacks, each a lambda that must be set before it is called.
  FakePlugin& with_bulk(uint64_t max_bulk) {
    abi.max_bulk = max_bulk;
    abi.save_bulk = [](void* self, hookline_writer* out, uint32_t flags) {
      return static_cast<FakePlugin*>(self)->on_save_bulk(out, flags);
    };
    abi.bulk_sizes = [](void* self, uint64_t* initial, uint64_t* dirty) {
      return static_cast<FakePlugin*>(self)->on_bulk_sizes(initial, dirty);
    };
    abi.load_bulk = [](void* self, hookline_reader* in, uint32_t flags) {
      return static_cast<FakePlugin*>(self)->on_load_bulk(in, flags);
    };
    return *this;
  }
  FakePlugin& own_migration() {
    abi.claims = HOOKLINE_CLAIM_MIGRATION;
    abi.model = "com.example/fake";
    abi.migration_version = "1";
    return with_state();
  }

  FakePlugin& parameter(const hookline_parameter& declared) {
    parameters_.push_back(declared);
    abi.parameters = parameters_.data();
    abi.nr_parameters = static_cast<uint32_t>(parameters_.size());
    return *this;
  }
  /// Other allowed values of one parameter; a single one becomes its init and off value, too.
  void narrow(size_t index, std::string allowed) {
    hookline_parameter& p = parameters_[index];
    allowed_ = std::move(allowed);
    p.allowed_values = allowed_.c_str();
    if (allowed_.find('|') == std::string::npos) p.init_value = p.off_value = p.allowed_values;
  }
  /// What the host answers; empty if it refuses.
  std::string ask(uint32_t index) const {
    const char* value = "";
    return host->parameter(device, index, &value) == 0 ? value : "";
  }
  std::string ask_version() const {
    const char* version = "";
    return host->stream_version(device, &version) == 0 ? version : "";
  }

  Link link() { return *make_link(abi, {{.number = reinterpret_cast<uintptr_t>(this), .is_set = true}}); }
  void note(const std::string& what) { journal_.push_back(name_ + " " + what); }

  hookline_plugin abi{};
  const hookline_host* host = nullptr;
  hookline_device* device = nullptr;
  std::function<int()> on_open, on_apply;
  std::function<int(hookline_access&)> on_access;
  std::function<int(hookline_ioctl&)> on_ioctl;
  std::function<void()> on_event;
  std::function<int(hookline_writer*)> on_save;
  std::function<int(hookline_reader*)> on_load;
  std::function<int(hookline_writer*, uint32_t flags)> on_save_bulk;
  std::function<int(uint64_t* initial, uint64_t* dirty)> on_bulk_sizes;
  std::function<int(hookline_reader*, uint32_t flags)> on_load_bulk;

 private:
  Journal& journal_;
  std::string name_;
  hookline_key key_{};
  std::vector<hookline_range> ranges_;
  std::vector<hookline_parameter> parameters_;
  std::string allowed_;
};

template <typename... Plugins>
std::vector<Link> links(Plugins&... plugins) {
  std::vector<Link> all;
  (all.push_back(plugins.link()), ...);
  return all;
}

/// Every region is the same memory.
class FakeAccess final : public DeviceAccess {
 public:
  explicit FakeAccess(Journal& journal, size_t shadow_size = 0)
      : shadow_bytes(shadow_size), journal_(journal) {}

  Result<uint64_t> read(uint32_t, uint64_t offset, uint32_t width) override {
    journal_.push_back(fmt::format("device read {:#x}+{}", offset, width));
    if (failing) return fail(*failing);
    uint64_t value = 0;
    std::memcpy(&value, &memory[offset], width);
    return value;
  }
  Result<void> write(uint32_t, uint64_t offset, uint32_t width, uint64_t value) override {
    journal_.push_back(fmt::format("device write {:#x}+{}={:#x}", offset, width, value));
    if (failing) return fail(*failing);
    std::memcpy(&memory[offset], &value, width);
    return {};
  }
  Result<std::span<volatile std::byte>> map_bar(uint32_t) override { return fail(EOPNOTSUPP, "no mapping"); }
  std::span<std::byte> shadow() override { return shadow_bytes; }
  Result<void> iova_read(uint64_t, std::span<std::byte>) override { return fail(EPERM, "not granted"); }
  Result<void> iova_write(uint64_t, std::span<const std::byte>) override {
    return fail(EPERM, "not granted");
  }
  Result<void> start_once(std::span<const hookline_step>) override { return {}; }
  Result<uint32_t> saved(uint32_t) override { return 0U; }
  Result<void> touched(uint32_t, uint64_t, uint64_t, std::span<uint64_t>) override {
    return fail(EOPNOTSUPP, "nobody keeps track");
  }
  Result<void> set_sizes(uint64_t, uint64_t) override { return {}; }

  uint8_t memory[4096] = {};
  std::vector<std::byte> shadow_bytes;
  std::optional<Error> failing;

 private:
  Journal& journal_;
};

}  // namespace hookline::test
