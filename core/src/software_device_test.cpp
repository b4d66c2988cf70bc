// SPDX-License-Identifier: Apache-2.0
#include <hookline/software_device.hpp>

#include <fstream>
#include <random>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_plugin.hpp"
#include "toy_device.hpp"

namespace hookline {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using enum MigrationState;

using Bytes = std::vector<std::byte>;

class SoftwareDeviceTest : public ::testing::Test {
 protected:
  std::unique_ptr<SoftwareDevice> make(SoftwareDevice::Options options = {}) {
    options.memory = memory_;
    options.on_interrupt = [this](uint32_t) { ++interrupts_; };
    options.on_transmit = [this](std::span<const std::byte> frame) { sent_ += frame.size(); };
    auto device = SoftwareDevice::create(toy::kModel, toy::chain(), std::move(options));
    EXPECT_TRUE(device) << device.error().text;
    return std::move(*device);
  }

  /// A device that has run for a while: mode 3, two events.
  std::unique_ptr<SoftwareDevice> make_busy() {
    auto device = make();
    EXPECT_TRUE(device->write32(0, toy::kMode, 3));
    EXPECT_TRUE(device->write32(0, toy::kAddress, 0x40));
    EXPECT_TRUE(device->write32(0, toy::kCtrl, toy::kRun));
    EXPECT_TRUE(device->write32(0, toy::kDoorbell, 1));
    EXPECT_TRUE(device->write32(0, toy::kDoorbell, 1));
    return device;
  }

  static uint32_t peek(SoftwareDevice& device, uint64_t offset) {
    return static_cast<uint32_t>(*device.behind().read(0, offset, 4));
  }

  Bytes memory_ = Bytes(4096);
  int interrupts_ = 0;
  size_t sent_ = 0;
};

TEST_F(SoftwareDeviceTest, ADeviceWorksForItsGuest) {
  auto device = make_busy();
  EXPECT_EQ(*device->read32(0, toy::kCount), 2U);
  EXPECT_EQ(interrupts_, 2);
  EXPECT_EQ(memory_[0x40], std::byte{2});
  const Bytes frame(60);
  EXPECT_TRUE(device->receive(frame));
  EXPECT_EQ(sent_, 60U);
  EXPECT_EQ(*device->read32(HOOKLINE_REGION_CONFIG, 0), 0x00011234U);
  EXPECT_FALSE(device->read32(0, toy::kBarSize - 2));
  EXPECT_FALSE(device->read32(1, 0));
}

TEST_F(SoftwareDeviceTest, AFailingPluginFailsTheAccess) {
  auto device = make();
  const Result<void> ok = device->write32(0, toy::kMode, 0xdead);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, EPROTO);
  EXPECT_THAT(ok.error().text, HasSubstr("this mode kills the device"));
}

// ---- migration

class Cuts : public SoftwareDeviceTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(Cuts, MoveTheDevice) {
  auto source = make_busy();
  ASSERT_TRUE(source->set_state(pre_copy));
  Result<Bytes> first = source->save_all(GetParam());
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->empty());
  ASSERT_TRUE(source->set_state(stop_copy));
  Result<Bytes> rest = source->save_all(GetParam());
  ASSERT_TRUE(rest) << rest.error().text;
  EXPECT_LE(first->size() + rest->size(), source->stop_copy_bytes());

  auto destination = make();
  ASSERT_TRUE(destination->set_state(resuming));
  for (const Bytes* stream : {&*first, &*rest}) {
    for (size_t at = 0; at < stream->size(); at += GetParam()) {
      const Result<void> ok =
          destination->write_state(std::span(*stream).subspan(at, std::min(GetParam(), stream->size() - at)));
      ASSERT_TRUE(ok) << ok.error().text;
    }
  }
  EXPECT_EQ(peek(*destination, toy::kCtrl), 0U) << "it starts on the way to RUNNING";
  ASSERT_TRUE(destination->set_state(running));
  EXPECT_EQ(*destination->read32(0, toy::kCtrl), toy::kRun);
  EXPECT_TRUE(destination->write32(0, toy::kDoorbell, 1));
  EXPECT_EQ(*destination->read32(0, toy::kCount), 3U);
  EXPECT_EQ(memory_[0x40], std::byte{3});

  ASSERT_TRUE(destination->write32(0, toy::kCtrl, 0));
  ASSERT_TRUE(destination->set_state(stop));
  ASSERT_TRUE(destination->set_state(running));
  EXPECT_EQ(*destination->read32(0, toy::kCtrl), 0U) << "the replaced start program has run once";
}

INSTANTIATE_TEST_SUITE_P(Sizes, Cuts, ::testing::Values(1, 7, 4096, 1 << 21));

TEST_F(SoftwareDeviceTest, PreCopyEndsWithENOMSGAndStopCopyWithZero) {
  auto device = make_busy();
  ASSERT_TRUE(device->set_state(pre_copy));
  Bytes buffer(65536);
  EXPECT_GT(device->precopy_info()->initial, 0U);
  EXPECT_EQ(*device->read_state(buffer), DeviceStateSaver::begin(*device->worker())->sizes().initial);
  EXPECT_EQ(device->precopy_info()->initial, 0U);
  EXPECT_EQ(device->read_state(buffer).error().code, ENOMSG);
  ASSERT_TRUE(device->set_state(pre_copy_p2p));
  EXPECT_EQ(device->read_state(buffer).error().code, ENOMSG);
  ASSERT_TRUE(device->set_state(stop_copy));
  EXPECT_EQ(device->precopy_info().error().code, EINVAL);
  EXPECT_GT(*device->read_state(buffer), 0U);
  EXPECT_EQ(*device->read_state(buffer), 0U);
  EXPECT_EQ(*device->read_state(buffer), 0U);
}

TEST_F(SoftwareDeviceTest, WithoutPreCopyTheStreamIsTheSame) {
  auto device = make_busy();
  ASSERT_TRUE(device->set_state(stop_copy));
  const Bytes stream = *device->save_all();
  auto destination = make();
  ASSERT_TRUE(destination->set_state(resuming));
  ASSERT_TRUE(destination->write_state(stream));
  ASSERT_TRUE(destination->set_state(running));
  EXPECT_EQ(*destination->read32(0, toy::kCount), 2U);
}

TEST_F(SoftwareDeviceTest, StopAndContAndCancelLoseNothing) {
  auto device = make_busy();
  ASSERT_TRUE(device->set_state(stop));
  EXPECT_EQ(peek(*device, toy::kCtrl), 0U);
  EXPECT_FALSE(device->receive(Bytes(60)));
  ASSERT_TRUE(device->set_state(running));
  ASSERT_TRUE(device->set_state(pre_copy));
  ASSERT_TRUE(device->save_all());
  ASSERT_TRUE(device->set_state(stop_copy));
  ASSERT_TRUE(device->set_state(running));
  EXPECT_EQ(peek(*device, toy::kCtrl), toy::kRun);
  EXPECT_TRUE(device->receive(Bytes(60)));
  EXPECT_EQ(*device->read32(0, toy::kCount), 3U);
}

TEST_F(SoftwareDeviceTest, ReadingAndWritingBelongToTheirStates) {
  auto device = make();
  Bytes buffer(16);
  for (const MigrationState state : {running, running_p2p, stop, resuming}) {
    ASSERT_TRUE(device->set_state(state));
    EXPECT_FALSE(device->read_state(buffer)) << to_string(state);
    EXPECT_FALSE(device->write_state(buffer)) << to_string(state);  // in RESUMING: zeroes are no stream
  }
}

TEST_F(SoftwareDeviceTest, ABadStreamFailsTheWriteAndOnlyAResetHelps) {
  auto source = make_busy();
  ASSERT_TRUE(source->set_state(stop_copy));
  Bytes stream = *source->save_all();
  stream[stream.size() / 2] ^= std::byte{1};
  auto device = make();
  ASSERT_TRUE(device->set_state(resuming));
  ASSERT_TRUE(device->behind().write(0, toy::kSticky, 4, 5));
  EXPECT_FALSE(device->write_state(stream));
  EXPECT_EQ(peek(*device, toy::kSticky), 0U) << "the reset program has scrubbed the device";
  EXPECT_FALSE(device->write_state(stream)) << "a refusal is final";
  EXPECT_EQ(device->set_state(running).error().code, EINVAL);
  EXPECT_EQ(device->state(), error);
  EXPECT_FALSE(device->set_state(running));
  device->reset();
  EXPECT_EQ(device->state(), running);
  EXPECT_EQ(*device->read32(0, toy::kCount), 0U);
}

TEST_F(SoftwareDeviceTest, AHostileValueIsRefusedWithItsName) {
  auto source = make_busy();
  ASSERT_TRUE(source->write32(0, toy::kMode, 99));  // the source's guest may; no destination takes it
  ASSERT_TRUE(source->set_state(stop_copy));
  auto device = make();
  ASSERT_TRUE(device->set_state(resuming));
  const Result<void> ok = device->write_state(*source->save_all());
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().text,
              AllOf(HasSubstr("toy"), HasSubstr("mode"), HasSubstr("99"), HasSubstr("expected 0 to 15")));
}

TEST_F(SoftwareDeviceTest, ResetRunsItsProgramAndDropsTheMigration) {
  auto device = make_busy();
  ASSERT_TRUE(device->write32(0, toy::kSticky, 5));
  ASSERT_TRUE(device->set_state(stop_copy));
  EXPECT_EQ(*device->behind().saved(0), toy::kRun);
  device->reset();
  EXPECT_EQ(*device->behind().saved(0), 0U);
  EXPECT_EQ(device->state(), running);
  EXPECT_EQ(*device->read32(0, toy::kSticky), 0U);
  ASSERT_TRUE(device->set_state(stop_copy));
  auto destination = make();
  ASSERT_TRUE(destination->set_state(resuming));
  ASSERT_TRUE(destination->write_state(*device->save_all()));
  EXPECT_EQ(peek(*destination, toy::kCount), 0U);
}

/// Every request of the protocol, as the kernel is held to it.
TEST_F(SoftwareDeviceTest, WalksEveryRequestAsTheTestVectorsSay) {
  const std::array<MigrationState, 8> all = {error,    stop,        running,  stop_copy,
                                             resuming, running_p2p, pre_copy, pre_copy_p2p};
  const auto by_name = [&](const std::string& name) {
    return *std::ranges::find_if(all, [&](MigrationState s) { return to_string(s) == name; });
  };
  std::ifstream file(HOOKLINE_MIGRATION_ARCS);
  ASSERT_TRUE(file) << HOOKLINE_MIGRATION_ARCS;
  int walked = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string from, to, p2p, with_pre_copy, path;
    std::getline(in, from, ',') && std::getline(in, to, ',') && std::getline(in, p2p, ',') &&
        std::getline(in, with_pre_copy, ',') && std::getline(in, path);
    if (p2p != "1" || with_pre_copy != "1") continue;
    SCOPED_TRACE(line);
    ++walked;

    test::Journal journal;
    test::FakePlugin owner("owner", journal);
    owner.own_migration();
    auto device = SoftwareDevice::create(toy::kModel, *build_chain(links(owner)), {});
    ASSERT_TRUE(device);
    SoftwareDevice& d = **device;
    auto complete = [&] {  // so that RESUMING can be left
      auto source = SoftwareDevice::create(toy::kModel, *build_chain(links(owner)), {});
      EXPECT_TRUE((*source)->set_state(stop_copy));
      EXPECT_TRUE(d.write_state(*(*source)->save_all()));
    };
    if (from == "ERROR") {
      ASSERT_TRUE(d.set_state(resuming));
      ASSERT_FALSE(d.set_state(stop));
    } else {
      ASSERT_TRUE(d.set_state(by_name(from)));
      if (from == "RESUMING") complete();
    }
    ASSERT_EQ(d.state(), by_name(from));
    journal.clear();

    const Result<void> ok = d.set_state(by_name(to));
    if (path == "EINVAL") {
      ASSERT_FALSE(ok);
      EXPECT_EQ(ok.error().code, EINVAL);
      EXPECT_EQ(d.state(), by_name(from));
    } else {
      EXPECT_TRUE(ok);
      EXPECT_EQ(d.state(), by_name(to));
      std::string told = from;
      for (const std::string& entry : journal) {
        const size_t arrow = entry.find('>');
        if (arrow != std::string::npos)
          told +=
              fmt::format(">{}", to_string(static_cast<MigrationState>(std::stoul(entry.substr(arrow + 1)))));
      }
      EXPECT_EQ(told, path);
    }
  }
  EXPECT_EQ(walked, 64);
}

// ---- a guest survives its worker

TEST_F(SoftwareDeviceTest, TheShadowSurvivesTheWorker) {
  auto device = make_busy();
  device->kill_worker();
  EXPECT_EQ(*device->read32(0, toy::kCount), 2U) << "what is not trapped needs no worker";
  ASSERT_TRUE(device->set_state(stop));
  ASSERT_TRUE(device->set_state(running));
  EXPECT_EQ(peek(*device, toy::kCtrl), toy::kRun) << "stop and cont need none, either";
  ASSERT_TRUE(device->start_worker());
  EXPECT_FALSE(device->incomplete());

  ASSERT_TRUE(device->set_state(stop_copy));
  auto destination = make();
  ASSERT_TRUE(destination->set_state(resuming));
  ASSERT_TRUE(destination->write_state(*device->save_all()));
  EXPECT_EQ(destination->behind().shadow()[0], std::byte{3}) << "the mode that no register shows";
  destination->kill_worker();
  ASSERT_TRUE(destination->start_worker());
  EXPECT_EQ(destination->behind().shadow()[0], std::byte{3});
  destination->reset();
  EXPECT_EQ(destination->behind().shadow()[0], std::byte{0});
}

TEST_F(SoftwareDeviceTest, AMissedAccessReachesTheDeviceAndForbidsMigrationUntilReset) {
  auto device = make_busy();
  device->kill_worker();
  ASSERT_TRUE(device->write32(0, toy::kMode, 4));
  EXPECT_TRUE(device->incomplete());
  ASSERT_TRUE(device->start_worker());
  EXPECT_EQ(device->set_state(pre_copy).error().code, ENODATA);
  EXPECT_EQ(device->state(), running);
  ASSERT_TRUE(device->set_state(stop_copy)) << "without PRE_COPY reading says no";
  const Result<Bytes> stream = device->save_all();
  ASSERT_FALSE(stream);
  EXPECT_EQ(stream.error().code, ENODATA);
  EXPECT_THAT(stream.error().text, HasSubstr("missed"));
  ASSERT_TRUE(device->set_state(running));
  device->reset();
  EXPECT_FALSE(device->incomplete());
  ASSERT_TRUE(device->set_state(stop_copy));
  EXPECT_TRUE(device->save_all());
}

TEST_F(SoftwareDeviceTest, WithThePolicyFailAMissedAccessReachesNothing) {
  auto device = make({.fail_without_worker = true});
  device->kill_worker();
  EXPECT_EQ(device->write32(0, toy::kMode, 4).error().code, EIO);
  EXPECT_FALSE(device->incomplete());
  EXPECT_TRUE(device->write32(0, toy::kAddress, 4)) << "not trapped";
}

TEST_F(SoftwareDeviceTest, AWorkerThatDiesMidStreamFailsTheStreamOnly) {
  auto device = make_busy();
  ASSERT_TRUE(device->set_state(stop_copy));
  Bytes buffer(10);
  ASSERT_TRUE(device->read_state(buffer));
  device->kill_worker();
  EXPECT_EQ(device->read_state(buffer).error().code, EIO);
  ASSERT_TRUE(device->start_worker());
  EXPECT_EQ(device->read_state(buffer).error().code, EIO) << "half a stream is none";
  ASSERT_TRUE(device->set_state(running));
  EXPECT_EQ(peek(*device, toy::kCtrl), toy::kRun);
  ASSERT_TRUE(device->set_state(stop_copy));
  EXPECT_TRUE(device->save_all());
}

TEST_F(SoftwareDeviceTest, ResetNeedsNoWorker) {
  auto device = make_busy();
  device->kill_worker();
  device->reset();
  EXPECT_EQ(device->state(), running);
  ASSERT_TRUE(device->start_worker());
  ASSERT_TRUE(device->set_state(stop_copy));
  EXPECT_TRUE(device->save_all());
}

// ---- what the kernel does around a chain

TEST_F(SoftwareDeviceTest, AccessesAreCutAtTrappedRangesAsInTheKernel) {
  test::Journal journal;
  test::FakePlugin plugin("plugin", journal);
  plugin.trap(0, 0x100, 6).trap(HOOKLINE_REGION_CONFIG, 4, 2, HOOKLINE_WANT_WRITE);
  auto device = SoftwareDevice::create(toy::kModel, *build_chain(links(plugin)), {});
  ASSERT_TRUE(device);
  journal.clear();
  Bytes bytes(24);
  ASSERT_TRUE((*device)->read(0, 0xf8, bytes));
  EXPECT_THAT(journal, ElementsAre("plugin read 0x100+4", "plugin read 0x104+2"));
  journal.clear();
  const Bytes command(4, std::byte{7});
  ASSERT_TRUE((*device)->write(HOOKLINE_REGION_CONFIG, 4, command));
  EXPECT_EQ(*(*device)->read32(HOOKLINE_REGION_CONFIG, 4), 0x07070707U);
  EXPECT_THAT(journal, ElementsAre("plugin write 0x4+2"));
}

// ---- migration parameters

/// The toy, a release later: version 2 of its state has one value more.
class NewerToy final : public MigrationOwner {
 public:
  explicit NewerToy(Device& dev) : dev_(dev) {}
  Answer on_write(Access& a) override {
    if (a.value32() == 0xdead) raise(EPROTO, std::string(dev_.stream_version()));
    return Answer::pass;
  }
  void save(SectionWriter& out) override {
    out.u32("address", dev_.read32(0, toy::kAddress));
    if (dev_.parameter(0) == "2") out.u32("count", dev_.read32(0, toy::kCount));
  }
  void load(SectionReader& in) override {
    address_ = in.u32("address", multiple_of(4, 0xfffffffc));
    if (dev_.stream_version() == "2") count_ = in.u32("count", anything());
    if (dev_.parameter(0) != dev_.stream_version()) in.reject("address", "two versions at once");
  }
  void apply() override {
    dev_.write32(0, toy::kAddress, address_);
    dev_.write32(0, toy::kCount, count_);
  }

  static constexpr PluginInfo kInfo = {
      .name = "toy",
      .version = "2.0",
      .model = "com.example/toy",
      .migration_version = "2",
      .reads = "1|2",
      .traps = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = toy::kMode, .length = 4}},
      .parameters = {{"state_version", "Format of the state", "2", "1", "1|2",
                      HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0},
                     {"queues", "Queues the guest sees", "1", "1", "1-8", 0, 0}},
      .max_state = 8};

 private:
  Device& dev_;
  uint32_t address_ = 0, count_ = 0;
};
const hookline_plugin kNewerToy = detail::describe<NewerToy>(NewerToy::kInfo);

/// Does nothing but look at what was touched.
class Watcher final : public MigrationOwner {
 public:
  explicit Watcher(Device& dev) : dev_(dev) { last = this; }
  void save(SectionWriter&) override {}
  void load(SectionReader&) override {}
  void apply() override {}
  std::vector<uint64_t> touched(uint64_t offset, uint64_t pages) const {
    std::vector<uint64_t> bitmap;
    dev_.touched(0, offset, pages, bitmap);
    return bitmap;
  }
  Device& device() const { return dev_; }
  static constexpr PluginInfo kInfo = {.name = "watcher",
                                       .version = "1.0",
                                       .model = "com.example/toy",
                                       .migration_version = "1",
                                       .max_state = 8};
  static inline Watcher* last = nullptr;

 private:
  Device& dev_;
};
const hookline_plugin kWatcher = detail::describe<Watcher>(Watcher::kInfo);

class TouchedTest : public SoftwareDeviceTest {
 protected:
  // Its last page is half a page.
  static constexpr uint64_t kPage = 4096, kPages = 131;
  static hookline_model model() {
    hookline_model large = toy::kModel;
    large.bar_size[0] = (kPages - 1) * kPage + kPage / 2;
    large.read = [](void*, uint32_t, uint64_t, uint32_t) { return uint64_t{0}; };
    large.write = [](void*, uint32_t, uint64_t, uint32_t, uint64_t) {};
    return large;
  }
  const hookline_model model_ = model();
  std::unique_ptr<SoftwareDevice> device_ =
      *SoftwareDevice::create(model_, *build_chain({*make_link(kWatcher)}), {.memory = memory_});
};

TEST_F(TouchedTest, TheFirstCallAnswersAllAndBitsBehindTheRangeAreZero) {
  EXPECT_THAT(Watcher::last->touched(0, kPages), ElementsAre(~uint64_t{0}, ~uint64_t{0}, uint64_t{7}));
  EXPECT_THAT(Watcher::last->touched(0, kPages), ElementsAre(0U, 0U, 0U));
}

TEST_F(TouchedTest, EveryPageTheVmmReachesIsToldOnceAndNoOther) {
  Watcher::last->touched(0, kPages);
  ASSERT_TRUE(device_->write32(0, 5 * kPage + 8, 1));
  ASSERT_TRUE(device_->read32(0, 70 * kPage));
  std::array<std::byte, 8> across{};
  ASSERT_TRUE(device_->write(0, 10 * kPage - 4, across));
  Watcher::last->device().write32(0, 20 * kPage, 1);
  EXPECT_THAT(Watcher::last->touched(0, kPages),
              ElementsAre(uint64_t{1} << 5 | uint64_t{1} << 9 | uint64_t{1} << 10, uint64_t{1} << 6, 0U));
  EXPECT_THAT(Watcher::last->touched(0, kPages), ElementsAre(0U, 0U, 0U));
}

TEST_F(TouchedTest, ARangeIsTakenAndTheRestWaits) {
  Watcher::last->touched(0, kPages);
  ASSERT_TRUE(device_->write32(0, 2 * kPage, 1));
  ASSERT_TRUE(device_->write32(0, 3 * kPage, 1));
  EXPECT_THAT(Watcher::last->touched(3 * kPage, 2), ElementsAre(1U));
  EXPECT_THAT(Watcher::last->touched(0, 4), ElementsAre(4U));
}

TEST_F(TouchedTest, AResetTouchesEverything) {
  Watcher::last->touched(0, kPages);
  device_->reset();
  EXPECT_THAT(Watcher::last->touched(0, kPages), ElementsAre(~uint64_t{0}, ~uint64_t{0}, uint64_t{7}));
}

TEST_F(TouchedTest, WhatIsNoPageOfTheBarIsRefused) {
  const auto code = [](uint64_t offset, uint64_t pages) {
    try {
      Watcher::last->touched(offset, pages);
    } catch (const std::system_error& e) {
      return e.code().value();
    }
    return 0;
  };
  EXPECT_EQ(code(0, kPages), 0);
  EXPECT_EQ(code(0, kPages + 1), EINVAL);
  EXPECT_EQ(code(kPages * kPage, 1), EINVAL);
  EXPECT_EQ(code(100, 1), EINVAL);
}

TEST(Touched, WhereNobodyKeepsTrackAllIsTouched) {
  test::Journal journal;
  test::FakeAccess nobody(journal);
  const Chain chain = *build_chain({*make_link(kWatcher)});
  const auto open = OpenDevice::open(chain, nobody, {});
  ASSERT_TRUE(open) << open.error().text;
  for (int i = 0; i < 2; ++i)
    EXPECT_THAT(Watcher::last->touched(0, 65), ElementsAre(~uint64_t{0}, uint64_t{1}));
}

TEST(Touched, AHostOfAnEarlierAbiKeepsNoTrack) {
  hookline_host earlier{};
  earlier.size = offsetof(hookline_host, touched);
  const Device device(&earlier, nullptr, nullptr, nullptr);
  std::vector<uint64_t> pages;
  device.touched(0, 0, 65, pages);
  EXPECT_THAT(pages, ElementsAre(~uint64_t{0}, uint64_t{1}));
}

class ParametersTest : public SoftwareDeviceTest {
 protected:
  using Values = std::vector<std::pair<std::string, std::string>>;
  std::unique_ptr<SoftwareDevice> newer(Values values = {}) {
    auto device = SoftwareDevice::create(toy::kModel, *build_chain({*make_link(kNewerToy)}),
                                         {.parameters = std::move(values), .memory = memory_});
    EXPECT_TRUE(device) << device.error().text;
    return std::move(*device);
  }
  static Result<void> move(SoftwareDevice& source, SoftwareDevice& destination) {
    EXPECT_TRUE(source.set_state(stop_copy));
    const auto stream = source.save_all();
    EXPECT_TRUE(stream);
    EXPECT_TRUE(destination.set_state(resuming));
    const Result<void> ok = destination.write_state(*stream);
    destination.set_state(ok ? running : error);
    return ok;
  }
};

TEST_F(ParametersTest, AHostWithoutParametersRefusesThePluginByItsFeature) {
  EXPECT_EQ(kNewerToy.abi.required, HOOKLINE_REQUIRE_PARAMETERS);
  EXPECT_EQ(toy::kPlugin.abi.required, 0U);
}

TEST_F(ParametersTest, MM3_ANewDeviceHoldsTheInitValuesOrWhatItIsDefinedWith) {
  EXPECT_THAT(newer()->parameters(), ElementsAre("2", "1"));
  EXPECT_THAT(newer({{"queues", "3"}})->parameters(), ElementsAre("2", "3"));
  const Values wrong[] = {{{"queues", "9"}}, {{"cows", "1"}}};
  for (const Values& values : wrong) {
    const auto device =
        SoftwareDevice::create(toy::kModel, *build_chain({*make_link(kNewerToy)}), {.parameters = values});
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, EINVAL);
  }
}

TEST_F(ParametersTest, MM6_ARuntimeParameterMayChangeWhileTheDeviceIsOpenTheOtherIsBusy) {
  auto device = newer();
  EXPECT_TRUE(device->set_parameter("state_version", "1"));
  EXPECT_EQ(device->set_parameter("queues", "2").error().code, EBUSY);
  EXPECT_EQ(device->set_parameter("state_version", "3").error().code, EINVAL);
  EXPECT_EQ(device->set_parameter("cows", "3").error().code, EINVAL);
  EXPECT_THAT(device->parameters(), ElementsAre("1", "1"));
}

TEST_F(ParametersTest, TheValuesAreTheDevicesAndOutliveWorkerAndReset) {
  auto device = newer({{"queues", "3"}});
  ASSERT_TRUE(device->set_parameter("state_version", "1"));
  device->kill_worker();
  ASSERT_TRUE(device->start_worker());
  EXPECT_THAT(device->worker()->parameters(), ElementsAre("1", "3"));
  device->reset();
  EXPECT_THAT(device->worker()->parameters(), ElementsAre("1", "3"));
}

TEST_F(ParametersTest, MV5_BothVersionsMoveAndTheDestinationTakesTheValuesOver) {
  for (const std::string version : {"1", "2"}) {
    auto source = newer({{"queues", "3"}}), destination = newer({{"queues", "8"}});
    ASSERT_TRUE(source->set_parameter("state_version", version));
    ASSERT_TRUE(source->write32(0, toy::kAddress, 64));
    ASSERT_TRUE(source->write32(0, toy::kCount, 7));
    const Result<void> ok = move(*source, *destination);
    ASSERT_TRUE(ok) << ok.error().text;
    EXPECT_EQ(peek(*destination, toy::kAddress), 64U);
    EXPECT_EQ(peek(*destination, toy::kCount), version == "2" ? 7U : 0U);
    EXPECT_THAT(destination->parameters(), ElementsAre(version, "3"));
  }
}

TEST_F(ParametersTest, ARefusedStreamLeavesTheValuesAlone) {
  auto source = newer(), destination = newer({{"queues", "8"}});
  ASSERT_TRUE(source->write32(0, toy::kAddress, 65));
  EXPECT_FALSE(move(*source, *destination));
  EXPECT_THAT(destination->parameters(), ElementsAre("2", "8"));
}

TEST_F(ParametersTest, TheStreamsVersionIsKnownOnlyWhileItIsLoaded) {
  auto device = newer();
  const Result<void> ok = device->write32(0, toy::kMode, 0xdead);
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().text, HasSubstr("in load() and apply()"));
}

TEST_F(SoftwareDeviceTest, IoctlsRunTheRestInTheVmmsThread) {
  test::Journal journal;
  test::FakePlugin plugin("plugin", journal);
  plugin.abi.ioctls = 1U << 10;
  plugin.on_ioctl = [](hookline_ioctl& request) {
    if (request.flags & HOOKLINE_IOCTL_AFTER) request.data[0] |= 0x80;
    return request.flags & HOOKLINE_IOCTL_AFTER ? HOOKLINE_HANDLED : HOOKLINE_RUN_REST;
  };
  auto device = SoftwareDevice::create(toy::kModel, *build_chain(links(plugin)), {});
  uint8_t data[4] = {};
  hookline_ioctl request{};
  request.op = HOOKLINE_OP_IOCTL;
  request.number = 10;
  request.data = data;
  request.length = sizeof(data);
  const auto behind = [](hookline_ioctl& r) {
    r.data[0] = 1;
    return 0;
  };
  EXPECT_TRUE((*device)->ioctl(request, behind));
  EXPECT_EQ(data[0], 0x81);
  EXPECT_EQ((*device)->ioctl(request).error().code, ENOTTY);
  request.number = 11;
  EXPECT_TRUE((*device)->ioctl(request, behind)) << "nobody wants it";
  EXPECT_EQ(data[0], 1);
}

TEST_F(SoftwareDeviceTest, GuestMemoryIsReachedAsFarAsItIsGranted) {
  Bytes data(4, std::byte{9});
  auto none = make();
  EXPECT_EQ(none->behind().iova_read(0, data).error().code, EPERM);
  auto reader = make({.grant = SoftwareDevice::Grant::read});
  EXPECT_TRUE(reader->behind().iova_read(0, data));
  EXPECT_EQ(reader->behind().iova_write(0, data).error().code, EPERM);
  EXPECT_EQ(reader->behind().iova_read(4094, data).error().code, EFAULT);
  EXPECT_EQ(reader->behind().iova_read(~uint64_t{0}, data).error().code, EFAULT);
  auto writer = make({.grant = SoftwareDevice::Grant::write});
  const Bytes sent(4, std::byte{9});
  EXPECT_TRUE(writer->behind().iova_write(4092, sent));
  EXPECT_EQ(memory_[4095], std::byte{9});
}

TEST_F(SoftwareDeviceTest, TheStartProgramIsReplacedWhileResumingOnly) {
  auto device = make();
  const hookline_step steps[] = {hookline::write(0, toy::kSticky, 7)};
  EXPECT_EQ(device->behind().start_once(steps).error().code, EBUSY);
  ASSERT_TRUE(device->set_state(resuming));
  ASSERT_TRUE(device->behind().start_once(steps));
  device->reset();
  ASSERT_TRUE(device->set_state(stop));
  ASSERT_TRUE(device->set_state(running));
  EXPECT_EQ(*device->read32(0, toy::kSticky), 0U) << "a reset drops it";
}

TEST_F(SoftwareDeviceTest, ProgramsBehindTheEndOfABarAreRefused) {
  test::Journal journal;
  test::FakePlugin owner("owner", journal);
  const hookline_step step = hookline::write(0, toy::kBarSize, 1);
  owner.own_migration().abi.stop = {&step, 1, 0};
  const auto device = SoftwareDevice::create(toy::kModel, *build_chain(links(owner)), {});
  ASSERT_FALSE(device);
  EXPECT_THAT(device.error().text, AllOf(HasSubstr("stop program"), HasSubstr("BAR 0")));
}

TEST_F(SoftwareDeviceTest, WithoutAnOwnerThereIsNoMigration) {
  test::Journal journal;
  test::FakePlugin plugin("plugin", journal);
  auto device = SoftwareDevice::create(toy::kModel, *build_chain(links(plugin)), {});
  EXPECT_EQ((*device)->set_state(stop).error().code, ENOTTY);
  (*device)->reset();
}

}  // namespace
}  // namespace hookline
