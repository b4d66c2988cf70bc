// SPDX-License-Identifier: Apache-2.0
//
// Drives the fault matrix (faults.hpp) on a real kernel, cell by cell. After each cell the device is whole and nothing is
// left behind. --markdown prints the matrix as the page in the repository.
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "tests/kernel/faults_bench.hpp"
#include "tests/kernel/faults_streams.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

// ------------------------------------------------------------------------------------------------ memory that runs out

// The kernel's fault injection, for the calling thread.
class NoMemory {
 public:
  static const char* why_not() {
    if (::access("/proc/thread-self/fail-nth", W_OK) != 0) return "the kernel has no fault injection (CONFIG_FAULT_INJECTION)";
    if (::access("/sys/kernel/debug/failslab", F_OK) != 0) return "the kernel cannot make allocations fail (CONFIG_FAILSLAB)";
    return nullptr;
  }
  NoMemory() {
    for (const char* kind : {"failslab", "fail_page_alloc", "fail_usercopy"}) {
      const std::string folder = fmt::format("/sys/kernel/debug/{}/", kind);
      (void)sysfs::write(folder + "ignore-gfp-wait", "N");
      (void)sysfs::write(folder + "min-order", "0");
      (void)sysfs::write(folder + "verbose", "0");
    }
  }
  // Runs `call` again and again, its first allocation failing, its second, until none does. Says how many failed.
  template <typename Call>
  unsigned each(const Call& call) {
    for (unsigned n = 1;; ++n) {
      write_nth(n);
      call();
      if (is_left()) {
        write_nth(0);
        return n - 1;
      }
    }
  }

 private:
  void write_nth(unsigned n) const {
    const std::string text = std::to_string(n);
    if (::pwrite(file_.get(), text.data(), text.size(), 0) < 0) throw std::system_error(errno, std::generic_category(), "fail-nth");
  }
  // The failure that was asked for has not come yet. To hand the number over is one of the things that can fail.
  bool is_left() const {
    char text[16] = {};
    if (::pread(file_.get(), text, sizeof text - 1, 0) >= 0) return std::stoul(text) > 0;
    if (errno != EFAULT) throw std::system_error(errno, std::generic_category(), "fail-nth");
    return true;
  }
  vfio::Descriptor file_{::open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC)};
};

// ------------------------------------------------------------------------------------------------ ways to reset

// The FLR bit of the PCI Express capability, as a guest sets it.
int write_flr(const vfio::Device& device) {
  constexpr uint32_t kConfig = VFIO_PCI_CONFIG_REGION_INDEX;
  uint8_t at = device.read<uint8_t>(kConfig, PCI_CAPABILITY_LIST).value_or(0);
  while (at && device.read<uint8_t>(kConfig, at).value_or(0) != PCI_CAP_ID_EXP)
    at = device.read<uint8_t>(kConfig, at + PCI_CAP_LIST_NEXT).value_or(0);
  if (!at) return ENOENT;
  const uint16_t control = device.read<uint16_t>(kConfig, at + PCI_EXP_DEVCTL).value_or(0);
  const auto done = device.write<uint16_t>(kConfig, at + PCI_EXP_DEVCTL, control | PCI_EXP_DEVCTL_BCR_FLR);
  return done ? 0 : done.error().code;
}

// ------------------------------------------------------------------------------------------------ ways to lose the function

// The VMM is asked by this eventfd to give the device back.
vfio::Descriptor watch_requests(const vfio::Device& device) {
  vfio::Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto watched = device.watch_requests(event.get());
  EXPECT_TRUE(watched) << watched.error().text;
  return event;
}

// A write to sysfs that ends when the VMM has closed the device.
class Removal {
 public:
  Removal(std::string path, std::string text) : thread_([this, path = std::move(path), text = std::move(text)] {
      const auto done = sysfs::write(path, text);
      error_ = done ? 0 : done.error().code;
    }) {}
  int wait() {
    thread_.join();
    return error_;
  }

 private:
  int error_ = 0;
  std::thread thread_;
};

struct Parent {
  std::string address, folder;
  explicit Parent(const std::string& vf)
      : address(std::filesystem::read_symlink("/sys/bus/pci/devices/" + vf + "/physfn").filename()),
        folder("/sys/bus/pci/devices/" + address) {}
  std::string vfs() const { return *sysfs::read(folder + "/sriov_numvfs"); }
  void create_vfs(const std::string& count) const {
    EXPECT_TRUE(sysfs::write(folder + "/sriov_drivers_autoprobe", "0"));
    const auto done = sysfs::write(folder + "/sriov_numvfs", count);
    EXPECT_TRUE(done) << done.error().text;
  }
};

// A card beside those that the machine has set up, or "".
std::string whole_function() {
  const auto pfs = sysfs::test_pfs();
  for (const auto& function : std::filesystem::directory_iterator("/sys/bus/pci/devices")) {
    const std::string address = function.path().filename();
    if (sysfs::read(function.path() / "device").value_or("") != fmt::format("{:#06x}", kPfId)) continue;
    if (std::find(pfs.begin(), pfs.end(), address) == pfs.end()) return address;
  }
  return {};
}

int unload_module() {
  return ::syscall(SYS_delete_module, "vfio_pci_hooks", O_NONBLOCK) == 0 ? 0 : errno;
}

// ------------------------------------------------------------------------------------------------ DMA logging

int ask_logging(const vfio::Device& device, uint32_t what, std::span<std::byte> payload = {}) {
  const auto done = device.feature(what, payload);
  return done ? 0 : done.error().code;
}

// Everything a VMM may get wrong about it, and what is right in between.
void log_dma(const vfio::Device& device) {
  using Range = vfio_device_feature_dma_logging_range;
  constexpr uint64_t kGiB = 1 << 30, kEnd = ~uint64_t{0} - 4095;
  const auto start = [&](std::vector<Range> ranges) {
    vfio_device_feature_dma_logging_control control{};
    control.page_size = 4096;
    control.num_ranges = static_cast<uint32_t>(ranges.size());
    control.ranges = reinterpret_cast<uintptr_t>(ranges.data());
    return ask_logging(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
                       std::as_writable_bytes(std::span(&control, 1)));
  };
  std::vector<uint64_t> bitmap(kGiB / 4096 / 64);
  const auto report = [&](uint64_t iova, uint64_t length) {
    vfio_device_feature_dma_logging_report asked{};
    asked.iova = iova;
    asked.length = length;
    asked.page_size = 4096;
    asked.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
    return ask_logging(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                       std::as_writable_bytes(std::span(&asked, 1)));
  };
  const auto stop = [&] { return ask_logging(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP); };

  const uint32_t probe = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
  if (ask_logging(device, probe) != 0) {
    EXPECT_EQ(start({{0, kGiB}}), ENOTTY);
    EXPECT_EQ(report(0, kGiB), ENOTTY);
    EXPECT_EQ(stop(), ENOTTY);
    return;
  }
  EXPECT_EQ(report(0, kGiB), EINVAL) << "before START";
  EXPECT_EQ(stop(), 0) << "before START";
  EXPECT_EQ(start({}), EINVAL);
  EXPECT_EQ(start({{0, 8192}, {4096, 8192}}), EINVAL) << "overlapping";
  EXPECT_EQ(start({{4096, 0}}), EINVAL) << "empty";
  EXPECT_EQ(start({{kEnd, 8192}}), EOVERFLOW);
  EXPECT_EQ(report(0, kGiB), EINVAL) << "none of them was started";
  EXPECT_EQ(start({{0, uint64_t{1} << 52}}), 0) << "huge";
  EXPECT_EQ(start({{0, 4096}}), EINVAL) << "twice";
  EXPECT_EQ(report(0, kGiB), 0);
  EXPECT_NE(std::ranges::count(bitmap, 0u), static_cast<ptrdiff_t>(bitmap.size()));
  EXPECT_EQ(report(kGiB, 0), EINVAL);
  EXPECT_EQ(report(kEnd, 8192), EOVERFLOW);
  EXPECT_EQ(report(kEnd - kGiB, kGiB), 0) << "outside of what was started";
  EXPECT_EQ(stop(), 0);
  EXPECT_EQ(report(0, kGiB), EINVAL) << "after STOP";
  EXPECT_EQ(start({{0, kGiB}}), 0);
  EXPECT_EQ(report(0, kGiB), 0);
  EXPECT_EQ(stop(), 0);
}

// ------------------------------------------------------------------------------------------------ cells

struct Case {
  Event event;
  State state;
  Outcome outcome;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Row& row : fault_matrix())
    for (const State state : kStates)
      if (!row.at(state).why_not) all.push_back({row.event, state, row.at(state).outcome});
  return all;
}

std::string name_of(const Case& c) { return fmt::format("{}_in_{}", name_of(c.event), vfio::state_name(vfio_state(c.state))); }
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

// Objects in the caches that kmalloc() takes from.
std::map<std::string, long> slabs() {
  for (const auto& cache : std::filesystem::directory_iterator("/sys/kernel/slab"))
    if (cache.path().filename().string().starts_with("kmalloc")) (void)sysfs::write(cache.path() / "shrink", "1");
  std::map<std::string, long> objects;
  std::ifstream file("/proc/slabinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    long active = 0;
    if (words >> name >> active && name.starts_with("kmalloc-")) objects[name] = active;
  }
  return objects;
}

// Memory of sessions and shadows, which is vmalloc's.
long mapped_by_module() {
  std::ifstream file("/proc/vmallocinfo");
  long areas = 0;
  for (std::string line; std::getline(file, line);) areas += line.find("vph_") != std::string::npos;
  return areas;
}

class FaultMatrix : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr uint32_t kAnswered = 0x600d600d;  // to a trapped read, by the worker
  // Cells after which what is allocated once has been.
  static constexpr size_t kWarmUp = 24;

  static void SetUpTestSuite() {
    mapped_before_ = mapped_by_module();
    // A PF whose interface is up starts it anew for each change of the number of its VFs, which takes seconds.
    const Parent pf(sysfs::test_vfs().at(0));
    for (const auto& interface : std::filesystem::directory_iterator(pf.folder + "/net"))
      EXPECT_TRUE(sysfs::write(interface.path() / "flags", "0x1002"));
  }
  static void TearDownTestSuite() {
    bench_.reset();
    EXPECT_EQ(mapped_by_module(), mapped_before_) << "pages of sessions that are no more";
    if (done_ < 2 * kWarmUp) return;
    // What is accounted to its user is mostly the module's: there one object for each cell of a single event shows. The
    // others are everybody's, who frees late and by whole slabs; of them the large ones, where a device left behind by each
    // cell shows.
    const long cells = static_cast<long>(done_ - kWarmUp);
    for (const auto& [cache, objects] : slabs()) {
      const bool accounted = cache.starts_with("kmalloc-cg-");
      if (!accounted && !cache.ends_with('k')) continue;
      EXPECT_LT(objects - slabs_[cache], accounted ? 8 : cells) << cache;
    }
  }

  void SetUp() override {
    const bool whole = GetParam().event == Event::hot_reset_of_function;
    const std::string address = whole ? whole_function() : sysfs::test_vfs().at(0);
    ASSERT_FALSE(address.empty()) << "needs one more card on a port of its own, see tests/kernel/CMakeLists.txt";
    if (bench_ && bench_->address() != address) bench_.reset();
    if (!bench_) bench_ = std::make_unique<Bench>(address, whole ? kPfId : kVfId);
    if (done_++ == kWarmUp) slabs_ = slabs();
    bench().prepare();
    before_ = bench().held();
  }

  void TearDown() override {
    if (HasFailure()) bench_.reset();
  }

  static Bench& bench() { return *bench_; }

  static uint32_t trapped() {
    return bench().device().read<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, kTrapped).value_or(0);
  }

  // What the VMM does while it happens.
  void expect_call(const Case& c) {
    if (c.outcome.error == kNoCall) return;
    int error = bench().use();
    // Whoever moves on piece by piece comes to where it fails, behind what the worker had given ahead.
    const bool saving = c.state == State::pre_copy || c.state == State::pre_copy_p2p || c.state == State::stop_copy;
    const int most = c.event == Event::stream_oversized ? 1000 : saving && c.outcome.error ? VFIO_PCI_HOOKS_STREAM_SLICES + 1 : 0;
    for (int more = 0; !error && more < most; ++more) error = bench().use();
    EXPECT_EQ(error, c.outcome.error) << (error ? strerrorname_np(error) : "it went on");
  }

  void expect_device(const Case& c) {
    ASSERT_EQ(bench().state(), c.outcome.after);
    const bool ran = c.state == State::running || c.state == State::pre_copy;
    switch (c.outcome.device) {
      case Device::as_before: EXPECT_EQ(bench().heart(), ran ? kBeating : kStanding); break;
      case Device::fresh:
        EXPECT_TRUE(bench().device().enable_memory_and_dma());
        [[fallthrough]];
      case Device::scrubbed: EXPECT_EQ(bench().heart(), kFresh); break;
      case Device::gone: EXPECT_FALSE(bench().status().flags & VFIO_PCI_HOOKS_STATUS_OPEN); break;
    }
    const bool incomplete = (bench().status().flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE) != 0;
    if (c.state != State::error) {
      EXPECT_EQ(incomplete, (c.outcome.needs & kResetToMigrate) != 0);
    }
  }

  // Those whom the matrix names make the device whole, and nobody else does.
  void recover(const Case& c) {
    const unsigned needs = c.outcome.needs;
    if (needs & kResetToRun) {
      EXPECT_FALSE(bench().device().set_state(VFIO_DEVICE_STATE_RUNNING)) << "on what the device is now";
      EXPECT_EQ(bench().state(), State::error);
    } else if (c.event == Event::file_shared || c.outcome.error || needs & kWorker) {
      // Cancel or cont, with no worker at hand where it was lost.
      if (bench().is_open()) {
        EXPECT_TRUE(bench().device().set_state(VFIO_DEVICE_STATE_RUNNING));
      }
    } else {
      bench().go_on();
    }
    if (needs & kWorker) {
      // A worker that was revoked and lives may have come back by itself.
      if (c.event == Event::worker_killed || c.event == Event::worker_stopped) {
        EXPECT_FALSE(bench().status().flags & VFIO_PCI_HOOKS_STATUS_SERVED);
      }
      bench().start_worker();
      bench().wait_served();
    }
    if (needs & kOpen) {
      bench().open();
      if (bench().stream()) expect_call(c);
    }
    if (needs & kResetToMigrate) {
      EXPECT_EQ(bench().heart(), kBeating) << "the guest goes on as it is";
      EXPECT_EQ(trapped(), kAnswered);
      const auto copying = bench().device().set_state(VFIO_DEVICE_STATE_PRE_COPY);
      EXPECT_EQ(copying ? 0 : copying.error().code, ENODATA);
    }
    if (needs & (kResetToRun | kResetToMigrate)) bench().reset();
    bench().stream().reset();
  }

  // RUNNING, its worker answers, its registers hold what is written, and its state is saved whole.
  void expect_whole(const Case& c) {
    ASSERT_EQ(bench().state(), State::running);
    const bool untouched = c.outcome.device == Device::as_before &&
                           !(c.outcome.needs & (kResetToRun | kResetToMigrate | kOpen | kBind | kDefine));
    EXPECT_EQ(bench().heart(), untouched ? kBeating : kFresh);
    EXPECT_EQ(trapped(), kAnswered);
    bench().mark();
    bench().enter(State::stop_copy);
    bench().go_on();
    EXPECT_EQ(bench().heart(), kBeating);
    EXPECT_TRUE(sysfs::wait_until([&] { return bench().held() == before_; }, 3s))
        << "references " << before_.references << " to " << bench().held().references << ", files " << before_.files << " to "
        << bench().held().files << ", status " << before_.status << " to " << bench().held().status;
  }

  void inject(const Case& c);
  void lose_function(const Case& c);
  void expect_worker(const Case& c);
  void kill_vmm(const Case& c);
  void share_file(const Case& c);
  void run_out_of_memory(const Case& c);

 private:
  static std::unique_ptr<Bench> bench_;
  static size_t done_;
  static std::map<std::string, long> slabs_;
  static long mapped_before_;
  Held before_;
};
std::unique_ptr<Bench> FaultMatrix::bench_;
size_t FaultMatrix::done_ = 0;
std::map<std::string, long> FaultMatrix::slabs_;
long FaultMatrix::mapped_before_ = 0;

// Two threads move the rest of the stream in pieces that no answer of the worker ends at.
void FaultMatrix::share_file(const Case& c) {
  const int fd = bench().stream().get();
  const bool loads = c.state == State::resuming;
  std::atomic<size_t> moved = bench().moved().size();
  std::atomic<int> wrong = 0;
  std::atomic<bool> over = false;
  const size_t end = c.state == State::pre_copy || c.state == State::pre_copy_p2p ? kPreCopyState : kWholeState;
  std::mutex order;
  const auto mover = [&] {
    uint8_t piece[7];
    for (;;) {
      ssize_t done = 0;
      if (loads) {
        // Who has room for which bytes; the writes themselves meet.
        const size_t length = [&] {
          const std::lock_guard lock(order);
          const size_t some = std::min(sizeof piece, end - std::min<size_t>(end, moved));
          moved += some;
          return some;
        }();
        if (!length) return;
        done = ::write(fd, piece, length);
        if (done != static_cast<ssize_t>(length)) ++wrong;
      } else {
        done = ::read(fd, piece, sizeof piece);
        if (done < 0 && errno != ENOMSG) ++wrong;
        if (done <= 0) return;
        moved += static_cast<size_t>(done);
      }
    }
  };
  std::thread other([&] {
    uint8_t byte = 0;
    while (!over)
      if ((loads ? ::read(fd, &byte, 1) : ::write(fd, &byte, 1)) != -1 || errno != EBADF) ++wrong;
  });
  std::thread one(mover), two(mover);
  one.join();
  two.join();
  over = true;
  other.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(moved, end);
  if (loads) {
    EXPECT_EQ(bench().board().loaded_bytes, uint64_t{kWholeState});
  }
}

void FaultMatrix::run_out_of_memory(const Case& c) {
  NoMemory memory;
  const auto next = [&]() -> uint32_t {
    switch (c.state) {
      case State::running: return VFIO_DEVICE_STATE_PRE_COPY;
      case State::running_p2p: return VFIO_DEVICE_STATE_PRE_COPY_P2P;
      case State::stop: return VFIO_DEVICE_STATE_STOP_COPY;
      case State::pre_copy: return VFIO_DEVICE_STATE_PRE_COPY_P2P;
      case State::pre_copy_p2p: return VFIO_DEVICE_STATE_STOP_COPY;
      case State::stop_copy: return VFIO_DEVICE_STATE_STOP;
      default: return ~0u;
    }
  }();
  const uint32_t here = vfio_state(c.state);
  unsigned failed = 0;
  if (next != ~0u) {
    failed += memory.each([&] {
      auto reached = bench().device().set_state(next);
      const uint32_t now = bench().device().state().value_or(here);
      // Not half way: there with a descriptor, or still here.
      EXPECT_TRUE(now == here || now == next) << vfio::state_name(now);
    });
    EXPECT_TRUE(bench().device().set_state(VFIO_DEVICE_STATE_RUNNING));
    bench().stream().reset();
    bench().moved().clear();
    bench().enter(c.state);
  }
  failed += memory.each([&] { (void)bench().use(); });
  fmt::print("{} allocations failed\n", failed);
  // A copy to or from the VMM may have failed as well; what it read is lost to it, and so the stream is begun anew.
  if (bench().stream()) {
    bench().stream().reset();
    bench().reset();
    bench().moved().clear();
    ASSERT_EQ(bench().device().write<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, kHeart, kBeating).has_value(), true);
    bench().enter(c.state);
  }
}

void FaultMatrix::kill_vmm(const Case& c) {
  bench().close();
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const uint64_t sessions = bench().board().sessions;
  const pid_t vmm = ::fork();
  if (vmm == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(ready[1], 3);
    ::close_range(4, ~0u, 0);
    try {
      auto container = vfio::Container::create();
      const Guest guest(*container, bench().address());
      const uint32_t through = vfio_state(c.state == State::error ? State::resuming : c.state);
      auto stream = guest.device.set_state(through);
      if (c.state == State::error) (void)guest.device.set_state(VFIO_DEVICE_STATE_STOP);
      char byte = 0;
      if (stream && *stream) (void)!(c.state == State::resuming ? ::write(stream->get(), &byte, 1) : ::read(stream->get(), &byte, 1));
      if (guest.device.state().value_or(99) == vfio_state(c.state)) (void)!::write(3, "", 1);
      ::pause();
    } catch (...) {
    }
    ::_exit(1);
  }
  ::close(ready[1]);
  char byte = 0;
  const ssize_t got = ::read(ready[0], &byte, 1);
  ::close(ready[0]);
  EXPECT_EQ(got, 1) << "the VMM did not come to its state";
  EXPECT_TRUE(sysfs::wait_until([&] { return bench().board().sessions > sessions; }, 5s));
  ::kill(vmm, SIGKILL);
  ::waitpid(vmm, nullptr, 0);
}

// The function is on its way out while the VMM goes on.
void FaultMatrix::lose_function(const Case& c) {
  const Parent pf(bench().address());
  const std::string count = pf.vfs();
  const vfio::Descriptor asked = watch_requests(bench().device());
  const auto [path, text] = [&]() -> std::pair<std::string, std::string> {
    switch (c.event) {
      case Event::vfs_removed: return {pf.folder + "/sriov_numvfs", "0"};
      case Event::pf_unbound: return {pf.folder + "/driver/unbind", pf.address};
      default: return {"/sys/bus/pci/devices/" + bench().address() + "/driver/unbind", bench().address()};
    }
  }();
  Removal removal(path, text);
  uint64_t times = 0;
  EXPECT_TRUE(sysfs::wait_until([&] { return ::read(asked.get(), &times, sizeof times) == sizeof times; }, 10s))
      << "nobody asked the VMM for the device";
  expect_call(c);
  expect_device(c);
  const auto reset = bench().device().reset();
  EXPECT_EQ(reset ? 0 : reset.error().code, EAGAIN);
  if (c.state != State::error) bench().go_on();

  bench().stream().reset();
  bench().close();
  EXPECT_EQ(removal.wait(), 0);
  EXPECT_EQ(bench().worker().ended_by(), 0) << "the worker is told that the function is gone";
  if (c.event == Event::pf_unbound) {
    EXPECT_FALSE(sysfs::exists(bench().address()));
    const auto bound = sysfs::write("/sys/bus/pci/drivers/igb/bind", pf.address);
    EXPECT_TRUE(bound) << bound.error().text;
  }
  if (c.event != Event::vf_unbound) pf.create_vfs(count);
  // A function that was made anew has no definition, one that stayed still has it.
  const auto bound = sysfs::bind(bench().address(), "vfio-pci-hooks");
  EXPECT_TRUE(bound) << bound.error().text;
  const int attached = Control().attach(bench().address());
  EXPECT_EQ(attached < 0 ? -attached : 0, c.outcome.needs & kBind ? 0 : ENOENT);
  if (attached >= 0) ::close(attached);
  EXPECT_TRUE(sysfs::unbind(bench().address()));
  bench().define_and_bind();
  bench().start_worker();
  bench().open();
}

void FaultMatrix::inject(const Case& c) {
  Board& board = bench().board();
  const uint32_t request = c.state == State::resuming                    ? VFIO_PCI_HOOKS_REQ_LOAD
                           : bench().stream() ? VFIO_PCI_HOOKS_REQ_SAVE : VFIO_PCI_HOOKS_REQ_READ;
  switch (c.event) {
    case Event::worker_killed: return bench().worker().kill();
    case Event::worker_stopped:
      bench().worker().signal(SIGSTOP);
      EXPECT_TRUE(sysfs::wait_until([&] { return bench().worker().is_stopped(); }, 5s));
      return;
    case Event::answer_to_wrong_slot: board.lie = Lie::slot; return;
    case Event::answer_of_wrong_length: board.lie = Lie::length; return;
    case Event::answered_twice: board.lie = Lie::twice; return;
    case Event::answered_late: board.hang_at = request; return;
    case Event::device_reset: EXPECT_TRUE(bench().device().reset()); return;
    case Event::flr: EXPECT_EQ(write_flr(bench().device()), 0); return;
    case Event::sysfs_reset: {
      const auto done = sysfs::write("/sys/bus/pci/devices/" + bench().address() + "/reset", "1");
      EXPECT_TRUE(done) << done.error().text;
      return;
    }
    case Event::hot_reset_of_vf: EXPECT_FALSE(bench().device().hot_reset()); return;
    case Event::hot_reset_of_function: {
      const auto done = bench().device().hot_reset();
      EXPECT_TRUE(done) << done.error().text;
      return;
    }
    case Event::module_unload: EXPECT_EQ(unload_module(), EWOULDBLOCK); return;
    case Event::no_memory: return run_out_of_memory(c);
    case Event::dma_logging: return log_dma(bench().device());
    case Event::file_closed: bench().stream().reset(); return;
    case Event::file_kept: bench().close(); return;
    case Event::stream_oversized:
      board.pre_copy_bytes = board.state_bytes = 2 * kMaxState;
      board.save_at_once = 4096;
      return;
    default: return;
  }
}

// What only the worker can have seen.
void FaultMatrix::expect_worker(const Case& c) {
  Board& board = bench().board();
  switch (c.event) {
    case Event::answer_to_wrong_slot:
    case Event::answer_of_wrong_length:
    case Event::answered_twice:
      EXPECT_TRUE(sysfs::wait_until([&] { return board.refused_answers > 0; }, 5s)) << "the lie was believed";
      board.lie = Lie::none;
      return;
    case Event::answered_late:
      bench().worker().signal(SIGCONT);
      EXPECT_EQ(bench().worker().ended_by(), SIGBUS) << "its pages are gone";
      EXPECT_EQ(board.late_rw, ECANCELED);
      EXPECT_EQ(board.late_next, ECANCELED);
      return;
    default: return;
  }
}

TEST_P(FaultMatrix, RL1_RL2_RL5_MP3_MP4_EndsAsThePageSays) {
  const Case& c = GetParam();
  if (c.event == Event::no_memory && NoMemory::why_not())
    FAIL() << NoMemory::why_not() << "; HOOKLINE_FAULTS=enough-memory leaves these cells out";
  if (is_inside_stream(c.event)) return run_stream_cell(sysfs::test_vfs().at(1), c.event, c.outcome);
  bench().board().refused_answers = 0;
  if (c.event == Event::vmm_killed) {
    kill_vmm(c);
  } else {
    bench().enter(c.state);
    if (c.outcome.needs & (kBind | kDefine)) {
      lose_function(c);
      return expect_whole(c);
    }
    inject(c);
  }
  if (c.event == Event::file_shared) {
    share_file(c);
  } else {
    expect_call(c);
  }
  expect_worker(c);
  expect_device(c);
  if (HasFatalFailure()) return;
  recover(c);
  if (HasFatalFailure()) return;
  expect_whole(c);
}

enum class Run { quick, slow, no_memory };

// Quick: each event in some states, and all states among them: every third cell, another third for each event. To remove
// functions takes seconds.
Run run_of(const Case& c) {
  if (c.event == Event::no_memory) return Run::no_memory;
  const auto event = static_cast<size_t>(c.event), state = static_cast<size_t>(c.state);
  const bool slow = c.event == Event::vfs_removed || c.event == Event::pf_unbound;
  const bool quick = slow ? state == event % kStates.size() : state % 3 == event % 3 || is_inside_stream(c.event);
  return quick ? Run::quick : Run::slow;
}

std::vector<Case> cases(Run run) {
  std::vector<Case> some;
  for (const Case& c : cases())
    if (run_of(c) == run) some.push_back(c);
  return some;
}

auto name_of_cell = [](const ::testing::TestParamInfo<Case>& c) { return name_of(c.param); };
INSTANTIATE_TEST_SUITE_P(Quick, FaultMatrix, ::testing::ValuesIn(cases(Run::quick)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(Slow, FaultMatrix, ::testing::ValuesIn(cases(Run::slow)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(NoMemory, FaultMatrix, ::testing::ValuesIn(cases(Run::no_memory)), name_of_cell);

// What HOOKLINE_FAULTS names of it: variables of this kind reach the virtual machine, arguments of its test binaries do not.
struct Selection {
  std::string_view name, filter;
};
constexpr Selection kSelections[] = {{"short", "-Slow/*"}, {"enough-memory", "-NoMemory/*"}};

void select(std::string_view name) {
  const auto* selection = std::ranges::find(kSelections, name, &Selection::name);
  if (selection == std::end(kSelections)) throw std::invalid_argument(fmt::format("HOOKLINE_FAULTS={}: short or enough-memory", name));
  ::testing::GTEST_FLAG(filter) = selection->filter;
}

}  // namespace
}  // namespace hookline::kernel_test

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--markdown") {
    std::cout << hookline::kernel_test::fault_matrix_page();
    return 0;
  }
  ::testing::InitGoogleTest(&argc, argv);
  if (const char* name = std::getenv("HOOKLINE_FAULTS")) hookline::kernel_test::select(name);
  return RUN_ALL_TESTS();
}
