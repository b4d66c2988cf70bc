// SPDX-License-Identifier: Apache-2.0
#include "register_program.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

#include <fmt/format.h>

namespace hookline {

namespace {

using std::chrono::microseconds;

constexpr uint32_t kMaxStepUs = 100000;
constexpr uint64_t kMaxProgramUs = 1000000;
constexpr microseconds kPollEvery{50};

struct Rule {
  uint8_t op;
  std::string_view name;
  bool waits;
  bool accesses;  // a register
  bool has_slot;
};
constexpr Rule kRules[] = {
    {HOOKLINE_STEP_WRITE, "WRITE", false, true, false}, {HOOKLINE_STEP_MODIFY, "MODIFY", false, true, false},
    {HOOKLINE_STEP_SAVE, "SAVE", false, true, true},    {HOOKLINE_STEP_RESTORE, "RESTORE", false, true, true},
    {HOOKLINE_STEP_POLL, "POLL", true, true, false},    {HOOKLINE_STEP_DELAY, "DELAY", true, false, false},
    {HOOKLINE_STEP_FILL, "FILL", false, true, false},
};

const Rule* find_rule(uint8_t op) {
  for (const Rule& rule : kRules) {
    if (rule.op == op) return &rule;
  }
  return nullptr;
}

/// How many bytes from its offset a step accesses. A FILL of none goes on to the end of the BAR.
uint64_t length_of(const hookline_step& step, std::span<const uint64_t> bar_sizes) {
  if (step.op != HOOKLINE_STEP_FILL) return step.width;
  if (step.mask || bar_sizes.empty() || step.offset >= bar_sizes[step.bar]) return std::max(step.mask, 4u);
  return bar_sizes[step.bar] - step.offset;
}

/// What is wrong with a step, or nothing.
std::string fault(const hookline_step& step, bool may_wait, std::span<const uint64_t> bar_sizes) {
  const Rule* rule = find_rule(step.op);
  if (!rule) return fmt::format("there is no operation {}", step.op);
  if (rule->waits && !may_wait) return fmt::format("{} waits, which this program may not", rule->name);
  if (rule->waits && step.timeout_us > kMaxStepUs)
    return fmt::format("{} waits {} us, at most {} are allowed", rule->name, step.timeout_us, kMaxStepUs);
  if (!rule->waits && step.timeout_us) return fmt::format("{} has a timeout but does not wait", rule->name);
  if (rule->has_slot && step.slot >= HOOKLINE_SAVED)
    return fmt::format("{} uses slot {}, the slots are 0 to {}", rule->name, step.slot, HOOKLINE_SAVED - 1);
  if (!rule->accesses) return {};
  if (step.width != 1 && step.width != 2 && step.width != 4)
    return fmt::format("{} is {} bytes wide, not 1, 2 or 4", rule->name, step.width);
  if (step.offset % step.width)
    return fmt::format("{} at {:#x} is not naturally aligned", rule->name, step.offset);
  if (step.bar > 5) return fmt::format("there is no BAR {}", step.bar);
  if (step.op == HOOKLINE_STEP_FILL && (step.width != 4 || step.mask % 4))
    return fmt::format("FILL writes {} bytes in units of {}; it takes 4 and a multiple of them", step.mask,
                       step.width);
  if (!bar_sizes.empty() && uint64_t{step.offset} + length_of(step, bar_sizes) > bar_sizes[step.bar])
    return fmt::format("{} at {:#x} is behind the end of BAR {}, which has {:#x} bytes", rule->name,
                       step.offset, step.bar, bar_sizes[step.bar]);
  if (step.op == HOOKLINE_STEP_POLL && (step.value & ~step.mask))
    return fmt::format("POLL waits for {:#x}, which has bits outside its mask {:#x}", step.value, step.mask);
  return {};
}

Result<void> poll(const hookline_step& step, DeviceAccess& device) {
  const auto end = std::chrono::steady_clock::now() + microseconds(step.timeout_us);
  for (;;) {
    // The clock first: after a long sleep the register gets one more look.
    const bool last = std::chrono::steady_clock::now() >= end;
    const Result<uint64_t> value = device.read(step.bar, step.offset, step.width);
    if (!value) return fail(value.error());
    if ((*value & step.mask) == step.value) return {};
    if (last)
      return fail(ETIMEDOUT,
                  fmt::format("BAR {} register {:#x} is {:#x} after {} us, expected {:#x} under mask {:#x}",
                              step.bar, step.offset, *value, step.timeout_us, step.value, step.mask));
    std::this_thread::sleep_for(kPollEvery);
  }
}

Result<void> run_step(const hookline_step& step, DeviceAccess& device, std::span<const uint64_t> bar_sizes,
                      std::span<uint32_t, HOOKLINE_SAVED> saved) {
  switch (step.op) {
    case HOOKLINE_STEP_WRITE:
      return device.write(step.bar, step.offset, step.width, step.value);
    case HOOKLINE_STEP_MODIFY: {
      const Result<uint64_t> value = device.read(step.bar, step.offset, step.width);
      if (!value) return fail(value.error());
      return device.write(step.bar, step.offset, step.width,
                          (*value & ~uint64_t{step.mask}) | (step.value & step.mask));
    }
    case HOOKLINE_STEP_SAVE: {
      const Result<uint64_t> value = device.read(step.bar, step.offset, step.width);
      if (!value) return fail(value.error());
      saved[step.slot] = static_cast<uint32_t>(*value);
      return {};
    }
    case HOOKLINE_STEP_RESTORE:
      return device.write(step.bar, step.offset, step.width, saved[step.slot]);
    case HOOKLINE_STEP_POLL:
      return poll(step, device);
    case HOOKLINE_STEP_FILL:
      for (uint64_t at = 0, end = length_of(step, bar_sizes); at < end; at += step.width) {
        const Result<void> ok = device.write(step.bar, uint64_t{step.offset} + at, step.width, step.value);
        if (!ok) return ok;
      }
      return {};
    case HOOKLINE_STEP_DELAY:
      std::this_thread::sleep_for(microseconds(step.timeout_us));
      return {};
  }
  return fail(EINVAL, fmt::format("there is no operation {}", step.op));
}

}  // namespace

Result<void> check_program(std::string_view name, std::span<const hookline_step> steps, bool may_wait,
                           std::span<const uint64_t> bar_sizes) {
  if (steps.size() > HOOKLINE_MAX_STEPS)
    return fail(EINVAL, fmt::format("{} program: {} steps, at most {} are allowed", name, steps.size(),
                                    HOOKLINE_MAX_STEPS));
  uint64_t total_us = 0;
  std::array<uint64_t, 6> filled = {};
  for (size_t i = 0; i < steps.size(); ++i) {
    if (const std::string why = fault(steps[i], may_wait, bar_sizes); !why.empty())
      return fail(EINVAL, fmt::format("{} program, step {}: {}", name, i, why));
    total_us += steps[i].timeout_us;
    if (bar_sizes.empty() || steps[i].op != HOOKLINE_STEP_FILL) continue;
    uint64_t& all = filled[steps[i].bar];
    all += length_of(steps[i], bar_sizes);
    if (all > bar_sizes[steps[i].bar])
      return fail(EINVAL, fmt::format("{} program, step {}: with it the program fills {:#x} bytes of BAR {}, which has {:#x}: fill none twice",
                                      name, i, all, steps[i].bar, bar_sizes[steps[i].bar]));
  }
  if (total_us > kMaxProgramUs)
    return fail(EINVAL, fmt::format("{} program: it may wait {} us in all, at most {} are allowed", name,
                                    total_us, kMaxProgramUs));
  return {};
}

Result<void> run_program(std::string_view name, std::span<const hookline_step> steps, DeviceAccess& device,
                         std::span<const uint64_t> bar_sizes, std::span<uint32_t, HOOKLINE_SAVED> saved) {
  for (size_t i = 0; i < steps.size(); ++i) {
    if (const Result<void> ok = run_step(steps[i], device, bar_sizes, saved); !ok)
      return fail(ok.error().code, fmt::format("{} program, step {}: {}", name, i, ok.error().text));
  }
  return {};
}

}  // namespace hookline
