// SPDX-License-Identifier: Apache-2.0
//
// migration_version, model and parameters as files of a device: what is in them, who may do what, how a wrong text, a missing
// worker or a lying one ends, and every order of their ends. Values that belong together stand in
// core/test-vectors/allowed_values.csv.
#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

constexpr const char* kModel = "org.example/test-device";

std::string folder_of(const std::string& address) { return "/sys/bus/pci/devices/" + address + "/"; }

/// One read() of what fits in a page, or a negative errno.
int read_file(const std::string& path, std::string& text) {
  const vfio::Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno;
  text.resize(8192);
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) return errno;
  text.resize(static_cast<size_t>(got));
  return 0;
}

/// One write() of all of it.
int write_file(const std::string& path, std::string_view text) {
  const vfio::Descriptor fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno;
  const ssize_t put = ::write(fd.get(), text.data(), text.size());
  if (put < 0) return errno;
  return static_cast<size_t>(put) == text.size() ? 0 : EIO;
}

std::set<std::string> entries(const std::string& folder) {
  std::set<std::string> names;
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = ::readdir(dir))
    if (entry->d_name[0] != '.') names.insert(entry->d_name);
  ::closedir(dir);
  return names;
}

unsigned mode_of(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

/// Uevents of the kernel from now on.
class Uevents {
 public:
  Uevents() : socket_(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)) {
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = 1;
    if (!socket_ || ::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      throw std::runtime_error("no uevents");
  }
  /// Names of parameters that changed, of this device, until nothing comes any more.
  std::vector<std::string> changes(const std::string& address) {
    std::vector<std::string> names;
    pollfd ready{socket_.get(), POLLIN, 0};
    while (::poll(&ready, 1, 200) > 0) {
      char message[4096];
      const ssize_t size = ::recv(socket_.get(), message, sizeof message, 0);
      if (size <= 0) break;
      std::map<std::string, std::string> keys;
      std::string_view rest(message, static_cast<size_t>(size));
      while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\0'));
        if (const size_t equals = line.find('='); equals != line.npos)
          keys[std::string(line.substr(0, equals))] = line.substr(equals + 1);
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      }
      if (keys["ACTION"] == "change" && keys["PCI_SLOT_NAME"] == address) names.push_back(keys["VFIO_PCI_HOOKS_PARAMETER"]);
    }
    return names;
  }

 private:
  vfio::Descriptor socket_;
};

/// Lines of the kernel log from now on.
class KernelLog {
 public:
  KernelLog() : fd_(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) { ::lseek(fd_.get(), 0, SEEK_END); }
  std::string since() {
    std::string all;
    char line[8192];
    for (ssize_t got = 0; (got = ::read(fd_.get(), line, sizeof line)) > 0;) all.append(line, static_cast<size_t>(got));
    return all;
  }

 private:
  vfio::Descriptor fd_;
};

class ParametersTest : public HooksTest {
 protected:
  static Definition described(const std::string& address) {
    Definition d = migratable(address);
    d.model = kModel;
    d.parameters = {parameter("queues", "2", "1-8"), parameter("offload", "off", "off|on"),
                    parameter("state_version", "2", "1|2", VFIO_PCI_HOOKS_PARAMETER_RUNTIME)};
    // A start value that is not the init value, and one that is off by default.
    std::strcpy(d.parameters[0].value, "4");
    std::strcpy(d.parameters[1].off_value, "on");
    return d;
  }
  std::string file(const std::string& name) const { return folder_of(vf_) + name; }
  std::string text(const std::string& name) const {
    std::string text;
    const int error = read_file(file(name), text);
    return error ? "errno " + std::to_string(error) : text;
  }
  int put(const std::string& name, std::string_view text) const { return write_file(file(name), text); }
  void start() {
    define_and_bind(described(vf_));
    worker_.emplace(vf_, *board_);
  }
  /// Whoever asks its files waits for ten minutes.
  void bind_patient() {
    Definition patient = described(vf_);
    patient.state_limit_ms = 600000;
    define_and_bind(patient);
  }
  /// The same, with a worker that does not answer.
  void start_silent() {
    bind_patient();
    worker_.emplace(vf_, *board_);
    board_->query_lie = QueryLie::silence;
  }
  /// Threads that read migration_version.
  std::vector<std::future<std::string>> readers(int how_many) {
    std::vector<std::future<std::string>> started;
    for (int i = 0; i < how_many; ++i)
      started.push_back(std::async(std::launch::async, [this] { return text("migration_version"); }));
    return started;
  }
  void TearDown() override {
    worker_.reset();
    HooksTest::TearDown();
  }

  SharedBoard board_ = shared_board();
  std::optional<Worker> worker_;
};

// ---- migration_version

TEST_F(ParametersTest, MV1_IsAbsentWithoutAMigrationOwner) {
  ASSERT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
  EXPECT_EQ(entries(file("migration")), std::set<std::string>());
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOENT));
  ASSERT_TRUE(sysfs::release(vf_));
  Definition observer = migratable(vf_);
  observer.flags = 0;
  define_and_bind(observer);
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOENT));
  EXPECT_EQ(entries(file("migration")), std::set<std::string>());
  ASSERT_TRUE(sysfs::release(vf_));
  define_and_bind(described(vf_));
  EXPECT_EQ(entries(file("migration")), (std::set<std::string>{"model", "queues", "offload", "state_version"}));
  ASSERT_TRUE(sysfs::release(vf_));
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOENT));
  EXPECT_EQ(entries(file("migration")), std::set<std::string>());
}

TEST_F(ParametersTest, MV1_IsReadAndWritten) {
  start();
  EXPECT_EQ(text("migration_version"), "model=test\n");
  EXPECT_EQ(put("migration_version", "whatever the other says"), 0);
  EXPECT_STREQ(board_->asked.data(), "whatever the other says");
  EXPECT_EQ(put("migration_version", "with a newline\n"), 0);
  EXPECT_STREQ(board_->asked.data(), "with a newline");
  // Nobody has to open the device for that, and somebody may.
  const Guest guest(*container_, vf_);
  EXPECT_EQ(text("migration_version"), "model=test\n");
  EXPECT_EQ(put("migration_version", "x"), 0);
}

TEST_F(ParametersTest, MV1_TheVendorsErrnoArrivesAndTheReasonIsInTheLog) {
  start();
  for (const int error : {EINVAL, EPERM, EOPNOTSUPP}) {
    KernelLog log;
    board_->query_answer = -error;
    EXPECT_EQ(put("migration_version", "x"), error);
    const std::string lines = log.since();
    EXPECT_NE(lines.find("migration_version refused: because of the test"), lines.npos) << lines;
  }
  // Whatever the worker says, the log stays one line of text.
  std::strcpy(board_->reason.data(), "one\ntwo\x1b[31m\xc3\xa9");
  KernelLog log;
  EXPECT_EQ(put("migration_version", "x"), EOPNOTSUPP);
  const std::string lines = log.since();
  EXPECT_NE(lines.find("refused: one two?[31m??"), lines.npos) << lines;
}

TEST_F(ParametersTest, MV1_RefusalsDoNotFloodTheLog) {
  start();
  board_->query_answer = -EINVAL;
  KernelLog log;
  for (int i = 0; i < 300; ++i) EXPECT_EQ(put("migration_version", "x"), EINVAL);
  const std::string lines = log.since();
  size_t count = 0;
  for (size_t at = 0; (at = lines.find("migration_version refused", at)) != lines.npos; ++at) ++count;
  // printk's own limit is 10 in 5 s; a slow host may pass it a few times.
  EXPECT_LT(count, 150u);
}

TEST_F(ParametersTest, MV1_LengthIsCheckedBeforeAnybodyIsAsked) {
  start();
  const std::string longest(VFIO_PCI_HOOKS_VERSION_LEN - 1, 'v');
  EXPECT_EQ(put("migration_version", longest), 0);
  EXPECT_EQ(std::string(board_->asked.data()), longest);
  longest.copy(board_->version.data(), longest.size());
  EXPECT_EQ(text("migration_version"), longest);

  const uint64_t asked = board_->queries;
  EXPECT_EQ(put("migration_version", longest + "v"), E2BIG);
  EXPECT_EQ(put("migration_version", longest + "\n"), E2BIG) << "may have been cut: what follows is not known";
  EXPECT_EQ(put("migration_version", std::string(100000, 'v')), E2BIG);
  EXPECT_EQ(put("migration_version", "\n"), EINVAL);
  EXPECT_EQ(put("migration_version", "two\nlines"), EINVAL);
  EXPECT_EQ(put("migration_version", "two newlines\n\n"), EINVAL);
  EXPECT_EQ(put("migration_version", std::string("nul\0inside", 10)), EINVAL);
  EXPECT_EQ(put("migration_version", std::string("nul behind\0", 11)), EINVAL);
  EXPECT_EQ(put("migration_version", "caf\xc3\xa9"), EINVAL);
  EXPECT_EQ(put("migration_version", "escape \x1b[31m"), EINVAL);
  EXPECT_EQ(put("migration_version", "delete \x7f"), EINVAL);
  EXPECT_EQ(board_->queries, asked);
}

TEST_F(ParametersTest, MV1_AnybodyReadsAndRootWrites) {
  start();
  for (const char* name : {"migration_version", "migration/queues/value"}) EXPECT_EQ(mode_of(file(name)), 0644u) << name;
  for (const char* name : {"migration/model", "migration/queues/init_value", "migration/queues/off_value",
                           "migration/queues/allowed_values", "migration/queues/description"})
    EXPECT_EQ(mode_of(file(name)), 0444u) << name;
  EXPECT_EQ(without_rights([&] {
              std::string text;
              return read_file(file("migration_version"), text) == 0 && text == "model=test\n" ? 0 : 1;
            }), 0);
  EXPECT_EQ(without_rights([&] { return put("migration_version", "x"); }), EACCES);
  EXPECT_EQ(without_rights([&] { return put("migration/queues/value", "1"); }), EACCES);
}

// ---- who answers is gone, late, or lies: MV3, each failing call means "not compatible"

TEST_F(ParametersTest, MV3_WithoutAWorkerBothFailAtOnce) {
  bind_patient();
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOTCONN));
  EXPECT_EQ(put("migration_version", "x"), ENOTCONN);
  // What is the device's own is there all the same.
  EXPECT_EQ(text("migration/model"), std::string(kModel) + "\n");
  EXPECT_EQ(put("migration/queues/value", "8"), 0);
}

TEST_F(ParametersTest, MV3_WithoutSomebodyWhoAnswersItIsNotForEver) {
  define_and_bind(described(vf_));
  const vfio::Descriptor channel(control_.attach(vf_));
  ASSERT_TRUE(channel);
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOTCONN));
}

TEST_F(ParametersTest, RL5_WorkerThatDiesWhileItIsAsked) {
  bind_patient();
  worker_.emplace(vf_, *board_);
  board_->query_lie = QueryLie::death;
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOTCONN));
  worker_->kill();
  worker_.emplace(vf_, *board_);
  EXPECT_EQ(put("migration_version", "x"), ENOTCONN);
  worker_->kill();
  board_->query_lie = QueryLie::none;
  worker_.emplace(vf_, *board_);
  EXPECT_EQ(text("migration_version"), "model=test\n");
}

// The supervisor keeps the channel when its worker dies.
TEST_F(ParametersTest, RL5_WorkerThatDiesWhileAnotherHoldsTheChannel) {
  bind_patient();
  const vfio::Descriptor channel(control_.attach(vf_));
  ASSERT_TRUE(channel);
  const auto worker_that = [&](const std::function<void(const Query&)>& act) {
    const pid_t child = ::fork();
    if (child == 0) {
      Query query;
      if (next_query(channel.get(), query, 60000) == 0) act(query);
      ::_exit(0);
    }
    return child;
  };
  const pid_t deaf = worker_that([](const Query&) { ::raise(SIGKILL); });
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOTCONN));
  ::waitpid(deaf, nullptr, 0);
  // One that nobody was given waits for the replacement.
  auto reader = std::async(std::launch::async, [&] { return text("migration_version"); });
  std::this_thread::sleep_for(100ms);
  const pid_t next = worker_that([&](const Query& query) {
    Query none;
    next_query(channel.get(), none, 0, query.id, 0, "from the next");
  });
  EXPECT_EQ(reader.get(), "from the next\n");
  ::waitpid(next, nullptr, 0);
}

TEST_F(ParametersTest, RL5_WorkerThatIsStopped) {
  start();
  ASSERT_EQ(text("migration_version"), "model=test\n");
  worker_->signal(SIGSTOP);
  ASSERT_TRUE(sysfs::wait_until([&] { return worker_->is_stopped(); }, 10s));
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ETIMEDOUT));
  EXPECT_EQ(put("migration_version", "x"), ETIMEDOUT);
  worker_->signal(SIGCONT);
  EXPECT_EQ(text("migration_version"), "model=test\n");
}

TEST_F(ParametersTest, RL1_WorkerThatAnswersNonsense) {
  start();
  for (const QueryLie lie : {QueryLie::nonsense, QueryLie::length, QueryLie::stranger, QueryLie::errno_}) {
    board_->query_lie = lie;
    const uint64_t refused = board_->refused_queries;
    EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ETIMEDOUT)) << static_cast<int>(lie);
    EXPECT_EQ(board_->refused_queries, refused + 1) << static_cast<int>(lie);
  }
  board_->query_lie = QueryLie::none;
  EXPECT_EQ(text("migration_version"), "model=test\n");
}

TEST_F(ParametersTest, RL1_UnbindWhileSomebodyWaits) {
  start_silent();
  auto waiting = readers(4);
  auto writer = std::async(std::launch::async, [&] { return put("migration_version", "x"); });
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->queries == 5; }, 10s));
  ASSERT_TRUE(sysfs::release(vf_));
  for (auto& reader : waiting) EXPECT_EQ(reader.get(), "errno " + std::to_string(ENODEV));
  EXPECT_EQ(writer.get(), ENODEV);
}

TEST_F(ParametersTest, RL1_TheFunctionVanishesWhileSomebodyWaits) {
  const std::string numvfs = "/sys/bus/pci/devices/" + sysfs::test_pfs().at(0) + "/sriov_numvfs";
  const std::string had = sysfs::read(numvfs).value();
  start_silent();
  auto waiting = readers(3);
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->queries == 3; }, 10s));
  ASSERT_TRUE(sysfs::write(numvfs, "0"));
  for (auto& reader : waiting) EXPECT_EQ(reader.get(), "errno " + std::to_string(ENODEV));
  ASSERT_TRUE(sysfs::write(numvfs, had));
  ASSERT_TRUE(sysfs::exists(vf_));
}

TEST_F(ParametersTest, RL1_WhoWaitsCanBeKilled) {
  start_silent();
  const pid_t child = ::fork();
  if (child == 0) {
    text("migration_version");
    ::_exit(0);
  }
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->queries > 0; }, 10s));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  board_->query_lie = QueryLie::none;
  EXPECT_EQ(text("migration_version"), "model=test\n");
}

// ---- orders of their ends, with this process as the worker

class QueryOrderTest : public ParametersTest {
 protected:
  void SetUp() override {
    ParametersTest::SetUp();
    bind_patient();
    channel_ = vfio::Descriptor(control_.attach(vf_));
    ASSERT_TRUE(channel_);
  }
  std::future<std::string> read() {
    return std::async(std::launch::async, [this] { return text("migration_version"); });
  }
  vfio::Descriptor channel_;
};

TEST_F(QueryOrderTest, RL1_TwoAnswerersNeverGetTheSameQuery) {
  std::vector<std::future<std::string>> readers;
  for (int i = 0; i < 8; ++i) readers.push_back(read());
  std::atomic<int> taken{0};
  const auto answerer = [&] {
    Query query;
    int ret = next_query(channel_.get(), query, 2000);
    std::set<uint64_t> ids;
    while (ret == 0) {
      ++taken;
      EXPECT_TRUE(ids.insert(query.id).second);
      ret = next_query(channel_.get(), query, taken < 8 ? 2000 : 0, query.id, 0, "id" + std::to_string(query.id));
    }
    EXPECT_EQ(ret, ETIME);
  };
  std::thread first(answerer), second(answerer);
  std::set<std::string> answers;
  for (auto& reader : readers) answers.insert(reader.get());
  first.join();
  second.join();
  EXPECT_EQ(answers.size(), 8u);
  EXPECT_EQ(taken, 8);
}

TEST_F(QueryOrderTest, RL1_AnAnswerCountsOnceAndOnlyForWhatWasAsked) {
  Query query, none;
  EXPECT_EQ(next_query(channel_.get(), none, 0, 1, 0, "x"), EINVAL) << "nothing was asked";
  auto reader = read();
  // Ids are not secret: one that nobody was given yet cannot be answered.
  for (uint64_t id = 1; id < 4; ++id) EXPECT_EQ(next_query(channel_.get(), none, 0, id, 0, "early"), EINVAL);
  ASSERT_EQ(next_query(channel_.get(), query, -1), 0);
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 1, "x"), EINVAL) << "an answer above 0";
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 0, ""), EINVAL) << "no text";
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 0, "right"), ETIME);
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 0, "again"), EINVAL);
  EXPECT_EQ(reader.get(), "right\n");
}

TEST_F(QueryOrderTest, RL1_TheTextOfAQueryIsNotLostWithItsBuffer) {
  auto reader = read();
  std::this_thread::sleep_for(50ms);
  vfio_pci_hooks_next_query next{};
  next.argsz = sizeof next;
  next.timeout_ms = -1;
  next.text = 0;  // a query to read has no text, and that is fine
  ASSERT_EQ(::ioctl(channel_.get(), VFIO_PCI_HOOKS_NEXT_QUERY, &next), 0);
  Query none;
  EXPECT_EQ(next_query(channel_.get(), none, 0, next.id, 0, "x"), ETIME);
  EXPECT_EQ(reader.get(), "x\n");

  auto writer = std::async(std::launch::async, [&] { return put("migration_version", "written"); });
  next.answered = 0;
  next.length = 0;
  EXPECT_EQ(::ioctl(channel_.get(), VFIO_PCI_HOOKS_NEXT_QUERY, &next) == 0 ? 0 : errno, EFAULT);
  Query query;
  ASSERT_EQ(next_query(channel_.get(), query, 5000), 0) << "it was given back";
  EXPECT_EQ(query.text, "written");
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id), ETIME);
  EXPECT_EQ(writer.get(), 0);
}

TEST_F(QueryOrderTest, RL1_ClosingTheChannelEndsWhoWaits) {
  auto given = read();
  Query query;
  ASSERT_EQ(next_query(channel_.get(), query, -1), 0);
  auto waiting = read();
  std::this_thread::sleep_for(50ms);
  channel_.reset();
  EXPECT_EQ(given.get(), "errno " + std::to_string(ENOTCONN));
  EXPECT_EQ(waiting.get(), "errno " + std::to_string(ENOTCONN));
}

TEST_F(QueryOrderTest, RL1_NoAnswerReachesTheNextDefinition) {
  auto reader = read();
  Query query;
  ASSERT_EQ(next_query(channel_.get(), query, -1), 0);
  ASSERT_TRUE(sysfs::release(vf_));
  EXPECT_EQ(reader.get(), "errno " + std::to_string(ENODEV));
  Definition other = described(vf_);
  other.model = "org.example/another";
  other.parameters.resize(1);
  define_and_bind(other);
  Query none;
  std::vector<std::string> values;
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 0, "late"), EINVAL);
  EXPECT_EQ(next_query(channel_.get(), none, -1), ENODEV);
  EXPECT_EQ(get_parameters(channel_.get(), values), ENODEV);
  EXPECT_EQ(text("migration/model"), "org.example/another\n");
  EXPECT_EQ(entries(file("migration")), (std::set<std::string>{"model", "queues"}));
  EXPECT_EQ(text("migration_version"), "errno " + std::to_string(ENOTCONN));
}

// A session that was taken back says nothing about queries: they are the channel's.
TEST_F(QueryOrderTest, RL1_QueriesGoOnWhenASessionIsRevoked) {
  const Guest guest(*container_, vf_);
  vfio_pci_hooks_wait_open open{};
  open.argsz = sizeof open;
  ASSERT_EQ(::ioctl(channel_.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &open), 0);
  const vfio::Descriptor session(open.fd);
  uint32_t value = 0;
  guest.read32(kTrapped, value);
  ASSERT_EQ(control_.status(vf_).revoked, 1u);
  auto reader = read();
  Query query, none;
  ASSERT_EQ(next_query(channel_.get(), query, -1), 0);
  EXPECT_EQ(next_query(channel_.get(), none, 0, query.id, 0, "still there"), ETIME);
  EXPECT_EQ(reader.get(), "still there\n");
  EXPECT_EQ(set_parameters(session.get(), {"1", "on", "1"}), ECANCELED);
}

// Readers, writers, answerers that come and go, values that change, and in between the driver leaves the function.
TEST_F(ParametersTest, RL1_EverythingAtOnce) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        text("migration_version");
        put("migration_version", "x");
        put("migration/offload/value", "on");
        put("migration/offload/value", "off");
        text("migration/offload/value");
      }
    });
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        const vfio::Descriptor channel(control_.attach(vf_));
        Query query;
        std::vector<std::string> values;
        for (int n = 0; channel && n < 5; ++n) {
          const uint64_t answered = n % 2 ? query.id : 0;
          next_query(channel.get(), query, 5, answered, 0, "x");
          get_parameters(channel.get(), values);
        }
      }
    });
  for (int round = 0; round < 10; ++round) {
    define_and_bind(described(vf_));
    std::this_thread::sleep_for(30ms);
    EXPECT_TRUE(sysfs::release(vf_));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

// ---- model and parameters

TEST_F(ParametersTest, MM1_TheModelIsAFile) {
  define_and_bind(described(vf_));
  EXPECT_EQ(text("migration/model"), std::string(kModel) + "\n");
  EXPECT_EQ(put("migration/model", "org.example/other"), EACCES);
}

TEST_F(ParametersTest, MM1_FunctionsOfOneParentHaveModelsAndParametersOfTheirOwn) {
  define_and_bind(described(vf_));
  Definition other = migratable(vfs_[1]);
  other.model = "org.example/other";
  other.parameters = {parameter("queues", "16", "1-16"), parameter("depth", "64", "64|128")};
  define_and_bind(other);
  const auto other_text = [&](const std::string& name) {
    std::string text;
    return read_file(folder_of(vfs_[1]) + "migration/" + name, text) == 0 ? text : "";
  };
  EXPECT_EQ(text("migration/model"), std::string(kModel) + "\n");
  EXPECT_EQ(other_text("model"), "org.example/other\n");
  EXPECT_EQ(text("migration/queues/allowed_values"), "1-8\n");
  EXPECT_EQ(other_text("queues/allowed_values"), "1-16\n");
  EXPECT_EQ(other_text("depth/value"), "64\n");
  EXPECT_EQ(text("migration/depth/value"), "errno " + std::to_string(ENOENT));
  EXPECT_EQ(put("migration/queues/value", "3"), 0);
  EXPECT_EQ(other_text("queues/value"), "16\n");
}

// MM7: the same files whatever the function is, and nothing of mdev.
TEST_F(ParametersTest, MM7_AWholeFunctionHasTheSameFiles) {
  const char* display = "0000:00:02.0";
  std::string found;
  for (const std::string& name : entries("/sys/bus/pci/devices")) {
    std::string id;
    if (read_file(folder_of(name) + "vendor", id) == 0 && id == "0x1234\n") found = name;
  }
  ASSERT_FALSE(found.empty()) << "no bochs-display, such as " << display;
  Definition whole = described(found);
  whole.vendor = 0x1234;
  whole.device = 0x1111;
  whole.ranges = {};
  const std::string had = sysfs::driver_of(found);
  define_and_bind(whole);
  {
    const Worker worker(found, *board_);
    std::string text;
    EXPECT_EQ(read_file(folder_of(found) + "migration_version", text), 0);
    EXPECT_EQ(text, "model=test\n");
    EXPECT_EQ(entries(folder_of(found) + "migration"), (std::set<std::string>{"model", "queues", "offload", "state_version"}));
    EXPECT_EQ(write_file(folder_of(found) + "migration/queues/value", "1"), 0);
    EXPECT_EQ(entries(folder_of(found)).count("mdev_supported_types"), 0u);
  }
  EXPECT_TRUE(sysfs::release(found));
  EXPECT_EQ(control_.undefine(found), 0);
  if (!had.empty()) {
    EXPECT_TRUE(sysfs::bind(found, had));
  }
}

TEST_F(ParametersTest, MM2_OneFolderForEachParameterAndOneValueForEachFile) {
  define_and_bind(described(vf_));
  const std::set<std::string> files = {"value", "init_value", "off_value", "allowed_values", "description"};
  for (const char* name : {"queues", "offload", "state_version"})
    EXPECT_EQ(entries(file("migration/") + name), files) << name;
  EXPECT_EQ(text("migration/queues/value"), "4\n");
  EXPECT_EQ(text("migration/queues/init_value"), "2\n");
  EXPECT_EQ(text("migration/queues/off_value"), "2\n");
  EXPECT_EQ(text("migration/queues/allowed_values"), "1-8\n");
  EXPECT_EQ(text("migration/queues/description"), "of the test\n");
  EXPECT_EQ(text("migration/offload/init_value"), "off\n");
  EXPECT_EQ(text("migration/offload/off_value"), "on\n");
  EXPECT_EQ(put("migration/queues/init_value", "1"), EACCES);
}

TEST_F(ParametersTest, MM3_ANewDeviceHasTheValuesOfItsDefinition) {
  define_and_bind(described(vf_));
  EXPECT_EQ(text("migration/state_version/value"), "2\n");
  EXPECT_EQ(put("migration/state_version/value", "1"), 0);
  EXPECT_EQ(text("migration/state_version/value"), "1\n");
  // The next one is a new device.
  ASSERT_TRUE(sysfs::release(vf_));
  define_and_bind(described(vf_));
  EXPECT_EQ(text("migration/state_version/value"), "2\n");
}

TEST_F(ParametersTest, MM2_OnlyAllowedValuesAreTaken) {
  define_and_bind(described(vf_));
  for (const std::string& wrong : {std::string("0"), std::string("9"), std::string("08"), std::string("1 "), std::string(" 1"),
                                   std::string("1\n\n"), std::string("\n"), std::string("-1"), std::string("1-8"),
                                   std::string("1\0", 2), std::string("caf\xc3\xa9"), std::string(63, '1'),
                                   std::string(64, '1'), std::string(5000, '1')}) {
    EXPECT_EQ(put("migration/queues/value", wrong), EINVAL) << wrong.substr(0, 70);
    EXPECT_EQ(text("migration/queues/value"), "4\n");
  }
  EXPECT_EQ(put("migration/queues/value", "8\n"), 0);
  EXPECT_EQ(text("migration/queues/value"), "8\n");
}

struct Vector {
  std::string allowed, value;
  bool yes;
};

/// core/test-vectors/allowed_values.csv, whose file says what is in it.
std::vector<Vector> vectors() {
  const auto plain = [](const std::string& text) {
    if (text == "<>") return std::string();
    if (text == "<63>" || text == "<64>") return std::string(text == "<63>" ? 63 : 64, 'x');
    return text;
  };
  std::vector<Vector> rows;
  std::ifstream file(HOOKLINE_ALLOWED_VALUES);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t first = line.find(','), second = line.find(',', first + 1);
    rows.push_back({plain(line.substr(0, first)), plain(line.substr(first + 1, second - first - 1)),
                    line.substr(second + 1) == "yes"});
  }
  return rows;
}

TEST_F(ParametersTest, MM2_AllowedValuesMeanHereWhatTheyMeanInUserspace) {
  const std::vector<Vector> rows = vectors();
  ASSERT_GT(rows.size(), 40u);
  // As many of the lists as a definition has room for, each with one more value to begin with.
  for (size_t begin = 0; begin < rows.size(); begin += VFIO_PCI_HOOKS_MAX_PARAMETERS) {
    const size_t end = std::min(rows.size(), begin + VFIO_PCI_HOOKS_MAX_PARAMETERS);
    Definition d = described(vf_);
    d.parameters.clear();
    for (size_t i = begin; i < end; ++i)
      d.parameters.push_back(parameter("p" + std::to_string(i), "start", rows[i].allowed + "|start"));
    define_and_bind(d);
    for (size_t i = begin; i < end; ++i)
      EXPECT_EQ(put("migration/p" + std::to_string(i) + "/value", rows[i].value + "\n"), rows[i].yes ? 0 : EINVAL)
          << rows[i].allowed << " " << rows[i].value;
    ASSERT_TRUE(sysfs::release(vf_));
  }
}

TEST_F(ParametersTest, MM6_BusyWhileTheDeviceIsOpenUnlessItIsARuntimeOne) {
  start();
  {
    const Guest guest(*container_, vf_);
    EXPECT_EQ(put("migration/queues/value", "1"), EBUSY);
    EXPECT_EQ(put("migration/queues/value", "4"), EBUSY) << "also what it is already";
    EXPECT_EQ(put("migration/queues/value", "99"), EINVAL) << "what can never be is said first";
    EXPECT_EQ(text("migration/queues/value"), "4\n");
    EXPECT_EQ(put("migration/state_version/value", "1"), 0);
    EXPECT_EQ(text("migration/state_version/value"), "1\n");
  }
  EXPECT_EQ(put("migration/queues/value", "1"), 0);
  EXPECT_EQ(text("migration/queues/value"), "1\n");
}

TEST_F(ParametersTest, MM2_AUeventForEachChangeAndNoOther) {
  Uevents uevents;
  start();
  uevents.changes(vf_);
  EXPECT_EQ(put("migration/queues/value", "5"), 0);
  EXPECT_EQ(uevents.changes(vf_), std::vector<std::string>{"queues"});
  EXPECT_EQ(put("migration/queues/value", "5"), 0);
  EXPECT_EQ(put("migration/queues/value", "99"), EINVAL);
  EXPECT_EQ(put("migration_version", "x"), 0);
  EXPECT_EQ(uevents.changes(vf_), std::vector<std::string>{});
}

// A worker need not ask before each access: it is told, once for all that came since, and before what comes later.
TEST_F(QueryOrderTest, MM6_TheWorkerIsToldWhatChangesWhileTheDeviceIsOpen) {
  const Guest guest(*container_, vf_);
  vfio_pci_hooks_wait_open open{};
  open.argsz = sizeof open;
  ASSERT_EQ(::ioctl(channel_.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &open), 0);
  const vfio::Descriptor session(open.fd);
  for (int i = 0; i < 100; ++i)
    for (const char* value : {"1", "2", "1"}) EXPECT_EQ(put("migration/state_version/value", value), 0);
  const auto next = [&] {
    vfio_pci_hooks_next arg{};
    arg.argsz = sizeof arg;
    arg.answered = VFIO_PCI_HOOKS_NO_SLOT;
    if (::ioctl(session.get(), VFIO_PCI_HOOKS_NEXT, &arg) != 0) return -errno;
    return arg.what == VFIO_PCI_HOOKS_NEXT_EVENT ? static_cast<int>(arg.event) : 0;
  };
  EXPECT_EQ(next(), VFIO_PCI_HOOKS_EVENT_PARAMETERS);
  std::vector<std::string> values;
  EXPECT_EQ(get_parameters(session.get(), values), 0);
  EXPECT_EQ(values, (std::vector<std::string>{"4", "off", "1"}));
  EXPECT_EQ(next(), -ETIME);
  EXPECT_EQ(put("migration/state_version/value", "1"), 0);
  EXPECT_EQ(next(), -ETIME) << "nothing has changed";
}

// MM5: what a destination takes over is written as a whole or not at all, and only while it takes over.
TEST_F(QueryOrderTest, MM5_ALoadSetsAllValuesOrNone) {
  std::vector<std::string> values;
  ASSERT_EQ(get_parameters(channel_.get(), values), 0);
  EXPECT_EQ(values, (std::vector<std::string>{"4", "off", "2"}));
  vfio::Descriptor session;
  const std::vector<std::string> source = {"8", "on", "1"};
  {
    const Guest guest(*container_, vf_);
    vfio_pci_hooks_wait_open open{};
    open.argsz = sizeof open;
    ASSERT_EQ(::ioctl(channel_.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &open), 0);
    session = vfio::Descriptor(open.fd);
    EXPECT_EQ(set_parameters(channel_.get(), source), ENOTTY) << "a right of the session";
    EXPECT_EQ(set_parameters(session.get(), source), EBUSY) << "only in RESUMING";
    const auto data = guest.device.set_state(VFIO_DEVICE_STATE_RESUMING);
    ASSERT_TRUE(data) << data.error().text;

    Uevents uevents;
    EXPECT_EQ(set_parameters(session.get(), {"8", "on"}), EINVAL);
    EXPECT_EQ(set_parameters(session.get(), {"8", "on", "1", "1"}), EINVAL);
    EXPECT_EQ(set_parameters(session.get(), {"8", "on", "3"}), EINVAL);
    EXPECT_EQ(set_parameters(session.get(), {"8", std::string(64, 'o'), "1"}), EINVAL);
    EXPECT_EQ(text("migration/queues/value"), "4\n");
    EXPECT_EQ(uevents.changes(vf_), std::vector<std::string>{});
    EXPECT_EQ(set_parameters(session.get(), source), 0);
    EXPECT_EQ(uevents.changes(vf_), (std::vector<std::string>{"queues", "offload", "state_version"}));
    EXPECT_EQ(set_parameters(session.get(), {"1", "on", "1"}), EBUSY) << "once for each stream";
    ASSERT_EQ(get_parameters(session.get(), values), 0);
    EXPECT_EQ(values, source);
    EXPECT_EQ(put("migration/queues/value", "1"), EBUSY);
  }
  EXPECT_EQ(set_parameters(session.get(), source), ESHUTDOWN);
  EXPECT_EQ(text("migration/queues/value"), "8\n") << "the device keeps what it took over";
  EXPECT_EQ(text("migration/offload/value"), "on\n");
  EXPECT_EQ(text("migration/state_version/value"), "1\n");
}

}  // namespace
}  // namespace hookline::kernel_test
