// SPDX-License-Identifier: Apache-2.0
//
// The part of ./bench that needs no device: device-state stream against memcpy, chains against a plain call,
// eventfd on this machine. Google Benchmark times it; repetitions are the rounds, in random order.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <hookline/compatibility.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/open_device.hpp>
#include <hookline/stream.hpp>

#include "tests/bench/must.hpp"
#include "tests/bench/no_device.hpp"
#include "tests/bench/ping_pong.hpp"
#include "tests/bench/pipe_peer.hpp"
#include "tests/bench/report.hpp"
#include "tests/bench/slice_peer.hpp"
#include "tests/bench/slot_peer.hpp"
#include "tests/bench/small_plugin.hpp"
#include "tests/bench/spin_peer.hpp"
#include "tests/bench/timing.hpp"

using namespace hookline;
using namespace hookline::bench;
using ::benchmark::DoNotOptimize;
using ::benchmark::State;

namespace {

constexpr size_t kChunk = kMaxChunkPayload;
constexpr size_t kChunks = 16;  // a state larger than the second-level cache
constexpr const char* kSection = "bench/memory";

// ---- stream: one iteration moves one chunk

struct Buffers {
  std::vector<std::byte> state = std::vector<std::byte>(kChunk * kChunks, std::byte{0x5a});
  std::vector<std::byte> out = std::vector<std::byte>(kChunk + 4096);

  std::span<const std::byte> chunk(size_t index) const {
    return std::span(state).subspan(index % kChunks * kChunk, kChunk);
  }
};

StreamWriter begin_stream() {
  return must(StreamWriter::create("bench"));
}

void copy_state(State& state) {
  Buffers buffers;
  size_t next = 0;
  for (auto _ : state) {
    const auto chunk = buffers.chunk(next++);
    std::memcpy(buffers.out.data(), chunk.data(), chunk.size());
    DoNotOptimize(buffers.out.data());
    ::benchmark::ClobberMemory();
  }
}

void write_stream(State& state) {
  Buffers buffers;
  StreamWriter writer = begin_stream();
  writer.take(buffers.out);
  size_t next = 0;
  for (auto _ : state) {
    must(writer.section(kSection, {}, buffers.chunk(next++)));
    while (writer.pending() > 0) writer.take(buffers.out);
    DoNotOptimize(buffers.out.data());
  }
}

class Drain final : public StreamSink {
 public:
  Result<void> on_match(std::string_view) override { return {}; }
  Result<void> on_section(const Section& section) override {
    DoNotOptimize(section.payload.data());
    return {};
  }
  Result<void> on_complete() override { return {}; }
};

// A whole stream, in pieces: match record, chunks, trailer.
std::vector<std::vector<std::byte>> whole_stream(SectionFlags flags) {
  const Buffers buffers;
  std::vector<std::vector<std::byte>> pieces;
  StreamWriter writer = begin_stream();
  const auto take = [&] {
    auto& piece = pieces.emplace_back(writer.pending());
    writer.take(piece);
  };
  take();
  for (size_t i = 0; i < kChunks; ++i) {
    must(writer.section(kSection, flags, buffers.chunk(i)));
    take();
  }
  must(writer.finish());
  take();
  return pieces;
}

void read_stream(State& state, SectionFlags flags) {
  const auto pieces = whole_stream(flags);
  Drain drain;
  const StreamLimits limits{.max_state = 2 * kChunk * kChunks, .max_kept = 2 * kChunk * kChunks};
  // An iteration is a chunk, as in the other figures; the records around them come along.
  while (state.KeepRunningBatch(kChunks)) {
    StreamReader reader(drain, limits);
    for (const auto& piece : pieces) must(reader.write(piece));
    must(reader.end());
  }
}

// ---- chain: one iteration is one access

int pass(void*, hookline_access* access) {
  DoNotOptimize(access);
  return HOOKLINE_PASS;
}
int handle(void*, hookline_access* access) {
  access->value = 1;
  return HOOKLINE_HANDLED;
}

constexpr hookline_range kRange[] = {{0, HOOKLINE_WANT_READ, 0, 4096}};
constexpr const char* kNames[] = {"h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"};

Chain chain_of(size_t length) {
  std::vector<Link> links;
  for (size_t i = 0; i < length; ++i)
    links.push_back(must(make_link(small_plugin(kNames[i], kRange, i + 1 == length ? handle : pass))));
  return must(build_chain(std::move(links)));
}

hookline_access read_access() {
  hookline_access access{};
  access.op = HOOKLINE_OP_READ;
  access.offset = 8;
  access.length = 4;
  return access;
}

void call_directly(State& state) {
  auto call = handle;
  hookline_access access = read_access();
  for (auto _ : state) {
    DoNotOptimize(call);
    DoNotOptimize(call(nullptr, &access));
  }
}

void walk_chain(State& state, size_t length) {
  const Chain chain = chain_of(length);
  NoDevice behind;
  const auto device = must(OpenDevice::open(chain, behind, {}));
  for (auto _ : state) {
    hookline_access access = read_access();
    DoNotOptimize(device->access(access).answer);
  }
}

void ping_pong(State& state, int peer_cpu) {
  EventfdPeer peer;
  pin(peer.pid(), peer_cpu);
  for (auto _ : state) state.SetIterationTime(ns_per_operation({}, [&] { peer.round_trip(); }) * 1e-9);
}

/// The least that anything costs which is reached by a system call.
void read_nothing(State& state) {
  const FileDescriptor zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  uint32_t word = 0;
  for (auto _ : state) {
    if (::pread(zero.get(), &word, sizeof word, 0) != sizeof word) throw std::runtime_error("reading /dev/zero");
  }
}

/// Who spins answers at once while both processes run, and after a time slice while the host lets one of them
/// wait: so many samples that most of them are of the former kind.
template <typename Peer>
void spin(State& state, void (Peer::*round_trip)()) {
  Peer peer;
  pin(peer.pid(), kSecondCpu);
  constexpr Effort effort{.samples = 10000, .batch = 8};
  for (auto _ : state) state.SetIterationTime(ns_per_operation(effort, [&] { (peer.*round_trip)(); }) * 1e-9);
}

// ---- a worker's stream and a VMM: one iteration is a state of 16 MiB, by 1 MiB a call

constexpr size_t kPerCall = 1 << 20;

template <typename Role>
using PeerOf = std::conditional_t<std::is_same_v<Role, SlicePeer::Role>, SlicePeer, PipePeer>;

template <typename Role>
void move_state(State& state, Role role, int peer_cpu) {
  PeerOf<Role> peer(role);
  pin(peer.pid(), peer_cpu);
  std::vector<std::byte> bytes = SlicePeer::stream();
  // What a worker loads is a stream, to its end; the others do not look at it.
  const bool loads = std::is_same_v<Role, SlicePeer::Role> && int{role} == SlicePeer::loads;
  if (!loads) bytes.resize(kChunks * kChunk);
  const auto turn = [&] {
    for (size_t at = 0; at < bytes.size(); at += kPerCall)
      peer.move(std::span(bytes).subspan(at, std::min(kPerCall, bytes.size() - at)));
  };
  turn();  // pages of both sides
  for (auto _ : state) state.SetIterationTime(ns_once(turn) * 1e-9);
}

// ---- compatibility: one iteration reads and judges one destination

Descriptor judged_device() {
  Descriptor d{.model = "com.example/bench",
               .plugin = "bench",
               .plugin_version = "1.0",
               .emits = "2",
               .reads = std::vector<std::string>{"1", "2"},
               .capabilities = {"stop_copy", "p2p", "pre_copy"}};
  for (const char* name : {"state_version", "queues", "offload", "filters"})
    d.parameters.push_back(
        {.name = name,
         .value = "2",
         .init_value = "2",
         .off_value = "1",
         .allowed_values = "1|2|4-64",
         .description = "As long as such a line usually is, so that the figure means something"});
  return d;
}

void read_destination(State& state) {
  const std::string text = migration_info(judged_device());
  for (auto _ : state) DoNotOptimize(parse_descriptor(text));
}

void judge_destination(State& state) {
  const std::string text = migration_info(judged_device());
  const Descriptor source = must(parse_descriptor(must(migration_version(judged_device()))));
  for (auto _ : state) {
    const Descriptor dest = must(parse_descriptor(text));
    DoNotOptimize(check_compatibility(source, dest));
    DoNotOptimize(values_for(source, dest));
  }
}

// ---- what is compared with what

class Collector final : public ::benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      auto& rounds = ns_[run.run_name.function_name];
      rounds.resize(std::max<size_t>(rounds.size(), static_cast<size_t>(run.repetition_index) + 1));
      // What one process does is counted in its own CPU time: other work on the machine is not part of it.
      rounds[static_cast<size_t>(run.repetition_index)] =
          run.run_name.time_type.empty() ? run.GetAdjustedCPUTime() : run.GetAdjustedRealTime();
    }
  }
  const std::vector<double>& ns(const std::string& name) const { return ns_.at(name); }

 private:
  std::map<std::string, std::vector<double>> ns_;
};

struct Row {
  const char *what, *anchor, *placement;
  double bytes = 0;
};
constexpr const char *kCopy = "memcpy, 1 MiB pieces", *kCall = "plain call of one handler",
                     *kSame = "eventfd round trip, same CPU", *kRead = "its text read alone",
                     *kSpin = "shared-memory round trip, both spin";
constexpr Row kRows[] = {
    {"stream writer with checksum, 1 MiB chunks", kCopy, "one CPU", kChunk},
    {"stream reader, bulk chunks of 1 MiB", kCopy, "one CPU", kChunk},
    {"stream reader, 1 MiB chunks kept", kCopy, "one CPU", kChunk},
    {"chain of 1, last handler answers", kCall, "one CPU"},
    {"chain of 2", kCall, "one CPU"},
    {"chain of 4", kCall, "one CPU"},
    {"chain of 8", kCall, "one CPU"},
    {"eventfd round trip, cross CPU", kSame, "pinned"},
    {"destination read and judged", kRead, "one CPU"},
    {"read through a watched slot", kSpin, "cross CPU"},
    {"read() of 4 bytes of /dev/zero", kSpin, "one CPU"},
};

// A worker and a VMM, with each placement.
struct Peers {
  const char *saved, *from_pipe, *loaded, *into_pipe, *placement;
  int cpu;
};
constexpr Peers kPeers[] = {
    {"stream saved through slices, same CPU", "read of a 1 MiB pipe, same CPU",
     "stream loaded through slices, same CPU", "write to a 1 MiB pipe, same CPU", "same CPU", kFirstCpu},
    {"stream saved through slices, cross CPU", "read of a 1 MiB pipe, cross CPU",
     "stream loaded through slices, cross CPU", "write to a 1 MiB pipe, cross CPU", "cross CPU", kSecondCpu},
};

void register_all() {
  const auto add = [](const char* name, auto function) {
    return ::benchmark::RegisterBenchmark(name, function);
  };
  add(kCopy, copy_state);
  add(kRows[0].what, write_stream);
  add(kRows[1].what, [](State& s) { read_stream(s, {.bulk = true}); });
  add(kRows[2].what, [](State& s) { read_stream(s, {}); });
  add(kCall, call_directly);
  add(kRows[3].what, [](State& s) { walk_chain(s, 1); });
  add(kRows[4].what, [](State& s) { walk_chain(s, 2); });
  add(kRows[5].what, [](State& s) { walk_chain(s, 4); });
  add(kRows[6].what, [](State& s) { walk_chain(s, 8); });
  add(kSame, [](State& s) { ping_pong(s, kFirstCpu); })->UseManualTime()->Iterations(1);
  const auto add_peer = [&](const char* name, auto role, int cpu) {
    add(name, [=](State& s) { move_state(s, role, cpu); })->UseManualTime()->Iterations(1);
  };
  for (const Peers& p : kPeers) {
    add_peer(p.saved, SlicePeer::saves, p.cpu);
    add_peer(p.loaded, SlicePeer::loads, p.cpu);
    add_peer(p.from_pipe, PipePeer::gives, p.cpu);
    add_peer(p.into_pipe, PipePeer::takes, p.cpu);
  }
  add(kRead, read_destination);
  add(kRows[8].what, judge_destination);
  add(kRows[7].what, [](State& s) { ping_pong(s, kSecondCpu); })->UseManualTime()->Iterations(1);
  add(kSpin, [](State& s) { spin(s, &SpinPeer::round_trip); })->UseManualTime()->Iterations(1);
  add(kRows[10].what, read_nothing);
  add(kRows[9].what, [](State& s) { spin(s, &SlotPeer::read); })->UseManualTime()->Iterations(1);
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 21;
  double seconds = 0.02;
  std::string json;
  CLI::App app("Times the parts of Hookline that need no device, beside memcpy and plain calls");
  app.add_option("--rounds", rounds, "how often everything takes its turn")->check(CLI::Range(1, 1000));
  app.add_option("--seconds", seconds, "shortest turn")->check(CLI::PositiveNumber);
  app.add_option("--json", json, "write the figures there, too");
  CLI11_PARSE(app, argc, argv);

  try {
    pin(0, kFirstCpu);
    register_all();
    std::vector<std::string> options = {argv[0], fmt::format("--benchmark_repetitions={}", rounds),
                                        "--benchmark_enable_random_interleaving=true",
                                        fmt::format("--benchmark_min_time={}", seconds)};
    std::vector<char*> pointers;
    for (auto& option : options) pointers.push_back(option.data());
    int count = static_cast<int>(pointers.size());
    ::benchmark::Initialize(&count, pointers.data());
    Collector collector;
    ::benchmark::RunSpecifiedBenchmarks(&collector);

    Figures figures;
    for (const Row& row : kRows)
      figures.ratios.push_back(
          {row.what, row.anchor, row.placement, collector.ns(row.what), collector.ns(row.anchor), row.bytes});
    for (const Peers& p : kPeers) {
      const auto add = [&](const char* what, const char* anchor) {
        figures.ratios.push_back(
            {what, anchor, p.placement, collector.ns(what), collector.ns(anchor), double{kChunks * kChunk}});
      };
      add(p.saved, p.from_pipe);
      add(p.loaded, p.into_pipe);
    }
    publish("native", figures, json);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 1;
  }
}
