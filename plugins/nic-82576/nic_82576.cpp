// SPDX-License-Identifier: Apache-2.0
//
// Moves an Intel 82576 virtual function. README.md says what is carried, what cannot be, and why each step is
// as it is.
//
// Rings, doorbells and the interrupt mask stay mapped in the guest. Page 0 is trapped, because what a VF
// tells its PF there through the mailbox (address, VLANs, multicast, frame size) can be read back from
// nowhere.
#include <algorithm>
#include <vector>

#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

constexpr uint32_t kCtrl = 0x0, kCtrlReset = 1u << 26, kStatus = 0x8, kMemory = 0x800, kMailbox = 0xc40;
constexpr uint32_t kReq = 0x1, kAck = 0x2, kVfu = 0x4, kPfSts = 0x10, kPfAck = 0x20, kPfReset = 0x40;
constexpr uint32_t kReadToClear = 0xb0;  // PFSTS, PFACK, RSTD
constexpr uint32_t kCounters[] = {0xf10, 0xf14, 0xf18, 0xf34, 0xf3c, 0xf40, 0xf44, 0xf48, 0xf50};
constexpr uint32_t kEics = 0x1520, kEims = 0x1524, kEimc = 0x1528, kEicr = 0x1580, kVtivar = 0x1700;
constexpr uint32_t kAllVectors = 7, kEnable = 1u << 25, kNone = ~0u, kRunning = 2;
// A TX descriptor that is a context and wants no report.
constexpr uint32_t kContext = 0x20200000, kContextMask = 0x28300000;

constexpr uint32_t kMsgReset = 1, kMsgMac = 2, kMsgMulticast = 3, kMsgVlan = 4, kMsgLast = 6;
constexpr uint32_t kAnswerAck = 1u << 31, kAnswer = 3u << 30, kInfoClear = 1, kInfoAdd = 2;
struct Message {
  std::array<uint32_t, 16> word;
  uint32_t type() const { return word[0] & 0xffff; }
  uint32_t info() const { return word[0] >> 16 & 0xff; }
  uint64_t mac() const { return uint64_t{word[2] & 0xffff} << 32 | word[1]; }
  bool is_own_mac() const { return type() == kMsgMac && info() == 0; }
  bool answered_by(uint32_t w) const { return (w & kAnswer) && (w & 0xffff) == type(); }
  std::string text() const { return Check::hex(word[0]) + " " + Check::hex(word[1]); }
  /// A message about the same thing replaces an earlier one.
  uint64_t thing() const { return which() << 16 | type(); }
  uint64_t which() const { return type() == kMsgVlan ? word[1] : type() == kMsgMac && info() ? mac() : 0; }
};

// Registers that are carried. `known` are the bits that mean something: others are not saved, and refused in
// a stream.
struct Register {
  const char* name;
  uint32_t offset, known;
};
enum : uint32_t { kBaseLow, kBaseHigh, kLength, kControl, kSpecial, kHead, kTail, kPerRing };
constexpr uint32_t kFirstTx = 2, kRings = 4, kVtivarAt = kRings * kPerRing, kDctl = 0xb1f1f1f;
// clang-format off
constexpr Register kRegisters[] = {
    {"rx0.base_low", 0x2800, ~127u}, {"rx0.base_high", 0x2804, ~0u}, {"rx0.length", 0x2808, 0xfff80}, {"rx0.control", 0x2828, kDctl},
    {"rx0.srrctl", 0x280c, 0x8ff03f7f}, {"rx0.head", 0x2810, 0xffff}, {"rx0.tail", 0x2818, 0xffff},
    {"rx1.base_low", 0x2900, ~127u}, {"rx1.base_high", 0x2904, ~0u}, {"rx1.length", 0x2908, 0xfff80}, {"rx1.control", 0x2928, kDctl},
    {"rx1.srrctl", 0x290c, 0x8ff03f7f}, {"rx1.head", 0x2910, 0xffff}, {"rx1.tail", 0x2918, 0xffff},
    {"tx0.base_low", 0x3800, ~127u}, {"tx0.base_high", 0x3804, ~0u}, {"tx0.length", 0x3808, 0xfff80}, {"tx0.control", 0x3828, kDctl},
    {"tx0.txctl", 0x3814, 0xaa00}, {"tx0.head", 0x3810, 0xffff}, {"tx0.tail", 0x3818, 0xffff},
    {"tx1.base_low", 0x3900, ~127u}, {"tx1.base_high", 0x3904, ~0u}, {"tx1.length", 0x3908, 0xfff80}, {"tx1.control", 0x3928, kDctl},
    {"tx1.txctl", 0x3914, 0xaa00}, {"tx1.head", 0x3910, 0xffff}, {"tx1.tail", 0x3918, 0xffff},
    {"vtivar", kVtivar, 0x83838383}, {"vtivar_misc", 0x1740, 0x83}, {"eiac", 0x152c, kAllVectors}, {"eiam", 0x1530, kAllVectors},
    {"eitr0", 0x1680, 0xfffe}, {"eitr1", 0x1684, 0xfffe}, {"eitr2", 0x1688, 0xfffe}, {"tx0.back_low", 0x3838, ~2u},
    {"tx0.back_high", 0x383c, ~0u}, {"tx1.back_low", 0x3938, ~2u}, {"tx1.back_high", 0x393c, ~0u},
    // Since version 2 of the state:
    {"rx0.rxctl", 0x2814, 0xaa00}, {"rx1.rxctl", 0x2914, 0xaa00}};
constexpr const char* kCures[kMsgLast + 1] = {
    "", "", "let the VF choose its addresses: ip link set PF vf N trust on", "the kernel log may say why",
    "remove the port VLAN: ip link set PF vf N vlan 0", "raise the PF's MTU", "trust the VF: ip link set PF vf N trust on"};
// clang-format on
constexpr uint32_t kCount = std::size(kRegisters), kCountV1 = kCount - 2;
constexpr auto carried = [](std::string_view version) { return version == "1" ? kCountV1 : kCount; };
constexpr auto address = [](uint32_t ring, uint32_t i) { return kRegisters[ring * kPerRing + i].offset; };

// What no register shows. It travels as it is: 32-bit words only.
struct Hidden {
  Message memory, message;  // mailbox memory (in a stream only), and what the guest last wrote there
  uint32_t in_flight;       // the message was sent and no reply to it was seen
  uint32_t holds;           // VFU, if the guest owns the mailbox
  uint32_t owed;            // read-to-clear bits that were read here and that the guest has not seen
  uint32_t ready;           // VF_RESET was answered
  std::array<uint32_t, std::size(kCounters)> counters;  // guest's minus device's; in a stream the guest's
  std::array<uint32_t, 4> contexts;  // in a stream only: places in the TX rings, queue * 2 + slot
  uint32_t grants;
  std::array<Message, 52> grant;  // what the PF granted: 32 VLANs, 16 addresses, one of each other kind
};

class Nic82576 final : public MigrationOwner {
 public:
  explicit Nic82576(Device& dev) : dev_(dev), shadow_(dev) {
    if (read(kStatus) == ~0u) raise(ENODEV, "the VF does not answer: it was removed, or its PF is gone");
    if (read(kStatus) == 0)
      raise(ENODEV,
            "all registers read as zero, the VF's BAR is not where the platform thinks: QEMU 10.0 maps "
            "VF BARs above 4 GiB wrongly, give the machine that owns the PF at most 2 GiB of memory");
  }

  Answer on_read(Access& a) override {
    auto touched = [&](uint32_t offset) { return a.offset < offset + 4 && offset < a.offset + a.length; };
    const auto counter = std::find_if(std::begin(kCounters), std::end(kCounters), touched);
    if (!touched(kMailbox) && counter == std::end(kCounters)) return Answer::pass;
    if (a.length != 4) raise(EINVAL, "the mailbox and the counters of an 82576 VF take 32-bit accesses only");
    dev_.run_rest(a);
    if (a.offset == kMailbox) {
      shadow_->owed |= a.value32() & kReadToClear;
      settle();
      a.value |= std::exchange(shadow_->owed, 0);
    } else {
      a.value = static_cast<uint32_t>(a.value + shadow_->counters[counter - std::begin(kCounters)]);
    }
    return Answer::handled;
  }

  Answer on_write(Access& a) override {
    if (a.length != 4) raise(EINVAL, "an 82576 VF takes aligned 32-bit accesses only");
    Hidden& h = *shadow_;
    if (a.offset == kCtrl && (a.value & kCtrlReset)) {
      h.in_flight = h.holds = h.owed = h.ready = h.grants = 0;
    } else if (a.offset >= kMemory && a.offset < kMemory + sizeof(Message)) {
      settle();
      h.in_flight = 0;  // a new message: the guest waits no longer
      h.message.word[(a.offset - kMemory) / 4] = a.value32();
    } else if (a.offset == kMailbox) {
      h.holds = a.value32() & kVfu;
      if (a.value & kReq) h.in_flight = 1;
    }
    return Answer::pass;
  }

  void on_state(uint32_t, uint32_t to) override { restored_ = restored_ && to != kRunning; }
  void on_reset() override { restored_ = false; }

  void save(SectionWriter& out) override {
    dev_.wait(kShortWait, [&] { return settle(); });
    if (shadow_->grants > shadow_->grant.size()) raise(ENOSPC, "more filters were set than an 82576 has");
    shadow_->owed |= read(kMailbox) & kReadToClear;  // the guest may yet go on here
    for (uint32_t i = 0; i < carried(dev_.parameter(0)); ++i) {
      const bool stopped = i < kVtivarAt && i % kPerRing == kControl;
      const uint32_t value = stopped ? control(i / kPerRing) : read(kRegisters[i].offset);
      out.u32(kRegisters[i].name, value & kRegisters[i].known);
    }
    Hidden h = *shadow_;
    for (uint32_t i = 0; i < h.memory.word.size(); ++i) h.memory.word[i] = read(kMemory + 4 * i);
    for (uint32_t i = 0; i < h.counters.size(); ++i) h.counters[i] += read(kCounters[i]);
    h.contexts = find_contexts();
    out.bytes("hidden", std::as_bytes(std::span(&h, 1)));
  }

  void load(SectionReader& in) override {
    value_ = {};  // what an older version does not carry is as after a reset
    for (uint32_t i = 0; i < carried(dev_.stream_version()); ++i) {
      const bool place = i < kVtivarAt && i % kPerRing >= kHead && (at(i / kPerRing, kControl) & kEnable);
      const Check check = place ? below(descriptors(i / kPerRing)) : known_bits(kRegisters[i].known);
      value_[i] = in.u32(kRegisters[i].name, check);
      if (i >= kVtivarAt && i < kVtivarAt + 2 && (value_[i] & value_[i] << 1 & value_[i] >> 6 & 0x02020202))
        in.reject(kRegisters[i].name, "names vector 3, the last one is 2");
    }
    in.bytes("hidden", std::as_writable_bytes(std::span(&hidden_, 1)));
    const Hidden& h = hidden_;
    if (h.in_flight > 1 || h.ready > 1 || (h.holds & ~kVfu) || (h.owed & ~kReadToClear))
      in.reject("hidden", "no mailbox is in this state");
    if (h.grants > h.grant.size()) in.reject("hidden", "more filters are set than an 82576 has");
    for (const Message& m : grants())
      if (m.word[0] >> 24 || m.type() < kMsgMac || m.type() > kMsgLast ||
          (m.type() == kMsgMac && (m.word[1] & 1)) || (m.type() == kMsgMulticast && m.info() > 30) ||
          (m.type() == kMsgVlan && m.word[1] > 4095))
        in.reject("hidden", "no PF grants message " + m.text());
    for (uint32_t c = 0; c < h.contexts.size(); ++c)
      if (h.contexts[c] != kNone && h.contexts[c] >= descriptors(kFirstTx + c / 2))
        in.reject("hidden", "a TX context is not in its ring");
  }

  // DMA is forbidden here, and bus mastering and MSI-X stay off until the VMM has loaded config space: the
  // queues stay disabled, as the stop program left them, and the start program switches them on.
  void apply() override {
    deadline_ = dev_.now_ns() + 3'000'000'000;
    if (read(kMailbox) & kPfReset) raise(EAGAIN, "the PF is in reset: try again when its driver is up");
    if (hidden_.ready) restore_grants();
    // The PF's table only ever ORs entries in, and VTIVAR reads back what was last written: another layout
    // shows here only if it was the last one.
    const uint32_t old = read(kVtivar), both = (old & value_[kVtivarAt] & 0x80808080) >> 7;
    if ((old ^ value_[kVtivarAt]) & both * 3)
      dev_.warn("an earlier interrupt layout of this VF lingers in the PF: take the PF down and up");
    for (uint32_t i = 0; i < kCount; ++i)
      if (i >= kVtivarAt || i % kPerRing != kControl) write(kRegisters[i].offset, value_[i]);
    for (uint32_t i = 0; i < hidden_.memory.word.size(); ++i) write(kMemory + 4 * i, hidden_.memory.word[i]);
    for (uint32_t i = 0; i < std::size(kCounters); ++i) hidden_.counters[i] -= read(kCounters[i]);
    *shadow_ = hidden_;
    // The reply to a message in flight is left where the guest looks for it, with the bits that announce it.
    if (hidden_.in_flight && exchange(hidden_.message, kShortWait, 0)) shadow_->owed |= kPfSts | kPfAck;
    if (hidden_.holds) write(kMailbox, kVfu);
    dev_.start_once(start_program());
    restored_ = true;
  }

 private:
  static constexpr uint64_t kShortWait = 20'000'000, kPatience = 500'000'000;  // ns

  uint32_t read(uint32_t offset) const { return dev_.read32(0, offset); }
  void write(uint32_t offset, uint32_t value) const { dev_.write32(0, offset, value); }
  uint32_t at(uint32_t ring, uint32_t i) const { return value_[ring * kPerRing + i]; }
  uint32_t control(uint32_t r) const { return restored_ ? at(r, kControl) : dev_.saved(r); }
  uint32_t descriptors(uint32_t ring) const { return at(ring, kLength) / 16; }
  std::span<const Message> grants() const { return std::span(hidden_.grant).first(hidden_.grants); }

  /// Looks for the reply to the message in flight and keeps what it grants. True: nothing is in flight.
  bool settle() {
    Hidden& h = *shadow_;
    if (!h.in_flight) return true;
    const uint32_t reply = read(kMemory);
    if (!h.message.answered_by(reply)) return false;
    h.in_flight = 0;
    const bool hello = h.message.type() == kMsgReset;
    if (hello) h.ready = 1, h.grants = 0;
    if (reply & kAnswerAck) keep(hello ? own_mac() : h.message);
    return true;
  }

  void keep(const Message& m) {
    const bool clears = m.type() == kMsgMac && m.info() == kInfoClear;
    auto outdated = [&](const Message& old) {
      return clears ? old.type() == kMsgMac && old.info() == kInfoAdd : old.thing() == m.thing();
    };
    Hidden& h = *shadow_;
    if (h.grants > h.grant.size()) return;  // too many: save() says so
    const auto end = std::remove_if(h.grant.begin(), h.grant.begin() + h.grants, outdated);
    h.grants = static_cast<uint32_t>(end - h.grant.begin());
    if (clears || (m.type() == kMsgVlan && !m.info())) return;  // nothing to ask for
    if (h.grants++ < h.grant.size()) *end = m;
  }

  /// One message, sent as the VF's driver does it; the first word of the reply, or 0 if none came in time.
  uint32_t exchange(const Message& m, uint64_t patience_ns, uint32_t acknowledge = kAck) const {
    uint32_t reply = 0;
    if (!dev_.wait(patience_ns, [&] { return write(kMailbox, kVfu), read(kMailbox) & kVfu; })) return 0;
    for (uint32_t i = 0; i < m.word.size(); ++i) write(kMemory + 4 * i, m.word[i]);
    write(kMailbox, kReq);
    auto answered = [&] { return (read(kMailbox) & kPfSts) && m.answered_by(reply = read(kMemory)); };
    if (!dev_.wait(patience_ns, answered)) return 0;
    write(kMailbox, acknowledge);
    return reply;
  }

  bool granted(const Message& m) const {
    const uint32_t reply = exchange(m, std::min(kPatience, deadline_ - std::min(deadline_, dev_.now_ns())));
    if (!reply) raise(ETIMEDOUT, "the PF does not answer the VF's mailbox: is it up? (ip link set PF up)");
    return reply & kAnswerAck;
  }
  /// The VF's address as the PF knows it, from the answer to VF_RESET; 0: none.
  uint64_t say_hello() const { return granted({{kMsgReset}}) ? own_mac().mac() : 0; }
  Message own_mac() const { return {{kMsgMac, read(kMemory + 4), read(kMemory + 8)}}; }

  void restore_grants() const {
    uint64_t has = say_hello();
    for (const Message& m : grants()) {
      // The PF refuses even the address it has, where the administrator set it.
      if (!m.is_own_mac() || granted(m) || has == m.mac()) continue;
      hookline_pf_request request{};
      request.what = HOOKLINE_PF_SET_MAC;
      std::memcpy(request.mac, &m.word[1], sizeof(request.mac));
      if (dev_.pf_request(request) == 0) has = say_hello();
      if (has == m.mac()) continue;
      std::string mac;
      for (const uint8_t b : request.mac) mac += Check::hex(0x100u + b).substr(3) + ":";
      mac.pop_back();
      raise(EPERM,
            "the PF refuses the guest's address: ip link set PF vf N mac " + mac + ", or " + kCures[kMsgMac]);
    }
    for (const Message& m : grants())
      if (!m.is_own_mac() && !granted(m))
        raise(EPERM, "the PF refuses what the source's granted (" + m.text() + "): " + kCures[m.type()]);
  }

  /// Where the last context descriptor of each slot lies in the TX rings.
  std::array<uint32_t, 4> find_contexts() const {
    std::array<uint32_t, 4> found = {kNone, kNone, kNone, kNone};
    for (uint32_t r = kFirstTx; r < kRings; ++r) {
      const uint32_t count = read(address(r, kLength)) / 16, head = read(address(r, kHead));
      const uint64_t base = uint64_t{read(address(r, kBaseHigh))} << 32 | read(address(r, kBaseLow));
      uint32_t i = read(address(r, kTail));
      if (!(control(r) & kEnable) || head >= count || i >= count || count > 4096) continue;
      std::vector<std::array<uint32_t, 4>> ring(count);
      if (dev_.try_iova_read(base, std::as_writable_bytes(std::span(ring))) < 0) return found;
      do {  // from the oldest that the guest has not overwritten, so that the last one stays
        if ((ring[i][2] & kContextMask) == kContext) found[2 * (r - kFirstTx) + (ring[i][3] >> 4 & 1)] = i;
      } while ((i = (i + 1) % count) != head);
    }
    return found;
  }

  std::vector<hookline_step> start_program() const {
    auto set = [](uint32_t r, uint32_t i, uint32_t v) { return hookline::write(0, address(r, i), v); };
    std::vector<hookline_step> p;
    for (uint32_t c = 0; c < hidden_.contexts.size(); ++c) {
      const uint32_t r = kFirstTx + c / 2, place = hidden_.contexts[c], on = at(r, kControl);
      if (place == kNone || !(on & kEnable)) continue;
      p.insert(p.end(),
               {set(r, kTail, place), set(r, kHead, place), set(r, kControl, on),
                set(r, kTail, (place + 1) % descriptors(r)), delay(100), set(r, kControl, on & ~kEnable),
                delay(100), set(r, kTail, at(r, kTail)), set(r, kHead, at(r, kHead))});
    }
    for (uint32_t r = 0; r < kRings; ++r)
      p.insert(p.end(), {set(r, kControl, at(r, kControl)), rewrite(0, address(r, kTail))});
    auto vector = [](uint32_t e) { return e & 0x80 ? 1u << (e & 3) : 0; };
    const uint32_t queues = value_[kVtivarAt], mailbox = vector(value_[kVtivarAt + 1]);
    uint32_t raised = vector(queues) | vector(queues >> 8) | vector(queues >> 16) | vector(queues >> 24);
    const uint32_t vectors = raised | mailbox;
    // For news only: without any, igbvf may take the interrupt of the mailbox for a lost link.
    if (shadow_->owed) raised = vectors;
    p.insert(p.end(), {hookline::write(0, kEims, vectors), hookline::write(0, kEics, raised)});
    return p;
  }

  Device& dev_;
  ShadowRef<Hidden> shadow_;
  std::array<uint32_t, kCount> value_ = {};
  Hidden hidden_ = {};
  uint64_t deadline_ = 0;
  bool restored_ = false;  // and not started yet: what the stop program kept is older
};

// What an FLR leaves behind. Not VTIVAR: its entries cannot be taken back, and what it reads is their only
// trace.
constexpr Steps reset_program() {
  Steps p = {write(0, kEimc, kAllVectors), write(0, kEicr, kAllVectors), write(0, kMailbox, 0)};
  for (const Register& r : kRegisters)
    if (r.offset != kVtivar) p.items[p.count++] = write(0, r.offset, 0);
  for (uint32_t i = 0; i < 16; ++i) p.items[p.count++] = write(0, kMemory + 4 * i, 0);
  return p;
}
constexpr uint32_t kRx0 = address(0, kControl), kRx1 = address(1, kControl);
constexpr uint32_t kTx0 = address(2, kControl), kTx1 = address(3, kControl), kDisableUs = 20000;

}  // namespace

// clang-format off
HOOKLINE_PLUGIN(Nic82576, {
    .name = "nic-82576", .version = "1.1", .summary = "Moves virtual functions of the Intel 82576 gigabit controller",
    .model = "com.intel/82576-vf", .migration_version = "2", .reads = "1|2", .devices = {{0x8086, 0x10ca}},
    .traps = {{0, HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE, 0, 0x1000}},
    .registers = {{"CTRL", 0, kCtrl, 4}, {"STATUS", 0, kStatus, 4}, {"VMBMEM", 0, kMemory, 4}, {"V2PMAILBOX", 0, kMailbox, 4},
                  {"VFGPRC", 0, 0xf10, 4}, {"VFGPTC", 0, 0xf14, 4}, {"VFGORC", 0, 0xf18, 4}, {"VFGOTC", 0, 0xf34, 4},
                  {"VFMPRC", 0, 0xf3c, 4}},
    .keys = {{"dirty_tracking", "Which pages the VF wrote is followed exactly: page 2 and 3 of its registers are trapped", "false",
              "82576-dirty-log", HOOKLINE_KEY_BOOL, HOOKLINE_KEY_HANDLER, 0, 0}},
    .parameters = {{"state_version", "Format of the state: 2 carries the RX queues' RXCTL, 1 is what nic-82576 1.0 reads", "2", "1",
                    "1|2", HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0}},
    .stop = {save(0, kRx0, 0), save(0, kRx1, 1), save(0, kTx0, 2), save(0, kTx1, 3),
             clear_bits(0, kRx0, kEnable), clear_bits(0, kRx1, kEnable), clear_bits(0, kTx0, kEnable), clear_bits(0, kTx1, kEnable),
             poll(0, kRx0, kEnable, 0, kDisableUs), poll(0, kRx1, kEnable, 0, kDisableUs), poll(0, kTx0, kEnable, 0, kDisableUs),
             poll(0, kTx1, kEnable, 0, kDisableUs), write(0, kEimc, kAllVectors)},
    .start = {restore(0, kRx0, 0), rewrite(0, address(0, kTail)), restore(0, kRx1, 1), rewrite(0, address(1, kTail)),
              restore(0, kTx0, 2), rewrite(0, address(2, kTail)), restore(0, kTx1, 3), rewrite(0, address(3, kTail)),
              write(0, kEims, kAllVectors)},
    .reset = reset_program(),
    .shadow_size = sizeof(Hidden), .max_state = sizeof(Hidden) + 4 * kCount});
// clang-format on
