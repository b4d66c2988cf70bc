// SPDX-License-Identifier: Apache-2.0
//
// Which pages of a BAR the VMM touches: all of those, no other, and none is ever lost, whatever VMM, worker and device do at
// that moment. The BAR is the memory of the emulator's display; the test itself is VMM and worker.
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>
#include <thread>

#include <gmock/gmock.h>

#include "tests/kernel/fixture.hpp"
#include "tests/kernel/hand.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPages = (16 << 20) / kPage;
constexpr uint32_t kFresh = 0x5c5c5c5c;

// With the memory of the display before it.
class DisplayHand : public Hand {
 public:
  using Hand::Hand;
  void begin() {
    Hand::begin();
    memory_.emplace(map(kPages * kPage, VFIO_PCI_HOOKS_MMAP_BAR(0)), kPages * kPage);
  }
  void end() {
    memory_.reset();
    Hand::end();
  }

  // The whole call; errno.
  int touched(vfio_pci_hooks_touched ask) const {
    ask.argsz = sizeof ask;
    return call(VFIO_PCI_HOOKS_TOUCHED, &ask);
  }
  // Pages, counted from the beginning of the BAR.
  std::set<uint64_t> take(uint64_t first = 0, uint64_t pages = kPages) const {
    std::vector<uint64_t> bitmap((pages + 63) / 64, ~uint64_t{0});
    const int error = touched({0, 0, 0, 0, first * kPage, pages, reinterpret_cast<uintptr_t>(bitmap.data())});
    if (error) throw std::system_error(error, std::generic_category(), "TOUCHED");
    std::set<uint64_t> found;
    for (uint64_t i = 0; i < 64 * bitmap.size(); ++i)
      if (bitmap[i / 64] >> (i % 64) & 1) found.insert(first + i);
    return found;
  }
  int set_sizes(uint64_t initial, uint64_t stop_copy) const {
    vfio_pci_hooks_sizes sizes{sizeof sizes, 0, initial, stop_copy};
    return call(VFIO_PCI_HOOKS_SET_SIZES, &sizes);
  }
  // Answers the next request, a SAVE, with one byte of stream and these bytes left.
  void save_once(uint64_t initial, uint64_t dirty) const {
    const int32_t at = request(VFIO_PCI_HOOKS_REQ_SAVE);
    slot(at).initial_bytes = initial;
    slot(at).dirty_bytes = dirty;
    fill(at, 1);
    EXPECT_EQ(hand_over(at), 0);
  }
  void hear_events() const {
    vfio_pci_hooks_next got{};
    while (next(got, 0) == 0) {
    }
  }
  volatile uint32_t& word(uint64_t offset) const { return memory_->word(offset); }

 private:
  std::optional<vfio::Mapping> memory_;
};

class TouchedTest : public HooksTest {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    for (const auto& function : std::filesystem::directory_iterator("/sys/bus/pci/devices"))
      if (sysfs::read(function.path() / "device").value_or("") == "0x1111") display_ = function.path().filename();
    ASSERT_FALSE(display_.empty()) << "needs tests/vm/run --device bochs-display";
  }
  void TearDown() override {
    worker_.reset();
    guest_.reset();
    if (!display_.empty()) {
      EXPECT_TRUE(sysfs::release(display_));
      control_.undefine(display_);
    }
    HooksTest::TearDown();
  }

  Definition definition(uint32_t flags = VFIO_PCI_HOOKS_DEFINE_MIGRATION) const {
    Definition d;
    d.address = display_;
    d.vendor = 0x1234;
    d.device = 0x1111;
    d.flags = flags;
    d.max_state = 64 << 20;
    d.access_limit_ms = d.state_limit_ms = 10000;
    d.reset = {{VFIO_PCI_HOOKS_STEP_FILL, 0, 4, 0, 0, kPages * kPage, kFresh, 0}};
    return d;
  }
  void start(const Definition& d) {
    define_and_bind(d);
    worker_.emplace(control_, display_);
    guest_.emplace(*container_, display_);
    worker_->begin();
  }
  void start() { start(definition()); }
  vfio::Mapping map() const { return std::move(*guest_->device.map(0, 0, kPages * kPage)); }

  void* map_of(size_t size, uint64_t offset) const {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, guest_->device.fd(), static_cast<off_t>(offset));
    if (at == MAP_FAILED) raise("mmap of the BAR");
    return at;
  }
  static void* move(void* from, size_t size) {
    void* place = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (::mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place) raise("mremap");
    return place;
  }

  std::string display_;
  std::optional<Guest> guest_;
  std::optional<DisplayHand> worker_;
};

TEST_F(TouchedTest, MP2_EveryTouchedPageIsToldOnceAndNoOther) {
  start();
  const vfio::Mapping memory = map();
  memory.word(3 * kPage) = 1;
  EXPECT_EQ(worker_->take().size(), kPages) << "before somebody asked, nobody kept track";
  EXPECT_THAT(worker_->take(), IsEmpty());
  memory.word(0) = 1;
  memory.word(5 * kPage + 8) = 1;
  memory.word(5 * kPage + 16) = 1;
  memory.word(70 * kPage - 4) = 1;
  EXPECT_NE(memory.word(100 * kPage), 1u);
  memory.word((kPages - 1) * kPage) = 1;
  EXPECT_THAT(worker_->take(), ElementsAre(0, 5, 69, 100, kPages - 1));
  EXPECT_THAT(worker_->take(), IsEmpty());
  memory.word(5 * kPage) = 2;
  EXPECT_THAT(worker_->take(), ElementsAre(5)) << "mapped again, and told again";
}

TEST_F(TouchedTest, MP2_ReadAndWriteCountTheWorkersOwnAccessesDoNot) {
  start();
  worker_->take();
  const std::array<std::byte, 3 * kPage> across{};
  ASSERT_TRUE(guest_->device.write(0, 10 * kPage + 100, std::span<const std::byte>(across)));
  uint32_t value = 0;
  ASSERT_EQ(guest_->read32(20 * kPage, value), 0);
  worker_->word(30 * kPage) = 1;
  ASSERT_EQ(worker_->write32(31 * kPage, 1), 0);
  EXPECT_THAT(worker_->take(), ElementsAre(10, 11, 12, 13, 20));
}

TEST_F(TouchedTest, MP2_ARangeIsTakenAndTheRestWaits) {
  start();
  const vfio::Mapping memory = map();
  EXPECT_EQ(worker_->take(64, 100).size(), 100u);
  EXPECT_EQ(worker_->take(0, 128).size(), 64u) << "those that were not told yet";
  for (const uint64_t page : {1, 63, 64, 65, 200}) memory.word(page * kPage) = 1;
  EXPECT_THAT(worker_->take(60, 5), ElementsAre(63, 64));
  EXPECT_THAT(worker_->take(0, 128), ElementsAre(1, 65));
}

// However a mapping comes about, and wherever it goes.
TEST_F(TouchedTest, MP2_MappingsThatAreMadeMovedAndInheritedAreSeen) {
  start();
  std::optional<vfio::Mapping> first = map();
  const vfio::Mapping second = map();
  worker_->take();
  second.word(1 * kPage) = 1;
  first->word(2 * kPage) = 1;
  first.reset();
  EXPECT_THAT(worker_->take(), ElementsAre(1, 2));

  void* moved = map_of(kPages * kPage, 0);
  auto* words = static_cast<volatile uint32_t*>(moved);
  words[3 * kPage / 4] = 1;
  EXPECT_THAT(worker_->take(), ElementsAre(3));
  words[3 * kPage / 4] = 2;
  void* again = move(moved, kPages * kPage);
  EXPECT_THAT(worker_->take(), ElementsAre(3));
  static_cast<volatile uint32_t*>(again)[3 * kPage / 4] = 3;
  EXPECT_THAT(worker_->take(), ElementsAre(3)) << "page tables that moved along were zapped, too";
  ::munmap(again, kPages * kPage);

  second.word(4 * kPage) = 1;
  int order[2], done[2];
  ASSERT_EQ(::pipe(order) | ::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    while (::read(order[0], &byte, 1) == 1 && byte != 'e') {
      second.word(4 * kPage) = 7;
      if (::write(done[1], &byte, 1) != 1) break;
    }
    ::_exit(0);
  }
  EXPECT_THAT(worker_->take(), ElementsAre(4));
  const auto child_writes = [&] {
    char byte = 'w';
    ASSERT_EQ(::write(order[1], &byte, 1), 1);
    ASSERT_EQ(::read(done[0], &byte, 1), 1);
  };
  for (int i = 0; i < 3; ++i) {
    child_writes();
    EXPECT_THAT(worker_->take(), ElementsAre(4)) << "the child's page table, time " << i;
  }
  ASSERT_EQ(::write(order[1], "e", 1), 1);
  ::waitpid(child, nullptr, 0);
  for (const int fd : {order[0], order[1], done[0], done[1]}) ::close(fd);
}

// The oracle: who copies what is told, as often as it likes, has in the end what is there.
TEST_F(TouchedTest, MP2_NoPageIsEverMissedWhileManyWrite) {
  start();
  std::atomic<bool> over = false;
  std::atomic<uint64_t> writes = 0;
  const vfio::Mapping shared = map();
  const auto hammer = [&](unsigned seed, auto&& write) {
    return std::thread([&over, &writes, seed, write] {
      std::mt19937 random(seed);
      while (!over) {
        // Few pages often, and all of them now and then.
        const uint64_t page = random() % 4 ? random() % 16 : random() % kPages;
        write(page * kPage + random() % (kPage / 4) * 4, static_cast<uint32_t>(random()));
        ++writes;
      }
    });
  };
  std::thread writers[] = {
      hammer(1, [&](uint64_t at, uint32_t value) { shared.word(at) = value; }),
      hammer(2, [&](uint64_t at, uint32_t value) { shared.word(at) = value; }),
      // By calls.
      hammer(3, [&](uint64_t at, uint32_t value) { EXPECT_EQ(guest_->write32(at, value), 0); }),
      // By mappings that come, move and go.
      hammer(4,
             [&](uint64_t at, uint32_t value) {
               void* page = map_of(kPage, at / kPage * kPage);
               static_cast<volatile uint32_t*>(page)[at % kPage / 4] = ~value;
               page = move(page, kPage);
               static_cast<volatile uint32_t*>(page)[at % kPage / 4] = value;
               ::munmap(page, kPage);
             }),
  };

  std::vector<uint32_t> copy(kPages * kPage / 4);
  uint64_t told = 0;
  const auto round = [&](uint64_t first, uint64_t pages) {
    for (const uint64_t page : worker_->take(first, pages)) {
      ++told;
      for (uint64_t i = page * kPage; i < (page + 1) * kPage; i += 4) copy[i / 4] = worker_->word(i);
    }
  };
  const auto until = std::chrono::steady_clock::now() + 8s;
  int rounds = 0;
  for (; std::chrono::steady_clock::now() < until; ++rounds) {
    round(0, 16);
    round(16, 48);
    if (rounds % 4 == 0) round(64, kPages - 64);
  }
  over = true;
  for (std::thread& writer : writers) writer.join();
  round(0, kPages);
  EXPECT_THAT(worker_->take(), IsEmpty());

  EXPECT_GT(writes, 1000u);
  EXPECT_GT(rounds, 3);
  uint64_t missed = 0;
  for (uint64_t i = 0; i < copy.size(); ++i) missed += copy[i] != worker_->word(4 * i);
  EXPECT_EQ(missed, 0u) << "words of " << copy.size() << " after " << writes << " writes, " << rounds << " rounds, " << told
                        << " pages";
  RecordProperty("rounds", rounds);
  RecordProperty("pages_told", std::to_string(told));
}

TEST_F(TouchedTest, MP2_AResetTouchesEverythingAndTheProgramScrubs) {
  start();
  const vfio::Mapping memory = map();
  worker_->take();
  memory.word(77 * kPage) = 1;
  ASSERT_TRUE(guest_->device.reset());
  ASSERT_TRUE(guest_->device.enable_memory_and_dma());
  worker_->hear_events();
  EXPECT_EQ(worker_->take().size(), kPages);
  EXPECT_THAT(worker_->take(), IsEmpty());
  EXPECT_EQ(memory.word(77 * kPage), kFresh);
  EXPECT_EQ(memory.word((kPages - 1) * kPage), kFresh);
  EXPECT_THAT(worker_->take(), ElementsAre(77, kPages - 1));
}

// One that begins and ends in the middle of 8 bytes, with memory decoding off as well.
TEST_F(TouchedTest, RL1_AProgramOfAnyKindFillsWhatItSaysAndNothingElse) {
  constexpr uint32_t kStopped = 0x11223344, kStarted = 0x55667788;
  const auto inner = [](uint32_t value) {
    return vfio_pci_hooks_step{VFIO_PCI_HOOKS_STEP_FILL, 0, 4, 0, 4, kPages * kPage - 8, value, 0};
  };
  Definition d = definition();
  d.stop = {inner(kStopped)};
  d.start = {inner(kStarted)};
  start(d);
  for (const auto& [state, value] : {std::pair{VFIO_DEVICE_STATE_STOP, kStopped}, {VFIO_DEVICE_STATE_RUNNING, kStarted}}) {
    ASSERT_TRUE(guest_->device.write<uint16_t>(VFIO_PCI_CONFIG_REGION_INDEX, 4, 0));
    ASSERT_TRUE(guest_->device.set_state(state));
    ASSERT_TRUE(guest_->device.enable_memory_and_dma());
    const vfio::Mapping memory = map();
    EXPECT_EQ(memory.word(0), kFresh);
    EXPECT_EQ(memory.word(kPages * kPage - 4), kFresh);
    uint64_t wrong = 0;
    for (uint64_t at = 4; at < kPages * kPage - 4; at += 4) wrong += memory.word(at) != value;
    EXPECT_EQ(wrong, 0u) << "words in state " << state;
  }
}

// Resets and takes that meet: each waits for locks of the other's.
TEST_F(TouchedTest, MP5_ResetsFaultsAndTakesDoNotWaitForEachOther) {
  Definition d = definition();
  d.reset = {{VFIO_PCI_HOOKS_STEP_FILL, 0, 4, 0, 0, 64, kFresh, 0}};
  start(d);
  std::atomic<bool> over = false;
  std::thread vmm([&] {
    const std::array<std::byte, 16> bytes{};
    while (!over) {
      EXPECT_TRUE(guest_->device.reset());
      EXPECT_TRUE(guest_->device.enable_memory_and_dma());
      for (uint64_t page = 0; page < 8; ++page) EXPECT_TRUE(guest_->device.write(0, page * kPage, std::span<const std::byte>(bytes)));
    }
  });
  const auto until = std::chrono::steady_clock::now() + 3s;
  while (std::chrono::steady_clock::now() < until) {
    worker_->hear_events();
    worker_->take();
  }
  over = true;
  vmm.join();
}

TEST_F(TouchedTest, RL1_ANewSessionKnowsNothingAndAnOldOneHearsNothing) {
  start();
  const vfio::Mapping memory = map();
  worker_->take();
  worker_->end();
  memory.word(9 * kPage) = 1;
  worker_->begin();
  EXPECT_EQ(worker_->take().size(), kPages);
  memory.word(9 * kPage) = 2;
  EXPECT_THAT(worker_->take(), ElementsAre(9));
}

TEST_F(TouchedTest, RL1_ANewOpenIsNotTrackedAndAClosedDeviceIsNobodys) {
  start();
  {
    const vfio::Mapping memory = map();
    worker_->take();
    memory.word(9 * kPage) = 1;
  }
  guest_.reset();
  std::vector<uint64_t> bitmap(kPages / 64);
  EXPECT_EQ(worker_->touched({0, 0, 0, 0, 0, kPages, reinterpret_cast<uintptr_t>(bitmap.data())}), ESHUTDOWN);
  worker_->end();
  guest_.emplace(*container_, display_);
  worker_->begin();
  const vfio::Mapping memory = map();
  EXPECT_EQ(worker_->take().size(), kPages);
  memory.word(8 * kPage) = 1;
  EXPECT_THAT(worker_->take(), ElementsAre(8));
}

TEST_F(TouchedTest, RL3_WhatIsNoQuestionIsRefusedAndLosesNothing) {
  start();
  const vfio::Mapping memory = map();
  worker_->take();
  memory.word(6 * kPage) = 1;
  std::vector<uint64_t> bitmap(kPages / 64);
  const auto at = reinterpret_cast<uintptr_t>(bitmap.data());
  const struct {
    vfio_pci_hooks_touched ask;
    int error;
  } wrong[] = {
      {{0, 1, 0, 0, 0, 1, at}, EINVAL},
      {{0, 0, 0, 1, 0, 1, at}, EINVAL},
      {{0, 0, 1, 0, 0, 1, at}, EINVAL},
      {{0, 0, 7, 0, 0, 1, at}, EINVAL},
      {{0, 0, ~0u, 0, 0, 1, at}, EINVAL},
      {{0, 0, 0, 0, 100, 1, at}, EINVAL},
      {{0, 0, 0, 0, 0, 0, at}, EINVAL},
      {{0, 0, 0, 0, 0, kPages + 1, at}, EINVAL},
      {{0, 0, 0, 0, kPages * kPage, 1, at}, EINVAL},
      {{0, 0, 0, 0, kPage, ~uint64_t{0}, at}, EINVAL},
      {{0, 0, 0, 0, ~uint64_t{0} - kPage + 1, 2, at}, EINVAL},
  };
  for (const auto& [ask, error] : wrong) EXPECT_EQ(worker_->touched(ask), error) << ask.offset << "+" << ask.pages;
  EXPECT_THAT(worker_->take(), ElementsAre(6));
  memory.word(6 * kPage) = 1;
  EXPECT_EQ(worker_->touched({0, 0, 0, 0, 0, kPages, 8}), EFAULT);
  EXPECT_EQ(worker_->take().size(), kPages) << "what nobody was told is told again";
}

TEST_F(TouchedTest, CH1_WhoDoesNotOwnMigrationIsNotTracked) {
  Definition d = definition(0);
  d.max_state = 0;
  start(d);
  std::vector<uint64_t> bitmap(kPages / 64);
  EXPECT_EQ(worker_->touched({0, 0, 0, 0, 0, kPages, reinterpret_cast<uintptr_t>(bitmap.data())}), EOPNOTSUPP);
}

TEST_F(TouchedTest, MP5_TouchedPagesCountAsDirtyUntilTheWorkerSaysWhatIsLeft) {
  start();
  const vfio::Mapping memory = map();
  ASSERT_EQ(worker_->set_sizes(16 << 20, 18 << 20), 0);
  EXPECT_EQ(guest_->device.data_size().value(), uint64_t{18} << 20);
  auto stream = guest_->device.set_state(VFIO_DEVICE_STATE_PRE_COPY);
  ASSERT_TRUE(stream);
  worker_->take();
  EXPECT_EQ(vfio::precopy_info(*stream)->dirty_bytes, 0u) << "pages nobody had asked about are the initial bytes";
  EXPECT_EQ(guest_->device.data_size().value(), uint64_t{18} << 20);

  const auto answer = [&](uint64_t initial, uint64_t dirty) {
    std::thread answering([&] { worker_->save_once(initial, dirty); });
    char byte = 0;
    EXPECT_EQ(::read(stream->get(), &byte, 1), 1);
    answering.join();
  };
  answer(0, 0);
  EXPECT_EQ(vfio::precopy_info(*stream)->initial_bytes, 0u);
  EXPECT_EQ(vfio::precopy_info(*stream)->dirty_bytes, 0u);
  EXPECT_EQ(guest_->device.data_size().value(), uint64_t{2} << 20);

  for (uint64_t page = 0; page < 256; ++page) memory.word(page * kPage) = 1;
  EXPECT_EQ(vfio::precopy_info(*stream)->dirty_bytes, uint64_t{1} << 20) << "the kernel's own count";
  EXPECT_EQ(guest_->device.data_size().value(), (uint64_t{3} << 20) + 65536);
  worker_->take();
  memory.word(1000 * kPage) = 1;
  EXPECT_EQ(vfio::precopy_info(*stream)->dirty_bytes, 257 * kPage) << "taken, and the worker has said nothing yet";
  answer(0, 5000);
  EXPECT_EQ(vfio::precopy_info(*stream)->dirty_bytes, 5000 + kPage) << "what it says, and what was touched since it asked";
}

}  // namespace
}  // namespace hookline::kernel_test
