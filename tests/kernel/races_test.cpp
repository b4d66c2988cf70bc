// SPDX-License-Identifier: Apache-2.0
//
// Orders of events that went wrong once, each brought about on purpose: a page fault that is held back, a thread that gets no
// processor, or two calls that meet often enough. The test itself is the worker.
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "tests/kernel/fixture.hpp"
#include "tests/kernel/hand.hpp"
#include "tests/kernel/kernel_module.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kHeart = kMailboxMemory + 0x30, kBeating = 0x11223344, kFresh = 0x5c5c5c5c;
constexpr uint64_t kIova = 0x100000;

// A page of this process whose first access waits until it is given.
class HeldPage {
 public:
  HeldPage() : page_(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (page_ == MAP_FAILED) raise("mmap");
    faults_ = vfio::Descriptor(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    uffdio_api api{UFFD_API, 0, 0};
    if (!faults_ || ::ioctl(faults_.get(), UFFDIO_API, &api) != 0) raise("userfaultfd");
  }
  ~HeldPage() { ::munmap(page_, kPage); }
  HeldPage(const HeldPage&) = delete;
  HeldPage& operator=(const HeldPage&) = delete;

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(page_), kPage}; }
  void hold() {
    ::madvise(page_, kPage, MADV_DONTNEED);
    uffdio_register range{{reinterpret_cast<uintptr_t>(page_), kPage}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (::ioctl(faults_.get(), UFFDIO_REGISTER, &range) != 0) raise("UFFDIO_REGISTER");
  }
  bool is_waited_for() const {
    pollfd ready{faults_.get(), POLLIN, 0};
    return ::poll(&ready, 1, 10000) == 1;
  }
  void give() {
    alignas(kPage) static const std::byte contents[kPage] = {};
    uffdio_copy copy{reinterpret_cast<uintptr_t>(page_), reinterpret_cast<uintptr_t>(contents), kPage, 0, 0};
    if (::ioctl(faults_.get(), UFFDIO_COPY, &copy) != 0 && errno != EEXIST) raise("UFFDIO_COPY");
  }

 private:
  void* page_;
  vfio::Descriptor faults_;
};

void pin_to(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  ASSERT_EQ(::sched_setaffinity(0, sizeof cpus, &cpus), 0);
}

// Takes a processor from everybody else, for as long as it is told to.
class Hog {
 public:
  explicit Hog(int cpu) {
    (void)sysfs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1");
    thread_ = std::thread([this, cpu] {
      pin_to(cpu);
      const sched_param priority{50};
      EXPECT_EQ(::sched_setscheduler(0, SCHED_FIFO, &priority), 0);
      for (int order = kRest; order != kEnd; order = order_) {
        has_it_ = order == kTake;
        if (order == kRest) order_.wait(kRest);
      }
    });
  }
  ~Hog() {
    tell(kEnd);
    thread_.join();
  }
  void take() {
    tell(kTake);
    while (!has_it_) std::this_thread::yield();
  }
  void give_back() { tell(kRest); }

 private:
  enum Order : int { kRest, kTake, kEnd };
  void tell(Order order) {
    order_ = order;
    order_.notify_one();
  }
  std::atomic<int> order_ = kRest;
  std::atomic<bool> has_it_ = false;
  std::thread thread_;
};

class RaceTest : public HooksTest {
 protected:
  Definition with_heart() const {
    Definition definition = migratable(vf_);
    definition.access_limit_ms = definition.state_limit_ms = 10000;
    definition.reset = {{VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, kHeart, 0, kFresh, 0}};
    return definition;
  }
  void start(const Definition& definition) {
    define_and_bind(definition);
    hand_.emplace(control_, definition.address);
    guest_ = std::make_unique<Guest>(*container_, definition.address);
    hand_->begin();
  }
  void TearDown() override {
    guest_.reset();
    hand_.reset();
    HooksTest::TearDown();
  }
  const vfio::Device& device() const { return guest_->device; }
  uint32_t heart() const {
    uint32_t value = 0;
    EXPECT_EQ(guest_->read32(kHeart, value), 0);
    return value;
  }

  std::optional<Hand> hand_;
  std::unique_ptr<Guest> guest_;
};

// A write() that has seen its file alive, and sleeps in a page fault until a reset has ended it.
TEST_F(RaceTest, RL2_NothingIsLoadedAfterTheResetThatEndedTheStream) {
  start(with_heart());
  auto stream = device().set_state(VFIO_DEVICE_STATE_RESUMING);
  ASSERT_TRUE(stream);
  HeldPage page;
  page.hold();
  int error = -1;
  std::thread vmm([&] { error = ::write(stream->get(), page.bytes().data(), 64) < 0 ? errno : 0; });
  EXPECT_TRUE(page.is_waited_for());
  EXPECT_TRUE(device().reset());
  EXPECT_EQ(device().state().value(), uint32_t{VFIO_DEVICE_STATE_RUNNING});
  page.give();
  vfio_pci_hooks_next got{};
  bool asked = false;
  while (hand_->next(got, 500) == 0) {
    if (got.what != VFIO_PCI_HOOKS_NEXT_REQUEST) continue;
    asked = true;
    EXPECT_EQ(hand_->answer(got.slot, 0), 0);
  }
  EXPECT_FALSE(asked) << "the worker is to load into a device that runs";
  vmm.join();
  EXPECT_EQ(error, ECANCELED);
}

// A read() that sleeps while it copies, until a reset has ended its file: an error must not turn into a length on the way.
TEST_F(RaceTest, RL2_AReadOverAResetFailsAndHasNoLength) {
  start(with_heart());
  hand_->map_stream(VFIO_PCI_HOOKS_STREAM_SLICES);
  auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(stream);
  HeldPage page;
  page.hold();
  ssize_t got = 0;
  int error = 0;
  std::thread vmm([&] {
    got = ::read(stream->get(), page.bytes().data(), 64);
    error = errno;
  });
  EXPECT_EQ(hand_->answer(hand_->request(VFIO_PCI_HOOKS_REQ_SAVE), 0), 0);
  EXPECT_TRUE(page.is_waited_for());
  EXPECT_TRUE(device().reset());
  page.give();
  vmm.join();
  EXPECT_EQ(got, -1);
  EXPECT_EQ(error, ECANCELED);
}

// The thread that was told of the refusal gets no processor until a reset is over and the guest runs again.
TEST_F(RaceTest, RL2_ARefusedStreamDoesNotScrubADeviceThatRunsAgain) {
  start(with_heart());
  auto stream = device().set_state(VFIO_DEVICE_STATE_RESUMING);
  ASSERT_TRUE(stream);
  pin_to(0);
  int error = -1;
  std::thread vmm([&] {
    pin_to(1);
    error = ::write(stream->get(), "state", 5) < 0 ? errno : 0;
  });
  const int32_t slot = hand_->request(VFIO_PCI_HOOKS_REQ_LOAD);
  Hog hog(1);
  hog.take();
  EXPECT_EQ(hand_->answer(slot, -EXDEV), 0);
  EXPECT_TRUE(device().reset());
  EXPECT_TRUE(device().enable_memory_and_dma());
  EXPECT_EQ(guest_->write32(kHeart, kBeating), 0);
  hog.give_back();
  vmm.join();
  EXPECT_NE(error, 0);
  EXPECT_EQ(heart(), kBeating) << "the reset program ran on a guest's device";
  EXPECT_EQ(device().state().value(), uint32_t{VFIO_DEVICE_STATE_RUNNING});
}

// The next request of a stream is posted by the answer to the one before. Whatever ends the stream finds it given, or about
// to be posted.
TEST_F(RaceTest, RL5_ACancelledReadAheadIsForgotten) {
  start(with_heart());
  hand_->map_stream(VFIO_PCI_HOOKS_STREAM_SLICES);
  const auto begin = [&] {
    auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
    EXPECT_TRUE(stream);
    std::thread vmm([&] {
      char byte = 0;
      EXPECT_EQ(::read(stream->get(), &byte, 1), 1);
    });
    EXPECT_EQ(hand_->answer(hand_->request(VFIO_PCI_HOOKS_REQ_SAVE), 0), 0);
    vmm.join();
    return std::move(*stream);
  };
  const auto cancel = [&](bool by_reset) {
    EXPECT_TRUE(by_reset ? device().reset().has_value() : device().set_state(VFIO_DEVICE_STATE_RUNNING).has_value());
    EXPECT_TRUE(device().enable_memory_and_dma());
  };
  for (const bool by_reset : {false, true}) {
    SCOPED_TRACE(by_reset);
    {
      const auto stream = begin();
      const int32_t slot = hand_->request(VFIO_PCI_HOOKS_REQ_SAVE);
      cancel(by_reset);
      EXPECT_EQ(hand_->answer(slot, 0), EINVAL);
    }
    // The file is gone; the session is not.
    std::thread vcpu([&] {
      uint32_t value = 0;
      EXPECT_EQ(guest_->read32(kTrapped, value), 0);
    });
    EXPECT_EQ(hand_->answer(hand_->request(VFIO_PCI_HOOKS_REQ_READ), 0), 0);
    vcpu.join();
  }
  // And both at once, again and again.
  std::atomic<bool> over = false;
  std::thread worker([&] {
    vfio_pci_hooks_next got{};
    for (int32_t answered = VFIO_PCI_HOOKS_NO_SLOT; !over;) {
      const int error = hand_->next(got, 20, answered);
      answered = error == 0 && got.what == VFIO_PCI_HOOKS_NEXT_REQUEST ? got.slot : VFIO_PCI_HOOKS_NO_SLOT;
      if (answered != VFIO_PCI_HOOKS_NO_SLOT) hand_->fill(answered, 1);
    }
  });
  for (int i = 0; i < 300; ++i) {
    const auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
    ASSERT_TRUE(stream);
    char bytes[8];
    for (int reads = i % 7; reads > 0; --reads) {
      ASSERT_GT(::read(stream->get(), bytes, sizeof bytes), 0);
    }
    cancel(i % 16 == 0);
    EXPECT_LT(::read(stream->get(), bytes, 1), 0);
  }
  over = true;
  worker.join();
  EXPECT_EQ(control_.status(vf_).revoked, 0u);
}

TEST_F(RaceTest, MP2_SlicesThatNobodyHasMappedAreNotUsed) {
  for (const unsigned mapped : {0, 1, 2, VFIO_PCI_HOOKS_STREAM_SLICES}) {
    SCOPED_TRACE(mapped);
    start(with_heart());
    if (mapped) hand_->map_stream(mapped);
    const unsigned slices = std::max(mapped, 1U);
    auto stream = device().set_state(VFIO_DEVICE_STATE_STOP_COPY);
    ASSERT_TRUE(stream);
    std::vector<char> bytes(VFIO_PCI_HOOKS_STREAM_SLICE);
    const auto slice = [&](unsigned number) { return number % slices * uint64_t{VFIO_PCI_HOOKS_STREAM_SLICE}; };
    std::thread vmm([&] { EXPECT_EQ(::read(stream->get(), bytes.data(), 1), 1); });
    for (unsigned i = 0; i < slices; ++i) {
      const int32_t slot = hand_->request(VFIO_PCI_HOOKS_REQ_SAVE);
      EXPECT_EQ(hand_->offset(slot), slice(i));
      EXPECT_EQ(hand_->answer(slot, 0), 0);
    }
    vmm.join();
    EXPECT_FALSE(hand_->is_asked()) << "all are full";
    EXPECT_EQ(::read(stream->get(), bytes.data(), bytes.size() - 1), static_cast<ssize_t>(bytes.size() - 1));
    const int32_t slot = hand_->request(VFIO_PCI_HOOKS_REQ_SAVE);
    EXPECT_EQ(hand_->offset(slot), slice(slices));
    EXPECT_EQ(hand_->answer(slot, 0, VFIO_PCI_HOOKS_ANSWER_END), 0);
    stream->reset();
    guest_.reset();
    hand_.reset();
    ASSERT_TRUE(sysfs::release(vf_));
    ASSERT_EQ(control_.undefine(vf_), 0);
  }
}

// So that a worker can have all of them before a guest stands still.
TEST_F(RaceTest, MP3_OneFaultBringsAWholeSlice) {
  start(with_heart());
  hand_->map_stream(VFIO_PCI_HOOKS_STREAM_SLICES);
  const auto faults = [] {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt + usage.ru_majflt;
  };
  const auto touch = [&](size_t step) {
    const long before = faults();
    for (size_t at = 0; at < hand_->stream().size(); at += step) hand_->stream()[at] = std::byte{1};
    return faults() - before;
  };
  (void)touch(VFIO_PCI_HOOKS_STREAM_SLICE);
  EXPECT_LT(touch(kPage), VFIO_PCI_HOOKS_STREAM_SIZE / kPage / 8) << "of the first writes to pages of the window";
}

// With no worker at hand an access waits over a reset; who is given it afterwards has seen it.
TEST_F(RaceTest, RL5_AnAccessGivenAfterTheResetIsSeen) {
  start(with_heart());
  hand_->end();
  int error = -1;
  std::thread vmm([&] {
    uint32_t value = 0;
    error = guest_->read32(kTrapped, value);
  });
  std::this_thread::sleep_for(100ms);  // it may come after the reset as well, to the same end
  EXPECT_TRUE(device().reset());
  hand_->begin();
  EXPECT_EQ(hand_->answer(hand_->request(VFIO_PCI_HOOKS_REQ_READ), VFIO_PCI_HOOKS_HANDLED), 0);
  vmm.join();
  EXPECT_EQ(error, 0);
  EXPECT_FALSE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
}

TEST_F(RaceTest, RL5_AnAccessAnsweredOverAResetIsNotSeen) {
  start(with_heart());
  std::thread vmm([&] {
    uint32_t value = 0;
    EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  });
  const int32_t slot = hand_->request(VFIO_PCI_HOOKS_REQ_READ);
  EXPECT_TRUE(device().reset());
  EXPECT_EQ(hand_->answer(slot, VFIO_PCI_HOOKS_HANDLED), 0);
  vmm.join();
  EXPECT_TRUE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
}

TEST_F(RaceTest, RL3_AWorkerThatWasNotToldOfAResetDoesNotWrite) {
  start(with_heart());
  ASSERT_EQ(hand_->write32(kHeart, kBeating), 0);
  ASSERT_TRUE(device().reset());
  ASSERT_TRUE(device().enable_memory_and_dma());
  EXPECT_EQ(hand_->write32(kHeart, kBeating), ESTALE);
  EXPECT_EQ(heart(), kFresh);
  EXPECT_EQ(hand_->read32(kHeart), 0);
  vfio_pci_hooks_next told{};
  ASSERT_EQ(hand_->next(told, 1000), 0);
  EXPECT_EQ(told.event, uint32_t{VFIO_PCI_HOOKS_EVENT_RESET});
  EXPECT_EQ(hand_->write32(kHeart, kBeating), 0);
}

// Guest memory that faults holds back whoever asked for it, not the end of the session for the worker's other threads.
TEST_F(RaceTest, RL1_ASessionEndsAtOnceWhileGuestMemoryFaults) {
  Definition definition = with_heart();
  definition.guest_memory = VFIO_PCI_HOOKS_MEMORY_READ;
  start(definition);
  HeldPage page;
  std::memset(page.bytes().data(), 1, kPage);
  ASSERT_TRUE(container_->map_dma(kIova, page.bytes()));
  page.hold();
  std::thread reader([&] {
    uint64_t value = 0;
    EXPECT_EQ(hand_->rw(VFIO_PCI_HOOKS_IOVA_RW, 0, 0, kIova, &value, sizeof value), 0);
  });
  EXPECT_TRUE(page.is_waited_for());
  std::thread detaching([&] { hand_->detach(); });
  std::atomic<int> other = 0;
  std::thread thread([&] {
    while (other == 0) other = hand_->read32(kHeart);
  });
  EXPECT_TRUE(sysfs::wait_until([&] { return other != 0; }, 5s)) << "stuck behind the fault of another thread";
  page.give();
  reader.join();
  detaching.join();
  thread.join();
  EXPECT_EQ(other, ECANCELED);
  EXPECT_TRUE(container_->unmap_dma(kIova, kPage));
}

// A reset from sysfs finds the device open, closed, and on the way in both directions.
TEST_F(RaceTest, RL1_ResetsFromElsewhereMeetOpenAndClose) {
  define_and_bind(with_heart());
  std::atomic<bool> over = false;
  std::atomic<int> resets = 0;
  std::thread host([&] {
    for (; !over; std::this_thread::sleep_for(10ms))
      resets += sysfs::write("/sys/bus/pci/devices/" + vf_ + "/reset", "1").has_value();
  });
  for (int opened = 0; opened < 8;) {
    const auto device = vfio::Device::open(*container_, vf_);
    // vfio-pci's own answer while the function is being reset.
    if (!device && device.error().code == EAGAIN) continue;
    EXPECT_TRUE(device) << device.error().text;
    if (!device) break;
    EXPECT_TRUE(device->state());
    ++opened;
  }
  over = true;
  host.join();
  EXPECT_GT(resets, 0);
  const uint64_t told = control_.status(vf_).resets;
  EXPECT_TRUE(sysfs::write("/sys/bus/pci/devices/" + vf_ + "/reset", "1"));
  EXPECT_EQ(control_.status(vf_).resets, told) << "a device that is closed has neither handlers nor BARs";
  const Guest guest(*container_, vf_);
  ASSERT_TRUE(guest.device.reset());
  ASSERT_TRUE(guest.device.enable_memory_and_dma());
  uint32_t value = 0;
  EXPECT_EQ(guest.read32(kHeart, value), 0);
  EXPECT_EQ(value, kFresh);
}

// --------------------------------------------------------------------------------------------- with modules for tests

// The sample handlers want 8 bytes of page 0; behind the channel they guard them from the worker.
TEST_F(RaceTest, RL3_NoWayLeadsAroundAHandlerBehindTheChannel) {
  constexpr uint32_t kGuarded = 0x40;
  const KernelModule sample("samples/vfio_pci_hooks_sample.ko", "vfio_pci_hooks_sample");
  Definition definition = with_heart();
  definition.handlers = {VFIO_PCI_HOOKS_CHANNEL_NAME, "sample-a"};
  start(definition);
  auto stream = device().set_state(VFIO_DEVICE_STATE_RESUMING);
  ASSERT_TRUE(stream);
  EXPECT_EQ(hand_->map_bar(0), EINVAL);
  EXPECT_EQ(hand_->map_bar(kPage), 0) << "what nobody guards";
  EXPECT_EQ(hand_->start_once({VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, kGuarded, 0, 0, 0}), EINVAL);
  EXPECT_EQ(hand_->start_once({VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, kHeart, 0, 0, 0}), 0);
  stream->reset();
  guest_.reset();
  hand_.reset();
  ASSERT_TRUE(sysfs::release(vf_));
  ASSERT_EQ(control_.undefine(vf_), 0);
}

// No device of the emulator can resize a BAR, so a module says that it has been.
TEST_F(RaceTest, RL1_ADefinitionThatNoLongerFitsIsNotBound) {
  ASSERT_EQ(control_.define(with_heart()), 0);
  {
    const KernelModule shrunk("testing/shrink_bar.ko", "shrink_bar", "function=" + vf_ + " bar=0 size=2048");
    EXPECT_FALSE(sysfs::bind(vf_, "vfio-pci-hooks"));
    EXPECT_EQ(sysfs::driver_of(vf_), "");
  }
  EXPECT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
}

// --------------------------------------------------------------------------------------------- a function without a reset

// The display of the emulator can be reset by its program alone.
class SoftwareResetTest : public RaceTest {
 protected:
  static std::string display() {
    for (const auto& function : std::filesystem::directory_iterator("/sys/bus/pci/devices"))
      if (sysfs::read(function.path() / "device").value_or("") == "0x1111") return function.path().filename();
    return {};
  }
};

TEST_F(SoftwareResetTest, RL1_MemoryDecodingStaysAsTheGuestSetIt) {
  const std::string address = display();
  ASSERT_FALSE(address.empty()) << "needs tests/vm/run --device bochs-display";
  ASSERT_NE(::access(("/sys/bus/pci/devices/" + address + "/reset").c_str(), F_OK), 0) << "it has a reset of its own";
  Definition definition;
  definition.address = address;
  definition.vendor = 0x1234;
  definition.device = 0x1111;
  // Long, so that the write of COMMAND finds it running: register by register of the display's mode.
  definition.reset.assign(VFIO_PCI_HOOKS_MAX_STEPS, {VFIO_PCI_HOOKS_STEP_MODIFY, 2, 2, 0, 0x500, 0, 0, 0});
  define_and_bind(definition);
  {
    const Guest guest(*container_, address);
    const auto command = [&](uint16_t value) {
      return guest.device.write<uint16_t>(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, value).has_value();
    };
    // The reset loses its processor in the middle, now earlier, now later.
    (void)sysfs::write("/sys/kernel/debug/sched/preempt", "full");
    pin_to(0);
    Hog hog(1);
    for (int i = 0; i < 200 && !HasFailure(); ++i) {
      ASSERT_TRUE(command(0));
      std::atomic<bool> begun = false;
      std::thread vcpu([&] {
        pin_to(1);
        begun = true;
        EXPECT_TRUE(guest.device.reset());
      });
      while (!begun) {
      }
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(i % 50 * 20);
      while (std::chrono::steady_clock::now() < until) {
      }
      hog.take();
      std::thread other([&] {
        pin_to(0);
        EXPECT_TRUE(command(PCI_COMMAND_MEMORY));
      });
      std::this_thread::sleep_for(1ms);
      hog.give_back();
      vcpu.join();
      other.join();
      const auto config = sysfs::read("/sys/bus/pci/devices/" + address + "/config");
      ASSERT_TRUE(config);
      EXPECT_TRUE((*config)[PCI_COMMAND] & PCI_COMMAND_MEMORY) << "at time " << i;
    }
  }
  ASSERT_TRUE(sysfs::release(address));
  ASSERT_EQ(control_.undefine(address), 0);
}

}  // namespace
}  // namespace hookline::kernel_test
