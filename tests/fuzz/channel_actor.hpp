// SPDX-License-Identifier: Apache-2.0
//
// What every process of the channel fuzzer is made of: numbers from a seed, memory that changes under the
// kernel's eyes, and threads that make weighted moves of a table while a watchdog sees what each of them is
// doing.
//
// Thread rule: an Actor belongs to one thread; Arena and Board are for all, on purpose without locks. Errors:
// a move answers 0 or an errno, which is counted and nothing more; violation() is for what must never be.
//
//     constexpr Move<Vmm> kMoves[] = {{30, "read", read}, {10, "reset", reset}};
//     Actor actor(seed, arena, board.thread(3));
//     play(actor, vmm, kMoves, stop);
#pragma once

#include <linux/vfio_pci_hooks.h>
#include <sys/ioctl.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <thread>
#include <type_traits>

namespace hookline::fuzz {

/// splitmix64: the same calls with the same seed everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint64_t below(uint64_t n) { return next() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  template <typename T, size_t N>
  T of(const T (&items)[N]) {
    return items[below(N)];
  }
  /// Values around the limits of sizes, counts and offsets.
  uint64_t odd();

 private:
  uint64_t state_;
};

/// Shared by all processes of a run.
struct Board {
  static constexpr size_t kThreads = 64, kTables = 4, kMoves = 64;
  struct Thread {
    std::atomic<int32_t> pid{0}, tid{0};
    std::atomic<uint64_t> since_ms{0};       ///< of the move that is made; 0: none
    std::atomic<const char*> move{nullptr};  ///< the same address in every process: all are forks
  };
  struct Count {
    std::atomic<const char*> move{nullptr};
    std::atomic<uint64_t> done{0}, refused{0};
  };
  std::array<Thread, kThreads> threads;
  std::array<std::array<Count, kMoves>, kTables> counts;
  // What shows that the fuzzer gets anywhere at all.
  std::atomic<uint64_t> sessions{0}, answers{0}, saved_bytes{0}, loads{0}, lost_pages{0}, queries{0};
  std::atomic<uint64_t> word_answers{0};  ///< taken from a worker that watches
  std::atomic<uint64_t> long_saves{0}, long_loads{0};  ///< streams of several slices, to the end
  std::atomic<bool> violated{false};
};

uint64_t now_ms();

/// Says what must never be and marks the run as failed.
void violation(Board& board, const char* format, ...) __attribute__((format(printf, 2, 3)));

/// Memory for arguments: a quiet half, a half that a second thread keeps changing, and a page behind its end
/// that is not there.
class Arena {
 public:
  static constexpr size_t kBytes = 64 << 10;
  Arena();
  uint8_t* quiet() const { return bytes_; }
  uint8_t* hostile() const { return bytes_ + kBytes / 2; }
  uint8_t* end() const { return bytes_ + kBytes; }
  /// Changes some words of the hostile half.
  void scribble(Random& random) const;

 private:
  uint8_t* bytes_;
};

class Actor {
 public:
  Actor(uint64_t seed, const Arena& arena, Board& board, Board::Thread& me)
      : random(seed), arena_(arena), board_(board), me_(me) {}

  Random random;
  Board& board() { return board_; }
  Board::Thread& thread() { return me_; }

  /// A pointer to `length` bytes: mostly good ones, else none, the kernel's, half there, or other() of
  /// somebody's mappings.
  void* buffer(size_t length);
  /// One mapping that buffer() may answer with.
  void* other = nullptr;

  /// ioctl with its argument in memory that may be hostile, one word changed now and then. Comes back in
  /// `argument`.
  template <typename T>
  int call(int fd, unsigned long request, T& argument) {
    static_assert(std::is_trivially_copyable_v<T>);
    bend(std::as_writable_bytes(std::span(&argument, 1)));
    void* place = random.one_in(24) ? buffer(sizeof(T)) : put(&argument, sizeof(T));
    const int result = ::ioctl(fd, request, place) < 0 ? errno : 0;
    if (result == 0 && place >= arena_.quiet() && place < arena_.end())
      std::memcpy(&argument, place, sizeof(T));
    return result;
  }

 private:
  void bend(std::span<std::byte> argument);
  void* put(const void* argument, size_t size);
  const Arena& arena_;
  Board& board_;
  Board::Thread& me_;
};

template <typename State>
struct Move {
  unsigned weight;
  const char* name;
  int (*make)(Actor& actor, State& state);
};

/// Makes moves until `stop`, with a pause between them. Which table it is decides where they are counted. A State with a `hush`
/// has one thread make its move while the others rest.
template <typename State, size_t N>
void play(Actor& actor, State& state, const Move<State> (&moves)[N], size_t table,
          const std::atomic<bool>& stop, std::chrono::microseconds pause = {}) {
  static_assert(N <= Board::kMoves);
  unsigned total = 0;
  for (const auto& move : moves) total += move.weight;
  while (!stop) {
    if constexpr (requires { state.hush; })
      while (state.hush && !stop) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    uint64_t ticket = actor.random.below(total);
    size_t i = 0;
    while (ticket >= moves[i].weight) ticket -= moves[i++].weight;
    actor.thread().move = moves[i].name;
    actor.thread().since_ms = now_ms();
    const int result = moves[i].make(actor, state);
    actor.thread().since_ms = 0;
    auto& count = actor.board().counts[table][i];
    count.move = moves[i].name;
    ++(result == 0 ? count.done : count.refused);
    // Without its descriptor it would only take time from the others.
    if (result == EBADF) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(pause);
  }
}

/// Touching memory that a session or a device has taken away is survived: a page of nothing appears in its
/// place.
void survive_lost_pages(Board& board);
/// Says how often which move was made.
void print_counts(const Board& board);
/// A signal that only interrupts.
void interruptible();
inline constexpr int kInterrupt = 10;  // SIGUSR1

}  // namespace hookline::fuzz
