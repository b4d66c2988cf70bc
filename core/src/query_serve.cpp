// SPDX-License-Identifier: Apache-2.0
#include <hookline/query_serve.hpp>

#include <cerrno>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include <hookline/chain_descriptor.hpp>

namespace hookline {

namespace {

QueryAnswer refusal(const Error& error) {
  return {error.code > 0 ? error.code : EIO, error.text};
}

/// What a turn of the loop leaves to the next.
struct Turn {
  uint64_t answered = 0;
  QueryAnswer answer{};
  // What was logged last, of calls that failed and of reads that were refused: anybody may read, and again.
  std::string trouble{}, untold{};
};

void log_refusal(Turn& turn, const Query& query, const QueryOptions& options) {
  const bool write = query.what == VFIO_PCI_HOOKS_QUERY_WRITE;
  if (!options.log || (!write && turn.answer.text == turn.untold)) return;
  if (!write) turn.untold = turn.answer.text;
  options.log(
      HOOKLINE_LOG_INFO, "",
      fmt::format("migration_version: {}: {}", write ? "refused" : "cannot be told", turn.answer.text));
}

/// Nothing: go on. The trouble of a call that failed is the caller's to log and to wait out.
Result<void> take_turn(Turn& turn, const NextQuery& next,
                       const std::function<QueryAnswer(const Query&)>& answer_to, const QueryOptions& options,
                       bool stop) {
  const Result<Query> query = next(turn.answered, turn.answer, stop ? 0 : options.idle_ms);
  const bool had_answer = std::exchange(turn.answered, 0) != 0;
  if (!query) {
    const int code = query.error().code;
    // EINVAL: nobody waits for this answer any more.
    if (code == ETIME || code == EINTR || (code == EINVAL && had_answer)) return {};
    return fail(query.error());
  }
  turn.trouble.clear();
  // Not begun: it waits for the next worker, or its time is over.
  if (stop) return {};
  turn.answer = answer_to(*query);
  turn.answered = query->id;
  if (turn.answer.code != 0) log_refusal(turn, *query, options);
  return {};
}

void say_once(Turn& turn, const QueryOptions& options, const std::string& trouble) {
  if (turn.trouble == trouble) return;
  turn.trouble = trouble;
  if (options.log)
    options.log(HOOKLINE_LOG_WARNING, "",
                fmt::format("migration_version cannot be served just now: {}; trying on", trouble));
}

}  // namespace

QueryAnswer answer_query(const Query& query, const Chain& chain, std::span<const std::string> values,
                         const std::string& config_space) {
  switch (query.what) {
    case VFIO_PCI_HOOKS_QUERY_READ: {
      Result<std::string> version = migration_version(chain, values, config_space);
      return version ? QueryAnswer{0, std::move(*version)} : refusal(version.error());
    }
    case VFIO_PCI_HOOKS_QUERY_WRITE: {
      const auto accepted = accept_source(chain, config_space, query.text);
      return accepted ? QueryAnswer{} : refusal(accepted.error());
    }
  }
  return {EOPNOTSUPP,
          fmt::format("the kernel asks question {}, which this hookline does not know: it is older than the "
                      "loaded module",
                      query.what)};
}

Result<void> serve_queries(const NextQuery& next, const std::function<QueryAnswer(const Query&)>& answer_to,
                           const QueryOptions& options) {
  Turn turn;
  for (;;) {
    const bool stop = options.should_stop && options.should_stop();
    try {
      const Result<void> ok = take_turn(turn, next, answer_to, options, stop);
      if (!stop && ok) continue;
      if (stop || ok.error().code == ENODEV) return {};
      if (ok.error().code == ENOTTY) return fail(ok.error());
      say_once(turn, options, ok.error().text);
    } catch (const std::exception&) {
      // Memory ran out, and there is none for a text of it.
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(options.idle_ms));
  }
}

Result<void> serve_queries(const Channel& channel, const Chain& chain, const std::string& config_space,
                           const QueryOptions& options) {
  return serve_queries([&](uint64_t answered, const QueryAnswer& answer,
                           int timeout_ms) { return channel.next_query(answered, answer, timeout_ms); },
                       // The values are asked for with each question: they may have been written since.
                       [&](const Query& query) {
                         const Result<std::vector<std::string>> values = channel.parameters();
                         return values ? answer_query(query, chain, *values, config_space)
                                       : refusal(values.error());
                       },
                       options);
}

}  // namespace hookline
