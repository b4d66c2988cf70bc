// SPDX-License-Identifier: Apache-2.0
//
// Moves a VF's guest back and forth between two VFs under traffic, many times: nothing is lost outside the stops, nothing
// comes twice, interrupts go on at each place, and nothing is left behind in the kernel or in a worker.
//
//     nic_moves MOVES SOURCE DESTINATION
//
// Both are bound and served by workers (`hookline apply`).
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "tests/demo/side.hpp"
#include "tests/demo/traffic.hpp"

namespace hookline::demo {
namespace {

constexpr uint64_t kPackets = 6, kBurst = 3;
// What is allocated once, on the first ways through the code, does not count.
constexpr unsigned kWarmUp = 10;

struct Held {
  uint64_t files = 0;                   // open files of the whole machine
  std::map<int, size_t> descriptors{};  // of each process called hookline
  uint64_t pages = 0;                   // vmalloc and slab memory that cannot be reclaimed, in KiB
  std::map<std::string, uint64_t> objects{};  // of each slab cache that cannot be reclaimed, and areas of vmalloc

  static Held now();
};

uint64_t number_after(const char* file, const std::string& key) {
  std::ifstream in(file);
  std::string word;
  uint64_t value = 0;
  while (in >> word)
    if (word == key && in >> value) return value;
  throw std::runtime_error(fmt::format("{} has no {}", file, key));
}

/// Objects in use, by cache. Inodes that are kept in case of need, and free objects on a CPU's own list, would count too:
/// they are given up first.
std::map<std::string, uint64_t> slab_objects() {
  namespace fs = std::filesystem;
  const auto flag = [](const fs::path& file) {
    int value = 0;
    return std::ifstream(file) >> value && value;
  };
  // What was used lately is spared at first.
  for (int i = 0; i < 4; ++i) std::ofstream("/proc/sys/vm/drop_caches") << 3;
  for (const auto& cache : fs::directory_iterator("/sys/kernel/slab")) std::ofstream(cache.path() / "shrink") << 1;
  std::map<std::string, uint64_t> found;
  std::ifstream in("/proc/slabinfo");
  std::string line, name;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    uint64_t active = 0;
    if (fields >> name >> active && !flag(fs::path("/sys/kernel/slab") / name / "reclaim_account")) found[name] = active;
  }
  if (found.size() < 20) throw std::runtime_error("/proc/slabinfo names hardly any cache");
  // What was freed keeps its vmap_area until the kernel tidies up, some thousand later.
  found.erase("vmap_area");
  return found;
}

/// Areas of kernel memory in use, by who asked for them.
std::map<std::string, uint64_t> vmalloc_areas() {
  std::map<std::string, uint64_t> found;
  std::ifstream in("/proc/vmallocinfo");
  std::string line, range, size, caller;
  while (std::getline(in, line)) {
    if (line.find("unpurged vm_area") != std::string::npos) continue;
    std::istringstream fields(line);
    if (fields >> range >> size >> caller) ++found["vmalloc by " + caller.substr(0, caller.find('+'))];
  }
  if (found.size() < 5) throw std::runtime_error("/proc/vmallocinfo names hardly anybody");
  return found;
}

Held Held::now() {
  namespace fs = std::filesystem;
  Held held;
  held.objects = slab_objects();
  held.objects.merge(vmalloc_areas());
  std::ifstream("/proc/sys/fs/file-nr") >> held.files;
  held.pages = number_after("/proc/meminfo", "SUnreclaim:") + number_after("/proc/meminfo", "VmallocUsed:");
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename();
    int id = 0;
    if (std::from_chars(pid.data(), pid.data() + pid.size(), id).ec != std::errc()) continue;
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    if (!name.starts_with("hookline")) continue;
    for ([[maybe_unused]] const auto& fd : fs::directory_iterator(entry.path() / "fd")) ++held.descriptors[id];
  }
  return held;
}

std::string to_text(const Held& held) {
  std::string text;
  for (const auto& [pid, count] : held.descriptors) text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", pid, count);
  return text;
}

class Moves {
 public:
  explicit Moves(Stage& stage) : stage_(stage), traffic_(std::chrono::milliseconds(5), [] {}) {}

  int run(unsigned moves) {
    Side *from = &stage_.source(), *to = &stage_.destination();
    from->enable();
    traffic_.begin(*from, stage_.memory());
    traffic_.send(kPackets, Period::before);
    Held before;
    for (unsigned i = 0; i < moves; ++i) {
      if (i == kWarmUp) before = Held::now();
      move(*from, *to, i);
      std::swap(from, to);
      if ((i + 1) % 20 == 0) fmt::print("{} moves, {} sent, {} answered\n", i + 1, traffic_.sent(), traffic_.answered());
      std::fflush(stdout);
    }
    Held after = Held::now();
    // What the kernel frees later, and other processes hold for a while, goes; a leak stays.
    for (int again = 0; again < 10 && has_grown(before, after, moves - kWarmUp); ++again) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      for (const auto& [cache, count] : Held::now().objects) after.objects[cache] = std::min(after.objects[cache], count);
    }
    traffic_.settle(std::chrono::seconds(2));
    judge();
    compare(before, after, moves - kWarmUp);
    for (const std::string& problem : problems_) fmt::print("FAILED: {}\n", problem);
    return problems_.empty() ? 0 : 1;
  }

 private:
  void move(Side& from, Side& to, unsigned number) {
    to.reset();
    to.set_state(MigrationState::resuming);
    from.set_state(MigrationState::pre_copy);
    uint64_t bytes = carry(from, to);
    traffic_.send(kPackets, Period::during);
    traffic_.burst(kBurst, Period::during);
    traffic_.stopped();
    from.set_state(MigrationState::stop_copy);
    bytes += carry(from, to);
    from.set_state(MigrationState::stop);
    to.enable();
    to.set_state(MigrationState::running);
    const uint64_t interrupts = to.interrupts(), answered = traffic_.answered();
    traffic_.continue_on(to, stage_.memory());
    from.reset();
    traffic_.send(kPackets, Period::after);
    traffic_.settle(std::chrono::milliseconds(200));
    if (traffic_.answered() == answered) problems_.push_back(fmt::format("no answer after move {}", number));
    if (to.interrupts() == interrupts) problems_.push_back(fmt::format("no interrupt after move {}", number));
    if (bytes == 0) problems_.push_back(fmt::format("move {} carried nothing", number));
  }

  uint64_t carry(Side& from, Side& to) {
    uint64_t moved = 0;
    while (const size_t got = from.read_state(piece_)) {
      to.write_state(std::span(piece_).first(got));
      moved += got;
    }
    return moved;
  }

  void judge() {
    uint64_t lost = 0, in_stop = 0;
    for (const Period period : {Period::before, Period::during, Period::after}) {
      lost += traffic_.counts(period).lost_outside_stop;
      in_stop += traffic_.counts(period).lost_in_stop;
    }
    fmt::print("sent {}, answered {}, lost in a stop {}, outside {}\n", traffic_.sent(), traffic_.answered(), in_stop, lost);
    if (lost) problems_.push_back(fmt::format("{} packets were lost outside the stops", lost));
    if (traffic_.duplicates()) problems_.push_back(fmt::format("{} answers came twice", traffic_.duplicates()));
    if (traffic_.damaged()) problems_.push_back(fmt::format("{} answers were damaged", traffic_.damaged()));
  }

  // A leak of one thing a move shows as that many; what other processes do in the meantime is less.
  static bool has_grown(uint64_t had, uint64_t has, unsigned moves) { return has > had + moves * 3 / 4; }
  static bool has_grown(const Held& before, const Held& after, unsigned moves) {
    return std::ranges::any_of(after.objects, [&](const auto& cache) {
      const auto earlier = before.objects.find(cache.first);
      return has_grown(earlier == before.objects.end() ? 0 : earlier->second, cache.second, moves);
    });
  }

  void compare(const Held& before, const Held& after, unsigned moves) {
    fmt::print("open files {} to {}, kernel memory {} to {} KiB\n", before.files, after.files, before.pages, after.pages);
    if (has_grown(before.files, after.files, moves))
      problems_.push_back(fmt::format("open files grew from {} to {}", before.files, after.files));
    if (after.pages > before.pages + 512 + moves * 2ull)
      problems_.push_back(fmt::format("kernel memory grew from {} to {} KiB", before.pages, after.pages));
    for (const auto& [cache, count] : after.objects) {
      const auto earlier = before.objects.find(cache);
      const uint64_t had = earlier == before.objects.end() ? 0 : earlier->second;
      if (count > had + moves / 4) fmt::print("{}: {} to {} objects\n", cache, had, count);
      if (has_grown(had, count, moves)) problems_.push_back(fmt::format("objects in {} grew from {} to {}", cache, had, count));
    }
    if (before.descriptors.empty()) problems_.push_back("there is no process called hookline");
    if (before.descriptors != after.descriptors)
      problems_.push_back(fmt::format("processes and their descriptors were {} and are {}", to_text(before), to_text(after)));
  }

  Stage& stage_;
  Traffic traffic_;
  std::vector<std::byte> piece_ = std::vector<std::byte>(65536);
  std::vector<std::string> problems_;
};

}  // namespace
}  // namespace hookline::demo

int main(int argc, char** argv) {
  try {
    unsigned moves = 0;
    if (argc != 4 || std::from_chars(argv[1], argv[1] + std::string(argv[1]).size(), moves).ec != std::errc() || moves < 20)
      throw std::runtime_error("usage: nic_moves MOVES SOURCE DESTINATION, at least 20 moves");
    const auto stage = hookline::demo::make_vfio_stage(argv[2], argv[3]);
    return hookline::demo::Moves(*stage).run(moves);
  } catch (const std::exception& error) {
    fmt::print(stderr, "nic_moves: {}\n", error.what());
    return 1;
  }
}
