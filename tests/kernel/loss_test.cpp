// SPDX-License-Identifier: Apache-2.0
//
// Workers that die or hang: at every operation of the VMM, the operation ends, the guest keeps a working device, and no
// later migration restores a state that missed something.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <span>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kStop = VFIO_DEVICE_STATE_STOP, kRunning = VFIO_DEVICE_STATE_RUNNING,
                   kStopCopy = VFIO_DEVICE_STATE_STOP_COPY, kResuming = VFIO_DEVICE_STATE_RESUMING,
                   kPreCopy = VFIO_DEVICE_STATE_PRE_COPY;

enum class Loss { killed, hung };

class LossTest : public HooksTest {
 protected:
  void start(Definition definition) {
    define_and_bind(definition);
    worker_ = std::make_unique<Worker>(vf_, *board_);
    guest_ = std::make_unique<Guest>(*container_, vf_);
    ASSERT_TRUE(wait_served(vf_));
    ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions == 1; }, 5s));
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    HooksTest::TearDown();
  }
  void lose(Loss loss) {
    if (loss == Loss::killed) {
      worker_->kill();
    } else {
      worker_->signal(SIGSTOP);
      ASSERT_TRUE(sysfs::wait_until([&] { return worker_->is_stopped(); }, 5s));
    }
  }
  uint32_t flags() { return control_.status(vf_).flags; }
  vfio::Device& device() { return guest_->device; }

  // What any loss must leave behind: a device that a reset and a new worker make whole again.
  void expect_recovers() {
    if (worker_->pid() > 0) worker_->kill();
    board_->hang_at = 0;
    board_->die_at = 0;
    const uint64_t sessions = board_->sessions;
    worker_ = std::make_unique<Worker>(vf_, *board_);
    ASSERT_TRUE(device().reset());
    EXPECT_EQ(device().state().value(), kRunning);
    ASSERT_TRUE(device().enable_memory_and_dma());
    ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions > sessions; }, 5s));
    uint32_t value = 0;
    EXPECT_EQ(guest_->read32(kTrapped, value), 0);
    EXPECT_EQ(value, 0x600d600du);
    EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
    auto stream = device().set_state(kStopCopy);
    ASSERT_TRUE(stream) << stream.error().text;
    EXPECT_EQ(drain(*stream), 0);
    EXPECT_TRUE(device().set_state(kRunning));
  }

  // The errno that ends the stream; 0 at its regular end.
  static int drain(const vfio::Descriptor& stream) {
    std::vector<std::byte> piece(65536);
    for (;;) {
      const ssize_t got = ::read(stream.get(), piece.data(), piece.size());
      if (got < 0) return errno;
      if (got == 0) return 0;
    }
  }

  SharedBoard board_ = shared_board();
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Guest> guest_;
};

class AnyLoss : public LossTest, public ::testing::WithParamInterface<Loss> {};

INSTANTIATE_TEST_SUITE_P(Worker, AnyLoss, ::testing::Values(Loss::killed, Loss::hung),
                         [](const auto& loss) { return loss.param == Loss::killed ? "Killed" : "Hung"; });

TEST_P(AnyLoss, RL5_AccessPassesAndMigrationIsRefusedUntilReset) {
  start(migratable(vf_));
  lose(GetParam());
  EXPECT_EQ(guest_->write32(kTrapped, 0x0a0b0c0d), 0);
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 0x0a0b0c0du) << "the device's own";
  EXPECT_TRUE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
  EXPECT_GE(control_.status(vf_).missed, 1u);
  const auto pre_copy = device().set_state(kPreCopy);
  ASSERT_FALSE(pre_copy);
  EXPECT_EQ(pre_copy.error().code, ENODATA);
  EXPECT_EQ(device().state().value(), kRunning);
  expect_recovers();
}

TEST_P(AnyLoss, RL5_AccessFailsWhereTheDefinitionSaysSo) {
  Definition definition = migratable(vf_);
  definition.flags |= VFIO_PCI_HOOKS_DEFINE_FAIL;
  start(definition);
  board_->read_answer = VFIO_PCI_HOOKS_PASS;
  ASSERT_EQ(guest_->write32(kTrapped, 1), 0);
  lose(GetParam());
  EXPECT_EQ(guest_->write32(kTrapped, 2), EIO);
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), EIO);
  EXPECT_EQ(guest_->read32(kStatus, value), 0) << "what is not trapped goes on";
  EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE) << "nothing reached the device unseen";
  board_->read_answer = VFIO_PCI_HOOKS_HANDLED;
  expect_recovers();
}

TEST_P(AnyLoss, RL5_StopAndContNeedNoWorker) {
  start(migratable(vf_));
  lose(GetParam());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(device().set_state(VFIO_DEVICE_STATE_RUNNING_P2P));
    EXPECT_TRUE(device().set_state(kStop));
    EXPECT_TRUE(device().set_state(VFIO_DEVICE_STATE_RUNNING_P2P));
    EXPECT_TRUE(device().set_state(kRunning));
  }
  EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
  expect_recovers();
}

TEST_P(AnyLoss, MP3_SizesNeedNoWorker) {
  start(migratable(vf_));
  auto stream = device().set_state(kPreCopy);
  ASSERT_TRUE(stream);
  lose(GetParam());
  EXPECT_GT(device().data_size().value(), 0u);
  EXPECT_TRUE(vfio::precopy_info(*stream));
  EXPECT_EQ(device().state().value(), kPreCopy);
  expect_recovers();
}

TEST_P(AnyLoss, RL5_LossInPreCopyFailsTheMigrationAndNotTheGuest) {
  start(migratable(vf_));
  auto stream = device().set_state(kPreCopy);
  ASSERT_TRUE(stream);
  EXPECT_EQ(drain(*stream), ENOMSG);
  lose(GetParam());
  EXPECT_TRUE(device().set_state(kStopCopy)) << "a failing arc would make QEMU reset the guest's device";
  const int error = drain(*stream);
  EXPECT_NE(error, 0);
  EXPECT_NE(error, ENOMSG);
  EXPECT_TRUE(device().set_state(kRunning));
  expect_recovers();
}

TEST_P(AnyLoss, RL2_LossWhileLoadingNeverRuns) {
  start(migratable(vf_));
  auto stream = device().set_state(kResuming);
  ASSERT_TRUE(stream);
  const char bytes[100] = {};
  ASSERT_EQ(::write(stream->get(), bytes, sizeof bytes), ssize_t{sizeof bytes});
  lose(GetParam());
  EXPECT_EQ(::write(stream->get(), bytes, sizeof bytes), -1);
  EXPECT_FALSE(device().set_state(kRunning));
  EXPECT_EQ(device().state().value(), uint32_t{VFIO_DEVICE_STATE_ERROR});
  expect_recovers();
}

TEST_P(AnyLoss, MP4_ResetNeedsNoWorker) {
  start(migratable(vf_));
  lose(GetParam());
  EXPECT_TRUE(device().reset());
  EXPECT_EQ(device().state().value(), kRunning);
  expect_recovers();
}

TEST_P(AnyLoss, RL1_CloseNeedsNoWorker) {
  start(migratable(vf_));
  lose(GetParam());
  guest_.reset();
  EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_OPEN);
  guest_ = std::make_unique<Guest>(*container_, vf_);
  expect_recovers();
}

// A worker that is lost in the middle of an operation.
struct Moment {
  const char* name;
  uint32_t at;  ///< VFIO_PCI_HOOKS_REQ_*
};

class LossAt : public LossTest, public ::testing::WithParamInterface<std::tuple<Moment, Loss>> {};

INSTANTIATE_TEST_SUITE_P(Request, LossAt,
                         ::testing::Combine(::testing::Values(Moment{"Read", VFIO_PCI_HOOKS_REQ_READ},
                                                              Moment{"Write", VFIO_PCI_HOOKS_REQ_WRITE},
                                                              Moment{"Save", VFIO_PCI_HOOKS_REQ_SAVE},
                                                              Moment{"Load", VFIO_PCI_HOOKS_REQ_LOAD}),
                                            ::testing::Values(Loss::killed, Loss::hung)),
                         [](const auto& moment) {
                           return std::string(std::get<0>(moment.param).name) +
                                  (std::get<1>(moment.param) == Loss::killed ? "Killed" : "Hung");
                         });

TEST_P(LossAt, RL5_TheOperationEndsAndTheDeviceGoesOn) {
  const auto [moment, loss] = GetParam();
  start(migratable(vf_));
  const auto arm = [&, at = moment.at, how = loss] { (how == Loss::killed ? board_->die_at : board_->hang_at) = at; };
  uint32_t value = 0;
  switch (moment.at) {
    case VFIO_PCI_HOOKS_REQ_READ:
      arm();
      EXPECT_EQ(guest_->read32(kTrapped, value), 0);
      break;
    case VFIO_PCI_HOOKS_REQ_WRITE:
      arm();
      EXPECT_EQ(guest_->write32(kTrapped, 7), 0);
      EXPECT_TRUE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
      break;
    case VFIO_PCI_HOOKS_REQ_SAVE: {
      auto stream = device().set_state(kPreCopy);
      ASSERT_TRUE(stream);
      arm();
      const int error = drain(*stream);
      EXPECT_NE(error, 0);
      EXPECT_NE(error, ENOMSG);
      EXPECT_TRUE(device().set_state(kRunning));
      EXPECT_EQ(guest_->read32(kStatus, value), 0);
      break;
    }
    case VFIO_PCI_HOOKS_REQ_LOAD: {
      auto stream = device().set_state(kResuming);
      ASSERT_TRUE(stream);
      arm();
      EXPECT_EQ(::write(stream->get(), "x", 1), -1);
      EXPECT_FALSE(device().set_state(kRunning));
      break;
    }
  }
  EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_SERVED);
  if (loss == Loss::hung) {
    EXPECT_EQ(control_.status(vf_).revoked, 1u);
  }
  expect_recovers();
}

// A successor within the limit takes the access over: nothing is missed.
TEST_F(LossTest, RL5_SuccessorInTimeAnswersTheAccess) {
  Definition definition = migratable(vf_);
  definition.access_limit_ms = 5000;
  start(definition);
  board_->die_at = VFIO_PCI_HOOKS_REQ_READ;
  uint32_t value = 0;
  int error = -1;
  std::thread vmm([&] { error = guest_->read32(kTrapped, value); });
  EXPECT_EQ(worker_->ended_by(), SIGKILL);
  board_->die_at = 0;
  worker_ = std::make_unique<Worker>(vf_, *board_);
  vmm.join();
  EXPECT_EQ(error, 0);
  EXPECT_EQ(value, 0x600d600du);
  EXPECT_TRUE(board_->session_was_again);
  EXPECT_FALSE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
  EXPECT_EQ(control_.status(vf_).missed, 0u);
}

// It wakes up after its session was taken away: what it answers and does then has no effect.
TEST_F(LossTest, RL5_WorkerThatWakesUpLateTouchesNothing) {
  start(migratable(vf_));
  ASSERT_EQ(guest_->write32(kTrapped, 1), 0);
  board_->write_answer = VFIO_PCI_HOOKS_HANDLED;
  board_->hang_at = VFIO_PCI_HOOKS_REQ_WRITE;
  ASSERT_EQ(guest_->write32(kTrapped, 2), 0) << "passes when the limit is over";
  ASSERT_EQ(control_.status(vf_).revoked, 1u);
  board_->hang_at = 0;
  const uint64_t accesses = control_.status(vf_).accesses;
  worker_->signal(SIGCONT);
  EXPECT_EQ(worker_->ended_by(), SIGBUS) << "its pages are gone, too";
  EXPECT_EQ(board_->late_rw, ECANCELED);
  EXPECT_EQ(board_->late_next, ECANCELED);
  worker_ = std::make_unique<Worker>(vf_, *board_);
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions == 2; }, 5s));
  EXPECT_EQ(board_->shadow_word, 1u) << "what it had slept over is not in the shadow";
  EXPECT_EQ(control_.status(vf_).accesses, accesses);
  EXPECT_TRUE(flags() & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
  expect_recovers();
}

// A page that was mapped for DMA and is gone from the VMM's memory; whoever touches it waits for `handler`, which is silent.
struct LostPage {
  LostPage() {
    page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    handler = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC));
  }
  bool lose() const {
    uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
    uffdio_register range{};
    range.range = {reinterpret_cast<uintptr_t>(page), kPage};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    return ::ioctl(handler, UFFDIO_API, &api) == 0 && ::madvise(page, kPage, MADV_DONTNEED) == 0 &&
           ::ioctl(handler, UFFDIO_REGISTER, &range) == 0;
  }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(page), kPage}; }
  void* page;
  int handler;
};

TEST_F(LossTest, RL1_AGuestPageThatNeverComesHoldsUpNobody) {
  constexpr uint64_t kIova = 0x10000000;
  Definition definition = migratable(vf_);
  definition.guest_memory = VFIO_PCI_HOOKS_MEMORY_WRITE;
  define_and_bind(definition);
  board_->probe_iova = kIova;
  worker_ = std::make_unique<Worker>(vf_, *board_);

  int went_on[2];
  ASSERT_EQ(::pipe2(went_on, O_CLOEXEC | O_NONBLOCK), 0);
  const pid_t vmm = ::fork();
  if (vmm == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto container = vfio::Container::create();
    const Guest guest(*container, vf_);
    const LostPage lost;
    if (!container->map_dma(kIova, lost.bytes()) || !lost.lose()) ::_exit(1);
    for (uint32_t value = 0;;) {
      guest.read32(kTrapped, value);
      if (board_->reads > 0 && ::write(went_on[1], "", 1) < 0) continue;
    }
  }
  // The worker reads guest memory when it is asked; neither of them may wait longer than the definition says.
  char byte;
  EXPECT_TRUE(sysfs::wait_until([&] { return ::read(went_on[0], &byte, 1) == 1; }, 20s));
  // That one was late. The next waits for the page when the VMM is killed.
  worker_->kill();
  const uint64_t reads = board_->reads;
  worker_ = std::make_unique<Worker>(vf_, *board_);
  EXPECT_TRUE(sysfs::wait_until([&] { return board_->reads > reads; }, 20s));
  ::kill(vmm, SIGKILL);
  EXPECT_TRUE(sysfs::wait_until([&] { return ::waitpid(vmm, nullptr, WNOHANG) == vmm; }, 20s));
  ::close(went_on[0]);
  ::close(went_on[1]);
  EXPECT_TRUE(sysfs::wait_until([&] { return (flags() & VFIO_PCI_HOOKS_STATUS_OPEN) == 0; }, 20s));
}

// vfio-pci claims and maps a BAR when somebody first uses it, which two at once must not.
TEST_F(LossTest, AllBarsAreThereBeforeAWorkerIs) {
  start(migratable(vf_));
  const auto resources = sysfs::read("/sys/bus/pci/devices/" + vf_ + "/resource");
  ASSERT_TRUE(resources);
  std::ifstream iomem("/proc/iomem");
  const std::string claimed((std::istreambuf_iterator<char>(iomem)), {});
  std::istringstream lines(*resources);
  int bars = 0;
  for (uint64_t begin, end, bits; bars < 6 && lines >> std::hex >> begin >> end >> bits; ++bars) {
    if (begin == 0) continue;
    const std::string line = fmt::format("{:08x}-{:08x} : vfio", begin, end);
    EXPECT_NE(claimed.find(line), std::string::npos) << "BAR " << bars << ": " << line;
  }
  EXPECT_EQ(bars, 6);
}

}  // namespace
}  // namespace hookline::kernel_test
