// SPDX-License-Identifier: Apache-2.0
//
// make_seeds FOLDER: writes the streams of tests/fuzz/seeds, from the model of an 82576 VF with and without a
// driver, and a stream with every kind of section.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <hookline/compatibility.hpp>
#include <hookline/software_device.hpp>
#include <hookline/stream.hpp>

#include "tests/support/vf_driver.hpp"

namespace {

using namespace hookline;
using Bytes = std::vector<std::byte>;

void must(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().text);
}

void put(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  std::printf("%s: %zu bytes\n", path.c_str(), bytes.size());
}

class Bar final : public testing::BarPort {
 public:
  explicit Bar(SoftwareDevice& device) : device_(device) {}
  uint32_t read32(uint32_t offset) override { return device_.read32(0, offset).value(); }
  void write32(uint32_t offset, uint32_t value) override { must(device_.write32(0, offset, value)); }
  void pause() override {}

 private:
  SoftwareDevice& device_;
};

enum class Driver { none, busy, with_all_filters };

Bytes nic_state(Driver driver, const std::string& version = "2") {
  std::vector<Link> links;
  links.push_back(make_link(hookline_plugin_v1).value());
  Bytes memory(1 << 20);
  SoftwareDevice::Options options;
  options.parameters = {{"state_version", version}};
  options.memory = memory;
  options.grant = SoftwareDevice::Grant::read;
  auto device =
      SoftwareDevice::create(hookline_model_v1, build_chain(std::move(links)).value(), std::move(options))
          .value();
  Bar bar(*device);
  if (driver != Driver::none) {
    auto nic = testing::VfDriver::init(bar, {std::span(memory).first(testing::VfDriver::kMemoryBytes), 0},
                                       {.mac = {2, 0, 0, 0, 0, 1}});
    nic.set_vlan(5, true);
    if (driver == Driver::with_all_filters) {
      for (uint16_t vlan = 1; vlan <= 32; ++vlan) nic.set_vlan(vlan, true);
      for (uint32_t i = 0; i < 16; ++i) {
        const uint32_t add_address[] = {2 | 2u << 16, 2 | i << 8, 0x100};
        nic.request(add_address);
      }
      nic.set_max_frame(1400);
      nic.set_multicast_promiscuous(true);
    }
    const testing::MacAddress groups[] = {{1, 0, 0x5e, 0, 0, 1}};
    nic.set_multicast(groups);
    nic.send(Bytes(60, std::byte{1}), {.vlan = 5});
    const uint32_t message[] = {5, 1400};
    nic.post(message);
  }
  must(device->set_state(MigrationState::stop_copy));
  return device->save_all().value();
}

Bytes every_kind() {
  const Descriptor toy{.model = "com.example/toy",
                       .plugin = "toy",
                       .plugin_version = "1.0",
                       .emits = "toy-1",
                       .capabilities = {"stop_copy", "p2p", "pre_copy"},
                       .parameters = {{.name = "queues", .value = "1"}}};
  auto writer = StreamWriter::create(migration_version(toy).value()).value();
  Bytes out;
  const auto drain = [&] {
    const size_t at = out.size();
    out.resize(at + writer.pending());
    writer.take(std::span(out).subspan(at));
  };
  drain();
  const Bytes payload(40, std::byte{0x5a});
  for (const SectionFlags flags :
       {SectionFlags{}, SectionFlags{.optional = true}, SectionFlags{.bulk = true}}) {
    must(writer.section("toy/memory", flags, payload));
    drain();
  }
  must(writer.section("toy/none", {}, {}));
  drain();
  must(writer.finish());
  drain();
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  put(folder + "/nic-state/reset", nic_state(Driver::none));
  put(folder + "/nic-state/busy", nic_state(Driver::busy));
  put(folder + "/nic-state/version-1", nic_state(Driver::busy, "1"));
  put(folder + "/nic-state/all-filters", nic_state(Driver::with_all_filters));
  put(folder + "/stream/every-kind", every_kind());
}
