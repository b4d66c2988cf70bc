// SPDX-License-Identifier: Apache-2.0
#include "plugin_host.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <new>

#include <fmt/format.h>

struct hookline_writer {
  hookline_device& device;
  hookline::FieldWriter& fields;
};

struct hookline_reader {
  hookline_device& device;
  hookline::FieldReader& fields;
};

namespace hookline {

namespace {

constexpr int kMaxErrno = 511;  // what a VMM may see; higher ones are internal to the kernel

/// Runs the body of a host function. Nothing may be thrown into a plugin.
template <typename Body>
int guarded(hookline_device* dev, Body&& body) noexcept {
  try {
    const Result<void> result = body();
    return result ? 0 : dev->failed(result.error());
  } catch (...) {
    return -ENOMEM;
  }
}

void host_log(hookline_device* dev, uint32_t level, const char* text) noexcept {
  try {
    if (dev->host.log) dev->host.log(level, dev->link.name(), text ? text : "");
  } catch (...) {
    // A line is lost for want of memory.
  }
}

int host_fail(hookline_device* dev, int error, const char* text) noexcept {
  if (error <= 0 || error > kMaxErrno) error = EIO;
  try {
    dev->said = Error{error, text ? text : ""};
  } catch (...) {
    dev->said.reset();
  }
  return -error;
}

int host_read(hookline_device* dev, uint32_t region, uint64_t offset, uint32_t width,
              uint64_t* value) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const Result<uint64_t> read = dev->host.access.read(region, offset, width);
    if (!read) return fail(read.error());
    *value = *read;
    return {};
  });
}

int host_write(hookline_device* dev, uint32_t region, uint64_t offset, uint32_t width,
               uint64_t value) noexcept {
  return guarded(dev, [&] { return dev->host.access.write(region, offset, width, value); });
}

int host_run_rest(hookline_device* dev, hookline_access* access) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const hookline_access* running = dev->running;
    if (!running || access->host_private != dev)
      return fail(EINVAL, "run_rest() is for the access that access() is being asked about");
    if (access->op != running->op || access->region != running->region || access->offset != running->offset ||
        access->length != running->length)
      return fail(EINVAL, "run_rest() takes the access with another value, not another access");
    hookline_access rest = *access;
    const Result<void> ok = dev->host.rest.run_rest(dev->index, rest);
    if (ok) access->value = rest.value;
    return ok;
  });
}

int host_map_bar(hookline_device* dev, uint32_t bar, volatile void** address, size_t* length) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const Result<std::span<volatile std::byte>> bytes = dev->host.access.map_bar(bar);
    if (!bytes) return fail(bytes.error());
    *address = bytes->data();
    *length = bytes->size();
    return {};
  });
}

int host_shadow(hookline_device* dev, void** address, size_t* length) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const size_t size = dev->link.plugin.shadow_size;
    const std::span<std::byte> all = dev->host.access.shadow();
    if (dev->link.shadow_offset + size > all.size())
      return fail(
          ENOSPC,
          fmt::format("the device was defined with {} bytes of shadow, {} are needed: define it again",
                      all.size(), dev->link.shadow_offset + size));
    *address = all.data() + dev->link.shadow_offset;
    *length = size;
    return {};
  });
}

int host_iova_read(hookline_device* dev, uint64_t iova, void* data, size_t length) noexcept {
  return guarded(dev, [&] {
    return dev->host.access.iova_read(iova, {static_cast<std::byte*>(data), length});
  });
}

int host_iova_write(hookline_device* dev, uint64_t iova, const void* data, size_t length) noexcept {
  return guarded(dev, [&] {
    return dev->host.access.iova_write(iova, {static_cast<const std::byte*>(data), length});
  });
}

int host_start_once(hookline_device* dev, const hookline_program* program) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    if (!dev->link.owns_migration())
      return fail(EPERM, "only the owner of the device's migration may replace its start program");
    return dev->host.access.start_once({program->steps, program->nr_steps});
  });
}

int host_saved(hookline_device* dev, uint32_t slot, uint32_t* value) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const Result<uint32_t> saved = dev->host.access.saved(slot);
    if (!saved) return fail(saved.error());
    *value = *saved;
    return {};
  });
}

int host_pf_request(hookline_device* dev, hookline_pf_request* request) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    if (!dev->host.pf) return fail(EOPNOTSUPP, "nobody here carries out requests to the PF");
    return dev->host.pf->request(*request);
  });
}

int host_put(hookline_writer* out, const char* name, const void* data, size_t length) noexcept {
  return guarded(&out->device, [&] {
    return out->fields.put(name ? name : "", {static_cast<const std::byte*>(data), length});
  });
}

int host_get(hookline_reader* in, const char* name, void* data, size_t length) noexcept {
  return guarded(&in->device, [&] {
    return in->fields.get(name ? name : "", {static_cast<std::byte*>(data), length});
  });
}

int host_reject(hookline_reader* in, const char* name, const char* reason) noexcept {
  return guarded(&in->device,
                 [&]() -> Result<void> { return in->fields.reject(name ? name : "", reason ? reason : ""); });
}

uint64_t host_now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

int host_parameter(hookline_device* dev, uint32_t index, const char** value) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    const ParameterValues& all = dev->host.parameters;
    const std::vector<std::string>& values = dev->moving == hookline_device::Moving::saving    ? all.saved
                                             : dev->moving == hookline_device::Moving::loading ? all.loaded
                                                                                               : all.present;
    if (!dev->link.owns_migration() || index >= values.size())
      return fail(EINVAL, fmt::format("the plugin has no migration parameter {}", index));
    *value = values[index].c_str();
    return {};
  });
}

int host_stream_version(hookline_device* dev, const char** version) noexcept {
  return guarded(dev, [&]() -> Result<void> {
    if (!dev->link.owns_migration() || dev->moving != hookline_device::Moving::loading)
      return fail(EINVAL,
                  "the version of the state is known to the owner of the migration, in load() and apply()");
    *version = dev->host.parameters.stream_version.c_str();
    return {};
  });
}

int host_touched(hookline_device* dev, uint32_t bar, uint64_t offset, uint64_t pages,
                 uint64_t* bitmap) noexcept {
  return guarded(dev, [&] {
    const std::span<uint64_t> words(bitmap, (pages + 63) / 64);
    std::ranges::fill(words, 0);
    return dev->host.access.touched(bar, offset, pages, words);
  });
}

int host_reserve(hookline_writer* out, const char* name, size_t length, void** data) noexcept {
  return guarded(&out->device, [&]() -> Result<void> {
    const Result<std::span<std::byte>> at = out->fields.reserve(name ? name : "", length);
    if (!at) return fail(at.error());
    *data = at->data();
    return {};
  });
}

int host_view(hookline_reader* in, const char* name, size_t most, const void** data,
              size_t* length) noexcept {
  return guarded(&in->device, [&]() -> Result<void> {
    const Result<std::span<const std::byte>> value = in->fields.view(name ? name : "", most);
    if (!value) return fail(value.error());
    *data = value->data();
    *length = value->size();
    return {};
  });
}

}  // namespace

const hookline_host kHostTable = {
    .size = sizeof(hookline_host),
    .reserved = 0,
    .log = host_log,
    .fail = host_fail,
    .read = host_read,
    .write = host_write,
    .run_rest = host_run_rest,
    .map_bar = host_map_bar,
    .shadow = host_shadow,
    .iova_read = host_iova_read,
    .iova_write = host_iova_write,
    .start_once = host_start_once,
    .saved = host_saved,
    .pf_request = host_pf_request,
    .put = host_put,
    .get = host_get,
    .reject = host_reject,
    .now_ns = host_now_ns,
    .parameter = host_parameter,
    .stream_version = host_stream_version,
    .touched = host_touched,
    .reserve = host_reserve,
    .view = host_view,
};

}  // namespace hookline

using hookline::Error;
using hookline::fail;
using hookline::Result;

hookline_device::hookline_device(const hookline::Link& link_, size_t index_, hookline::PluginHost& host_)
    : link(link_), index(index_), host(host_) {
  for (const hookline::OptionValue& option : link.options)
    values_.push_back({option.text.c_str(), option.number, option.is_set, 0});
}

int hookline_device::failed(const Error& error) {
  const int code = error.code > 0 && error.code <= hookline::kMaxErrno ? error.code : EIO;
  refused = Error{code, error.text};
  return -code;
}

/// `code` as the callback returned it, with whatever is known of the reason.
Error hookline_device::explain(std::string_view name, int code) const {
  std::string why;
  if (said && !said->text.empty()) why = said->text;
  if (refused && refused->code == code && why.find(refused->text) == std::string::npos)
    why = why.empty() ? refused->text : fmt::format("{} ({})", why, refused->text);
  if (why.empty()) why = std::strerror(code);
  return {code, fmt::format("plugin \"{}\": {}: {}", link.name(), name, why)};
}

template <typename Callback>
Result<int> hookline_device::call(std::string_view name, Callback&& callback, Moving moves) {
  moving = moves;
  said.reset();
  refused.reset();
  int ret = 0;
  // By the ABI nothing is thrown; a plugin that breaks it fails its own operation and nothing else.
  try {
    ret = callback();
  } catch (const std::exception& e) {
    ret = hookline::host_fail(this, EIO, e.what());
  } catch (...) {
    ret = hookline::host_fail(this, EIO, "it threw something that is no std::exception");
  }
  moving = Moving::no;
  if (ret >= 0) return ret;
  return fail(explain(name, ret < -hookline::kMaxErrno ? EIO : -ret));
}

Result<void> hookline_device::open(const hookline_info& info) {
  const Result<int> ret = call(
      "open()", [&] { return link.plugin.open(&hookline::kHostTable, this, &info, values_.data(), &self_); });
  if (!ret) return fail(ret.error());
  open_ = true;
  return {};
}

void hookline_device::close() {
  if (!open_) return;
  open_ = false;
  const Result<int> ret = call("close()", [&] {
    link.plugin.close(self_);
    return 0;
  });
  if (!ret) hookline::host_log(this, HOOKLINE_LOG_ERROR, ret.error().text.c_str());
}

Result<int> hookline_device::access(hookline_access& access) {
  // The plugin's own copy: whoever passes leaves the access as it was.
  hookline_access asked = access;
  asked.host_private = this;
  running = &access;
  const Result<int> ret = call("access()", [&] { return link.plugin.access(self_, &asked); });
  running = nullptr;
  if (ret && *ret == HOOKLINE_HANDLED) {
    access.value = asked.value;
    if (access.length < sizeof(access.value)) access.value &= (uint64_t{1} << (8 * access.length)) - 1;
  }
  return ret;
}

Result<int> hookline_device::ioctl(hookline_ioctl& request) {
  return call("ioctl()", [&] { return link.plugin.ioctl(self_, &request); });
}

Result<void> hookline_device::event(const hookline_event& event) {
  if (!link.plugin.event) return {};
  const Result<int> ret = call("event()", [&] {
    link.plugin.event(self_, &event);
    return 0;
  });
  if (!ret) return fail(ret.error());
  return {};
}

Result<bool> hookline_device::save(hookline::FieldWriter& out) {
  hookline_writer writer{*this, out};
  const Result<int> ret = call(
      "save()", [&] { return link.plugin.save(self_, &writer); }, Moving::saving);
  if (!ret) return fail(ret.error());
  return *ret > 0;
}

Result<bool> hookline_device::save_bulk(hookline::FieldWriter& out, uint32_t flags) {
  hookline_writer writer{*this, out};
  const Result<int> ret = call(
      "save_bulk()", [&] { return link.plugin.save_bulk(self_, &writer, flags); }, Moving::saving);
  if (!ret) return fail(ret.error());
  return *ret > 0;
}

Result<hookline::BulkBytes> hookline_device::bulk_sizes() {
  hookline::BulkBytes sizes;
  const Result<int> ret = call(
      "bulk_sizes()", [&] { return link.plugin.bulk_sizes(self_, &sizes.initial, &sizes.dirty); },
      Moving::saving);
  if (!ret) return fail(ret.error());
  return sizes;
}

Result<void> hookline_device::load(hookline::FieldReader& in) {
  return load_section("load()", in,
                      [&](hookline_reader& reader) { return link.plugin.load(self_, &reader); });
}

Result<void> hookline_device::load_bulk(hookline::FieldReader& in, uint32_t flags) {
  return load_section("load_bulk()", in,
                      [&](hookline_reader& reader) { return link.plugin.load_bulk(self_, &reader, flags); });
}

template <typename Callback>
Result<void> hookline_device::load_section(std::string_view name, hookline::FieldReader& in,
                                           Callback&& callback) {
  hookline_reader reader{*this, in};
  const Result<int> ret = call(
      name, [&] { return callback(reader); }, Moving::loading);
  if (ret) return {};
  // A refused field says more about itself than the plugin can: section, offset, value.
  if (refused && refused->code == ret.error().code) return fail(*refused);
  return fail(ret.error());
}

Result<void> hookline_device::apply() {
  const Result<int> ret = call(
      "apply()", [&] { return link.plugin.apply(self_); }, Moving::loading);
  if (!ret) return fail(ret.error());
  return {};
}
