// SPDX-License-Identifier: Apache-2.0
//
// Files that were damaged, and files somebody else could have written. What is said of whole files that are wrong is pinned
// by tests/golden/describe.
#include "plugin_file.hpp"

#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugin_library.hpp"

namespace hookline::loader {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PluginFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "hookline.XXXXXX";
    ASSERT_TRUE(mkdtemp(name.data()));
    folder_ = name;
    std::ifstream file(HOOKLINE_TOY, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    good_ = bytes.str();
    ASSERT_GT(good_.size(), sizeof(Elf64_Ehdr));
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& bytes) {
    const std::string path = folder_ / "log-toy.so";
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  fs::path folder_;
  std::string good_;
};

TEST_F(PluginFileTest, AGoodFileIsUnderstoodWithoutLoadingIt) {
  const auto file = inspect_plugin_file(write(good_));
  ASSERT_TRUE(file) << file.error().text;
  EXPECT_EQ(file->abi.magic, HOOKLINE_ABI_MAGIC);
  EXPECT_EQ(file->abi.size, sizeof(hookline_plugin));
  EXPECT_GE(file->symbol_size, sizeof(hookline_plugin));
  EXPECT_FALSE(file->segments.empty());
}

TEST_F(PluginFileTest, EveryCutIsRefused) {
  // The section headers stand at the end: without them no symbol is found, so that no cut can pass.
  for (size_t length = 0; length < good_.size(); length += length < 4096 ? 1 : 997) {
    const auto file = inspect_plugin_file(write(good_.substr(0, length)));
    ASSERT_FALSE(file) << length;
    EXPECT_EQ(file.error().code, ENOEXEC);
  }
}

TEST_F(PluginFileTest, DamagedHeadersAreReadWithinTheFile) {
  // Offsets, counts and sizes of the ELF structures, set to what hurts most. No verdict is expected: only that there is one.
  std::mt19937_64 random(1);
  Elf64_Ehdr header;
  std::memcpy(&header, good_.data(), sizeof(header));
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good_;
    for (int edits = 0; edits < 3; ++edits) {
      const uint64_t where[] = {0, header.e_phoff, header.e_shoff};
      const uint64_t span[] = {sizeof(header), uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), uint64_t{header.e_shnum} * sizeof(Elf64_Shdr)};
      const size_t part = random() % 3;
      const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_MAX / 2, bytes.size(), bytes.size() - 1, random()};
      const uint64_t value = values[random() % std::size(values)];
      const size_t width = size_t{1} << random() % 4;
      const uint64_t at = where[part] + random() % span[part] / width * width;
      if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &value, width);
    }
    const auto file = inspect_plugin_file(write(bytes));
    if (!file) {
      EXPECT_THAT(file.error().text, HasSubstr("log-toy.so: "));
    }
  }
}

// Each table of symbols of a file with thousands of them could be as long as the file.
TEST_F(PluginFileTest, RL4_OnlyTheFirstTableOfSymbolsIsSearched) {
  std::string bytes = good_;
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  Elf64_Shdr empty{};
  empty.sh_type = SHT_DYNSYM;
  std::memcpy(bytes.data() + header.e_shoff, &empty, sizeof empty);  // section 0 stands before all others
  const std::string path = write(bytes);
  const auto file = inspect_plugin_file(path);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().text, HasSubstr("exports no hookline_plugin_v1"));
}

// Each name of a symbol could be as long as the file.
TEST_F(PluginFileTest, RL4_ANameOfASymbolIsReadToItsLongestOnly) {
  std::string bytes = good_;
  const size_t name = bytes.find("hookline_plugin_v1");
  ASSERT_NE(name, std::string::npos);
  // The last text of its table would be read to the file's end if its NUL were missing.
  for (size_t at = name + 18; at < name + 18 + 64 && at < bytes.size(); ++at) bytes[at] = 'x';
  const auto file = inspect_plugin_file(write(bytes));
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().text, HasSubstr("exports no hookline_plugin_v1"));
}

TEST_F(PluginFileTest, AForeignMachinesFileIsRefusedByName) {
  std::string bytes = good_;
  const uint16_t machine = EM_S390;
  std::memcpy(bytes.data() + offsetof(Elf64_Ehdr, e_machine), &machine, sizeof(machine));
  const std::string path = write(bytes);
#if defined(__x86_64__)
  EXPECT_EQ(inspect_plugin_file(path).error().text, path + ": built for S/390, this machine is x86-64; build it for x86-64");
#else
  EXPECT_THAT(inspect_plugin_file(path).error().text, HasSubstr("built for S/390"));
#endif
}

TEST_F(PluginFileTest, WhatEverybodyMayWriteIsNotTrusted) {
  const std::string path = write(good_);
  ASSERT_TRUE(check_trusted(path)) << check_trusted(path).error().text;
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  EXPECT_EQ(check_trusted(path).error().text,
            path + ": not trusted: it is writable for everybody; plugins belong to root or to you and only their owner may write them "
                   "(--allow-untrusted loads it all the same)");
  const auto refused = load_plugin(path, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EPERM);
  EXPECT_TRUE(load_plugin(path, {.allow_untrusted = true}));

  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  ASSERT_EQ(chmod(folder_.c_str(), 0777), 0);
  EXPECT_THAT(check_trusted(path).error().text, HasSubstr("not trusted: its folder is writable for everybody"));
  ASSERT_EQ(chmod(folder_.c_str(), 01777), 0);  // sticky, as /tmp
  EXPECT_TRUE(check_trusted(path));
}

TEST_F(PluginFileTest, WhatBelongsToAnotherUserIsNotTrusted) {
  if (geteuid() != 0) GTEST_SKIP() << "giving a file away needs root; run the test as root";
  const std::string path = write(good_);
  ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
  EXPECT_THAT(check_trusted(path).error().text, HasSubstr("not trusted: it belongs to user 12345"));
}

TEST_F(PluginFileTest, AFifoIsNotWaitedFor) {
  const std::string path = folder_ / "log-toy.so";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(inspect_plugin_file(path).error().text, path + ": not a regular file");
}

}  // namespace
}  // namespace hookline::loader
