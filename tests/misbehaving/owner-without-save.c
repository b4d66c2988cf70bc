/* SPDX-License-Identifier: Apache-2.0 */
/* Owns migration and cannot do it. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("owner-without-save"), .claims = HOOKLINE_CLAIM_MIGRATION,
                                                   .model = "com.example/none", .migration_version = "1", .max_state = 1};
