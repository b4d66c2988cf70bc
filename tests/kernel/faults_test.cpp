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
#include "tests/kernel/faults_logging.hpp"
#include "tests/kernel/faults_painter.hpp"
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

int unload_module() {
  return ::syscall(SYS_delete_module, "vfio_pci_hooks", O_NONBLOCK) == 0 ? 0 : errno;
}

// ------------------------------------------------------------------------------------------------ cells

struct Case {
  Kind kind;
  Event event;
  State state;
  Outcome outcome;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Kind kind : kKinds)
    for (const Row& row : fault_matrix())
      for (const State state : kStates)
        if (!row.at(kind, state).why_not) all.push_back({kind, row.event, state, row.at(kind, state).outcome});
  return all;
}

bool is_bulk_stream(const Case& c) {
  return c.kind == Kind::gpu &&
         (is_inside_stream(c.event) || c.event == Event::stream_oversized || c.event == Event::stream_outside);
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
  // Cells after which what is allocated once has been.
  static constexpr size_t kWarmUp = 24;

  static void SetUpTestSuite() {
    mapped_before_ = mapped_by_module();
    if (sysfs::test_vfs().empty()) return;
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
    const Case& c = GetParam();
    const std::pair on = {c.kind, c.event == Event::hot_reset_of_function};
    if (on != on_) bench_.reset();
    on_ = on;
    if (!bench_) bench_ = std::make_unique<Bench>(subject_of(c));
    if (done_++ == kWarmUp) slabs_ = slabs();
    bench().prepare();
    before_ = bench().held();
  }

  void TearDown() override {
    if (HasFailure()) bench_.reset();
  }

  static Bench& bench() { return *bench_; }

  static std::unique_ptr<Subject> subject_of(const Case& c) {
    switch (c.kind) {
      case Kind::gpu: return make_gpu();
      case Kind::logging_nic: return make_logging_nic();
      default: return make_nic(c.event == Event::hot_reset_of_function);
    }
  }

  // What the VMM does while it happens.
  void expect_call(const Case& c) {
    if (c.outcome.error == kNoCall) return;
    int error = bench().use();
    // Whoever moves on piece by piece comes to where it fails, behind what the worker had given ahead.
    const bool saving = c.state == State::pre_copy || c.state == State::pre_copy_p2p || c.state == State::stop_copy;
    const int most = c.event == Event::stream_oversized ? 1000 : saving && c.outcome.error ? VFIO_PCI_HOOKS_STREAM_SLICES + 1 : 0;
    for (int more = 0; !error && more < most; ++more) error = bench().use();
    // The library's worker promises to have no word about bulk for a while: what is written meanwhile is not waited for, and the
    // stream's last byte is.
    if (is_bulk_stream(c) || (c.kind == Kind::gpu && c.state == State::resuming && c.outcome.error))
      while (!error && !bench().is_all_loaded()) error = bench().use();
    EXPECT_EQ(error, c.outcome.error) << (error ? strerrorname_np(error) : "it went on");
    if (error && is_bulk_stream(c)) {
      EXPECT_EQ(bench().use(), error) << "a refusal is sticky";
    }
  }

  void expect_device(const Case& c) {
    ASSERT_EQ(bench().state(), c.outcome.after);
    const bool ran = c.state == State::running || c.state == State::pre_copy;
    switch (c.outcome.device) {
      case Device::as_before: EXPECT_EQ(bench().heart(), ran ? kBeating : bench().subject().standing()); break;
      // The VMM is ahead of the worker.
      case Device::half: EXPECT_TRUE(sysfs::wait_until([&] { return bench().heart() == kHalf; }, 5s)) << bench().heart(); break;
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
      EXPECT_TRUE(bench().is_answered());
      const auto copying = bench().device().set_state(VFIO_DEVICE_STATE_PRE_COPY);
      EXPECT_EQ(copying ? 0 : copying.error().code, ENODATA);
    }
    if (needs & (kResetToRun | kResetToMigrate)) bench().reset();
    bench().stream().reset();
  }

  // RUNNING, its worker answers, its registers hold what is written, and its state is saved whole.
  void expect_whole(const Case& c) {
    ASSERT_EQ(bench().state(), State::running);
    const bool untouched = (c.outcome.device == Device::as_before || c.outcome.device == Device::half) &&
                           !(c.outcome.needs & (kResetToRun | kResetToMigrate | kOpen | kBind | kDefine));
    EXPECT_EQ(bench().heart(), untouched ? kBeating : kFresh);
    EXPECT_TRUE(bench().is_answered());
    bench().migrate();
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
  void draw_on(const Case& c);

 private:
  static std::unique_ptr<Bench> bench_;
  static std::pair<Kind, bool> on_;
  static size_t done_;
  static std::map<std::string, long> slabs_;
  static long mapped_before_;
  Held before_;
};
std::unique_ptr<Bench> FaultMatrix::bench_;
std::pair<Kind, bool> FaultMatrix::on_;
size_t FaultMatrix::done_ = 0;
std::map<std::string, long> FaultMatrix::slabs_;
long FaultMatrix::mapped_before_ = 0;

// Two threads move the rest of the stream.
void FaultMatrix::share_file(const Case& c) {
  const int fd = bench().stream().get();
  const bool loads = c.state == State::resuming;
  std::atomic<size_t> moved = bench().moved().size();
  std::atomic<int> wrong = 0;
  std::atomic<bool> over = false;
  const bool pre_copies = c.state == State::pre_copy || c.state == State::pre_copy_p2p;
  const size_t end = pre_copies ? bench().subject().pre_copy_size() : bench().subject().to_load().size();
  std::mutex order;
  const auto mover = [&] {
    // That no answer of the worker ends at.
    std::vector<uint8_t> bytes(c.kind == Kind::gpu ? 4093 : 7);
    for (;;) {
      ssize_t done = 0;
      if (loads) {
        // Who has room for which bytes; the writes themselves meet.
        const size_t length = [&] {
          const std::lock_guard lock(order);
          const size_t some = std::min(bytes.size(), end - std::min<size_t>(end, moved));
          moved += some;
          return some;
        }();
        if (!length) return;
        done = ::write(fd, bytes.data(), length);
        if (done != static_cast<ssize_t>(length)) ++wrong;
      } else {
        done = ::read(fd, bytes.data(), bytes.size());
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
    EXPECT_EQ(bench().board().loaded_bytes, end);
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
    bench().mark();
    bench().enter(c.state);
  }
}

// The client draws before, meanwhile and afterwards, in pages that are kept track of.
void FaultMatrix::draw_on(const Case& c) {
  const auto painter = std::static_pointer_cast<Painter>(bench().subject().begin_vmm(bench().guest()));
  painter->draws_on();
  bench().enter(c.state);
  painter->draws_on();
  if (c.event == Event::worker_killed_under_drawing) {
    bench().worker().kill();
  } else {
    EXPECT_TRUE(bench().device().reset());
    EXPECT_TRUE(bench().device().enable_memory_and_dma());
  }
  painter->draws_on();
  const uint32_t last = painter->stop();
  for (uint64_t at = Painter::kAt; at < Painter::kAt + Painter::kSize; at += kPage)
    EXPECT_EQ(bench().device().read<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, at).value_or(0), last);
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
      bench().subject().opened(*container, guest);
      const auto going = bench().subject().begin_vmm(guest);
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
  const bool whole = c.kind == Kind::gpu;
  const std::string folder = "/sys/bus/pci/devices/" + bench().address();
  std::optional<Parent> pf;
  if (!whole) pf.emplace(bench().address());
  const std::string count = whole ? "" : pf->vfs();
  const vfio::Descriptor asked = watch_requests(bench().device());
  const auto [path, text] = [&]() -> std::pair<std::string, std::string> {
    switch (c.event) {
      case Event::vfs_removed: return {pf->folder + "/sriov_numvfs", "0"};
      case Event::pf_unbound: return {pf->folder + "/driver/unbind", pf->address};
      case Event::function_removed: return {folder + "/remove", "1"};
      default: return {folder + "/driver/unbind", bench().address()};
    }
  }();
  Removal removal(path, text);
  uint64_t times = 0;
  EXPECT_TRUE(sysfs::wait_until([&] { return ::read(asked.get(), &times, sizeof times) == sizeof times; }, 10s))
      << "nobody asked the VMM for the device";
  expect_call(c);
  expect_device(c);
  if (!whole) {
    const auto reset = bench().device().reset();
    EXPECT_EQ(reset ? 0 : reset.error().code, EAGAIN);
  }
  if (c.state != State::error) bench().go_on();
  if (c.kind == Kind::logging_nic) expect_logging(bench().device());
  if (whole) {
    EXPECT_TRUE(bench().device().reset()) << "the register program needs nobody's lock";
  }

  bench().stream().reset();
  bench().close();
  EXPECT_EQ(removal.wait(), 0);
  EXPECT_EQ(bench().worker().ended_by(), 0) << "the worker is told that the function is gone";
  if (c.event == Event::pf_unbound) {
    EXPECT_FALSE(sysfs::exists(bench().address()));
    const auto bound = sysfs::write("/sys/bus/pci/drivers/igb/bind", pf->address);
    EXPECT_TRUE(bound) << bound.error().text;
  }
  if (c.event == Event::function_removed) {
    EXPECT_FALSE(sysfs::exists(bench().address()));
    EXPECT_TRUE(sysfs::write("/sys/bus/pci/rescan", "1"));
  } else if (c.event != Event::vf_unbound) {
    pf->create_vfs(count);
  }
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
  const uint32_t request = c.state == State::resuming ? VFIO_PCI_HOOKS_REQ_LOAD
                           : bench().stream()         ? VFIO_PCI_HOOKS_REQ_SAVE
                           : c.kind == Kind::gpu      ? VFIO_PCI_HOOKS_REQ_WRITE
                                                      : VFIO_PCI_HOOKS_REQ_READ;
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
    case Event::dma_logging: return log_dma(bench().device(), c.kind == Kind::logging_nic);
    case Event::file_closed: bench().stream().reset(); return;
    case Event::file_kept: bench().close(); return;
    case Event::stream_oversized:
      if (c.kind == Kind::gpu) return;
      bench().subject().spoil(c.event);
      board.pre_copy_bytes = board.state_bytes = 2 * kMaxNicState;
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
    FAIL() << NoMemory::why_not() << "; HOOKLINE_FAULTS=...-enough-memory leaves these cells out";
  if (c.kind == Kind::nic && is_inside_stream(c.event)) return run_stream_cell(sysfs::test_vfs().at(1), c.event, c.outcome);
  bench().board().refused_answers = 0;
  const bool logs = c.kind == Kind::logging_nic && c.event != Event::dma_logging;
  if (c.event == Event::vmm_killed) {
    kill_vmm(c);
  } else if (c.event == Event::worker_killed_under_drawing || c.event == Event::reset_under_drawing) {
    draw_on(c);
  } else {
    if (is_bulk_stream(c)) bench().subject().spoil(c.event);
    if (logs) {
      ASSERT_EQ(start_logging(bench().device(), {{kDmaIova, kDmaSize}}), 0);
    }
    bench().enter(c.state);
    if (c.outcome.needs & (kBind | kDefine)) {
      lose_function(c);
      if (logs) expect_no_logging(bench().device());
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
  if (logs && bench().is_open()) expect_logging(bench().device());
  recover(c);
  if (HasFatalFailure()) return;
  if (logs && c.outcome.needs & kOpen) expect_no_logging(bench().device());
  expect_whole(c);
}

enum class Run { quick, slow, no_memory };

// Quick: each event in some states, and all states among them: every third cell, another third for each event. To remove
// functions takes seconds.
Run run_of(const Case& c) {
  if (c.event == Event::no_memory) return Run::no_memory;
  const auto event = static_cast<size_t>(c.event), state = static_cast<size_t>(c.state);
  const bool slow = c.event == Event::vfs_removed || c.event == Event::pf_unbound || c.event == Event::function_removed;
  const bool quick = slow ? state == event % kStates.size() : state % 3 == event % 3 || is_inside_stream(c.event) || is_bulk_stream(c);
  return quick ? Run::quick : Run::slow;
}

std::vector<Case> cases(Kind kind, Run run) {
  std::vector<Case> some;
  for (const Case& c : cases())
    if (c.kind == kind && run_of(c) == run) some.push_back(c);
  return some;
}

auto name_of_cell = [](const ::testing::TestParamInfo<Case>& c) { return name_of(c.param); };
INSTANTIATE_TEST_SUITE_P(Quick, FaultMatrix, ::testing::ValuesIn(cases(Kind::nic, Run::quick)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(Slow, FaultMatrix, ::testing::ValuesIn(cases(Kind::nic, Run::slow)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(NoMemory, FaultMatrix, ::testing::ValuesIn(cases(Kind::nic, Run::no_memory)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(GpuQuick, FaultMatrix, ::testing::ValuesIn(cases(Kind::gpu, Run::quick)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(GpuSlow, FaultMatrix, ::testing::ValuesIn(cases(Kind::gpu, Run::slow)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(GpuNoMemory, FaultMatrix, ::testing::ValuesIn(cases(Kind::gpu, Run::no_memory)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(LogQuick, FaultMatrix, ::testing::ValuesIn(cases(Kind::logging_nic, Run::quick)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(LogSlow, FaultMatrix, ::testing::ValuesIn(cases(Kind::logging_nic, Run::slow)), name_of_cell);
INSTANTIATE_TEST_SUITE_P(LogNoMemory, FaultMatrix, ::testing::ValuesIn(cases(Kind::logging_nic, Run::no_memory)), name_of_cell);

// What HOOKLINE_FAULTS names of it: variables of this kind reach the virtual machine, arguments of its test binaries do not.
struct Selection {
  std::string_view name;
  const char* filter;
};
constexpr Selection kSelections[] = {
    {"nic", "Quick/*:Slow/*:NoMemory/*"},
    {"nic-short", "Quick/*:NoMemory/*"},
    {"nic-enough-memory", "Quick/*:Slow/*"},
    {"gpu", "Gpu*"},
    {"gpu-short", "GpuQuick/*"},
    {"gpu-enough-memory", "GpuQuick/*:GpuSlow/*"},
    {"logging", "Log*"},
    {"logging-short", "LogQuick/*"},
    {"logging-enough-memory", "LogQuick/*:LogSlow/*"},
};

void select(std::string_view name) {
  const auto* selection = std::ranges::find(kSelections, name, &Selection::name);
  if (selection == std::end(kSelections))
    throw std::invalid_argument(fmt::format("HOOKLINE_FAULTS={}: nic, gpu or logging, and with -short or -enough-memory", name));
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
