// SPDX-License-Identifier: Apache-2.0
//
// The only program of the inner guest: process 1 of its initramfs, linked statically. Sets up the interfaces that the
// kernel's command line names, keeps traffic on them going, and says once a second on the console what happened:
//
//     HL {"t": 12.0, "nics": [{"name": "eth0", "out_ok": 65536, ...}], "driver": 0, ...}
//
// Command line:  nic=10.0.2.20,52:54:00:aa:00:01,10.0.2.100   for eth0, again for eth1: address, MAC, TCP echo server
// Console input: "rate N" bytes a second outbound; "changes N" a change for the mailbox each N ms, 0 none; "rescan" PCI;
//                "hold 1" leaves what comes in where the device has put it, "hold 0" reads it
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nic.hpp"
#include "streams.hpp"

namespace hookline::guest {
namespace {

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

void write_file(const char* path, const char* text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, text, std::strlen(text)) < 0) std::perror(path);
  close(fd);
}

struct Interface {
  Nic nic;
  std::unique_ptr<Streams> streams{};
};

class Guest {
 public:
  Guest() {
    for (const char* folder : {"/dev", "/proc", "/sys"}) mkdir(folder, 0755);
    mount("proc", "/proc", "proc", 0, nullptr);
    mount("sys", "/sys", "sysfs", 0, nullptr);
    mknod("/dev/ttyS0", S_IFCHR | 0600, makedev(4, 64));
    mknod("/dev/kmsg", S_IFCHR | 0600, makedev(1, 11));
    console_ = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK);
    termios settings{};
    tcgetattr(console_, &settings);
    cfmakeraw(&settings);
    tcsetattr(console_, TCSANOW, &settings);
    kernel_log_ = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    // A changed MAC is told to the neighbours.
    write_file("/proc/sys/net/ipv4/conf/all/arp_notify", "1");
    write_file("/proc/sys/net/ipv4/conf/default/arp_notify", "1");
    // What waits twice as long after each attempt is long behind a guest that runs again.
    write_file("/proc/sys/net/ipv4/tcp_rto_max_ms", "1000");
    read_command_line();
  }

  [[noreturn]] void run() {
    double report = now(), change = 0;
    say("HL up");
    for (;;) {
      std::vector<pollfd> polls{{console_, POLLIN, 0}};
      for (const Interface& i : interfaces_)
        if (i.streams) i.streams->add_to(polls);
      poll(polls.data(), polls.size(), 50);
      const double t = now();
      for (Interface& i : interfaces_) {
        if (!i.streams && t >= look_ && i.nic.exists()) begin(i);
        if (i.streams) i.streams->work(t, rate_);
      }
      if (t >= look_) look_ = t + 0.2;
      if (change_every_ > 0 && t >= change) {
        change = t + change_every_;
        make_change();
      }
      hear_console();
      if (t >= report) {
        report += 1;
        if (report < t) report = t + 1;
        read_kernel_log();
        tell(t);
      }
    }
  }

 private:
  void say(const std::string& text) {
    std::string line = text + "\n";
    // A console that nobody reads must not stop the traffic.
    for (unsigned tries = 0; !line.empty() && tries < 200; ++tries) {
      const ssize_t done = write(console_, line.data(), line.size());
      if (done > 0) line.erase(0, static_cast<size_t>(done));
      else usleep(1000);
    }
  }

  void begin(Interface& i) {
    if (!i.nic.set_up()) {
      say("HL failed: " + i.nic.settings().name + ": " + std::strerror(errno));
      look_ = now() + 1;
      return;
    }
    i.streams = std::make_unique<Streams>(i.nic.settings(), pattern_);
    say("HL set up " + i.nic.settings().name);
  }

  void make_change() {
    for (Interface& i : interfaces_) {
      if (!i.streams) continue;
      ++changes_;
      if (!i.nic.change()) {
        ++failed_changes_;
        say("HL change failed: " + i.nic.settings().name + ": " + std::strerror(errno));
      }
    }
  }

  void hear_console() {
    char text[128];
    const ssize_t got = read(console_, text, sizeof text);
    if (got > 0) heard_.append(text, static_cast<size_t>(got));
    for (size_t end; (end = heard_.find('\n')) != std::string::npos; heard_.erase(0, end + 1)) {
      unsigned long number = 0;
      const std::string line = heard_.substr(0, end);
      if (std::sscanf(line.c_str(), "rate %lu", &number) == 1) rate_ = static_cast<double>(number);
      if (std::sscanf(line.c_str(), "changes %lu", &number) == 1) change_every_ = static_cast<double>(number) / 1000;
      if (std::sscanf(line.c_str(), "hold %lu", &number) == 1)
        for (Interface& i : interfaces_)
          if (i.streams) i.streams->hold_inbound(number != 0);
      if (line == "rescan") write_file("/sys/bus/pci/rescan", "1");
      say("HL done: " + line);
    }
  }

  // What the network driver says after the set-up is a reset, a hang or a lost link.
  void read_kernel_log() {
    char record[1024];
    ssize_t got;
    while ((got = read(kernel_log_, record, sizeof record - 1)) > 0) {
      record[got] = 0;
      const char* text = std::strchr(record, ';');
      if (!text) continue;
      const std::string line(text + 1, std::strcspn(text + 1, "\n"));
      const bool link = line.find("Link is") != std::string::npos;
      if (!link && line.find("igbvf") == std::string::npos && line.find("WATCHDOG") == std::string::npos) continue;
      if (!link) ++driver_;
      say("HL kernel: " + line);
    }
  }

  void tell(double t) {
    char text[512];
    std::snprintf(text, sizeof text, "HL {\"t\": %.1f, \"driver\": %llu, \"changes\": %llu, \"failed_changes\": %llu, \"nics\": [", t,
                  driver_, changes_, failed_changes_);
    std::string line = text;
    const char* separator = "";
    for (const Interface& i : interfaces_) {
      if (!i.streams) continue;
      const StreamCounts& c = i.streams->counts();
      std::snprintf(text, sizeof text,
                    "%s{\"name\": \"%s\", \"out_ok\": %lu, \"out_wrong\": %lu, \"in_ok\": %lu, \"in_wrong\": %lu, \"broken\": %lu, "
                    "\"datagrams\": %lu, \"multicasts\": %lu, \"interrupts\": %lu, \"link_changes\": %lu}",
                    separator, i.nic.settings().name.c_str(), c.out_ok, c.out_wrong, c.in_ok, c.in_wrong, c.broken, c.datagrams,
                    c.multicasts, i.nic.interrupts(), i.nic.link_changes());
      line += text;
      separator = ", ";
    }
    say(line + "]}");
  }

  void read_command_line() {
    FILE* file = std::fopen("/proc/cmdline", "re");
    char word[256];
    while (file && std::fscanf(file, "%255s", word) == 1) {
      char address[32], mac[32], echo[32];
      if (std::sscanf(word, "nic=%31[^,],%31[^,],%31s", address, mac, echo) != 3) continue;
      NicSettings nic{.name = "eth" + std::to_string(interfaces_.size())};
      unsigned b[6];
      if (inet_pton(AF_INET, address, &nic.address) != 1 || inet_pton(AF_INET, echo, &nic.echo) != 1 ||
          std::sscanf(mac, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6) {
        say(std::string("HL failed: cannot understand ") + word);
        continue;
      }
      for (size_t i = 0; i < 6; ++i) nic.mac[i] = static_cast<uint8_t>(b[i]);
      interfaces_.push_back({Nic(std::move(nic))});
    }
    if (file) std::fclose(file);
  }

  Pattern pattern_;
  std::vector<Interface> interfaces_;
  int console_ = -1, kernel_log_ = -1;
  std::string heard_;
  double rate_ = 8192, change_every_ = 0, look_ = 0;
  unsigned long long driver_ = 0, changes_ = 0, failed_changes_ = 0;
};

}  // namespace
}  // namespace hookline::guest

int main() {
  std::signal(SIGPIPE, SIG_IGN);
  static hookline::guest::Guest guest;
  guest.run();
}
