// SPDX-License-Identifier: Apache-2.0
//
// Whether the state of one device may go into another: what either says of itself, and the rules.
//
// A Descriptor has two texts, both JSON and both read by parse_descriptor(): the long one, `migration_info`, is all of
// it; the short one, `migration_version`, is what a destination needs to know of a source. The short text is what sysfs
// shows, what opens a state stream and what the command line takes, so that none of them can answer differently. The
// verdict depends on nothing but the two descriptors, and not on the values the destination's parameters have now:
// loading takes over the source's. Pure functions, any thread. Errors: EINVAL with the place and what is expected; no
// text, however hostile, does more than that.
//
//     const Result<Descriptor> source = parse_descriptor(text);
//     if (!source) return fail(source.error());
//     const Verdict verdict = check_compatibility(*source, own);
//     if (verdict.answer != Answered::yes) log(to_text(verdict));
//     for (const ParameterValue& p : values_for(*source, own)) set(p.name, p.value);
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/result.hpp>

namespace hookline {

/// Of a migration_version; what one read of sysfs can show without having been cut.
inline constexpr size_t kMaxMigrationVersion = 4095;
/// Of a migration_info.
inline constexpr size_t kMaxMigrationInfo = 65536;

struct ParameterValue {
  std::string name;
  std::string value;
  bool operator==(const ParameterValue&) const = default;
};

struct DescribedParameter {
  std::string name;
  std::string value;
  std::optional<std::string> init_value{}, off_value{}, allowed_values{};  ///< the short text has none
  std::string description{};
  bool runtime = false;  ///< may change while the device is open
  bool version = false;  ///< its value is the state version the device emits
  bool operator==(const DescribedParameter&) const = default;
};

/// A plugin besides the owner whose state must not be left out. It has no versions of its state, so that only the same
/// release is known to read it.
struct DescribedSection {
  std::string plugin;
  std::string version;  ///< the plugin's
  bool operator==(const DescribedSection&) const = default;
};

struct Descriptor {
  std::string model;             ///< reverse-domain, "com.example/toy"
  std::string plugin;            ///< whose state format it is
  std::string plugin_version{};  ///< for people; compatibility never depends on it
  std::string emits;             ///< state version
  std::optional<std::vector<std::string>> reads{};  ///< state versions; the short text does not tell
  std::vector<std::string> capabilities{};          ///< VFIO_MIGRATION_* by name
  std::vector<DescribedParameter> parameters{};
  std::vector<DescribedSection> sections{};
  std::string config{};                 ///< config_fingerprint(); empty: not known
  std::vector<std::string> required{};  ///< keys a reader has to know, or it cannot tell
  bool operator==(const Descriptor&) const = default;
};

/// Either text. EINVAL: no JSON, more than it may be, not printable ASCII, a key given twice, one of another type, one
/// missing. A key nobody here knows is not read.
Result<Descriptor> parse_descriptor(std::string_view text);

/// The long text, indented, with a newline at its end.
std::string migration_info(const Descriptor& descriptor);

/// The short text: one line; parameters only where they differ from their off values. EINVAL: what it says is not a
/// descriptor's. E2BIG: longer than kMaxMigrationVersion.
Result<std::string> migration_version(const Descriptor& descriptor);

enum class Answered { yes, no, unknown };
std::string_view to_string(Answered answer);

/// One reason, for programs (code) and people (text, fix). Source and dest: what either has; empty: nothing.
struct Reason {
  std::string code{};
  std::string field{};
  std::string source{};
  std::string dest{};
  std::string text{};
  std::string fix{};
  bool operator==(const Reason&) const = default;
};

struct Verdict {
  Answered answer = Answered::yes;
  std::vector<Reason> reasons{};  ///< empty exactly with yes; in the order of the rules
  /// Codes of rules that would have had a say and could not be asked; they change no answer.
  std::vector<std::string> unchecked{};
  bool operator==(const Verdict&) const = default;
};

/// All rules: every reason is found, not only the first.
Verdict check_compatibility(const Descriptor& source, const Descriptor& dest);

/// The reasons as one line without a newline; empty with yes.
std::string to_text(const Verdict& verdict);

/// What the destination's parameters become, in its order: the source's value where it is not the source's off value,
/// else the off value. Of compatible descriptors only.
std::vector<ParameterValue> values_for(const Descriptor& source, const Descriptor& dest);

}  // namespace hookline
