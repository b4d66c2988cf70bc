// SPDX-License-Identifier: Apache-2.0
//
// The chain of a device: its plugins in the order of the configuration, and what they ask for together.
//
// Built once, then immutable and without code of its own: any thread may read it. The plugins' libraries stay
// mapped as long as the chain lives. Errors: Result; a refusal names every plugin that takes part in it.
//
//     Result<Link> link = make_link(plugin_object, options, library);
//     Result<Chain> chain = build_chain(std::move(links));
//     define(chain->ranges(), chain->shadow_size(), chain->stop(), ...);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/plugin.h>
#include <hookline/result.hpp>

namespace hookline {

/// The value of one option of a plugin, in the order of its keys; already checked against the key.
struct OptionValue {
  std::string text{};   ///< STRING, CHOICE
  uint64_t number = 0;  ///< UINT; BOOL: 0 or 1
  bool is_set = false;
};

struct Link {
  hookline_plugin plugin{};  ///< as this host knows the structure; what an older plugin lacks is zero
  std::vector<OptionValue> options{};
  std::shared_ptr<const void> library{};  ///< keeps what the plugin's pointers point to
  uint32_t shadow_offset = 0;             ///< of its slice in the chain's shadow; build_chain() sets it

  std::string_view name() const { return plugin.name; }
  bool owns_migration() const { return plugin.claims & HOOKLINE_CLAIM_MIGRATION; }
  /// Lets pass what it does not know, so that it may be left out of an operation.
  bool is_observer() const { return plugin.unknown_op == HOOKLINE_UNKNOWN_PASS; }
  bool saves() const { return plugin.save != nullptr; }
};

/// Takes over a plugin object as its library exports it. No code of the plugin runs. Fewer options than keys:
/// the rest is not set. EPROTONOSUPPORT: another ABI or a missing feature of the host; EINVAL: an object that
/// breaks the ABI.
Result<Link> make_link(const hookline_plugin& exported, std::vector<OptionValue> options = {},
                       std::shared_ptr<const void> library = nullptr);

class Chain {
 public:
  /// First asked first.
  std::span<const Link> links() const { return links_; }
  /// The link that moves the device; none: the device does not migrate.
  std::optional<size_t> owner() const { return owner_; }

  /// What the VMM's accesses are trapped in: sorted, disjoint, adjacent ranges with the same operations
  /// joined.
  std::span<const hookline_range> ranges() const { return ranges_; }
  uint32_t ioctls() const { return ioctls_; }
  uint32_t features() const { return features_; }
  uint32_t shadow_size() const { return shadow_size_; }
  /// True if a link must not be left out of an operation: without a worker, accesses should rather fail.
  bool has_guard() const { return has_guard_; }

  // The owner's register programs; empty without an owner.
  std::span<const hookline_step> stop() const { return stop_; }
  std::span<const hookline_step> start() const { return start_; }
  std::span<const hookline_step> reset() const { return reset_; }

  /// The owner's migration parameters, as its library declares them.
  std::span<const hookline_parameter> parameters() const { return parameters_; }
  /// Which of them is the state version that is emitted.
  std::optional<size_t> version_parameter() const { return version_parameter_; }
  /// The state versions the owner's load() takes.
  std::span<const std::string> reads() const { return reads_; }
  /// What a new device's parameters hold.
  std::vector<std::string> init_values() const;
  /// The state version that is emitted with these values of the parameters; empty without an owner.
  std::string emits(std::span<const std::string> values) const;
  /// EINVAL unless there is an allowed value for each parameter; names the parameter and what is allowed.
  Result<void> check_values(std::span<const std::string> values) const;

  /// Upper bound of the whole device-state stream in bytes, framing included; 0 without an owner.
  uint64_t max_state() const { return max_state_; }
  /// Of it what save() makes, with the match record and the trailer.
  uint64_t max_save() const { return max_save_; }
  /// Upper bound of one complete pass of the owner's save_bulk(), framing included; 0: it has none.
  uint64_t max_bulk_pass() const { return max_bulk_pass_; }

 private:
  friend Result<Chain> build_chain(std::vector<Link> links);
  Chain() = default;

  std::vector<Link> links_;
  std::optional<size_t> owner_;
  std::vector<hookline_range> ranges_;
  uint32_t ioctls_ = 0, features_ = 0, shadow_size_ = 0;
  bool has_guard_ = false;
  std::span<const hookline_step> stop_, start_, reset_;  // in the owner's library
  std::span<const hookline_parameter> parameters_;       // in the owner's library
  std::optional<size_t> version_parameter_;
  std::vector<std::string> reads_;
  uint64_t max_state_ = 0, max_save_ = 0, max_bulk_pass_ = 0;
};

/// EINVAL for links that cannot stand together: no link, the same plugin twice, two owners, two guards on the
/// same bytes, a guard that does not know an operation another link uses, too much shadow, too many ranges, a
/// program that is too long or wrong, migration parameters that make no sense.
Result<Chain> build_chain(std::vector<Link> links);

}  // namespace hookline
