// SPDX-License-Identifier: Apache-2.0
//
// What a worker, a stream or a client can make the kernel wait for and hold: bounded, accounted to whoever asked for it, and
// given back.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kMostAccessMs = 10000, kMostStateMs = 600000;

// Areas of vmalloc that the module has: three for each session.
long areas() {
  std::ifstream file("/proc/vmallocinfo");
  long count = 0;
  for (std::string line; std::getline(file, line);) count += line.find("vph_") != std::string::npos;
  return count;
}

class LimitsTest : public HooksTest {
 protected:
  static Definition patient(const std::string& vf) {
    Definition definition = migratable(vf);
    definition.access_limit_ms = kMostAccessMs;
    definition.state_limit_ms = kMostStateMs;
    return definition;
  }
  void start(const Definition& definition) {
    define_and_bind(definition);
    worker_ = std::make_unique<Worker>(vf_, *board_);
    open();
  }
  void open() {
    const uint64_t sessions = board_->sessions;
    guest_ = std::make_unique<Guest>(*container_, vf_);
    ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions > sessions; }, 10s));
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    HooksTest::TearDown();
  }
  const vfio::Device& device() const { return guest_->device; }

  SharedBoard board_ = shared_board();
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Guest> guest_;
};

// ------------------------------------------------------------------------------------------------ waits

TEST_F(LimitsTest, MP3_LimitsAreBoundedThemselves) {
  struct {
    uint32_t access_ms, state_ms;
    int error;
  } const limits[] = {{0, 1, EINVAL}, {1, 0, EINVAL}, {kMostAccessMs + 1, 1, EINVAL}, {1, kMostStateMs + 1, EINVAL},
                      {1, 1, 0},      {kMostAccessMs, kMostStateMs, 0}};
  for (const auto& [access_ms, state_ms, error] : limits) {
    Definition definition = migratable(vf_);
    definition.access_limit_ms = access_ms;
    definition.state_limit_ms = state_ms;
    EXPECT_EQ(control_.define(definition), error) << access_ms << ", " << state_ms;
  }
}

// Each kind of operation has its own limit: the short one ends, the long one goes on.
TEST_F(LimitsTest, MP3_AccessAndStateHaveLimitsOfTheirOwn) {
  Definition definition = patient(vf_);
  definition.access_limit_ms = 50;
  start(definition);
  auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(stream);
  char byte = 0;
  ASSERT_EQ(::read(stream->get(), &byte, 1), 1);
  worker_->kill();
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(control_.status(vf_).missed, 1u) << "over after 50 ms";

  ASSERT_TRUE(device().set_state(VFIO_DEVICE_STATE_RUNNING));
  ASSERT_TRUE(device().reset());
  auto again = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(again);
  std::atomic<bool> over = false;
  std::thread vmm([&] {
    EXPECT_EQ(::read(again->get(), &byte, 1), 1) << "the next worker came in time";
    over = true;
  });
  std::this_thread::sleep_for(300ms);
  EXPECT_FALSE(over);
  worker_ = std::make_unique<Worker>(vf_, *board_);
  vmm.join();
}

enum class Wait { access, save, load };

class KilledVmm : public LimitsTest, public ::testing::WithParamInterface<Wait> {};
INSTANTIATE_TEST_SUITE_P(In, KilledVmm, ::testing::Values(Wait::access, Wait::save, Wait::load), [](const auto& wait) {
  return wait.param == Wait::access ? "Access" : wait.param == Wait::save ? "Save" : "Load";
});

// It waits for a worker that hangs, ten seconds or ten minutes more, and is killed.
TEST_P(KilledVmm, RL1_IsGoneAtOnce) {
  define_and_bind(patient(vf_));
  worker_ = std::make_unique<Worker>(vf_, *board_);
  const auto kinds = {VFIO_PCI_HOOKS_REQ_READ, VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_LOAD};
  board_->hang_at = *(kinds.begin() + static_cast<int>(GetParam()));
  const pid_t vmm = ::fork();
  if (vmm == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close_range(3, ~0u, 0);
    const auto container = vfio::Container::create();
    const Guest guest(*container, vf_);
    char byte = 0;
    uint32_t value = 0;
    if (GetParam() == Wait::access) {
      (void)guest.read32(kTrapped, value);
    } else if (GetParam() == Wait::save) {
      const auto stream = guest.device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
      (void)!::read(stream->get(), &byte, 1);
    } else {
      const auto stream = guest.device.set_state(VFIO_DEVICE_STATE_RESUMING);
      (void)!::write(stream->get(), &byte, 1);
    }
    ::_exit(0);
  }
  EXPECT_TRUE(sysfs::wait_until([&] { return worker_->is_stopped(); }, 20s));
  ::kill(vmm, SIGKILL);
  int status = 0;
  EXPECT_TRUE(sysfs::wait_until([&] { return ::waitpid(vmm, &status, WNOHANG) == vmm; }, 5s));
  EXPECT_TRUE(WIFSIGNALED(status)) << "it ended by itself";
  EXPECT_FALSE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_OPEN);
  board_->hang_at = 0;
}

// ------------------------------------------------------------------------------------------------ memory

TEST_F(LimitsTest, RL1_AStreamTakesNoMoreThanItsSlices) {
  constexpr uint32_t kState = 24 << 20;
  Definition definition = patient(vf_);
  definition.max_state = kState;
  start(definition);
  board_->state_bytes = kState;
  const auto used = [] {
    std::ifstream file("/proc/meminfo");
    std::string word;
    long sum = 0, value = 0;
    while (file >> word)
      if ((word == "SUnreclaim:" || word == "VmallocUsed:") && file >> value) sum += value;
    return sum;
  };
  const long before = used(), areas_before = areas();
  auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(stream);
  std::vector<char> piece(4 << 20);
  uint64_t total = 0;
  for (ssize_t got = 1; got > 0; total += static_cast<uint64_t>(got)) {
    got = ::read(stream->get(), piece.data(), piece.size());
    ASSERT_GE(got, 0) << errno;
  }
  EXPECT_EQ(total, kState);
  EXPECT_EQ(areas(), areas_before);
  EXPECT_LT(used() - before, 8 << 10) << "KiB more for 24 MiB of state";

  auto sink = device().set_state(VFIO_DEVICE_STATE_RESUMING);
  ASSERT_TRUE(sink);
  for (uint64_t done = 0; done < kState; done += piece.size())
    ASSERT_EQ(::write(sink->get(), piece.data(), piece.size()), static_cast<ssize_t>(piece.size()));
  EXPECT_EQ(areas(), areas_before);
  EXPECT_LT(used() - before, 8 << 10) << "KiB more while 24 MiB were loaded";
}

TEST_F(LimitsTest, RL1_ADefinitionReplacesTheOneBefore) {
  const auto objects = [] {
    // KASAN keeps what was freed for a while, and counts it as used.
    for (const auto& cache : std::filesystem::directory_iterator("/sys/kernel/slab"))
      if (cache.path().filename().string().starts_with("kmalloc-cg-")) (void)sysfs::write(cache.path() / "shrink", "1");
    std::ifstream file("/proc/slabinfo");
    std::string line, name;
    long count = 0, active = 0;
    while (std::getline(file, line)) {
      std::istringstream words(line);
      if (words >> name >> active && name.starts_with("kmalloc-cg-")) count += active;
    }
    return count;
  };
  Definition definition = patient(vf_);
  definition.stop = definition.start = definition.reset = {{VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, kMailboxMemory, 0, 0, 0}};
  ASSERT_EQ(control_.define(definition), 0);
  const long before = objects();
  for (int i = 0; i < 500; ++i) ASSERT_EQ(control_.define(definition), 0);
  EXPECT_LT(objects() - before, 400) << "objects after 500 definitions of four each";
  EXPECT_EQ(control_.undefine(vf_), 0);
  EXPECT_EQ(control_.undefine(vf_), ENOENT) << "there was one";
}

TEST_F(LimitsTest, RL3_ADeviceHasOneWorkerAndOneSession) {
  start(patient(vf_));
  const long one = areas();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(control_.attach(vf_), -EBUSY);
  for (int i = 0; i < 10; ++i) {
    const uint64_t sessions = board_->sessions;
    worker_->kill();
    worker_ = std::make_unique<Worker>(vf_, *board_);
    ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions > sessions; }, 10s));
  }
  EXPECT_EQ(areas(), one);
  guest_.reset();
  worker_.reset();
  EXPECT_TRUE(sysfs::wait_until([] { return areas() == 0; }, 5s));
}

TEST_F(LimitsTest, RL1_DataFilesThatAreKeptHoldNothingButThemselves) {
  start(patient(vf_));
  const std::string references = *sysfs::read("/sys/module/vfio_pci_hooks/refcnt");
  const long sessions = areas();
  {
    std::vector<vfio::Descriptor> kept;
    for (int i = 0; i < 300; ++i) {
      auto stream = device().set_state(VFIO_DEVICE_STATE_PRE_COPY);
      ASSERT_TRUE(stream);
      kept.push_back(std::move(*stream));
      ASSERT_TRUE(device().set_state(VFIO_DEVICE_STATE_RUNNING));
    }
    EXPECT_EQ(areas(), sessions) << "no buffer of their own";
    char byte = 0;
    for (const auto& file : kept) EXPECT_EQ(::read(file.get(), &byte, 1), -1);
  }
  EXPECT_TRUE(sysfs::wait_until([&] { return *sysfs::read("/sys/module/vfio_pci_hooks/refcnt") == references; }, 5s));
}

// A worker that asks for session after session and gives none back is who pays: the limit of its service holds them.
TEST_F(LimitsTest, RL1_SessionsAreAccountedToTheirWorker) {
  constexpr const char* kRoot = "/sys/fs/cgroup";
  constexpr int kSessions = 10;
  const std::string group = std::string(kRoot) + "/hookline-limits";
  if (!std::filesystem::exists(std::string(kRoot) + "/cgroup.controllers")) {
    ASSERT_EQ(::mount("none", kRoot, "cgroup2", 0, nullptr), 0) << errno;
  }
  ASSERT_TRUE(sysfs::write(std::string(kRoot) + "/cgroup.subtree_control", "+memory"));
  std::filesystem::create_directory(group);
  const auto accounted = [&] {
    std::istringstream words(*sysfs::read(group + "/memory.stat"));
    std::string name;
    for (uint64_t bytes = 0; words >> name >> bytes;)
      if (name == "vmalloc") return bytes;
    throw std::runtime_error("memory.stat has no vmalloc");
  };

  define_and_bind(patient(vf_));
  const pid_t greedy = ::fork();
  if (greedy == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sysfs::write(group + "/cgroup.procs", std::to_string(::getpid()));
    const int channel = control_.attach(vf_);
    for (;;) {
      vfio_pci_hooks_wait_open open{};
      open.argsz = sizeof open;
      if (::ioctl(channel, VFIO_PCI_HOOKS_WAIT_OPEN, &open) != 0) ::_exit(1);
      ++board_->sessions;
    }
  }
  for (uint64_t opened = 1; opened <= kSessions; ++opened) {
    const Guest guest(*container_, vf_);
    EXPECT_TRUE(sysfs::wait_until([&] { return board_->sessions == opened; }, 10s));
  }
  EXPECT_GE(accounted(), uint64_t{kSessions} * VFIO_PCI_HOOKS_STREAM_SIZE);
  ::kill(greedy, SIGKILL);
  ::waitpid(greedy, nullptr, 0);
  EXPECT_TRUE(sysfs::wait_until([] { return areas() == 0; }, 10s)) << "all is given back with the worker";
  std::filesystem::remove(group);
}

// A worker that does not listen has the newest events dropped and counted, but never a reset.
TEST_F(LimitsTest, RL1_EventsThatNobodyFetchesAreBounded) {
  define_and_bind(patient(vf_));
  const vfio::Descriptor channel(control_.attach(vf_));
  ASSERT_TRUE(channel);
  guest_ = std::make_unique<Guest>(*container_, vf_);
  vfio_pci_hooks_wait_open open{};
  open.argsz = sizeof open;
  ASSERT_EQ(::ioctl(channel.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &open), 0);
  const vfio::Descriptor session(open.fd);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(device().set_state(VFIO_DEVICE_STATE_STOP));
    ASSERT_TRUE(device().set_state(VFIO_DEVICE_STATE_RUNNING));
  }
  ASSERT_TRUE(device().reset());
  unsigned events = 0, lost = 0, resets = 0;
  for (;;) {
    vfio_pci_hooks_next next{};
    next.argsz = sizeof next;
    next.answered = VFIO_PCI_HOOKS_NO_SLOT;
    if (::ioctl(session.get(), VFIO_PCI_HOOKS_NEXT, &next) != 0) break;
    ++events;
    lost += next.lost;
    resets += next.event == VFIO_PCI_HOOKS_EVENT_RESET;
  }
  EXPECT_LE(events, 64u);
  EXPECT_GT(lost, 0u);
  EXPECT_EQ(events + lost, 401u) << "100 times four arcs and a reset";
  EXPECT_EQ(resets, 1u);
}

}  // namespace
}  // namespace hookline::kernel_test
