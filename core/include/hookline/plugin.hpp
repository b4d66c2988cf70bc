// SPDX-License-Identifier: Apache-2.0
//
// The C++ facade of the plugin ABI (hookline/plugin.h): derive, declare, done. Header-only; a plugin includes nothing else.
//
// Thread rule: one object per open of a device, used from one thread. It never waits for the VMM.
// Errors: throw std::system_error to fail an operation with its errno and a text of your own; anything else becomes EIO,
// std::bad_alloc ENOMEM. Nothing thrown leaves the plugin.
//
//     class Toy final : public hookline::MigrationOwner {
//      public:
//       explicit Toy(Device& dev) : dev_(dev), shadow_(dev) {}
//       Answer on_write(Access& a) override { shadow_->mode = a.value32(); return Answer::pass; }
//       void save(SectionWriter& out) override { out.u32("mode", shadow_->mode); }
//       void load(SectionReader& in) override { mode_ = in.u32("mode", in_range(0, 3)); }
//       void apply() override { shadow_->mode = mode_; dev_.write32(0, kMode, mode_); }
//       ...
//     };
//     HOOKLINE_PLUGIN(Toy, {.name = "toy", .version = "1.0", .model = "com.example/toy", ...})
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "hookline/plugin.h"

namespace hookline {

/// What a handler says. An error is thrown instead.
enum class Answer : int {
  handled = HOOKLINE_HANDLED,
  pass = HOOKLINE_PASS,
  run_rest = HOOKLINE_RUN_REST,  ///< of on_ioctl() only
};

[[noreturn]] inline void raise(int error, const std::string& why) {
  throw std::system_error(error, std::generic_category(), why);
}

/// Linux PCI identity of the function this object serves; valid while the object lives.
using Info = hookline_info;
using Event = hookline_event;
using IoctlRequest = hookline_ioctl;

/// One access to a declared range: at most 8 bytes, naturally aligned.
struct Access : hookline_access {
  uint32_t value32() const { return static_cast<uint32_t>(value); }
  bool covers(uint32_t in_region, uint64_t at) const { return region == in_region && offset <= at && at < offset + length; }
};

/// The host's side of one open device. Not copyable; lives as long as the plugin object.
class Device {
 public:
  Device(const hookline_host* host, hookline_device* dev, const hookline_info* info, const hookline_value* values)
      : host_(host), dev_(dev), info_(info), values_(values) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Info& info() const { return *info_; }
  /// Option number `index` in the order of PluginInfo::keys.
  uint64_t number(size_t index) const { return values_[index].number; }
  bool flag(size_t index) const { return values_[index].number != 0; }
  std::string_view text(size_t index) const { return values_[index].text ? values_[index].text : ""; }

  /// Migration parameter number `index` in the order of PluginInfo::parameters; plugin.h says which value when. Valid until the
  /// callback returns.
  std::string_view parameter(size_t index) const {
    const char* value = "";
    check(host_->parameter(dev_, static_cast<uint32_t>(index), &value), "reading a migration parameter");
    return value;
  }
  /// In load() and apply(): the version of the state that comes, one of PluginInfo::reads. Valid as parameter().
  std::string_view stream_version() const {
    const char* version = "";
    check(host_->stream_version(dev_, &version), "reading the version of the state");
    return version;
  }

  void log(uint32_t level, const std::string& line) const { host_->log(dev_, level, line.c_str()); }
  void info_line(const std::string& line) const { log(HOOKLINE_LOG_INFO, line); }
  void warn(const std::string& line) const { log(HOOKLINE_LOG_WARNING, line); }

  /// Register access behind the chain. Throws on a dead device.
  uint32_t read32(uint32_t region, uint64_t offset) const { return static_cast<uint32_t>(read(region, offset, 4)); }
  void write32(uint32_t region, uint64_t offset, uint32_t value) const { write(region, offset, 4, value); }
  /// The same with a width of 1, 2, 4 or 8 bytes, naturally aligned.
  uint64_t read(uint32_t region, uint64_t offset, uint32_t width) const {
    uint64_t value = 0;
    check(host_->read(dev_, region, offset, width, &value), "reading a register");
    return value;
  }
  void write(uint32_t region, uint64_t offset, uint32_t width, uint64_t value) const {
    check(host_->write(dev_, region, offset, width, value), "writing a register");
  }
  /// Lets everybody behind this plugin do the access; afterwards a.value is theirs.
  void run_rest(Access& a) const { check(host_->run_rest(dev_, &a), "running the rest of the chain"); }

  /// Guest memory by IOVA. EPERM (thrown) unless the configuration grants it.
  void iova_read(uint64_t iova, std::span<std::byte> data) const {
    check(host_->iova_read(dev_, iova, data.data(), data.size()), "reading guest memory");
  }
  /// The same without throwing: 0 or -errno.
  int try_iova_read(uint64_t iova, std::span<std::byte> data) const {
    return host_->iova_read(dev_, iova, data.data(), data.size());
  }

  /// In apply(): replaces the start program for the next way into RUNNING.
  void start_once(std::span<const hookline_step> steps) const {
    const hookline_program program{steps.data(), static_cast<uint32_t>(steps.size()), 0};
    check(host_->start_once(dev_, &program), "replacing the start program");
  }
  uint32_t saved(uint32_t slot) const {
    uint32_t value = 0;
    check(host_->saved(dev_, slot, &value), "reading a value that the stop program kept");
    return value;
  }
  /// Asks the supervisor for a setting on the PF's side of this VF: 0 or -errno.
  int pf_request(hookline_pf_request& request) const { return host_->pf_request(dev_, &request); }

  void* shadow_memory(size_t length) const {
    void* address = nullptr;
    size_t have = 0;
    check(host_->shadow(dev_, &address, &have), "mapping the shadow");
    if (have < length) raise(ENOSPC, "the shadow is smaller than declared");
    return address;
  }
  /// nullptr where the device cannot be mapped (software models): use read32 and write32.
  volatile void* map_bar(uint32_t bar, size_t& length) const {
    volatile void* address = nullptr;
    const int ret = host_->map_bar(dev_, bar, &address, &length);
    if (ret == -EOPNOTSUPP || ret == -ENOTSUP) return nullptr;
    check(ret, "mapping a BAR");
    return address;
  }
  /// Which 4 KiB pages of a BAR, `pages` of them from `offset`, the guest may have touched since the call before, a bit each (see
  /// plugin.h). Where nobody keeps track: all.
  void touched(uint32_t bar, uint64_t offset, uint64_t pages, std::vector<uint64_t>& bitmap) const {
    bitmap.assign((pages + 63) / 64, 0);
    const bool old_host = host_->size < offsetof(hookline_host, touched) + sizeof(host_->touched);
    const int ret = old_host ? -EOPNOTSUPP : host_->touched(dev_, bar, offset, pages, bitmap.data());
    if (ret == -EOPNOTSUPP || ret == -ENOTSUP)
      for (uint64_t page = 0; page < pages; ++page) bitmap[page / 64] |= uint64_t{1} << (page % 64);
    else
      check(ret, "asking which pages were touched");
  }
  uint64_t now_ns() const { return host_->now_ns(); }
  /// Looks at `ready` every 200 us until it holds or `patience_ns` are over; what it said last. For the device's own answers,
  /// never for the VMM.
  template <typename Ready>
  bool wait(uint64_t patience_ns, Ready&& ready) const {
    const uint64_t end = now_ns() + patience_ns;
    bool done;
    while (!(done = ready()) && now_ns() < end) std::this_thread::sleep_for(std::chrono::microseconds(200));
    return done;
  }

  const hookline_host* host() const { return host_; }
  hookline_device* handle() const { return dev_; }

 private:
  void check(int ret, const char* what) const {
    if (ret < 0) raise(-ret, what);
  }
  const hookline_host* host_;
  hookline_device* dev_;
  const hookline_info* info_;
  const hookline_value* values_;
};

/// Memory decoding, on while this lives. A VMM has it off on a whole function until it has loaded config space, and a stopped guest
/// may have it off: reads and writes get through all the same, a mapping does not.
class Decoding {
 public:
  static bool is_on(const Device& dev) { return (dev.read(HOOKLINE_REGION_CONFIG, kCommand, 2) & kMemory) != 0; }
  explicit Decoding(const Device& dev) : dev_(dev), found_(dev.read(HOOKLINE_REGION_CONFIG, kCommand, 2)) {
    if (!(found_ & kMemory)) dev.write(HOOKLINE_REGION_CONFIG, kCommand, 2, found_ | kMemory);
  }
  ~Decoding() {
    if (!(found_ & kMemory)) dev_.host()->write(dev_.handle(), HOOKLINE_REGION_CONFIG, kCommand, 2, found_);
  }
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

 private:
  static constexpr uint32_t kCommand = 4, kMemory = 2;
  const Device& dev_;
  uint64_t found_;
};

/// A BAR, mapped where that can be, else by read and write. A value of 1, 2, 4 or 8 bytes, naturally aligned, is one access. Once
/// mapped it is touched with memory decoding on only: see Decoding.
class Bar {
 public:
  Bar() = default;
  Bar(const Device& dev, uint32_t bar)
      : dev_(&dev), bar_(bar), address_(static_cast<volatile std::byte*>(dev.map_bar(bar, length_))) {}
  template <typename T>
  T read(uint64_t offset) const {
    if (!address_) return static_cast<T>(dev_->read(bar_, offset, sizeof(T)));
    return *reinterpret_cast<const volatile T*>(at(offset, sizeof(T)));
  }
  template <typename T>
  void write(uint64_t offset, std::type_identity_t<T> value) const {
    if (!address_) return dev_->write(bar_, offset, sizeof(T), value);
    *reinterpret_cast<volatile T*>(at(offset, sizeof(T))) = value;
  }
  /// Memory: offset and size are multiples of 8.
  void read(uint64_t offset, std::span<std::byte> to) const {
    for (size_t i = 0; i < to.size(); i += 8) {
      const auto value = read<uint64_t>(offset + i);
      std::memcpy(to.data() + i, &value, 8);
    }
  }
  void write(uint64_t offset, std::span<const std::byte> from) const {
    for (size_t i = 0; i < from.size(); i += 8) {
      uint64_t value;
      std::memcpy(&value, from.data() + i, 8);
      write<uint64_t>(offset + i, value);
    }
  }

 private:
  volatile std::byte* at(uint64_t offset, size_t length) const {
    if (offset > length_ || length > length_ - offset) raise(EINVAL, "an access behind the end of a BAR");
    return address_ + offset;
  }
  const Device* dev_ = nullptr;
  uint32_t bar_ = 0;
  size_t length_ = 0;
  volatile std::byte* address_ = nullptr;
};

/// Shadow memory as a plain struct: survives the process, zeroed when the device is opened or reset.
template <typename T>
class ShadowRef {
 public:
  static_assert(std::is_trivially_copyable_v<T>, "the shadow is plain memory");
  explicit ShadowRef(const Device& dev) : at_(static_cast<T*>(dev.shadow_memory(sizeof(T)))) {}
  T* operator->() const { return at_; }
  T& operator*() const { return *at_; }

 private:
  T* at_;
};

// Range checks for loaded values: each says what was expected.
struct Check {
  enum Kind { any, range, mask, multiple } kind = any;
  uint64_t a = 0, b = 0;
  bool holds(uint64_t v) const {
    switch (kind) {
      case any: return true;
      case range: return v >= a && v <= b;
      case mask: return (v & ~a) == 0;
      case multiple: return a != 0 && v % a == 0 && v <= b;
    }
    return false;
  }
  std::string expected() const {
    switch (kind) {
      case any: return "any value";
      case range: return "expected " + std::to_string(a) + " to " + std::to_string(b);
      case mask: return "expected no bits outside " + hex(a);
      case multiple: return "expected a multiple of " + std::to_string(a) + " up to " + std::to_string(b);
    }
    return "";
  }
  static std::string hex(uint64_t v) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string s;
    do s.insert(s.begin(), digits[v & 15]);
    while (v >>= 4);
    return "0x" + s;
  }
};
constexpr Check anything() { return {}; }
constexpr Check in_range(uint64_t low, uint64_t high) { return {Check::range, low, high}; }
constexpr Check below(uint64_t limit) { return {Check::range, 0, limit ? limit - 1 : 0}; }
constexpr Check known_bits(uint64_t bits) { return {Check::mask, bits, 0}; }
constexpr Check multiple_of(uint64_t step, uint64_t limit) { return {Check::multiple, step, limit}; }

/// The plugin's section of the stream while saving: named fields, in the order they are put.
class SectionWriter {
 public:
  SectionWriter(const hookline_host* host, hookline_writer* out) : host_(host), out_(out) {}
  void u32(const char* name, uint32_t value) { put(name, &value, sizeof(value)); }
  void u64(const char* name, uint64_t value) { put(name, &value, sizeof(value)); }
  void bytes(const char* name, std::span<const std::byte> data) { put(name, data.data(), data.size()); }
  template <typename T, size_t N>
  void array(const char* name, const std::array<T, N>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    put(name, values.data(), sizeof(values));
  }
  /// A field whose value is filled in place, before the callback returns. Needs HOOKLINE_REQUIRE_BULK.
  std::span<std::byte> reserve(const char* name, size_t length) {
    void* data = nullptr;
    if (const int ret = host_->reserve(out_, name, length, &data); ret < 0) raise(-ret, std::string("saving field ") + name);
    return {static_cast<std::byte*>(data), length};
  }
  /// This section is not the last: save() (save_bulk()) is called again for another.
  void more() { more_ = true; }
  bool has_more() const { return more_; }

 private:
  void put(const char* name, const void* data, size_t length) {
    if (const int ret = host_->put(out_, name, data, length); ret < 0) raise(-ret, std::string("saving field ") + name);
  }
  const hookline_host* host_;
  hookline_writer* out_;
  bool more_ = false;
};

/// The same while loading. A value that fails its check refuses the stream, with section, offset and reason.
class SectionReader {
 public:
  SectionReader(const hookline_host* host, hookline_reader* in) : host_(host), in_(in) {}
  uint32_t u32(const char* name, Check check) { return scalar<uint32_t>(name, check); }
  uint64_t u64(const char* name, Check check) { return scalar<uint64_t>(name, check); }
  void bytes(const char* name, std::span<std::byte> data) { get(name, data.data(), data.size()); }
  template <typename T, size_t N>
  void array(const char* name, std::array<T, N>& values, Check check = {}) {
    get(name, values.data(), sizeof(values));
    for (size_t i = 0; i < N; ++i) verify(name, values[i], check);
  }
  /// A field's value in place, of any length up to `most`; valid until the callback returns. Needs HOOKLINE_REQUIRE_BULK.
  std::span<const std::byte> view(const char* name, size_t most) {
    const void* data = nullptr;
    size_t length = 0;
    if (const int ret = host_->view(in_, name, most, &data, &length); ret < 0) raise(-ret, std::string("loading field ") + name);
    return {static_cast<const std::byte*>(data), length};
  }
  /// Refuses the field read last.
  [[noreturn]] void reject(const char* name, const std::string& reason) {
    throw std::system_error(-host_->reject(in_, name, reason.c_str()), std::generic_category(), reason);
  }

 private:
  template <typename T>
  T scalar(const char* name, Check check) {
    T value{};
    get(name, &value, sizeof(value));
    verify(name, value, check);
    return value;
  }
  void verify(const char* name, uint64_t value, const Check& check) {
    if (!check.holds(value)) reject(name, "the value is " + std::to_string(value) + " (" + Check::hex(value) + "), " + check.expected());
  }
  void get(const char* name, void* data, size_t length) {
    if (const int ret = host_->get(in_, name, data, length); ret < 0) raise(-ret, std::string("loading field ") + name);
  }
  const hookline_host* host_;
  hookline_reader* in_;
};

/// A link of the chain. Whatever is not overridden passes.
class Handler {
 public:
  virtual ~Handler() = default;
  virtual Answer on_read(Access&) { return Answer::pass; }
  virtual Answer on_write(Access&) { return Answer::pass; }
  virtual Answer on_ioctl(IoctlRequest&) { return Answer::pass; }
  virtual void on_reset() {}
  virtual void on_state(uint32_t /*from*/, uint32_t /*to*/) {}
  /// Adds to the stream; a handler that is not the migration owner may leave them alone.
  virtual void save(SectionWriter&) {}
  virtual void load(SectionReader&) {}
  virtual void apply() {}
};

/// When a bulk section is made or loaded.
struct BulkCall {
  bool begin;    ///< first call of a stream
  bool stopped;  ///< save_bulk(): the device is stopped; what is not sent now is lost
};

/// Bytes that save_bulk() has still to put: of the first round, and of what changed since.
struct BulkSizes {
  uint64_t initial = 0, dirty = 0;
};

/// The one handler of a chain that moves the device: it must save, load and apply. State too large to be kept until the trailer
/// goes by the three bulk callbacks (plugin.h): override all three, and say PluginInfo::max_bulk.
class MigrationOwner : public Handler {
 public:
  void save(SectionWriter& out) override = 0;
  void load(SectionReader& in) override = 0;
  void apply() override = 0;
  virtual void save_bulk(SectionWriter&, BulkCall) {}
  virtual BulkSizes bulk_sizes() { return {}; }
  virtual void load_bulk(SectionReader&, BulkCall) {}
};

// Register steps, as a program reads best.
constexpr hookline_step write(uint8_t bar, uint32_t offset, uint32_t value) {
  return {HOOKLINE_STEP_WRITE, bar, 4, 0, offset, 0, value, 0};
}
constexpr hookline_step clear_bits(uint8_t bar, uint32_t offset, uint32_t bits) {
  return {HOOKLINE_STEP_MODIFY, bar, 4, 0, offset, bits, 0, 0};
}
constexpr hookline_step set_bits(uint8_t bar, uint32_t offset, uint32_t bits) {
  return {HOOKLINE_STEP_MODIFY, bar, 4, 0, offset, bits, bits, 0};
}
/// Writes back what is read: rings a doorbell again.
constexpr hookline_step rewrite(uint8_t bar, uint32_t offset) { return {HOOKLINE_STEP_MODIFY, bar, 4, 0, offset, 0, 0, 0}; }
constexpr hookline_step save(uint8_t bar, uint32_t offset, uint8_t slot) {
  return {HOOKLINE_STEP_SAVE, bar, 4, slot, offset, 0, 0, 0};
}
constexpr hookline_step restore(uint8_t bar, uint32_t offset, uint8_t slot) {
  return {HOOKLINE_STEP_RESTORE, bar, 4, slot, offset, 0, 0, 0};
}
constexpr hookline_step poll(uint8_t bar, uint32_t offset, uint32_t mask, uint32_t value, uint32_t timeout_us) {
  return {HOOKLINE_STEP_POLL, bar, 4, 0, offset, mask, value, timeout_us};
}
constexpr hookline_step delay(uint32_t us) { return {HOOKLINE_STEP_DELAY, 0, 4, 0, 0, 0, 0, us}; }
/// Scrubs memory: `bytes` of it, a multiple of 4; 0: up to the end of the BAR.
constexpr hookline_step fill(uint8_t bar, uint32_t offset, uint32_t bytes, uint32_t value = 0) {
  return {HOOKLINE_STEP_FILL, bar, 4, 0, offset, bytes, value, 0};
}

/// A short list that is a constant: the plugin object points into it.
template <typename T, size_t Capacity>
struct List {
  T items[Capacity] = {};
  uint32_t count = 0;
  constexpr List() = default;
  constexpr List(std::initializer_list<T> from) {
    for (const T& item : from) items[count++] = item;  // too many: not a constant expression, so it does not compile
  }
};

using DeviceId = hookline_device_id;
using Range = hookline_range;
using Register = hookline_register;
using Key = hookline_key;
using MigrationParameter = hookline_parameter;
using Steps = List<hookline_step, HOOKLINE_MAX_STEPS>;

/// What a plugin is, in the order of the fields below (C++20 designated initialisers).
struct PluginInfo {
  const char* name = nullptr;
  const char* version = nullptr;
  const char* summary = "";
  const char* model = nullptr;              ///< migration owner
  const char* migration_version = nullptr;  ///< migration owner
  const char* reads = nullptr;              ///< migration owner; "1|2"; none: migration_version alone
  List<DeviceId, 32> devices = {};          ///< none: every device
  List<Range, 32> traps = {};
  List<Register, 96> registers = {};
  List<Key, 16> keys = {};
  List<MigrationParameter, HOOKLINE_MAX_PARAMETERS> parameters = {};  ///< migration owner
  Steps stop = {}, start = {}, reset = {};
  uint32_t unknown_op = HOOKLINE_UNKNOWN_REFUSE;
  uint32_t shadow_size = 0;
  uint64_t max_state = 0;  ///< bytes of the plugin's sections, at most
  uint64_t max_bulk = 0;   ///< bytes of one complete pass of save_bulk(), at most; only with save_bulk()
  uint32_t ioctls = 0, features = 0;
  uint64_t required = 0;  ///< HOOKLINE_REQUIRE_*
};

namespace detail {

template <typename Plugin>
struct Instance {
  Device device;
  Plugin plugin;
  Instance(const hookline_host* host, hookline_device* dev, const hookline_info* info, const hookline_value* values)
      : device(host, dev, info, values), plugin(device) {}
};

/// Runs one callback; what it throws becomes -errno and text.
template <typename Callback>
int guarded(const hookline_host* host, hookline_device* dev, Callback&& callback) noexcept {
  try {
    return callback();
  } catch (const std::system_error& e) {
    const bool is_errno = e.code().category() == std::generic_category() || e.code().category() == std::system_category();
    return host->fail(dev, is_errno && e.code().value() > 0 ? e.code().value() : EIO, e.what());
  } catch (const std::bad_alloc&) {
    return host->fail(dev, ENOMEM, "out of memory");
  } catch (const std::exception& e) {
    return host->fail(dev, EIO, e.what());
  } catch (...) {
    return host->fail(dev, EIO, "the plugin threw something that is no std::exception");
  }
}

template <typename Plugin>
struct Trampoline {
  using Self = Instance<Plugin>;
  template <typename Callback>
  static int run(void* self, Callback&& callback) noexcept {
    Self* s = static_cast<Self*>(self);
    return guarded(s->device.host(), s->device.handle(), [&] { return callback(*s); });
  }
  static int open(const hookline_host* host, hookline_device* dev, const hookline_info* info, const hookline_value* values,
                  void** self) noexcept {
    return guarded(host, dev, [&] {
      *self = new Self(host, dev, info, values);
      return 0;
    });
  }
  static void close(void* self) noexcept { delete static_cast<Self*>(self); }
  static int access(void* self, hookline_access* a) noexcept {
    return run(self, [&](Self& s) {
      Access copy{*a};
      const Answer answer = a->op == HOOKLINE_OP_READ ? s.plugin.on_read(copy) : s.plugin.on_write(copy);
      a->value = copy.value;
      return static_cast<int>(answer);
    });
  }
  static int ioctl(void* self, hookline_ioctl* request) noexcept {
    return run(self, [&](Self& s) { return static_cast<int>(s.plugin.on_ioctl(*request)); });
  }
  static void event(void* self, const hookline_event* e) noexcept {
    run(self, [&](Self& s) {
      if (e->what == HOOKLINE_EVENT_RESET) s.plugin.on_reset();
      if (e->what == HOOKLINE_EVENT_STATE) s.plugin.on_state(e->from, e->to);
      return 0;
    });
  }
  static int save(void* self, hookline_writer* out) noexcept {
    return run(self, [&](Self& s) {
      SectionWriter writer(s.device.host(), out);
      s.plugin.save(writer);
      return writer.has_more() ? HOOKLINE_MORE : 0;
    });
  }
  static int load(void* self, hookline_reader* in) noexcept {
    return run(self, [&](Self& s) {
      SectionReader reader(s.device.host(), in);
      s.plugin.load(reader);
      return 0;
    });
  }
  static int apply(void* self) noexcept {
    return run(self, [&](Self& s) {
      s.plugin.apply();
      return 0;
    });
  }
  static BulkCall bulk_call(uint32_t flags) { return {(flags & HOOKLINE_BULK_BEGIN) != 0, (flags & HOOKLINE_BULK_STOPPED) != 0}; }
  static int save_bulk(void* self, hookline_writer* out, uint32_t flags) noexcept {
    return run(self, [&](Self& s) {
      SectionWriter writer(s.device.host(), out);
      s.plugin.save_bulk(writer, bulk_call(flags));
      return writer.has_more() ? HOOKLINE_MORE : 0;
    });
  }
  static int bulk_sizes(void* self, uint64_t* initial, uint64_t* dirty) noexcept {
    return run(self, [&](Self& s) {
      const BulkSizes sizes = s.plugin.bulk_sizes();
      *initial = sizes.initial;
      *dirty = sizes.dirty;
      return 0;
    });
  }
  static int load_bulk(void* self, hookline_reader* in, uint32_t flags) noexcept {
    return run(self, [&](Self& s) {
      SectionReader reader(s.device.host(), in);
      s.plugin.load_bulk(reader, bulk_call(flags));
      return 0;
    });
  }
};

template <typename Plugin>
constexpr hookline_plugin describe(const PluginInfo& info) {
  using T = Trampoline<Plugin>;
  constexpr bool owner = std::is_base_of_v<MigrationOwner, Plugin>;
  hookline_plugin p{};
  p.abi = {HOOKLINE_ABI_MAGIC, HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR, sizeof(hookline_plugin), 0, info.required};
  if (info.parameters.count) p.abi.required |= HOOKLINE_REQUIRE_PARAMETERS;
  p.name = info.name;
  p.version = info.version;
  p.summary = info.summary;
  p.model = info.model;
  p.migration_version = info.migration_version;
  p.devices = info.devices.items;
  p.ranges = info.traps.items;
  p.registers = info.registers.items;
  p.keys = info.keys.items;
  p.nr_devices = info.devices.count;
  p.nr_ranges = info.traps.count;
  p.nr_registers = info.registers.count;
  p.nr_keys = info.keys.count;
  p.stop = {info.stop.items, info.stop.count, 0};
  p.start = {info.start.items, info.start.count, 0};
  p.reset = {info.reset.items, info.reset.count, 0};
  p.ops_known = HOOKLINE_OPS_KNOWN;
  p.unknown_op = info.unknown_op;
  p.claims = owner ? HOOKLINE_CLAIM_MIGRATION : 0;
  p.shadow_size = info.shadow_size;
  p.max_state = info.max_state;
  p.ioctls = info.ioctls;
  p.features = info.features;
  p.open = T::open;
  p.close = T::close;
  p.access = T::access;
  p.ioctl = T::ioctl;
  p.event = T::event;
  p.parameters = info.parameters.items;
  p.nr_parameters = info.parameters.count;
  p.reads = info.reads;
  // A handler that kept Handler's empty save() adds no section.
  if constexpr (owner || !std::is_same_v<decltype(&Plugin::save), decltype(&Handler::save)>) {
    p.save = T::save;
    p.load = T::load;
    p.apply = T::apply;
  }
  if constexpr (owner) {
    if constexpr (!std::is_same_v<decltype(&Plugin::save_bulk), decltype(&MigrationOwner::save_bulk)>) {
      p.abi.required |= HOOKLINE_REQUIRE_BULK;
      p.save_bulk = T::save_bulk;
      p.bulk_sizes = T::bulk_sizes;
      p.load_bulk = T::load_bulk;
    }
    p.max_bulk = info.max_bulk;
  }
  return p;
}

}  // namespace detail
}  // namespace hookline

/// Makes `Class` (constructed from Device&) the plugin of this file. The rest is a PluginInfo initialiser in braces.
#define HOOKLINE_PLUGIN(Class, ...)                                            \
  namespace {                                                                  \
  constexpr ::hookline::PluginInfo hookline_plugin_info = __VA_ARGS__;         \
  }                                                                            \
  extern "C" {                                                                 \
  constinit const hookline_plugin hookline_plugin_v1 =                         \
      ::hookline::detail::describe<Class>(hookline_plugin_info);               \
  }                                                                            \
  static_assert(true, "")
