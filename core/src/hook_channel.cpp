// SPDX-License-Identifier: Apache-2.0
#include <hookline/hook_channel.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lost_memory.hpp"

namespace hookline {

namespace {

constexpr size_t kMaxIovaRw = 65536;

std::string to_string(const vfio_pci_hooks_address& a) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{}", a.domain, a.bus, a.devfn >> 3, a.devfn & 7);
}

/// What an errno of one call means to people; the rest is strerror's.
struct Hint {
  int code;
  std::string_view text;
};

template <size_t N>
tl::unexpected<Error> failed(int code, std::string_view what, const Hint (&hints)[N]) {
  for (const Hint& hint : hints) {
    if (hint.code == code) return fail(code, fmt::format("{}: {}", what, hint.text));
  }
  return fail(code, fmt::format("{}: {}", what, std::strerror(code)));
}

constexpr Hint kSessionHints[] = {
    {ESHUTDOWN, "the device has been closed"},
    {ECANCELED, "the session was revoked: this worker was too late, and another may serve the device"},
    {ENODEV, "the function has left the driver"},
    {EPERM, "not granted by the device's definition"},
};

void* page_of(int fd, size_t length, int protection, uint64_t offset) {
  return ::mmap(nullptr, length, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
}

size_t whole_pages(size_t length) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return (length + page - 1) / page * page;
}

std::vector<vfio_pci_hooks_step> kernel_steps(std::span<const hookline_step> steps) {
  std::vector<vfio_pci_hooks_step> out;
  for (const hookline_step& s : steps)
    out.push_back({s.op, s.bar, s.width, s.slot, s.offset, s.mask, s.value, s.timeout_us});
  return out;
}

vfio_pci_hooks_program program(const std::vector<vfio_pci_hooks_step>& steps) {
  return {static_cast<uint32_t>(steps.size()), 0, reinterpret_cast<uintptr_t>(steps.data())};
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::release() {
  return std::exchange(fd_, -1);
}

// ---- control

Result<ControlDevice> ControlDevice::open(const char* path) {
  FileDescriptor fd(::open(path, O_RDWR | O_CLOEXEC));
  if (fd.get() < 0) {
    constexpr Hint hints[] = {{ENOENT, "the kernel module is not loaded: modprobe vfio-pci-hooks"},
                              {EACCES, "only root may define devices and attach to them"}};
    return failed(errno, fmt::format("opening {}", path), hints);
  }
  return ControlDevice(std::move(fd));
}

Result<vfio_pci_hooks_features> ControlDevice::features() const {
  vfio_pci_hooks_features features{};
  features.argsz = sizeof(features);
  constexpr Hint hints[] = {
      {ENOTTY, "the loaded module speaks another interface: rebuild it for this hookline"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_GET_FEATURES, &features) < 0)
    return failed(errno, "asking what vfio-pci-hooks can do", hints);
  return features;
}

namespace {

template <size_t N>
Result<void> copy_text(char (&to)[N], std::string_view text, std::string_view what) {
  if (text.size() >= N)
    return fail(EINVAL, fmt::format("{} has {} bytes, it may have {}", what, text.size(), N - 1));
  text.copy(to, text.size());
  return {};
}

/// The chain's parameters as the module keeps them, with the values that the device begins with.
Result<std::vector<vfio_pci_hooks_parameter>> kernel_parameters(const Definition& definition,
                                                                const Chain& chain) {
  const std::span<const hookline_parameter> parameters = chain.parameters();
  std::vector<std::string> values = chain.init_values();
  for (const auto& [name, value] : definition.parameters) {
    const auto known =
        std::ranges::find_if(parameters, [&name = name](const auto& p) { return name == p.name; });
    if (known == parameters.end())
      return fail(EINVAL, fmt::format("there is no migration parameter \"{}\"", name));
    values[static_cast<size_t>(known - parameters.begin())] = value;
  }
  if (const Result<void> ok = chain.check_values(values); !ok) return fail(ok.error());
  std::vector<vfio_pci_hooks_parameter> out;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const hookline_parameter& from = parameters[i];
    vfio_pci_hooks_parameter& to = out.emplace_back();
    to.flags = from.flags & HOOKLINE_PARAMETER_RUNTIME ? VFIO_PCI_HOOKS_PARAMETER_RUNTIME : 0;
    for (const Result<void>& ok :
         {copy_text(to.name, from.name, "the name of a parameter"), copy_text(to.value, values[i], "a value"),
          copy_text(to.init_value, from.init_value, "an init value"),
          copy_text(to.off_value, from.off_value, "an off value"),
          copy_text(to.allowed_values, from.allowed_values, "a list of allowed values"),
          copy_text(to.description, from.description, "a description")})
      if (!ok) return fail(EINVAL, fmt::format("migration parameter \"{}\": {}", from.name, ok.error().text));
  }
  return out;
}

}  // namespace

Result<void> ControlDevice::define(const Definition& definition, const Chain& chain) const {
  const Result<vfio_pci_hooks_features> module = features();
  if (!module) return fail(module.error());
  const bool knows_parameters = module->features & VFIO_PCI_HOOKS_FEATURE_PARAMETERS;
  if (!chain.parameters().empty() && !knows_parameters)
    return fail(
        EOPNOTSUPP,
        fmt::format(
            "defining {}: its plugin has migration parameters, and the loaded vfio-pci-hooks is too old to "
            "keep them: load a newer one",
            to_string(definition.address)));
  const auto parameters = kernel_parameters(definition, chain);
  if (!parameters) return fail(parameters.error());

  std::vector<vfio_pci_hooks_handler> handlers;
  for (const std::string& name : definition.handlers) {
    vfio_pci_hooks_handler& handler = handlers.emplace_back();
    if (name.size() >= sizeof(handler.name))
      return fail(EINVAL,
                  fmt::format("handler \"{}\": a name has at most {} bytes", name, sizeof(handler.name) - 1));
    std::memcpy(handler.name, name.data(), name.size());
  }
  std::vector<vfio_pci_hooks_range> ranges;
  for (const hookline_range& r : chain.ranges()) ranges.push_back({r.region, r.ops, r.offset, r.length});
  const auto stop = kernel_steps(chain.stop()), start = kernel_steps(chain.start()),
             reset = kernel_steps(chain.reset());

  vfio_pci_hooks_define define{};
  define.argsz = sizeof(define);
  define.flags = (chain.owner() ? VFIO_PCI_HOOKS_DEFINE_MIGRATION : 0) |
                 (definition.fail_without_worker ? VFIO_PCI_HOOKS_DEFINE_FAIL : 0);
  define.address = definition.address;
  define.vendor = definition.vendor;
  define.device = definition.device;
  define.guest_memory = definition.guest_memory;
  define.access_limit_ms = definition.access_limit_ms;
  define.state_limit_ms = definition.state_limit_ms;
  define.shadow_size = chain.shadow_size();
  define.nr_handlers = static_cast<uint32_t>(handlers.size());
  define.nr_ranges = static_cast<uint32_t>(ranges.size());
  define.ioctls = chain.ioctls();
  define.device_features = chain.features();
  define.handlers = reinterpret_cast<uintptr_t>(handlers.data());
  define.ranges = reinterpret_cast<uintptr_t>(ranges.data());
  define.max_state = chain.max_state();
  define.stop = program(stop);
  define.start = program(start);
  define.reset = program(reset);
  if (chain.owner() && knows_parameters) {
    const char* model = chain.links()[*chain.owner()].plugin.model;
    if (const auto ok = copy_text(define.model, model ? model : "", "the device model"); !ok) return ok;
    define.nr_parameters = static_cast<uint32_t>(parameters->size());
    define.parameters = reinterpret_cast<uintptr_t>(parameters->data());
  }
  constexpr Hint hints[] = {
      {EBUSY, "the driver has bound the function already: detach it first"},
      {ENODEV, "there is no such function, or it has another vendor and device id"},
      {ENOENT, "the kernel does not know one of the in-kernel handlers"},
      {EPERM, "only root of the host may define devices"},
      {EINVAL,
       "the kernel refuses the definition: a range or register step may be outside the function's BARs; the "
       "kernel log may say which"},
      {EOPNOTSUPP,
       "the loaded module or the running kernel lacks something the definition needs (dirty tracking: "
       "CONFIG_IOMMUFD_DRIVER); "
       "the kernel log says what"},
  };
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_DEFINE, &define) < 0)
    return failed(errno, fmt::format("defining {}", to_string(definition.address)), hints);
  return {};
}

Result<void> ControlDevice::undefine(const vfio_pci_hooks_address& address) const {
  vfio_pci_hooks_undefine undefine{};
  undefine.argsz = sizeof(undefine);
  undefine.address = address;
  constexpr Hint hints[] = {{EBUSY, "the driver has the function bound: unbind it first"},
                            {ENOENT, "it is not defined"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_UNDEFINE, &undefine) < 0)
    return failed(errno, fmt::format("undefining {}", to_string(address)), hints);
  return {};
}

Result<Channel> ControlDevice::attach(const vfio_pci_hooks_address& address) const {
  vfio_pci_hooks_attach attach{};
  attach.argsz = sizeof(attach);
  attach.address = address;
  constexpr Hint hints[] = {{EBUSY, "somebody serves it already"},
                            {ENOENT, "it is not defined"},
                            {ENXIO, "the driver has not bound it"},
                            {EPERM, "only root of the host may attach"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_ATTACH, &attach) < 0)
    return failed(errno, fmt::format("attaching to {}", to_string(address)), hints);
  return Channel(FileDescriptor(attach.fd));
}

Result<vfio_pci_hooks_status> ControlDevice::status(const vfio_pci_hooks_address& address) const {
  vfio_pci_hooks_status status{};
  status.argsz = sizeof(status);
  status.address = address;
  constexpr Hint hints[] = {{ENOENT, "it is not defined"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_GET_STATUS, &status) < 0)
    return failed(errno, fmt::format("asking for the status of {}", to_string(address)), hints);
  return status;
}

// ---- channel

Result<std::unique_ptr<Session>> Channel::wait_open(const Chain& chain, bool wait) {
  vfio_pci_hooks_wait_open opened{};
  opened.argsz = sizeof(opened);
  opened.flags = wait ? 0 : VFIO_PCI_HOOKS_WAIT_NONBLOCK;
  constexpr Hint hints[] = {{ENODEV, "the function has left the driver"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &opened) < 0)
    return failed(errno, "waiting until the device is opened", hints);
  std::unique_ptr<Session> session(new Session(FileDescriptor(opened.fd),
                                               opened.flags & VFIO_PCI_HOOKS_SESSION_AGAIN, opened.mig_state,
                                               chain.shadow_size()));
  if (const Result<void> ok = session->map(); !ok) return fail(ok.error());
  return session;
}

namespace {

using Value = std::array<char, VFIO_PCI_HOOKS_VALUE_LEN>;

Result<std::vector<std::string>> parameters_of(int fd) {
  std::vector<Value> values(VFIO_PCI_HOOKS_MAX_PARAMETERS);
  vfio_pci_hooks_parameters parameters{};
  parameters.argsz = sizeof(parameters);
  parameters.nr = static_cast<uint32_t>(values.size());
  parameters.values = reinterpret_cast<uintptr_t>(values.data());
  if (::ioctl(fd, VFIO_PCI_HOOKS_GET_PARAMETERS, &parameters) < 0) {
    // The module is older than parameters, and a device that has any was not defined with it.
    if (errno == ENOTTY) return std::vector<std::string>();
    return failed(errno, "asking for the migration parameters", kSessionHints);
  }
  values.resize(std::min<size_t>(values.size(), parameters.nr));
  std::vector<std::string> texts;
  for (const Value& value : values) texts.emplace_back(value.data(), ::strnlen(value.data(), value.size()));
  return texts;
}

}  // namespace

Result<Query> Channel::next_query(uint64_t answered, const QueryAnswer& answer, int timeout_ms) const {
  std::array<char, VFIO_PCI_HOOKS_VERSION_LEN> text{};
  const size_t length = answer.text.copy(text.data(), text.size() - 1);
  vfio_pci_hooks_next_query next{};
  next.argsz = sizeof(next);
  next.answered = answered;
  next.answer = -answer.code;
  next.timeout_ms = timeout_ms;
  next.length = static_cast<uint32_t>(length);
  next.text = reinterpret_cast<uintptr_t>(text.data());
  constexpr Hint hints[] = {{ENODEV, "the function has left the driver"},
                            {EINVAL, "nobody waits for this answer any more"},
                            {ENOTTY, "the loaded module is older than migration_version: load a newer one"}};
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_NEXT_QUERY, &next) < 0)
    return failed(errno, "waiting for a question about the device", hints);
  if (next.length >= text.size())
    return fail(EPROTO, fmt::format("the kernel says a question has {} bytes, it has at most {}", next.length,
                                    text.size() - 1));
  return Query{next.id, next.what, std::string(text.data(), next.length)};
}

Result<std::vector<std::string>> Channel::parameters() const {
  return parameters_of(fd_.get());
}

// ---- session

struct Session::Mapping {
  Mapping(void* at, size_t size) : bytes(static_cast<std::byte*>(at), size) {}
  ~Mapping() {
    lost.reset();
    ::munmap(bytes.data(), bytes.size());
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::span<std::byte> bytes;
  std::optional<LostMemory> lost;
};

namespace {

/// A session that is over maps nothing any more; nothing else says so without waiting.
bool session_is_over(int fd) {
  const size_t length = VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot);
  void* at = page_of(fd, length, PROT_READ, VFIO_PCI_HOOKS_MMAP_SLOTS);
  if (at == MAP_FAILED) return errno == ESHUTDOWN || errno == ECANCELED;
  ::munmap(at, length);
  return false;
}

}  // namespace

Session::Session(FileDescriptor fd, bool again, uint32_t state, size_t shadow_size)
    : fd_(std::move(fd)), again_(again), initial_state_(state), shadow_size_(shadow_size) {}
Session::~Session() = default;

Result<void> Session::map() {
  const struct {
    std::unique_ptr<Mapping>& mapping;
    size_t length;
    uint64_t offset;
    std::string_view what;
  } wanted[] = {
      {slots_, VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot), VFIO_PCI_HOOKS_MMAP_SLOTS,
       "request slots"},
      {shadow_, whole_pages(shadow_size_), VFIO_PCI_HOOKS_MMAP_SHADOW, "shadow memory"},
      {stream_, VFIO_PCI_HOOKS_STREAM_SIZE, VFIO_PCI_HOOKS_MMAP_STREAM, "stream buffer"},
  };
  for (const auto& want : wanted) {
    if (!want.length) continue;
    size_t length = want.length;
    void* at = page_of(fd_.get(), length, PROT_READ | PROT_WRITE, want.offset);
    // Older modules have one slice.
    if (at == MAP_FAILED && errno == EINVAL && want.offset == VFIO_PCI_HOOKS_MMAP_STREAM) {
      length = VFIO_PCI_HOOKS_STREAM_SLICE;
      at = page_of(fd_.get(), length, PROT_READ | PROT_WRITE, want.offset);
    }
    if (at == MAP_FAILED) return failed(errno, fmt::format("mapping the {}", want.what), kSessionHints);
    want.mapping = std::make_unique<Mapping>(at, length);
    want.mapping->lost.emplace(want.mapping->bytes);
  }
  // Now, not while a guest stands still: one fault brings a whole slice.
  for (size_t at = 0; at < stream_->bytes.size(); at += VFIO_PCI_HOOKS_STREAM_SLICE)
    (void)*static_cast<volatile const std::byte*>(&stream_->bytes[at]);
  return {};
}

namespace {

Result<void> transfer(int fd, unsigned long request, bool write, uint32_t region, uint64_t offset, void* data,
                      size_t length) {
  vfio_pci_hooks_rw rw{};
  rw.argsz = sizeof(rw);
  rw.flags = write ? VFIO_PCI_HOOKS_RW_WRITE : 0;
  rw.region = region;
  rw.length = static_cast<uint32_t>(length);
  rw.offset = offset;
  rw.data = reinterpret_cast<uintptr_t>(data);
  if (::ioctl(fd, request, &rw) >= 0) return {};
  const int code = errno;
  const std::string_view verb = write ? "writing" : "reading";
  const std::string what =
      request == VFIO_PCI_HOOKS_REGION_RW
          ? fmt::format("{} {} bytes at {:#x} of region {}", verb, length, offset, region)
          : fmt::format("{} {} bytes of guest memory at IOVA {:#x}", verb, length, offset);
  return failed(code, what, kSessionHints);
}

}  // namespace

Result<uint64_t> Session::read(uint32_t region, uint64_t offset, uint32_t width) {
  uint8_t bytes[8] = {};
  if (width > sizeof(bytes))
    return fail(EINVAL, fmt::format("a register has at most 8 bytes, not {}", width));
  if (const Result<void> ok =
          transfer(fd_.get(), VFIO_PCI_HOOKS_REGION_RW, false, region, offset, bytes, width);
      !ok)
    return fail(ok.error());
  uint64_t value = 0;
  for (uint32_t i = 0; i < width; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

Result<void> Session::write(uint32_t region, uint64_t offset, uint32_t width, uint64_t value) {
  uint8_t bytes[8] = {};
  if (width > sizeof(bytes))
    return fail(EINVAL, fmt::format("a register has at most 8 bytes, not {}", width));
  for (uint32_t i = 0; i < width; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  return transfer(fd_.get(), VFIO_PCI_HOOKS_REGION_RW, true, region, offset, bytes, width);
}

/// The uAPI does not tell a BAR's size, but BARs are powers of two and the kernel refuses to map behind the
/// end.
Result<std::span<volatile std::byte>> Session::map_bar(uint32_t bar) {
  if (bar >= std::size(bars_)) return fail(EINVAL, fmt::format("there is no BAR {}", bar));
  if (!bars_[bar]) {
    int code = 0;
    for (size_t length = whole_pages(1);; length *= 2) {
      void* at = page_of(fd_.get(), length, PROT_READ | PROT_WRITE, VFIO_PCI_HOOKS_MMAP_BAR(bar));
      if (at == MAP_FAILED) {
        code = errno;
        break;
      }
      bars_[bar].reset();
      bars_[bar] = std::make_unique<Mapping>(at, length);
      bars_[bar]->lost.emplace(bars_[bar]->bytes, session_is_over, fd_.get());
    }
    if (!bars_[bar]) return failed(code, fmt::format("mapping BAR {}", bar), kSessionHints);
  }
  const std::span<std::byte> bytes = bars_[bar]->bytes;
  return std::span<volatile std::byte>(bytes.data(), bytes.size());
}

std::span<std::byte> Session::shadow() {
  return shadow_ ? shadow_->bytes.first(shadow_size_) : std::span<std::byte>();
}

Result<void> Session::iova_read(uint64_t iova, std::span<std::byte> data) {
  for (size_t done = 0; done < data.size();) {
    const size_t length = std::min(data.size() - done, kMaxIovaRw);
    const Result<void> ok =
        transfer(fd_.get(), VFIO_PCI_HOOKS_IOVA_RW, false, 0, iova + done, data.data() + done, length);
    if (!ok) return ok;
    done += length;
  }
  return {};
}

Result<void> Session::iova_write(uint64_t iova, std::span<const std::byte> data) {
  for (size_t done = 0; done < data.size();) {
    const size_t length = std::min(data.size() - done, kMaxIovaRw);
    // The kernel reads these bytes only.
    const Result<void> ok = transfer(fd_.get(), VFIO_PCI_HOOKS_IOVA_RW, true, 0, iova + done,
                                     const_cast<std::byte*>(data.data()) + done, length);
    if (!ok) return ok;
    done += length;
  }
  return {};
}

Result<void> Session::start_once(std::span<const hookline_step> steps) {
  const std::vector<vfio_pci_hooks_step> copy = kernel_steps(steps);
  vfio_pci_hooks_start_once once{};
  once.argsz = sizeof(once);
  once.program = program(copy);
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_START_ONCE, &once) >= 0) return {};
  return failed(errno, "replacing the start program", kSessionHints);
}

Result<uint32_t> Session::saved(uint32_t slot) {
  if (slot >= VFIO_PCI_HOOKS_SAVED) return fail(EINVAL, fmt::format("there is no saved value {}", slot));
  vfio_pci_hooks_saved saved{};
  saved.argsz = sizeof(saved);
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_GET_SAVED, &saved) < 0)
    return failed(errno, "asking for what the stop program kept", kSessionHints);
  return saved.value[slot];
}

Result<void> Session::touched(uint32_t bar, uint64_t offset, uint64_t pages, std::span<uint64_t> bitmap) {
  const std::string what =
      fmt::format("asking which of {} pages from {:#x} of BAR {} were touched", pages, offset, bar);
  if (bitmap.size() < (pages + 63) / 64) return fail(EINVAL, what + ": the bitmap is too small");
  vfio_pci_hooks_touched ask{};
  ask.argsz = sizeof(ask);
  ask.region = bar;
  ask.offset = offset;
  ask.pages = pages;
  ask.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_TOUCHED, &ask) >= 0) return {};
  // A module that is older than the question.
  return failed(errno == ENOTTY ? EOPNOTSUPP : errno, what, kSessionHints);
}

Result<void> Session::set_sizes(uint64_t initial, uint64_t stop_copy) {
  vfio_pci_hooks_sizes sizes{};
  sizes.argsz = sizeof(sizes);
  sizes.initial_bytes = initial;
  sizes.stop_copy_bytes = stop_copy;
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_SET_SIZES, &sizes) < 0)
    return failed(errno, "telling the size of the device state", kSessionHints);
  return {};
}

Result<std::vector<std::string>> Session::parameters() {
  return parameters_of(fd_.get());
}

Result<void> Session::set_parameters(std::span<const std::string> texts) {
  std::vector<Value> values(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].size() >= values[i].size())
      return fail(EINVAL,
                  fmt::format("the value of parameter {} has more than {} bytes", i, values[i].size() - 1));
    texts[i].copy(values[i].data(), texts[i].size());
  }
  vfio_pci_hooks_parameters parameters{};
  parameters.argsz = sizeof(parameters);
  parameters.nr = static_cast<uint32_t>(values.size());
  parameters.values = reinterpret_cast<uintptr_t>(values.data());
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_SET_PARAMETERS, &parameters) < 0)
    return failed(errno, "taking over the source's migration parameters", kSessionHints);
  return {};
}

Result<vfio_pci_hooks_next> Session::next(int answered, int timeout_ms, bool watch) {
  vfio_pci_hooks_next next{};
  next.argsz = sizeof(next);
  next.flags = watch ? VFIO_PCI_HOOKS_NEXT_WATCH : 0;
  next.answered = answered;
  next.timeout_ms = timeout_ms;
  if (::ioctl(fd_.get(), VFIO_PCI_HOOKS_NEXT, &next) < 0)
    return failed(errno, "waiting for a request", kSessionHints);
  if (next.what == VFIO_PCI_HOOKS_NEXT_REQUEST && (next.slot < 0 || next.slot >= VFIO_PCI_HOOKS_SLOTS))
    return fail(EPROTO,
                fmt::format("the kernel names slot {}, there are {}", next.slot, VFIO_PCI_HOOKS_SLOTS));
  return next;
}

vfio_pci_hooks_slot& Session::slot(uint32_t index) {
  return reinterpret_cast<vfio_pci_hooks_slot*>(slots_->bytes.data())[index];
}

std::span<std::byte> Session::stream() {
  return stream_->bytes;
}

}  // namespace hookline
