// SPDX-License-Identifier: Apache-2.0
//
// The device-state stream: what one device says about itself to its successor, framed, numbered and
// checksummed.
//
// A match record, then sections in chunks of at most 1 MiB, then a trailer; docs/stream-format.md has every
// byte. Neither class does I/O and neither starts a thread: bytes are taken from the writer and written to
// the reader in pieces of any size, because the VMM between them keeps order and nothing else. One thread at
// a time per object.
//
// Errors: Result, and a text that names section, offset, reason and, where there is one, the remedy. The
// checksums guard against accidents only. A sink must treat what it is given as hostile input.
//
//     Result<StreamWriter> writer = StreamWriter::create(migration_version);  // compatibility.hpp
//     send(*writer);  // loops over take() until pending() is 0; in PRE_COPY the match record goes out alone
//     writer->section("nic-82576/queue0", {}, fields.bytes());
//     send(*writer);
//     writer->finish();
//     send(*writer);
//
//     StreamReader reader(sink, {.max_state = 64 << 20});
//     if (auto ok = reader.write(piece); !ok) return ok;  // for each piece, whatever its size
//     if (auto ok = reader.end(); !ok) return ok;         // says what is missing
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/result.hpp>

namespace hookline {

/// Largest payload of one chunk.
inline constexpr size_t kMaxChunkPayload = size_t{1} << 20;

struct SectionFlags {
  bool optional = false;  ///< a reader that does not know the section may skip it
  bool bulk = false;      ///< delivered as soon as its own checksum holds, before the trailer
  bool operator==(const SectionFlags&) const = default;
};

/// One verified chunk. Large sections come as several chunks of the same name, in order.
struct Section {
  std::string_view name;  ///< valid during the call
  SectionFlags flags;
  uint64_t offset;                     ///< of the payload in the stream; for FieldReader's texts
  std::span<const std::byte> payload;  ///< valid during the call
};

/// True for what may name a section: 1 to 64 of a-z 0-9 - . /
bool is_section_name(std::string_view name);

class StreamWriter {
 public:
  /// The match record is pending afterwards: the device's migration_version, as a destination is told it
  /// anywhere else. EINVAL for a text the format cannot carry: more than 4095 bytes, or not printable ASCII.
  static Result<StreamWriter> create(std::string_view migration_version);

  /// Makes one chunk pending. The payload is borrowed, not copied: it stays unchanged until pending() is 0.
  /// EBUSY while anything is pending, EINVAL for a bad name or after finish(), E2BIG above kMaxChunkPayload;
  /// none of these changes the writer.
  Result<void> section(std::string_view name, SectionFlags flags, std::span<const std::byte> payload);

  /// Makes the trailer pending. EBUSY while anything is pending, EINVAL a second time.
  Result<void> finish();

  /// Bytes that take() can still move.
  size_t pending() const;

  /// Moves min(pending(), out.size()) bytes to the front of out and says how many.
  size_t take(std::span<std::byte> out);

  /// The trailer has been taken: the stream is over.
  bool done() const { return finished_ && pending() == 0; }

 private:
  StreamWriter() = default;
  Result<void> check_idle() const;
  void seal(size_t header_checksum_at, std::span<const std::byte> payload);

  std::vector<std::byte> head_;           // the record's own bytes before the payload
  std::span<const std::byte> payload_{};  // the caller's
  std::array<std::byte, 4> tail_{};       // the checksum behind the payload
  size_t taken_ = 0;                      // of head_, payload_ and tail_ together
  uint64_t total_ = 0;                    // stream length up to and including what is pending
  uint32_t chunks_ = 0;
  uint32_t checksum_ = 0;
  bool finished_ = false;
};

/// Receives what a reader has verified. Any error stops the stream for good and is handed on as it is.
/// Nothing here may throw.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  /// Once, first, and as soon as the record's checksum holds: the place to refuse an incompatible source.
  /// `migration_version`: printable ASCII, not read any further; valid during the call.
  virtual Result<void> on_match(std::string_view migration_version) = 0;
  /// Bulk chunks as they arrive; all others in their order after the trailer was verified.
  virtual Result<void> on_section(const Section& section) = 0;
  /// Once, last: everything was delivered and nothing is missing. The caller applies the state here.
  virtual Result<void> on_complete() = 0;
};

/// Bounds on what a stream may make its reader hold. All are checked before memory is allocated.
struct StreamLimits {
  /// Payload bytes of all chunks together, of bulk with their headers: the plugin's largest state.
  uint64_t max_state = uint64_t{16} << 20;
  /// Bytes of chunks kept until the trailer, each with its header.
  uint64_t max_kept = uint64_t{16} << 20;
  uint32_t max_chunks = 65536;  ///< without bulk
};

class StreamReader {
 public:
  /// The sink outlives the reader.
  explicit StreamReader(StreamSink& sink, StreamLimits limits = {});
  StreamReader(const StreamReader&) = delete;
  StreamReader& operator=(const StreamReader&) = delete;

  /// Takes all of `bytes` or fails. The first error is final: every later write() and end() returns it again.
  /// Codes: EINVAL not such a stream, or bytes behind the trailer; EPROTONOSUPPORT newer format; EBADMSG
  /// changed, reordered, repeated or lost bytes; E2BIG over a limit; ENOMEM; and whatever the sink returns.
  Result<void> write(std::span<const std::byte> bytes);

  /// Nothing more will come. ENODATA with the section, the offset and what was expected if that is too early.
  Result<void> end() const;

  /// So many bytes more are taken whatever they are, and reach nobody: within a body the last byte of its
  /// checksum is the first to bring a verdict. 0 where the next byte may.
  size_t ahead() const;

  /// The trailer was verified, the sink took everything, and nothing came behind it.
  bool complete() const { return step_ == Step::complete && !error_; }

 private:
  enum class Step { magic, match_header, match_body, tag, section_header, section_body, trailer, complete };
  struct Chunk {
    std::string name;
    SectionFlags flags;
    uint64_t offset = 0;
    size_t length = 0;
    std::unique_ptr<std::byte[]> bytes;  // payload and the checksum behind it
  };

  Result<void> consume(std::span<const std::byte> bytes);
  Result<void> on_gathered(size_t bytes_behind);
  Result<void> match_header();
  Result<void> match_body();
  Result<void> tag();
  Result<void> section_header();
  Result<void> section_body();
  Result<void> trailer(size_t bytes_behind);
  Result<void> check_header(size_t checksum_at) const;
  Result<void> check_body(std::span<const std::byte> body);
  Result<void> check_limits();
  Result<void> deliver(const Chunk& chunk, const std::byte* payload);
  tl::unexpected<Error> too_long() const;
  void gather(Step step, std::byte* into, size_t size);
  void next_record();
  std::string where() const;
  std::string progress() const;
  tl::unexpected<Error> refuse(int code, std::string_view reason) const;

  StreamSink& sink_;
  StreamLimits limits_;
  std::optional<Error> error_;

  Step step_ = Step::magic;
  std::byte* into_ = nullptr;   // where the current step's bytes gather
  size_t wanted_ = 0;           // how many it needs
  size_t have_ = 0;             // how many are there
  uint64_t offset_ = 0;         // stream bytes consumed
  uint64_t record_offset_ = 0;  // where the current record begins

  std::array<std::byte, 84> header_;
  Chunk chunk_;  // the one that is arriving; the match record's body before that
  // Reused: a fresh MiB per bulk chunk costs more than its checksum.
  std::unique_ptr<std::byte[]> bulk_buffer_;
  std::vector<Chunk> kept_;
  uint64_t kept_bytes_ = 0;
  uint64_t state_bytes_ = 0;
  uint32_t chunks_ = 0;
  uint32_t checksum_ = 0;
};

}  // namespace hookline
