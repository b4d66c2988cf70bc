// SPDX-License-Identifier: Apache-2.0
//
// The library's end of the hook channel on a real kernel: two VFs, a plugin that takes their mailbox memory
// for registers, a VFIO client, and workers that are threads of the test.
#include <hookline/hook_channel.hpp>

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hookline/chain_descriptor.hpp>
#include <hookline/hook_serve.hpp>
#include <hookline/plugin.hpp>

#include "tests/kernel/hooks.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline {
namespace {

using namespace std::chrono_literals;
using kernel_test::parse_address;
using ::testing::HasSubstr;

// Words of the mailbox memory of an 82576 VF, which hold what is written.
constexpr uint32_t kStatus = 0x8, kTrapped = 0x808, kEnable = 0x820, kPlain = 0x824;
constexpr uint64_t kBarSize = 0x4000, kIova = 0x100000;

// Values that make the plugin do something.
constexpr uint32_t kFail = 0xbad, kCompareMapping = 0x3a9, kReadGuest = 0x10, kAskTouched = 0x40;

std::atomic<int> answer_after_ms = 0;

// The module as it was when a session had one slice: it refuses to map more. How often it did.
std::atomic<bool> module_is_older = false;
std::atomic<int> refused_mappings = 0;
// ... and when NEXT had no flags.
std::atomic<int> refused_watches = 0;

class Mailbox final : public MigrationOwner {
 public:
  explicit Mailbox(Device& dev) : dev_(dev), shadow_(dev) {}

  Answer on_read(Access& a) override {
    // In its mapping of the BAR, which a session that ends takes away.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(answer_after_ms);
    size_t length = 0;
    const volatile void* bar = answer_after_ms > 0 ? dev_.map_bar(0, length) : nullptr;
    while (std::chrono::steady_clock::now() < until) (void)static_cast<const volatile uint32_t*>(bar)[kStatus / 4];
    a.value = shadow_->written + 1;
    return Answer::handled;
  }
  Answer on_write(Access& a) override {
    shadow_->written = a.value32();
    if (a.value32() == kFail) raise(EPROTO, "a bad word");
    if (a.value32() == kCompareMapping) compare_mapping();
    if (a.value32() == kReadGuest) read_guest();
    if (a.value32() == kAskTouched) ask_touched();
    dev_.run_rest(a);
    return Answer::handled;
  }
  void on_reset() override { ++resets; }

  void compare_mapping() const {
    size_t length = 0;
    const volatile void* bar = dev_.map_bar(0, length);
    if (length != kBarSize) raise(EBADMSG, "the mapping has another length than the BAR");
    if (static_cast<const volatile uint32_t*>(bar)[kStatus / 4] != dev_.read32(0, kStatus))
      raise(EBADMSG, "a mapping and a call show different registers");
  }
  void ask_touched() {
    std::vector<uint64_t> pages;
    dev_.touched(0, 0, kBarSize / 4096, pages);
    shadow_->written = static_cast<uint32_t>(pages[0]);
  }
  void read_guest() const {
    uint32_t word = 0;
    dev_.iova_read(kIova, std::as_writable_bytes(std::span(&word, 1)));
    if (word != 0x5a5a5a5a) raise(EBADMSG, "this is not what the guest has in its memory");
  }

  void save(SectionWriter& out) override {
    out.u32("written", shadow_->written);
    out.u32("enable", dev_.saved(0));
    out.u32("plain", dev_.read32(0, kPlain));
  }
  void load(SectionReader& in) override {
    written_ = in.u32("written", below(0x1000));
    enable_ = in.u32("enable", anything());
    plain_ = in.u32("plain", anything());
  }
  void apply() override {
    shadow_->written = written_;
    dev_.write32(0, kPlain, plain_);
    const hookline_step start[] = {hookline::write(0, kEnable, enable_)};
    dev_.start_once(start);
  }

  static std::atomic<int> resets;

 private:
  struct Shadow {
    uint32_t written;
  };
  Device& dev_;
  ShadowRef<Shadow> shadow_;
  uint32_t written_ = 0, enable_ = 0, plain_ = 0;
};
std::atomic<int> Mailbox::resets = 0;

constexpr PluginInfo kInfo = {
    .name = "mailbox",
    .version = "1",
    .model = "com.example/mailbox",
    .migration_version = "1",
    .traps =
        {{.region = 0, .ops = HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE, .offset = kTrapped, .length = 4}},
    .stop = {save(0, kEnable, 0), clear_bits(0, kEnable, 1), poll(0, kEnable, 1, 0, 1000)},
    .start = {restore(0, kEnable, 0)},
    .reset = {write(0, kPlain, 0)},
    .shadow_size = 4,
    .max_state = 12,
};
const hookline_plugin kPlugin = detail::describe<Mailbox>(kInfo);

// A state of several slices, one section after the other.
class Large final : public MigrationOwner {
 public:
  static constexpr size_t kParts = 6, kPart = 900000;

  explicit Large(Device&) : part_(kPart) {}
  void save(SectionWriter& out) override {
    std::ranges::fill(part_, static_cast<std::byte>(saved_ + 1));
    out.bytes("part", part_);
    saved_ = (saved_ + 1) % kParts;
    if (saved_ != 0) out.more();
  }
  void load(SectionReader& in) override { in.bytes("part", part_); }
  void apply() override { ++applied; }

  static std::atomic<int> applied;

 private:
  std::vector<std::byte> part_;
  size_t saved_ = 0;
};
std::atomic<int> Large::applied = 0;

constexpr PluginInfo kLargeInfo = {
    .name = "large",
    .version = "1",
    .model = "com.example/large",
    .migration_version = "1",
    .max_state = Large::kParts * (Large::kPart + 100),
};
const hookline_plugin kLargePlugin = detail::describe<Large>(kLargeInfo);

/// A worker: attached as long as it lives, serving one open after the other.
class Worker {
 public:
  Worker(const ControlDevice& control, const std::string& address, const Chain& chain)
      : busy_poll_(::testing::WithParamInterface<std::chrono::microseconds>::GetParam()),
        channel_(std::move(*control.attach(parse_address(address)))),
        thread_([this, &chain] { run(chain); }) {}
  ~Worker() {
    stop_ = true;
    thread_.join();
  }
  std::atomic<int> sessions = 0, again = 0, closed = 0, revoked = 0, warnings = 0;

 private:
  void run(const Chain& chain) {
    while (!stop_) {
      const auto session = channel_.wait_open(chain, false);
      if (!session) {
        std::this_thread::sleep_for(5ms);
        continue;
      }
      ++sessions;
      again += (*session)->again();
      const auto device = OpenDevice::open(chain, **session, {});
      if (!device) return;
      const auto end = serve(**session, **device,
                             {.log = [this](uint32_t level, auto...) { warnings += level == HOOKLINE_LOG_WARNING; },
                              .should_stop = [this] { return stop_.load(); },
                              .idle_ms = 20,
                              .busy_poll = busy_poll_});
      EXPECT_TRUE(end) << end.error().text;
      closed += end && *end == ServeEnd::closed;
      revoked += end && *end == ServeEnd::revoked;
    }
  }
  const std::chrono::microseconds busy_poll_;
  std::atomic<bool> stop_ = false;
  Channel channel_;
  std::thread thread_;
};

/// With a worker that sleeps between requests, and with one that watches for them so long.
class HookChannelTest : public ::testing::TestWithParam<std::chrono::microseconds> {
 protected:
  void SetUp() override {
    vfs_ = sysfs::test_vfs();
    ASSERT_GE(vfs_.size(), 2U);
    auto container = vfio::Container::create();
    ASSERT_TRUE(container) << container.error().text;
    container_.emplace(std::move(*container));
    answer_after_ms = 0;
    module_is_older = false;
    refused_mappings = refused_watches = Large::applied = 0;
    Mailbox::resets = 0;
  }
  void TearDown() override {
    container_.reset();
    for (const std::string& vf : vfs_) {
      EXPECT_TRUE(sysfs::release(vf));
      (void)control_.undefine(parse_address(vf));
    }
  }
  void bind(const std::string& vf, uint32_t memory = VFIO_PCI_HOOKS_MEMORY_NONE) { bind(vf, chain_, memory); }
  void bind(const std::string& vf, const Chain& chain, uint32_t memory = VFIO_PCI_HOOKS_MEMORY_NONE) {
    const Result<void> defined = control_.define({.address = parse_address(vf),
                                                  .vendor = 0x8086,
                                                  .device = 0x10ca,
                                                  .guest_memory = memory,
                                                  .access_limit_ms = 300},
                                                 chain);
    ASSERT_TRUE(defined) << defined.error().text;
    const auto bound = sysfs::bind(vf, "vfio-pci-hooks");
    ASSERT_TRUE(bound) << bound.error().text;
  }
  vfio::Device open(const std::string& vf) {
    auto device = vfio::Device::open(*container_, vf);
    EXPECT_TRUE(device) << device.error().text;
    EXPECT_TRUE(device->enable_memory_and_dma());
    EXPECT_TRUE(sysfs::wait_until([&] { return served(vf); }, 5s));
    return std::move(*device);
  }
  bool served(const std::string& vf) {
    return control_.status(parse_address(vf))->flags & VFIO_PCI_HOOKS_STATUS_SERVED;
  }
  static uint32_t read32(const vfio::Device& device, uint64_t offset) {
    return *device.read<uint32_t>(0, offset);
  }

  size_t record_size() const {
    return StreamWriter::create(*migration_version(chain_, chain_.init_values(), ""))->pending();
  }

  const Chain chain_ = *build_chain({*make_link(kPlugin)});
  ControlDevice control_ = std::move(*ControlDevice::open());
  std::vector<std::string> vfs_;
  std::optional<vfio::Container> container_;
};

TEST_P(HookChannelTest, AWorkerServesAccessesWithEverythingThePluginAsksFor) {
  alignas(4096) static std::array<std::byte, 4096> memory;
  memory.fill(std::byte{0x5a});
  bind(vfs_[0], VFIO_PCI_HOOKS_MEMORY_READ);
  Worker worker(control_, vfs_[0], chain_);
  const vfio::Device vf = open(vfs_[0]);
  ASSERT_TRUE(container_->map_dma(kIova, memory));
  ASSERT_TRUE(vf.write<uint32_t>(0, kTrapped, 7));
  EXPECT_EQ(read32(vf, kTrapped), 8U);
  EXPECT_EQ(vf.write<uint32_t>(0, kTrapped, kFail).error().code, EPROTO);
  EXPECT_TRUE(vf.write<uint32_t>(0, kTrapped, kCompareMapping));
  EXPECT_TRUE(vf.write<uint32_t>(0, kTrapped, kReadGuest));
  EXPECT_EQ(control_.status(parse_address(vfs_[0]))->missed, 0U);
  ASSERT_TRUE(vf.reset());
  EXPECT_TRUE(sysfs::wait_until([] { return Mailbox::resets > 0; }, 5s));
}

TEST_P(HookChannelTest, GuestMemoryThatIsNotGrantedIsRefused) {
  bind(vfs_[0]);
  Worker worker(control_, vfs_[0], chain_);
  const vfio::Device vf = open(vfs_[0]);
  EXPECT_EQ(vf.write<uint32_t>(0, kTrapped, kReadGuest).error().code, EPERM);
}

TEST_P(HookChannelTest, APluginHearsWhichPagesTheGuestTouched) {
  bind(vfs_[0]);
  Worker worker(control_, vfs_[0], chain_);
  const vfio::Device vf = open(vfs_[0]);
  ASSERT_TRUE(vf.write<uint32_t>(0, kTrapped, kAskTouched));
  EXPECT_EQ(read32(vf, kTrapped), 0xfU + 1) << "nobody kept track before";
  read32(vf, 0x2800);
  ASSERT_TRUE(vf.write<uint32_t>(0, kTrapped, kAskTouched));
  EXPECT_EQ(read32(vf, kTrapped), 0b101U + 1) << "page 0 by the question before, and page 2";
}

TEST_P(HookChannelTest, TheShadowSurvivesTheWorkerAndNotTheOpen) {
  bind(vfs_[0]);
  auto worker = std::make_unique<Worker>(control_, vfs_[0], chain_);
  {
    const vfio::Device vf = open(vfs_[0]);
    ASSERT_TRUE(vf.write<uint32_t>(0, kTrapped, 7));
    worker.reset();
    EXPECT_FALSE(served(vfs_[0]));
    worker = std::make_unique<Worker>(control_, vfs_[0], chain_);
    ASSERT_TRUE(sysfs::wait_until([&] { return worker->again == 1; }, 5s));
    EXPECT_EQ(read32(vf, kTrapped), 8U);
  }
  EXPECT_TRUE(sysfs::wait_until([&] { return worker->closed == 1; }, 5s));
  const vfio::Device vf = open(vfs_[0]);
  EXPECT_EQ(read32(vf, kTrapped), 1U);
  EXPECT_EQ(worker->again, 1) << "of the first open only";
}

TEST_P(HookChannelTest, ALateWorkerLosesItsSession) {
  bind(vfs_[0]);
  Worker worker(control_, vfs_[0], chain_);
  const vfio::Device vf = open(vfs_[0]);
  answer_after_ms = 1500;
  (void)read32(vf, kTrapped);
  EXPECT_TRUE(sysfs::wait_until([&] { return worker.revoked == 1; }, 5s));
  EXPECT_EQ(control_.status(parse_address(vfs_[0]))->revoked, 1U);
}

TEST_P(HookChannelTest, MovesADeviceToAnotherVfInAnyCut) {
  for (int i = 0; i < 2; ++i) bind(vfs_[i]);
  Worker source_worker(control_, vfs_[0], chain_), destination_worker(control_, vfs_[1], chain_);
  const vfio::Device source = open(vfs_[0]), destination = open(vfs_[1]);
  ASSERT_TRUE(source.write<uint32_t>(0, kTrapped, 7));
  ASSERT_TRUE(source.write<uint32_t>(0, kEnable, 0x81));
  ASSERT_TRUE(source.write<uint32_t>(0, kPlain, 0xcafe));

  for (const size_t cut : {1UL, 7UL, 65536UL}) {
    SCOPED_TRACE(cut);
    ASSERT_TRUE(destination.reset());
    std::vector<std::byte> stream, piece(cut);
    const auto drain = [&](const vfio::Descriptor& fd) {
      ssize_t got = 0;
      while ((got = ::read(fd.get(), piece.data(), piece.size())) > 0)
        stream.insert(stream.end(), piece.begin(), piece.begin() + got);
      return got < 0 ? errno : 0;
    };
    auto data = source.set_state(VFIO_DEVICE_STATE_PRE_COPY);
    ASSERT_TRUE(data) << data.error().text;
    EXPECT_EQ(vfio::precopy_info(*data)->initial_bytes, record_size());
    EXPECT_EQ(drain(*data), ENOMSG);
    EXPECT_EQ(stream.size(), record_size());
    ASSERT_TRUE(source.set_state(VFIO_DEVICE_STATE_STOP_COPY));
    EXPECT_EQ(drain(*data), 0);
    EXPECT_LE(stream.size(), chain_.max_state());
    ASSERT_TRUE(source.set_state(VFIO_DEVICE_STATE_RUNNING)) << "cancelled: the source goes on";
    EXPECT_EQ(read32(source, kEnable), 0x81U);

    auto sink = destination.set_state(VFIO_DEVICE_STATE_RESUMING);
    ASSERT_TRUE(sink) << sink.error().text;
    for (size_t at = 0; at < stream.size(); at += cut) {
      const size_t length = std::min(cut, stream.size() - at);
      ASSERT_EQ(::write(sink->get(), stream.data() + at, length), static_cast<ssize_t>(length))
          << "at " << at;
    }
    ASSERT_TRUE(destination.set_state(VFIO_DEVICE_STATE_RUNNING));
    EXPECT_EQ(read32(destination, kTrapped), 8U);
    EXPECT_EQ(read32(destination, kPlain), 0xcafeU);
    EXPECT_EQ(read32(destination, kEnable), 0x81U) << "by the replaced start program";

    stream[stream.size() / 2] ^= std::byte{1};
    sink = destination.set_state(VFIO_DEVICE_STATE_RESUMING);
    ASSERT_TRUE(sink);
    EXPECT_LT(::write(sink->get(), stream.data(), stream.size()), 0);
    EXPECT_EQ(destination.set_state(VFIO_DEVICE_STATE_RUNNING).error().code, EINVAL);
  }
}

// A VMM takes a write() that returns for loaded: what is wrong in the last 24 bytes of 5 MiB fails the one write they are in.
TEST_P(HookChannelTest, RL2_ATrailerThatIsWrongFailsTheWriteOfTheWholeStream) {
  const Chain chain = *build_chain({*make_link(kLargePlugin)});
  bind(vfs_[0], chain);
  Worker worker(control_, vfs_[0], chain);
  const vfio::Device vf = open(vfs_[0]);
  std::vector<std::byte> stream(chain.max_state());
  size_t size = 0;
  auto data = vf.set_state(VFIO_DEVICE_STATE_STOP_COPY);
  ASSERT_TRUE(data) << data.error().text;
  ssize_t got = 0;
  while ((got = ::read(data->get(), stream.data() + size, stream.size() - size)) > 0) size += static_cast<size_t>(got);
  ASSERT_EQ(got, 0) << errno;
  ASSERT_GT(size, size_t{5} << 20);
  const auto load = [&] {
    auto sink = vf.set_state(VFIO_DEVICE_STATE_RESUMING);
    if (!sink) return sink.error().code;
    return ::write(sink->get(), stream.data(), size) == static_cast<ssize_t>(size) ? 0 : errno;
  };
  for (const size_t from_end : {24U, 17U, 8U, 1U}) {
    SCOPED_TRACE(from_end);
    stream[size - from_end] ^= std::byte{1};
    EXPECT_NE(load(), 0);
    EXPECT_EQ(Large::applied, 0);
    EXPECT_FALSE(vf.set_state(VFIO_DEVICE_STATE_RUNNING));
    ASSERT_TRUE(vf.reset());
    stream[size - from_end] ^= std::byte{1};
  }
  EXPECT_EQ(load(), 0);
  EXPECT_EQ(Large::applied, 1);
  EXPECT_TRUE(vf.set_state(VFIO_DEVICE_STATE_RUNNING));
}

TEST_P(HookChannelTest, LD1_AnOlderModulesOneSliceIsEnough) {
  module_is_older = true;
  const Chain chain = *build_chain({*make_link(kLargePlugin)});
  for (int i = 0; i < 2; ++i) bind(vfs_[i], chain);
  Worker source_worker(control_, vfs_[0], chain), destination_worker(control_, vfs_[1], chain);
  const vfio::Device source = open(vfs_[0]), destination = open(vfs_[1]);
  auto data = source.set_state(VFIO_DEVICE_STATE_STOP_COPY);
  auto sink = destination.set_state(VFIO_DEVICE_STATE_RESUMING);
  ASSERT_TRUE(data && sink);
  std::vector<std::byte> piece(VFIO_PCI_HOOKS_STREAM_SLICE);
  size_t moved = 0;
  for (;;) {
    const ssize_t got = ::read(data->get(), piece.data(), piece.size());
    ASSERT_GE(got, 0) << errno;
    if (got == 0) break;
    ASSERT_EQ(::write(sink->get(), piece.data(), static_cast<size_t>(got)), got) << errno;
    moved += static_cast<size_t>(got);
  }
  EXPECT_GT(moved, size_t{5} << 20);
  EXPECT_EQ(Large::applied, 1);
  EXPECT_TRUE(destination.set_state(VFIO_DEVICE_STATE_RUNNING));
  EXPECT_EQ(refused_mappings, 2);
  const int watches = GetParam() > 0us ? 1 : 0;
  EXPECT_EQ(refused_watches, 2 * watches) << "it does not ask again";
  EXPECT_EQ(source_worker.warnings, watches);
  EXPECT_EQ(destination_worker.warnings, watches);
}

TEST_P(HookChannelTest, RefusalsSayWhatWasAskedOfWhichDevice) {
  const auto missing = control_.attach(parse_address(vfs_[0]));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
  EXPECT_THAT(missing.error().text, HasSubstr(vfs_[0]));
  const auto other = control_.define({.address = parse_address(vfs_[0]), .vendor = 0x8086, .device = 1}, chain_);
  EXPECT_EQ(other.error().code, ENODEV);
  bind(vfs_[0]);
  const auto first = control_.attach(parse_address(vfs_[0]));
  ASSERT_TRUE(first);
  EXPECT_EQ(control_.attach(parse_address(vfs_[0])).error().code, EBUSY);
  EXPECT_EQ(control_.undefine(parse_address(vfs_[0])).error().code, EBUSY);
  EXPECT_FALSE(ControlDevice::open("/dev/no-such-device"));
}

INSTANTIATE_TEST_SUITE_P(Worker, HookChannelTest, ::testing::Values(0us, 10ms),
                         [](const auto& kind) { return kind.param > 0us ? "Watches" : "Sleeps"; });

}  // namespace

// The library's mmap and ioctl, in whose places the linker puts these.
extern "C" void* __real_mmap(void* at, size_t length, int protection, int flags, int fd, off_t offset);
extern "C" void* __wrap_mmap(void* at, size_t length, int protection, int flags, int fd, off_t offset) {
  if (module_is_older && static_cast<uint64_t>(offset) == VFIO_PCI_HOOKS_MMAP_STREAM && length > VFIO_PCI_HOOKS_STREAM_SLICE) {
    ++refused_mappings;
    errno = EINVAL;
    return MAP_FAILED;
  }
  return __real_mmap(at, length, protection, flags, fd, offset);
}

extern "C" int __real_ioctl(int fd, unsigned long request, void* argument);
extern "C" int __wrap_ioctl(int fd, unsigned long request, void* argument) {
  if (module_is_older && request == VFIO_PCI_HOOKS_NEXT && static_cast<const vfio_pci_hooks_next*>(argument)->flags) {
    ++refused_watches;
    errno = EINVAL;
    return -1;
  }
  return __real_ioctl(fd, request, argument);
}

}  // namespace hookline
