// SPDX-License-Identifier: Apache-2.0
#include "config_parse.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <sstream>
#include <vector>

#include <fmt/format.h>
#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "utf8.hpp"

namespace hookline::loader {
namespace {

Mark to_mark(const YAML::Mark& mark) {
  return {static_cast<uint32_t>(mark.line + 1), static_cast<uint32_t>(mark.column + 1), 1};
}

// How many bytes of its line a scalar covers, so that all of it is underlined.
uint32_t scalar_length(std::string_view rest, const std::string& value) {
  if (rest.empty()) return 1;
  if (rest.front() == '"' || rest.front() == '\'') {
    const char quote = rest.front();
    for (size_t i = 1; i < rest.size(); ++i) {
      if (quote == '"' && rest[i] == '\\')
        ++i;
      else if (rest[i] == quote)
        return static_cast<uint32_t>(i + 1);
    }
    return static_cast<uint32_t>(rest.size());
  }
  if (!value.empty() && rest.substr(0, value.size()) == value) return static_cast<uint32_t>(value.size());
  return 1;
}

// Thrown after an error that makes going on pointless; the error has been reported.
struct GiveUp {};

// yaml-cpp's events to our tree. Its own nodes would hide duplicate keys and where aliases lead.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const Source& source, Diagnostics& diagnostics) : source_(source), diagnostics_(diagnostics) {}

  YamlPtr root() const { return root_.node; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ == 0) return;
    diagnostics_.error(to_mark(mark), "a second document in this file", "one file is one configuration: remove the \"---\"");
    throw GiveUp();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto node = std::make_shared<YamlNode>();
    node->where = place(mark);
    leaf(std::move(node), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    auto node = std::make_shared<YamlNode>();
    node->kind = YamlNode::Kind::scalar;
    node->where = place(mark);
    node->where.length = scalar_length(rest_of_line(node->where), value);
    node->text = value;
    node->quoted = tag == "!";
    refuse_tag(mark, tag);
    leaf(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      diagnostics_.error(to_mark(mark), "this alias stands inside of what it is an alias for",
                         "write out what is meant here");
      throw GiveUp();
    }
    count(found->second.nodes, mark);
    limit_depth(open_.size() + found->second.depth, mark);
    put(found->second, to_mark(mark));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(YamlNode::Kind::sequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    begin(YamlNode::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Subtree {
    YamlPtr node;
    size_t nodes = 1;  // aliases counted as what they stand for
    size_t depth = 0;  // of lists and maps
  };
  struct Open {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor = 0;
    size_t nodes = 1;
    size_t depth = 1;
    std::optional<YamlNode::Entry> key;             // of the value that comes next
    bool key_is_word = true;
    std::map<std::string, Mark, std::less<>> keys;  // first place of each
  };

  std::string_view rest_of_line(Mark where) const {
    const std::string_view line = source_.line(where.line);
    return where.column <= line.size() ? line.substr(where.column - 1) : std::string_view();
  }

  // Where the node itself stands, behind its anchor and tag.
  Mark place(const YAML::Mark& mark) const {
    Mark where = to_mark(mark);
    for (std::string_view rest = rest_of_line(where); !rest.empty() && (rest[0] == '&' || rest[0] == '!');
         rest = rest_of_line(where)) {
      const size_t blank = rest.find(' ');
      const size_t next = blank == std::string_view::npos ? blank : rest.find_first_not_of(' ', blank);
      if (next == std::string_view::npos) break;
      where.column += static_cast<uint32_t>(next);
    }
    return where;
  }

  void count(size_t nodes, const YAML::Mark& mark) {
    total_ += nodes;
    if (total_ <= kMaxConfigNodes) return;
    diagnostics_.error(to_mark(mark),
                       fmt::format("more than {} values, aliases counted as what they stand for", kMaxConfigNodes),
                       "split the file");
    throw GiveUp();
  }

  void limit_depth(size_t depth, const YAML::Mark& mark) {
    if (depth <= kMaxConfigDepth) return;
    diagnostics_.error(to_mark(mark), fmt::format("nested more than {} deep", kMaxConfigDepth));
    throw GiveUp();
  }

  void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    diagnostics_.error(to_mark(mark), fmt::format("the tag \"{}\"", printable(tag)), "tags mean nothing here: remove it");
  }

  void leaf(std::shared_ptr<YamlNode> node, YAML::anchor_t anchor) {
    const Mark where = node->where;
    count(1, YAML::Mark());
    Subtree subtree{std::move(node), 1, 0};
    if (anchor) anchors_[anchor] = subtree;
    put(subtree, where);
  }

  void begin(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    refuse_tag(mark, tag);
    count(1, mark);
    limit_depth(open_.size() + 1, mark);
    Open open;
    open.node = std::make_shared<YamlNode>();
    open.node->kind = kind;
    open.node->where = place(mark);
    open.anchor = anchor;
    open_.push_back(std::move(open));
  }

  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    const Subtree subtree{done.node, done.nodes, done.depth};
    if (done.anchor) anchors_[done.anchor] = subtree;
    put(subtree, done.node->where);
  }

  // A finished node takes its place in the one around it; `used_at` is where, which for an alias is not where it stands.
  void put(const Subtree& subtree, Mark used_at) {
    if (open_.empty()) {
      root_ = subtree;
      return;
    }
    Open& parent = open_.back();
    parent.nodes += subtree.nodes;
    parent.depth = std::max(parent.depth, subtree.depth + 1);
    if (parent.node->kind == YamlNode::Kind::sequence) {
      parent.node->items.push_back(subtree.node);
    } else if (!parent.key) {
      parent.key = YamlNode::Entry{subtree.node->text, used_at, nullptr};
      parent.key_is_word = subtree.node->kind == YamlNode::Kind::scalar;
      if (!parent.key_is_word) diagnostics_.error(used_at, "a key that is no plain word");
    } else {
      YamlNode::Entry entry = std::move(*parent.key);
      parent.key.reset();
      if (!parent.key_is_word) return;
      entry.value = subtree.node;
      const auto [first, is_new] = parent.keys.emplace(entry.key, entry.key_mark);
      if (is_new)
        parent.node->entries.push_back(std::move(entry));
      else
        diagnostics_.error(entry.key_mark, fmt::format("the key \"{}\" is given twice", printable(entry.key)),
                           fmt::format("first given in line {}", first->second.line));
    }
  }

  const Source& source_;
  Diagnostics& diagnostics_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Subtree> anchors_;  // of finished nodes: an open one can only be aliased from inside
  Subtree root_;
  size_t total_ = 0;
  int documents_ = 0;
};

// What no line may hold, whatever YAML thinks of it. False: not to be parsed.
bool check_characters(const Source& source, Diagnostics& diagnostics) {
  const size_t before = diagnostics.errors();
  for (uint32_t number = 1; number <= source.lines(); ++number) {
    const std::string_view line = source.line(number);
    const auto at = [&](size_t i, size_t length = 1) {
      return Mark{number, static_cast<uint32_t>(i + 1), static_cast<uint32_t>(length)};
    };
    const size_t indent = line.find_first_not_of(" \t");
    const size_t tab = line.substr(0, indent).find('\t');
    if (tab != std::string_view::npos && indent != std::string_view::npos && line[indent] != '#')
      diagnostics.error(at(tab), "a tab in the indentation", "YAML indents with spaces");
    for (size_t i = 0; i < line.size();) {
      const size_t length = utf8_length(line, i);
      if (length == 0) {
        diagnostics.error(at(i), fmt::format("byte 0x{:02x} is not UTF-8", static_cast<uint8_t>(line[i])),
                          "save the file as UTF-8");
        break;
      }
      if (line[i] != '\t' && !is_printable(line, i, length)) {
        diagnostics.error(at(i, length), length == 1 ? fmt::format("control character 0x{:02x}", static_cast<uint8_t>(line[i]))
                                                     : std::string("an invisible character"),
                          "remove it");
        break;
      }
      i += length;
    }
  }
  return diagnostics.errors() == before;
}

struct Advice {
  std::string_view message;  // begin of what yaml-cpp says
  const char* text;          // what we say
  const char* hint;
};
constexpr std::array kAdvice = {
    Advice{"end of map not found", "this does not belong to the map it stands in", "is it indented as the keys around it?"},
    Advice{"end of sequence not found", "this does not belong to the list it stands in", "is it indented as the items around it?"},
    Advice{"end of map flow not found", "the map in braces that ends before here has no end", "a \"}\" or a closing quote is missing"},
    Advice{"end of sequence flow not found", "the list in brackets that ends before here has no end", "a \"]\" or a closing quote is missing"},
    Advice{"illegal map value", "a second \": \" in one value", "quote the value if it holds a colon and a space"},
    Advice{"illegal block entry", "a list item where none can be", "put it on a line of its own"},
    Advice{"illegal flow end", "a closing bracket that nothing opened", ""},
    Advice{"illegal EOF in scalar", "a quoted text without an end", "the closing quote is missing"},
    Advice{"the referenced anchor is not defined", "an alias for an anchor that does not exist", "define it with \"&\" above this line"},
};

void report_syntax(const YAML::Exception& e, const Source& source, Diagnostics& diagnostics) {
  Mark where = e.mark.is_null() ? Mark{} : to_mark(e.mark);
  // The end of the file is told as the line behind it, which cannot be shown.
  if (where.line > source.lines()) where = {source.lines(), static_cast<uint32_t>(source.line(source.lines()).size() + 1), 1};
  for (const Advice& advice : kAdvice)
    if (e.msg.compare(0, advice.message.size(), advice.message) == 0)
      return diagnostics.error(where, advice.text, advice.hint);
  diagnostics.error(where, "this is not YAML: " + printable(e.msg));
}

}  // namespace

const YamlNode::Entry* YamlNode::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

YamlPtr parse_yaml(const Source& source, Diagnostics& diagnostics) {
  if (source.text().size() > kMaxConfigBytes) {
    diagnostics.error({}, fmt::format("larger than {} bytes", kMaxConfigBytes), "split the file");
    return nullptr;
  }
  if (!check_characters(source, diagnostics)) return nullptr;
  try {
    std::istringstream text(source.text());
    YAML::Parser parser(text);
    TreeBuilder tree(source, diagnostics);
    while (parser.HandleNextDocument(tree)) {
    }
    if (!tree.root()) diagnostics.error({}, "the file is empty", "it needs at least \"devices:\"");
    return tree.root();
  } catch (const GiveUp&) {
  } catch (const YAML::Exception& e) {
    report_syntax(e, source, diagnostics);
  }
  return nullptr;
}

Result<std::string> read_config_file(const std::string& path) {
  const auto failed = [](int code) { return fail(code, std::strerror(code)); };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed(errno);
  std::string text;
  std::array<char, 65536> buffer;
  ssize_t got;
  while ((got = read(fd, buffer.data(), buffer.size())) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int code = errno;
      close(fd);
      return failed(code);
    }
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > kMaxConfigBytes) {
      close(fd);
      return fail(EFBIG, fmt::format("larger than {} bytes; split the file", kMaxConfigBytes));
    }
  }
  close(fd);
  if (text.compare(0, 3, "\xef\xbb\xbf") == 0) text.erase(0, 3);  // what some editors put first
  return text;
}

}  // namespace hookline::loader
