// SPDX-License-Identifier: Apache-2.0
//
// A software device with the plugin gpu-bochs in front of a VGA display whose memory is little: the seeds of gpu_state_fuzz are
// its states.
//
// Thread rule: one thread. Errors: Result. At most two at a time, which are told apart by `index`.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <hookline/software_device.hpp>

#include "plugins/gpu-bochs/model/display.hpp"

namespace hookline::fuzz {

constexpr size_t kSmallVram = 64 << 10;
inline gpu_bochs::Display* small_displays[2];

inline Result<std::unique_ptr<SoftwareDevice>> small_display(uint32_t index) {
  static const hookline_model model = [] {
    hookline_model m = hookline_model_v1;
    m.bar_size[0] = kSmallVram;
    m.create = [](const hookline_model_host*, uint32_t i) -> void* {
      return small_displays[i] = new gpu_bochs::Display(gpu_bochs::Kind::vga, kSmallVram);
    };
    return m;
  }();
  auto link = make_link(hookline_plugin_v1);
  if (!link) return fail(link.error());
  std::vector<Link> links;
  links.push_back(std::move(*link));
  auto chain = build_chain(std::move(links));
  if (!chain) return fail(chain.error());
  SoftwareDevice::Options options;
  options.index = index;
  return SoftwareDevice::create(model, std::move(*chain), std::move(options));
}

}  // namespace hookline::fuzz
