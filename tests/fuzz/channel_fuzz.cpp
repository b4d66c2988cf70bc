// SPDX-License-Identifier: Apache-2.0
//
// Lets a VMM, workers, an administrator and somebody without rights loose on one function, in rounds of some
// seconds. In each they do at random whatever their descriptors take, while they are killed, stopped and
// started again and the function is reset under them. After each round nothing may be left, and the function
// has to work. README.md says how to read it.
//
//     channel_fuzz [--seed N] [--seconds N]        on the VFs of the test machine, vfio-pci-hooks loaded
//
// The same seed makes the same calls per thread; how they interleave is the machine's.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "channel_moves.hpp"
#include "tests/kernel/fixture.hpp"

namespace hookline::fuzz {
namespace {

using kernel_test::Control;
using std::chrono::milliseconds;

constexpr uint64_t kRoundMs = 6000;
/// No move waits so long by itself: limits of definitions, programs, resets, and a machine that is emulated.
constexpr uint64_t kHangMs = 40000;
/// Seconds of a run that has to get everywhere.
constexpr uint64_t kShortest = 20;

/// A fuzzer that gets nowhere finds nothing.
struct Reached {
  const char* what;
  uint64_t count;
};
std::vector<Reached> reached(const Board& board) {
  return {{"sessions", board.sessions},
          {"answered requests", board.answers},
          {"answers by the word", board.word_answers},
          {"bytes of saved state", board.saved_bytes},
          {"pieces of state loaded", board.loads},
          {"pages taken away", board.lost_pages},
          {"queries fetched", board.queries},
          {"saves of several slices", board.long_saves},
          {"loads of several slices", board.long_loads}};
}

/// A process of the game, started again as often as it ends.
class Player {
 public:
  Player(std::string name, size_t first_thread, std::function<void(uint64_t seed, size_t first_thread)> run)
      : name_(std::move(name)), first_thread_(first_thread), run_(std::move(run)) {}

  void start(uint64_t seed) {
    std::fflush(stdout);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      // Descriptors of whoever started it are not its own.
      close_range(3, ~0u, 0);
      run_(seed, first_thread_);
      _exit(0);
    }
  }
  bool runs() const { return pid_ > 0; }
  /// Has it ended?
  bool reap() {
    if (pid_ <= 0 || waitpid(pid_, nullptr, WNOHANG) != pid_) return false;
    pid_ = -1;
    return true;
  }
  void signal(int number) {
    if (pid_ > 0) kill(pid_, number);
    if (number == SIGSTOP) paused_ = true;
    if (number == SIGCONT) paused_ = false;
  }
  bool paused() const { return paused_; }
  void forget(Board& board) {
    paused_ = false;
    for (size_t i = 0; i < kThreadsOfOne; ++i) board.threads[first_thread_ + i].pid = 0;
  }
  pid_t pid() const { return pid_; }
  size_t first_thread() const { return first_thread_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  size_t first_thread_;
  std::function<void(uint64_t, size_t)> run_;
  pid_t pid_ = -1;
  bool paused_ = false;
};

void print_stacks(pid_t pid) {
  std::error_code ignored;
  for (const auto& thread :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", ignored)) {
    const auto stack = sysfs::read(thread.path().string() + "/stack");
    std::printf("%s:\n%s\n", thread.path().c_str(), stack ? stack->c_str() : "gone");
  }
  std::fflush(stdout);
}

class Game {
 public:
  Game(uint64_t seed, uint64_t seconds, Board& board)
      : random_(seed),
        end_(now_ms() + seconds * 1000),
        latest_(end_ + (seconds >= kShortest ? seconds * 6000 : 0)),
        board_(board),
        vfs_(sysfs::test_vfs()) {
    if (vfs_.size() < 2) throw std::runtime_error("two VFs are needed (HOOKLINE_VM_VFS)");
    const std::string& bound = vfs_[0];
    const std::string& unbound = vfs_[1];
    size_t thread = 0;
    const auto add = [&](const char* name, std::function<void(uint64_t, size_t)> run) {
      players_.emplace_back(name, thread, std::move(run));
      thread += kThreadsOfOne;
    };
    add("vmm", [=, this](uint64_t s, size_t t) { run_vmm(bound, s, board_, t); });
    add("worker", [=, this](uint64_t s, size_t t) { run_worker(bound, s, board_, t); });
    add("second worker", [=, this](uint64_t s, size_t t) { run_worker(bound, s, board_, t); });
    add("administrator",
        [=, this](uint64_t s, size_t t) { run_control(bound, unbound, true, s, board_, t); });
    add("somebody", [=, this](uint64_t s, size_t t) { run_control(bound, unbound, false, s, board_, t); });
  }

  void play() {
    // A slow machine has more time to get everywhere.
    while (!board_.violated && (now_ms() < end_ || (lacks_something() && now_ms() < latest_))) {
      round();
      if (!board_.violated) usable();
    }
    std::printf("%d rounds\n", rounds_);
  }

 private:
  bool lacks_something() const {
    const auto all = reached(board_);
    return std::any_of(all.begin(), all.end(), [](const Reached& one) { return one.count == 0; });
  }

  void round() {
    kernel_test::Definition definition = any_definition(random_, vfs_[0]);
    // Every other one lets a stream of several slices through.
    if (rounds_++ % 2 == 0) {
      definition.flags |= VFIO_PCI_HOOKS_DEFINE_MIGRATION;
      definition.max_state = 16 << 20;
      definition.state_limit_ms = 900;
    }
    must(control_.define(definition) == 0, "a valid definition is refused");
    bind();
    for (Player& player : players_) player.start(random_.next());
    const uint64_t over = now_ms() + kRoundMs;
    while (now_ms() < over && !board_.violated) {
      std::this_thread::sleep_for(milliseconds(1 + random_.below(80)));
      disturb();
      for (Player& player : players_)
        if (player.reap()) {
          player.forget(board_);
          player.start(random_.next());
        }
      watch();
    }
    end_round();
  }

  void disturb() {
    Player& player = players_[random_.below(3)];
    switch (random_.below(24)) {
      case 0:
        player.signal(SIGKILL);
        break;
      case 1:
        player.signal(SIGSTOP);
        break;
      case 2:
        reset_by_sysfs();
        break;
      case 3:
        players_[1].signal(SIGKILL), players_[2].signal(SIGKILL);
        break;
      default:
        break;
    }
    for (Player& stopped : players_)
      if (stopped.paused() && random_.one_in(3)) stopped.signal(SIGCONT);
  }

  // From a process of its own: it waits for the device's lock.
  void reset_by_sysfs() {
    const pid_t pid = fork();
    if (pid == 0) {
      (void)sysfs::write("/sys/bus/pci/devices/" + vfs_[0] + "/reset", "1");
      _exit(0);
    }
    helpers_.push_back(pid);
  }

  void watch() {
    const uint64_t now = now_ms();
    for (const Player& player : players_)
      for (size_t i = 0; i < kThreadsOfOne && !player.paused(); ++i) {
        const Board::Thread& thread = board_.threads[player.first_thread() + i];
        const uint64_t since = thread.since_ms;
        if (thread.pid != player.pid() || since == 0 || now < since + kHangMs) continue;
        violation(board_, "%s hangs in \"%s\" for %llu ms", player.name().c_str(), thread.move.load(),
                  static_cast<unsigned long long>(now - since));
        print_stacks(player.pid());
        return;
      }
  }

  void end_round() {
    // In any order: whoever is left goes on for a moment.
    const size_t first = random_.below(players_.size());
    for (size_t i = 0; i < players_.size(); ++i) {
      players_[(first + i) % players_.size()].signal(SIGKILL);
      std::this_thread::sleep_for(milliseconds(random_.below(5)));
    }
    for (Player& player : players_) {
      if (!sysfs::wait_until([&] { return !player.runs() || player.reap(); }, milliseconds(kHangMs))) {
        violation(board_, "%s does not end", player.name().c_str());
        print_stacks(player.pid());
      }
      player.forget(board_);
    }
    for (const pid_t helper : helpers_)
      if (!sysfs::wait_until([&] { return waitpid(helper, nullptr, WNOHANG) == helper; },
                             milliseconds(kHangMs))) {
        violation(board_, "a reset by sysfs does not end");
        print_stacks(helper);
      }
    helpers_.clear();
    if (board_.violated) return;

    const auto status = control_.status(vfs_[0]);
    const uint32_t left = status.flags & (VFIO_PCI_HOOKS_STATUS_OPEN | VFIO_PCI_HOOKS_STATUS_ATTACHED |
                                          VFIO_PCI_HOOKS_STATUS_SERVED);
    must(left == 0, "after all processes have ended something of the function is open, attached or served");
    release();
    must(control_.undefine(vfs_[0]) == 0, "a definition cannot be taken back");
    control_.undefine(vfs_[1]);  // if the administrator left one
  }

  /// A device that has been through all this answers, migrates and is told apart from none.
  void usable() {
    must(control_.define(kernel_test::migratable(vfs_[0])) == 0, "the function cannot be defined any more");
    bind();
    {
      auto mind = kernel_test::shared_board();
      mind->read_value = 0x1234567;
      auto container = vfio::Container::create();
      must(container.has_value(), "no container");
      kernel_test::Guest guest(*container, vfs_[0]);
      kernel_test::Worker worker(vfs_[0], *mind);
      const bool served = sysfs::wait_until(
          [&] { return (control_.status(vfs_[0]).flags & VFIO_PCI_HOOKS_STATUS_SERVED) != 0; },
          milliseconds(kHangMs));
      uint32_t value = 0;
      must(served && guest.read32(kernel_test::kTrapped, value) == 0 && value == 0x1234567,
           "a trapped read is not answered by the worker");
      must(guest.write32(kernel_test::kMailboxMemory, 0x600d) == 0 &&
               guest.read32(kernel_test::kMailboxMemory, value) == 0 && value == 0x600d,
           "a register does not hold what is written");
      auto data = guest.device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
      must(data.has_value(), "the device does not migrate");
      std::vector<uint8_t> piece(1 << 20);
      size_t bytes = 0;
      for (ssize_t got; data && (got = read(data->get(), piece.data(), piece.size())) > 0;)
        bytes += static_cast<size_t>(got);
      must(bytes == mind->state_bytes, "the stream is not complete");
      must(guest.device.set_state(VFIO_DEVICE_STATE_RUNNING).has_value(), "the device does not go on");
    }
    release();
    must(control_.undefine(vfs_[0]) == 0, "a definition cannot be taken back");
  }

  void bind() {
    const auto bound = sysfs::bind(vfs_[0], "vfio-pci-hooks");
    must(bound.has_value(), bound ? "" : bound.error().text.c_str());
  }
  void release() {
    const auto released = sysfs::release(vfs_[0]);
    must(released.has_value(), released ? "" : released.error().text.c_str());
  }
  void must(bool holds, const char* what) {
    if (!holds) violation(board_, "%s", what);
  }

  Random random_;
  uint64_t end_, latest_;
  Board& board_;
  std::vector<std::string> vfs_;
  Control control_;
  std::vector<Player> players_;
  std::vector<pid_t> helpers_;
  int rounds_ = 0;
};

uint64_t number(const char* text) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 0);
  if (*text == 0 || *end != 0) throw std::invalid_argument(std::string("no number: ") + text);
  return value;
}

int run(int argc, char** argv) {
  uint64_t seed = std::random_device()(), seconds = 60;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if ((option != "--seed" && option != "--seconds") || i + 1 == argc) {
      std::fprintf(stderr, "usage: channel_fuzz [--seed N] [--seconds N]\n");
      return 2;
    }
    (option == "--seed" ? seed : seconds) = number(argv[i + 1]);
  }
  void* shared = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::runtime_error("no shared memory");
  Board& board = *new (shared) Board;
  std::printf("channel_fuzz --seed %llu --seconds %llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(seconds));

  Game(seed, seconds, board).play();
  print_counts(board);
  for (const auto& [what, count] : reached(board)) {
    std::printf("%-24s %llu\n", what, static_cast<unsigned long long>(count));
    if (count == 0 && seconds >= kShortest) violation(board, "in all this time: no %s", what);
  }
  return board.violated ? 1 : 0;
}

}  // namespace
}  // namespace hookline::fuzz

int main(int argc, char** argv) {
  try {
    return hookline::fuzz::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "channel_fuzz: %s\n", error.what());
    return 1;
  }
}
