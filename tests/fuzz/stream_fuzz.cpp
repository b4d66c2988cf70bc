// SPDX-License-Identifier: Apache-2.0
//
// The reader of device-state streams: no bytes crash it, the cut in which they come changes nothing, and what
// it says is final. Whoever it believes can be written again: the writer's stream has the same sections.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <hookline/stream.hpp>

#include "stream_mutator.hpp"

namespace {

using namespace hookline;
using Bytes = std::vector<std::byte>;

constexpr StreamLimits kLimits{.max_state = 64 << 10, .max_kept = 48 << 10, .max_chunks = 12};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "stream_fuzz: %s\n", what);
  std::abort();
}

/// Keeps what it is told, and refuses nothing.
class Sink final : public StreamSink {
 public:
  Result<void> on_match(std::string_view record) override {
    require(!has_match && sections.empty(), "a match record is not the first thing told");
    has_match = true;
    match = record;
    return {};
  }
  Result<void> on_section(const Section& section) override {
    require(has_match && !complete, "a section outside of a stream");
    require(is_section_name(section.name), "a section without a proper name");
    bytes += section.payload.size();
    kept += !section.flags.bulk;
    require(bytes <= kLimits.max_state && kept <= kLimits.max_chunks, "a limit does not hold");
    sections.push_back(
        {std::string(section.name), section.flags, {section.payload.begin(), section.payload.end()}});
    return {};
  }
  Result<void> on_complete() override {
    require(!complete, "complete twice");
    complete = true;
    return {};
  }

  struct Told {
    std::string name;
    SectionFlags flags;
    Bytes payload;
    bool operator==(const Told&) const = default;
  };
  bool has_match = false, complete = false;
  std::string match;
  std::vector<Told> sections;
  uint64_t bytes = 0;
  size_t kept = 0;  // until the trailer
};

/// `cut` bytes at a time; the verdict as code and text.
std::pair<int, std::string> read(std::span<const std::byte> stream, size_t cut, Sink& sink) {
  StreamReader reader(sink, kLimits);
  while (!stream.empty()) {
    const auto piece = stream.first(std::min(cut, stream.size()));
    stream = stream.subspan(piece.size());
    const Result<void> ok = reader.write(piece);
    if (ok) continue;
    const Result<void> again = reader.write(piece), end = reader.end();
    require(!again && again.error().text == ok.error().text && !end && end.error().text == ok.error().text,
            "a refusal is not final");
    require(!reader.complete(), "complete, though refused");
    return {ok.error().code, ok.error().text};
  }
  const Result<void> end = reader.end();
  require(end.has_value() == reader.complete() && sink.complete == reader.complete(), "an end that is none");
  return end ? std::pair{0, std::string()} : std::pair{end.error().code, end.error().text};
}

Bytes write(const Sink& sink) {
  auto writer = StreamWriter::create(sink.match);
  require(writer.has_value(), "what was read cannot be written");
  Bytes out;
  const auto drain = [&] {
    const size_t at = out.size();
    out.resize(at + writer->pending());
    writer->take(std::span(out).subspan(at));
  };
  drain();
  for (const Sink::Told& section : sink.sections) {
    require(writer->section(section.name, section.flags, section.payload).has_value(),
            "a section cannot be written");
    drain();
  }
  require(writer->finish().has_value(), "the trailer cannot be written");
  drain();
  return out;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return fuzz::mutate_stream(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span stream(reinterpret_cast<const std::byte*>(data), size);
  Sink whole;
  const auto verdict = read(stream, std::max<size_t>(size, 1), whole);
  require(verdict.first != 0 || whole.complete, "accepted, but not complete");
  for (const size_t cut : {size_t{1}, size_t{7}, size / 2 + 1}) {
    Sink pieces;
    const auto same = read(stream, cut, pieces);
    // Bytes behind the trailer are known before it is delivered only where they come with it.
    if (verdict.second.find("too long") != std::string::npos) {
      require(same.first == verdict.first, "too long for one cut only");
      continue;
    }
    require(same == verdict && pieces.sections == whole.sections, "the cut changes what is read");
  }
  if (whole.complete) {
    const Bytes again = write(whole);
    Sink copy;
    require(read(again, again.size(), copy).first == 0 && copy.sections.size() == whole.sections.size() &&
                copy.match == whole.match,
            "what was written again is not what was read");
  }
  return 0;
}
