// SPDX-License-Identifier: Apache-2.0
#include <hookline/software_device.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "access_units.hpp"
#include "bytes.hpp"
#include "register_program.hpp"

namespace hookline {

namespace {

constexpr MigrationCapabilities kCapabilities{.p2p = true, .pre_copy = true};

bool saves(MigrationState state) {
  return state == MigrationState::pre_copy || state == MigrationState::pre_copy_p2p ||
         state == MigrationState::stop_copy;
}

}  // namespace

/// Which pages of a BAR the VMM has touched since somebody asked.
class SoftwareDevice::TouchedPages {
 public:
  static constexpr uint64_t kPage = 4096;

  explicit TouchedPages(uint64_t bar_size) : pages_((bar_size + kPage - 1) / kPage) {}

  /// Pages that have been asked about and touched since.
  uint64_t count() const { return count_; }
  void mark(uint64_t first_byte, uint64_t last_byte) {
    for (uint64_t i = first_byte / kPage; i <= last_byte / kPage; ++i) {
      count_ += !pages_[i].touched;
      pages_[i].touched = true;
    }
  }
  void mark_all() {
    for (Page& page : pages_) {
      count_ += !page.touched;
      page.touched = true;
    }
  }
  void take(uint64_t first, uint64_t pages, std::span<uint64_t> bitmap) {
    for (uint64_t i = 0; i < pages; ++i) {
      Page& page = pages_[first + i];
      if (page.touched) bitmap[i / 64] |= uint64_t{1} << (i % 64);
      count_ -= page.touched && page.asked;
      page = {.touched = false, .asked = true};
    }
  }

 private:
  struct Page {
    bool touched = true;
    bool asked = false;
  };
  std::vector<Page> pages_;
  uint64_t count_ = 0;
};

/// What the worker reaches: the session of the hook channel, played.
class SoftwareDevice::Access final : public DeviceAccess {
 public:
  explicit Access(SoftwareDevice& device) : device_(device) {}

  Result<uint64_t> read(uint32_t region, uint64_t offset, uint32_t width) override {
    return device_.device_access(HOOKLINE_OP_READ, region, offset, width, 0);
  }
  Result<void> write(uint32_t region, uint64_t offset, uint32_t width, uint64_t value) override {
    const Result<uint64_t> done = device_.device_access(HOOKLINE_OP_WRITE, region, offset, width, value);
    if (!done) return fail(done.error());
    return {};
  }
  Result<std::span<volatile std::byte>> map_bar(uint32_t bar) override {
    return fail(EOPNOTSUPP, fmt::format("BAR {} of a software model cannot be mapped", bar));
  }
  std::span<std::byte> shadow() override { return device_.shadow_; }
  Result<void> iova_read(uint64_t iova, std::span<std::byte> data) override {
    if (device_.options_.grant == Grant::none) return not_granted("read");
    const Result<std::span<std::byte>> at = guest(iova, data.size());
    if (!at) return fail(at.error());
    std::ranges::copy(*at, data.begin());
    return {};
  }
  Result<void> iova_write(uint64_t iova, std::span<const std::byte> data) override {
    if (device_.options_.grant != Grant::write) return not_granted("write");
    const Result<std::span<std::byte>> at = guest(iova, data.size());
    if (!at) return fail(at.error());
    std::ranges::copy(data, at->begin());
    return {};
  }
  Result<void> start_once(std::span<const hookline_step> steps) override {
    if (device_.state_ != MigrationState::resuming)
      return fail(EBUSY, fmt::format("the start program can be replaced in RESUMING, the device is in {}",
                                     to_string(device_.state_)));
    if (steps.empty()) return fail(EINVAL, "a start program that does nothing is not the same as none");
    if (const Result<void> ok = check_program("start", steps, true, device_.model_.bar_size); !ok) return ok;
    device_.start_once_.emplace(steps.begin(), steps.end());
    return {};
  }
  Result<uint32_t> saved(uint32_t slot) override {
    if (slot >= device_.saved_.size()) return fail(EINVAL, fmt::format("there is no saved value {}", slot));
    return device_.saved_[slot];
  }
  Result<void> touched(uint32_t bar, uint64_t offset, uint64_t pages, std::span<uint64_t> bitmap) override {
    const uint64_t size = bar < device_.touched_.size() ? device_.model_.bar_size[bar] : 0;
    if (offset % TouchedPages::kPage || offset >= size ||
        pages > (size - offset + TouchedPages::kPage - 1) / TouchedPages::kPage ||
        bitmap.size() < (pages + 63) / 64)
      return fail(EINVAL, fmt::format("there are no {} pages at {:#x} of BAR {}", pages, offset, bar));
    std::unique_ptr<TouchedPages>& of_bar = device_.touched_[bar];
    if (!of_bar) of_bar = std::make_unique<TouchedPages>(size);
    of_bar->take(offset / TouchedPages::kPage, pages, bitmap);
    return {};
  }
  Result<void> set_sizes(uint64_t, uint64_t) override { return {}; }

  /// Guest memory, whoever asks.
  Result<std::span<std::byte>> guest(uint64_t iova, size_t length) const {
    const std::span<std::byte> memory = device_.options_.memory;
    if (iova > memory.size() || length > memory.size() - iova)
      return fail(EFAULT,
                  fmt::format("guest memory has {:#x} bytes, IOVA {:#x} and {} bytes are behind its end",
                              memory.size(), iova, length));
    return memory.subspan(iova, length);
  }

 private:
  static tl::unexpected<Error> not_granted(std::string_view what) {
    return fail(EPERM, fmt::format("plugins may not {} guest memory: grant it with guest_memory", what));
  }
  SoftwareDevice& device_;
};

SoftwareDevice::SoftwareDevice(const hookline_model& model, Chain chain, Options options)
    : model_(model),
      chain_(std::move(chain)),
      options_(std::move(options)),
      shadow_(chain_.shadow_size()),
      access_(std::make_unique<Access>(*this)) {
  options_.info.vendor = model.vendor;
  options_.info.device = model.device;
  store_le<uint16_t>(&config_[0], model.vendor);
  store_le<uint16_t>(&config_[2], model.device);

  model_host_.size = sizeof(model_host_);
  model_host_.context = this;
  model_host_.dma_read = [](void* self, uint64_t iova, void* data, size_t length) {
    const auto at = static_cast<SoftwareDevice*>(self)->access_->guest(iova, length);
    if (!at) return -at.error().code;
    std::memcpy(data, at->data(), length);
    return 0;
  };
  model_host_.dma_write = [](void* self, uint64_t iova, const void* data, size_t length) {
    const auto at = static_cast<SoftwareDevice*>(self)->access_->guest(iova, length);
    if (!at) return -at.error().code;
    std::memcpy(at->data(), data, length);
    return 0;
  };
  model_host_.interrupt = [](void* self, uint32_t vector) {
    const auto& notify = static_cast<SoftwareDevice*>(self)->options_.on_interrupt;
    if (notify) notify(vector);
  };
  model_host_.transmit = [](void* self, const void* frame, size_t length) {
    const auto& notify = static_cast<SoftwareDevice*>(self)->options_.on_transmit;
    if (notify) notify({static_cast<const std::byte*>(frame), length});
  };
}

Result<std::unique_ptr<SoftwareDevice>> SoftwareDevice::create(const hookline_model& model, Chain chain,
                                                               Options options) {
  std::unique_ptr<SoftwareDevice> device(new SoftwareDevice(model, std::move(chain), std::move(options)));
  const struct {
    std::string_view name;
    std::span<const hookline_step> steps;
    bool may_wait;
  } programs[] = {{"stop", device->chain_.stop(), true},
                  {"start", device->chain_.start(), true},
                  {"reset", device->chain_.reset(), false}};
  for (const auto& program : programs) {
    if (const Result<void> ok = check_program(program.name, program.steps, program.may_wait, model.bar_size);
        !ok)
      return fail(ok.error());
  }
  device->parameters_ = device->chain_.init_values();
  for (const auto& [name, value] : device->options_.parameters) {
    const Result<size_t> index = device->find_parameter(name);
    if (!index) return fail(index.error());
    device->parameters_[*index] = value;
  }
  if (const Result<void> ok = device->chain_.check_values(device->parameters_); !ok) return fail(ok.error());
  device->model_self_ = model.create(&device->model_host_, device->options_.index);
  if (!device->model_self_) return fail(ENOMEM, fmt::format("no memory for a model of \"{}\"", model.name));
  if (const Result<void> ok = device->start_worker(); !ok) return fail(ok.error());
  return device;
}

SoftwareDevice::~SoftwareDevice() {
  kill_worker();
  if (model_self_) model_.destroy(model_self_);
}

// ---- registers

uint64_t SoftwareDevice::region_size(uint32_t region) const {
  if (region == HOOKLINE_REGION_CONFIG) return config_.size();
  return region < std::size(model_.bar_size) ? model_.bar_size[region] : 0;
}

/// An aligned access of the model's own.
Result<uint64_t> SoftwareDevice::device_access(uint32_t op, uint32_t region, uint64_t offset, uint32_t width,
                                               uint64_t value) {
  const bool sized = width == 1 || width == 2 || width == 4 || width == 8;
  if (!sized || offset % width || offset >= region_size(region) || width > region_size(region) - offset)
    return fail(EINVAL,
                fmt::format("there is no register of {} bytes at {:#x} of region {}", width, offset, region));
  if (region != HOOKLINE_REGION_CONFIG) {
    if (op == HOOKLINE_OP_READ) return model_.read(model_self_, region, offset, width);
    model_.write(model_self_, region, offset, width, value);
    return value;
  }
  for (uint32_t i = 0; i < width; ++i) {
    if (op == HOOKLINE_OP_WRITE) config_[offset + i] = static_cast<std::byte>(value >> (8 * i));
  }
  uint64_t read = 0;
  for (uint32_t i = 0; i < width; ++i) read |= std::to_integer<uint64_t>(config_[offset + i]) << (8 * i);
  return read;
}

void SoftwareDevice::touch(uint32_t region, uint64_t offset, size_t length) {
  if (region < touched_.size() && touched_[region] && length)
    touched_[region]->mark(offset, offset + length - 1);
}

/// What no worker was there to see.
Result<void> SoftwareDevice::missed() {
  if (options_.fail_without_worker)
    return fail(EIO, "no worker serves the device, and by its configuration accesses without one fail");
  incomplete_ = true;
  return {};
}

/// One unit inside a trapped range: the chain, then the device.
Result<void> SoftwareDevice::trapped(hookline_access& access) {
  Outcome outcome;
  if (worker_) {
    outcome = worker_->access(access);
  } else if (const Result<void> ok = missed(); !ok) {
    return ok;
  }
  if (outcome.answer < 0) return fail(-outcome.answer, outcome.text);
  if (outcome.answer == HOOKLINE_HANDLED) return {};
  const Result<uint64_t> value =
      device_access(access.op, access.region, access.offset, access.length, access.value);
  if (!value) return fail(value.error());
  access.value = *value;
  return {};
}

Result<void> SoftwareDevice::access(uint32_t op, uint32_t region, uint64_t offset,
                                    std::span<std::byte> data) {
  const uint64_t size = region_size(region);
  if (offset > size || data.size() > size - offset)
    return fail(EINVAL, fmt::format("region {} has {:#x} bytes; {} bytes at {:#x} are not in it", region,
                                    size, data.size(), offset));
  touch(region, offset, data.size());
  AccessUnits pieces(offset, data.size());
  for (const hookline_range& range : chain_.ranges()) {
    if (range.region != region) continue;
    pieces.cut(range.offset);
    pieces.cut(range.offset + range.length);
  }
  for (const AccessUnit& unit : pieces.units()) {
    std::byte* bytes = data.data() + (unit.offset - offset);
    hookline_access a{};
    a.op = op;
    a.region = region;
    a.offset = unit.offset;
    a.length = unit.length;
    if (op == HOOKLINE_OP_WRITE) {
      for (uint32_t i = 0; i < unit.length; ++i) a.value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
    }
    const bool is_trapped = std::ranges::any_of(chain_.ranges(), [&](const hookline_range& range) {
      return range.region == region && (range.ops & (1U << op)) && range.offset <= unit.offset &&
             unit.offset < range.offset + range.length;
    });
    if (is_trapped) {
      if (const Result<void> ok = trapped(a); !ok) return ok;
    } else {
      const Result<uint64_t> value = device_access(op, region, unit.offset, unit.length, a.value);
      if (!value) return fail(value.error());
      a.value = *value;
    }
    if (op == HOOKLINE_OP_READ) {
      for (uint32_t i = 0; i < unit.length; ++i) bytes[i] = static_cast<std::byte>(a.value >> (8 * i));
    }
  }
  return {};
}

Result<void> SoftwareDevice::read(uint32_t region, uint64_t offset, std::span<std::byte> data) {
  return access(HOOKLINE_OP_READ, region, offset, data);
}

Result<void> SoftwareDevice::write(uint32_t region, uint64_t offset, std::span<const std::byte> data) {
  std::vector<std::byte> copy(data.begin(), data.end());
  return access(HOOKLINE_OP_WRITE, region, offset, copy);
}

Result<uint32_t> SoftwareDevice::read32(uint32_t region, uint64_t offset) {
  std::array<std::byte, 4> bytes{};
  if (const Result<void> ok = read(region, offset, bytes); !ok) return fail(ok.error());
  return load_le<uint32_t>(bytes.data());
}

Result<void> SoftwareDevice::write32(uint32_t region, uint64_t offset, uint32_t value) {
  std::array<std::byte, 4> bytes{};
  store_le(bytes.data(), value);
  return write(region, offset, bytes);
}

Result<void> SoftwareDevice::ioctl(hookline_ioctl& request, const Behind& behind) {
  const bool feature = request.op == HOOKLINE_OP_FEATURE;
  const uint32_t number = feature ? request.number & 0xffff : request.number;
  const uint32_t wanted = feature ? chain_.features() : chain_.ioctls();
  const bool asked = number < 32 && (wanted >> number & 1);

  Outcome outcome;
  if (asked && worker_) {
    outcome = worker_->ioctl(request);
  } else if (asked) {
    if (const Result<void> ok = missed(); !ok) return ok;
  }
  if (outcome.answer == HOOKLINE_PASS || outcome.answer == HOOKLINE_RUN_REST) {
    request.result = behind ? behind(request) : -ENOTTY;
    if (outcome.answer == HOOKLINE_RUN_REST) {
      request.flags |= HOOKLINE_IOCTL_AFTER;
      const Outcome after = worker_->ioctl(request);
      request.flags &= ~HOOKLINE_IOCTL_AFTER;
      if (after.answer < 0) return fail(-after.answer, after.text);
    }
    if (request.result < 0) return fail(-request.result, "the device does not answer this request");
    return {};
  }
  if (outcome.answer < 0) return fail(-outcome.answer, outcome.text);
  return {};
}

// ---- migration

Result<void> SoftwareDevice::set_state(MigrationState target) {
  if (!chain_.owner()) return fail(ENOTTY, "the device does not migrate: no plugin owns its migration");
  while (state_ != target || target == MigrationState::error) {
    const Result<MigrationState> next = next_state(state_, target, kCapabilities);
    if (!next) return fail(next.error());
    const Arc& arc = *find_arc(state_, *next);
    if (const Result<void> ok = run_arc(arc); !ok) return ok;
    enter(arc.to);
  }
  return {};
}

void SoftwareDevice::enter(MigrationState state) {
  const auto from = static_cast<uint32_t>(state_);
  state_ = state;
  if (worker_) worker_->event({HOOKLINE_EVENT_STATE, from, static_cast<uint32_t>(state), 0});
}

/// P2P traffic cannot be told apart here, so the programs run at its arcs and nothing is left to do for stop
/// and start.
Result<void> SoftwareDevice::run_arc(const Arc& arc) {
  if (arc.session == SessionAction::begin_pre_copy && incomplete_) return incomplete_error();
  if (arc.device == DeviceAction::quiesce) {
    if (const Result<void> ok = run_program("stop", chain_.stop(), *access_, model_.bar_size, saved_); !ok)
      return ok;
  } else if (arc.device == DeviceAction::release) {
    const std::span<const hookline_step> steps =
        start_once_ ? std::span<const hookline_step>(*start_once_) : chain_.start();
    if (const Result<void> ok = run_program("start", steps, *access_, model_.bar_size, saved_); !ok)
      return ok;
    start_once_.reset();
  }

  switch (arc.session) {
    case SessionAction::begin_pre_copy:
    case SessionAction::begin_stop_copy:
    case SessionAction::begin_resume:
      begin_session(arc.session == SessionAction::begin_resume);
      break;
    case SessionAction::end_save:
      end_session();
      break;
    case SessionAction::commit_resume: {
      const Result<void> complete = loader_ ? loader_->end() : fail(session_error());
      end_session();
      if (complete) break;
      // What a refused stream left behind must not run.
      enter(MigrationState::error);
      return fail(EINVAL, complete.error().text);
    }
    case SessionAction::continue_stop_copy:
    case SessionAction::none:
      break;
  }
  return {};
}

/// What is wrong is said by the data file, not by the arc: a VMM resets a device whose arc to STOP_COPY
/// fails.
void SoftwareDevice::begin_session(bool load) {
  end_session();
  if (!worker_) {
    session_error_ = Error{EIO, "no worker serves the device"};
  } else if (load) {
    loader_ = std::make_unique<DeviceStateLoader>(*worker_);
  } else if (Result<DeviceStateSaver> saver = DeviceStateSaver::begin(*worker_); saver) {
    saver_ = std::move(*saver);
  } else {
    session_error_ = saver.error();
  }
}

void SoftwareDevice::end_session() {
  saver_.reset();
  loader_.reset();
  session_error_.reset();
}

tl::unexpected<Error> SoftwareDevice::incomplete_error() const {
  return fail(ENODATA,
              "an access to the device was missed while it had no worker, so its state is not complete: it "
              "migrates again after its guest has reset it");
}

Error SoftwareDevice::session_error() const {
  return session_error_ ? *session_error_
                        : Error{EIO, "the worker that had this stream is gone; begin the migration again"};
}

Result<size_t> SoftwareDevice::read_state(std::span<std::byte> out) {
  if (!saves(state_)) return fail(ENODEV, fmt::format("in {} there is no state to read", to_string(state_)));
  if (incomplete_) return incomplete_error();
  if (!saver_) return fail(session_error());
  if (out.empty()) return size_t{0};
  const SavePhase phase = state_ == MigrationState::stop_copy ? SavePhase::stop_copy : SavePhase::pre_copy;
  const Result<size_t> filled = saver_->fill(out, phase);
  if (filled && *filled == 0 && phase == SavePhase::pre_copy)
    return fail(ENOMSG, "nothing more before the device is stopped");
  return filled;
}

Result<void> SoftwareDevice::write_state(std::span<const std::byte> bytes) {
  if (state_ != MigrationState::resuming)
    return fail(ENODEV, fmt::format("in {} no state can be written", to_string(state_)));
  if (!loader_) return fail(session_error());
  const Result<void> ok = loader_->write(bytes);
  // What a refused stream has left in the device must not stay there.
  if (!ok) run_reset_program();
  if (loader_->complete()) parameters_.assign(worker_->parameters().begin(), worker_->parameters().end());
  return ok;
}

Result<std::vector<std::byte>> SoftwareDevice::save_all(size_t cut) {
  std::vector<std::byte> stream;
  std::vector<std::byte> piece(cut);
  for (;;) {
    const Result<size_t> got = read_state(piece);
    if (!got && got.error().code == ENOMSG) return stream;
    if (!got) return fail(got.error());
    if (*got == 0) return stream;
    stream.insert(stream.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*got));
  }
}

Result<BulkBytes> SoftwareDevice::precopy_info() const {
  if (state_ != MigrationState::pre_copy && state_ != MigrationState::pre_copy_p2p)
    return fail(EINVAL, fmt::format("the device is in {}, not in PRE_COPY", to_string(state_)));
  if (!saver_) return fail(session_error());
  return left();
}

/// As the worker said last, and what was touched since.
BulkBytes SoftwareDevice::left() const {
  BulkBytes left = saver_->sizes();
  for (const std::unique_ptr<TouchedPages>& of_bar : touched_) {
    if (of_bar) left.dirty += of_bar->count() * TouchedPages::kPage;
  }
  return left;
}

uint64_t SoftwareDevice::stop_copy_bytes() const {
  const uint64_t all = chain_.max_save() + chain_.max_bulk_pass();
  if (!saver_) return all;
  // In names and framing as much more as the declarations are granted.
  const BulkBytes bytes = left();
  const uint64_t bulk = bytes.initial + bytes.dirty;
  return std::min(all, chain_.max_save() + bulk + bulk / 16);
}

void SoftwareDevice::reset() {
  end_session();
  start_once_.reset();
  model_.reset(model_self_);
  run_reset_program();
  std::ranges::fill(shadow_, std::byte{0});
  saved_ = {};
  incomplete_ = false;
  for (const std::unique_ptr<TouchedPages>& of_bar : touched_) {
    if (of_bar) of_bar->mark_all();
  }
  if (worker_) worker_->event({HOOKLINE_EVENT_RESET, 0, 0, 0});
  if (state_ != MigrationState::running) enter(MigrationState::running);
}

/// With slots of its own: what the stop program has kept is not touched.
void SoftwareDevice::run_reset_program() {
  std::array<uint32_t, HOOKLINE_SAVED> slots{};
  // It must succeed; a program that cannot run, create() has refused.
  (void)run_program("reset", chain_.reset(), *access_, model_.bar_size, slots);
}

// ---- wire, worker

bool SoftwareDevice::receive(std::span<const std::byte> frame) {
  return model_.receive && model_.receive(model_self_, frame.data(), frame.size());
}

void SoftwareDevice::kill_worker() {
  saver_.reset();
  loader_.reset();
  worker_.reset();
}

Result<void> SoftwareDevice::start_worker() {
  kill_worker();
  Result<std::unique_ptr<OpenDevice>> opened =
      OpenDevice::open(chain_, *access_, options_.info, options_.log, options_.pf);
  if (!opened) return fail(opened.error());
  worker_ = std::move(*opened);
  return worker_->set_parameters(parameters_);
}

Result<size_t> SoftwareDevice::find_parameter(std::string_view name) const {
  const std::span<const hookline_parameter> all = chain_.parameters();
  const auto found = std::ranges::find_if(all, [name](const auto& p) { return name == p.name; });
  if (found == all.end())
    return fail(EINVAL, fmt::format("the device has no migration parameter \"{}\"", name));
  return static_cast<size_t>(found - all.begin());
}

Result<void> SoftwareDevice::set_parameter(std::string_view name, const std::string& value) {
  const Result<size_t> index = find_parameter(name);
  if (!index) return fail(index.error());
  if (!(chain_.parameters()[*index].flags & HOOKLINE_PARAMETER_RUNTIME))
    return fail(EBUSY,
                fmt::format("migration parameter \"{}\" cannot change while the device is open", name));
  std::vector<std::string> values = parameters_;
  values[*index] = value;
  if (const Result<void> ok = chain_.check_values(values); !ok) return ok;
  parameters_ = values;
  return worker_ ? worker_->set_parameters(std::move(values)) : Result<void>{};
}

DeviceAccess& SoftwareDevice::behind() {
  return *access_;
}

}  // namespace hookline
