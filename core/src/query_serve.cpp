// SPDX-License-Identifier: Apache-2.0
#include <hookline/query_serve.hpp>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include <hookline/chain_descriptor.hpp>

namespace hookline {

namespace {

QueryAnswer refusal(const Error& error) {
  return {error.code > 0 ? error.code : EIO, error.text};
}

/// The values are asked for with each question: they may have been written since.
QueryAnswer answer_now(const Channel& channel, const Query& query, const Chain& chain,
                       const std::string& config_space) {
  try {
    const Result<std::vector<std::string>> values = channel.parameters();
    if (!values) return refusal(values.error());
    return answer_query(query, chain, *values, config_space);
  } catch (const std::exception&) {
    return {ENOMEM, "no memory for the answer"};
  }
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

Result<void> serve_queries(const Channel& channel, const Chain& chain, const std::string& config_space,
                           const QueryOptions& options) {
  uint64_t answered = 0;
  QueryAnswer answer;
  for (;;) {
    const bool stop = options.should_stop && options.should_stop();
    const Result<Query> query = channel.next_query(answered, answer, stop ? 0 : options.idle_ms);
    const bool had_answer = std::exchange(answered, 0) != 0;
    if (!query) {
      const int code = query.error().code;
      if (stop || code == ENODEV) return {};
      if (code == ETIME || code == EINTR) continue;
      // Nobody waits for this answer any more.
      if (code == EINVAL && had_answer) continue;
      return fail(query.error());
    }
    // Not begun: it waits for the next worker, or its time is over.
    if (stop) return {};
    answer = answer_now(channel, *query, chain, config_space);
    answered = query->id;
    if (answer.code != 0 && options.log)
      options.log(
          HOOKLINE_LOG_INFO, "",
          fmt::format("migration_version: {}: {}",
                      query->what == VFIO_PCI_HOOKS_QUERY_WRITE ? "refused" : "cannot be told", answer.text));
  }
}

}  // namespace hookline
