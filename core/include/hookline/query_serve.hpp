// SPDX-License-Identifier: Apache-2.0
//
// Answers to what is read from and written to a device's migration_version.
//
// Only what the chain declares and the values the kernel keeps take part: no code of a plugin runs here, so
// it may be another thread than the plugins', and a device answers whether it is open or not. Errors: an
// answer with an errno and the reason, which the kernel puts into its log; the same reason goes to the log
// given here.
//
//     std::jthread queries([&](std::stop_token) { serve_queries(channel, chain, config_space, {.log = log});
//     });
#pragma once

#include <functional>
#include <string>

#include <hookline/chain.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/open_device.hpp>

namespace hookline {

/// To one question, with the values the device's parameters have now. Pure.
QueryAnswer answer_query(const Query& query, const Chain& chain, std::span<const std::string> values,
                         const std::string& config_space);

struct QueryOptions {
  PluginLog log{};
  /// Asked between questions and every `idle_ms`.
  std::function<bool()> should_stop{};
  int idle_ms = 500;
};

/// Until the function leaves the driver or should_stop says so. ENOTTY: the loaded module is older than
/// questions. Whatever else goes wrong is logged once and tried again after `idle_ms`: a device is served for
/// as long as its guest runs, and shall answer that long.
Result<void> serve_queries(const Channel& channel, const Chain& chain, const std::string& config_space,
                           const QueryOptions& options = {});

/// The same with questions from elsewhere: `next` as Channel::next_query().
using NextQuery = std::function<Result<Query>(uint64_t answered, const QueryAnswer& answer, int timeout_ms)>;
Result<void> serve_queries(const NextQuery& next, const std::function<QueryAnswer(const Query&)>& answer_to,
                           const QueryOptions& options);

}  // namespace hookline
