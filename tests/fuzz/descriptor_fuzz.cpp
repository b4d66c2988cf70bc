// SPDX-License-Identifier: Apache-2.0
//
// Descriptions of devices and the rules over them: no text crashes the reader, what it takes can be written
// and is read as the same, and the rules answer the same question the same way.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <hookline/compatibility.hpp>

namespace {

using namespace hookline;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "descriptor_fuzz: %s\n", what);
  std::abort();
}

bool printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

const Descriptor kOther{
    .model = "com.example/toy",
    .plugin = "toy",
    .plugin_version = "2.0",
    .emits = "2",
    .reads = std::vector<std::string>{"1", "2"},
    .capabilities = {"stop_copy", "p2p", "pre_copy"},
    .parameters = {
        {.name = "state_version",
         .value = "2",
         .init_value = "2",
         .off_value = "1",
         .allowed_values = "1|2",
         .runtime = true,
         .version = true},
        {.name = "queues", .value = "4", .init_value = "4", .off_value = "1", .allowed_values = "1-8"}}};

void judge(const Descriptor& source, const Descriptor& dest) {
  const Verdict verdict = check_compatibility(source, dest);
  require(verdict == check_compatibility(source, dest), "the rules change their mind");
  require(verdict.reasons.empty() == (verdict.answer == Answered::yes),
          "a no without a reason, or a reason for a yes");
  require(printable(to_text(verdict)), "a reason that is not printable");
  if (verdict.answer != Answered::yes) return;
  require(values_for(source, dest).size() == dest.parameters.size(), "a parameter without a value");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto read = parse_descriptor(text);
  if (!read) {
    require(printable(read.error().text) && read.error().text.size() < 10000,
            "a refusal that does not fit into a log");
    return 0;
  }
  const auto again = parse_descriptor(migration_info(*read));
  require(again && *again == *read, "what was written is not what was read");
  if (const auto version = migration_version(*read)) {
    require(version->size() <= kMaxMigrationVersion && printable(*version),
            "a migration_version that sysfs cannot show");
    const auto brief = parse_descriptor(*version);
    require(brief.has_value(), "a migration_version that is not read");
    const auto same = migration_version(*brief);
    require(same && *same == *version, "a migration_version that is read as another one");
  }
  judge(*read, kOther);
  judge(kOther, *read);
  judge(*read, *read);
  return 0;
}
