// SPDX-License-Identifier: Apache-2.0
//
// What a device answers in sysfs is what becomes of a migration: two VFs, chains that differ in model, versions and
// parameters, a VFIO client, and workers that are threads of the test. The type level is asked as well, by the rules alone:
// the three never disagree.
#include <fcntl.h>
#include <linux/vfio.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <list>
#include <random>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/chain_descriptor.hpp>
#include <hookline/compatibility.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/hook_serve.hpp>
#include <hookline/plugin.hpp>
#include <hookline/query_serve.hpp>

#include "tests/kernel/hooks.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline {
namespace {

using namespace std::chrono_literals;
using kernel_test::parse_address;

constexpr uint32_t kPlain = 0x824;  // a word of an 82576 VF's mailbox memory, which holds what is written

class Word final : public MigrationOwner {
 public:
  explicit Word(Device& dev) : dev_(dev) {}
  void save(SectionWriter& out) override { out.u32("plain", dev_.read32(0, kPlain)); }
  void load(SectionReader& in) override { plain_ = in.u32("plain", anything()); }
  void apply() override { dev_.write32(0, kPlain, plain_); }

 private:
  Device& dev_;
  uint32_t plain_ = 0;
};

constexpr PluginInfo kInfo = {
    .name = "word",
    .version = "1",
    .model = "com.example/word",
    .migration_version = "1",
    .traps = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = 0x808, .length = 4}},
    .reset = {write(0, kPlain, 0)},
    .max_state = 64,
};

using Values = std::vector<std::pair<std::string, std::string>>;

/// One device as a configuration makes it. The texts of its parameters live as long as it does.
struct Kind {
  std::string name;
  Values values;
  std::list<std::string> texts;
  std::vector<hookline_parameter> parameters;
  hookline_plugin plugin = detail::describe<Word>(kInfo);
  std::optional<Chain> chain;
  std::string config{};  ///< what the fingerprint of the function's configuration space is taken to be

  const char* text(std::string t) { return texts.emplace_back(std::move(t)).c_str(); }
  void add(const std::string& parameter, const std::string& init, const std::string& off, const std::string& allowed,
           uint32_t flags = 0) {
    parameters.push_back({text(parameter), text("of the test"), text(init), text(off), text(allowed), flags, 0});
  }
  void build() {
    plugin.parameters = parameters.data();
    plugin.nr_parameters = static_cast<uint32_t>(parameters.size());
    chain = *build_chain({*make_link(plugin)});
  }
  std::vector<std::string> begins_with() const {
    std::vector<std::string> all = chain->init_values();
    for (const auto& [parameter, value] : values)
      for (size_t i = 0; i < parameters.size(); ++i)
        if (parameter == parameters[i].name) all[i] = value;
    return all;
  }
};

constexpr uint32_t kVersionFlags = HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION;

/// State version 2, which reads 1 as well and emits it if told to; queues as a parameter that is off with 1.
void two_versions(Kind& kind, const std::string& state_version) {
  kind.plugin.migration_version = "2";
  kind.plugin.reads = "1|2";
  kind.add("state_version", "2", "1", "1|2", kVersionFlags);
  kind.values.emplace_back("state_version", state_version);
}

std::unique_ptr<Kind> any_kind(std::mt19937& random) {
  const auto one_in = [&](unsigned n) { return random() % n == 0; };
  auto kind = std::make_unique<Kind>();
  if (one_in(8)) kind->plugin.model = "com.example/another-word";
  if (!one_in(3)) two_versions(*kind, one_in(2) ? "1" : "2");
  if (!one_in(3)) {
    const bool many = one_in(2);
    kind->add("queues", "1", "1", many ? "1-8" : "1-4");
    kind->values.emplace_back("queues", std::to_string(1 + random() % (many ? 8 : 4)));
  }
  if (one_in(3)) {
    kind->add("offload", "on", "off", one_in(3) ? "on" : "off|on");
    if (std::string_view(kind->parameters.back().allowed_values) == "on") kind->parameters.back().off_value = "on";
  }
  constexpr const char* kConfigs[] = {"", "8086:10ca rev 01", "8086:10ca rev 02"};
  kind->config = kConfigs[random() % std::size(kConfigs)];
  kind->build();
  kind->name = fmt::format("{} {} [{}]", kind->plugin.model, kind->plugin.migration_version, kind->config);
  for (size_t i = 0; i < kind->parameters.size(); ++i)
    kind->name += fmt::format(" {}={}({})", kind->parameters[i].name, kind->begins_with()[i], kind->parameters[i].allowed_values);
  return kind;
}

/// A function that is defined, bound and served, as long as it lives.
class Host {
 public:
  Host(const ControlDevice& control, std::string address, const Kind& kind) : control_(control), address_(std::move(address)) {
    const auto defined = control.define(
        {.address = parse_address(address_), .vendor = 0x8086, .device = 0x10ca, .parameters = kind.values}, *kind.chain);
    if (!defined) throw std::runtime_error(defined.error().text);
    const auto bound = sysfs::bind(address_, "vfio-pci-hooks");
    if (!bound) throw std::runtime_error(bound.error().text);
    channel_.emplace(std::move(*control.attach(parse_address(address_))));
    serving_ = std::thread([this, &kind] { serve_opens(kind); });
    answering_ = std::thread([this, &kind] {
      const auto ended = serve_queries(*channel_, *kind.chain, kind.config, {.should_stop = [this] { return stop_.load(); }, .idle_ms = 20});
      EXPECT_TRUE(ended) << ended.error().text;
    });
  }
  ~Host() {
    stop_ = true;
    serving_.join();
    answering_.join();
    channel_.reset();
    EXPECT_TRUE(sysfs::release(address_));
    EXPECT_TRUE(control_.undefine(parse_address(address_)));
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  std::string file(const std::string& name) const { return "/sys/bus/pci/devices/" + address_ + "/" + name; }
  /// Of one read() as an orchestrator does it.
  std::string migration_version() const {
    const vfio::Descriptor fd(::open(file("migration_version").c_str(), O_RDONLY | O_CLOEXEC));
    std::string text(8192, '\0');
    const ssize_t got = ::read(fd.get(), text.data(), text.size());
    EXPECT_GT(got, 0) << std::strerror(errno);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  int put(const std::string& name, const std::string& text) const {
    const vfio::Descriptor fd(::open(file(name).c_str(), O_WRONLY | O_CLOEXEC));
    return ::write(fd.get(), text.data(), text.size()) < 0 ? errno : 0;
  }
  std::vector<std::string> values(const Kind& kind) const {
    std::vector<std::string> all;
    for (const hookline_parameter& p : kind.parameters) {
      std::string value = sysfs::read(file(fmt::format("migration/{}/value", p.name))).value();
      if (value.ends_with('\n')) value.pop_back();
      all.push_back(value);
    }
    return all;
  }
  bool served() const { return control_.status(parse_address(address_))->flags & VFIO_PCI_HOOKS_STATUS_SERVED; }
  vfio::Device open(const vfio::Container& container) const {
    auto device = vfio::Device::open(container, address_);
    if (!device) throw std::runtime_error(device.error().text);
    EXPECT_TRUE(device->enable_memory_and_dma());
    EXPECT_TRUE(sysfs::wait_until([&] { return served(); }, 10s));
    return std::move(*device);
  }

 private:
  void serve_opens(const Kind& kind) {
    const Chain& chain = *kind.chain;
    while (!stop_) {
      const auto session = channel_->wait_open(chain, false);
      if (!session) {
        std::this_thread::sleep_for(2ms);
        continue;
      }
      const auto device = OpenDevice::open(chain, **session, {.config_space = kind.config});
      if (!device) return;
      (void)serve(**session, **device, {.should_stop = [this] { return stop_.load(); }, .idle_ms = 20});
    }
  }

  const ControlDevice& control_;
  std::string address_;
  std::optional<Channel> channel_;
  std::atomic<bool> stop_{false};
  std::thread serving_, answering_;
};

/// As a VMM does it, to its end: whether the destination runs on with the state. The source is as it was.
bool migrate(const vfio::Device& source, const vfio::Device& destination) {
  auto data = source.set_state(VFIO_DEVICE_STATE_STOP_COPY);
  EXPECT_TRUE(data) << data.error().text;
  std::vector<std::byte> stream, piece(65536);
  ssize_t got = 0;
  while ((got = ::read(data->get(), piece.data(), piece.size())) > 0) stream.insert(stream.end(), piece.begin(), piece.begin() + got);
  EXPECT_EQ(got, 0) << std::strerror(errno);
  EXPECT_TRUE(source.set_state(VFIO_DEVICE_STATE_RUNNING));
  auto sink = destination.set_state(VFIO_DEVICE_STATE_RESUMING);
  EXPECT_TRUE(sink) << sink.error().text;
  const bool written = ::write(sink->get(), stream.data(), stream.size()) == static_cast<ssize_t>(stream.size());
  return destination.set_state(VFIO_DEVICE_STATE_RUNNING).has_value() && written;
}

/// What a scheduler is told by the rules, far from either device: of a destination of that kind, with that fingerprint.
Verdict rules(const std::string& version, const Kind& to, const std::string& config) {
  const auto source = parse_descriptor(version);
  const auto destination = parse_descriptor(migration_info(*describe_chain(*to.chain, to.begins_with(), config)));
  if (!source || !destination) throw std::runtime_error((source ? destination : source).error().text);
  return check_compatibility(*source, *destination);
}

class CompatibilityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    vfs_ = sysfs::test_vfs();
    ASSERT_GE(vfs_.size(), 2U);
    auto container = vfio::Container::create();
    ASSERT_TRUE(container) << container.error().text;
    container_.emplace(std::move(*container));
  }
  const ControlDevice control_ = std::move(*ControlDevice::open());
  std::vector<std::string> vfs_;
  std::optional<vfio::Container> container_;
};

TEST_F(CompatibilityTest, MV4_WhatSysfsAnswersIsWhatTheTypeLevelSaysAndWhatAMigrationDoes) {
  std::mt19937 random(20201109);
  int yes = 0, no = 0, by_config = 0;
  for (int pair = 0; pair < 20; ++pair) {
    const auto from = any_kind(random), to = any_kind(random);
    SCOPED_TRACE(from->name + " -> " + to->name);
    const Host source(control_, vfs_[0], *from), destination(control_, vfs_[1], *to);
    const std::string version = source.migration_version();
    const bool answer = destination.put("migration_version", version) == 0;
    ++(answer ? yes : no);
    const Verdict exported = rules(version, *to, to->config), type = rules(version, *to, "");
    EXPECT_EQ(exported.answer, answer ? Answered::yes : Answered::no) << to_text(exported);
    // A type has no configuration space: of that it says nothing, of the rest the same.
    std::vector<Reason> rest = exported.reasons;
    by_config += std::erase_if(rest, [](const Reason& reason) { return reason.code == "config"; }) && rest.empty();
    EXPECT_EQ(type.reasons, rest);
    EXPECT_EQ(destination.values(*to), to->begins_with()) << "asking changes nothing";

    const vfio::Device there = source.open(*container_), here = destination.open(*container_);
    EXPECT_TRUE(there.write<uint32_t>(0, kPlain, 0xcafe));
    EXPECT_EQ(migrate(there, here), answer);
    if (!answer) {
      EXPECT_EQ(destination.values(*to), to->begins_with()) << "a refused state changes no value";
      continue;
    }
    EXPECT_EQ(*here.read<uint32_t>(0, kPlain), 0xcafeU);
    // What it has taken over is the source's, and off where the source has nothing.
    std::vector<std::string> expected;
    for (const hookline_parameter& p : to->parameters) {
      std::string value = p.off_value;
      for (size_t i = 0; i < from->parameters.size(); ++i)
        if (std::string_view(p.name) == from->parameters[i].name) value = from->begins_with()[i];
      expected.push_back(value);
    }
    EXPECT_EQ(destination.values(*to), expected);
  }
  // A sample that only says one of them would prove nothing.
  EXPECT_GE(yes, 4);
  EXPECT_GE(no, 4);
  EXPECT_GE(by_config, 1) << "no pair that differs in the configuration space only";
}

// The destination gets each value by one write, and then there is nothing left for the migration to change.
TEST_F(CompatibilityTest, MM5_ADestinationThatWasPreparedHasTheSourcesValues) {
  Kind from, to;
  for (Kind* kind : {&from, &to}) {
    two_versions(*kind, kind == &from ? "1" : "2");
    kind->add("queues", "1", "1", "1-8");
    kind->values.emplace_back("queues", kind == &from ? "6" : "3");
    kind->build();
  }
  const Host source(control_, vfs_[0], from), destination(control_, vfs_[1], to);
  EXPECT_EQ(destination.values(to), (std::vector<std::string>{"2", "3"}));
  for (size_t i = 0; i < to.parameters.size(); ++i)
    EXPECT_EQ(destination.put(fmt::format("migration/{}/value", to.parameters[i].name), source.values(from)[i]), 0);
  EXPECT_EQ(destination.migration_version(), source.migration_version()) << "it says of itself what the source does";
  const vfio::Device there = source.open(*container_), here = destination.open(*container_);
  EXPECT_TRUE(migrate(there, here));
  EXPECT_EQ(destination.values(to), source.values(from));
}

// MM4: what is off needs nothing of a destination.
TEST_F(CompatibilityTest, MM4_TheSourceNamesWhatDiffersFromItsOffValueOnly) {
  Kind kind;
  kind.add("queues", "1", "1", "1-8");
  kind.add("offload", "off", "off", "off|on");
  kind.build();
  const Host host(control_, vfs_[0], kind);
  EXPECT_EQ(host.migration_version().find("queues"), std::string::npos);
  ASSERT_EQ(host.put("migration/queues/value", "5"), 0);
  EXPECT_NE(host.migration_version().find("queues"), std::string::npos);
  EXPECT_EQ(host.migration_version().find("offload"), std::string::npos);
}

// MM6: written while the guest runs, it counts from the next state on.
TEST_F(CompatibilityTest, MM6_AnOlderVersionIsEmittedFromTheNextStateOn) {
  Kind newer, older;
  two_versions(newer, "2");
  newer.build();
  older.build();
  const Host source(control_, vfs_[0], newer), destination(control_, vfs_[1], older);
  const vfio::Device there = source.open(*container_), here = destination.open(*container_);
  EXPECT_EQ(destination.put("migration_version", source.migration_version()), EINVAL);
  EXPECT_FALSE(migrate(there, here));
  EXPECT_TRUE(here.reset());
  ASSERT_EQ(source.put("migration/state_version/value", "1"), 0);
  EXPECT_EQ(destination.put("migration_version", source.migration_version()), 0);
  EXPECT_TRUE(migrate(there, here));
  // And back: what is older is read by what is newer (MV5).
  EXPECT_EQ(source.put("migration_version", destination.migration_version()), 0);
  EXPECT_TRUE(migrate(here, there));
}

}  // namespace
}  // namespace hookline
