// SPDX-License-Identifier: Apache-2.0
//
// YAML text to a tree that knows where each of its nodes stands. Stricter than YAML, because a configuration that means
// something else than it says is worse than none: duplicate keys, tags, a second document, control characters and broken
// UTF-8 are refused, and so is what only an attack needs (deep nesting, huge files, aliases that contain themselves or
// expand without end). The only user of yaml-cpp.
//
// Thread rule: plain values. Errors: in `diagnostics`; after a syntax error there is no tree.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "diagnostics.hpp"
#include "hookline/result.hpp"

namespace hookline::loader {

inline constexpr size_t kMaxConfigBytes = 1 << 20;
inline constexpr size_t kMaxConfigDepth = 32;
inline constexpr size_t kMaxConfigNodes = 20000;  ///< aliases counted as what they stand for

struct YamlNode;
using YamlPtr = std::shared_ptr<const YamlNode>;

struct YamlNode {
  enum class Kind { null, scalar, sequence, map };
  struct Entry {
    std::string key;
    Mark key_mark;
    YamlPtr value;
  };
  Kind kind = Kind::null;
  Mark where;
  std::string text;            ///< scalar
  bool quoted = false;         ///< scalar: in quotes or a block, so it can only be text
  std::vector<YamlPtr> items;  ///< sequence
  std::vector<Entry> entries;  ///< map, in the order of the file, each key once

  const Entry* find(std::string_view key) const;
};

/// The tree, or null when the text has none; see diagnostics.errors() before using it.
YamlPtr parse_yaml(const Source& source, Diagnostics& diagnostics);

/// The file's content; EFBIG above kMaxConfigBytes. The error's text does not name the file: a diagnostic does.
Result<std::string> read_config_file(const std::string& path);

}  // namespace hookline::loader
