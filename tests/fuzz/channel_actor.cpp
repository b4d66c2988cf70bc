// SPDX-License-Identifier: Apache-2.0
#include "channel_actor.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace hookline::fuzz {
namespace {

constexpr uintptr_t kPage = 4096;
Board* board_of_lost_pages;  // for the signal handler

void on_lost_page(int, siginfo_t* info, void*) {
  void* page = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(info->si_addr) & ~(kPage - 1));
  if (info->si_addr == nullptr ||
      mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    _Exit(99);
  ++board_of_lost_pages->lost_pages;
}

}  // namespace

uint64_t Random::odd() {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        2,
                                        3,
                                        4,
                                        7,
                                        8,
                                        9,
                                        15,
                                        16,
                                        17,
                                        31,
                                        32,
                                        33,
                                        63,
                                        64,
                                        65,
                                        0xff,
                                        0x100,
                                        511,
                                        512,
                                        4032,
                                        4095,
                                        4096,
                                        4097,
                                        0x7fff,
                                        0x8000,
                                        65535,
                                        65536,
                                        65537,
                                        1048575,
                                        1048576,
                                        1048577,
                                        0x7fffffff,
                                        0x80000000,
                                        0xfffffffe,
                                        0xffffffff,
                                        0x100000000,
                                        uint64_t{1} << 40,
                                        uint64_t{7} << 40,
                                        (uint64_t{1} << 40) - 1,
                                        uint64_t{1} << 47,
                                        0x7fffffffffffffff,
                                        0x8000000000000000,
                                        0xfffffffffffff000,
                                        0xffffffffffffffff};
  return one_in(4) ? next() >> below(64) : kEdges[below(std::size(kEdges))];
}

uint64_t now_ms() {
  using namespace std::chrono;
  return static_cast<uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
}

void violation(Board& board, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fputs("channel_fuzz: ", stdout);
  std::vprintf(format, arguments);
  std::fputs("\n", stdout);
  std::fflush(stdout);
  va_end(arguments);
  board.violated = true;
}

Arena::Arena() {
  void* at = mmap(nullptr, kBytes + kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || mprotect(static_cast<uint8_t*>(at) + kBytes, kPage, PROT_NONE) != 0) {
    std::perror("channel_fuzz: memory for arguments");
    std::exit(1);
  }
  bytes_ = static_cast<uint8_t*>(at);
}

void Arena::scribble(Random& random) const {
  auto* words = reinterpret_cast<volatile uint32_t*>(hostile());
  for (int i = 0; i < 64; ++i) words[random.below(kBytes / 2 / 4)] = static_cast<uint32_t>(random.odd());
  // Arguments begin at multiples of 256: there the changes matter.
  for (int i = 0; i < 64; ++i)
    words[random.below(kBytes / 2 / 256) * 64 + random.below(24)] = static_cast<uint32_t>(random.odd());
}

void* Actor::buffer(size_t length) {
  switch (random.below(16)) {
    case 0:
      return nullptr;
    case 1:
      return reinterpret_cast<void*>(0xffff888000000000);
    case 2:
      return reinterpret_cast<void*>(random.odd());
    case 3:
      return arena_.end() - std::min<size_t>(length / 2 + 1, Arena::kBytes);
    case 4:
      return arena_.end();
    case 5:
      if (other != nullptr) return other;
      [[fallthrough]];
    case 6:
      return arena_.hostile() + random.below(Arena::kBytes / 512) * 256;
    default:
      return arena_.quiet() + random.below(64) * 256;
  }
}

void Actor::bend(std::span<std::byte> argument) {
  if (!random.one_in(4)) return;
  const uint64_t value = random.odd();
  const size_t width = random.one_in(2) && argument.size() >= 8 ? 8 : 4;
  if (argument.size() < width) return;
  std::memcpy(&argument[random.below(argument.size() / width) * width], &value, width);
}

void* Actor::put(const void* argument, size_t size) {
  uint8_t* at = arena_.quiet() + random.below(Arena::kBytes / 512 - 16) * 256;
  if (random.one_in(4)) at = arena_.hostile() + random.below(Arena::kBytes / 512 - 16) * 256;
  if (random.one_in(16)) at = arena_.end() - size;
  std::memcpy(at, argument, size);
  return at;
}

void survive_lost_pages(Board& board) {
  board_of_lost_pages = &board;
  struct sigaction action {};
  action.sa_sigaction = on_lost_page;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

void print_counts(const Board& board) {
  std::printf("%-36s %10s %10s\n", "", "done", "refused");
  for (const auto& table : board.counts)
    for (const Board::Count& count : table)
      if (const char* move = count.move)
        std::printf("%-36s %10llu %10llu\n", move, static_cast<unsigned long long>(count.done),
                    static_cast<unsigned long long>(count.refused));
}

void interruptible() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(kInterrupt, &action, nullptr);
}

}  // namespace hookline::fuzz
