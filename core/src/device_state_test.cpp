// SPDX-License-Identifier: Apache-2.0
#include <hookline/chain_descriptor.hpp>
#include <hookline/device_state.hpp>

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_host.hpp"

namespace hookline {
namespace {

using test::FakePlugin;
using test::links;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

/// One host: a chain of an observer with state, the owner, and a handler with state, and the device behind
/// it.
class Host : public test::FakeHost {
 public:
  Host() {
    for (FakePlugin* plugin : {&observer, &owner, &extra}) {
      plugin->with_state();
      plugin->on_save = [this, plugin](hookline_writer* out) {
        return plugin->host->put(out, "value", &value, sizeof(value));
      };
      plugin->on_load = [this, plugin](hookline_reader* in) {
        return plugin->host->get(in, "value", &loaded, sizeof(loaded));
      };
      plugin->on_apply = [this] {
        value = loaded;
        return 0;
      };
    }
    owner.own_migration().guard().abi.max_state = 4 << 20;
    extra.guard();
  }

  using FakeHost::open;
  void open() { open(links(observer, owner, extra)); }

  Bytes save(size_t cut = 1 << 20) {
    Bytes stream, piece(cut);
    auto saver = DeviceStateSaver::begin(*device);
    EXPECT_TRUE(saver);
    while (saver && !saver->done()) {
      const Result<size_t> got = saver->fill(piece, SavePhase::stop_copy);
      if (!got) {
        ADD_FAILURE() << got.error().text;
        break;
      }
      stream.insert(stream.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*got));
    }
    return stream;
  }

  /// The refusal, or nothing.
  std::string load(std::span<const std::byte> stream) {
    DeviceStateLoader loader(*device);
    Result<void> ok = loader.write(stream);
    if (ok) ok = loader.end();
    EXPECT_EQ(loader.complete(), ok.has_value());
    return ok ? "" : ok.error().text;
  }

  bool applied() const {
    return std::ranges::any_of(journal, [](const std::string& s) { return s.ends_with("apply"); });
  }

  FakePlugin observer{"observer", journal}, owner{"owner", journal}, extra{"extra", journal};
  uint64_t value = 0, loaded = 0;
  std::string told;  // what the owner heard of parameters
};

class DeviceStateTest : public ::testing::Test {
 protected:
  DeviceStateTest() { source_.value = 0x1234; }
  Host source_, destination_;
};

TEST_F(DeviceStateTest, MovesTheStateOfAllLinksInChainOrder) {
  source_.open();
  destination_.open();
  const Bytes stream = source_.save();
  EXPECT_EQ(destination_.load(stream), "");
  EXPECT_EQ(destination_.value, 0x1234U);
  EXPECT_THAT(source_.journal, ElementsAre("observer save", "owner save", "extra save"));
  EXPECT_THAT(destination_.journal, ElementsAre("observer load", "owner load", "extra load", "observer apply",
                                                "owner apply", "extra apply"));
}

TEST_F(DeviceStateTest, AnyCutOnEitherSideGivesTheSame) {
  source_.open();
  // The second half of the owner's state is a section of its own.
  int part = 0;
  Bytes blob(300000);
  std::mt19937 random(1);
  for (std::byte& b : blob) b = static_cast<std::byte>(random());
  source_.owner.on_save = [&](hookline_writer* out) {
    const int ret = source_.owner.host->put(out, "blob", blob.data() + 150000 * part, 150000);
    return ret ? ret : (part++ == 0 ? HOOKLINE_MORE : 0);
  };
  const Bytes whole = source_.save(1 << 21);
  for (const size_t cut : {1UL, 7UL, 4096UL, 0UL}) {  // 0: random pieces
    part = 0;
    if (cut) {
      EXPECT_EQ(source_.save(cut), whole) << cut;
    }

    Host host;
    host.open();
    Bytes got;
    host.owner.on_load = [&](hookline_reader* in) {
      got.resize(got.size() + 150000);
      return host.owner.host->get(in, "blob", got.data() + got.size() - 150000, 150000);
    };
    DeviceStateLoader loader(*host.device);
    for (size_t at = 0; at < whole.size();) {
      const size_t length = std::min(whole.size() - at, cut ? cut : 1 + random() % 5000);
      EXPECT_FALSE(host.applied()) << "before the last byte";
      ASSERT_TRUE(loader.write(std::span(whole).subspan(at, length)));
      at += length;
    }
    EXPECT_TRUE(loader.complete());
    EXPECT_TRUE(host.applied());
    EXPECT_EQ(got, blob) << cut;
  }
}

TEST_F(DeviceStateTest, PreCopyIsTheMatchRecordAlone) {
  source_.open();
  destination_.open();
  auto saver = DeviceStateSaver::begin(*source_.device);
  Bytes piece(65536), stream;
  const size_t expected = saver->sizes().initial;
  Result<size_t> got = saver->fill(piece, SavePhase::pre_copy);
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, expected);
  EXPECT_TRUE(saver->finished(SavePhase::pre_copy));
  EXPECT_EQ(*saver->fill(piece, SavePhase::pre_copy), 0U);
  EXPECT_TRUE(source_.journal.empty()) << "no plugin is asked while the guest runs";

  DeviceStateLoader loader(*destination_.device);
  ASSERT_TRUE(loader.write(std::span(piece).first(expected)));
  got = saver->fill(piece, SavePhase::stop_copy);
  ASSERT_TRUE(got);
  EXPECT_TRUE(saver->done());
  ASSERT_TRUE(loader.write(std::span(piece).first(*got)));
  EXPECT_TRUE(loader.complete());
  EXPECT_EQ(destination_.value, 0x1234U);
}

// ---- refused before anything moves

TEST_F(DeviceStateTest, AnotherDeviceOrVersionIsRefusedByTheMatchRecord) {
  const struct {
    void (*change)(FakePlugin& owner);
    const char* text;
  } cases[] = {
      {[](FakePlugin& p) { p.abi.model = "com.example/other"; },
       "the source is a \"com.example/fake\", the destination a \"com.example/other\": choose"},
      {[](FakePlugin& p) { p.abi.name = "other"; },
       "written by plugin \"owner\", the destination has plugin \"other\": configure"},
      {[](FakePlugin& p) { p.abi.migration_version = "2"; },
       "the source emits state version 1, the destination reads 2: install"},
  };
  source_.open();
  const Bytes stream = source_.save();
  const size_t record = DeviceStateSaver::begin(*source_.device)->sizes().initial;
  for (const auto& c : cases) {
    Host host;
    c.change(host.owner);
    host.open();
    EXPECT_THAT(host.load(std::span(stream).first(record)), HasSubstr(c.text));
    EXPECT_TRUE(host.journal.empty());
  }
}

TEST_F(DeviceStateTest, TheVersionForPeopleDecidesNothing) {
  destination_.owner.abi.version = "99";
  source_.open();
  destination_.open();
  EXPECT_EQ(destination_.load(source_.save()), "");
}

// ---- parameters and several versions

/// A plugin that emits and reads version 1 of its state or version 2, with a parameter that only new plugins
/// have.
class ParametersTest : public DeviceStateTest {
 protected:
  ParametersTest() {
    for (Host* host : {&source_, &destination_}) {
      FakePlugin& p = host->owner;
      p.parameter({"state_version", "Format of the state", "2", "1", "1|2",
                   HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0});
      p.parameter({"queues", "Queues the guest sees", "1", "1", "1-8", 0, 0});
      p.abi.migration_version = "2";
      p.abi.reads = "1|2";
      p.on_save = [&p, host](hookline_writer* out) {
        host->told = "saves as " + p.ask(0) + ", queues " + p.ask(1);
        return p.host->put(out, "value", &host->value, sizeof(host->value));
      };
      const auto on_load = p.on_load;
      p.on_load = [&p, host, on_load](hookline_reader* in) {
        host->told = "loads " + p.ask_version() + " as " + p.ask(0) + ", queues " + p.ask(1);
        return on_load(in);
      };
      p.on_apply = [&p, host] {
        host->told += "; applies " + p.ask_version() + ", queues " + p.ask(1);
        return 0;
      };
    }
  }
};

TEST_F(ParametersTest, MM3_ANewDeviceHoldsTheInitValues) {
  source_.open();
  EXPECT_THAT(source_.device->parameters(), ElementsAre("2", "1"));
  EXPECT_EQ(source_.owner.ask(0), "2");
  EXPECT_EQ(source_.owner.ask(1), "1");
  EXPECT_EQ(source_.owner.ask(2), "") << "there is no third";
}

TEST_F(ParametersTest, LoadIsToldTheSourcesValuesAndTheDeviceTakesThemOver) {
  source_.open();
  destination_.open();
  ASSERT_TRUE(source_.device->set_parameters({"1", "4"}));
  EXPECT_EQ(destination_.load(source_.save()), "");
  EXPECT_EQ(source_.told, "saves as 1, queues 4");
  EXPECT_EQ(destination_.told, "loads 1 as 1, queues 4; applies 1, queues 4");
  EXPECT_THAT(destination_.device->parameters(), ElementsAre("1", "4"));
}

TEST_F(ParametersTest, MM4_WhatTheSourceDoesNotNameIsTheOffValue) {
  source_.open();
  destination_.open();
  ASSERT_TRUE(source_.device->set_parameters({"2", "1"}));
  ASSERT_TRUE(destination_.device->set_parameters({"1", "8"}));
  EXPECT_EQ(destination_.load(source_.save()), "");
  EXPECT_EQ(destination_.told, "loads 2 as 2, queues 1; applies 2, queues 1");
  EXPECT_THAT(destination_.device->parameters(), ElementsAre("2", "1"));
}

TEST_F(ParametersTest, MM6_AValueCountsFromTheNextSaveOn) {
  source_.open();
  auto saver = DeviceStateSaver::begin(*source_.device);
  ASSERT_TRUE(saver);
  ASSERT_TRUE(source_.device->set_parameters({"1", "1"}));
  EXPECT_EQ(source_.owner.ask(0), "1") << "the present value";
  Bytes stream(1 << 16);
  const Result<size_t> length = saver->fill(stream, SavePhase::stop_copy);
  ASSERT_TRUE(length);
  EXPECT_EQ(source_.told, "saves as 2, queues 1");
  source_.save();
  EXPECT_EQ(source_.told, "saves as 1, queues 1");
}

TEST_F(ParametersTest, MV5_AnOlderPluginIsReachedByTheOlderVersionOnly) {
  source_.open();
  Host old;
  old.open();
  EXPECT_THAT(old.load(source_.save()), HasSubstr("the source emits state version 2, the destination reads "
                                                  "1: write 1 to parameter \"state_version\""));
  EXPECT_TRUE(old.journal.empty()) << "refused before a plugin saw a byte";
  ASSERT_TRUE(source_.device->set_parameters({"1", "1"}));
  EXPECT_EQ(old.load(source_.save()), "");
  EXPECT_EQ(old.value, 0x1234U);
  EXPECT_EQ(source_.load(old.save()), "") << "and back";
  EXPECT_EQ(source_.told, "loads 1 as 1, queues 1; applies 1, queues 1");
}

TEST_F(ParametersTest, MM4_AnUnknownParameterOrValueIsRefused) {
  source_.open();
  ASSERT_TRUE(source_.device->set_parameters({"1", "4"}));
  Host old;
  old.open();
  EXPECT_THAT(old.load(source_.save()),
              HasSubstr("parameter \"queues\" is 4 at the source, the destination has no such parameter"));
  destination_.owner.narrow(1, "1|2");
  destination_.open();
  EXPECT_THAT(destination_.load(source_.save()),
              HasSubstr("parameter \"queues\" is 4 at the source, the destination allows 1 or 2"));
  EXPECT_THAT(destination_.device->parameters(), ElementsAre("2", "1"))
      << "a refused stream changes no value";
}

TEST_F(ParametersTest, AValueThatIsNotAllowedIsNotTaken) {
  source_.open();
  EXPECT_FALSE(source_.device->set_parameters({"3", "1"}));
  EXPECT_FALSE(source_.device->set_parameters({"2"}));
  EXPECT_FALSE(source_.device->begin_load("2", {"2", "9"}));
  EXPECT_THAT(source_.device->parameters(), ElementsAre("2", "1"));
}

TEST_F(ParametersTest, TheLongestValuesFitTheDeclaredSize) {
  source_.owner.narrow(1, std::string(63, 'q'));
  source_.owner.abi.max_state = 64;
  source_.open(links(source_.owner));
  EXPECT_GE(source_.chain->max_state(), source_.save().size());
}

TEST_F(DeviceStateTest, WithoutAnOwnerThereIsNoMigration) {
  source_.open(links(source_.observer));
  const auto saver = DeviceStateSaver::begin(*source_.device);
  ASSERT_FALSE(saver);
  EXPECT_EQ(saver.error().code, EOPNOTSUPP);
  destination_.open();
  const Bytes stream = destination_.save();
  EXPECT_THAT(source_.load(stream), HasSubstr("no plugin of its chain owns"));
}

// ---- chains that differ

TEST_F(DeviceStateTest, AMandatorySectionNobodyLoadsIsRefused) {
  source_.open();
  destination_.open(links(destination_.observer, destination_.owner));
  EXPECT_THAT(destination_.load(source_.save()), AllOf(HasSubstr("\"extra\""), HasSubstr("add plugin")));
  EXPECT_FALSE(destination_.applied());
}

TEST_F(DeviceStateTest, AnObserversSectionMayBeSkippedOrMissing) {
  source_.open();
  destination_.open(links(destination_.owner, destination_.extra));
  EXPECT_EQ(destination_.load(source_.save()), "");

  Host back;
  back.open();
  EXPECT_EQ(back.load(destination_.save()), "");
  EXPECT_THAT(back.journal, ElementsAre("owner load", "extra load", "owner apply", "extra apply"));
}

TEST_F(DeviceStateTest, AMissingSectionOfAnybodyElseIsRefused) {
  source_.open(links(source_.owner));
  destination_.open();
  EXPECT_THAT(
      destination_.load(source_.save()),
      HasSubstr("plugin \"extra\" 1.0 at the destination needs its state, and the source does not have it"));
  EXPECT_FALSE(destination_.applied());
}

// A stream may say one thing first and another later.
TEST_F(DeviceStateTest, AMissingSectionThatWasPromisedIsRefused) {
  source_.open();
  destination_.open();
  const std::string promises = *migration_version(*source_.chain, {}, "");
  auto writer = *StreamWriter::create(promises);
  Bytes stream(1 << 16);
  size_t length = writer.take(stream);
  ASSERT_TRUE(writer.finish());
  length += writer.take(std::span(stream).subspan(length));
  EXPECT_THAT(destination_.load(std::span(stream).first(length)),
              AllOf(HasSubstr("no section of plugin"), HasSubstr("source")));
  EXPECT_FALSE(destination_.applied());
}

// ---- bad streams and bad values

TEST_F(DeviceStateTest, NoFlippedByteAndNoShorterStreamIsApplied) {
  source_.open();
  Bytes stream = source_.save();
  for (size_t i = 0; i < stream.size(); ++i) {
    Host flipped;
    flipped.open();
    stream[i] ^= std::byte{0x10};
    EXPECT_NE(flipped.load(stream), "") << "byte " << i;
    EXPECT_FALSE(flipped.applied()) << "byte " << i;
    stream[i] ^= std::byte{0x10};

    Host shorter;
    shorter.open();
    EXPECT_NE(shorter.load(std::span(stream).first(i)), "") << i << " bytes";
    EXPECT_FALSE(shorter.applied()) << i << " bytes";
  }
}

TEST_F(DeviceStateTest, ARefusedValueIsSaidWithSectionFieldAndReason) {
  source_.open();
  destination_.owner.on_load = [this](hookline_reader* in) {
    uint64_t value = 0;
    if (const int ret = destination_.owner.host->get(in, "value", &value, sizeof(value))) return ret;
    return destination_.owner.host->reject(in, "value", "it is not below the ring size 512");
  };
  destination_.open();
  EXPECT_THAT(destination_.load(source_.save()),
              AllOf(HasSubstr("owner"), HasSubstr("value"), HasSubstr("offset"),
                    HasSubstr("not below the ring size 512")));
  EXPECT_FALSE(destination_.applied());
}

TEST_F(DeviceStateTest, FieldsThatAPluginDoesNotKnowAreRefused) {
  source_.owner.on_save = [this](hookline_writer* out) {
    const uint64_t value = 1;
    source_.owner.host->put(out, "value", &value, sizeof(value));
    return source_.owner.host->put(out, "new", &value, sizeof(value));
  };
  source_.open();
  destination_.open();
  EXPECT_THAT(destination_.load(source_.save()), AllOf(HasSubstr("owner"), HasSubstr("new")));
  EXPECT_FALSE(destination_.applied());
}

TEST_F(DeviceStateTest, ARefusalIsFinal) {
  source_.open();
  destination_.open();
  destination_.owner.on_apply = [this] {
    return destination_.owner.host->fail(destination_.owner.device, EIO, "stuck");
  };
  const Bytes stream = source_.save();
  DeviceStateLoader loader(*destination_.device);
  const Result<void> first = loader.write(stream);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().text, "plugin \"owner\": apply(): stuck");
  EXPECT_FALSE(loader.complete());
  const Result<void> again = loader.write(stream);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().text, first.error().text);
}

TEST_F(DeviceStateTest, AFailingSaveStaysFailed) {
  source_.open();
  source_.owner.on_save = [this](hookline_writer*) {
    return source_.owner.host->fail(source_.owner.device, ETIMEDOUT, "the firmware does not answer");
  };
  auto saver = DeviceStateSaver::begin(*source_.device);
  Bytes piece(1 << 20);
  for (int i = 0; i < 2; ++i) {
    const Result<size_t> got = saver->fill(piece, SavePhase::stop_copy);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, ETIMEDOUT);
    EXPECT_THAT(got.error().text, AllOf(HasSubstr("\"owner\""), HasSubstr("the firmware does not answer")));
  }
  EXPECT_FALSE(saver->done());
  source_.owner.on_save = nullptr;
  EXPECT_FALSE(saver->fill(piece, SavePhase::stop_copy));
}

TEST_F(DeviceStateTest, MoreStateThanDeclaredIsTheSourcesError) {
  source_.owner.abi.max_state = 8;
  source_.owner.on_save = [this](hookline_writer* out) {
    const Bytes data(60000);
    const int ret = source_.owner.host->put(out, "data", data.data(), data.size());
    return ret ? ret : HOOKLINE_MORE;
  };
  source_.open();
  auto saver = DeviceStateSaver::begin(*source_.device);
  Bytes piece(1 << 20);
  const Result<size_t> got = saver->fill(piece, SavePhase::stop_copy);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, E2BIG);
  EXPECT_THAT(got.error().text, AllOf(HasSubstr("\"owner\""), HasSubstr("max_state")));
}

TEST_F(DeviceStateTest, ASectionHasAtMostOneMebibyte) {
  source_.owner.on_save = [this](hookline_writer* out) {
    const Bytes data(kMaxChunkPayload);
    return source_.owner.host->put(out, "data", data.data(), data.size());
  };
  source_.open();
  auto saver = DeviceStateSaver::begin(*source_.device);
  Bytes piece(1 << 20);
  const Result<size_t> got = saver->fill(piece, SavePhase::stop_copy);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ENOSPC);
  EXPECT_THAT(got.error().text, HasSubstr("\"owner\""));
}

TEST_F(DeviceStateTest, BulkSectionsReachNoPlugin) {
  destination_.open();
  auto writer = StreamWriter::create(*migration_version(*destination_.chain, {}, ""));
  Bytes stream(1 << 16);
  size_t length = writer->take(stream);
  ASSERT_TRUE(writer->section("owner", {.bulk = true}, {}));
  length += writer->take(std::span(stream).subspan(length));
  EXPECT_THAT(destination_.load(std::span(stream).first(length)), HasSubstr("bulk"));
  EXPECT_TRUE(destination_.journal.empty());
}

}  // namespace
}  // namespace hookline
