// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tests/kernel/faults.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {
namespace {

constexpr const char* kHead = R"(<!-- SPDX-License-Identifier: GPL-2.0-only -->
# What may go wrong, and what you may rely on then

Every event in every migration state. `faults_vm_test` makes each of them happen and checks what stands here, and that
afterwards the device is whole (its registers and memory can be written, read and migrated) and nothing is left behind: this
page is its table, printed by `faults_vm_test --markdown`.

The devices it happens to; the last column says which, "all" or some of them:

- *NIC*: a VF of an 82576 whose PF has its own driver. Its worker knows every lie.
- *display*: a whole bochs-display with the plugin gpu-bochs. Its memory goes in rounds; it has no PF and no reset of its own, and
  being stopped changes nothing that is seen of it. What it has trapped is a write.
- *logging NIC*: the VF with the in-kernel handler `82576-dirty-log`, while DMA logging runs. Besides what stands here: whatever
  happens, REPORT names every page of the rings and of the buffers that were posted, and logging goes on until it is stopped or
  the device is closed.

- *call in hand*: what the VMM does at that moment: a trapped access, or where there is a data file its next read() or write().
  "goes on" is what it would be without the event. A trapped access that no worker answers in time passes to the device, or with
  VFIO_PCI_HOOKS_DEFINE_FAIL is EIO and counts as seen.
- *state*: what VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE says afterwards.
- *device*: "runs on" or "stays stopped": registers are as they were, and RUNNING starts it where it stopped. "fresh": reset.
  "scrubbed": stopped, and the reset program has run. "half loaded": the bulk that has come is there, the rest is as before.
- *who makes it whole*: until all of these have, the device is not whole; nobody else is needed. "nobody": the VMM's own way
  back to RUNNING is enough.
- *: a guest in QEMU has shown it, too (`tests/qemu/faults.py`): a migration whose call fails ends there and the guest goes on
  at its source, one whose call goes on ends as ever; the next migration succeeds.
- A data file that has failed keeps failing. RESUMING then leads to ERROR and nowhere else, so that no guest runs on it.
)";

std::string state_text(State state) { return vfio::state_name(vfio_state(state)); }

std::string call_text(const Outcome& outcome) {
  if (outcome.error == kNoCall) return "none";
  if (!outcome.error && outcome.needs & kWorker) return "passes to the device";
  return outcome.error ? strerrorname_np(outcome.error) : "goes on";
}

std::string device_text(State state, Device device) {
  const bool runs = state == State::running || state == State::pre_copy;
  switch (device) {
    case Device::as_before: return runs ? "runs on" : "stays stopped";
    case Device::fresh: return "fresh, runs";
    case Device::half: return "half loaded";
    case Device::scrubbed: return "scrubbed";
    case Device::gone: return "closed";
  }
  return {};
}

std::string needs_text(unsigned needs) {
  constexpr struct {
    unsigned bit;
    const char* text;
  } kTexts[] = {{kWorker, "the next worker"},
                {kResetToMigrate, "a reset by the guest before it can migrate (ENODATA until then)"},
                {kResetToRun, "a reset"},
                {kOpen, "whoever opens the device next"},
                {kBind, "after the VMM has closed it, the administrator binds it again"},
                {kDefine, "after the VMM has closed it, the administrator creates, defines and binds it again"}};
  std::string text;
  for (const auto& [bit, words] : kTexts)
    if (needs & bit) text += (text.empty() ? "" : "; ") + std::string(words);
  return text.empty() ? "nobody" : text;
}

// The columns behind the state. Cells that end alike share a line.
std::string line_of(State state, const Cell& cell) {
  if (cell.why_not) return fmt::format("n/a: {} | | | ", cell.why_not);
  const Outcome& o = cell.outcome;
  return fmt::format("{} | {} | {} | {}", call_text(o), o.after == state ? "as before" : state_text(o.after),
                     device_text(state, o.device), needs_text(o.needs));
}

// Cells of a device that end alike share a line, and devices of which that holds in the same states.
struct Line {
  std::vector<Kind> kinds;
  std::vector<State> states;
  std::string text;
};

std::vector<Line> lines_of(const Row& row) {
  std::vector<Line> lines;
  for (const Kind kind : kKinds) {
    std::vector<Line> own;
    for (const State state : kStates) {
      const std::string text = line_of(state, row.at(kind, state));
      const auto same = std::ranges::find(own, text, &Line::text);
      if (same == own.end())
        own.push_back({{kind}, {state}, text});
      else
        same->states.push_back(state);
    }
    for (Line& line : own) {
      const auto same = std::ranges::find_if(lines, [&](const Line& l) { return l.text == line.text && l.states == line.states; });
      if (same == lines.end())
        lines.push_back(std::move(line));
      else
        same->kinds.push_back(kind);
    }
  }
  return lines;
}

}  // namespace

std::string fault_matrix_page() {
  std::string page = kHead;
  for (const Row& row : fault_matrix()) {
    page += fmt::format("\n## {}\n\n{}\n\n{}\n\n", name_of(row.event), row.what, row.reason);
    page += "| in | call in hand | state | device | who makes it whole | of |\n|---|---|---|---|---|---|\n";
    for (const Line& line : lines_of(row)) {
      const bool nic = line.kinds.front() == Kind::nic;
      std::vector<std::string> states, kinds;
      for (const State state : line.states)
        states.push_back(state_text(state) + (nic && is_shown_with_qemu(row.event, state) ? "*" : ""));
      for (const Kind kind : line.kinds) kinds.emplace_back(name_of(kind));
      const bool everywhere = states.size() == kStates.size();
      page += fmt::format("| {} | {} | {} |\n", everywhere ? "every state" : fmt::format("{}", fmt::join(states, ", ")), line.text,
                          kinds.size() == kKinds.size() ? "all" : fmt::format("{}", fmt::join(kinds, ", ")));
    }
  }
  return page;
}

}  // namespace hookline::kernel_test
