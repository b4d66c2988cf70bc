// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/state_plugin.hpp"

#include <algorithm>
#include <vector>

#include <hookline/stream.hpp>

#include "tests/bench/must.hpp"
#include "tests/bench/small_plugin.hpp"

namespace hookline::bench {
namespace {

// A section holds the field's name, too.
constexpr uint64_t kPiece = kMaxChunkPayload - 4096;
constexpr hookline_key kKeys[] = {
    {"bytes", "size of the state", "0", nullptr, HOOKLINE_KEY_UINT, 0, 0, UINT64_C(1) << 32}};

struct State {
  const hookline_host* host;
  uint64_t bytes;
  uint64_t moved = 0;  // of the stream that is under way
  std::vector<std::byte> piece = std::vector<std::byte>(std::min(bytes, kPiece), std::byte{0x5a});

  /// Bytes of the next section.
  size_t take() {
    const uint64_t length = std::min(kPiece, bytes - moved);
    moved += length;
    return length;
  }
  bool at_end() const { return moved == bytes; }
};

int open(const hookline_host* host, hookline_device*, const hookline_info*, const hookline_value* values,
         void** self) {
  *self = new State{host, values[0].number};
  return 0;
}

void close(void* self) {
  delete static_cast<State*>(self);
}

// No state changes in the middle of a stream.
void event(void* self, const hookline_event*) {
  static_cast<State*>(self)->moved = 0;
}

// All of it has changed up to the stop: nothing is sent before.
int save_bulk(void* self, hookline_writer* out, uint32_t flags) {
  auto& state = *static_cast<State*>(self);
  if (!(flags & HOOKLINE_BULK_STOPPED) || state.at_end()) return HOOKLINE_HANDLED;
  const size_t length = state.take();
  if (const int error = state.host->put(out, "memory", state.piece.data(), length)) return error;
  return state.at_end() ? HOOKLINE_HANDLED : HOOKLINE_MORE;
}

int bulk_sizes(void* self, uint64_t* initial, uint64_t* dirty) {
  const auto& state = *static_cast<State*>(self);
  *initial = 0;
  *dirty = state.bytes - state.moved;
  return 0;
}

int load_bulk(void* self, hookline_reader* in, uint32_t) {
  auto& state = *static_cast<State*>(self);
  return state.host->get(in, "memory", state.piece.data(), state.take());
}

}  // namespace

Chain state_chain(uint64_t bytes, std::span<const hookline_range> ranges) {
  hookline_plugin plugin =
      small_plugin("bench-state", ranges, [](void*, hookline_access*) { return int{HOOKLINE_PASS}; });
  plugin.model = "com.example/bench-state";
  plugin.migration_version = "1";
  plugin.claims = HOOKLINE_CLAIM_MIGRATION;
  plugin.keys = kKeys;
  plugin.nr_keys = 1;
  plugin.open = open;
  plugin.close = close;
  plugin.event = event;
  plugin.save = [](void*, hookline_writer*) { return int{HOOKLINE_HANDLED}; };
  plugin.load = [](void*, hookline_reader*) { return 0; };
  plugin.apply = [](void*) { return 0; };
  if (bytes > 0) {
    plugin.abi.required = HOOKLINE_REQUIRE_BULK;
    plugin.save_bulk = save_bulk;
    plugin.bulk_sizes = bulk_sizes;
    plugin.load_bulk = load_bulk;
    plugin.max_bulk = bytes;
  }
  OptionValue size;
  size.number = bytes;
  size.is_set = true;
  std::vector<Link> links;
  links.push_back(must(make_link(plugin, {size})));
  return must(build_chain(std::move(links)));
}

}  // namespace hookline::bench
