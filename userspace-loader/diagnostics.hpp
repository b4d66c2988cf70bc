// SPDX-License-Identifier: Apache-2.0
//
// What is wrong in a file, said so that nobody has to search: place, the line itself, a caret, what would be right.
//
//     nics.yaml:14:17: error: unknown plugin "nic-82567"
//       14 |       - plugin: nic-82567
//          |                 ^~~~~~~~~ did you mean "nic-82576"?
//          | plugins are searched in /usr/lib/hookline/plugins; `hookline plugins` lists them
//
// Whatever a file holds (control characters, broken UTF-8, endless lines), what is printed is printable and short.
// Thread rule: plain values, one thread at a time. Errors: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace hookline::loader {

/// A place in a file. Line and column count from 1, column and length in bytes; line 0: the file as a whole.
struct Mark {
  uint32_t line = 0;
  uint32_t column = 0;
  uint32_t length = 1;
};

/// A text with a name, by lines.
class Source {
 public:
  Source(std::string name, std::string text);
  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }
  /// Line `number` without its end; empty past the last.
  std::string_view line(uint32_t number) const;
  uint32_t lines() const { return static_cast<uint32_t>(starts_.size()); }

 private:
  std::string name_, text_;
  std::vector<size_t> starts_;
};

struct Diagnostic {
  enum class Kind { error, warning };
  Kind kind = Kind::error;
  Mark where{};
  std::string text{};                ///< what is wrong
  std::string hint{};                ///< what would be right; stands behind the caret
  std::vector<std::string> notes{};  ///< one line each
};

inline constexpr size_t kKeptDiagnostics = 100;

/// All that was found in one file, the first kKeptDiagnostics in full; the same thing at the same place is kept once (an alias is seen once per use).
class Diagnostics {
 public:
  void error(Mark where, std::string text, std::string hint = "", std::vector<std::string> notes = {});
  void warning(Mark where, std::string text, std::string hint = "", std::vector<std::string> notes = {});
  /// How many there were, kept or not.
  size_t errors() const { return errors_; }
  /// Those that were kept, in the order of the file.
  std::vector<Diagnostic> sorted() const;

 private:
  void add(Diagnostic diagnostic);
  std::vector<Diagnostic> found_;
  std::set<std::tuple<uint32_t, uint32_t, std::string>> seen_;
  size_t errors_ = 0;
};

/// The text shown above, ending in a newline; `color` adds terminal colours.
std::string render(const Source& source, const Diagnostic& diagnostic, bool color);

/// Column as people count it: characters, not bytes.
uint32_t column_in_characters(const Source& source, Mark where);

/// `text` fit for a terminal and for quoting: control characters and broken UTF-8 become '?', at most `limit` characters.
std::string printable(std::string_view text, size_t limit = 60);

/// The candidate that `word` probably meant, or empty: few edits away, counted after the manner of Damerau.
std::string closest(std::string_view word, const std::vector<std::string>& candidates);
/// `did you mean "x"?` for the closest candidate, or empty.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace hookline::loader
