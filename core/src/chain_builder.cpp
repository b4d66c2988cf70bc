// SPDX-License-Identifier: Apache-2.0
//
// Which plugins may stand in one chain, and what they ask for together.
#include <algorithm>
#include <cerrno>
#include <set>

#include <fmt/format.h>
#include <linux/vfio_pci_hooks.h>

#include <hookline/chain.hpp>
#include <hookline/chain_descriptor.hpp>
#include <hookline/parameters.hpp>
#include <hookline/stream.hpp>

#include "register_program.hpp"

namespace hookline {

namespace {

constexpr uint32_t kShadowAlignment = 64;  // what any plain struct of a plugin may need
constexpr size_t kLongestConfig = 96;      // a fingerprint has 73 bytes
constexpr uint64_t kMaxValues = uint64_t{1} << 40;
constexpr uint64_t kBulkPasses = 6;  // 4 before the stop, the last of them begun within it, and one after
constexpr uint32_t kOps = HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE;
constexpr std::string_view kOpNames[HOOKLINE_OPS_KNOWN] = {"region reads", "region writes", "ioctls",
                                                           "device features"};

template <typename... Args>
tl::unexpected<Error> refuse(fmt::format_string<Args...> text, Args&&... args) {
  return fail(EINVAL, fmt::format(text, std::forward<Args>(args)...));
}

std::span<const hookline_range> ranges_of(const Link& link) {
  return {link.plugin.ranges, link.plugin.nr_ranges};
}
std::span<const hookline_step> steps_of(const hookline_program& program) {
  return {program.steps, program.nr_steps};
}

std::string describe(const hookline_range& range) {
  const std::string region =
      range.region == HOOKLINE_REGION_CONFIG ? "config space" : fmt::format("BAR {}", range.region);
  return fmt::format("{} {:#x} to {:#x}", region, range.offset, range.offset + range.length - 1);
}

Result<void> check_ranges(const Link& link) {
  for (const hookline_range& range : ranges_of(link)) {
    if (range.region > 5 && range.region != HOOKLINE_REGION_CONFIG)
      return refuse("plugin \"{}\": there is no region {}; use a BAR, 0 to 5, or config space, 7",
                    link.name(), range.region);
    if (!range.ops || range.ops & ~kOps)
      return refuse("plugin \"{}\": range at {:#x}: operations {:#x}, expected reads, writes or both",
                    link.name(), range.offset, range.ops);
    if (!range.length || range.offset + range.length < range.offset)
      return refuse("plugin \"{}\": range at {:#x}: a length of {:#x} makes no range", link.name(),
                    range.offset, range.length);
  }
  return {};
}

/// What one link must be by itself.
Result<void> check_link(const Link& link) {
  const hookline_plugin& p = link.plugin;
  if (!is_section_name(link.name()))
    return refuse("plugin \"{}\": a plugin's name is lower-case letters, digits and '-'", link.name());
  if (const Result<void> ok = check_ranges(link); !ok) return ok;
  if (p.nr_ranges && !p.access) return refuse("plugin \"{}\": it has ranges but no access()", link.name());
  if ((p.ioctls || p.features) && !p.ioctl)
    return refuse("plugin \"{}\": it wants ioctls or device features but has no ioctl()", link.name());
  if (!!p.save != !!p.load || !!p.save != !!p.apply)
    return refuse("plugin \"{}\": save(), load() and apply() go together, it lacks one of them", link.name());
  if (link.owns_migration() && !p.save)
    return refuse("plugin \"{}\": it owns the device's migration but has no save()", link.name());
  if (p.max_state > kMaxValues)
    return refuse("plugin \"{}\": max_state is {} bytes, at most {} are allowed", link.name(), p.max_state,
                  kMaxValues);

  if (!!p.save_bulk != !!p.bulk_sizes || !!p.save_bulk != !!p.load_bulk)
    return refuse(
        "plugin \"{}\": save_bulk(), bulk_sizes() and load_bulk() go together, it lacks one of them",
        link.name());
  if (p.save_bulk && !link.owns_migration())
    return refuse(
        "plugin \"{}\": it has a save_bulk(), but only the owner of the device's migration may have one",
        link.name());
  if (!!p.save_bulk != !!p.max_bulk)
    return refuse("plugin \"{}\": max_bulk and save_bulk() go together, it lacks one of them", link.name());
  if (p.max_bulk > kMaxValues)
    return refuse("plugin \"{}\": max_bulk is {} bytes, at most {} are allowed", link.name(), p.max_bulk,
                  kMaxValues);

  if (const Result<void> ok = check_parameters(p); !ok)
    return refuse("plugin \"{}\": {}", link.name(), ok.error().text);

  const struct {
    std::string_view name;
    std::span<const hookline_step> steps;
    bool may_wait;
  } programs[] = {{"stop", steps_of(p.stop), true},
                  {"start", steps_of(p.start), true},
                  {"reset", steps_of(p.reset), false}};
  for (const auto& program : programs) {
    if (!program.steps.empty() && !link.owns_migration())
      return refuse(
          "plugin \"{}\": it has a {} program, but only the owner of the device's migration may have one",
          link.name(), program.name);
    if (const Result<void> ok = check_program(program.name, program.steps, program.may_wait); !ok)
      return refuse("plugin \"{}\": {}", link.name(), ok.error().text);
  }
  return {};
}

bool uses(const Link& link, uint32_t op) {
  switch (op) {
    case HOOKLINE_OP_IOCTL:
      return link.plugin.ioctls != 0;
    case HOOKLINE_OP_FEATURE:
      return link.plugin.features != 0;
    default:
      return std::ranges::any_of(ranges_of(link),
                                 [op](const hookline_range& r) { return r.ops & (1U << op); });
  }
}

const hookline_range* overlap(const Link& a, const Link& b) {
  for (const hookline_range& x : ranges_of(a)) {
    for (const hookline_range& y : ranges_of(b)) {
      if (x.region == y.region && (x.ops & y.ops) && x.offset < y.offset + y.length &&
          y.offset < x.offset + x.length)
        return &y;
    }
  }
  return nullptr;
}

/// What two links, `a` before `b`, must be to each other.
Result<void> check_pair(const Link& a, const Link& b) {
  if (a.name() == b.name())
    return refuse("plugin \"{}\" is in the chain twice: remove one of the two", a.name());
  const uint32_t both = a.plugin.claims & b.plugin.claims;
  if (both & HOOKLINE_CLAIM_MIGRATION)
    return refuse(
        "plugins \"{}\" and \"{}\" both own the device's migration: exactly one may, remove the other",
        a.name(), b.name());
  if (both)
    return refuse("plugins \"{}\" and \"{}\" both hold claim {:#x}: one may", a.name(), b.name(), both);

  if (!a.is_observer() && !b.is_observer()) {
    if (const hookline_range* range = overlap(a, b))
      return refuse(
          "plugins \"{}\" and \"{}\" both trap {}, and neither lets itself be left out: \"{}\" could keep an "
          "access from \"{}\"; only a plugin declared an observer may share a range",
          a.name(), b.name(), describe(*range), a.name(), b.name());
  }
  for (const auto& [guard, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (guard->is_observer()) continue;
    for (uint32_t op = guard->plugin.ops_known; op < HOOKLINE_OPS_KNOWN; ++op) {
      if (uses(*other, op))
        return refuse(
            "plugin \"{}\" is older than handling {}, which plugin \"{}\" uses: \"{}\" would be bypassed; "
            "rebuild it against this host's hookline/plugin.h or take one of the two out of the chain",
            guard->name(), kOpNames[op], other->name(), guard->name());
    }
  }
  return {};
}

/// Disjoint pieces of what all links want, neighbours with the same operations joined.
std::vector<hookline_range> merge_ranges(std::span<const Link> links) {
  std::vector<hookline_range> merged;
  std::set<uint32_t> regions;
  for (const Link& link : links) {
    for (const hookline_range& range : ranges_of(link)) regions.insert(range.region);
  }
  for (const uint32_t region : regions) {
    std::set<uint64_t> edges;
    for (const Link& link : links) {
      for (const hookline_range& range : ranges_of(link)) {
        if (range.region != region) continue;
        edges.insert(range.offset);
        edges.insert(range.offset + range.length);
      }
    }
    for (auto edge = edges.begin(); std::next(edge) != edges.end(); ++edge) {
      const uint64_t begin = *edge, end = *std::next(edge);
      uint32_t ops = 0;
      for (const Link& link : links) {
        for (const hookline_range& range : ranges_of(link)) {
          if (range.region == region && range.offset <= begin && end <= range.offset + range.length)
            ops |= range.ops;
        }
      }
      if (!ops) continue;
      hookline_range* last = merged.empty() ? nullptr : &merged.back();
      if (last && last->region == region && last->ops == ops && last->offset + last->length == begin)
        last->length += end - begin;
      else
        merged.push_back({region, ops, begin, end - begin});
    }
  }
  return merged;
}

Result<uint32_t> lay_out_shadow(std::span<Link> links) {
  uint64_t size = 0;
  std::string who;
  for (Link& link : links) {
    if (!link.plugin.shadow_size) continue;
    link.shadow_offset = static_cast<uint32_t>(std::min<uint64_t>(size, UINT32_MAX));
    size += (uint64_t{link.plugin.shadow_size} + kShadowAlignment - 1) / kShadowAlignment * kShadowAlignment;
    who += fmt::format("{}\"{}\" {}", who.empty() ? "" : ", ", link.name(), link.plugin.shadow_size);
  }
  if (size > VFIO_PCI_HOOKS_MAX_SHADOW)
    return refuse("the plugins want {} bytes of shadow together, at most {} are allowed: {}", size,
                  VFIO_PCI_HOOKS_MAX_SHADOW, who);
  return static_cast<uint32_t>(size);
}

/// Values as declared, names and framing on top, roomy: an understated bound would fail a migration.
uint64_t with_framing(uint64_t values) {
  return values + values / 16 + 65536;
}

uint64_t save_bound(std::span<const Link> links, size_t match_bytes) {
  uint64_t values = 0;
  for (const Link& link : links) {
    if (link.saves()) values += link.plugin.max_state;
  }
  return with_framing(values) + match_bytes;
}

/// As long as any migration_version the chain's device may have.
Result<std::string> longest_version(const Chain& chain) {
  Result<Descriptor> d = describe_chain(chain);
  if (!d) return fail(d.error());
  for (DescribedParameter& p : d->parameters) {
    size_t longest = 0;
    for (const std::string_view item : split_values(*p.allowed_values))
      longest = std::max(longest, item.size());
    p.value = std::string(std::min(longest, kMaxParameterValue), '9');
    p.off_value.reset();
    if (p.version) d->emits = p.value;
  }
  d->config = std::string(kLongestConfig, '9');
  return migration_version(*d);
}

}  // namespace

Result<Chain> build_chain(std::vector<Link> links) {
  if (links.empty()) return refuse("a chain needs at least one plugin");
  for (const Link& link : links) {
    if (const Result<void> ok = check_link(link); !ok) return fail(ok.error());
  }
  for (size_t b = 1; b < links.size(); ++b) {
    for (size_t a = 0; a < b; ++a) {
      if (const Result<void> ok = check_pair(links[a], links[b]); !ok) return fail(ok.error());
    }
  }

  Chain chain;
  const Result<uint32_t> shadow_size = lay_out_shadow(links);
  if (!shadow_size) return fail(shadow_size.error());
  chain.shadow_size_ = *shadow_size;
  chain.ranges_ = merge_ranges(links);
  if (chain.ranges_.size() > VFIO_PCI_HOOKS_MAX_RANGES)
    return refuse("the plugins trap {} separate ranges together, at most {} are allowed",
                  chain.ranges_.size(), VFIO_PCI_HOOKS_MAX_RANGES);
  for (size_t i = 0; i < links.size(); ++i) {
    const hookline_plugin& p = links[i].plugin;
    chain.ioctls_ |= p.ioctls;
    chain.features_ |= p.features;
    chain.has_guard_ |= !links[i].is_observer();
    if (!links[i].owns_migration()) continue;
    chain.owner_ = i;
    chain.stop_ = steps_of(p.stop);
    chain.start_ = steps_of(p.start);
    chain.reset_ = steps_of(p.reset);
    chain.parameters_ = {p.parameters, p.nr_parameters};
    for (size_t n = 0; n < p.nr_parameters; ++n) {
      if (p.parameters[n].flags & HOOKLINE_PARAMETER_VERSION) chain.version_parameter_ = n;
    }
    if (p.reads)
      for (const std::string_view version : split_values(p.reads)) chain.reads_.emplace_back(version);
    else
      chain.reads_.emplace_back(p.migration_version ? p.migration_version : "");
  }
  chain.links_ = std::move(links);
  if (chain.owner_) {
    const Result<std::string> version = longest_version(chain);
    if (!version)
      return refuse("plugin \"{}\": {}", chain.links_[*chain.owner_].name(), version.error().text);
    chain.max_save_ = save_bound(chain.links_, version->size());
    const uint64_t max_bulk = chain.links_[*chain.owner_].plugin.max_bulk;
    chain.max_bulk_pass_ = max_bulk ? with_framing(max_bulk) : 0;
    chain.max_state_ = chain.max_save_ + kBulkPasses * chain.max_bulk_pass_;
  }
  return chain;
}

}  // namespace hookline
