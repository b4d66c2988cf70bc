// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "channel_moves.hpp"

namespace hookline::fuzz {
namespace {

constexpr uint64_t at(uint32_t region, uint64_t offset) {
  return uint64_t{region} << 40 | offset;
}
constexpr size_t kGuestBytes = 1 << 20;

struct Vmm {
  std::string address;
  int container = -1, group = -1;
  std::atomic<int> device{-1};
  std::array<std::atomic<int>, 4> data{-1, -1, -1, -1};
  void* guest = nullptr;
  uint64_t express = 0;  ///< PCI Express capability in config space
  std::atomic<bool> stop{false};
  std::atomic<bool> hush{false};
  std::atomic<bool> moves_slices{false};  ///< a thread is at it, and others let it, mostly
};

/// Whether a move that would end it is not made.
bool lets_move(Actor& a, const Vmm& v) {
  return v.moves_slices && !a.random.one_in(64);
}

int open_group(const std::string& address) {
  char link[256];
  const std::string path = "/sys/bus/pci/devices/" + address + "/iommu_group";
  const ssize_t n = readlink(path.c_str(), link, sizeof link - 1);
  if (n < 0) return -1;
  link[n] = 0;
  return ::open((std::string("/dev/vfio/") + (strrchr(link, '/') + 1)).c_str(), O_RDWR | O_CLOEXEC);
}

bool open_device(Vmm& v) {
  const int fd = ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD, v.address.c_str());
  if (fd < 0) return false;
  const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
  (void)!pwrite(fd, &command, sizeof command, static_cast<off_t>(at(7, PCI_COMMAND)));
  uint8_t capability = 0;
  (void)!pread(fd, &capability, 1, static_cast<off_t>(at(7, PCI_CAPABILITY_LIST)));
  for (int i = 0; capability != 0 && i < 48; ++i) {
    uint8_t header[2] = {};
    (void)!pread(fd, header, 2, static_cast<off_t>(at(7, capability)));
    if (header[0] == PCI_CAP_ID_EXP) v.express = capability;
    capability = header[1];
  }
  const int former = v.device.exchange(fd);
  if (former >= 0) ::close(former);
  return true;
}

// ---- regions

int read_region(Actor& a, Vmm& v) {
  const uint32_t region = a.random.of({0u, 0u, 0u, 0u, 3u, 7u, 7u, 8u});
  const size_t length = a.random.one_in(3) ? 1 + a.random.below(5000) : a.random.of({1u, 2u, 4u, 8u});
  uint64_t offset = a.random.one_in(2) ? 0x800 + a.random.below(72) : a.random.below(16384);
  if (a.random.one_in(32)) offset = a.random.odd();
  return pread(v.device, a.buffer(length), length, static_cast<off_t>(at(region, offset))) < 0 ? errno : 0;
}

int write_region(Actor& a, Vmm& v) {
  // Mailbox memory: it holds what is written, and does nothing.
  const uint64_t offset = 0x800 + a.random.below(60);
  const size_t length = 1 + a.random.below(0x840 - offset);
  return pwrite(v.device, a.buffer(length), length, static_cast<off_t>(at(0, offset))) < 0 ? errno : 0;
}

int write_config(Actor& a, Vmm& v) {
  static constexpr uint64_t kPlaces[] = {PCI_COMMAND,         PCI_COMMAND,        PCI_STATUS,
                                         PCI_CACHE_LINE_SIZE, PCI_BASE_ADDRESS_0, PCI_INTERRUPT_LINE,
                                         PCI_ROM_ADDRESS};
  const uint32_t value =
      a.random.one_in(2) ? static_cast<uint32_t>(a.random.below(8)) : static_cast<uint32_t>(a.random.odd());
  return pwrite(v.device, &value, a.random.of({1u, 2u, 4u}),
                static_cast<off_t>(at(7, a.random.of(kPlaces)))) < 0
             ? errno
             : 0;
}

int reset_by_config(Actor& a, Vmm& v) {
  const uint16_t value = PCI_EXP_DEVCTL_BCR_FLR;
  if (lets_move(a, v)) return EBUSY;
  if (v.express == 0) return ENOTTY;
  return pwrite(v.device, &value, 2, static_cast<off_t>(at(7, v.express + PCI_EXP_DEVCTL))) < 0 ? errno : 0;
}

int map_bar(Actor& a, Vmm& v) {
  const size_t bytes = 4096 * (1 + a.random.below(4));
  void* place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v.device,
                     static_cast<off_t>(at(a.random.of({0u, 0u, 3u, 1u}), 4096 * a.random.below(5))));
  if (place == MAP_FAILED) return errno;
  volatile uint32_t* words = static_cast<uint32_t*>(place);
  for (int i = 0; i < 8; ++i) (void)words[a.random.below(bytes / 4)];
  if (a.random.one_in(3)) std::swap(a.other, place);
  if (place) munmap(place, 4096);
  return 0;
}

// ---- ioctls

int get_info(Actor& a, Vmm& v) {
  vfio_device_info info{};
  info.argsz = sizeof info;
  return a.call(v.device, VFIO_DEVICE_GET_INFO, info);
}

int region_info(Actor& a, Vmm& v) {
  struct {
    vfio_region_info info;
    uint8_t capabilities[256];
  } arg{};
  arg.info.argsz = a.random.one_in(2) ? sizeof arg : sizeof arg.info;
  arg.info.index = static_cast<uint32_t>(a.random.below(10));
  return a.call(v.device, VFIO_DEVICE_GET_REGION_INFO, arg);
}

int irq_info(Actor& a, Vmm& v) {
  vfio_irq_info info{};
  info.argsz = sizeof info;
  info.index = static_cast<uint32_t>(a.random.below(6));
  return a.call(v.device, VFIO_DEVICE_GET_IRQ_INFO, info);
}

int set_irqs(Actor& a, Vmm& v) {
  struct {  // vfio_irq_set, and the data behind it
    uint32_t argsz, flags, index, start, count;
    int32_t event[3];
  } arg{};
  const int event = eventfd(0, EFD_CLOEXEC);
  arg.argsz = sizeof arg;
  arg.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  arg.index = VFIO_PCI_MSIX_IRQ_INDEX;
  arg.count = static_cast<uint32_t>(a.random.below(4));
  if (arg.count == 0) arg.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
  std::fill(std::begin(arg.event), std::end(arg.event), event);
  const int result = a.call(v.device, VFIO_DEVICE_SET_IRQS, arg);
  ::close(event);
  return result;
}

int ioeventfd(Actor& a, Vmm& v) {
  vfio_device_ioeventfd arg{};
  const int event = eventfd(0, EFD_CLOEXEC);
  arg.argsz = sizeof arg;
  arg.flags = VFIO_DEVICE_IOEVENTFD_32;
  arg.offset = at(0, 0x800 + 4 * a.random.below(16));
  arg.fd = a.random.one_in(2) ? event : -1;
  const int result = ioctl(v.device, VFIO_DEVICE_IOEVENTFD, &arg) < 0 ? errno : 0;
  ::close(event);
  return result;
}

int reset(Actor& a, Vmm& v) {
  if (lets_move(a, v)) return EBUSY;
  return ioctl(v.device, VFIO_DEVICE_RESET) < 0 ? errno : 0;
}

int hot_reset(Actor& a, Vmm& v) {
  vfio_pci_hot_reset_info info{};
  info.argsz = sizeof info;
  return a.call(v.device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info);
}

int wrong_call(Actor& a, Vmm& v) {
  std::array<uint32_t, 64> argument{};
  argument[0] = static_cast<uint32_t>(a.random.odd());
  const int data = v.data[a.random.below(4)];
  const int fd = a.random.one_in(3) ? data : v.device.load();
  return a.call(fd, _IOC(a.random.below(4), VFIO_TYPE, 100 + a.random.below(40), a.random.below(300)),
                argument);
}

/// vfio_device_feature, and the data behind it.
template <typename Payload>
struct Feature {
  uint32_t argsz, flags;
  Payload payload;
};

template <typename Payload>
int feature(Actor& a, Vmm& v, uint32_t flags, Feature<Payload>& arg) {
  arg.argsz = sizeof arg;
  arg.flags = flags;
  return a.call(v.device, VFIO_DEVICE_FEATURE, arg);
}

int any_feature(Actor& a, Vmm& v) {
  Feature<std::array<uint8_t, 64>> arg{};
  return feature(
      a, v, static_cast<uint32_t>(a.random.below(16)) | static_cast<uint32_t>(1 + a.random.below(7)) << 16,
      arg);
}

// ---- migration

/// With its data file, if it opens one, in `opened`, or in one of the slots; the files of before stay open there for a while.
int set_state(Actor& a, Vmm& v, uint32_t state, bool bend, int* opened = nullptr) {
  Feature<vfio_device_feature_mig_state> arg{};
  arg.payload = {state, -1};
  arg.argsz = sizeof arg;
  arg.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
  const int result = bend ? a.call(v.device, VFIO_DEVICE_FEATURE, arg)
                     : ioctl(v.device, VFIO_DEVICE_FEATURE, &arg) < 0 ? errno
                                                                      : 0;
  if (result == 0 && arg.payload.data_fd > 2 && opened) {
    *opened = arg.payload.data_fd;
  } else if (result == 0 && arg.payload.data_fd > 2) {
    const int former = v.data[a.random.below(4)].exchange(arg.payload.data_fd);
    if (former >= 0) ::close(former);
  }
  return result;
}

int any_state(Actor& a, Vmm& v) {
  if (lets_move(a, v)) return EBUSY;
  const int result = set_state(a, v, static_cast<uint32_t>(a.random.below(9)), true);
  // Only a reset leads out of ERROR.
  if (result == EIO && a.random.one_in(4)) ioctl(v.device, VFIO_DEVICE_RESET);
  return result;
}

int get_state(Actor& a, Vmm& v) {
  Feature<vfio_device_feature_mig_state> arg{};
  return feature(a, v, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, arg);
}

int data_size(Actor& a, Vmm& v) {
  Feature<vfio_device_feature_mig_data_size> arg{};
  return feature(a, v, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, arg);
}

/// What read() or write() of a data file has answered: never more than it was asked for.
ssize_t moved(Actor& a, ssize_t answer, size_t asked) {
  if (answer > static_cast<ssize_t>(asked))
    violation(a.board(), "%zd bytes of a data file moved, %zu were asked for", answer, asked);
  return answer;
}

int read_data(Actor& a, Vmm& v) {
  const size_t length = a.random.one_in(3) ? 32768 : 1 + a.random.below(4096);
  void* place = a.buffer(length);
  const ssize_t got = moved(a, read(v.data[a.random.below(4)], place, length), length);
  if (got > 0) a.board().saved_bytes += static_cast<uint64_t>(got);
  return got < 0 ? errno : 0;
}

int write_data(Actor& a, Vmm& v) {
  const size_t length = a.random.one_in(3) ? 32768 : 1 + a.random.below(4096);
  const ssize_t done = moved(a, write(v.data[a.random.below(4)], a.buffer(length), length), length);
  if (done > 0) ++a.board().loads;
  return done < 0 ? errno : 0;
}

/// More than the slices hold, good up to some page.
int move_slices(Actor& a, Vmm& v) {
  constexpr size_t kBytes = VFIO_PCI_HOOKS_STREAM_SIZE + VFIO_PCI_HOOKS_STREAM_SLICE;
  void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return errno;
  if (a.random.one_in(3))
    mprotect(static_cast<uint8_t*>(at) + 4096 * a.random.below(kBytes / 4096), 4096, PROT_NONE);
  const int fd = v.data[a.random.below(4)];
  const ssize_t read_bytes = moved(a, read(fd, at, kBytes), kBytes);
  const ssize_t written = read_bytes < 0 ? moved(a, write(fd, at, kBytes), kBytes) : 0;
  const int result = read_bytes < 0 && written < 0 ? errno : 0;
  if (read_bytes > 0) a.board().saved_bytes += static_cast<uint64_t>(read_bytes);
  if (written > 0) ++a.board().loads;
  munmap(at, kBytes);
  return result;
}

int precopy_info(Actor& a, Vmm& v) {
  vfio_precopy_info info{};
  info.argsz = sizeof info;
  return a.call(v.data[a.random.below(4)], VFIO_MIG_GET_PRECOPY_INFO, info);
}

int odd_data(Actor& a, Vmm& v) {
  const int fd = v.data[a.random.below(4)];
  switch (a.random.below(7)) {
    case 6:
      return fcntl(fd, F_SETFL, a.random.one_in(3) ? 0 : O_NONBLOCK) < 0 ? errno : 0;
    case 0:
      return pread(fd, a.buffer(64), 64, static_cast<off_t>(a.random.odd())) < 0 ? errno : 0;
    case 1:
      return pwrite(fd, a.buffer(64), 64, 0) < 0 ? errno : 0;
    case 2:
      return lseek(fd, 1, SEEK_CUR) < 0 ? errno : 0;
    case 3:
      return mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0;
    case 4: {
      pollfd one{fd, POLLIN | POLLOUT, 0};
      return poll(&one, 1, 1) < 0 ? errno : 0;
    }
    default:
      return read(fd, a.buffer(1), 0) < 0 ? errno : 0;
  }
}

int close_data(Actor& a, Vmm& v) {
  const int fd = v.data[a.random.below(4)].exchange(-1);
  return fd < 0 ? EBADF : ::close(fd) < 0 ? errno : 0;
}

/// As a VMM does it: out of RUNNING to the end of the stream and back, or a stream loaded.
int migrate(Actor& a, Vmm& v) {
  if (lets_move(a, v)) return EBUSY;
  // Afterwards nothing is missed, and no state is in the way.
  if (a.random.one_in(2)) ioctl(v.device, VFIO_DEVICE_RESET);
  if (a.random.one_in(2)) set_state(a, v, VFIO_DEVICE_STATE_PRE_COPY, false);
  const bool loads = a.random.one_in(2);
  if (const int result =
          set_state(a, v, loads ? VFIO_DEVICE_STATE_RESUMING : VFIO_DEVICE_STATE_STOP_COPY, false))
    return result;
  std::array<uint8_t, 16384> piece{};
  for (int i = 0; i < 100; ++i)
    for (const auto& data : v.data) {
      const ssize_t n = moved(
          a, loads ? write(data, piece.data(), piece.size()) : read(data, piece.data(), piece.size()), piece.size());
      if (n > 0 && loads) ++a.board().loads;
      if (n > 0 && !loads) a.board().saved_bytes += static_cast<uint64_t>(n);
      if (n == 0) i = 100;
    }
  return set_state(a, v, VFIO_DEVICE_STATE_RUNNING, false);
}

/// The same with a stream of several slices, each call as large as what is left.
int migrate_slices(Actor& a, Vmm& v) {
  if (v.moves_slices.exchange(true)) return EBUSY;
  const bool loads = a.random.one_in(2);
  int fd = -1;
  ioctl(v.device, VFIO_DEVICE_RESET);
  const int result = set_state(a, v, loads ? VFIO_DEVICE_STATE_RESUMING : VFIO_DEVICE_STATE_STOP_COPY, false, &fd);
  const size_t size = VFIO_PCI_HOOKS_STREAM_SLICE + 1 + a.random.below(2 * VFIO_PCI_HOOKS_STREAM_SLICE);
  std::vector<uint8_t> bytes(fd < 0 ? 0 : size);
  size_t done = 0;
  for (ssize_t n = 1; fd >= 0 && n > 0;) {
    do {
      n = loads ? moved(a, write(fd, bytes.data() + done, size - done), size - done) : moved(a, read(fd, bytes.data(), size), size);
    } while (n < 0 && errno == EINTR);
    if (n > 0) done += static_cast<size_t>(n);
    if (loads && done == size) {
      ++a.board().long_loads;
      break;
    }
    if (!loads && n == 0 && done > VFIO_PCI_HOOKS_STREAM_SLICE) ++a.board().long_saves;
  }
  if (fd >= 0) {
    set_state(a, v, VFIO_DEVICE_STATE_RUNNING, false);
    ::close(fd);
  }
  v.moves_slices = false;
  return result;
}

// ---- memory and life

int map_dma(Actor& a, Vmm& v) {
  vfio_iommu_type1_dma_map map{};
  map = {sizeof map, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, reinterpret_cast<uintptr_t>(v.guest),
         a.random.below(4) << 18, kGuestBytes >> a.random.below(3)};
  return ioctl(v.container, VFIO_IOMMU_MAP_DMA, &map) < 0 ? errno : 0;
}

int unmap_dma(Actor& a, Vmm& v) {
  vfio_iommu_type1_dma_unmap unmap{};
  unmap = {sizeof unmap, 0, a.random.below(4) << 18, kGuestBytes};
  return ioctl(v.container, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0 ? errno : 0;
}

int drop_pages(Actor&, Vmm& v) {
  return madvise(v.guest, kGuestBytes, MADV_DONTNEED) < 0 ? errno : 0;
}

int reopen(Actor& a, Vmm& v) {
  if (lets_move(a, v)) return EBUSY;
  const int fd = v.device.exchange(-1);
  if (fd >= 0) ::close(fd);
  if (a.random.one_in(4)) std::this_thread::sleep_for(std::chrono::milliseconds(a.random.below(20)));
  return open_device(v) ? 0 : EBUSY;
}

/// Only one that finds its processor free stays awake for the answer of a worker that watches.
int access_in_a_row(Actor& a, Vmm& v) {
  if (v.hush.exchange(true)) return EAGAIN;
  const auto offset = static_cast<off_t>(at(0, a.random.one_in(4) ? 0x800 + 4 * a.random.below(18) : 0x808));
  const uint64_t end = now_ms() + 1000;
  uint32_t value = 0;
  ssize_t got = sizeof value;
  for (uint64_t left = 1 + a.random.below(32); left > 0 && got == sizeof value && now_ms() < end; --left)
    got = a.random.one_in(2) ? pread(v.device, &value, sizeof value, offset) : pwrite(v.device, &value, sizeof value, offset);
  v.hush = false;
  return got < 0 ? errno : 0;
}

constexpr Move<Vmm> kMoves[] = {
    {10, "vmm: accesses in a row", access_in_a_row},
    {60, "vmm: read of a region", read_region},
    {40, "vmm: write of a region", write_region},
    {6, "vmm: write of config space", write_config},
    {1, "vmm: FLR by config space", reset_by_config},
    {10, "vmm: mmap of a BAR", map_bar},
    {6, "vmm: GET_INFO", get_info},
    {6, "vmm: GET_REGION_INFO", region_info},
    {6, "vmm: GET_IRQ_INFO", irq_info},
    {4, "vmm: SET_IRQS", set_irqs},
    {4, "vmm: IOEVENTFD", ioeventfd},
    {2, "vmm: RESET", reset},
    {2, "vmm: hot reset info", hot_reset},
    {8, "vmm: unknown ioctl", wrong_call},
    {10, "vmm: any feature", any_feature},
    {20, "vmm: set state", any_state},
    {6, "vmm: get state", get_state},
    {6, "vmm: MIG_DATA_SIZE", data_size},
    {30, "vmm: read of a data file", read_data},
    {20, "vmm: write of a data file", write_data},
    {3, "vmm: slices of a data file", move_slices},
    {8, "vmm: PRECOPY_INFO", precopy_info},
    {8, "vmm: data file as it is not meant", odd_data},
    {3, "vmm: close a data file", close_data},
    {6, "vmm: migrate", migrate},
    {8, "vmm: migrate slices", migrate_slices},
    {3, "vmm: MAP_DMA", map_dma},
    {3, "vmm: UNMAP_DMA", unmap_dma},
    {2, "vmm: drop guest pages", drop_pages},
    {1, "vmm: close and open", reopen},
};
constexpr size_t kTable = 0;

}  // namespace

void run_vmm(const std::string& address, uint64_t seed, Board& board, size_t first_thread) {
  survive_lost_pages(board);
  interruptible();
  Arena arena;
  Vmm v;
  v.address = address;
  v.guest = mmap(nullptr, kGuestBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  // The one before may still be on its way out.
  for (int tries = 0; v.device < 0 && tries < 400; ++tries) {
    v.container = ::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    v.group = open_group(address);
    if (v.group >= 0 && ioctl(v.group, VFIO_GROUP_SET_CONTAINER, &v.container) == 0 &&
        ioctl(v.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0 && open_device(v))
      break;
    if (v.group >= 0) ::close(v.group);
    ::close(v.container);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (v.device < 0) _exit(1);

  std::vector<std::thread> threads;
  const auto actor = [&](size_t i) {
    Board::Thread& me = board.threads[first_thread + i];
    me.pid = getpid(), me.tid = gettid(), me.since_ms = 0;
    return Actor(seed * 37 + i, arena, board, me);
  };
  for (size_t i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      Actor a = actor(i);
      play(a, v, kMoves, kTable, v.stop);
    });
  Actor scribbler = actor(3);
  for (;;) {
    arena.scribble(scribbler.random);
    if (scribbler.random.one_in(8))
      pthread_kill(threads[scribbler.random.below(threads.size())].native_handle(), kInterrupt);
    std::this_thread::sleep_for(std::chrono::microseconds(100 + scribbler.random.below(1000)));
  }
}

}  // namespace hookline::fuzz
