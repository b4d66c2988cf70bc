// SPDX-License-Identifier: Apache-2.0
//
// A chain as a Descriptor: the one way from plugins to what compatibility is decided on.
//
// The worker's stream, its answers for sysfs, and the command line's type level all come through here. Pure functions,
// any thread. Errors: EOPNOTSUPP without a migration owner, E2BIG or EINVAL where its texts make no descriptor.
//
//     const Result<Descriptor> own = describe_chain(chain, device.parameters(), config_space);
//     const Result<std::string> version = migration_version(*own);
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/chain.hpp>
#include <hookline/compatibility.hpp>

namespace hookline {

/// `values`: one for each of chain.parameters(), as the device has them now. `config`: config_fingerprint() of the
/// function; empty: not known, or not asked of a device at all.
Result<Descriptor> describe_chain(const Chain& chain, std::span<const std::string> values, std::string config = {});

/// The same with the values of a new device: what plugins and a configuration say without any device.
Result<Descriptor> describe_chain(const Chain& chain);

/// What the chain's device says of itself to a destination: in sysfs, and as the first record of its streams.
Result<std::string> migration_version(const Chain& chain, std::span<const std::string> values, std::string config);

/// What a device takes over from a source it accepts.
struct Accepted {
  std::string version;              ///< of the state that comes
  std::vector<std::string> values;  ///< one for each of chain.parameters()
};

/// The answer to a source's migration_version, written to sysfs or opening a stream: nothing else decides. EINVAL: no,
/// or nobody can tell; the text has every reason and what to do.
Result<Accepted> accept_source(const Chain& chain, const std::string& config, std::string_view version);

}  // namespace hookline
