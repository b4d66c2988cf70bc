// SPDX-License-Identifier: Apache-2.0
//
// A worker that watches slot 0 in place of sleeping in NEXT, and whatever comes between it and the thread of the VMM. The test
// itself is the worker.
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <iostream>
#include <random>
#include <semaphore>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/kernel/fixture.hpp"
#include "tests/kernel/hand.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

class Watcher : public Hand {
 public:
  using Hand::Hand;

  /// NEXT with NEXT_WATCH; errno.
  int watch(vfio_pci_hooks_next& next, int32_t answered = VFIO_PCI_HOOKS_NO_SLOT,
            uint32_t flags = VFIO_PCI_HOOKS_NEXT_WATCH) const {
    next = {};
    next.argsz = sizeof next;
    next.flags = flags;
    next.answered = answered;
    next.timeout_ms = -1;  // not looked at
    return call(VFIO_PCI_HOOKS_NEXT, &next);
  }
  /// Until there is nothing more to tell; events are heard on the way.
  void begin_to_watch(int32_t answered = VFIO_PCI_HOOKS_NO_SLOT) const {
    vfio_pci_hooks_next got{};
    do {
      ASSERT_EQ(watch(got, answered), 0);
      ASSERT_NE(got.what, uint32_t{VFIO_PCI_HOOKS_NEXT_REQUEST});
      answered = VFIO_PCI_HOOKS_NO_SLOT;
    } while (got.what != VFIO_PCI_HOOKS_NEXT_WATCHING);
    EXPECT_EQ(seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_IDLE});
  }
  uint32_t seen() const { return word().load(std::memory_order_acquire); }
  bool sees(uint32_t what, std::chrono::milliseconds limit = 5000ms) const {
    return sysfs::wait_until([&] { return seen() == what; }, limit);
  }
  bool sees_request() const {
    constexpr uint32_t kLooksPerTime = 4096;  // what time it is may cost more than the kernel waits for an answer
    const auto end = std::chrono::steady_clock::now() + 5s;
    uint32_t now = seen();
    for (uint32_t looks = 1; now == VFIO_PCI_HOOKS_WATCH_IDLE || now == VFIO_PCI_HOOKS_WATCH_ANSWERED; now = seen())
      if (looks++ % kLooksPerTime == 0 && std::chrono::steady_clock::now() > end) return false;
    return now == VFIO_PCI_HOOKS_WATCH_REQUEST;
  }
  /// Waits for a request and takes it; false: NEXT tells it, or something else.
  bool takes() const {
    if (!sees_request()) return false;
    uint32_t request = VFIO_PCI_HOOKS_WATCH_REQUEST;
    return word().compare_exchange_strong(request, VFIO_PCI_HOOKS_WATCH_TAKEN);
  }
  /// The answer that fill() has written; false: it goes by NEXT.
  bool answered() const {
    uint32_t taken = VFIO_PCI_HOOKS_WATCH_TAKEN;
    return word().compare_exchange_strong(taken, VFIO_PCI_HOOKS_WATCH_ANSWERED);
  }
  void fill_value(uint32_t value, int32_t at = 0) const {
    fill(at, slot(at).length);
    std::memcpy(slot(at).data, &value, sizeof value);
  }
  void scribble(uint32_t value) const { word().store(value); }
  using Hand::slot;

 private:
  std::atomic_ref<uint32_t> word() const { return std::atomic_ref<uint32_t>(slot(0).watch); }
};

// A thread of the VMM stays awake only where nothing else wants its CPU.
void run_on(std::initializer_list<int> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  ASSERT_EQ(::sched_setaffinity(0, sizeof set, &set), 0);
}
constexpr int kWorkerCpu = 0, kVmmCpu = 1;

/// Takes the CPU of the VMM's threads from them, in the middle of a system call, too.
class Intruder {
 public:
  Intruder() : thread_([this] { run(); }) {}
  ~Intruder() {
    keeps_ = false;
    over_ = true;
    go_.release();
    thread_.join();
  }
  /// Returns when it has the CPU, and keeps it until give_back(), or for most of a second: then the kernel lets others run.
  void take() {
    keeps_ = true;
    go_.release();
    while (!has_) {
    }
  }
  void give_back() {
    keeps_ = false;
    while (has_) {
    }
  }

 private:
  void run() {
    run_on({kVmmCpu});
    const sched_param priority{.sched_priority = 1};
    EXPECT_EQ(::sched_setscheduler(0, SCHED_FIFO, &priority), 0);
    for (go_.acquire(); !over_; go_.acquire()) {
      has_ = true;
      while (keeps_) {
      }
      has_ = false;
    }
  }

  std::binary_semaphore go_{0};
  std::atomic<bool> keeps_{false}, has_{false}, over_{false};
  std::thread thread_;
};

class WatchTest : public HooksTest {
 protected:
  void start(uint32_t access_limit_ms = 10000, uint32_t flags = 0) {
    Definition definition = migratable(vf_);
    definition.access_limit_ms = access_limit_ms;
    definition.flags |= flags;
    define_and_bind(definition);
    worker_.emplace(control_, definition.address);
    guest_ = std::make_unique<Guest>(*container_, definition.address);
    worker_->begin();
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    run_on({kWorkerCpu, kVmmCpu});
    HooksTest::TearDown();
  }
  /// What a thread of the VMM reads of the trapped register.
  std::thread vcpu(uint32_t& value, int& error) const {
    return std::thread([this, &value, &error] {
      run_on({kVmmCpu});
      error = guest_->read32(kTrapped, value);
    });
  }
  vfio_pci_hooks_status status() const { return control_.status(vf_); }
  /// Has a thread of `read` ask until a request was taken in time: a busy host may keep the worker from its CPU, and then NEXT
  /// tells it.
  template <typename Read>
  auto taken(const Read& read) {
    run_on({kWorkerCpu});
    const auto end = std::chrono::steady_clock::now() + 30s;
    while (std::chrono::steady_clock::now() < end) {
      worker_->begin_to_watch();
      auto vmm = read();
      if (worker_->takes()) return vmm;
      EXPECT_EQ(worker_->answer(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0), 0);
      vmm.join();
    }
    throw std::runtime_error("the worker never was in time");
  }

  /// A request that stands in the word, while its thread of the VMM, which looks at the word, is kept from going on.
  struct Held {
    Intruder intruder;
    uint32_t value = 0;
    int error = -1;
    uint32_t late = 0;  ///< requests of before, whose thread could not be caught
    std::thread vmm;
    void let_go() {
      intruder.give_back();
      vmm.join();
      EXPECT_EQ(error, 0);
    }
  };
  void hold(Held& held) {
    run_on({kWorkerCpu});
    const auto end = std::chrono::steady_clock::now() + 30s;
    for (; std::chrono::steady_clock::now() < end; ++held.late) {
      worker_->begin_to_watch();
      held.vmm = vcpu(held.value, held.error);
      if (worker_->sees_request()) {
        held.intruder.take();
        if (worker_->seen() == VFIO_PCI_HOOKS_WATCH_REQUEST) return;
        held.intruder.give_back();
      }
      EXPECT_EQ(worker_->answer(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0), 0);
      held.vmm.join();
    }
    throw std::runtime_error("the thread of the VMM never was there in time");
  }
  void hold_answer(Held& held, uint32_t value) {
    hold(held);
    EXPECT_TRUE(worker_->takes());
    worker_->fill_value(value);
    EXPECT_TRUE(worker_->answered());
  }
  /// What NEXT tells is in slot 0.
  void answer_by_next(uint32_t value) {
    EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0);
    worker_->fill_value(value);
    EXPECT_EQ(worker_->hand_over(0), 0);
  }
  bool is_incomplete() const { return (status().flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE) != 0; }

  std::optional<Watcher> worker_;
  std::unique_ptr<Guest> guest_;
};

// No NEXT between two of them, and both directions.
TEST_F(WatchTest, CH2_AccessesAreAnsweredByTheWord) {
  start();
  constexpr uint32_t kTimes = 200;
  run_on({kWorkerCpu});
  std::thread vmm([&] {
    run_on({kVmmCpu});
    for (uint32_t i = 0; i < kTimes; ++i) {
      uint32_t value = 0;
      EXPECT_EQ(guest_->write32(kTrapped, i), 0);
      EXPECT_EQ(guest_->read32(kTrapped, value), 0);
      EXPECT_EQ(value, i + 1);
    }
  });
  uint32_t by_word = 0, done = 0, written = 0;
  const auto carry_out = [&](int32_t at) {
    const vfio_pci_hooks_slot& slot = worker_->slot(at);
    if (slot.op == VFIO_PCI_HOOKS_REQ_WRITE) std::memcpy(&written, slot.data, sizeof written);
    worker_->fill_value(written + 1, at);
    ++done;
  };
  // A busy host may take the processor from one of the two: then NEXT tells, and it begins anew.
  int32_t answered = VFIO_PCI_HOOKS_NO_SLOT;
  while (done < 2 * kTimes) {
    vfio_pci_hooks_next got{};
    ASSERT_EQ(worker_->watch(got, std::exchange(answered, VFIO_PCI_HOOKS_NO_SLOT)), 0);
    if (got.what == VFIO_PCI_HOOKS_NEXT_REQUEST) carry_out(answered = got.slot);
    if (got.what != VFIO_PCI_HOOKS_NEXT_WATCHING) continue;
    while (done < 2 * kTimes && worker_->takes()) {
      carry_out(0);
      if (!worker_->answered()) {
        answered = 0;
        break;
      }
      ++by_word;
    }
  }
  if (answered != VFIO_PCI_HOOKS_NO_SLOT) {
    EXPECT_EQ(worker_->hand_over(answered), 0);
  }
  vmm.join();
  EXPECT_GT(by_word, 0U);
  EXPECT_EQ(status().accesses, 2 * kTimes);
  EXPECT_EQ(status().missed, 0U);
}

TEST_F(WatchTest, RL5_ARequestThatNobodySawIsToldByNext) {
  start();
  worker_->begin_to_watch();
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = vcpu(value, error);
  ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL)) << "the thread of the VMM does not sleep";
  EXPECT_TRUE(worker_->is_ready());
  EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0);
  EXPECT_FALSE(worker_->is_ready());
  vfio_pci_hooks_next again{};
  EXPECT_EQ(worker_->next(again, 50), ETIME) << "it is told once";
  worker_->fill_value(0x1234);
  EXPECT_EQ(worker_->hand_over(0), 0);
  vmm.join();
  EXPECT_EQ(error, 0);
  EXPECT_EQ(value, 0x1234U);
  EXPECT_EQ(status().accesses, 1U);
}

// One thread of the worker carries it out, another one watches.
TEST_F(WatchTest, RL2_ARequestThatWasToldIsLeftAloneByTheNext) {
  start();
  std::array<uint32_t, 2> values{};
  std::array<int, 2> errors{-1, -1};
  std::thread vmm = vcpu(values[0], errors[0]);
  EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0);
  worker_->begin_to_watch();
  std::thread other = vcpu(values[1], errors[1]);
  EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  const int32_t at = worker_->request(VFIO_PCI_HOOKS_REQ_READ);
  EXPECT_NE(at, 0);
  worker_->fill_value(2, at);
  EXPECT_EQ(worker_->hand_over(at), 0);
  worker_->fill_value(1);
  EXPECT_EQ(worker_->hand_over(0), 0);
  vmm.join();
  other.join();
  EXPECT_THAT(errors, testing::Each(0));
  EXPECT_THAT(values, testing::ElementsAre(1U, 2U));
}

// All slots are taken, and one more waits: it is the next one's when a thread of the VMM is killed.
TEST_F(WatchTest, RL5_ASlotThatIsFreeAgainEndsTheWatch) {
  start();
  const pid_t killed = ::fork();
  if (killed == 0) {
    uint32_t value = 0;
    (void)guest_->read32(kTrapped, value);
    ::_exit(0);
  }
  EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0);
  std::array<uint32_t, VFIO_PCI_HOOKS_SLOTS> values{};
  std::array<int, VFIO_PCI_HOOKS_SLOTS> errors{};
  errors.fill(-1);
  std::vector<std::thread> vmm;
  std::vector<int32_t> told;
  while (told.size() < VFIO_PCI_HOOKS_SLOTS - 1) {
    vmm.push_back(vcpu(values[vmm.size()], errors[vmm.size()]));
    told.push_back(worker_->request(VFIO_PCI_HOOKS_REQ_READ));
  }
  worker_->begin_to_watch();
  vmm.push_back(vcpu(values[vmm.size()], errors[vmm.size()]));
  EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  EXPECT_FALSE(worker_->is_ready()) << "there is no slot for it";
  worker_->begin_to_watch();
  ::kill(killed, SIGKILL);
  EXPECT_EQ(::waitpid(killed, nullptr, 0), killed);
  EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  told.push_back(worker_->request(VFIO_PCI_HOOKS_REQ_READ));
  EXPECT_EQ(told.back(), 0);
  for (const int32_t at : told) EXPECT_EQ(worker_->answer(at, VFIO_PCI_HOOKS_PASS), 0);
  for (std::thread& thread : vmm) thread.join();
  EXPECT_THAT(errors, testing::Each(0));
}

TEST_F(WatchTest, RL5_AnAnswerAfterTheThreadWentToSleepGoesByNext) {
  start();
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = taken([&] { return vcpu(value, error); });
  ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->next(got, 50), ETIME) << "what was taken is not told";
  worker_->fill_value(0x1234);
  EXPECT_FALSE(worker_->answered());
  EXPECT_EQ(worker_->hand_over(0), 0);
  vmm.join();
  EXPECT_EQ(value, 0x1234U);
}

TEST_F(WatchTest, RL2_AnEventEndsTheWatchAndIsToldBeforeTheNextRequest) {
  start();
  worker_->begin_to_watch();
  ASSERT_TRUE(guest_->device.reset());
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  ASSERT_TRUE(guest_->device.enable_memory_and_dma());
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = vcpu(value, error);
  std::this_thread::sleep_for(20ms);
  vfio_pci_hooks_next got{};
  ASSERT_EQ(worker_->watch(got), 0);
  EXPECT_EQ(got.what, uint32_t{VFIO_PCI_HOOKS_NEXT_EVENT});
  EXPECT_EQ(got.event, uint32_t{VFIO_PCI_HOOKS_EVENT_RESET});
  while (worker_->watch(got) == 0 && got.what == VFIO_PCI_HOOKS_NEXT_EVENT) {
  }
  EXPECT_EQ(got.what, uint32_t{VFIO_PCI_HOOKS_NEXT_REQUEST});
  worker_->fill_value(1);
  worker_->begin_to_watch(got.slot);
  vmm.join();
  EXPECT_EQ(error, 0);
}

TEST_F(WatchTest, RL2_AChangeOfTheStateEndsTheWatch) {
  start();
  worker_->begin_to_watch();
  ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_STOP));
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
}

// The request was given before the reset, and nobody has begun with it.
TEST_F(WatchTest, RL2_ARequestThatIsToldAfterAResetIsNoMissedAccess) {
  start();
  worker_->begin_to_watch();
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = vcpu(value, error);
  ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  ASSERT_TRUE(guest_->device.reset());
  ASSERT_TRUE(guest_->device.enable_memory_and_dma());
  vfio_pci_hooks_next got{};
  ASSERT_EQ(worker_->next(got, 1000), 0);
  EXPECT_EQ(got.what, uint32_t{VFIO_PCI_HOOKS_NEXT_EVENT}) << "events come first";
  answer_by_next(1);
  vmm.join();
  EXPECT_FALSE(is_incomplete());
}

// And one that it has begun with may have had its effect on the device after the reset.
TEST_F(WatchTest, RL2_AnAnswerOverAResetDoesNotCountAsSeen) {
  start();
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = taken([&] { return vcpu(value, error); });
  ASSERT_TRUE(guest_->device.reset());
  ASSERT_TRUE(guest_->device.enable_memory_and_dma());
  worker_->fill_value(1);
  EXPECT_FALSE(worker_->answered());
  EXPECT_EQ(worker_->hand_over(0), 0);
  vmm.join();
  EXPECT_TRUE(is_incomplete());
}

TEST_F(WatchTest, RL5_AWrongAnswerIsNoneAndTheRequestIsToldAsItWas) {
  start();
  for (const int32_t wrong : {-VFIO_PCI_HOOKS_SLOTS * 100, 5}) {
    SCOPED_TRACE(wrong);
    uint32_t value = 0;
    int error = -1;
    std::thread vmm = taken([&] { return vcpu(value, error); });
    worker_->fill(0, sizeof value, wrong);
    worker_->slot(0).offset = 0;
    if (worker_->answered()) {
      ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
      EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0);
      EXPECT_EQ(worker_->slot(0).offset, kTrapped);
    } else {
      EXPECT_EQ(worker_->hand_over(0), EINVAL) << "it went by NEXT, and can be put right";
    }
    worker_->fill_value(0x77);
    EXPECT_EQ(worker_->hand_over(0), 0);
    vmm.join();
    EXPECT_EQ(value, 0x77U);
  }
}

TEST_F(WatchTest, RL5_ASilentWatcherIsRevokedAndItsWordReadsAsCall) {
  start(300, VFIO_PCI_HOOKS_DEFINE_FAIL);
  worker_->begin_to_watch();
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), EIO);
  EXPECT_EQ(status().revoked, 1U);
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->watch(got), ECANCELED);
  worker_->end();
  worker_->begin();
  worker_->begin_to_watch();
}

// What it had is the next one's, and the guest waits no longer than for any other.
TEST_F(WatchTest, RL5_TheSuccessorGetsWhatTheWatcherHad) {
  start();
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = taken([&] { return vcpu(value, error); });
  worker_->end();
  worker_->begin();
  answer_by_next(0x99);
  vmm.join();
  EXPECT_EQ(value, 0x99U);
}

TEST_F(WatchTest, RL2_NextTakesAnAnswerThatStandsInTheWord) {
  start();
  Held held;
  hold_answer(held, 0x1111);
  worker_->begin_to_watch();
  EXPECT_EQ(status().accesses, 1 + held.late);
  held.let_go();
  EXPECT_EQ(held.value, 0x1111U);
}

TEST_F(WatchTest, RL5_NextRefusesAWrongAnswerThatStandsInTheWordAndTellsTheRequest) {
  start();
  Held held;
  hold(held);
  EXPECT_TRUE(worker_->takes());
  worker_->fill(0, sizeof(uint32_t), 5);
  EXPECT_TRUE(worker_->answered());
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->watch(got), EINVAL);
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  answer_by_next(0x2222);
  held.let_go();
  EXPECT_EQ(held.value, 0x2222U);
}

// By the word and by NEXT: one of them counts, and no other thread goes on watching an answer that was taken.
TEST_F(WatchTest, RL5_AnAnswerThatStandsInTheWordMayBeHandedOverByNext) {
  start();
  Held held;
  hold_answer(held, 0x3333);
  EXPECT_EQ(worker_->hand_over(0), 0);
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  EXPECT_EQ(worker_->hand_over(0), EINVAL);
  held.let_go();
  EXPECT_EQ(held.value, 0x3333U);
}

// A reset ends the watch. What was not taken is carried out after it, what was taken may have been before and after, and what was
// answered was before.
TEST_F(WatchTest, RL2_AResetWhileARequestStandsInTheWord) {
  start();
  Held held;
  vfio_pci_hooks_next got{};
  const auto reset = [&] {
    ASSERT_TRUE(guest_->device.reset());
    EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
    ASSERT_TRUE(guest_->device.enable_memory_and_dma());
    EXPECT_EQ(worker_->next(got, 1000), 0);
    EXPECT_EQ(got.what, uint32_t{VFIO_PCI_HOOKS_NEXT_EVENT});
  };
  hold(held);
  reset();
  answer_by_next(0x4444);
  held.let_go();
  EXPECT_EQ(held.value, 0x4444U);
  EXPECT_FALSE(is_incomplete());

  hold(held);
  EXPECT_TRUE(worker_->takes());
  reset();
  EXPECT_FALSE(worker_->is_asked());
  worker_->fill_value(0x5555);
  EXPECT_EQ(worker_->hand_over(0), 0);
  held.let_go();
  EXPECT_EQ(held.value, 0x5555U);
  EXPECT_TRUE(is_incomplete());

  hold_answer(held, 0x6666);
  reset();
  EXPECT_FALSE(worker_->is_asked());
  held.let_go();
  EXPECT_EQ(held.value, 0x6666U);
  EXPECT_FALSE(is_incomplete());
}

TEST_F(WatchTest, RL2_AnotherRequestTakesAnAnswerThatStandsInTheWord) {
  start();
  Held held;
  hold_answer(held, 0x7777);
  uint32_t value = 0;
  int error = -1;
  std::thread other([&] { error = guest_->read32(kTrapped, value); });
  EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  EXPECT_EQ(status().accesses, 1 + held.late);
  const int32_t at = worker_->request(VFIO_PCI_HOOKS_REQ_READ);
  worker_->fill_value(0x8888, at);
  EXPECT_EQ(worker_->hand_over(at), 0);
  other.join();
  EXPECT_EQ(error, 0);
  EXPECT_EQ(value, 0x8888U);
  held.let_go();
  EXPECT_EQ(held.value, 0x7777U);
}

// Its memory stays until nobody looks at the word any more, and what it answered is not asked again.
TEST_F(WatchTest, RL5_TheSessionMayEndWhileARequestStandsInItsWord) {
  start();
  for (const bool answered : {false, true}) {
    SCOPED_TRACE(answered);
    Held held;
    if (answered)
      hold_answer(held, 0x9999);
    else
      hold(held);
    worker_->end();
    worker_->begin();
    if (!answered) {
      answer_by_next(0x9999);
    }
    EXPECT_FALSE(worker_->is_asked());
    held.let_go();
    EXPECT_EQ(held.value, 0x9999U);
  }
}

TEST_F(WatchTest, RL1_TheCloseOfTheDeviceEndsTheWatch) {
  start();
  worker_->begin_to_watch();
  guest_.reset();
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->watch(got), ESHUTDOWN);
}

// A thread of the VMM that is killed takes its request along; the session goes on.
TEST_F(WatchTest, RL5_ARequestOfAKilledThreadIsForgotten) {
  start();
  struct Process {
    pid_t pid;
    void join() const {
      int status = 0;
      EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    }
  };
  const auto process = [&] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      run_on({kVmmCpu});
      uint32_t value = 0;
      (void)guest_->read32(kTrapped, value);
      ::_exit(0);
    }
    return Process{pid};
  };
  for (const bool seen : {true, false}) {
    SCOPED_TRACE(seen);
    if (!seen) worker_->begin_to_watch();
    const Process vmm = seen ? taken(process) : process();
    ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
    ::kill(vmm.pid, SIGKILL);
    vmm.join();
    vfio_pci_hooks_next got{};
    EXPECT_EQ(worker_->next(got, 50), ETIME) << "nobody waits for it";
    worker_->fill_value(1);
    EXPECT_FALSE(worker_->answered());
    EXPECT_EQ(worker_->hand_over(0), EINVAL);
  }
  worker_->begin_to_watch();
  uint32_t value = 0;
  int error = -1;
  std::thread next = vcpu(value, error);
  EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  answer_by_next(2);
  next.join();
  EXPECT_EQ(value, 2U);
}

TEST_F(WatchTest, RL1_ANextThatWaitsEndsTheWatch) {
  start(2000);
  worker_->begin_to_watch();
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->next(got, 10), ETIME);
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  uint32_t value = 0;
  int error = -1;
  std::thread vmm([&] {
    std::this_thread::sleep_for(50ms);
    error = guest_->read32(kTrapped, value);
  });
  EXPECT_EQ(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0) << "NEXT, which waits, tells it";
  EXPECT_EQ(worker_->answer(0, VFIO_PCI_HOOKS_PASS), 0);
  vmm.join();
  EXPECT_EQ(error, 0);
}

// A worker that looked, and then waits together with its other descriptors.
TEST_F(WatchTest, RL1_APollEndsTheWatchAndHearsOfTheNextRequest) {
  start();
  worker_->begin_to_watch();
  EXPECT_FALSE(worker_->is_ready());
  EXPECT_EQ(worker_->seen(), uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  uint32_t value = 0;
  int error = -1;
  std::thread vmm = vcpu(value, error);
  EXPECT_TRUE(worker_->is_ready(5000ms));
  EXPECT_EQ(worker_->answer(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0), 0);
  vmm.join();
  worker_->begin_to_watch();
  vmm = vcpu(value, error);
  ASSERT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
  EXPECT_TRUE(worker_->is_ready()) << "what was not taken is there for NEXT";
  EXPECT_EQ(worker_->answer(worker_->request(VFIO_PCI_HOOKS_REQ_READ), 0), 0);
  vmm.join();
}

TEST_F(WatchTest, CH1_AStreamComesByNext) {
  start();
  worker_->map_stream(VFIO_PCI_HOOKS_STREAM_SLICES);
  auto stream = guest_->device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(stream);
  vfio_pci_hooks_next got{};
  std::thread vmm([&] {
    char byte = 0;
    EXPECT_EQ(::read(stream->get(), &byte, 1), 1);
  });
  const auto end = std::chrono::steady_clock::now() + 5s;
  do {
    ASSERT_EQ(worker_->watch(got), 0);
    if (got.what == VFIO_PCI_HOOKS_NEXT_WATCHING) {
      EXPECT_TRUE(worker_->sees(VFIO_PCI_HOOKS_WATCH_CALL));
    }
  } while (got.what != VFIO_PCI_HOOKS_NEXT_REQUEST && std::chrono::steady_clock::now() < end);
  EXPECT_EQ(worker_->slot(got.slot).op, uint32_t{VFIO_PCI_HOOKS_REQ_SAVE});
  worker_->fill(got.slot, 1, 0, VFIO_PCI_HOOKS_ANSWER_END);
  EXPECT_EQ(worker_->hand_over(got.slot), 0);
  vmm.join();
}

TEST_F(WatchTest, RL4_UnknownFlagsAreRefused) {
  start();
  vfio_pci_hooks_next got{};
  EXPECT_EQ(worker_->watch(got, VFIO_PCI_HOOKS_NO_SLOT, VFIO_PCI_HOOKS_NEXT_WATCH << 1), EINVAL);
}

// Each access is carried out exactly once, whichever way its request and its answer went: the worker counts, and each thread of the
// VMM sees what it alone was given. The worker is late at random, and asks in the middle.
TEST_F(WatchTest, RL2_EachAccessIsCarriedOutOnce) {
  start();
  constexpr uint32_t kTimes = 2000;
  std::atomic<bool> over = false;
  uint32_t carried_out = 0, by_word = 0, late = 0;
  std::thread worker([&] {
    std::minstd_rand random(1);
    int32_t answered = VFIO_PCI_HOOKS_NO_SLOT;
    while (!over) {
      vfio_pci_hooks_next got{};
      const int error = worker_->watch(got, std::exchange(answered, VFIO_PCI_HOOKS_NO_SLOT));
      ASSERT_EQ(error, 0);
      if (got.what == VFIO_PCI_HOOKS_NEXT_REQUEST) {
        worker_->fill_value(++carried_out, got.slot);
        answered = got.slot;
        continue;
      }
      if (got.what != VFIO_PCI_HOOKS_NEXT_WATCHING) continue;
      for (int looks = 0; looks < 2000 && !over; ++looks) {
        const uint32_t seen = worker_->seen();
        if (seen == VFIO_PCI_HOOKS_WATCH_CALL) break;
        if (seen != VFIO_PCI_HOOKS_WATCH_REQUEST) continue;
        if (random() % 16 == 0) break;  // not looked at: NEXT tells it
        if (!worker_->takes()) break;
        worker_->fill_value(++carried_out);
        for (uint32_t wait = random() % 4 ? 0 : random() % 20000; wait > 0; --wait) (void)worker_->seen();
        if (!worker_->answered()) {
          ++late;
          answered = 0;
          break;
        }
        ++by_word;
        if (random() % 8 == 0) break;  // NEXT at once: it or the thread takes the answer
        looks = 0;
      }
    }
  });
  std::atomic<uint32_t> sum = 0;
  const auto reads = [&] {
    uint32_t last = 0;
    for (uint32_t i = 0; i < kTimes; ++i) {
      uint32_t value = 0;
      EXPECT_EQ(guest_->read32(kTrapped, value), 0);
      EXPECT_GT(value, last);
      last = value;
      sum += value;
    }
  };
  reads();
  const uint32_t alone = carried_out;
  EXPECT_EQ(alone, kTimes);
  std::thread other(reads);
  reads();
  other.join();
  over = true;
  worker.join();
  EXPECT_EQ(carried_out, 3 * kTimes);
  EXPECT_EQ(sum, 3 * kTimes * (3 * kTimes + 1) / 2) << "no two were given the same answer";
  EXPECT_GT(by_word, 0U);
  EXPECT_GT(late, 0U);
  EXPECT_EQ(status().missed, 0U);
  std::cout << by_word << " answers by the word, " << late << " too late for it, " << carried_out - by_word - late
            << " told and answered by NEXT\n";
}

// Whatever stands in the word, each access is answered when its worker calls NEXT: what it never took is told, and what the word
// says it took, it has to answer.
TEST_F(WatchTest, RL1_AWordThatIsScribbledOverHarmsNobodyElse) {
  start();
  std::atomic<bool> over = false;
  std::thread worker([&] {
    std::minstd_rand random(2);
    vfio_pci_hooks_next got{};
    for (int32_t answered = VFIO_PCI_HOOKS_NO_SLOT; !over;) {
      const int error = worker_->watch(got, std::exchange(answered, VFIO_PCI_HOOKS_NO_SLOT));
      if (error == 0 && got.what == VFIO_PCI_HOOKS_NEXT_REQUEST) {
        worker_->fill(answered = got.slot, worker_->slot(got.slot).length);
        continue;
      }
      if (error != 0 || got.what != VFIO_PCI_HOOKS_NEXT_WATCHING) continue;
      for (uint32_t i = 0, times = random() % 200; i < times; ++i) {
        worker_->scribble(random() % 6);
        if (random() % 4 == 0) worker_->fill(0, sizeof(uint32_t));
        if (random() % 64 == 0) std::this_thread::sleep_for(1ms);
      }
      worker_->fill(answered = 0, sizeof(uint32_t));
    }
  });
  const auto until = std::chrono::steady_clock::now() + 3s;
  uint32_t value = 0, done = 0;
  for (; std::chrono::steady_clock::now() < until; ++done) EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  over = true;
  worker.join();
  EXPECT_GT(done, 100U);
}

}  // namespace
}  // namespace hookline::kernel_test
