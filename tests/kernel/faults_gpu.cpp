// SPDX-License-Identifier: Apache-2.0
//
// A display with the plugin gpu-bochs, as it is shipped, in a worker of the library that lies where it is told to. It has no
// heart: nothing stops it. What the guest sees is its mode and its picture, and they stand for one.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include <hookline/chain.hpp>
#include <hookline/fields.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/hook_serve.hpp>
#include <hookline/open_device.hpp>
#include <hookline/plugin.h>
#include <hookline/stream.hpp>

#include "tests/kernel/faults_painter.hpp"
#include "tests/kernel/faults_subject.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr uint16_t kVendor = 0x1234, kDisplay = 0x1111;
constexpr uint32_t kVram = VFIO_PCI_BAR0_REGION_INDEX, kRegisters = VFIO_PCI_BAR2_REGION_INDEX;
constexpr uint32_t mode_at(uint32_t index) { return 0x500 + 2 * index; }
constexpr uint32_t kXres = 1, kYres = 2, kBpp = 3, kEnable = 4;
constexpr uint16_t kMode[] = {640, 480, 32};  // of kXres and the next two
constexpr uint16_t kOn = 0xc1;                // enabled, linear, and memory is not cleared

// A picture: more than one section has room for, so that of a stream some can be loaded and some be missing.
constexpr uint32_t kPicture = 300, kSection = 240;
constexpr uint32_t kDrawn = 7;  // the page that changes between rounds
enum class Paint : uint32_t { own = 0x10000, other = 0x20000 };

// What stands in the whole page.
constexpr uint32_t word_of(Paint paint, uint32_t page) { return static_cast<uint32_t>(paint) + page + 1; }

constexpr uint32_t kSaveAtOnce = 65536;  // so that a stream does not fit into what is given ahead

struct Run {  // as in the plugin
  uint32_t first, count : 31, zero : 1;
};

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::string display() {
  for (const auto& function : std::filesystem::directory_iterator("/sys/bus/pci/devices"))
    if (sysfs::read(function.path() / "device").value_or("") == fmt::format("{:#06x}", kDisplay)) return function.path().filename();
  throw std::runtime_error("needs tests/vm/run --device bochs-display,vgamem=4M");
}

const Chain& chain() {
  static const Chain chain = must(build_chain({must(make_link(hookline_plugin_v1))}));
  return chain;
}

// ------------------------------------------------------------------------------------------------ worker

// Answers as the library's serve() does, and before and after that as the board says.
class Server {
 public:
  Server(Session& session, Board& board, OpenDevice& device)
      : session_(session), board_(board), server_(device, session.stream(), {}, &session) {}

  void serve() {
    if (!server_.refresh_parameters()) return;
    (void)session_.set_sizes(chain().max_bulk_pass(), chain().max_save() + chain().max_bulk_pass());
    ++board_.sessions;
    int answered = VFIO_PCI_HOOKS_NO_SLOT;
    for (;;) {
      const auto next = early_ ? std::exchange(early_, std::nullopt).value() : session_.next(answered, -1);
      const bool had_answer = std::exchange(answered, VFIO_PCI_HOOKS_NO_SLOT) != VFIO_PCI_HOOKS_NO_SLOT;
      if (!next) {
        if (next.error().code == EINTR || (next.error().code == EINVAL && had_answer)) continue;
        return;
      }
      if (next->what == VFIO_PCI_HOOKS_NEXT_EVENT)
        server_.event(*next);
      else
        answered = answer(next->slot);
    }
  }

 private:
  int answer(int32_t number) {
    vfio_pci_hooks_slot& slot = session_.slot(static_cast<uint32_t>(number));
    if (board_.hang_at == slot.op) hang(number);
    if (slot.op == VFIO_PCI_HOOKS_REQ_WRITE) ++board_.writes;
    if (slot.op == VFIO_PCI_HOOKS_REQ_SAVE) slot.length = std::min<uint32_t>(slot.length, board_.save_at_once);
    server_.answer(slot);
    switch (board_.lie) {
      case Lie::none: return number;
      case Lie::slot: {
        const int32_t other = (number + 1) % VFIO_PCI_HOOKS_SLOTS;
        session_.slot(static_cast<uint32_t>(other)) = slot;
        expect_refused(other);
        break;
      }
      case Lie::length:
        slot.answer_length = VFIO_PCI_HOOKS_STREAM_SIZE + 1;
        if (slot.op == VFIO_PCI_HOOKS_REQ_LOAD) slot.answer_flags = ~0u;
        if (slot.op == VFIO_PCI_HOOKS_REQ_WRITE) slot.answer = VFIO_PCI_HOOKS_RUN_REST;
        expect_refused(number);
        break;
      case Lie::twice: {
        auto next = session_.next(number, 0);
        if (next) early_ = std::move(next);
        expect_refused(number);
        break;
      }
    }
    return VFIO_PCI_HOOKS_NO_SLOT;
  }

  void expect_refused(int32_t slot) {
    const auto next = session_.next(slot, 0);
    if (!next && next.error().code == EINVAL) ++board_.refused_answers;
  }

  // Who wakes it up wants to know what it can still do.
  void hang(int32_t slot) {
    ::raise(SIGSTOP);
    const auto read = session_.read(kRegisters, mode_at(kXres), 2);
    board_.late_rw = read ? 0 : read.error().code;
    const auto next = session_.next(slot, 0);
    board_.late_next = next ? 0 : next.error().code;
    ::signal(SIGBUS, SIG_DFL);  // the library's would have it read zero
    session_.slot(static_cast<uint32_t>(slot)).answer = 0;
  }

  Session& session_;
  Board& board_;
  RequestServer server_;
  std::optional<Result<vfio_pci_hooks_next>> early_;  // fetched by a call that was to answer only
};

// Open after open, until the function leaves the driver.
void serve_plugin(int descriptor, Board& board) {
  Channel channel{FileDescriptor(descriptor)};
  for (;;) {
    auto session = channel.wait_open(chain());
    if (!session && session.error().code == EINTR) continue;
    if (!session) return;
    const auto device = OpenDevice::open(chain(), **session, {});
    if (!device) ::_exit(1);
    Server(**session, board, **device).serve();
  }
}

// ------------------------------------------------------------------------------------------------ streams

using Bytes = std::vector<uint8_t>;

// Of the good stream, up to the end of its match record.
size_t match_record_size(const Bytes& good) {
  uint32_t length = 0;
  std::memcpy(&length, good.data() + 12, sizeof length);
  return 20 + length + 4;
}

Bytes stream_of(std::string_view migration_version, std::span<const std::byte> bulk = {}) {
  Bytes stream;
  StreamWriter writer = must(StreamWriter::create(migration_version));
  const auto take = [&] {
    const size_t at = stream.size();
    stream.resize(at + writer.pending());
    (void)writer.take(std::as_writable_bytes(std::span(stream)).subspan(at));
  };
  take();
  if (!bulk.empty()) {
    must(writer.section("gpu-bochs", {.bulk = true}, bulk));
    take();
  }
  must(writer.finish());
  take();
  return stream;
}

// One section: good zero pages, and these behind them.
Bytes bulk_stream(std::string_view migration_version, Run behind, size_t data_pages) {
  std::vector<std::byte> payload(kMaxChunkPayload);
  FieldWriter fields(payload);
  const Run runs[] = {{0, 5, 1}, behind};
  must(fields.put("runs", std::as_bytes(std::span(runs))));
  if (data_pages) must(fields.reserve("data", data_pages * kPage));
  return stream_of(migration_version, fields.bytes());
}

Bytes spoilt(Bytes good, Event event) {
  const auto record = static_cast<ptrdiff_t>(match_record_size(good));
  const std::string version(good.begin() + 20, good.begin() + record - 4);
  switch (event) {
    case Event::stream_truncated: good.resize(good.size() * 9 / 10); return good;
    case Event::stream_flipped: good[good.size() / 2] ^= 1; return good;
    case Event::stream_reordered:
      std::rotate(good.begin() + record, good.begin() + (record + static_cast<ptrdiff_t>(good.size())) / 2, good.end());
      return good;
    case Event::stream_foreign: {
      std::string other = version;
      const size_t at = other.find("bochs-display");
      if (at == std::string::npos) throw std::runtime_error("the stream names no model: " + version);
      return stream_of(other.replace(at, 5, "other"));
    }
    case Event::stream_oversized: return bulk_stream(version, {5, kSection + 1, 0}, kSection + 1);
    case Event::stream_outside: return bulk_stream(version, {~0u, 5, 1}, 0);
    default: throw std::invalid_argument(name_of(event));
  }
}

// ------------------------------------------------------------------------------------------------ display

class Gpu final : public Subject {
 public:
  Gpu() : Subject(display()) {}

  void define(const Control&) const override {
    const hookline::Definition definition{.address = parse_address(address()),
                                          .vendor = kVendor,
                                          .device = kDisplay,
                                          .access_limit_ms = kLimitMs * sysfs::slowness(),
                                          .state_limit_ms = kLimitMs * sysfs::slowness()};
    const auto done = must(ControlDevice::open()).define(definition, chain());
    if (!done && done.error().code != EBUSY) throw std::runtime_error(done.error().text);
  }
  std::unique_ptr<Worker> start_worker(Board& board) const override {
    return std::make_unique<Worker>(address(), board, serve_plugin);
  }
  void behave(Board& board) const override { board.save_at_once = kSaveAtOnce; }

  void opened(const vfio::Container&, const Guest& guest) override {
    if (!good_.empty()) return;
    paint(guest, Paint::other);
    good_ = save(guest);
    paint(guest, Paint::other);
    pre_copy_ = pre_copy(guest);
  }

  void mark(const Guest& guest) override {
    shown_ = Paint::own;
    load_ = good_;
    drawn_ = 0;
    paint(guest, shown_);
    const std::vector<std::byte> blank(Painter::kSize);
    must(guest.device.write(kVram, Painter::kAt, std::span<const std::byte>(blank)));
  }
  uint32_t heart(const Guest& guest) const override {
    uint32_t as_marked = 0, other = 0, zero = 0;
    for (uint32_t page = 0; page < kPicture; ++page) {
      const auto first = must(guest.device.read<uint32_t>(kVram, page * kPage));
      if (first != must(guest.device.read<uint32_t>(kVram, (page + 1) * kPage - 4))) return 0;
      as_marked += first == (page == kDrawn && drawn_ ? drawn_ : word_of(shown_, page));
      other += first == word_of(Paint::other, page);
      zero += first == 0;
    }
    const bool mode = read_mode(guest, kXres) == kMode[0] && read_mode(guest, kYres) == kMode[1] && read_mode(guest, kBpp) == kMode[2];
    if (as_marked == kPicture && mode) return kBeating;
    if (zero == kPicture && !read_mode(guest, kXres) && !read_mode(guest, kEnable)) return kFresh;
    return other == kSection && as_marked == kPicture - kSection && mode ? kHalf : 0;
  }
  uint32_t standing() const override { return kBeating; }
  int access(const Guest& guest) const override {
    // It changes nothing: what is there, which nobody is asked about.
    const auto now = guest.device.read<uint16_t>(kRegisters, mode_at(kEnable));
    if (!now) return now.error().code;
    const auto done = guest.device.write<uint16_t>(kRegisters, mode_at(kEnable), *now);
    return done ? 0 : done.error().code;
  }
  bool is_answered(const Guest& guest, const Board& board) const override {
    const uint64_t before = board.writes;
    return access(guest) == 0 && board.writes == before + 1;
  }

  size_t read_piece() const override { return kSaveAtOnce; }
  size_t pre_copy_size() const override { return pre_copy_; }
  std::span<const uint8_t> to_load() const override { return load_; }
  // All of the first section and some of the second, but nothing of what may be refused.
  size_t load_at_first() const override { return load_ == good_ ? good_.size() * 9 / 10 : 0; }
  size_t load_piece() const override { return load_ == good_ ? kPage : kSaveAtOnce; }
  bool is_whole(std::span<const uint8_t> saved) const override {
    return saved.size() > kPicture * kPage && std::memcmp(saved.data() + saved.size() - 24, "DONE", 4) == 0;
  }
  void loaded() override { shown_ = Paint::other; }
  void spoil(Event event) override { load_ = spoilt(good_, event); }

  State begins_in() const override { return State::pre_copy; }
  // By a mapping, whose pages the rounds take away.
  void draw(const Guest& guest) override {
    const vfio::Mapping memory = must(guest.device.map(kVram, 0, kPicture * kPage));
    drawn_ = 0xd1000000;
    for (uint64_t at = 0; at < kPage; at += 4) memory.word(kDrawn * kPage + at) = drawn_;
  }
  void come_back(const Guest& guest, std::span<const uint8_t> saved) override {
    must(guest.device.reset());
    must(guest.device.enable_memory_and_dma());
    if (heart(guest) != kFresh) throw std::runtime_error("a reset left something");
    const auto data = must(guest.device.set_state(VFIO_DEVICE_STATE_RESUMING));
    for (size_t at = 0; at < saved.size();) {
      const ssize_t done = ::write(data.get(), saved.data() + at, std::min(saved.size() - at, size_t{kSaveAtOnce}));
      if (done < 0) throw std::system_error(errno, std::generic_category(), "the device's own state");
      at += static_cast<size_t>(done);
    }
    must(guest.device.set_state(VFIO_DEVICE_STATE_RUNNING));
  }

  std::shared_ptr<void> begin_vmm(const Guest& guest) override {
    (void)pre_copy(guest);
    return std::make_shared<Painter>(guest.device);
  }

 private:
  static uint16_t read_mode(const Guest& guest, uint32_t index) {
    return must(guest.device.read<uint16_t>(kRegisters, mode_at(index)));
  }
  static void write_mode(const Guest& guest, uint32_t index, uint16_t value) {
    must(guest.device.write<uint16_t>(kRegisters, mode_at(index), value));
  }
  static void paint(const Guest& guest, Paint paint) {
    for (uint32_t i = 0; i < std::size(kMode); ++i) write_mode(guest, kXres + i, kMode[i]);
    write_mode(guest, kEnable, kOn);
    std::vector<uint32_t> words(kPicture * kPage / 4);
    for (size_t i = 0; i < words.size(); ++i) words[i] = word_of(paint, static_cast<uint32_t>(i / (kPage / 4)));
    must(guest.device.write(kVram, 0, std::as_bytes(std::span(words))));
  }

  // The whole stream, from a device that is stopped for it.
  static Bytes save(const Guest& guest) {
    const auto data = must(guest.device.set_state(VFIO_DEVICE_STATE_STOP_COPY));
    Bytes stream = read_all(data);
    must(guest.device.set_state(VFIO_DEVICE_STATE_RUNNING));
    return stream;
  }
  // The first round of a migration that is given up.
  static size_t pre_copy(const Guest& guest) {
    const auto data = must(guest.device.set_state(VFIO_DEVICE_STATE_PRE_COPY));
    const size_t size = read_all(data).size();
    must(guest.device.set_state(VFIO_DEVICE_STATE_RUNNING));
    return size;
  }
  static Bytes read_all(const vfio::Descriptor& data) {
    Bytes stream, piece(kSaveAtOnce);
    for (;;) {
      const ssize_t got = ::read(data.get(), piece.data(), piece.size());
      if (got < 0 && errno != ENOMSG) throw std::system_error(errno, std::generic_category(), "the display's state");
      if (got <= 0) return stream;
      stream.insert(stream.end(), piece.begin(), piece.begin() + got);
    }
  }

  Bytes good_, load_;  // of the other picture; what is loaded next
  size_t pre_copy_ = 0;
  Paint shown_ = Paint::own;
  uint32_t drawn_ = 0;
};

}  // namespace

std::unique_ptr<Subject> make_gpu() { return std::make_unique<Gpu>(); }

}  // namespace hookline::kernel_test
