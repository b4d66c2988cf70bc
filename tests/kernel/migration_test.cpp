// SPDX-License-Identifier: Apache-2.0
//
// The migration protocol on a real kernel: every pair of states, streams in every cut, sizes, refusals, resets.
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kStop = VFIO_DEVICE_STATE_STOP, kRunning = VFIO_DEVICE_STATE_RUNNING,
                   kStopCopy = VFIO_DEVICE_STATE_STOP_COPY, kResuming = VFIO_DEVICE_STATE_RESUMING,
                   kPreCopy = VFIO_DEVICE_STATE_PRE_COPY, kPreCopyP2p = VFIO_DEVICE_STATE_PRE_COPY_P2P,
                   kRunningP2p = VFIO_DEVICE_STATE_RUNNING_P2P, kError = VFIO_DEVICE_STATE_ERROR;

struct Bytes {
  std::vector<uint8_t> data;
  int error = 0;  // of the call that ended it
};

Bytes read_all(const vfio::Descriptor& stream, size_t cut) {
  Bytes bytes;
  std::vector<uint8_t> piece(cut);
  for (;;) {
    const ssize_t got = ::read(stream.get(), piece.data(), piece.size());
    if (got < 0) bytes.error = errno;
    if (got <= 0) return bytes;
    bytes.data.insert(bytes.data.end(), piece.begin(), piece.begin() + got);
  }
}

int write_all(const vfio::Descriptor& stream, const std::vector<uint8_t>& data, size_t cut) {
  for (size_t at = 0; at < data.size();) {
    const ssize_t done = ::write(stream.get(), data.data() + at, std::min(cut, data.size() - at));
    if (done < 0) return errno;
    at += static_cast<size_t>(done);
  }
  return 0;
}

std::vector<uint8_t> whole_state(uint32_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint32_t i = 0; i < size; ++i) bytes[i] = pattern(i);
  return bytes;
}

// One VF with its worker.
struct Served {
  Served(const vfio::Container& container, const std::string& address)
      : worker(address, *board), guest(container, address) {}
  uint32_t state() const { return guest.device.state().value_or(99); }

  SharedBoard board = shared_board();
  Worker worker;
  Guest guest;
};

class MigrationTest : public HooksTest {
 protected:
  void start(const Definition& definition) {
    define_and_bind(definition);
    one_ = std::make_unique<Served>(*container_, definition.address);
    ASSERT_TRUE(wait_served(definition.address));
  }
  void start_two() {
    const auto patient = [](Definition definition) {
      definition.state_limit_ms = 5000;  // the worker of a busy host needs time for a MiB
      return definition;
    };
    start(patient(migratable(vfs_[0])));
    define_and_bind(patient(migratable(vfs_[1])));
    two_ = std::make_unique<Served>(*container_, vfs_[1]);
    ASSERT_TRUE(wait_served(vfs_[1]));
  }
  void TearDown() override {
    one_.reset();
    two_.reset();
    HooksTest::TearDown();
  }
  // Any state but ERROR, with a complete stream loaded where it is RESUMING.
  void go_to(uint32_t state, vfio::Descriptor& stream) {
    auto reached = one_->guest.device.set_state(state);
    ASSERT_TRUE(reached) << reached.error().text;
    stream = std::move(*reached);
    ASSERT_EQ(one_->state(), state);
    if (state == kResuming) {
      ASSERT_EQ(write_all(stream, whole_state(one_->board->state_bytes), 1 << 20), 0);
    }
  }
  // Events come before requests: when a request was answered, the worker has heard of all arcs before it.
  void hear() {
    uint32_t value = 0;
    ASSERT_EQ(one_->guest.read32(kTrapped, value), 0);
  }
  // Leaves the device in ERROR.
  void break_it() {
    auto stream = one_->guest.device.set_state(kResuming);
    ASSERT_TRUE(stream);
    EXPECT_FALSE(one_->guest.device.set_state(kStop));
    ASSERT_EQ(one_->state(), kError);
  }

  std::unique_ptr<Served> one_, two_;
};

struct Row {
  uint32_t from, to;
  std::vector<uint32_t> path;  // empty: refused
};

uint32_t state_of(const std::string& name) {
  for (uint32_t state = 0; state <= kPreCopyP2p; ++state)
    if (vfio::state_name(state) == name) return state;
  throw std::invalid_argument(name);
}

// The requests of a device with P2P and PRE_COPY.
std::vector<Row> test_vectors() {
  std::ifstream file(HOOKLINE_MIGRATION_ARCS);
  std::vector<Row> rows;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string from, to, p2p, pre_copy, path;
    std::getline(fields, from, ',');
    std::getline(fields, to, ',');
    std::getline(fields, p2p, ',');
    std::getline(fields, pre_copy, ',');
    std::getline(fields, path);
    if (p2p != "1" || pre_copy != "1") continue;
    Row row{state_of(from), state_of(to), {}};
    std::istringstream steps(path);
    for (std::string state; path != "EINVAL" && std::getline(steps, state, '>');) row.path.push_back(state_of(state));
    rows.push_back(row);
  }
  return rows;
}

TEST_F(MigrationTest, MP1_EveryPairOfStates) {
  const std::vector<Row> rows = test_vectors();
  ASSERT_EQ(rows.size(), 64u);
  start(migratable(vf_));
  for (const Row& row : rows) {
    SCOPED_TRACE(vfio::state_name(row.from) + " to " + vfio::state_name(row.to));
    ASSERT_TRUE(one_->guest.device.reset());
    ASSERT_EQ(one_->state(), kRunning);
    vfio::Descriptor stream;
    if (row.from == kError) {
      break_it();
    } else {
      go_to(row.from, stream);
    }
    hear();
    one_->board->nr_states = 0;
    const auto reached = one_->guest.device.set_state(row.to);
    if (row.path.empty()) {
      EXPECT_FALSE(reached);
      EXPECT_EQ(one_->state(), row.from);
      continue;
    }
    ASSERT_TRUE(reached) << reached.error().text;
    EXPECT_EQ(one_->state(), row.to);
    hear();
    std::vector<uint32_t> walked{row.from};
    for (size_t i = 0; i < one_->board->nr_states; ++i) walked.push_back(one_->board->states[i]);
    EXPECT_EQ(walked, row.path);
    const bool streams = row.from != row.to && (row.to == kStopCopy || row.to == kResuming || row.to == kPreCopy ||
                                                row.to == kPreCopyP2p);
    const bool goes_on = row.from == kPreCopy || row.from == kPreCopyP2p;
    EXPECT_EQ(static_cast<bool>(*reached), streams && !(goes_on && row.to != kResuming));
  }
}

TEST_F(MigrationTest, MP1_CapabilitiesAreTold) {
  start(migratable(vf_));
  EXPECT_EQ(one_->guest.device.migration_flags().value(),
            uint64_t{VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY});
}

struct Cut {
  size_t piece;
  uint32_t state_bytes;
};

class CutTest : public MigrationTest, public ::testing::WithParamInterface<Cut> {};

TEST_P(CutTest, MP2_AnyCutOfTheStreamLoads) {
  const auto [cut, size] = GetParam();
  start_two();
  one_->board->state_bytes = size;
  two_->board->state_bytes = size;
  auto in = two_->guest.device.set_state(kResuming);
  auto out = one_->guest.device.set_state(kPreCopy);
  ASSERT_TRUE(in && out);
  Bytes first = read_all(*out, cut);
  EXPECT_EQ(first.error, ENOMSG);
  EXPECT_EQ(first.data.size(), kPreCopyBytes);
  ASSERT_EQ(write_all(*in, first.data, cut), 0);
  ASSERT_TRUE(one_->guest.device.set_state(kStopCopy));
  const Bytes rest = read_all(*out, cut);
  EXPECT_EQ(rest.error, 0) << "the end of STOP_COPY is the end of the file";
  first.data.insert(first.data.end(), rest.data.begin(), rest.data.end());
  EXPECT_EQ(first.data, whole_state(size));
  ASSERT_EQ(write_all(*in, rest.data, cut), 0);
  EXPECT_EQ(two_->board->loaded_bytes, size);
  EXPECT_TRUE(two_->board->load_matches);
  EXPECT_TRUE(one_->guest.device.set_state(kStop));
  EXPECT_TRUE(two_->guest.device.set_state(kRunning));
}

INSTANTIATE_TEST_SUITE_P(Piece, CutTest,
                         ::testing::Values(Cut{1, 700}, Cut{7, 5000}, Cut{4096, 300000}, Cut{65536, 300000},
                                           Cut{1 << 20, 3 << 20}, Cut{8 << 20, 3 << 20}, Cut{999983, 3 << 20}),
                         [](const auto& cut) { return "Of" + std::to_string(cut.param.piece); });

TEST_F(MigrationTest, MP2_WithoutPreCopyTheStreamIsTheSame) {
  start(migratable(vf_));
  auto out = one_->guest.device.set_state(kStopCopy);
  ASSERT_TRUE(out);
  const Bytes all = read_all(*out, 4096);
  EXPECT_EQ(all.error, 0);
  EXPECT_EQ(all.data, whole_state(one_->board->state_bytes));
}

TEST_F(MigrationTest, MP5_Sizes) {
  start(migratable(vf_));
  const uint64_t bytes = one_->board->state_bytes;
  ASSERT_TRUE(sysfs::wait_until([&] { return one_->board->sessions == 1; }, 2s));
  const uint64_t idle = one_->guest.device.data_size().value();
  EXPECT_GE(idle, bytes) << "an upper bound";
  auto out = one_->guest.device.set_state(kPreCopy);
  ASSERT_TRUE(out);
  EXPECT_EQ(vfio::precopy_info(*out).value().initial_bytes, kPreCopyBytes);
  read_all(*out, 4096);
  EXPECT_EQ(vfio::precopy_info(*out).value().initial_bytes, 0u);
  EXPECT_GE(one_->guest.device.data_size().value(), bytes - kPreCopyBytes);
  ASSERT_TRUE(one_->guest.device.set_state(kStopCopy));
  EXPECT_EQ(vfio::precopy_info(*out).error().code, EINVAL);
}

// vfio.ko can take START without being able to REPORT, and then a VMM that trusts START migrates to its death.
TEST_F(MigrationTest, MP5_DmaLoggingWhereTheKernelCanReport) {
  start(migratable(vf_));
  const bool can_report = std::filesystem::exists("/dev/iommu");
  const auto probed = one_->guest.device.feature(
      VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, {});
  EXPECT_EQ(probed ? 0 : probed.error().code, can_report ? 0 : ENOTTY);
}

TEST_F(MigrationTest, MP5_StreamLongerThanDefinedEnds) {
  Definition definition = migratable(vf_);
  definition.max_state = 50000;
  start(definition);
  auto out = one_->guest.device.set_state(kStopCopy);
  ASSERT_TRUE(out);
  EXPECT_NE(read_all(*out, 4096).error, 0);
}

TEST_F(MigrationTest, RL2_RefusalOfTheLoaderIsSticky) {
  start(migratable(vf_));
  auto in = one_->guest.device.set_state(kResuming);
  ASSERT_TRUE(in);
  one_->board->load_error = -EXDEV;
  EXPECT_EQ(write_all(*in, whole_state(100), 100), EXDEV);
  one_->board->load_error = 0;
  EXPECT_EQ(write_all(*in, whole_state(one_->board->state_bytes), 4096), EXDEV);
  EXPECT_FALSE(one_->guest.device.set_state(kRunning));
  EXPECT_EQ(one_->state(), kError);
}

TEST_F(MigrationTest, RL2_IncompleteStreamNeverRuns) {
  start(migratable(vf_));
  auto in = one_->guest.device.set_state(kResuming);
  ASSERT_TRUE(in);
  const auto all = whole_state(one_->board->state_bytes);
  ASSERT_EQ(write_all(*in, {all.begin(), all.end() - 1}, 4096), 0);
  EXPECT_FALSE(one_->guest.device.set_state(kRunning));
  EXPECT_EQ(one_->state(), kError);
}

TEST_F(MigrationTest, RL2_BytesAfterTheEndAreRefused) {
  start(migratable(vf_));
  auto in = one_->guest.device.set_state(kResuming);
  ASSERT_TRUE(in);
  ASSERT_EQ(write_all(*in, whole_state(one_->board->state_bytes), 4096), 0);
  EXPECT_EQ(write_all(*in, {0}, 1), EINVAL);
}

TEST_F(MigrationTest, RL2_FailingSaveIsToldByRead) {
  start(migratable(vf_));
  auto out = one_->guest.device.set_state(kPreCopy);
  ASSERT_TRUE(out);
  read_all(*out, 4096);
  one_->board->save_error = -EXDEV;
  ASSERT_TRUE(one_->guest.device.set_state(kStopCopy)) << "the arc itself must not fail";
  EXPECT_EQ(read_all(*out, 4096).error, EXDEV);
  EXPECT_TRUE(one_->guest.device.set_state(kRunning)) << "the guest goes on at the source";
}

class ResetTest : public MigrationTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(ResetTest, MP4_ResetLeadsToRunningAndEndsTheStream) {
  start(migratable(vf_));
  vfio::Descriptor stream;
  if (GetParam() == kError) {
    break_it();
  } else {
    go_to(GetParam(), stream);
  }
  ASSERT_TRUE(one_->guest.device.reset());
  EXPECT_EQ(one_->state(), kRunning);
  if (stream) {
    char byte = 0;
    const ssize_t moved = GetParam() == kResuming ? ::write(stream.get(), &byte, 1) : ::read(stream.get(), &byte, 1);
    EXPECT_EQ(moved, -1) << "an end of file would be taken for success";
    EXPECT_NE(errno, ENOMSG);
  }
  // And everything is there for the next migration.
  auto out = one_->guest.device.set_state(kStopCopy);
  ASSERT_TRUE(out);
  EXPECT_EQ(read_all(*out, 65536).data.size(), one_->board->state_bytes);
}

INSTANTIATE_TEST_SUITE_P(From, ResetTest,
                         ::testing::Values(kError, kStop, kRunning, kStopCopy, kResuming, kRunningP2p, kPreCopy, kPreCopyP2p),
                         [](const auto& state) { return vfio::state_name(state.param); });

TEST_F(MigrationTest, RL1_StreamOutlivesTheDeviceAndSaysSo) {
  start(migratable(vf_));
  auto out = one_->guest.device.set_state(kPreCopy);
  ASSERT_TRUE(out);
  one_.reset();
  const Bytes bytes = read_all(*out, 4096);
  EXPECT_NE(bytes.error, 0);
  EXPECT_NE(bytes.error, ENOMSG);
}

// Words of the mailbox memory stand for registers: the stop program saves and clears one, the start program restores it.
TEST_F(MigrationTest, RL5_ProgramsRunOnTheirArcs) {
  constexpr uint32_t kRegister = kMailboxMemory + 0x30;
  Definition definition = migratable(vf_);
  definition.stop = {{VFIO_PCI_HOOKS_STEP_SAVE, 0, 4, 0, kRegister, 0, 0, 0},
                     {VFIO_PCI_HOOKS_STEP_MODIFY, 0, 4, 0, kRegister, 0xff, 0, 0}};
  definition.start = {{VFIO_PCI_HOOKS_STEP_RESTORE, 0, 4, 0, kRegister, 0, 0, 0}};
  definition.reset = {{VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, kRegister, 0, 0x5c5c5c5c, 0}};
  start(definition);
  uint32_t value = 0;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(one_->guest.write32(kRegister, 0x11223344), 0);
    ASSERT_TRUE(one_->guest.device.set_state(kStop));
    ASSERT_EQ(one_->guest.read32(kRegister, value), 0);
    EXPECT_EQ(value, 0x11223300u);
    ASSERT_TRUE(one_->guest.device.set_state(kRunning));
    ASSERT_EQ(one_->guest.read32(kRegister, value), 0);
    EXPECT_EQ(value, 0x11223344u);
  }
  ASSERT_TRUE(one_->guest.device.reset());
  ASSERT_TRUE(one_->guest.device.enable_memory_and_dma());
  ASSERT_EQ(one_->guest.read32(kRegister, value), 0);
  EXPECT_EQ(value, 0x5c5c5c5cu);
}

// What a refused stream leaves in memory is scrubbed by the reset program; the step works in every program.
TEST_F(MigrationTest, MP2_AFillWritesItsWordsAndNoOther) {
  constexpr uint32_t kFirst = kMailboxMemory + 0x20;
  Definition definition = migratable(vf_);
  definition.stop = {{VFIO_PCI_HOOKS_STEP_FILL, 0, 4, 0, kFirst + 4, 8, 0x51515151, 0}};
  definition.reset = {{VFIO_PCI_HOOKS_STEP_FILL, 0, 4, 0, kFirst + 4, 12, 0x5c5c5c5c, 0}};
  start(definition);
  const auto words = [&] {
    std::array<uint32_t, 5> values{};
    for (uint32_t i = 0; i < values.size(); ++i) EXPECT_EQ(one_->guest.read32(kFirst + 4 * i, values[i]), 0);
    return values;
  };
  for (uint32_t i = 0; i < 5; ++i) ASSERT_EQ(one_->guest.write32(kFirst + 4 * i, i + 1), 0);
  ASSERT_TRUE(one_->guest.device.set_state(kStop));
  EXPECT_EQ(words(), (std::array<uint32_t, 5>{1, 0x51515151, 0x51515151, 4, 5}));
  ASSERT_TRUE(one_->guest.device.set_state(kRunning));
  ASSERT_TRUE(one_->guest.device.reset());
  ASSERT_TRUE(one_->guest.device.enable_memory_and_dma());
  const auto after = words();
  EXPECT_EQ((std::array{after[1], after[2], after[3]}), (std::array<uint32_t, 3>{0x5c5c5c5c, 0x5c5c5c5c, 0x5c5c5c5c}));
  EXPECT_NE(after[0], 0x5c5c5c5cU);
  EXPECT_NE(after[4], 0x5c5c5c5cU);
}

TEST_F(MigrationTest, MP4_ProgramThatTimesOutFailsItsArc) {
  Definition definition = migratable(vf_);
  definition.stop = {{VFIO_PCI_HOOKS_STEP_POLL, 0, 4, 0, kMailboxMemory + 0x30, ~0u, 0x12345678, 20000}};
  start(definition);
  ASSERT_EQ(one_->guest.write32(kMailboxMemory + 0x30, 0), 0);
  const auto stopped = one_->guest.device.set_state(kStop);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ETIMEDOUT);
  EXPECT_EQ(one_->state(), kRunning);
  ASSERT_EQ(one_->guest.write32(kMailboxMemory + 0x30, 0x12345678), 0);
  EXPECT_TRUE(one_->guest.device.set_state(kStop));
}

}  // namespace
}  // namespace hookline::kernel_test
