// SPDX-License-Identifier: Apache-2.0
//
// What a plugin's requests changed on the PF's side of a VF, and how it is put back: the rules, without a device.
//
// Pure functions, any thread. A setting that somebody else has changed since is theirs, and stays.
//
//     PfChange change = with_request(earlier, address, settings_of(now), request);   // remember, then perform
//     for (const hookline_pf_request& request : put_back(change, settings_of(now))) ...
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "device_record.hpp"
#include "hookline/plugin.h"

namespace hookline::loader {

/// Of an answer to HOOKLINE_PF_GET.
PfSettings settings_of(const hookline_pf_request& answer);

/// What is to be written down before `request`, a SET, is performed on a VF whose settings are `now`.
PfChange with_request(const std::optional<PfChange>& earlier, const PciAddress& address, const PfSettings& now,
                      const hookline_pf_request& request);

/// The requests that bring a VF with the settings `now` back to what was found. Empty: nothing to do.
std::vector<hookline_pf_request> put_back(const PfChange& change, const PfSettings& now);

/// "the address 02:00:00:00:00:99", "VLAN 7 with priority 3"
std::string describe(const hookline_pf_request& request);

}  // namespace hookline::loader
