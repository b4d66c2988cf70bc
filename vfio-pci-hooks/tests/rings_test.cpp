// SPDX-License-Identifier: Apache-2.0
//
// handlers/82576_rings.c against a naive model: a driver, a device that writes whenever it can, also in the middle of the
// log's reading, and registers that a guest may set to anything.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

extern "C" {
#include "82576_rings.h"
long shim_allocations = -1;
}

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint32_t kEnable = 1u << 25;

using PageSet = std::set<uint64_t>;

void add(PageSet& set, uint64_t iova, uint64_t length) {
  for (uint64_t page = iova / kPage; length && page <= (iova + length - 1) / kPage; ++page) set.insert(page);
}

void collect(void* context, uint64_t iova, uint64_t length) { add(*static_cast<PageSet*>(context), iova, length); }

/// Guest memory by 64-bit words; what was never written reads as zero.
class Guest {
 public:
  uint64_t get(uint64_t iova) const {
    const auto found = word_.find(iova);
    return found == word_.end() ? 0 : found->second;
  }
  void put(uint64_t iova, uint64_t value) { word_[iova] = value; }

 private:
  std::map<uint64_t, uint64_t> word_;
};

/// A RX queue with its driver, and a device that fills buffers and writes descriptors back.
class Ring {
 public:
  Ring(std::mt19937& random, Guest& guest, PageSet& written) : random_(random), guest_(guest), written_(written) {}

  /// Somewhere, but never where a ring has been: memory of a former ring may hold anything.
  void set_up_anywhere(uint32_t type) {
    static uint64_t next = 1;
    set_up(next++ % 512 * 0x200000 + random_() % 8 * 128, 8u << random_() % 6, type);
  }

  const queue& registers() const { return queue_; }
  bool enabled() const { return queue_enabled(&queue_); }

  void set_up(uint64_t base, uint32_t slots, uint32_t type) {
    queue_ = {};
    queue_.rx = true;
    slots_ = slots;
    base_ = base;
    type_ = type;
    put(QUEUE_BASE_LOW, static_cast<uint32_t>(base));
    put(QUEUE_BASE_HIGH, static_cast<uint32_t>(base >> 32));
    put(QUEUE_LENGTH, slots * 16);
    put(QUEUE_SRRCTL, type << 25 | 4u << 8 | 2u);
    head_ = tail_ = 0;
  }
  void put(unsigned at, uint32_t value) { queue_.reg[at / 4] = value; }

  /// Writes descriptors; the tail that announces them.
  uint32_t post(uint32_t number) {
    const uint32_t used = (tail_ + slots_ - head_) % slots_;
    uint32_t tail = tail_;
    for (number = std::min(number, slots_ - 1 - used); number; --number, tail = (tail + 1) % slots_) {
      guest_.put(base_ + tail * 16, place());
      guest_.put(base_ + tail * 16 + 8, type_ > 1 ? place() & ~1ull : 0);
    }
    return tail;
  }
  void doorbell(uint32_t tail) {
    tail_ = tail;
    put(QUEUE_TAIL, tail);
  }

  /// The device fills up to so many buffers.
  void run(uint32_t number) {
    for (; enabled() && number && head_ != tail_; --number) {
      const uint64_t at = base_ + head_ * 16;
      const uint64_t packet = guest_.get(at), header = guest_.get(at + 8);
      add(written_, packet & ~1ull, 2048);
      if (type_ > 1) add(written_, header, 256);
      // Hash, length and status, which are no addresses; DD, where the type has it.
      guest_.put(at, random_());
      guest_.put(at + 8, random_() | (type_ ? 1 : 1ull << 32));
      add(written_, at, 16);
      head_ = (head_ + 1) % slots_;
      put(QUEUE_HEAD, head_);
    }
  }

  void posted(PageSet& set) const {
    for (uint32_t i = head_; i != tail_; i = (i + 1) % slots_) {
      add(set, guest_.get(base_ + i * 16) & ~1ull, 2048);
      if (type_ > 1) add(set, guest_.get(base_ + i * 16 + 8), 256);
    }
    add(set, base_, slots_ * 16);
  }

 private:
  uint64_t place() { return 0x100000000ull + random_() % 3000 * 1024; }

  std::mt19937& random_;
  Guest& guest_;
  PageSet& written_;
  queue queue_ = {};
  uint64_t base_ = 0;
  uint32_t slots_ = 8, type_ = 1, head_ = 0, tail_ = 0;
};

struct Bench {
  explicit Bench(unsigned seed) : random(seed), ring{{random, guest, written}, {random, guest, written}} {
    memory.read = [](void* context, u64 iova, void* to, size_t length) {
      return static_cast<Bench*>(context)->read(iova, static_cast<uint8_t*>(to), length);
    };
    memory.context = this;
  }
  ~Bench() { pages_free(&pages); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  int read(uint64_t iova, uint8_t* to, size_t length) {
    ++reads;
    if (unreadable) return -EFAULT;
    for (size_t i = 0; i < length; i += 8) {
      // The device goes on in the middle of it, also between the halves of a descriptor.
      if (racing && random() % 4 == 0) ring[random() % 2].run(random() % 4);
      const uint64_t word = guest.get(iova + i);
      std::memcpy(to + i, &word, 8);
    }
    return 0;
  }
  void start() {
    const queue now[] = {ring[0].registers(), ring[1].registers()};
    ASSERT_EQ(rings_posted(&memory, &pages, now, 2, &unread), 0);
  }
  /// What is told counts from that moment on as not written.
  PageSet report(uint64_t iova = 0, uint64_t length = 1ull << 40) {
    told.clear();
    const queue now[] = {ring[0].registers(), ring[1].registers()};
    const auto tell = [](void* context, u64 at, u64 bytes) {
      Bench& b = *static_cast<Bench*>(context);
      PageSet pages;
      add(pages, at, bytes);
      for (const uint64_t page : pages) b.written.erase(page);
      b.told.merge(pages);
    };
    rings_report(&memory, &pages, now, 2, &unread, iova, length, tell, this);
    return told;
  }

  std::mt19937 random;
  Guest guest;
  PageSet written, told;
  Ring ring[2];
  queue_memory memory = {};
  struct pages pages = {};
  u32 unread = 0;
  bool racing = false, unreadable = false;
  unsigned reads = 0;
};

// Every page that was written before a report is in it or in one before it that came after the write; and nothing is in one
// that was neither written nor posted since the last one.
TEST(Rings, MP5_NoPageIsMissedWhateverTheDeviceDoesMeanwhile) {
  uint64_t reported_pages = 0, written_pages = 0;
  for (unsigned seed = 0; seed < 25; ++seed) {
    SCOPED_TRACE(seed);
    Bench b(seed);
    for (Ring& ring : b.ring) {
      ring.set_up_anywhere(b.random() % 3);
      ring.put(QUEUE_CONTROL, kEnable);
      ring.doorbell(ring.post(b.random() % 300));
    }
    b.racing = true;
    b.start();
    b.written.clear();  // what was written before START had returned
    for (int step = 0; step < 800; ++step) {
      Ring& ring = b.ring[b.random() % 2];
      const uint64_t what = b.random() % 100;
      if (what < 60) {
        const uint32_t tail = ring.post(b.random() % 40);
        ASSERT_EQ(rings_announced(&b.memory, &b.pages, &ring.registers(), tail), 0);
        ring.doorbell(tail);
      } else if (what < 90) {
        ring.run(b.random() % 60);
      } else if (what < 92) {  // the guest sets a queue up anew: disabled, another place and length, enabled
        ring.set_up_anywhere(b.random() % 3);
        ring.doorbell(ring.post(b.random() % 50));
        queue enabled = ring.registers();
        enabled.reg[QUEUE_CONTROL / 4] = kEnable;
        ASSERT_EQ(rings_posted(&b.memory, &b.pages, &enabled, 1, &b.unread), 0);
        ring.put(QUEUE_CONTROL, kEnable);
      } else {
        // In pieces, and the device writes on while they are asked for.
        const uint64_t whole = 1ull << 40, cut = (0x100000ull + b.random() % 500) * kPage;
        for (const auto& [iova, length] : {std::pair<uint64_t, uint64_t>{0, cut}, {cut, whole - cut}}) {
          const PageSet before = b.written;
          const PageSet reported = b.report(iova, length);
          for (const uint64_t page : before) {
            if (page * kPage < iova || page * kPage >= iova + length) continue;
            ASSERT_TRUE(reported.contains(page)) << std::hex << "page " << page << " at step " << step;
            ++written_pages;
          }
          for (const uint64_t page : reported) ASSERT_TRUE(page * kPage >= iova && page * kPage < iova + length);
          reported_pages += reported.size();
          ring.run(b.random() % 4);
        }
      }
    }
  }
  RecordProperty("over_report_percent", static_cast<int>(100 * (reported_pages - written_pages) / reported_pages));
}

TEST(Rings, MP5_NothingIsReportedThatNeitherWasNorIsPosted) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Bench b(seed);
    const PageSet unused = {0};  // what descriptors that nobody has written yet name
    PageSet allowed = unused;
    for (Ring& ring : b.ring) {
      ring.set_up_anywhere(1);
      ring.put(QUEUE_CONTROL, kEnable);
      ring.doorbell(ring.post(b.random() % 300));
      ring.posted(allowed);
    }
    b.start();
    for (int step = 0; step < 300; ++step) {
      Ring& ring = b.ring[b.random() % 2];
      if (b.random() % 10) {
        const uint32_t tail = ring.post(b.random() % 20);
        ASSERT_EQ(rings_announced(&b.memory, &b.pages, &ring.registers(), tail), 0);
        ring.doorbell(tail);
        ring.posted(allowed);
        ring.run(b.random() % 20);
      } else {
        for (const uint64_t page : b.report()) ASSERT_TRUE(allowed.contains(page)) << std::hex << page;
        allowed = unused;
        for (const Ring& each : b.ring) each.posted(allowed);
      }
    }
  }
}

TEST(Rings, MP5_WhatCannotBeReadForgetsNothing) {
  Bench b(1);
  b.ring[0].set_up(0x1000000, 64, 1);
  b.ring[0].put(QUEUE_CONTROL, kEnable);
  b.ring[0].doorbell(b.ring[0].post(50));
  b.start();
  b.ring[0].run(50);
  b.unreadable = true;
  const PageSet first = b.report();
  EXPECT_EQ(b.report(), first);
  const uint32_t tail = b.ring[0].post(10);
  EXPECT_EQ(rings_announced(&b.memory, &b.pages, &b.ring[0].registers(), tail), -EFAULT);
  // Registers that cannot be read are the same.
  PageSet reported;
  rings_report(&b.memory, &b.pages, nullptr, 0, &b.unread, 0, 1ull << 40, collect, &reported);
  EXPECT_EQ(reported, first);
  b.unreadable = false;
  EXPECT_EQ(b.report(), first);
  EXPECT_LT(b.report().size(), first.size());
}

TEST(Rings, MP5_ADisabledRingMayLieAnywhere) {
  Bench b(1);
  b.ring[0].set_up(0xdead0000000, 64, 1);
  b.unreadable = true;
  b.start();
  EXPECT_EQ(b.unread, 1u);
  b.ring[0].put(QUEUE_CONTROL, kEnable);
  EXPECT_EQ(rings_posted(&b.memory, &b.pages, &b.ring[0].registers(), 1, &b.unread), -EFAULT);
}

TEST(Rings, MP5_TxRingAndWriteBackOfItsHead) {
  queue tx = {};
  tx.reg[QUEUE_BASE_LOW / 4] = 0x12345080;
  tx.reg[QUEUE_BASE_HIGH / 4] = 1;
  tx.reg[QUEUE_LENGTH / 4] = 4096;
  tx.reg[QUEUE_BACK_LOW / 4] = 0x7fff0000 | 1;
  tx.reg[QUEUE_BACK_HIGH / 4] = 2;
  Bench b(1);
  const PageSet expected = {0x112345, 0x112346, 0x27fff0};
  for (int round = 0; round < 3; ++round) {
    PageSet reported;
    if (round == 0) {
      ASSERT_EQ(rings_posted(&b.memory, &b.pages, &tx, 1, &b.unread), 0);
    }
    rings_report(&b.memory, &b.pages, &tx, 1, &b.unread, 0, 1ull << 40, collect, &reported);
    EXPECT_EQ(reported, expected) << "it may be written again at any time";
  }
  EXPECT_EQ(b.reads, 0u);
}

TEST(Rings, MP5_RegistersOfAHostileGuest) {
  std::mt19937_64 random(7);
  const uint32_t odd[] = {0, 1, 15, 16, 127, 128, 0xffff, 0x10000, 0xfff80, 0x80000, ~0u, 1u << 31, kEnable};
  for (int round = 0; round < 300; ++round) {
    Bench b(static_cast<unsigned>(round));
    b.unreadable = random() % 4 == 0;
    queue q = {};
    q.rx = random() % 2;
    for (uint32_t& reg : q.reg) reg = random() % 2 ? odd[random() % std::size(odd)] : static_cast<uint32_t>(random());
    uint8_t data[8];
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    queue_write(&q, static_cast<unsigned>(random() % QUEUE_SIZE), data, 1u << random() % 4);
    const int posted = rings_posted(&b.memory, &b.pages, &q, 1, &b.unread);
    EXPECT_TRUE(posted == 0 || posted == -EFAULT);
    rings_announced(&b.memory, &b.pages, &q, static_cast<uint32_t>(random()));
    PageSet reported;
    rings_report(&b.memory, &b.pages, &q, 1, &b.unread, random() & ~4095ull, 1 << 20, collect, &reported);
    EXPECT_LE(b.reads, 3u * (QUEUE_MAX_SLOTS / QUEUE_READ_SLOTS + 2));
    EXPECT_LE(b.pages.nr, static_cast<unsigned>(RINGS_MAX_CHUNKS));
  }
}

TEST(Rings, MP5_AHeadOutsideItsRingMakesAllDirty) {
  Bench b(1);
  b.ring[0].set_up(0x1000000, 8, 1);
  b.ring[0].put(QUEUE_HEAD, 8);
  b.start();
  EXPECT_FALSE(b.pages.all) << "disabled";
  b.ring[0].put(QUEUE_CONTROL, kEnable);
  b.start();
  EXPECT_TRUE(b.pages.all);
}

TEST(Pages, MP5_AsASetOfPages) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    std::mt19937_64 random(seed);
    struct pages pages = {};
    PageSet model;
    const auto place = [&] { return (random() % 3 == 0 ? ~uint64_t{0} - 0x4000000 : random() % 4 * 0x1000000) + random() % 0x3000000; };
    for (int step = 0; step < 250; ++step) {
      const uint64_t iova = place(), length = random() % (random() % 8 ? 0x10000 : 0x200000);
      const uint64_t kept = length && iova + length - 1 < iova ? ~iova + 1 : length;
      switch (random() % 4) {
        case 0:
        case 1:
          pages_add(&pages, iova, length);
          add(model, iova, kept);
          break;
        case 2: {
          PageSet reported, expected;
          pages_report(&pages, iova, kept, collect, &reported);
          if (kept)
            for (uint64_t page : model)
              if (page >= iova / kPage && page <= (iova + kept - 1) / kPage) expected.insert(page);
          ASSERT_EQ(reported, expected);
          break;
        }
        default:
          pages_clear(&pages, iova, kept);
          std::erase_if(model, [&](uint64_t page) {
            return kept && page * kPage >= iova && page * kPage + (kPage - 1) - iova <= kept - 1;
          });
      }
    }
    struct pages other = {};
    pages_add(&other, 0x5000, 1);
    pages_add(&other, 0x123456789000, 1);
    model.insert({0x5, 0x123456789});
    pages_move(&pages, &other);
    EXPECT_EQ(other.nr, 0u);
    PageSet all;
    pages_report(&pages, 0, ~uint64_t{0}, collect, &all);
    EXPECT_EQ(all, model);
    pages_free(&pages);
  }
}

TEST(Pages, MP5_WithoutMemoryEverythingIsDirty) {
  for (const long successes : {0, 1, 2, 9}) {
    struct pages pages = {};
    shim_allocations = successes;
    for (uint64_t i = 0; i < 40; ++i) pages_add(&pages, i << 24, 1);
    shim_allocations = -1;
    EXPECT_TRUE(pages.all);
    PageSet reported;
    pages_report(&pages, 0x7000, 2 * kPage, collect, &reported);
    EXPECT_EQ(reported, (PageSet{7, 8}));
    pages_clear(&pages, 0, ~uint64_t{0});
    EXPECT_TRUE(pages.all) << "until it is freed";
    pages_free(&pages);
    EXPECT_FALSE(pages.all);
  }
}

TEST(Pages, MP5_MemoryIsBounded) {
  struct pages pages = {};
  for (uint64_t i = 0; i < RINGS_MAX_CHUNKS; ++i) pages_add(&pages, i << 24, 1);
  EXPECT_FALSE(pages.all);
  EXPECT_EQ(pages.nr, static_cast<unsigned>(RINGS_MAX_CHUNKS));
  pages_add(&pages, uint64_t{RINGS_MAX_CHUNKS} << 24, 1);
  EXPECT_TRUE(pages.all);
  EXPECT_EQ(pages.nr, 0u);
  pages_free(&pages);
}

}  // namespace
