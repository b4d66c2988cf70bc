// SPDX-License-Identifier: Apache-2.0
//
// The uAPI of vfio-pci-hooks as kernel tests use it: definitions, and a worker process whose behaviour the test steers. It
// stands on linux/vfio_pci_hooks.h alone, so that what is tested is the module and not the library over it.
//
// Thread rule: one thread. Errors: calls return 0 or a positive errno; what must not fail in a test throws.
#pragma once

#include <linux/vfio_pci_hooks.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace hookline::kernel_test {

vfio_pci_hooks_address parse_address(const std::string& address);

struct Definition {
  std::string address;
  uint32_t flags = 0;  ///< VFIO_PCI_HOOKS_DEFINE_*
  uint16_t vendor = 0x8086, device = 0x10ca;
  uint32_t guest_memory = VFIO_PCI_HOOKS_MEMORY_NONE;
  uint32_t access_limit_ms = 800, state_limit_ms = 800;  ///< times slowness(), where that is still allowed
  uint32_t shadow_size = 4096;
  uint64_t max_state = 16 << 20;
  uint32_t ioctls = 0, device_features = 0;  ///< that the worker wants
  std::vector<std::string> handlers = {VFIO_PCI_HOOKS_CHANNEL_NAME};  ///< one that is too long loses its terminating NUL
  std::vector<vfio_pci_hooks_range> ranges = {};
  std::vector<vfio_pci_hooks_step> stop = {}, start = {}, reset = {};
  std::string model = {};  ///< empty: none, and no files
  std::vector<vfio_pci_hooks_parameter> parameters = {};
};

/// All three values are `value`; a text that is too long loses its terminating NUL.
vfio_pci_hooks_parameter parameter(const std::string& name, const std::string& value, const std::string& allowed,
                                   uint32_t flags = 0);

class Control {
 public:
  Control();
  ~Control();
  int define(const Definition& definition) const;
  int undefine(const std::string& address) const;
  /// The channel's descriptor, or a negative errno.
  int attach(const std::string& address) const;
  /// Throws without a definition and without a driver.
  vfio_pci_hooks_status status(const std::string& address) const;
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// Bytes of the worker's state that it gives in PRE_COPY, if the test does not say otherwise.
inline constexpr uint32_t kPreCopyBytes = 16;

/// How a worker answers a request.
enum class Lie : uint32_t {
  none,
  slot,    ///< another slot than the one it was asked in; then never
  length,  ///< more than was asked for, or than the buffer holds; then never
  twice,   ///< right, and once more
};

/// How a worker answers a query.
enum class QueryLie : uint32_t {
  none,
  silence,    ///< never; it takes the next one when its time is over
  nonsense,   ///< text that is none; then never
  length,     ///< longer than a page; then never
  stranger,   ///< another id; then never
  errno_,     ///< an errno that is none; then never
  death,      ///< it ends
};

/// What test and worker process tell each other.
struct Board {
  // Set by the test.
  std::atomic<int32_t> read_answer{VFIO_PCI_HOOKS_HANDLED};  ///< HANDLED, PASS or -errno
  std::atomic<int32_t> write_answer{VFIO_PCI_HOOKS_PASS};
  std::atomic<uint64_t> read_value{0x600d600d600d600d};
  std::atomic<uint32_t> state_bytes{100000}, pre_copy_bytes{kPreCopyBytes};
  std::atomic<uint32_t> save_at_once{VFIO_PCI_HOOKS_STREAM_SIZE};  ///< bytes of one answer at most
  std::atomic<uint64_t> save_fails_at{~uint64_t{0}};  ///< byte of the state in whose place comes save_error
  std::atomic<bool> pre_copy_goes_on{false};          ///< no answer ends PRE_COPY: nothing more is nothing now
  std::atomic<uint64_t> saves_allowed{~uint64_t{0}}, loads_allowed{~uint64_t{0}};  ///< the next one is answered when there are more
  std::atomic<uint64_t> record{0};  ///< not 0: so many bytes of the state belong together, and only the last of them is judged
  std::atomic<bool> endless{false};                   ///< each answer to a request to load promises more than there can be
  std::atomic<Lie> lie{Lie::none};
  std::atomic<uint64_t> initial_bytes{0};  ///< that are left, says each answer to a request to save
  std::atomic<int32_t> save_error{0}, load_error{0};  ///< -errno; of saving: at once, or where save_fails_at says
  std::atomic<uint32_t> die_at{0}, hang_at{0};         ///< VFIO_PCI_HOOKS_REQ_*; a hanging worker stops itself
  std::atomic<uint64_t> probe_iova{0};                 ///< not 0: each trapped read first tries guest memory there
  std::atomic<QueryLie> query_lie{QueryLie::none};
  std::atomic<int32_t> query_answer{0};  ///< to what is written: 0 or -errno
  std::array<char, VFIO_PCI_HOOKS_VERSION_LEN> version{"model=test"};  ///< what is read; set while nobody asks
  std::array<char, 256> reason{"because of the test"};
  // Counted and seen by the worker.
  std::atomic<uint64_t> queries{0}, refused_queries{0};
  std::array<char, VFIO_PCI_HOOKS_VERSION_LEN> asked{};  ///< text of the last query
  std::atomic<uint64_t> reads{0}, writes{0}, saves{0}, loads{0}, sessions{0}, resets{0};
  std::atomic<uint64_t> last_offset{0}, last_value{0};
  std::atomic<uint32_t> last_length{0};
  std::array<std::atomic<uint32_t>, 64> save_phases{};  ///< of the requests to save, VFIO_PCI_HOOKS_PHASE_*
  std::atomic<uint64_t> loaded_bytes{0};
  std::atomic<bool> load_matches{false};
  std::atomic<bool> dirty_bytes_stood{false};  ///< in a slot that was given, from an answer before
  std::atomic<int32_t> iova_read{0}, iova_write{0};  ///< errno
  std::atomic<uint64_t> iova_value{0};
  std::atomic<bool> pages_were_zero{true};    ///< slots, shadow and stream when the last session began
  std::atomic<bool> session_was_again{false};
  std::atomic<uint32_t> shadow_word{0};       ///< first of the shadow when the last session began
  std::atomic<int32_t> old_session_rw{0};     ///< errno of a register access through the session before
  std::atomic<uint32_t> refused_answers{0};   ///< of the lies
  std::atomic<uint32_t> late_answers{0};      ///< to requests that were cancelled meanwhile
  std::atomic<int32_t> late_rw{0}, late_next{0};  ///< errno of a register access and of an answer after having hung
  std::atomic<uint32_t> nr_states{0};
  std::array<std::atomic<uint32_t>, 64> states{};  ///< where each EVENT_STATE went to
};

/// NEXT_QUERY as it is. answered, answer and text: of the query before.
struct Query {
  uint64_t id = 0;
  uint32_t what = 0;
  std::string text;
};
int next_query(int channel, Query& out, int timeout_ms, uint64_t answered = 0, int32_t answer = 0, const std::string& text = {});
/// GET_PARAMETERS and SET_PARAMETERS of a channel or session.
int get_parameters(int fd, std::vector<std::string>& values);
int set_parameters(int session, const std::vector<std::string>& values);

/// The status of a child that has given up all rights, before it runs `ask`.
int without_rights(const std::function<int()>& ask);

/// A process that attaches and serves open after open, and queries on a thread of its own. It answers reads as the board says, keeps the last written value in
/// the first word of its shadow, and as its state gives a pattern of state_bytes bytes that it checks when it loads.
class Worker {
 public:
  /// What the process does once it is attached, in place of all that.
  using Serve = std::function<void(int channel, Board& board)>;

  /// Returns when the worker is attached. `board` must be shared_board()'s.
  Worker(const std::string& address, Board& board, const Serve& serve = {});
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void signal(int number);
  /// SIGKILL, and waits until the process is gone.
  void kill();
  bool is_stopped() const;
  /// Waits until it has ended by itself: the signal, 0 for an exit, -1 if it goes on.
  int ended_by();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

struct UnmapBoard {
  void operator()(Board* board) const;
};
using SharedBoard = std::unique_ptr<Board, UnmapBoard>;
SharedBoard shared_board();

/// The byte at this position of the worker's state.
uint8_t pattern(uint64_t position);

}  // namespace hookline::kernel_test
