// SPDX-License-Identifier: Apache-2.0
#include <hookline/open_device.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>

#include <fmt/format.h>

#include "access_units.hpp"
#include "plugin_host.hpp"

namespace hookline {

namespace {

bool wants(const Link& link, const hookline_access& access) {
  // An observer without ranges of its own sees what the others trap.
  if (link.is_observer() && !link.plugin.nr_ranges) return link.plugin.access != nullptr;
  const std::span<const hookline_range> ranges(link.plugin.ranges, link.plugin.nr_ranges);
  return link.plugin.access && std::ranges::any_of(ranges, [&](const hookline_range& range) {
           return range.region == access.region && (range.ops & (1U << access.op)) &&
                  range.offset <= access.offset &&
                  access.offset + access.length <= range.offset + range.length;
         });
}

bool wants(const Link& link, const hookline_ioctl& request) {
  if (!link.plugin.ioctl) return false;
  const uint32_t number = request.op == HOOKLINE_OP_FEATURE ? request.number & 0xffff : request.number;
  const uint32_t wanted = request.op == HOOKLINE_OP_FEATURE ? link.plugin.features : link.plugin.ioctls;
  return number < 32 && (wanted >> number & 1);
}

bool valid(const hookline_access& access) {
  const uint32_t n = access.length;
  return (access.op == HOOKLINE_OP_READ || access.op == HOOKLINE_OP_WRITE) &&
         (n == 1 || n == 2 || n == 4 || n == 8) && access.offset % n == 0;
}

Outcome failure(const Error& error, std::optional<size_t> link = {}) {
  return {-error.code, link, error.text};
}

}  // namespace

struct OpenDevice::Impl final : RestOfChain {
  Impl(const Chain& chain_, DeviceAccess& access_, const DeviceInfo& info_, PluginLog log, PfPort* pf)
      : chain(chain_),
        address(info_.address),
        config_space(info_.config_space),
        info{address.c_str(), info_.vendor, info_.device, info_.vf_index},
        host{access_, *this, std::move(log), pf, {}} {
    host.parameters.present = chain.init_values();
    for (const Link& link : chain.links()) links.emplace_back(link, links.size(), host);
  }

  ~Impl() override {
    for (auto link = links.rbegin(); link != links.rend(); ++link) link->close();
  }

  Outcome walk(size_t from, hookline_access& access) {
    for (size_t i = from; i < links.size(); ++i) {
      if (!wants(links[i].link, access)) continue;
      const Result<int> ret = links[i].access(access);
      if (!ret) return failure(ret.error(), i);
      if (*ret == HOOKLINE_HANDLED) return {HOOKLINE_HANDLED, i, {}};
    }
    return {};
  }

  Result<void> behind_chain(hookline_access& access) {
    if (access.op == HOOKLINE_OP_WRITE)
      return host.access.write(access.region, access.offset, access.length, access.value);
    const Result<uint64_t> value = host.access.read(access.region, access.offset, access.length);
    if (!value) return fail(value.error());
    access.value = *value;
    return {};
  }

  Result<void> run_rest(size_t link, hookline_access& access) override {
    const Outcome outcome = walk(link + 1, access);
    if (outcome.answer < 0) return fail(-outcome.answer, outcome.text);
    return outcome.answer == HOOKLINE_HANDLED ? Result<void>{} : behind_chain(access);
  }

  /// Each edge of some link's range that lies inside the access.
  template <typename Edge>
  void for_each_cut(const hookline_access& access, Edge&& edge) const {
    for (const hookline_device& link : links) {
      for (const hookline_range& range : std::span(link.link.plugin.ranges, link.link.plugin.nr_ranges)) {
        if (range.region != access.region || !(range.ops & (1U << access.op))) continue;
        for (const uint64_t at : {range.offset, range.offset + range.length})
          if (at > access.offset && at < access.offset + access.length) edge(at);
      }
    }
  }

  Outcome access(hookline_access& whole) {
    if (!valid(whole)) return failure({EINVAL, "an access has 1, 2, 4 or 8 bytes and is naturally aligned"});
    // What hardly an access is: the others pay for no list.
    bool is_cut = false;
    for_each_cut(whole, [&](uint64_t) { is_cut = true; });
    return is_cut ? access_in_parts(whole) : walk(0, whole);
  }

  Outcome access_in_parts(hookline_access& whole) {
    AccessUnits cut(whole.offset, whole.length);
    for_each_cut(whole, [&](uint64_t edge) { cut.cut(edge); });
    const std::vector<AccessUnit> units = cut.units();
    std::array<hookline_access, 8> asked;
    std::array<bool, 8> passed;
    Outcome answered;
    for (size_t i = 0; i < units.size(); ++i) {
      asked[i] = whole;
      asked[i].offset = units[i].offset;
      asked[i].length = units[i].length;
      asked[i].value = extract(whole, units[i]);
      const Outcome outcome = walk(0, asked[i]);
      if (outcome.answer < 0) return outcome;
      passed[i] = outcome.answer != HOOKLINE_HANDLED;
      if (!passed[i]) answered = outcome;
    }
    if (answered.answer != HOOKLINE_HANDLED) return {};
    for (size_t i = 0; i < units.size(); ++i) {
      if (!passed[i]) continue;
      if (const Result<void> ok = behind_chain(asked[i]); !ok) return failure(ok.error());
    }
    if (whole.op == HOOKLINE_OP_READ) {
      whole.value = 0;
      for (size_t i = 0; i < units.size(); ++i)
        whole.value |= asked[i].value << (8 * (units[i].offset - whole.offset));
    }
    return answered;
  }

  static uint64_t extract(const hookline_access& whole, const AccessUnit& unit) {
    const uint64_t shifted = whole.value >> (8 * (unit.offset - whole.offset));
    return unit.length == 8 ? shifted : shifted & ((uint64_t{1} << (8 * unit.length)) - 1);
  }

  /// Up to `links.size()`: who else is behind the one that asks for the rest.
  Outcome ioctl(size_t from, hookline_ioctl& request) {
    for (size_t i = from; i < links.size(); ++i) {
      if (!wants(links[i].link, request)) continue;
      const Result<int> ret = links[i].ioctl(request);
      if (!ret) return failure(ret.error(), i);
      if (*ret == HOOKLINE_HANDLED) return {HOOKLINE_HANDLED, i, {}};
      if (*ret == HOOKLINE_RUN_REST) return ioctl_with_rest(i, request);
    }
    return {};
  }

  Outcome ioctl_with_rest(size_t asker, hookline_ioctl& request) {
    const Outcome rest = ioctl(asker + 1, request);
    if (rest.answer == HOOKLINE_PASS || rest.answer == HOOKLINE_RUN_REST)
      return {HOOKLINE_RUN_REST, asker, {}};
    // Somebody behind has answered, so the rest has run already.
    request.flags |= HOOKLINE_IOCTL_AFTER;
    request.result = rest.answer;
    const Result<int> ret = links[asker].ioctl(request);
    request.flags &= ~HOOKLINE_IOCTL_AFTER;
    if (!ret) return failure(ret.error(), asker);
    if (*ret != HOOKLINE_HANDLED) return rest;
    if (request.result < 0)
      return failure(
          {-request.result, fmt::format("plugin \"{}\": ioctl() made it fail", links[asker].link.name())},
          asker);
    return {HOOKLINE_HANDLED, asker, {}};
  }

  Outcome ioctl_after(hookline_ioctl& request) {
    Outcome answered;
    for (size_t i = links.size(); i-- > 0;) {
      if (!wants(links[i].link, request)) continue;
      const Result<int> ret = links[i].ioctl(request);
      if (!ret) return failure(ret.error(), i);
      if (*ret == HOOKLINE_HANDLED) answered = {HOOKLINE_HANDLED, i, {}};
    }
    return answered;
  }

  void event(const hookline_event& event) {
    for (hookline_device& link : links) {
      if (const Result<void> ok = link.event(event); !ok && host.log)
        host.log(HOOKLINE_LOG_ERROR, link.link.name(), ok.error().text);
    }
  }

  const Chain& chain;
  std::string address;
  const std::string config_space;
  hookline_info info;
  PluginHost host;
  std::deque<hookline_device> links;  // plugins hold their addresses
};

OpenDevice::OpenDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OpenDevice::~OpenDevice() = default;

Result<std::unique_ptr<OpenDevice>> OpenDevice::open(const Chain& chain, DeviceAccess& access,
                                                     const DeviceInfo& info, PluginLog log, PfPort* pf) {
  auto impl = std::make_unique<Impl>(chain, access, info, std::move(log), pf);
  for (hookline_device& link : impl->links) {
    if (const Result<void> ok = link.open(impl->info); !ok) return fail(ok.error());
  }
  return std::unique_ptr<OpenDevice>(new OpenDevice(std::move(impl)));
}

std::span<const std::string> OpenDevice::parameters() const {
  return impl_->host.parameters.present;
}

Result<void> OpenDevice::set_parameters(std::vector<std::string> values) {
  if (const Result<void> ok = chain().check_values(values); !ok) return ok;
  impl_->host.parameters.present = std::move(values);
  return {};
}

void OpenDevice::begin_save() {
  impl_->host.parameters.saved = impl_->host.parameters.present;
}

Result<void> OpenDevice::begin_load(std::string version, std::vector<std::string> values) {
  if (const Result<void> ok = chain().check_values(values); !ok) return ok;
  impl_->host.parameters.loaded = std::move(values);
  impl_->host.parameters.stream_version = std::move(version);
  return {};
}

namespace {

const Error kNoMemory{ENOMEM, {}};

}  // namespace

Outcome OpenDevice::access(hookline_access& access) noexcept try {
  return impl_->access(access);
} catch (...) {
  return failure(kNoMemory);
}

Outcome OpenDevice::ioctl(hookline_ioctl& request) noexcept try {
  return request.flags & HOOKLINE_IOCTL_AFTER ? impl_->ioctl_after(request) : impl_->ioctl(0, request);
} catch (...) {
  return failure(kNoMemory);
}

void OpenDevice::event(const hookline_event& event) noexcept try { impl_->event(event); } catch (...) {
  // Told, never waited for.
}

Result<bool> OpenDevice::save(size_t link, FieldWriter& out) noexcept try {
  return impl_->links[link].save(out);
} catch (...) {
  return fail(kNoMemory);
}

Result<void> OpenDevice::load(size_t link, FieldReader& in) noexcept try {
  return impl_->links[link].load(in);
} catch (...) {
  return fail(kNoMemory);
}

Result<void> OpenDevice::apply(size_t link) noexcept try { return impl_->links[link].apply(); } catch (...) {
  return fail(kNoMemory);
}

Result<bool> OpenDevice::save_bulk(FieldWriter& out, uint32_t flags) noexcept try {
  return impl_->links[*chain().owner()].save_bulk(out, flags);
} catch (...) {
  return fail(kNoMemory);
}

Result<BulkBytes> OpenDevice::bulk_sizes() noexcept try {
  return impl_->links[*chain().owner()].bulk_sizes();
} catch (...) {
  return fail(kNoMemory);
}

Result<void> OpenDevice::load_bulk(FieldReader& in, uint32_t flags) noexcept try {
  return impl_->links[*chain().owner()].load_bulk(in, flags);
} catch (...) {
  return fail(kNoMemory);
}

const Chain& OpenDevice::chain() const {
  return impl_->chain;
}

const std::string& OpenDevice::config_space() const {
  return impl_->config_space;
}
DeviceAccess& OpenDevice::behind() {
  return impl_->host.access;
}

}  // namespace hookline
