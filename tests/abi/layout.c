/* SPDX-License-Identifier: Apache-2.0 */
/* Where everything of the plugin ABI lies in memory, a line each. Compiled against each header there was: no line may ever change. */
#include <stdio.h>

#include "hookline/plugin.h"

#define AT(type, field) printf("%s.%s at %zu, %zu bytes\n", #type, #field, offsetof(struct type, field), sizeof(((struct type*)0)->field))
#define SIZE(type) printf("%s has %zu bytes\n", #type, sizeof(struct type))

int main(void) {
  /* Passed by value or in arrays: these can never grow. */
  SIZE(hookline_abi);
  SIZE(hookline_device_id);
  SIZE(hookline_range);
  SIZE(hookline_register);
  SIZE(hookline_step);
  SIZE(hookline_program);
  SIZE(hookline_key);
  SIZE(hookline_value);

  AT(hookline_abi, magic);
  AT(hookline_abi, major);
  AT(hookline_abi, minor);
  AT(hookline_abi, size);
  AT(hookline_abi, required);

  AT(hookline_device_id, vendor);
  AT(hookline_device_id, device);
  AT(hookline_range, region);
  AT(hookline_range, ops);
  AT(hookline_range, offset);
  AT(hookline_range, length);
  AT(hookline_register, name);
  AT(hookline_register, region);
  AT(hookline_register, offset);
  AT(hookline_register, width);
  AT(hookline_step, op);
  AT(hookline_step, bar);
  AT(hookline_step, width);
  AT(hookline_step, slot);
  AT(hookline_step, offset);
  AT(hookline_step, mask);
  AT(hookline_step, value);
  AT(hookline_step, timeout_us);
  AT(hookline_program, steps);
  AT(hookline_program, nr_steps);
  AT(hookline_key, name);
  AT(hookline_key, help);
  AT(hookline_key, default_value);
  AT(hookline_key, choices);
  AT(hookline_key, type);
  AT(hookline_key, flags);
  AT(hookline_key, min);
  AT(hookline_key, max);
  AT(hookline_value, text);
  AT(hookline_value, number);
  AT(hookline_value, is_set);

  AT(hookline_access, op);
  AT(hookline_access, region);
  AT(hookline_access, offset);
  AT(hookline_access, length);
  AT(hookline_access, value);
  AT(hookline_access, host_private);
  AT(hookline_ioctl, op);
  AT(hookline_ioctl, number);
  AT(hookline_ioctl, data);
  AT(hookline_ioctl, length);
  AT(hookline_event, what);
  AT(hookline_event, from);
  AT(hookline_event, to);
  AT(hookline_pf_request, what);
  AT(hookline_pf_request, mac);
  AT(hookline_pf_request, vlan);
  AT(hookline_pf_request, qos);
  AT(hookline_pf_request, trusted);
  AT(hookline_pf_request, spoofcheck);
  AT(hookline_info, address);
  AT(hookline_info, vendor);
  AT(hookline_info, device);
  AT(hookline_info, vf_index);

  AT(hookline_host, size);
  AT(hookline_host, log);
  AT(hookline_host, fail);
  AT(hookline_host, read);
  AT(hookline_host, write);
  AT(hookline_host, run_rest);
  AT(hookline_host, map_bar);
  AT(hookline_host, shadow);
  AT(hookline_host, iova_read);
  AT(hookline_host, iova_write);
  AT(hookline_host, start_once);
  AT(hookline_host, saved);
  AT(hookline_host, pf_request);
  AT(hookline_host, put);
  AT(hookline_host, get);
  AT(hookline_host, reject);
  AT(hookline_host, now_ns);

  AT(hookline_plugin, abi);
  AT(hookline_plugin, name);
  AT(hookline_plugin, version);
  AT(hookline_plugin, summary);
  AT(hookline_plugin, model);
  AT(hookline_plugin, migration_version);
  AT(hookline_plugin, devices);
  AT(hookline_plugin, ranges);
  AT(hookline_plugin, registers);
  AT(hookline_plugin, keys);
  AT(hookline_plugin, nr_devices);
  AT(hookline_plugin, nr_ranges);
  AT(hookline_plugin, nr_registers);
  AT(hookline_plugin, nr_keys);
  AT(hookline_plugin, stop);
  AT(hookline_plugin, start);
  AT(hookline_plugin, reset);
  AT(hookline_plugin, ops_known);
  AT(hookline_plugin, unknown_op);
  AT(hookline_plugin, claims);
  AT(hookline_plugin, shadow_size);
  AT(hookline_plugin, max_state);
  AT(hookline_plugin, ioctls);
  AT(hookline_plugin, features);
  AT(hookline_plugin, open);
  AT(hookline_plugin, close);
  AT(hookline_plugin, access);
  AT(hookline_plugin, ioctl);
  AT(hookline_plugin, event);
  AT(hookline_plugin, save);
  AT(hookline_plugin, load);
  AT(hookline_plugin, apply);

#if HOOKLINE_ABI_MINOR >= 1
  SIZE(hookline_parameter);
  AT(hookline_parameter, name);
  AT(hookline_parameter, description);
  AT(hookline_parameter, init_value);
  AT(hookline_parameter, off_value);
  AT(hookline_parameter, allowed_values);
  AT(hookline_parameter, flags);
  AT(hookline_host, parameter);
  AT(hookline_host, stream_version);
  AT(hookline_plugin, parameters);
  AT(hookline_plugin, nr_parameters);
  AT(hookline_plugin, reads);
#endif
#if HOOKLINE_ABI_MINOR >= 2
  AT(hookline_host, touched);
  AT(hookline_host, reserve);
  AT(hookline_host, view);
  AT(hookline_plugin, save_bulk);
  AT(hookline_plugin, bulk_sizes);
  AT(hookline_plugin, load_bulk);
  AT(hookline_plugin, max_bulk);
#endif
  return 0;
}
