// SPDX-License-Identifier: Apache-2.0
//
// The ring of slices behind a data file: how far it reads ahead and writes behind, who waits for whom, and what is left of it
// when a stream ends in the middle.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include <gmock/gmock.h>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

constexpr uint32_t kStopCopy = VFIO_DEVICE_STATE_STOP_COPY, kRunning = VFIO_DEVICE_STATE_RUNNING,
                   kResuming = VFIO_DEVICE_STATE_RESUMING, kPreCopy = VFIO_DEVICE_STATE_PRE_COPY;
constexpr uint64_t kNever = 0, kAlways = ~uint64_t{0};
// What the worker gives at a time. A slice holds one answer, however short it is.
constexpr uint32_t kPiece = 1000;

std::vector<uint8_t> part_of_state(uint64_t from, uint64_t to) {
  std::vector<uint8_t> bytes;
  for (uint64_t i = from; i < to; ++i) bytes.push_back(pattern(i));
  return bytes;
}

struct Bytes {
  std::vector<uint8_t> data;
  int error = 0;  // of the call that ended it
};

Bytes read_some(const vfio::Descriptor& stream, size_t most) {
  Bytes bytes;
  bytes.data.resize(most);
  const ssize_t got = ::read(stream.get(), bytes.data.data(), most);
  if (got < 0) bytes.error = errno;
  bytes.data.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

Bytes read_all(const vfio::Descriptor& stream, size_t cut = 4096) {
  Bytes all;
  for (;;) {
    const Bytes piece = read_some(stream, cut);
    all.data.insert(all.data.end(), piece.data.begin(), piece.data.end());
    all.error = piece.error;
    if (piece.error || piece.data.empty()) return all;
  }
}

int write_once(const vfio::Descriptor& stream, const std::vector<uint8_t>& bytes) {
  const ssize_t done = ::write(stream.get(), bytes.data(), bytes.size());
  if (done < 0) return errno;
  EXPECT_EQ(static_cast<size_t>(done), bytes.size());
  return 0;
}

void never_wait(const vfio::Descriptor& stream) {
  ASSERT_EQ(::fcntl(stream.get(), F_SETFL, O_NONBLOCK), 0);
}

short ready(const vfio::Descriptor& stream, int timeout_ms = 0) {
  pollfd one{stream.get(), POLLIN | POLLOUT, 0};
  EXPECT_GE(::poll(&one, 1, timeout_ms), 0);
  return one.revents;
}

// One VF with its worker.
struct Served {
  Served(const vfio::Container& container, const std::string& address)
      : worker(address, *board), guest(std::make_unique<Guest>(container, address)) {
    board->save_at_once = kPiece;
    board->state_bytes = 20 * kPiece;
  }
  const vfio::Device& device() const { return guest->device; }
  // The worker has been asked so often, and is not asked once more.
  bool is_asked(const std::atomic<uint64_t>& counted, uint64_t times) const {
    if (!sysfs::wait_until([&] { return counted >= times; }, 10s)) return false;
    std::this_thread::sleep_for(100ms);
    return counted == times;
  }

  SharedBoard board = shared_board();
  Worker worker;
  std::unique_ptr<Guest> guest;
};

class StreamTest : public HooksTest {
 protected:
  Served& start(size_t number = 0, uint32_t limit_ms = 10000) {
    Definition definition = migratable(vfs_.at(number));
    definition.state_limit_ms = limit_ms;
    define_and_bind(definition);
    served_[number] = std::make_unique<Served>(*container_, definition.address);
    EXPECT_TRUE(sysfs::wait_until([&] { return served_[number]->board->sessions == 1; }, 10s));
    return *served_[number];
  }
  static vfio::Descriptor go(const Served& served, uint32_t state) {
    auto stream = served.device().set_state(state);
    if (!stream) throw std::runtime_error(stream.error().text);
    return std::move(*stream);
  }
  void TearDown() override {
    for (auto& one : served_) one.reset();
    HooksTest::TearDown();
  }

  std::array<std::unique_ptr<Served>, 2> served_;
};

// ---- reading ahead

TEST_F(StreamTest, MP2_TheWorkerReadsAheadAsFarAsThereAreSlices) {
  Served& one = start();
  const auto& saves = one.board->saves;
  const auto stream = go(one, kStopCopy);
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(saves, 0u) << "nothing before the first read";
  EXPECT_EQ(read_some(stream, 1).data, part_of_state(0, 1));
  EXPECT_TRUE(one.is_asked(saves, VFIO_PCI_HOOKS_STREAM_SLICES));
  EXPECT_EQ(read_some(stream, kPiece - 2).data.size(), kPiece - 2);
  EXPECT_TRUE(one.is_asked(saves, VFIO_PCI_HOOKS_STREAM_SLICES)) << "a byte of the slice is unread";
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  EXPECT_TRUE(one.is_asked(saves, VFIO_PCI_HOOKS_STREAM_SLICES + 1));
  // Everything that is there in one read, and no waiting for more.
  one.board->saves_allowed = kNever;
  EXPECT_EQ(read_some(stream, 1 << 20).data, part_of_state(kPiece, (1 + VFIO_PCI_HOOKS_STREAM_SLICES) * kPiece));
  one.board->saves_allowed = kAlways;
  EXPECT_EQ(read_all(stream).data, part_of_state((1 + VFIO_PCI_HOOKS_STREAM_SLICES) * kPiece, 20 * kPiece));
}

TEST_F(StreamTest, RL2_AnErrorAheadIsToldAtItsByte) {
  Served& one = start();
  one.board->save_error = -EXDEV;
  one.board->save_fails_at = 2 * kPiece + kPiece / 2;
  const auto stream = go(one, kStopCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  ASSERT_TRUE(one.is_asked(one.board->saves, 4)) << "it has failed, unseen";
  EXPECT_TRUE(ready(stream) & POLLIN);
  EXPECT_FALSE(ready(stream) & POLLERR);
  const Bytes rest = read_all(stream, 7);
  EXPECT_EQ(rest.data, part_of_state(1, one.board->save_fails_at));
  EXPECT_EQ(rest.error, EXDEV);
  one.board->save_error = 0;
  EXPECT_EQ(read_some(stream, 1).error, EXDEV) << "and it stays";
  EXPECT_TRUE(one.device().set_state(kRunning)) << "the guest goes on at the source";
}

TEST_F(StreamTest, MP5_WhatIsReadAheadCountsUntilItIsRead) {
  Served& one = start();
  one.board->pre_copy_bytes = 3 * kPiece;
  const auto stream = go(one, kPreCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  ASSERT_TRUE(one.is_asked(one.board->saves, 3));
  const auto info = vfio::precopy_info(stream).value();
  EXPECT_EQ(info.initial_bytes + info.dirty_bytes, 3 * kPiece - 1u);
  const uint64_t before = one.device().data_size().value();
  EXPECT_EQ(read_all(stream).error, ENOMSG);
  EXPECT_EQ(before - one.device().data_size().value(), 3 * kPiece - 1u);
}

TEST_F(StreamTest, MP2_NothingNowIsAskedForAgain) {
  Served& one = start();
  one.board->pre_copy_goes_on = true;
  const auto stream = go(one, kPreCopy);
  Bytes bytes = read_all(stream);
  EXPECT_EQ(bytes.data, part_of_state(0, kPreCopyBytes));
  EXPECT_EQ(bytes.error, ENOMSG);
  const uint64_t saves = one.board->saves;
  EXPECT_TRUE(one.is_asked(one.board->saves, saves)) << "not until the VMM asks";
  EXPECT_EQ(read_some(stream, 1).error, ENOMSG);
  EXPECT_EQ(one.board->saves, saves + 1);
  one.board->pre_copy_bytes = 100;
  EXPECT_EQ(read_all(stream).data, part_of_state(kPreCopyBytes, 100)) << "there was more to come";
  ASSERT_TRUE(one.device().set_state(kStopCopy));
  bytes = read_all(stream);
  EXPECT_EQ(bytes.error, 0);
  EXPECT_EQ(bytes.data, part_of_state(100, one.board->state_bytes));
}

// The device stops while the worker is still at a piece of PRE_COPY that nobody has asked for yet.
TEST_F(StreamTest, MP2_WhatIsOnItsWayAtTheStopComesFirst) {
  Served& one = start();
  one.board->pre_copy_bytes = 10 * kPiece;
  one.board->saves_allowed = 2;
  const auto stream = go(one, kPreCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  ASSERT_TRUE(one.is_asked(one.board->saves, 3));
  ASSERT_TRUE(one.device().set_state(kStopCopy)) << "no arc waits for a worker";
  one.board->saves_allowed = kAlways;
  const Bytes rest = read_all(stream);
  EXPECT_EQ(rest.error, 0);
  EXPECT_EQ(rest.data, part_of_state(1, one.board->state_bytes));
  std::vector<uint32_t> phases;
  for (size_t i = 0; i < 5; ++i) phases.push_back(one.board->save_phases[i]);
  EXPECT_THAT(phases, ElementsAre(VFIO_PCI_HOOKS_PHASE_PRE_COPY, VFIO_PCI_HOOKS_PHASE_PRE_COPY, VFIO_PCI_HOOKS_PHASE_PRE_COPY,
                                  VFIO_PCI_HOOKS_PHASE_STOP_COPY, VFIO_PCI_HOOKS_PHASE_STOP_COPY));
}

// The clock of a request runs while somebody waits for its answer.
TEST_F(StreamTest, MP3_AWorkerIsLateOnlyWithWhatIsWaitedFor) {
  constexpr uint32_t kLimitMs = 300;
  Served& one = start(0, kLimitMs);
  one.board->saves_allowed = 1;
  const auto stream = go(one, kStopCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  ASSERT_TRUE(one.is_asked(one.board->saves, 2));
  std::this_thread::sleep_for(std::chrono::milliseconds(4 * kLimitMs * sysfs::slowness()));
  EXPECT_EQ(read_some(stream, kPiece).data.size(), kPiece - 1);
  EXPECT_EQ(control_.status(vf_).revoked, 0u);
  EXPECT_EQ(read_some(stream, 1).error, ETIMEDOUT);
  EXPECT_EQ(control_.status(vf_).revoked, 1u);
  EXPECT_TRUE(one.device().set_state(kRunning));
  one.board->saves_allowed = kAlways;
}

TEST_F(StreamTest, RL1_AStalledVmmHoldsOnlyItsOwnWorker) {
  Served &stalled = start(0), &other = start(1);
  const auto stream = go(stalled, kStopCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  const auto until = std::chrono::steady_clock::now() + 5s;
  int migrations = 0;
  do {
    const auto out = go(other, kStopCopy);
    const Bytes state = read_all(out);
    EXPECT_EQ(state.error, 0);
    const auto in = go(other, kResuming);
    EXPECT_EQ(write_once(in, state.data), 0);
    EXPECT_TRUE(other.device().set_state(kRunning));
    ++migrations;
  } while (std::chrono::steady_clock::now() < until);
  EXPECT_GE(migrations, 2);
  EXPECT_TRUE(stalled.is_asked(stalled.board->saves, VFIO_PCI_HOOKS_STREAM_SLICES));
  EXPECT_EQ(read_all(stream).data, part_of_state(1, stalled.board->state_bytes));
  EXPECT_EQ(control_.status(vfs_[0]).revoked + control_.status(vfs_[1]).revoked, 0u);
}

// Arcs, resets and closes, with the worker somewhere in its next piece: none waits for it, and a later stream is whole.
class CancelTest : public StreamTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(CancelTest, RL1_AnyByteMayBeTheLastThatIsRead) {
  Served& one = start();
  enum { arc, reset, file_closed, end };
  for (int how = arc; how != end; ++how) {
    SCOPED_TRACE(how);
    const uint64_t late = one.board->late_answers;
    const uint64_t answered = one.board->saves + (GetParam() + kPiece - 1) / kPiece;
    const bool asked_ahead = GetParam() > 0 && GetParam() < one.board->state_bytes;
    one.board->saves_allowed = answered;
    {
      auto stream = go(one, kStopCopy);
      for (size_t done = 0; done < GetParam();) {
        const Bytes got = read_some(stream, GetParam() - done);
        ASSERT_EQ(got.error, 0);
        done += got.data.size();
      }
      ASSERT_TRUE(sysfs::wait_until([&] { return one.board->saves == answered + asked_ahead; }, 10s));
      if (how == file_closed) stream.reset();
      if (how == reset) {
        ASSERT_TRUE(one.device().reset());
      }
      if (how != reset) {
        ASSERT_TRUE(one.device().set_state(kRunning));
      }
      if (stream) {
        EXPECT_NE(read_some(stream, 1).error, 0);
      }
      EXPECT_EQ(one.board->late_answers, late) << "the worker is still at it";
      one.board->saves_allowed = kAlways;
    }
    const auto again = go(one, kStopCopy);
    const Bytes whole = read_all(again);
    EXPECT_EQ(whole.error, 0);
    EXPECT_EQ(whole.data, part_of_state(0, one.board->state_bytes));
    ASSERT_TRUE(one.device().set_state(kRunning));
    EXPECT_EQ(one.board->late_answers - late, asked_ahead ? 1u : 0u) << "refused, and the session goes on";
  }
  EXPECT_EQ(control_.status(vf_).revoked, 0u);
}
INSTANTIATE_TEST_SUITE_P(After, CancelTest,
                         ::testing::Values(0, 1, kPiece - 1, kPiece, kPiece + 1, 4 * kPiece, 4 * kPiece + 1, 19 * kPiece, 20 * kPiece),
                         ::testing::PrintToStringParamName());

// A stream does not change its worker, and what a dead one has left in the slices is not told any more.
TEST_F(StreamTest, RL5_TheEndOfTheWorkerIsTheEndOfTheStream) {
  Served& one = start();
  one.board->saves_allowed = 2;
  const auto stream = go(one, kStopCopy);
  EXPECT_EQ(read_some(stream, 1).data.size(), 1u);
  ASSERT_TRUE(one.is_asked(one.board->saves, 3)) << "one slice is full, and one on its way";
  one.worker.kill();
  EXPECT_EQ(read_some(stream, 1).error, EIO);
  EXPECT_EQ(ready(stream), POLLIN);
  EXPECT_TRUE(one.device().set_state(kRunning)) << "the guest goes on at the source";
}

TEST_F(StreamTest, RL1_TheCloseOfTheDeviceWaitsForNoSlice) {
  for (const uint32_t state : {kStopCopy, kResuming}) {
    SCOPED_TRACE(vfio::state_name(state));
    Served& one = start();
    one.board->state_bytes = 4 * VFIO_PCI_HOOKS_STREAM_SLICE;
    one.board->saves_allowed = one.board->loads_allowed = 1;
    const bool loads = state == kResuming;
    const auto stream = go(one, state);
    std::vector<uint8_t> bytes(3 * VFIO_PCI_HOOKS_STREAM_SLICE);
    std::atomic<int> error = 0;
    std::thread vmm([&] {
      if (loads) error = write_once(stream, bytes);
      while (!loads && error == 0) error = read_some(stream, kPiece).error;
    });
    ASSERT_TRUE(one.is_asked(loads ? one.board->loads : one.board->saves, 2));
    one.guest.reset();
    vmm.join();
    EXPECT_EQ(error, ENODEV);
    EXPECT_EQ(one.board->late_answers, 0u) << "the worker is still at it";
    served_[0].reset();
    ASSERT_TRUE(sysfs::release(vf_));
    ASSERT_EQ(control_.undefine(vf_), 0);
  }
}

// ---- writing behind

TEST_F(StreamTest, RL2_AWriteEndsWithTheWordOnItsLastByte) {
  Served& one = start();
  one.board->state_bytes = 3 * VFIO_PCI_HOOKS_STREAM_SLICE + 5;
  one.board->loads_allowed = 3;
  const auto stream = go(one, kResuming);
  std::atomic<int> error = -1;
  std::thread vmm([&] { error = write_once(stream, part_of_state(0, one.board->state_bytes)); });
  EXPECT_TRUE(one.is_asked(one.board->loads, 4)) << "slices are loaded one after the other";
  EXPECT_EQ(error, -1) << "the last one is not";
  one.board->loads_allowed = kAlways;
  vmm.join();
  EXPECT_EQ(error, 0);
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(StreamTest, RL2_ARefusalFailsItsOwnWrite) {
  Served& one = start();
  one.board->state_bytes = 5 * VFIO_PCI_HOOKS_STREAM_SLICE;
  one.board->loads_allowed = 4;
  const auto stream = go(one, kResuming);
  std::atomic<int> error = -1;
  std::thread vmm([&] { error = write_once(stream, part_of_state(0, one.board->state_bytes)); });
  EXPECT_TRUE(one.is_asked(one.board->loads, 5));
  one.board->load_error = -EXDEV;
  one.board->loads_allowed = kAlways;
  vmm.join();
  EXPECT_EQ(error, EXDEV) << "no part of it counts as written";
  EXPECT_EQ(write_once(stream, {0}), EXDEV);
  EXPECT_FALSE(one.device().set_state(kRunning));
  one.board->load_error = 0;
}

TEST_F(StreamTest, RL2_BytesBehindTheEndFailTheirWrite) {
  Served& one = start();
  one.board->state_bytes = VFIO_PCI_HOOKS_STREAM_SLICE;
  const auto stream = go(one, kResuming);
  EXPECT_EQ(write_once(stream, part_of_state(0, one.board->state_bytes + 1)), EINVAL);
  EXPECT_FALSE(one.device().set_state(kRunning));
}

TEST_F(StreamTest, MP2_AWriteIsCutWhereTheMemoryOfTheVmmEnds) {
  Served& one = start();
  one.board->state_bytes = 3 * VFIO_PCI_HOOKS_STREAM_SLICE;
  const auto stream = go(one, kResuming);
  const size_t size = one.board->state_bytes, slice = VFIO_PCI_HOOKS_STREAM_SLICE;
  const auto state = part_of_state(0, size);
  // The second slice ends in a page that is not there.
  auto* memory = static_cast<uint8_t*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(memory, MAP_FAILED);
  std::copy(state.begin(), state.end(), memory);
  ASSERT_EQ(::mprotect(memory + 2 * slice - kPage, kPage, PROT_NONE), 0);
  EXPECT_EQ(::write(stream.get(), memory, size), static_cast<ssize_t>(slice));
  EXPECT_EQ(one.board->loaded_bytes, slice);
  EXPECT_EQ(::write(stream.get(), memory + slice, size - slice), -1);
  EXPECT_EQ(errno, EFAULT);
  ::munmap(memory, size);
  EXPECT_EQ(write_once(stream, {state.begin() + slice, state.end()}), 0) << "nothing is lost";
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

// ---- writing behind, over the end of a write(): as far as the worker has promised to have no word

constexpr size_t kCall = 32 << 10;  // what QEMU writes at a time

class BehindTest : public StreamTest {
 protected:
  // The first write() is loaded, and nothing after it before the test allows it.
  Served& begin(uint64_t state_bytes, uint64_t record, uint32_t limit_ms = 10000) {
    Served& one = start(0, limit_ms);
    one.board->state_bytes = static_cast<uint32_t>(state_bytes);
    one.board->record = record;
    one.board->loads_allowed = 1;
    state_ = part_of_state(0, state_bytes);
    written_ = 0;
    stream_ = go(one, kResuming);
    EXPECT_EQ(call(), 0);
    EXPECT_EQ(one.board->loaded_bytes, kCall);
    return one;
  }
  // The next bytes of the state; an errno, and nothing is written.
  int call(size_t most = kCall) {
    const size_t length = std::min(most, state_.size() - written_);
    const ssize_t done = ::write(stream_.get(), state_.data() + written_, length);
    if (done < 0) return errno;
    written_ += static_cast<size_t>(done);
    return 0;
  }
  void call_until(uint64_t written) {
    while (written_ < written) ASSERT_EQ(call(), 0);
  }
  // Nothing is left of a stream that ended in its middle.
  void expect_whole_stream(Served& one) {
    one.board->loads_allowed = kAlways;
    stream_ = go(one, kResuming);
    written_ = 0;
    while (written_ < state_.size()) ASSERT_EQ(call(), 0);
    EXPECT_TRUE(one.board->load_matches);
    EXPECT_TRUE(one.device().set_state(kRunning));
  }
  void TearDown() override {
    for (auto& one : served_)
      if (one) one->board->loads_allowed = kAlways;
    stream_.reset();
    StreamTest::TearDown();
  }

  std::vector<uint8_t> state_;
  size_t written_ = 0;
  vfio::Descriptor stream_;
};

TEST_F(BehindTest, MP2_WritesWithinThePromiseDoNotWaitForTheWorker) {
  Served& one = begin(1 << 20, 1 << 20);
  call_until(state_.size() - kCall);
  EXPECT_EQ(one.board->loaded_bytes, kCall) << "the worker has answered nothing since";
  EXPECT_TRUE(one.is_asked(one.board->loads, 2));
  std::atomic<int> error = -1;
  std::thread vmm([&] { error = call(); });
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(error, -1) << "the last byte is judged";
  one.board->loads_allowed = kAlways;
  vmm.join();
  EXPECT_EQ(error, 0);
  EXPECT_EQ(one.board->loads, 3u) << "what came meanwhile is one request";
  EXPECT_FALSE(one.board->dirty_bytes_stood) << "a worker that knows of no promise would repeat the last one";
  EXPECT_EQ(one.board->loaded_bytes, state_.size());
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(BehindTest, MP2_OneByteAtATimeAndEachJudgementInItsWrite) {
  constexpr size_t kRecord = 1000;
  Served& one = start();
  one.board->state_bytes = 5 * kRecord;
  one.board->record = kRecord;
  state_ = part_of_state(0, 5 * kRecord);
  stream_ = go(one, kResuming);
  while (written_ < state_.size()) {
    ASSERT_EQ(call(1), 0);
    ASSERT_LE(one.board->loaded_bytes, written_);
    if (written_ % kRecord == 0) {
      ASSERT_EQ(one.board->loaded_bytes, written_);
    }
  }
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(BehindTest, RL1_NoMoreIsTakenThanThereAreSlices) {
  Served& one = begin(6 << 20, 6 << 20);
  never_wait(stream_);
  EXPECT_EQ(ready(stream_), POLLOUT);
  int error = 0;
  while ((error = call()) == 0) {
  }
  EXPECT_EQ(error, EAGAIN);
  // One slice is with the worker, as it was when it was asked; the others are full.
  const uint64_t most = kCall + kCall + (VFIO_PCI_HOOKS_STREAM_SLICES - 1) * VFIO_PCI_HOOKS_STREAM_SLICE;
  EXPECT_EQ(written_, most);
  EXPECT_EQ(ready(stream_, 100), 0);
  EXPECT_EQ(one.board->loaded_bytes, kCall);
  one.board->loads_allowed = 2;
  EXPECT_EQ(ready(stream_, 10000), POLLOUT) << "a slice is free";
  EXPECT_EQ(call(2 * VFIO_PCI_HOOKS_STREAM_SLICE), 0);
  EXPECT_EQ(written_, most + VFIO_PCI_HOOKS_STREAM_SLICE) << "what there was room for";
  one.board->loads_allowed = kAlways;
  while (written_ < state_.size()) {
    ASSERT_EQ(ready(stream_, 10000), POLLOUT);
    error = call();
    ASSERT_TRUE(error == 0 || error == EAGAIN) << error;
  }
  EXPECT_EQ(one.board->loaded_bytes, state_.size()) << "each byte once, the last one with its write";
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(BehindTest, RL2_NoMoreIsTakenThanWasPromised) {
  constexpr size_t kRecord = 3 * kCall + kCall / 2;
  Served& one = begin(2 * kRecord, kRecord);
  never_wait(stream_);
  call_until(3 * kCall);
  EXPECT_EQ(ready(stream_), POLLOUT) << "a byte could be written";
  EXPECT_EQ(call(), EAGAIN) << "not this one";
  EXPECT_EQ(ready(stream_, 100), 0);
  EXPECT_EQ(call(), EAGAIN);
  one.board->loads_allowed = kAlways;
  EXPECT_EQ(ready(stream_, 10000), POLLOUT);
  int error = EAGAIN;
  EXPECT_TRUE(sysfs::wait_until([&] { return (error = call()) != EAGAIN; }, 10s));
  EXPECT_EQ(error, 0);
  EXPECT_GE(one.board->loaded_bytes, kRecord) << "what is behind the judgement need not be loaded";
  while (written_ < state_.size()) {
    ASSERT_EQ(ready(stream_, 10000), POLLOUT);
    error = call();
    ASSERT_TRUE(error == 0 || error == EAGAIN) << error;
  }
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(BehindTest, RL2_AnErrorBehindIsToldByTheNextWrite) {
  Served& one = begin(1 << 20, 1 << 20);
  call_until(5 * kCall);
  one.board->load_error = -EXDEV;
  one.board->loads_allowed = kAlways;
  int error = 0;
  EXPECT_TRUE(sysfs::wait_until([&] { return (error = call(1)) != 0; }, 10s));
  EXPECT_EQ(error, EXDEV);
  EXPECT_LT(written_, state_.size() / 2) << "and not by the last one";
  EXPECT_EQ(call(), EXDEV) << "and it stays";
  EXPECT_EQ(one.board->loads, 2u) << "nothing more of a refused stream reaches the worker";
  one.board->load_error = 0;
  EXPECT_FALSE(one.device().set_state(kRunning));
  ASSERT_TRUE(one.device().reset());
  expect_whole_stream(one);
}

TEST_F(BehindTest, RL2_AnErrorBehindTheLastWriteFailsTheArc) {
  Served& one = begin(1 << 20, 1 << 20);
  call_until(state_.size() - kCall);
  one.board->load_error = -EXDEV;
  one.board->loads_allowed = kAlways;
  ASSERT_TRUE(one.is_asked(one.board->loads, 2));
  const auto arc = one.device().set_state(kRunning);
  ASSERT_FALSE(arc);
  EXPECT_EQ(arc.error().code, EINVAL);
  one.board->load_error = 0;
  ASSERT_TRUE(one.device().reset());
  expect_whole_stream(one);
}

// Bytes that nobody waited for hold up nothing: neither an arc nor a reset nor a close waits for the worker.
TEST_F(BehindTest, RL1_AStreamMayEndWithBytesInItsSlices) {
  Served& one = begin(3 << 20, 3 << 20);
  enum { arc, reset, file_closed, end };
  for (int how = arc; how != end; ++how) {
    SCOPED_TRACE(how);
    const uint64_t late = one.board->late_answers;
    call_until(5 << 19);
    ASSERT_TRUE(one.is_asked(one.board->loads, one.board->loads_allowed + 1));
    EXPECT_EQ(one.board->loaded_bytes, kCall);
    if (how == file_closed) stream_.reset();
    if (how != reset) {
      EXPECT_FALSE(one.device().set_state(kRunning)) << "it is not whole";
    }
    ASSERT_TRUE(one.device().reset());
    if (stream_) {
      EXPECT_EQ(ready(stream_), POLLOUT | POLLERR);
      EXPECT_NE(call(), 0);
    }
    EXPECT_EQ(one.board->late_answers, late) << "the worker is still at it";
    expect_whole_stream(one);
    EXPECT_EQ(one.board->late_answers, late + 1) << "refused, and the session goes on";
    one.board->loads_allowed = one.board->loads + 1;
    stream_ = go(one, kResuming);
    written_ = 0;
    EXPECT_EQ(call(), 0);
  }
  EXPECT_EQ(control_.status(vf_).revoked, 0u);
}

TEST_F(BehindTest, RL1_TheCloseOfTheDeviceWaitsForNoByteBehind) {
  Served& one = begin(3 << 20, 3 << 20);
  call_until(5 << 19);
  one.guest.reset();
  EXPECT_EQ(ready(stream_), POLLOUT | POLLERR);
  EXPECT_EQ(call(), ENODEV);
  EXPECT_EQ(one.board->late_answers, 0u) << "the worker is still at it";
}

TEST_F(BehindTest, RL5_TheEndOfTheWorkerIsTheEndOfTheStream) {
  Served& one = begin(3 << 20, 3 << 20);
  call_until(5 << 19);
  one.worker.kill();
  EXPECT_EQ(ready(stream_), POLLOUT);
  EXPECT_EQ(call(), EIO);
  EXPECT_FALSE(one.device().set_state(kRunning));
  ASSERT_TRUE(one.device().reset());
}

TEST_F(BehindTest, MP3_AWorkerIsLateOnlyWithWhatIsWaitedFor) {
  constexpr uint32_t kLimitMs = 300;
  Served& one = begin(1 << 20, 1 << 20, kLimitMs);
  call_until(state_.size() - kCall);
  std::this_thread::sleep_for(std::chrono::milliseconds(4 * kLimitMs * sysfs::slowness()));
  EXPECT_EQ(control_.status(vf_).revoked, 0u);
  EXPECT_EQ(call(), ETIMEDOUT);
  EXPECT_EQ(control_.status(vf_).revoked, 1u);
  EXPECT_FALSE(one.device().set_state(kRunning));
  ASSERT_TRUE(one.device().reset());
}

// What the worker says is not believed: no stream is longer than the definition allows, none ends where more was promised.
TEST_F(BehindTest, RL1_APromiseThatIsNotKeptFailsTheStream) {
  Served& one = start();
  one.board->endless = true;
  one.board->state_bytes = 2 * kCall;
  one.board->loads_allowed = 1;
  state_ = part_of_state(0, 17 << 20);
  stream_ = go(one, kResuming);
  EXPECT_EQ(call(), 0);
  EXPECT_EQ(call(), 0) << "the worker has said that it does not end here";
  one.board->loads_allowed = kAlways;
  ASSERT_TRUE(sysfs::wait_until([&] { return one.board->loaded_bytes == 2 * kCall; }, 10s));
  std::this_thread::sleep_for(100ms);
  EXPECT_FALSE(one.device().set_state(kRunning));
  ASSERT_TRUE(one.device().reset());

  one.board->state_bytes = 17 << 20;
  stream_ = go(one, kResuming);
  written_ = 0;
  call_until(16 << 20);
  EXPECT_EQ(call(), EFBIG);
  EXPECT_FALSE(one.device().set_state(kRunning));
  ASSERT_TRUE(one.device().reset());
}

// The worker asks for the slice while it grows, over and over: no byte is lost, none comes twice.
TEST_F(BehindTest, MP2_WhatIsWrittenWhileTheWorkerTakesItComesOnce) {
  constexpr size_t kRecord = 300'001;
  Served& one = start();
  one.board->state_bytes = 40 * kRecord;
  one.board->record = kRecord;
  state_ = part_of_state(0, 40 * kRecord);
  stream_ = go(one, kResuming);
  uint32_t random = 1;
  while (written_ < state_.size()) {
    random = random * 1664525 + 1013904223;
    ASSERT_EQ(call(1 + (random >> 8) % (random >> 30 ? 5000 : 400'000)), 0);
  }
  EXPECT_EQ(one.board->loaded_bytes, state_.size());
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

// ---- not waiting

TEST_F(StreamTest, MP2_PollAndReadsThatDoNotWait) {
  Served& one = start();
  one.board->saves_allowed = kNever;
  const auto stream = go(one, kStopCopy);
  never_wait(stream);
  EXPECT_EQ(ready(stream), POLLIN) << "a read would begin something";
  EXPECT_EQ(read_some(stream, 1).error, EAGAIN);
  EXPECT_EQ(ready(stream, 100), 0);
  EXPECT_EQ(read_some(stream, 1).error, EAGAIN);
  one.board->saves_allowed = kAlways;
  std::vector<uint8_t> got;
  for (;;) {
    ASSERT_EQ(ready(stream, 10000), POLLIN);
    const Bytes piece = read_some(stream, 700);
    if (piece.error == EAGAIN) continue;
    ASSERT_EQ(piece.error, 0);
    if (piece.data.empty()) break;
    got.insert(got.end(), piece.data.begin(), piece.data.end());
  }
  EXPECT_EQ(got, part_of_state(0, one.board->state_bytes));
  EXPECT_EQ(ready(stream), POLLIN) << "the end is something to read";
  ASSERT_TRUE(one.device().set_state(kRunning));
  EXPECT_EQ(ready(stream), POLLIN | POLLERR);
}

TEST_F(StreamTest, MP2_PollAndWritesThatDoNotWait) {
  Served& one = start();
  one.board->state_bytes = 3 * VFIO_PCI_HOOKS_STREAM_SLICE;
  one.board->loads_allowed = kNever;
  const auto state = part_of_state(0, one.board->state_bytes);
  const auto stream = go(one, kResuming);
  never_wait(stream);
  EXPECT_EQ(ready(stream), POLLOUT);
  EXPECT_EQ(write_once(stream, state), EAGAIN);
  EXPECT_EQ(ready(stream, 100), 0);
  EXPECT_EQ(write_once(stream, {state.begin(), state.begin() + 1}), EINVAL) << "what was begun is repeated as it was";
  one.board->loads_allowed = kAlways;
  int error = EAGAIN;
  while (error == EAGAIN) {
    ASSERT_EQ(ready(stream, 10000), POLLOUT);
    error = write_once(stream, state);
  }
  EXPECT_EQ(error, 0);
  EXPECT_EQ(one.board->loaded_bytes, state.size()) << "each byte once";
  EXPECT_TRUE(one.board->load_matches);
  EXPECT_TRUE(one.device().set_state(kRunning));
}

TEST_F(StreamTest, RL2_ARefusalIsToldToWhoDoesNotWait) {
  Served& one = start();
  one.board->load_error = -EXDEV;
  const auto stream = go(one, kResuming);
  never_wait(stream);
  int error = EAGAIN;
  while (error == EAGAIN) {
    ASSERT_EQ(ready(stream, 10000), POLLOUT);
    error = write_once(stream, {1, 2, 3});
  }
  EXPECT_EQ(error, EXDEV);
  EXPECT_FALSE(one.device().set_state(kRunning));
}

TEST_F(StreamTest, MP3_WhoDoesNotWaitHasTheSameLimit) {
  Served& one = start(0, 300);
  one.board->saves_allowed = kNever;
  const auto stream = go(one, kStopCopy);
  never_wait(stream);
  EXPECT_EQ(read_some(stream, 1).error, EAGAIN);
  int error = EAGAIN;
  EXPECT_TRUE(sysfs::wait_until([&] { return (error = read_some(stream, 1).error) != EAGAIN; }, 10s));
  EXPECT_EQ(error, ETIMEDOUT);
  EXPECT_EQ(control_.status(vf_).revoked, 1u);
  EXPECT_TRUE(one.device().set_state(kRunning));
  one.board->saves_allowed = kAlways;
}

}  // namespace
}  // namespace hookline::kernel_test
