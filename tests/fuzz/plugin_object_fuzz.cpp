// SPDX-License-Identifier: Apache-2.0
//
// What a plugin says about itself: any object whose pointers are good is refused with a reason or makes a
// chain, and a chain stays within what the kernel takes.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

#include <linux/vfio_pci_hooks.h>
#include <hookline/chain.hpp>

#include "plugin_declaration.hpp"
#include "plugin_file.hpp"

namespace {

using namespace hookline;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "plugin_object_fuzz: %s\n", what);
  std::abort();
}

int open(const hookline_host*, hookline_device*, const hookline_info*, const hookline_value*, void**) {
  std::abort();
}
void close(void*) {
  std::abort();
}
int access(void*, hookline_access*) {
  std::abort();
}
int ioctl(void*, hookline_ioctl*) {
  std::abort();
}
int save(void*, hookline_writer*) {
  std::abort();
}
int load(void*, hookline_reader*) {
  std::abort();
}
int apply(void*) {
  std::abort();
}

/// An object made of fuzzed values; good ones where the fuzzer does not insist, so that later checks are
/// reached.
class Object {
 public:
  explicit Object(FuzzedDataProvider& in) : in_(in) {
    plugin.abi.magic = HOOKLINE_ABI_MAGIC;
    plugin.abi.major = HOOKLINE_ABI_MAJOR, plugin.abi.minor = HOOKLINE_ABI_MINOR;
    plugin.abi.size = sizeof(hookline_plugin);
    if (odd()) plugin.abi.size = in_.ConsumeIntegral<uint32_t>();
    if (odd()) plugin.abi.required = in_.ConsumeIntegral<uint64_t>();
    plugin.name = text("toy");
    plugin.version = text("1");
    plugin.summary = text(nullptr);
    plugin.claims = odd() ? in_.ConsumeIntegral<uint32_t>() : in_.ConsumeIntegralInRange<uint32_t>(0, 1);
    plugin.model = text(plugin.claims ? "com.example/toy" : nullptr);
    plugin.migration_version = text(plugin.claims ? "1" : nullptr);
    fill(devices_, [&] {
      return hookline_device_id{in_.ConsumeIntegral<uint16_t>(), in_.ConsumeIntegral<uint16_t>()};
    });
    fill(ranges_, [&] { return range(); });
    fill(registers_, [&] {
      return hookline_register{text("R"), small(), small(),
                               uint32_t{1} << in_.ConsumeIntegralInRange<uint32_t>(0, 5)};
    });
    fill(keys_, [&] { return key(); });
    plugin.devices = devices_.data(), plugin.nr_devices = size(devices_);
    plugin.ranges = ranges_.data(), plugin.nr_ranges = size(ranges_);
    plugin.registers = registers_.data(), plugin.nr_registers = size(registers_);
    plugin.keys = keys_.data(), plugin.nr_keys = size(keys_);
    plugin.stop = program(stop_), plugin.start = program(start_), plugin.reset = program(reset_);
    plugin.ops_known = odd() ? small() : HOOKLINE_OPS_KNOWN;
    plugin.unknown_op = in_.ConsumeIntegralInRange<uint32_t>(0, 2);
    plugin.shadow_size = odd() ? in_.ConsumeIntegral<uint32_t>() : small();
    plugin.max_state = odd() ? in_.ConsumeIntegral<uint64_t>() : 4096;
    plugin.ioctls = in_.ConsumeIntegral<uint32_t>();
    plugin.features = in_.ConsumeIntegral<uint32_t>();
    plugin.open = odd() ? nullptr : open;
    plugin.close = odd() ? nullptr : close;
    plugin.access = in_.ConsumeBool() ? access : nullptr;
    plugin.ioctl = in_.ConsumeBool() ? ioctl : nullptr;
    const bool saves = plugin.claims || in_.ConsumeBool();
    plugin.save = saves != odd() ? save : nullptr;
    plugin.load = saves != odd() ? load : nullptr;
    plugin.apply = saves != odd() ? apply : nullptr;
    fill(parameters_, [&] { return parameter(); });
    plugin.parameters = parameters_.data(), plugin.nr_parameters = size(parameters_);
    plugin.reads = text(in_.ConsumeBool() ? "1|2" : nullptr);
  }

  hookline_plugin plugin{};

 private:
  bool odd() { return in_.ConsumeIntegral<uint8_t>() > 250; }
  uint32_t small() { return in_.ConsumeIntegralInRange<uint32_t>(0, 70000); }
  const char* text(const char* usual) {
    if (!odd()) return usual;
    texts_.push_back(in_.ConsumeRandomLengthString(5000));
    return texts_.back().c_str();
  }
  hookline_range range() {
    if (odd()) return {small(), small(), in_.ConsumeIntegral<uint64_t>(), in_.ConsumeIntegral<uint64_t>()};
    return {in_.ConsumeIntegralInRange<uint32_t>(0, 7), in_.ConsumeIntegralInRange<uint32_t>(0, 3), small(),
            small()};
  }
  hookline_key key() {
    return {text("option"),
            text(nullptr),
            text(nullptr),
            text("a|b"),
            in_.ConsumeIntegralInRange<uint32_t>(0, 5),
            in_.ConsumeIntegralInRange<uint32_t>(0, 2),
            small(),
            small()};
  }
  hookline_parameter parameter() {
    return {text(in_.ConsumeBool() ? "a" : "b"),
            text("A parameter"),
            text("1"),
            text("2"),
            text(in_.ConsumeBool() ? "1|2" : "0-8"),
            in_.ConsumeIntegralInRange<uint32_t>(0, 4),
            0};
  }
  hookline_step step() {
    hookline_step s{};
    s.op = in_.ConsumeIntegralInRange<uint8_t>(0, 8);
    s.bar = in_.ConsumeIntegralInRange<uint8_t>(0, 6);
    s.width = odd() ? in_.ConsumeIntegral<uint8_t>() : 4;
    s.slot = in_.ConsumeIntegralInRange<uint8_t>(0, 33);
    s.offset = odd() ? in_.ConsumeIntegral<uint32_t>() : small() & ~3u;
    s.mask = in_.ConsumeIntegral<uint32_t>();
    s.value = in_.ConsumeIntegral<uint32_t>();
    const bool waits = s.op == HOOKLINE_STEP_POLL || s.op == HOOKLINE_STEP_DELAY;
    s.timeout_us = waits || odd() ? in_.ConsumeIntegralInRange<uint32_t>(0, 120000) : 0;
    return s;
  }
  template <typename T>
  static uint32_t size(const std::vector<T>& items) {
    return static_cast<uint32_t>(items.size());
  }
  template <typename T, typename Make>
  void fill(std::vector<T>& items, Make make) {
    const auto count = in_.ConsumeIntegralInRange<uint32_t>(0, odd() ? 80 : 3);
    for (uint32_t i = 0; i < count; ++i) items.push_back(make());
  }
  hookline_program program(std::vector<hookline_step>& steps) {
    fill(steps, [&] { return step(); });
    return {steps.data(), size(steps), odd() ? 1u : 0u};
  }

  FuzzedDataProvider& in_;
  std::deque<std::string> texts_;
  std::vector<hookline_device_id> devices_;
  std::vector<hookline_range> ranges_;
  std::vector<hookline_register> registers_;
  std::vector<hookline_key> keys_;
  std::vector<hookline_parameter> parameters_;
  std::vector<hookline_step> stop_, start_, reset_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider in(data, size);
  hookline_abi abi{};
  const auto raw = in.ConsumeBytes<uint8_t>(sizeof abi);
  std::copy(raw.begin(), raw.end(), reinterpret_cast<uint8_t*>(&abi));
  if (const auto ok = loader::check_abi("toy.so", abi, in.ConsumeIntegral<uint32_t>()); !ok)
    require(!ok.error().text.empty(), "a refusal without a reason");

  std::vector<Link> links;
  std::deque<Object> objects;
  for (auto left = in.ConsumeIntegralInRange<uint32_t>(1, 3); left; --left) {
    const hookline_plugin& plugin = objects.emplace_back(in).plugin;
    if (const auto ok = loader::check_declaration(plugin); !ok) {
      require(!ok.error().text.empty(), "a refusal without a reason");
      return 0;
    }
    loader::device_ids(plugin);
    auto link = make_link(plugin);
    if (!link) return 0;
    links.push_back(std::move(*link));
  }
  const auto chain = build_chain(std::move(links));
  if (!chain) return 0;
  require(chain->ranges().size() <= VFIO_PCI_HOOKS_MAX_RANGES &&
              chain->shadow_size() <= VFIO_PCI_HOOKS_MAX_SHADOW,
          "a chain larger than the kernel takes");
  uint64_t end = 0;
  uint32_t region = 0;
  for (const hookline_range& r : chain->ranges()) {
    require(r.length && r.offset + r.length > r.offset, "an empty range");
    require(r.region > region || r.offset >= end || (region == 0 && end == 0),
            "ranges that are not sorted or not disjoint");
    region = r.region, end = r.offset + r.length;
  }
  for (const auto program : {chain->stop(), chain->start(), chain->reset()})
    require(program.size() <= VFIO_PCI_HOOKS_MAX_STEPS, "a program longer than the kernel takes");
  const auto values = chain->init_values();
  require(chain->check_values(values).has_value(), "init values that are not allowed");
  if (chain->version_parameter())
    require(std::ranges::find(chain->reads(), chain->emits(values)) != chain->reads().end(),
            "a plugin that does not read what it emits");
  require(chain->owner().has_value() == (chain->max_state() != 0),
          "an owner without a state, or a state without owner");
  return 0;
}
