// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <fmt/format.h>

#include "tests/kernel/faults.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {
namespace {

constexpr const char* kHead = R"(<!-- SPDX-License-Identifier: GPL-2.0-only -->
# What may go wrong, and what you may rely on then

Every event in every migration state. `faults_vm_test` makes each of them happen on a VF of an 82576 and checks what stands
here, and that afterwards the device is whole and nothing is left behind: this page is its table, printed by
`faults_vm_test --markdown`.

- *call in hand*: what the VMM does at that moment: a trapped access, or where there is a data file its next read() or write().
  "goes on" is what it would be without the event. A trapped access that no worker answers in time passes to the device, or with
  VFIO_PCI_HOOKS_DEFINE_FAIL is EIO and counts as seen.
- *state*: what VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE says afterwards.
- *device*: "runs on" or "stays stopped": registers are as they were, and RUNNING starts it where it stopped. "fresh": reset.
  "scrubbed": stopped, and the reset program has run.
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

}  // namespace

std::string fault_matrix_page() {
  std::string page = kHead;
  for (const Row& row : fault_matrix()) {
    page += fmt::format("\n## {}\n\n{}\n\n{}\n\n", name_of(row.event), row.what, row.reason);
    page += "| in | call in hand | state | device | who makes it whole |\n|---|---|---|---|---|\n";
    for (size_t i = 0; i < kStates.size(); ++i) {
      const std::string line = line_of(kStates[i], row.cells[i]);
      bool printed = false;
      std::string states;
      for (size_t j = 0; j < kStates.size(); ++j) {
        if (line_of(kStates[j], row.cells[j]) != line) continue;
        printed |= j < i;
        states += (states.empty() ? "" : ", ") + state_text(kStates[j]) + (is_shown_with_qemu(row.event, kStates[j]) ? "*" : "");
      }
      if (!printed) page += fmt::format("| {} | {} |\n", states, line);
    }
  }
  return page;
}

}  // namespace hookline::kernel_test
