// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/kernel/faults.hpp"

namespace hookline::kernel_test {
namespace {

using enum State;

constexpr Cell outcome(int error, State after, Device device, unsigned needs) { return {nullptr, {error, after, device, needs}}; }
constexpr Cell not_here(const char* why) { return {why, {}}; }

// The event changes nothing: the call in hand ends as it would have without it.
constexpr Cell goes_on(State state) {
  return outcome(0, state, Device::as_before, state == error ? kResetToRun : kNobody);
}
constexpr Cells all_go_on() {
  return {goes_on(running),      goes_on(running_p2p), goes_on(stop),     goes_on(pre_copy),
          goes_on(pre_copy_p2p), goes_on(stop_copy),   goes_on(resuming), goes_on(error)};
}

// The worker is lost: accesses pass to the device unseen, streams end with `code`.
constexpr Cells worker_lost(int code) {
  return {outcome(0, running, Device::as_before, kWorker | kResetToMigrate),
          outcome(0, running_p2p, Device::as_before, kWorker | kResetToMigrate),
          outcome(0, stop, Device::as_before, kWorker | kResetToMigrate),
          outcome(code, pre_copy, Device::as_before, kWorker),
          outcome(code, pre_copy_p2p, Device::as_before, kWorker),
          outcome(code, stop_copy, Device::as_before, kWorker),
          outcome(code, resuming, Device::as_before, kWorker | kResetToRun),
          outcome(0, error, Device::as_before, kWorker | kResetToRun)};
}

constexpr Cells all_reset() {
  constexpr Cell access = outcome(0, running, Device::fresh, kNobody);
  constexpr Cell stream = outcome(ECANCELED, running, Device::fresh, kNobody);
  return {access, access, access, stream, stream, stream, stream, access};
}

constexpr Cells all_removed(unsigned needs) {
  Cells cells = all_go_on();
  for (Cell& cell : cells) cell.outcome.needs = needs;
  return cells;
}

constexpr Cells all_closed() {
  constexpr Cell cell = outcome(kNoCall, running, Device::gone, kOpen);
  return {cell, cell, cell, cell, cell, cell, cell, cell};
}

constexpr Cells nowhere(const char* why) {
  Cells cells{};
  for (Cell& cell : cells) cell = not_here(why);
  return cells;
}
constexpr Cells kNoPf = nowhere("it has no PF");
constexpr Cells kUnrelated = nowhere("logging or not, it is as on the NIC");
constexpr Cells kNotDrawn = nowhere("it has no memory that a guest draws in");

constexpr Cell kNoFile = not_here("there is no data file in this state");

// What happens to a data file happens where there is one.
constexpr Cells with_file(Cell pre_copies, Cell pre_copies_p2p, Cell stop_copies, Cell resumes) {
  return {kNoFile, kNoFile, kNoFile, pre_copies, pre_copies_p2p, stop_copies, resumes, kNoFile};
}

// What is wrong with a stream that is loaded shows where it is loaded.
constexpr Cells loaded(Cell resumes) {
  constexpr Cell saves = not_here("the stream is read here; it is refused where it is loaded");
  return {kNoFile, kNoFile, kNoFile, saves, saves, saves, resumes, kNoFile};
}

constexpr Row kMatrix[] = {
    {Event::worker_killed, "SIGKILL to the worker, and no successor within the limit.",
     "The kernel waits for a successor as long as the limit says. Then accesses pass to vfio-pci and mark the open as incomplete; "
     "a stream never changes its worker. Stop, cont and cancel are register programs and need none.",
     worker_lost(EIO)},
    {Event::worker_stopped, "SIGSTOP to the worker.",
     "At the limit the session is revoked: its mappings are gone and its rights with them before the VMM goes on. A call behind "
     "the one that waited finds the worker gone, as above.",
     worker_lost(ETIMEDOUT)},
    {Event::answer_to_wrong_slot, "The worker answers a slot it was not asked in, and nothing after that.",
     "NEXT says EINVAL and answers nothing. To the VMM this is a worker that is late.", worker_lost(ETIMEDOUT), {}, kUnrelated},
    {Event::answer_of_wrong_length,
     "The worker answers a read with one byte too many, a stream with more than the buffer holds or with unknown flags, and a write, "
     "whose answer has no length, with what is no answer to it.",
     "NEXT says EINVAL and answers nothing. To the VMM this is a worker that is late.", worker_lost(ETIMEDOUT), {}, kUnrelated},
    {Event::answered_twice, "The worker answers right, and then the same slot once more.",
     "The second answer gets EINVAL and reaches nobody.", all_go_on(), {}, kUnrelated},
    {Event::answered_late, "The worker sleeps over the limit, wakes up and answers.",
     "It was revoked: its calls say ECANCELED, and touching its pages is a SIGBUS.", worker_lost(ETIMEDOUT)},

    {Event::device_reset, "VFIO_DEVICE_RESET.", "A reset leads to RUNNING from everywhere and ends the migration.", all_reset()},
    {Event::flr, "The guest writes the FLR bit in config space.",
     "The kernel hears of it as of any other reset.", all_reset(), nowhere("it has no such bit: its reset is the register program")},
    {Event::sysfs_reset, "A write to `reset` in sysfs.", "The VMM has no part in it, and finds its device reset.", all_reset(),
     nowhere("the PCI core knows no way to reset it, so there is no such file")},
    {Event::hot_reset_of_vf, "VFIO_DEVICE_PCI_HOT_RESET on a VF whose PF has its own driver.",
     "Refused by vfio-pci: the bus is the PF's, too. Nothing is reset.", all_go_on(),
     nowhere("it is no VF"), kUnrelated},
    {Event::hot_reset_of_function, "VFIO_DEVICE_PCI_HOT_RESET on a whole function that has its bus for itself.",
     "A reset like the others.", all_reset(), nowhere("it is on the root bus, which nobody can reset"), nowhere("it is a VF")},

    {Event::vfs_removed, "`sriov_numvfs` of the PF is set to 0.",
     "The VMM is asked to give the device back (VFIO_PCI_REQ_IRQ) and the write waits for that. Until then all goes on, a migration "
     "to another host included; only a reset says EAGAIN, because the function's lock is held. Then the function is gone, and "
     "its definition with it.",
     all_removed(kDefine), kNoPf},
    {Event::pf_unbound, "The PF's driver is unbound.", "It takes its VFs along, each as above.", all_removed(kDefine), kNoPf,
     nowhere("it ends as vfs_removed")},
    {Event::vf_unbound, "The function is unbound from vfio-pci-hooks.",
     "As above; the function and its definition stay. What only a register program resets can be reset all the while.",
     all_removed(kBind)},
    {Event::function_removed, "A write to `remove` in sysfs.",
     "As above, and the definition goes with the function; `rescan` finds a new one.", nowhere("a VF comes and goes as its PF says"),
     all_removed(kDefine), nowhere("a VF comes and goes as its PF says")},
    {Event::vmm_killed,
     "SIGKILL to the VMM. Memory that the device has is mapped then, drawn in, and its touched pages are kept track of.",
     "Its descriptors close, which needs no worker. The same worker serves the next open, of which nothing is tracked or logged.",
     all_closed()},
    {Event::module_unload, "The module is to be unloaded.", "EWOULDBLOCK: the device that is open holds it.", all_go_on()},
    {Event::no_memory, "Each allocation of the call in hand and of the next arc fails, one after the other. "
     "Needs a kernel with fault injection.",
     "The call or arc that fails has changed nothing, and can be repeated.", all_go_on()},

    {Event::worker_killed_under_drawing,
     "SIGKILL to the worker while a client draws. Its mapping was taken away when the plugin asked which pages were touched.",
     "The client's next access faults the page back in, which needs no worker. The next worker is told of every page.", kNotDrawn,
     worker_lost(EIO), kNotDrawn},
    {Event::reset_under_drawing, "VFIO_DEVICE_RESET while a client draws in pages that are kept track of.",
     "The program clears memory; what is drawn afterwards stays.", kNotDrawn, all_reset(), kNotDrawn},

    {Event::file_closed, "The VMM closes the data file before its end.",
     "The state stays. Where the stream was to be loaded it is not whole.",
     with_file(outcome(kNoCall, pre_copy, Device::as_before, kNobody), outcome(kNoCall, pre_copy_p2p, Device::as_before, kNobody),
               outcome(kNoCall, stop_copy, Device::as_before, kNobody), outcome(kNoCall, resuming, Device::as_before, kResetToRun)),
     {}, kUnrelated},
    {Event::file_kept, "The VMM closes the device and keeps the data file.",
     "The file belongs to that open of the device and says so, also when the device is open again.",
     with_file(outcome(ENODEV, running, Device::gone, kOpen), outcome(ENODEV, running, Device::gone, kOpen),
               outcome(ENODEV, running, Device::gone, kOpen), outcome(ENODEV, running, Device::gone, kOpen))},
    {Event::file_shared, "Two threads read or write the data file at once, in small pieces, and a third does what the file is not for.",
     "Each byte is moved once; each call is whole. The third gets EBADF.",
     with_file(goes_on(pre_copy), goes_on(pre_copy_p2p), goes_on(stop_copy), goes_on(resuming)),
     with_file(goes_on(pre_copy), goes_on(pre_copy_p2p), goes_on(stop_copy),
               not_here("two writers keep no order: it ends as stream_reordered")),
     kUnrelated},

    {Event::stream_truncated, "The stream ends before its trailer.", "Only a stream that was applied as a whole leads out of RESUMING.",
     loaded(outcome(0, resuming, Device::as_before, kResetToRun)), {}, kUnrelated},
    {Event::stream_flipped, "One bit of the stream is another; with bulk, one in the middle of it.",
     "A refusal is sticky, and the reset program clears the device.",
     loaded(outcome(EBADMSG, resuming, Device::scrubbed, kResetToRun)), {}, kUnrelated},
    {Event::stream_reordered, "Behind the first record the second half of the stream comes first.",
     "A refusal is sticky, and the reset program clears the device.",
     loaded(outcome(EBADMSG, resuming, Device::scrubbed, kResetToRun)), {}, kUnrelated},
    {Event::stream_oversized,
     "The stream is longer than the definition allows; with bulk, a section has more pages than the plugin ever puts into one.",
     "The worker is not asked any more, nothing that was loaded is applied. No guest ever runs on it. Bulk is refused by the plugin, "
     "and the device cleared.",
     with_file(outcome(EFBIG, pre_copy, Device::as_before, kNobody), outcome(EFBIG, pre_copy_p2p, Device::as_before, kNobody),
               outcome(EFBIG, stop_copy, Device::as_before, kNobody), outcome(EFBIG, resuming, Device::as_before, kResetToRun)),
     loaded(outcome(EINVAL, resuming, Device::scrubbed, kResetToRun)), kUnrelated},
    {Event::stream_foreign, "The stream of another model.",
     "Refused at its first record, which a source sends while its guest runs.",
     loaded(outcome(EINVAL, resuming, Device::scrubbed, kResetToRun)), {}, kUnrelated},
    {Event::stream_outside, "Behind good bulk comes one for pages that the device's memory has not.",
     "Whoever made the stream can make its checksums hold, too: the plugin looks at every number.", nowhere("its state is registers"),
     loaded(outcome(EINVAL, resuming, Device::scrubbed, kResetToRun)), nowhere("its state is registers")},

    {Event::dma_logging,
     "START, REPORT and STOP of DMA logging: twice, before START and after STOP, over ranges that overlap, that nothing is in and "
     "that end where no address is.",
     "EINVAL or EOVERFLOW to what makes no sense, ENOTTY to all of it in kernels that cannot REPORT. Logging knows no state: it neither "
     "changes one nor hinders a stream. With a logger it names pages of the device's rings and their buffers and no other, without one all.",
     all_go_on()},
};

constexpr std::pair<Event, State> kWithQemu[] = {
    {Event::worker_killed, running},
    {Event::worker_killed, pre_copy},
    {Event::worker_killed, stop_copy},
    {Event::worker_killed, resuming},
    {Event::worker_stopped, running},
    {Event::worker_stopped, pre_copy},
    {Event::worker_stopped, stop_copy},
    {Event::worker_stopped, resuming},
    {Event::device_reset, pre_copy},
    {Event::sysfs_reset, pre_copy},
    {Event::vfs_removed, pre_copy},
    {Event::vf_unbound, pre_copy},
    {Event::vmm_killed, pre_copy},
    {Event::vmm_killed, resuming},
    {Event::module_unload, pre_copy},
    {Event::stream_truncated, resuming},
    {Event::stream_flipped, resuming},
};

}  // namespace

uint32_t vfio_state(State state) {
  constexpr std::array<uint32_t, kStates.size()> values = {
      VFIO_DEVICE_STATE_RUNNING,      VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP,     VFIO_DEVICE_STATE_PRE_COPY,
      VFIO_DEVICE_STATE_PRE_COPY_P2P, VFIO_DEVICE_STATE_STOP_COPY,   VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_ERROR};
  return values[static_cast<size_t>(state)];
}

Cell Row::at(Kind kind, State state) const {
  const auto index = static_cast<size_t>(state);
  switch (kind) {
    case Kind::nic: break;
    case Kind::logging_nic: return (logging_nic ? *logging_nic : nic)[index];
    case Kind::gpu: {
      Cell cell = (gpu ? *gpu : nic)[index];
      // Its bulk goes to the device as it comes.
      if (state == resuming && !cell.why_not && cell.outcome.device == Device::as_before) cell.outcome.device = Device::half;
      return cell;
    }
  }
  return nic[index];
}

const char* name_of(Kind kind) {
  constexpr const char* kNames[] = {"NIC", "display", "logging NIC"};
  return kNames[static_cast<size_t>(kind)];
}

const char* name_of(Event event) {
  constexpr const char* kNames[] = {
      "worker_killed", "worker_stopped", "answer_to_wrong_slot", "answer_of_wrong_length", "answered_twice", "answered_late",
      "device_reset",  "flr",            "sysfs_reset",          "hot_reset_of_vf",        "hot_reset_of_function",
      "vfs_removed",   "pf_unbound",     "vf_unbound",           "function_removed",       "vmm_killed",     "module_unload",
      "no_memory",     "worker_killed_under_drawing", "reset_under_drawing",
      "file_closed",   "file_kept",      "file_shared",
      "stream_truncated", "stream_flipped", "stream_reordered", "stream_oversized", "stream_foreign", "stream_outside",
      "dma_logging"};
  return kNames[static_cast<size_t>(event)];
}

std::span<const Row> fault_matrix() { return kMatrix; }

bool is_shown_with_qemu(Event event, State state) {
  return std::find(std::begin(kWithQemu), std::end(kWithQemu), std::pair{event, state}) != std::end(kWithQemu);
}

}  // namespace hookline::kernel_test
