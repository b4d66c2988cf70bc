// SPDX-License-Identifier: Apache-2.0
#include "plugin_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "diagnostics.hpp"

namespace hookline::loader {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr std::string_view kSymbolStem = "hookline_plugin_v";
constexpr uint64_t kMaxSymbolName = 64;  // with its NUL

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#else
#error "add the machine's number of elf.h"
#endif

std::string machine_name(uint16_t machine) {
  switch (machine) {
    case EM_X86_64: return "x86-64";
    case EM_AARCH64: return "AArch64";
    case EM_386: return "i386";
    case EM_PPC64: return "PowerPC 64";
    case EM_RISCV: return "RISC-V";
    case EM_S390: return "S/390";
    default: return fmt::format("machine number {}", machine);
  }
}

std::string shown(const std::string& path) { return printable(path, 300); }

// The bytes of a file; whatever offsets the file claims, nothing outside is read.
class Bytes {
 public:
  explicit Bytes(std::string data) : data_(std::move(data)) {}
  size_t size() const { return data_.size(); }

  template <typename T>
  std::optional<T> at(uint64_t offset) const {
    T value;
    if (offset > data_.size() || data_.size() - offset < sizeof(T)) return std::nullopt;
    std::memcpy(&value, data_.data() + offset, sizeof(T));
    return value;
  }

  /// The NUL-terminated text at `offset`, which ends before `end`.
  std::optional<std::string_view> text(uint64_t offset, uint64_t end) const {
    if (end > data_.size() || offset >= end) return std::nullopt;
    const void* nul = std::memchr(data_.data() + offset, 0, end - offset);
    if (!nul) return std::nullopt;
    return std::string_view(data_.data() + offset);
  }

 private:
  std::string data_;
};

Result<Bytes> read_file(const std::string& path) {
  const auto failed = [&](int code) { return fail(code, fmt::format("{}: {}", shown(path), std::strerror(code))); };
  // Without O_NONBLOCK a FIFO of that name would be waited for.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed(errno);
  struct stat st = {};
  int code = fstat(fd, &st) < 0 ? errno : 0;
  if (!code && !S_ISREG(st.st_mode)) code = S_ISDIR(st.st_mode) ? EISDIR : ENOEXEC;
  std::string data;
  if (!code && static_cast<uint64_t>(st.st_size) > kMaxFileBytes) code = EFBIG;
  if (!code) data.resize(static_cast<size_t>(st.st_size));
  for (size_t done = 0; !code && done < data.size();) {
    const ssize_t got = pread(fd, data.data() + done, data.size() - done, static_cast<off_t>(done));
    if (got > 0)
      done += static_cast<size_t>(got);
    else if (got == 0)
      data.resize(done);
    else if (errno != EINTR)
      code = errno;
  }
  close(fd);
  if (code == ENOEXEC) return fail(code, fmt::format("{}: not a regular file", shown(path)));
  if (code) return failed(code);
  return Bytes(std::move(data));
}

struct Symbol {
  Elf64_Sym entry = {};
  std::string name;
};

// The first defined data object whose name is that of a plugin of any ABI, ours preferred. One table of symbols, as a file has
// it, and short names only: how long this takes, the file does not decide.
std::optional<Symbol> find_symbol(const Bytes& file, const Elf64_Ehdr& header) {
  std::optional<Symbol> found;
  for (uint16_t i = 0; i < header.e_shnum; ++i) {
    const auto section = file.at<Elf64_Shdr>(header.e_shoff + uint64_t{i} * sizeof(Elf64_Shdr));
    if (!section || section->sh_type != SHT_DYNSYM) continue;
    const auto strings = file.at<Elf64_Shdr>(header.e_shoff + uint64_t{section->sh_link} * sizeof(Elf64_Shdr));
    if (!strings || strings->sh_offset > file.size() || strings->sh_size > file.size() - strings->sh_offset) continue;
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= section->sh_size; at += sizeof(Elf64_Sym)) {
      const auto entry = file.at<Elf64_Sym>(section->sh_offset + at);
      if (!entry) break;
      if (entry->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(entry->st_info) != STT_OBJECT) continue;
      const uint64_t begin = strings->sh_offset + entry->st_name, end = strings->sh_offset + strings->sh_size;
      const auto name = file.text(begin, std::min(end, begin + kMaxSymbolName));
      if (!name || name->substr(0, kSymbolStem.size()) != kSymbolStem) continue;
      if (*name == HOOKLINE_PLUGIN_SYMBOL) return Symbol{*entry, std::string(*name)};
      if (!found) found = Symbol{*entry, std::string(*name)};
    }
    return found;
  }
  return std::nullopt;
}

struct Feature {
  uint64_t bit;
  const char* name;
};
constexpr std::array kFeatures = {
    Feature{HOOKLINE_REQUIRE_IOVA_READ, "reading guest memory"},
    Feature{HOOKLINE_REQUIRE_PF, "requests to the PF"},
    Feature{HOOKLINE_REQUIRE_PARAMETERS, "migration parameters"},
    Feature{HOOKLINE_REQUIRE_BULK, "bulk sections"},
};

std::string feature_names(uint64_t bits) {
  std::string names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if (!(bits >> bit & 1)) continue;
    if (!names.empty()) names += ", ";
    names += fmt::format("feature bit {}", bit);
    for (const Feature& feature : kFeatures)
      if (feature.bit == uint64_t{1} << bit) names += fmt::format(" ({})", feature.name);
  }
  return names;
}

std::optional<std::string> who_could_write(const struct stat& st) {
  if (st.st_uid != 0 && st.st_uid != geteuid()) return fmt::format("belongs to user {}", st.st_uid);
  // In a sticky folder nobody can replace the file of another.
  if ((st.st_mode & S_IWOTH) && !(S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX))) return std::string("is writable for everybody");
  return std::nullopt;
}

}  // namespace

Result<void> check_trusted(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  struct Place {
    const std::string& path;
    const char* what;
  };
  for (const Place& place : {Place{path, "it"}, Place{folder, "its folder"}}) {
    struct stat st = {};
    if (stat(place.path.c_str(), &st) < 0) {
      const int code = errno;
      return fail(code, fmt::format("{}: {}", shown(path), std::strerror(code)));
    }
    if (const auto why = who_could_write(st))
      return fail(EPERM, fmt::format("{}: not trusted: {} {}; plugins belong to root or to you and only their owner may write "
                                     "them (--allow-untrusted loads it all the same)",
                                     shown(path), place.what, *why));
  }
  return {};
}

Result<void> check_abi(const std::string& path, const hookline_abi& abi, uint64_t object_size) {
  if (abi.magic != HOOKLINE_ABI_MAGIC)
    return fail(ENOEXEC, fmt::format("{}: its {} is no plugin object: it opens with 0x{:08x} instead of 0x{:08x}; start it with "
                                     "HOOKLINE_ABI (C) or HOOKLINE_PLUGIN (C++)",
                                     shown(path), HOOKLINE_PLUGIN_SYMBOL, abi.magic, HOOKLINE_ABI_MAGIC));
  if (abi.major != HOOKLINE_ABI_MAJOR)
    return fail(ENOEXEC,
                fmt::format("{}: built for plugin ABI {}.{}, this hookline speaks {}.{}; rebuild it against hookline/plugin.h "
                            "{}.x{}",
                            shown(path), abi.major, abi.minor, HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR, HOOKLINE_ABI_MAJOR,
                            abi.major > HOOKLINE_ABI_MAJOR ? " or install a newer hookline" : ""));
  if (abi.size < sizeof(hookline_abi) || abi.size > object_size)
    return fail(ENOEXEC, fmt::format("{}: its plugin object says it has {} bytes, the file has {} for it; set abi.size to "
                                     "sizeof(struct hookline_plugin)",
                                     shown(path), abi.size, object_size));
  if (const uint64_t lacking = abi.required & ~HOOKLINE_HOST_FEATURES)
    return fail(ENOEXEC, fmt::format("{}: requires {} of its host, which this hookline (plugin ABI {}.{}) does not have; install "
                                     "a newer hookline",
                                     shown(path), feature_names(lacking), HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR));
  return {};
}

Result<PluginFile> inspect_plugin_file(const std::string& path) {
  auto read = read_file(path);
  if (!read) return fail(read.error());
  const Bytes& file = *read;
  const auto refuse = [&](const std::string& why) { return fail(ENOEXEC, fmt::format("{}: {}", shown(path), why)); };

  const auto ident = file.at<std::array<unsigned char, EI_NIDENT>>(0);
  if (!ident || std::memcmp(ident->data(), ELFMAG, SELFMAG) != 0)
    return refuse("not a shared library (no ELF file); a plugin is built with hookline_add_plugin() or `cc -shared`");
  if ((*ident)[EI_CLASS] != ELFCLASS64 || (*ident)[EI_DATA] != ELFDATA2LSB)
    return refuse("not a 64-bit little-endian library; build it for " + machine_name(kMachine));
  const auto header = file.at<Elf64_Ehdr>(0);
  if (!header) return refuse("the ELF file is cut off; copy it again");
  if (header->e_machine != kMachine)
    return refuse(fmt::format("built for {}, this machine is {}; build it for {}", machine_name(header->e_machine),
                              machine_name(kMachine), machine_name(kMachine)));
  if (header->e_type != ET_DYN || header->e_phentsize != sizeof(Elf64_Phdr) || header->e_shentsize != sizeof(Elf64_Shdr))
    return refuse("an ELF file, but not a shared library; link it with -shared");
  if (header->e_shoff > file.size() || uint64_t{header->e_shnum} * sizeof(Elf64_Shdr) > file.size() - header->e_shoff ||
      header->e_phoff > file.size() || uint64_t{header->e_phnum} * sizeof(Elf64_Phdr) > file.size() - header->e_phoff)
    return refuse("the ELF file is cut off; copy it again");

  const auto symbol = find_symbol(file, *header);
  if (!symbol)
    return refuse(fmt::format("exports no {}, so it is no plugin; declare one with HOOKLINE_PLUGIN", HOOKLINE_PLUGIN_SYMBOL));

  PluginFile plugin;
  plugin.path = path;
  plugin.symbol_address = symbol->entry.st_value;
  plugin.symbol_size = symbol->entry.st_size;
  std::optional<hookline_abi> abi;
  for (uint16_t i = 0; i < header->e_phnum; ++i) {
    const auto segment = file.at<Elf64_Phdr>(header->e_phoff + uint64_t{i} * sizeof(Elf64_Phdr));
    if (!segment || segment->p_type != PT_LOAD) continue;
    plugin.segments.push_back({segment->p_vaddr, segment->p_memsz});
    if (plugin.symbol_address < segment->p_vaddr) continue;
    const uint64_t into = plugin.symbol_address - segment->p_vaddr;
    if (into > segment->p_filesz || segment->p_filesz - into < sizeof(hookline_abi)) continue;
    if (into > segment->p_memsz || segment->p_memsz - into < plugin.symbol_size) continue;
    abi = file.at<hookline_abi>(segment->p_offset + into);
  }
  if (!abi || plugin.symbol_size < sizeof(hookline_abi))
    return refuse(fmt::format("its {} has no initialised data in the file; make it a constant (constinit in C++)", symbol->name));
  plugin.abi = *abi;

  if (symbol->name != HOOKLINE_PLUGIN_SYMBOL) {
    // Another major version; its number stands in the name and, frozen for ever, in the header.
    unsigned major = 0;
    const std::string_view number = std::string_view(symbol->name).substr(kSymbolStem.size());
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), major);
    if (error != std::errc() || end != number.data() + number.size() || plugin.abi.major != major || major == HOOKLINE_ABI_MAJOR)
      return refuse(fmt::format("exports {} instead of {}; declare it with HOOKLINE_PLUGIN", printable(symbol->name),
                                HOOKLINE_PLUGIN_SYMBOL));
  }
  if (auto ok = check_abi(path, plugin.abi, plugin.symbol_size); !ok) return fail(ok.error());
  return plugin;
}

}  // namespace hookline::loader
