// SPDX-License-Identifier: Apache-2.0
#include "diagnostics.hpp"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "utf8.hpp"

namespace hookline::loader {
namespace {

constexpr size_t kShownCharacters = 100;  // of a source line

// A line as it is shown, and where a byte of it came to stand.
struct Shown {
  std::string text;
  size_t caret = 0;   ///< characters before the mark
  size_t marked = 1;  ///< characters under the mark
};

struct Character {
  size_t at, length;  ///< length 0: a byte that is no character
};

std::vector<Character> characters(std::string_view text) {
  std::vector<Character> all;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    all.push_back({at, length});
    at += length ? length : 1;
  }
  return all;
}

void append_printable(std::string& to, std::string_view text, Character c) {
  if (text[c.at] == '\t')
    to += ' ';
  else if (is_printable(text, c.at, c.length))
    to += text.substr(c.at, c.length);
  else
    to += '?';
}

Shown show(std::string_view line, Mark where) {
  const std::vector<Character> all = characters(line);
  const size_t mark_at = where.column ? where.column - 1 : 0;
  const size_t mark_end = mark_at + std::max<uint32_t>(where.length, 1);
  size_t first_marked = 0, after_marked = 0;
  for (const Character& c : all) {
    if (c.at < mark_at) ++first_marked;
    if (c.at < mark_end) ++after_marked;
  }

  Shown shown;
  size_t begin = 0, end = all.size();
  if (all.size() > kShownCharacters) {
    begin = first_marked > kShownCharacters / 2 ? first_marked - kShownCharacters / 2 : 0;
    end = std::min(all.size(), begin + kShownCharacters);
  }
  if (begin > 0) shown.text = "...";
  shown.caret = shown.text.size() + first_marked - begin;
  for (size_t i = begin; i < end; ++i) append_printable(shown.text, line, all[i]);
  if (end < all.size()) shown.text += "...";
  const size_t last = std::min(after_marked, end);
  shown.marked = last > first_marked ? last - first_marked : 1;
  return shown;
}

}  // namespace

Source::Source(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
  starts_.push_back(0);
  for (size_t i = 0; i < text_.size(); ++i)
    if (text_[i] == '\n' && i + 1 < text_.size()) starts_.push_back(i + 1);
}

std::string_view Source::line(uint32_t number) const {
  if (number == 0 || number > starts_.size()) return {};
  const size_t begin = starts_[number - 1];
  size_t end = text_.find('\n', begin);
  if (end == std::string::npos) end = text_.size();
  if (end > begin && text_[end - 1] == '\r') --end;
  return std::string_view(text_).substr(begin, end - begin);
}

void Diagnostics::error(Mark where, std::string text, std::string hint, std::vector<std::string> notes) {
  add({Diagnostic::Kind::error, where, std::move(text), std::move(hint), std::move(notes)});
}

void Diagnostics::warning(Mark where, std::string text, std::string hint, std::vector<std::string> notes) {
  add({Diagnostic::Kind::warning, where, std::move(text), std::move(hint), std::move(notes)});
}

void Diagnostics::add(Diagnostic diagnostic) {
  if (!seen_.emplace(diagnostic.where.line, diagnostic.where.column, diagnostic.text).second) return;
  if (diagnostic.kind == Diagnostic::Kind::error) ++errors_;
  if (found_.size() < kKeptDiagnostics) found_.push_back(std::move(diagnostic));
}

std::vector<Diagnostic> Diagnostics::sorted() const {
  std::vector<Diagnostic> all = found_;
  std::stable_sort(all.begin(), all.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.where.line, a.where.column) < std::tie(b.where.line, b.where.column);
  });
  return all;
}

uint32_t column_in_characters(const Source& source, Mark where) {
  const std::string_view line = source.line(where.line);
  uint32_t column = 1;
  for (const Character& c : characters(line))
    if (c.at + 1 < where.column) ++column;
  // Past the end of the line every byte counts.
  if (where.column > line.size() + 1) column += static_cast<uint32_t>(where.column - line.size() - 1);
  return column;
}

std::string render(const Source& source, const Diagnostic& d, bool color) {
  const auto paint = [color](const char* code, std::string_view text) {
    return color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
  };
  const bool is_error = d.kind == Diagnostic::Kind::error;
  const std::string kind = is_error ? paint("1;31", "error:") : paint("1;35", "warning:");

  std::string place = printable(source.name(), 200);
  if (d.where.line) place += fmt::format(":{}:{}", d.where.line, column_in_characters(source, d.where));
  std::string out = fmt::format("{} {} {}\n", paint("1", place + ":"), kind, d.text);

  if (d.where.line) {
    const Shown shown = show(source.line(d.where.line), d.where);
    out += fmt::format("{:>4} | {}\n", d.where.line, shown.text);
    out += fmt::format("     | {}{}{}{}\n", std::string(shown.caret, ' '),
                       paint(is_error ? "1;31" : "1;35", "^" + std::string(shown.marked - 1, '~')), d.hint.empty() ? "" : " ",
                       d.hint);
  } else if (!d.hint.empty()) {
    out += fmt::format("     | {}\n", d.hint);
  }
  for (const std::string& note : d.notes) out += fmt::format("     | {}\n", note);
  return out;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  size_t count = 0;
  for (const Character& c : characters(text)) {
    if (count++ == limit) return out + "...";
    append_printable(out, text, c);
  }
  return out;
}

std::string closest(std::string_view word, const std::vector<std::string>& candidates) {
  // A word that long is no slip of the finger, and the table below would be large.
  if (word.size() > 64) return "";
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  std::string found;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > 64) continue;
    // Optimal string alignment: insert, delete, replace, or swap two neighbours.
    const size_t n = word.size(), m = candidate.size();
    std::vector<std::vector<size_t>> d(n + 1, std::vector<size_t>(m + 1));
    for (size_t i = 0; i <= n; ++i) d[i][0] = i;
    for (size_t j = 0; j <= m; ++j) d[0][j] = j;
    for (size_t i = 1; i <= n; ++i)
      for (size_t j = 1; j <= m; ++j) {
        const size_t replace = d[i - 1][j - 1] + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replace});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1])
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    if (d[n][m] < best) {
      best = d[n][m];
      found = candidate;
    }
  }
  return found;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string candidate = closest(word, candidates);
  return candidate.empty() ? "" : fmt::format("did you mean \"{}\"?", candidate);
}

}  // namespace hookline::loader
