// SPDX-License-Identifier: Apache-2.0
//
// Whoever is asked, the answer is the same, and it is true: for all pairs of a generated set of configurations the
// command line's verdict on two texts, the type level's, the worker's to a written migration_version, and what becomes
// of a migration between two software models.
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <hookline/chain_descriptor.hpp>
#include <hookline/parameters.hpp>
#include <hookline/query_serve.hpp>
#include <hookline/software_device.hpp>
#include <linux/vfio_pci_hooks.h>

#include "compat_report.hpp"
#include "core/src/fake_plugin.hpp"
#include "core/src/toy_device.hpp"

namespace hookline::loader {
namespace {

using hookline::test::FakePlugin;
using hookline::test::Journal;

/// One release of the owner: which state versions it knows. 0: none of that parameter.
struct Release {
  const char* name;
  const char* version;  ///< emitted by a new device
  const char* reads;
  const char* choice;   ///< allowed values of state_version; null: it has no such parameter
  const char* off;
};
constexpr Release kReleases[] = {
    {"N", "1", "1", nullptr, nullptr},
    {"N+1", "2", "1|2", "1|2", "1"},
    {"N+2", "3", "2|3", "2|3", "2"},
};

struct Queues {
  const char* allowed;  ///< null: no such parameter
  const char* off;
};
constexpr Queues kQueues[] = {{nullptr, nullptr}, {"1-8", "1"}, {"1|2", "1"}, {"2-8", "2"}, {"off|1-4", "off"}};

/// Releases of a plugin in front of it that has state of its own; null: it is not in the chain.
constexpr const char* kGuards[] = {nullptr, "1.0", "1.1"};

/// A device as it could be configured; its plugins are objects, not files.
class Configured {
 public:
  Configured(std::string model, const Release& release, const Queues& queues, const char* guard, std::vector<std::string> values)
      : owner_("nic", journal_), guard_("guard", journal_), model_(std::move(model)) {
    owner_.own_migration();
    owner_.abi.model = model_.c_str();
    owner_.abi.version = release.name;
    owner_.abi.migration_version = release.version;
    owner_.abi.max_state = 256;
    owner_.abi.ioctl = nullptr;
    if (release.choice) {
      owner_.abi.reads = release.reads;
      owner_.parameter({"state_version", "Format of the state", release.version, release.off, release.choice,
                        HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0});
      owner_version_ = [this] { return owner_.ask(0); };
    } else {
      owner_version_ = [version = release.version] { return std::string(version); };
    }
    if (queues.allowed) owner_.parameter({"queues", "Queues the guest may use", queues.off, queues.off, queues.allowed, 0, 0});
    owner_.on_save = [this](hookline_writer* out) {
      // What a version says, and no more: a reader of another would stumble over it.
      const std::string field = "state" + owner_version_();
      return owner_.host->put(out, field.c_str(), &state, sizeof state);
    };
    owner_.on_load = [this](hookline_reader* in) {
      const std::string field = "state" + owner_.ask_version();
      return owner_.host->get(in, field.c_str(), &loaded_, sizeof loaded_);
    };
    owner_.on_apply = [this] {
      state = loaded_;
      return 0;
    };
    std::vector<Link> links;
    if (guard) {
      guard_.abi.version = guard;
      // Each release writes another format and reads only that.
      guard_.on_save = [this](hookline_writer* out) {
        const uint32_t seen = 1;
        return guard_.host->put(out, guard_field().c_str(), &seen, sizeof seen);
      };
      guard_.on_load = [this](hookline_reader* in) {
        uint32_t seen = 0;
        return guard_.host->get(in, guard_field().c_str(), &seen, sizeof seen);
      };
      links.push_back(guard_.with_state().guard().link());
    }
    links.push_back(owner_.link());
    chain_ = std::make_unique<Chain>(*build_chain(std::move(links)));
    values_ = values.empty() ? chain_->init_values() : std::move(values);
  }

  std::string name() const {
    return fmt::format("{} {} {}{}", model_, owner_.abi.version, fmt::join(values_, ","), chain_->links().size() > 1 ? fmt::format(" guard {}", guard_.abi.version) : "");
  }
  const Chain& chain() const { return *chain_; }
  std::string version() const { return *migration_version(*chain_, values_, ""); }
  std::string info() const { return migration_info(*describe_chain(*chain_, values_)); }

  std::unique_ptr<SoftwareDevice> device() const {
    SoftwareDevice::Options options;
    for (size_t i = 0; i < values_.size(); ++i) options.parameters.emplace_back(chain_->parameters()[i].name, values_[i]);
    return std::move(*SoftwareDevice::create(toy::kModel, *chain_, std::move(options)));
  }

  uint32_t state = 0;

 private:
  std::string guard_field() const { return fmt::format("seen{}", guard_.abi.version); }

  Journal journal_;
  FakePlugin owner_, guard_;
  const std::string model_;
  std::function<std::string()> owner_version_;
  std::unique_ptr<Chain> chain_;
  std::vector<std::string> values_;
  uint32_t loaded_ = 0;
};

/// Every value a parameter may have, ranges by their ends and their middle.
std::vector<std::string> some_values(const char* allowed) {
  if (!allowed) return {""};
  std::vector<std::string> values;
  for (const char* value : {"off", "1", "2", "3", "4", "8"})
    if (is_allowed(allowed, value)) values.emplace_back(value);
  return values;
}

std::deque<Configured> generate() {
  std::deque<Configured> all;
  for (const char* model : {"com.example/nic", "com.example/other"}) {
    for (const Release& release : kReleases) {
      for (const Queues& queues : kQueues) {
        for (const char* guard : kGuards) {
          for (const std::string& version : some_values(release.choice)) {
            for (const std::string& count : some_values(queues.allowed)) {
              std::vector<std::string> values;
              if (!version.empty()) values.push_back(version);
              if (!count.empty()) values.push_back(count);
              all.emplace_back(model, release, queues, guard, std::move(values));
            }
          }
        }
      }
    }
  }
  return all;
}

std::vector<std::byte> saved(Configured& source) {
  const auto device = source.device();
  EXPECT_TRUE(device->set_state(MigrationState::stop_copy));
  auto stream = device->save_all();
  EXPECT_TRUE(stream) << stream.error().text;
  return *std::move(stream);
}

Result<void> migrate(SoftwareDevice& dest, std::span<const std::byte> stream) {
  if (auto ok = dest.set_state(MigrationState::resuming); !ok) return ok;
  if (auto ok = dest.write_state(stream); !ok) return ok;
  return dest.set_state(MigrationState::running);
}

TEST(CompatTruth, MV4_all_who_are_asked_say_the_same_and_it_is_so) {
  std::deque<Configured> all = generate();
  ASSERT_GE(all.size(), 200u);
  std::vector<std::string> versions;
  std::vector<std::vector<std::byte>> streams;
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].state = static_cast<uint32_t>(i + 1);
    versions.push_back(all[i].version());
    streams.push_back(saved(all[i]));
    // The string asked before is the stream's first record.
    const std::string_view text(reinterpret_cast<const char*>(streams.back().data()), streams.back().size());
    ASSERT_NE(text.find(versions.back()), std::string_view::npos);
  }

  size_t yes = 0, no = 0;
  for (Configured& dest : all) {
    const Side files{"dest", *parse_descriptor(dest.info())};
    const Side type{"type", *describe_chain(dest.chain())};
    const auto device = dest.device();
    for (size_t s = 0; s < all.size(); ++s) {
      const Descriptor source = *parse_descriptor(versions[s]);
      const Judged judged = judge(source, files);
      const Answered by_type = judge(source, type).verdict.answer;
      const QueryAnswer by_worker =
          answer_query({.what = VFIO_PCI_HOOKS_QUERY_WRITE, .text = versions[s]}, dest.chain(), device->parameters(), "");
      const auto migrated = migrate(*device, streams[s]);

      const auto told = [&] {
        return fmt::format("{} -> {}: {}; worker {}; migration {}", all[s].name(), dest.name(), to_text(judged.verdict),
                           by_worker.code == 0 ? "yes" : by_worker.text, migrated ? "yes" : migrated.error().text);
      };
      ASSERT_NE(judged.verdict.answer, Answered::unknown) << told();
      const bool compatible = judged.verdict.answer == Answered::yes;
      ASSERT_EQ(by_type == Answered::yes, compatible) << told();
      ASSERT_EQ(by_worker.code == 0, compatible) << told();
      ASSERT_EQ(migrated.has_value(), compatible) << told();
      if (!compatible) {
        ++no;
        ASSERT_NE(migrated.error().text.find(to_text(judged.verdict)), std::string::npos) << told();
        device->reset();
        continue;
      }
      ++yes;
      ASSERT_EQ(dest.state, s + 1) << told();
      ASSERT_EQ(device->parameters(), accept_source(dest.chain(), "", versions[s])->values) << told();
      // What sysfs shows from now on is what a stream from here would begin with.
      const QueryAnswer shown = answer_query({.what = VFIO_PCI_HOOKS_QUERY_READ}, dest.chain(), device->parameters(), "");
      ASSERT_EQ(shown.text, *migration_version(dest.chain(), device->parameters(), "")) << told();
      for (size_t p = 0; p < judged.values.size(); ++p) ASSERT_EQ(device->parameters()[p], judged.values[p].value) << told();
    }
  }
  EXPECT_EQ(yes + no, all.size() * all.size());
  // A set in which everything is refused would prove nothing.
  EXPECT_GT(yes, 1000u);
  EXPECT_GT(no, 1000u);
  fmt::print("{} configurations, {} pairs: {} compatible, {} not\n", all.size(), yes + no, yes, no);
}

TEST(CompatTruth, MV4_a_source_with_other_capabilities_is_refused_by_all) {
  const Configured dest("com.example/nic", kReleases[1], kQueues[1], nullptr, {});
  Descriptor source = *parse_descriptor(dest.version());
  for (const std::vector<std::string>& capabilities :
       {std::vector<std::string>{"stop_copy"}, {"stop_copy", "p2p"}, {"stop_copy", "pre_copy"}, {"stop_copy", "p2p", "pre_copy", "teleport"}}) {
    source.capabilities = capabilities;
    const std::string version = *migration_version(source);
    EXPECT_EQ(judge(source, Side{"type", *describe_chain(dest.chain())}).verdict.answer, Answered::no);
    EXPECT_FALSE(accept_source(dest.chain(), "", version));
    auto writer = *StreamWriter::create(version);
    std::vector<std::byte> record(writer.pending());
    writer.take(record);
    const auto migrated = migrate(*dest.device(), record);
    ASSERT_FALSE(migrated);
    EXPECT_THAT(migrated.error().text, testing::HasSubstr("same release of hookline"));
  }
}

TEST(CompatTruth, MV4_configuration_space_is_asked_wherever_it_is_known) {
  const Configured dest("com.example/nic", kReleases[0], kQueues[0], nullptr, {});
  const std::string there = *migration_version(dest.chain(), {}, "1234:0001 there");
  EXPECT_FALSE(accept_source(dest.chain(), "1234:0001 here", there));
  EXPECT_TRUE(accept_source(dest.chain(), "1234:0001 there", there));
  EXPECT_TRUE(accept_source(dest.chain(), "", there));
  SoftwareDevice::Options options;
  options.info.config_space = "1234:0001 here";
  const auto device = *SoftwareDevice::create(toy::kModel, dest.chain(), std::move(options));
  auto writer = *StreamWriter::create(there);
  std::vector<std::byte> record(writer.pending());
  writer.take(record);
  EXPECT_FALSE(migrate(*device, record));
}

}  // namespace
}  // namespace hookline::loader
